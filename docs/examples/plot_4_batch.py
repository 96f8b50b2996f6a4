"""A batch of circuits
===================

Arrays of parameters make a batch that runs at once: here ten values of gamma, on the same weights
and inputs. Results are labelled by ``circuit``, so that xarray can slice them.
"""

import matplotlib.pyplot as plt
import numpy as np

import circuitsim as cs
from circuitsim.plots.style import ENDS, rule_style

gammas = np.geomspace(1e-3, 1, 10)
rng = np.random.default_rng(0)
w_init = 1 + rng.standard_normal((100, 9))
inputs = rng.standard_normal((2000, 9))
plasticity = cs.Plasticity("mean_subtracted", gamma=gammas)
run = cs.simulate(w_init, inputs, plasticity=plasticity, engine="propagator")
last = run.inverse_snr_w.assign_coords(circuit=gammas).isel(presentation=-1)

figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
colour, marker = rule_style("mean_subtracted")
axis.loglog(last.circuit, last, marker, color=colour, label="after 2,000 presentations")
dash, name = ENDS["theory"]
least = cs.theory.minimum_inverse_snr_w(gammas)
axis.loglog(gammas, least, linestyle=dash, color=colour, label=name)
axis.set(xlabel="gamma", ylabel="inverse SNR of the weights\n(lower = more alike)")
axis.legend()
plt.show()
