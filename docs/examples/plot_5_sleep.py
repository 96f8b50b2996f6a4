"""A layer falls asleep
====================

A locally connected layer has a kernel of its own at each position (left). Asleep, its positions
see one repeated pattern after another, and those that see the same become alike (right): there are
3 x 3 pools, and so nine different kernels are left.
"""

import matplotlib.pyplot as plt
import numpy as np

from circuitsim.vision.geometry import Geometry
from circuitsim.vision.sharing import Sharing, layer_snr_w

geometry = Geometry((12, 12), kernel=3, padding=1)
rng = np.random.default_rng(0)
blob = np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]])[:, :, None, None]
weights = blob + 0.7 * rng.standard_normal((12, 12, 3, 3, 1, 1))
asleep = Sharing("inhibition_gated").share(weights, geometry, seed=1)

figure, axes = plt.subplots(1, 2, figsize=(7, 3.8), layout="constrained")
for axis, shown, when in zip(axes, (weights, asleep), ("awake", "asleep"), strict=True):
    kernels = np.full((12, 4, 12, 4), np.nan)  # a gap after each kernel
    kernels[:, :3, :, :3] = shown[..., 0, 0].transpose(0, 2, 1, 3)
    axis.imshow(kernels.reshape(48, 48), cmap="RdBu_r", vmin=-3, vmax=3)
    axis.set_title(f"{when}: SNR {layer_snr_w(shown, geometry):.3g}")
    axis.axis("off")
plt.show()
