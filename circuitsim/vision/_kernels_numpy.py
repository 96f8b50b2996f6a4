"""What layers and optimisers do to a row of positions or a piece of an array, in NumPy.

Rows are (column, channel, image). Whoever calls may do so from several threads at once: no function
here writes anything but what it is given to write.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from circuitsim.vision.geometry import Geometry

Array = NDArray[Any]

PIECE = 2**15  # numbers that an optimiser updates at a time, while they are in a core's cache


class Products:
    """The matrix products of receptive fields, for one row of positions at a time.

    Weights are (kernel row, kernel column, channel of a group, output), with the axes row and
    column of the positions before them unless all positions share them.

    Parameters
    ----------
    geometry : Geometry
    in_channels, out_channels, groups : int
    shared : bool
        Whether all positions have the same weights.
    """

    def __init__(
        self, geometry: Geometry, in_channels: int, out_channels: int, groups: int, shared: bool
    ) -> None:
        self._geometry, self._groups, self._shared = geometry, groups, shared
        self._inputs, self._outputs = in_channels // groups, out_channels // groups

    def forward(self, weights: Array, padded: Array, p: int, y: Array) -> None:
        """Set ``y[p]`` to the weighted sums of the fields of row ``p``."""
        _, columns, _, images = y.shape
        kernels = self._by_group(weights).swapaxes(-1, -2)
        out = y[p].reshape(columns, self._groups, -1, images)
        first = p * self._geometry.stride
        np.matmul(self._row(kernels, p, 0), self._fields(padded, first), out=out)
        for i in range(1, self._geometry.kernel):
            out += np.matmul(self._row(kernels, p, i), self._fields(padded, first + i))

    def weight_gradient(self, padded: Array, gradient: Array, p: int, out: Array) -> None:
        """Set ``out`` to what row ``p`` of the outputs' gradient adds to that of the weights.

        Where weights are not shared ``out`` holds those of all positions, and row ``p`` is set.
        """
        columns, images = gradient.shape[1], gradient.shape[3]
        result = self._by_group(out)
        of_outputs = gradient[p].reshape(columns, self._groups, -1, images).swapaxes(-1, -2)
        for i in range(self._geometry.kernel):
            fields = self._fields(padded, p * self._geometry.stride + i)
            if self._shared:
                np.matmul(fields, of_outputs).sum(axis=0, out=result[i])
            else:
                np.matmul(fields, of_outputs, out=result[p, :, i])

    def input_gradient(
        self, weights: Array, gradient: Array, h: int, out: Array, add: bool
    ) -> None:
        """Set ``out[h]`` to the gradient with respect to row ``h`` of the input, or add that."""
        kernel, stride, padding = (
            self._geometry.kernel,
            self._geometry.stride,
            self._geometry.padding,
        )
        rows, columns, _, images = gradient.shape
        width = out.shape[1]
        kernels = self._by_group(weights)
        total = np.zeros((width + 2 * padding, self._groups, self._inputs, images), out.dtype)
        for i in range(kernel):
            p, rest = divmod(h + padding - i, stride)
            if rest or not 0 <= p < rows:
                continue
            of_outputs = gradient[p].reshape(columns, self._groups, -1, images)
            parts = np.matmul(self._row(kernels, p, i), of_outputs)
            parts = parts.reshape(columns, self._groups, kernel, -1, images)
            for j in range(kernel):
                total[j : j + stride * (columns - 1) + 1 : stride] += parts[:, :, j]
        found = total[padding : padding + width].reshape(out.shape[1:])
        if add:
            out[h] += found
        else:
            out[h] = found

    def _fields(self, padded: Array, h: int) -> Array:
        """One input row as all fields see it: (position, group, kernel column and channel, image).

        A view where there is one group.
        """
        geometry, groups, channels = self._geometry, self._groups, self._inputs
        column, channel, image = padded.strides[1:]
        columns = geometry.output_shape[1]
        shape = (columns, groups, geometry.kernel, channels, padded.shape[3])
        strides = (column * geometry.stride, channels * channel, column, channel, image)
        fields = as_strided(padded[h], shape, strides)
        return fields.reshape(columns, groups, geometry.kernel * channels, -1)

    def _by_group(self, weights: Array) -> Array:
        """A view ([row, column,] kernel row, group, kernel column and channel, output)."""
        kernel, leading = self._geometry.kernel, weights.shape[:-4]
        inputs = kernel * self._inputs
        by_input = weights.reshape(*leading, kernel, inputs, self._groups, self._outputs)
        return by_input.swapaxes(-2, -3)

    def _row(self, kernels: Array, p: int, i: int) -> Array:
        return kernels[i] if self._shared else kernels[p, :, i]


products = lru_cache(maxsize=256)(Products)


def moments(x: Array, mean: Array, squares: Array) -> None:
    """Set the mean of each channel of a row, and the sum of squared deviations from it."""
    columns, _, images = x.shape
    mean[...] = x.sum(axis=0).sum(axis=1) / (columns * images)
    deviations = x - mean.astype(x.dtype)[:, None]
    np.square(deviations, out=deviations)
    squares[...] = deviations.sum(axis=0).sum(axis=1)


def normalise(
    x: Array,
    factor: Array,
    addend: Array,
    shortcut: Array | None,
    stride: int,
    rectify: bool,
    y: Array,
) -> None:
    """Set y = factor x + addend + shortcut, and what is negative to 0 if it is to be rectified.

    ``factor`` and ``addend`` are those of channels. Of the shortcut's columns every ``stride``-th
    counts; it has at most as many channels as x, and is added to those in the middle.
    """
    np.multiply(x, factor[:, None], out=y)
    y += addend[:, None]
    if shortcut is not None:
        middle(y, shortcut.shape[1])[...] += shortcut[::stride]
    if rectify:
        np.maximum(y, 0, out=y)


def middle(row: Array, channels: int) -> Array:
    """Return a view of so many channels in the middle."""
    first = (row.shape[-2] - channels) // 2
    return row[..., first : first + channels, :]


def sums(
    gradient: Array, y: Array | None, x: Array, mean: Array, total: Array, product: Array
) -> None:
    """Sum the gradient of a row over each channel, and its product with x - mean.

    Where ``y``, the rectified output, is not positive, the gradient is set to 0 first.
    """
    if y is not None:
        gradient *= y > 0
    total[...] = gradient.sum(axis=0).sum(axis=1)
    deviations = x - mean[:, None]
    deviations *= gradient
    product[...] = deviations.sum(axis=0).sum(axis=1)


def unnormalise(gradient: Array, factor: Array, slope: Array, addend: Array, x: Array) -> None:
    """Set x = factor gradient + slope x + addend, which is the gradient before batch norm."""
    x *= slope[:, None]
    x += addend[:, None]
    x += gradient * factor[:, None]


def pull(weights: Array, rows: slice, columns: slice, left: float) -> None:
    """Leave a share of some positions' deviations from their mean.

    Weights are (row, column, number), contiguous; slices have a start, a stop and a step.
    """
    kernels = weights[rows, columns]
    mean = kernels.mean(axis=(0, 1), dtype=np.float64)
    kernels[...] = mean + left * (kernels - mean) if left else mean


def sgd(
    parameter: Array, gradient: Array, moments: list[Array], numbers: tuple[float, ...]
) -> None:
    """Change a piece of the parameters; see `optimisers.SGD`."""
    (velocity,) = moments
    momentum, decay, rate = numbers
    velocity *= momentum
    velocity += gradient
    if decay:
        velocity += decay * parameter
    parameter -= rate * velocity


def adamw(
    parameter: Array, gradient: Array, moments: list[Array], numbers: tuple[float, ...]
) -> None:
    """Change a piece of the parameters; see `optimisers.AdamW`."""
    mean, square = moments
    first, second, correction, epsilon, rate, kept = numbers
    mean *= first
    mean += (1 - first) * gradient
    square *= second
    change = np.square(gradient)
    change *= 1 - second
    square += change
    np.sqrt(square, out=change)
    change *= correction
    change += epsilon
    np.divide(mean, change, out=change)
    change *= rate
    parameter *= kept
    parameter -= change
