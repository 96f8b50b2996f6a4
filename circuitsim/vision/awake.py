"""Sharing without sleep: noise of period k shares the weights of a layer while its network learns.

In some batches each image has beside it noise that has nothing to do with the task: a Gaussian
pattern of kernel x kernel x channels, repeated over the layer's input, so that all neurons of a
pool (`circuitsim.vision.pools`) see the same xi. What a neuron answers to it, z = w.xi, less its
mean over the pool, zbar (lateral inhibition), is added to what it answers to the image, y, and the
sum goes on through the network. Beside the step of gradient descent weights follow the anti-Hebbian
product of output and noise, averaged over the B images of the batch:

    w <- w - rate mean_B((y + z - zbar) xi).

y and xi are independent, and xi xi^T is the identity on average. So on average over the noise

* deviations from the pool's mean are multiplied by 1 - rate in each batch with noise;
* the mean stays what it is.

The sum of their squares, without y, is multiplied by (1 - rate)^2 + rate^2 (K + 1)/B, for K inputs
of a neuron, on average: the noise is a sample, and a rate from 2/(1 + (K + 1)/B) up makes
deviations grow. y adds a random walk to weights, of the variance rate^2 mean(y^2)/B in a batch.
See `decay`. Border positions that are awake, in the sense of ``Sharing.border``, get no noise.

It costs another forward pass of the layer and another gradient of its weights, two thirds of what
the layer costs without, and noise to be drawn, in the batches that have it: their steps take about
0.8 times longer (``benchmarks/sharing.py --steps``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError, dimensionless, in_range, integer
from circuitsim.public import own
from circuitsim.vision import memory
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.layers import Array, LocallyConnected2D
from circuitsim.vision.pools import Pool

__dir__ = own(__name__, "RATE")

RATE = 0.1  # by default


class Decay(NamedTuple):
    """What a batch with noise leaves, on average; see `decay`.

    Attributes
    ----------
    deviation : float
        Factor of deviations from the mean weights of a pool, averaged over the noise.
    square : float
        Factor of the sum of their squares, without answers to images.
    """

    deviation: float
    square: float


def decay(rate: float, n_inputs: int, images: int) -> Decay:
    """What a batch with noise leaves of deviations: 1 - rate, (1 - rate)^2 + rate^2 (K + 1)/B.

    Parameters
    ----------
    rate : float
        > 0.
    n_inputs : int
        K, of a neuron; >= 1.
    images : int
        B, in the batch; >= 1.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> decay(0.1, 27, 128).deviation
    0.9
    """
    in_range("rate", dimensionless("rate", rate), rate, above=0)
    spread = (integer("n_inputs", n_inputs, minimum=1) + 1) / integer("images", images, minimum=1)
    return Decay(1 - rate, (1 - rate) ** 2 + rate**2 * spread)


def check_rate(rate: float, n_inputs: int, images: int) -> None:
    """Refuse a rate that makes deviations grow.

    Raises
    ------
    ParameterError
    """
    if decay(rate, n_inputs, images).square >= 1:
        raise ParameterError(
            "Sharing.learning_rate",
            f"must be below {2 / (1 + (n_inputs + 1) / images):.3g} for neurons with {n_inputs} "
            f"inputs and batches of {images} images, or noise makes weights differ more",
            rate,
        )


@dataclass
class Disturbance:
    """Noise for a layer's next `forward`, and what comes of it.

    Parameters
    ----------
    noise : array, shape (row, column, channel, image)
        With the layer's padding around it.
    sleeping : list of Pool
        Those that share weights.

    Attributes
    ----------
    product : array, optional
        Mean over images of the layer's output times its noise, in the layout of its weights; None
        before the forward pass.
    seconds : float
        What it took.
    """

    noise: Array
    sleeping: list[Pool]
    product: Array | None = None
    seconds: float = 0.0

    @classmethod
    def drawn(
        cls,
        layer: LocallyConnected2D,
        sleeping: list[Pool],
        images: int,
        rng: np.random.Generator,
        border: str = "asleep",
    ) -> Disturbance:
        """Draw noise for a layer, one pattern for each image.

        Parameters
        ----------
        layer : LocallyConnected2D
            It gets the noise.
        sleeping : list of Pool
            Those that share weights, as `circuitsim.vision.sharing.Sharing.pools` gives them.
        images : int
            In the batch.
        rng : numpy.random.Generator
            Draws it.
        border : {"asleep", "awake"}
            Whether noise goes on into the padding.
        """
        began = time.monotonic()
        k, dtype = layer.geometry.kernel, layer.weights.dtype
        shape = (k, k, layer.in_channels, images)
        pattern = rng.standard_normal(shape, dtype=dtype.type)
        frame = repeated(pattern, layer.geometry, border)
        return cls(frame, sleeping, seconds=time.monotonic() - began)

    def subtract_means(self, response: Array) -> None:
        """Subtract the mean over each pool, in place, and answers of positions that are in none."""
        inside = np.zeros(response.shape[:2], bool)
        for pool in self.sleeping:
            of_pool = response[pool.rows, pool.columns]
            of_pool -= of_pool.mean(axis=(0, 1))
            inside[pool.rows, pool.columns] = True
        response[~inside] = 0

    def learn(self, layer: LocallyConnected2D, rate: float) -> None:
        """Let a layer's weights follow the anti-Hebbian product, in place.

        Raises
        ------
        RuntimeError
            If the layer has not been run forward since the noise was drawn.
        """
        if self.product is None:
            raise RuntimeError("learning from noise needs a forward pass before it")
        for pool in self.sleeping:
            weights = layer.weights[pool.rows, pool.columns]
            weights -= weights.dtype.type(rate) * self.product[pool.rows, pool.columns]


def repeated(pattern: NDArray[np.floating], geometry: Geometry, border: str = "asleep") -> Array:
    """Repeat patterns over a layer's input.

    Parameters
    ----------
    pattern : ndarray, shape (kernel, kernel, channel, image)
        What the sheet repeats; it starts at the input's first row and column.
    geometry : Geometry
        Of the layer.
    border : {"asleep", "awake"}
        Whether it goes on into the padding, or there are zeros.

    Returns
    -------
    array, shape (row, column, channel, image)
        With the padding around it.
    """
    p, k = geometry.padding, geometry.kernel
    rows, columns = geometry.input_shape
    frame = memory.empty((rows + 2 * p, columns + 2 * p, *pattern.shape[2:]), pattern.dtype)
    along = (np.arange(columns + 2 * p) - p) % k
    for row in range(rows + 2 * p):
        frame[row] = pattern[(row - p) % k, along]
    if border == "awake" and p:
        frame[:p] = frame[-p:] = 0
        frame[:, :p] = frame[:, -p:] = 0
    return frame
