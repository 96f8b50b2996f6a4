"""Initial weights of a pool: a mean kernel that its neurons have in common, and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import count, generator, one_of
from circuitsim.public import own

__dir__ = own(__name__, "MEANS")

MEANS = ("ones", "gabor", "normal")


def mean_kernel(
    mean: str, k: int, rng: np.random.Generator, channels: int = 1
) -> NDArray[np.float64]:
    """Return the mean kernel of a pool's initial weights.

    Parameters
    ----------
    mean : str
        ``"ones"``, as published: 1 everywhere, so that all pools are alike; ``"gabor"``: a grating
        under a Gaussian, with an orientation, phase, wavelength and colour of its own; or
        ``"normal"``: independent numbers N(0, 1). The latter two have a mean square of 1, too, so
        that they are as strong against the noise as the first.
    k : int
        Rows, and columns.
    rng : numpy.random.Generator
        Draws what differs between pools.
    channels : int
        Channels of the inputs.

    Returns
    -------
    ndarray, shape (input,)
        Inputs in the order (row, column, channel).

    Raises
    ------
    ParameterError
        If a value is out of its range, or there is no such mean.

    Examples
    --------
    >>> mean_kernel("ones", 2, np.random.default_rng(0)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    one_of("mean", mean, MEANS)
    count("k", k, minimum=1)
    count("channels", channels, minimum=1)
    generator("rng", rng)
    if mean == "ones":
        return np.ones(k * k * channels)
    if mean == "normal":
        kernel = rng.standard_normal((k, k, channels))
    else:
        x, y = np.meshgrid(*2 * (np.arange(k) - (k - 1) / 2,))
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        wavelength = rng.uniform(0.6, 1.2) * max(k, 3)
        along = x * np.cos(angle) + y * np.sin(angle)
        grating = np.cos(2 * np.pi * along / wavelength + phase)
        window = np.exp(-(x**2 + y**2) / (2 * (0.3 * max(k, 3)) ** 2))
        colour = rng.standard_normal(channels)
        kernel = (grating * window)[:, :, np.newaxis] * colour
    return np.asarray(kernel / np.sqrt(np.mean(kernel**2))).reshape(-1)
