"""Rates settle, the mean rings
============================

Each input is held for 150 ms. Deviations from the pool's mean rate relax with the time constant
tau = 30 ms; the mean, which excitation and inhibition share, rings with sqrt(alpha)/tau on its way
to the fast fixed point (dashed).
"""

import matplotlib.pyplot as plt
import numpy as np
from brian2 import ms

import circuitsim as cs
from circuitsim.plots.style import COLOURS, paper

rng = np.random.default_rng(0)
w_init = 1 + rng.standard_normal((100, 9))
inputs = rng.standard_normal((3, 9))
circuit = cs.Circuit(alpha=30.0)
run = cs.simulate(w_init, inputs, circuit, dt=0.25 * ms, engine="propagator", record_rates=True)

with paper():
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(5.5, 4))
for neuron in range(5):
    trace = run.rate_trace.isel(neuron=neuron)
    above.plot(run.time, trace, linewidth=1, color=COLOURS[neuron])
below.plot(run.time, run.rate_inh_trace, color="black")
for number, x in enumerate(inputs):
    settled = cs.theory.fast_fixed_point(w_init @ x, alpha=30.0)
    held = (150 * number, 150 * (number + 1))
    below.hlines(settled.rate_inh, *held, color=COLOURS[1], linestyle="--")
above.set(ylabel="rates of five neurons")
below.set(xlabel="time (ms)", ylabel="rate of the interneuron")
plt.show()
