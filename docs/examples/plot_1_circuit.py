"""Ten lines: the weights of a pool become alike
=============================================

A pool of 100 neurons, each with nine weights of its own, sees 2,000 random patterns. The circuit
pulls the weights together: their inverse signal-to-noise ratio falls below the circuit's own end
point (dash-dotted) and returns, as the mean weights decay too; the paper's theoretical minimum
(dotted) stays out of reach.
"""

import matplotlib.pyplot as plt
import numpy as np

import circuitsim as cs
from circuitsim.plots.style import ENDS, rule_style

rng = np.random.default_rng(0)
w_init = 1 + rng.standard_normal((100, 9))  # (neuron, input)
inputs = rng.standard_normal((2000, 9))  # (presentation, input)
run = cs.simulate(w_init, inputs, engine="propagator")  # the published circuit

own = cs.theory.fixed_point(w_init, gamma=0.01, rule="circuit", alpha=10.0)
ideal = cs.theory.fixed_point(w_init, gamma=0.01, rule="mean_subtracted")

figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
colour, _ = rule_style("circuit")
axis.semilogy(run.presentation, run.inverse_snr_w, color=colour)
for end, weights in (("settled", own), ("theory", ideal)):
    dash, name = ENDS[end]
    level = float(cs.measures.inverse_snr_w(weights))
    axis.axhline(level, color=colour, linestyle=dash, label=name)
axis.set(xlabel="presentations", ylabel="inverse SNR of the weights\n(lower = more alike)")
axis.legend()
plt.show()
