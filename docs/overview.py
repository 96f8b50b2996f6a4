"""Draw the picture that opens the README: ``python docs/overview.py`` writes figures/overview.png.

The circuit of the paper puts a pool to sleep whose neurons have one Gabor kernel in common, and
noise of their own.
"""

from pathlib import Path

import numpy as np

import circuitsim as cs
from circuitsim import plots
from circuitsim.initial import mean_kernel

rng = np.random.default_rng(0)
w_init = mean_kernel("gabor", 9, rng) + rng.standard_normal((100, 81))  # (neuron, input)
inputs = rng.standard_normal((2000, 81))  # (presentation, input)
run = cs.simulate(w_init, inputs, cs.Circuit(alpha=50.0), engine="propagator")
snr = float(run.snr_w[0]), float(run.snr_w[-1])
picture = plots.overview(w_init, run.weights, snr)
plots.save(picture, Path(__file__).parents[1] / "figures" / "overview.png")
