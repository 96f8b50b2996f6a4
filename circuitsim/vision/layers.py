"""Layers of image classifiers, forward and backward, in NumPy.

Activations are (row, column, channel, image). With the image last, the part of a padded input that
a row of a receptive field covers, (column, channel, image), is one matrix in memory, so that a
locally connected layer is a batched matrix product over positions that copies no patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from circuitsim.public import own
from circuitsim.validation import ParameterError, in_range, integer
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.parallel import over

__dir__ = own(__name__)

Array = NDArray[Any]  # float32 or float64, as the layer was made


class Layer:
    """What layers have in common.

    Attributes
    ----------
    parameters : dict of str to array
        What an optimiser changes, in place.
    gradients : dict of str to array
        Those of the loss with respect to the parameters, after `backward`.
    state : dict of str to array
        What else a trained layer consists of.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self._kept: Any = None

    def named(self, name: str) -> Iterator[tuple[str, Layer]]:
        """Give this layer and those within it, by their full names."""
        yield name, self

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the layer's output.

        Parameters
        ----------
        x : array, shape (row, column, channel, image)
            The input; it is not changed.
        training : bool
            Keep what `backward` needs, and let batch norm use the statistics of this batch.
        """
        raise NotImplementedError

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        """Set `gradients`, and return the gradient with respect to the input.

        Parameters
        ----------
        gradient : array
            Of the loss with respect to the output of the last `forward` in training. It may be
            overwritten.
        wanted : bool
            Whether the gradient with respect to the input is wanted; else what is returned has no
            meaning.

        Raises
        ------
        RuntimeError
            If the last forward was not in training, or its gradient has been taken already.
        """
        raise NotImplementedError

    def _taken(self) -> Any:
        kept, self._kept = self._kept, None
        if kept is None:
            raise RuntimeError("backward needs a forward(x, training=True) before it")
        return kept


class _Local(Layer):
    """What a convolution and a locally connected layer share: all but where their weights lie."""

    def __init__(
        self,
        input_shape: tuple[int, int],
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
        *,
        rng: np.random.Generator | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.geometry = Geometry(input_shape, kernel, stride, padding)
        self.in_channels = integer("in_channels", in_channels, minimum=1)
        self.out_channels = integer("out_channels", out_channels, minimum=1)
        self.groups = integer("groups", groups, minimum=1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ParameterError(name, f"must be a multiple of the groups ({groups})", channels)
        positions = self._positions()
        shape = (*positions, kernel, kernel, in_channels // groups, out_channels)
        scale = math.sqrt(2 / (kernel**2 * out_channels / groups))
        weights = _drawn(rng, shape, scale, dtype)
        self.parameters["weights"] = weights
        self.gradients["weights"] = np.zeros_like(weights)
        if bias:
            self.parameters["bias"] = np.zeros((*positions, out_channels), dtype)
            self.gradients["bias"] = np.zeros_like(self.parameters["bias"])

    def _positions(self) -> tuple[int, ...]:
        """Leading axes of the weights."""
        raise NotImplementedError

    @property
    def weights(self) -> Array:
        """The kernels; set them to change their values."""
        return self.parameters["weights"]

    @weights.setter
    def weights(self, values: Array) -> None:
        if np.shape(values) != self.weights.shape:
            raise ParameterError(
                "weights", f"must have the shape {self.weights.shape}", np.shape(values)
            )
        self.weights[...] = values

    def forward(self, x: Array, training: bool = False) -> Array:
        geometry, groups = self.geometry, self.groups
        wanted = (*geometry.input_shape, self.in_channels)
        if x.ndim != 4 or x.shape[:3] != wanted or x.dtype != self.weights.dtype:
            raise ParameterError(
                "x",
                f"must be (row, column, channel, image) with {wanted} and {self.weights.dtype}",
                f"{x.shape} {x.dtype}",
            )
        (rows, columns), images = geometry.output_shape, x.shape[3]
        padded = self._padded(x)
        kernels, bias = self._kernels().swapaxes(-1, -2), self.parameters.get("bias")
        y = np.empty((rows, columns, self.out_channels, images), x.dtype)

        def row(p: int) -> None:
            out = y[p].reshape(columns, groups, -1, images)
            np.matmul(kernels[p, :, 0], self._fields(padded, p * geometry.stride), out=out)
            for i in range(1, geometry.kernel):
                out += np.matmul(kernels[p, :, i], self._fields(padded, p * geometry.stride + i))
            if bias is not None:
                y[p] += (bias if bias.ndim == 1 else bias[p])[..., None]

        over(row, rows)
        self._kept = padded if training else None
        return y

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        padded = self._taken()
        (rows, columns), images = self.geometry.output_shape, padded.shape[3]
        grouped = gradient.reshape(rows, columns, self.groups, -1, images)
        self._weight_gradient(padded, grouped)
        if "bias" in self.gradients:
            over_positions = gradient.sum(axis=3)
            shared = self.gradients["bias"].ndim == 1
            self.gradients["bias"][...] = over_positions.sum((0, 1)) if shared else over_positions
        return self._input_gradient(grouped) if wanted else gradient

    def _weight_gradient(self, padded: Array, gradient: Array) -> None:
        raise NotImplementedError

    def _input_gradient(self, gradient: Array) -> Array:
        kernel, stride, padding = (
            self.geometry.kernel,
            self.geometry.stride,
            self.geometry.padding,
        )
        rows, columns, groups, _, images = gradient.shape
        (height, width), channels = self.geometry.input_shape, self.in_channels
        kernels = self._kernels()
        result = np.empty((height, width, channels, images), gradient.dtype)

        def row(h: int) -> None:  # each input row by itself, so that threads never share a sum
            total = np.zeros(
                (width + 2 * padding, groups, channels // groups, images), result.dtype
            )
            for i in range(kernel):
                p, rest = divmod(h + padding - i, stride)
                if rest or not 0 <= p < rows:
                    continue
                parts = np.matmul(kernels[p, :, i], gradient[p])
                parts = parts.reshape(columns, groups, kernel, -1, images)
                for j in range(kernel):
                    total[j : j + stride * (columns - 1) + 1 : stride] += parts[:, :, j]
            result[h] = total[padding : padding + width].reshape(width, channels, images)

        over(row, height)
        return result

    def _padded(self, x: Array) -> Array:
        padding = self.geometry.padding
        if padding == 0:
            return np.ascontiguousarray(x)
        rows, columns, channels, images = x.shape
        padded = np.empty((rows + 2 * padding, columns + 2 * padding, channels, images), x.dtype)
        padded[:padding] = padded[-padding:] = 0
        padded[:, :padding] = padded[:, -padding:] = 0
        inner = padded[padding:-padding, padding:-padding]

        def row(h: int) -> None:
            inner[h] = x[h]

        over(row, rows)
        return padded

    def _fields(self, padded: Array, h: int) -> Array:
        """One input row as all fields see it: (position, group, kernel column and channel, image).

        A view where there is one group.
        """
        geometry, groups = self.geometry, self.groups
        column, channel, image = padded.strides[1:]
        columns, channels = geometry.output_shape[1], self.in_channels // groups
        shape = (columns, groups, geometry.kernel, channels, padded.shape[3])
        strides = (column * geometry.stride, channels * channel, column, channel, image)
        fields = as_strided(padded[h], shape, strides)
        return fields.reshape(columns, groups, geometry.kernel * channels, -1)

    def _kernels(self) -> Array:
        """All kernels: (row, column, kernel row, group, kernel column and channel, output).

        Inputs run over the kernel's columns and a group's channels, outputs over a group's. A
        convolution repeats one kernel without a copy.
        """
        kernels = self._by_group(self.weights)
        return np.broadcast_to(kernels, (*self.geometry.output_shape, *kernels.shape[-4:]))

    def _by_group(self, weights: Array) -> Array:
        kernel, groups = self.geometry.kernel, self.groups
        inputs, outputs = kernel * self.in_channels // groups, self.out_channels // groups
        leading = weights.shape[:-4]
        return weights.reshape(*leading, kernel, inputs, groups, outputs).swapaxes(-2, -3)


class LocallyConnected2D(_Local):
    """Receptive fields as of a convolution, with a kernel of its own at every position.

    Parameters
    ----------
    input_shape : tuple of int
        Rows and columns of the input.
    in_channels, out_channels : int
        Multiples of ``groups``.
    kernel, stride, padding : int
        As of `Geometry`. Even kernels are allowed.
    groups : int
        Parts into which channels are divided; outputs see the inputs of their own part only.
    bias : bool
        Add a bias for every position and output channel, 0 at the start.
    rng : numpy.random.Generator, optional
        Draws the weights: normal, with the standard deviation sqrt(2 groups/(kernel^2
        out_channels)) (He et al. 2015, so that gradients keep their size on the way back). They are
        0 if None, to be set.
    dtype : float32 or float64

    Attributes
    ----------
    weights : array
        Of the shape (row, column, kernel row, kernel column, in_channels/groups, out_channels).

    Raises
    ------
    ParameterError
        If a value is out of range, or no receptive field fits.

    Examples
    --------
    >>> layer = LocallyConnected2D((8, 8), 3, 16, kernel=3, padding=1)
    >>> layer.forward(np.zeros((8, 8, 3, 5), np.float32)).shape
    (8, 8, 16, 5)
    """

    def _positions(self) -> tuple[int, ...]:
        return self.geometry.output_shape

    def _weight_gradient(self, padded: Array, gradient: Array) -> None:
        result = self._by_group(self.gradients["weights"])
        images_first = gradient.swapaxes(-1, -2)

        def row(p: int) -> None:
            for i in range(self.geometry.kernel):
                fields = self._fields(padded, p * self.geometry.stride + i)
                np.matmul(fields, images_first[p], out=result[p, :, i])

        over(row, gradient.shape[0])


class Conv2D(_Local):
    """A convolution (cross-correlation, as elsewhere); see `LocallyConnected2D`.

    Attributes
    ----------
    weights : array, shape (kernel row, kernel column, in_channels/groups, out_channels)
    """

    def _positions(self) -> tuple[int, ...]:
        return ()

    def _weight_gradient(self, padded: Array, gradient: Array) -> None:
        rows, kernel = gradient.shape[0], self.geometry.kernel
        result = self.gradients["weights"]
        # Sums of rows are kept apart, so that the order of adding does not depend on threads.
        sums = np.empty((rows, *self._by_group(result).shape), result.dtype)
        images_first = gradient.swapaxes(-1, -2)

        def row(p: int) -> None:
            for i in range(kernel):
                fields = self._fields(padded, p * self.geometry.stride + i)
                np.matmul(fields, images_first[p]).sum(axis=0, out=sums[p, i])

        over(row, rows)
        result[...] = sums.sum(axis=0).swapaxes(1, 2).reshape(result.shape)


class BatchNorm2D(Layer):
    """Normalise every channel over a batch and all positions, then scale and shift it.

    Parameters
    ----------
    channels : int
    momentum : float
        How far the running mean and variance, which are used when not training, move to those of
        each batch.
    epsilon : float
        Added to the variance.
    dtype : float32 or float64

    Raises
    ------
    ParameterError
        If a value is out of range.

    References
    ----------
    S. Ioffe and C. Szegedy, ICML 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        channels: int,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        channels = integer("channels", channels, minimum=1)
        in_range("momentum", momentum, momentum, minimum=0)
        in_range("epsilon", epsilon, epsilon, above=0)
        self.momentum, self.epsilon = momentum, epsilon
        dtype = _checked(dtype)
        self.parameters = {"scale": np.ones(channels, dtype), "shift": np.zeros(channels, dtype)}
        self.gradients = {name: np.zeros_like(p) for name, p in self.parameters.items()}
        self.state = {"mean": np.zeros(channels, dtype), "variance": np.ones(channels, dtype)}

    def forward(self, x: Array, training: bool = False) -> Array:
        if training:
            mean, variance = self._statistics(x)
        else:
            mean, variance = self.state["mean"], self.state["variance"]
        inverse = (1 / np.sqrt(variance + self.epsilon)).astype(x.dtype)
        factor = self.parameters["scale"] * inverse
        addend = self.parameters["shift"] - mean.astype(x.dtype) * factor
        y = np.empty_like(x)

        def row(h: int) -> None:
            np.multiply(x[h], factor[:, None], out=y[h])
            y[h] += addend[:, None]

        over(row, len(x))
        self._kept = (x, mean.astype(x.dtype), inverse) if training else None
        return y

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the channels, merged from those of rows (Chan et al. 1979)."""
        rows, columns, channels, images = x.shape
        means, squares = np.empty((2, rows, channels))

        def row(h: int) -> None:
            means[h] = x[h].sum(axis=0).sum(axis=1) / (columns * images)
            deviations = x[h] - means[h].astype(x.dtype)[:, None]
            np.square(deviations, out=deviations)
            squares[h] = deviations.sum(axis=0).sum(axis=1)

        over(row, rows)
        number = rows * columns * images
        mean = means.mean(axis=0)
        total = squares.sum(axis=0) + columns * images * np.square(means - mean).sum(axis=0)
        unbiased = total / max(number - 1, 1)
        for name, new in (("mean", mean), ("variance", unbiased)):
            self.state[name] += (self.momentum * (new - self.state[name])).astype(x.dtype)
        return mean, total / number

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        x, mean, inverse = self._taken()
        rows, columns, channels, images = x.shape
        sums, products = np.empty((2, rows, channels))

        def add_up(h: int) -> None:
            sums[h] = gradient[h].sum(axis=0).sum(axis=1)
            deviations = x[h] - mean[:, None]
            deviations *= gradient[h]
            products[h] = deviations.sum(axis=0).sum(axis=1)

        over(add_up, rows)
        total, product = sums.sum(axis=0), products.sum(axis=0) * inverse
        self.gradients["shift"][...] = total
        self.gradients["scale"][...] = product
        if not wanted:
            return gradient
        factor = self.parameters["scale"] * inverse
        number = rows * columns * images
        slope = (-factor * inverse * product / number).astype(x.dtype)
        addend = (-factor * total / number - mean * slope).astype(x.dtype)

        def row(h: int) -> None:
            gradient[h] *= factor[:, None]
            gradient[h] += x[h] * slope[:, None]
            gradient[h] += addend[:, None]

        over(row, rows)
        return gradient


class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, x: Array, training: bool = False) -> Array:
        y = np.empty_like(x)
        positive = np.empty(x.shape, bool) if training else None

        def row(h: int) -> None:
            np.maximum(x[h], 0, out=y[h])
            if positive is not None:
                np.greater(x[h], 0, out=positive[h])

        over(row, len(x))
        self._kept = positive
        return y

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        positive = self._taken()

        def row(h: int) -> None:
            gradient[h] *= positive[h]

        over(row, len(gradient))
        return gradient


class GlobalAveragePool(Layer):
    """Mean over positions: (row, column, channel, image) to (channel, image)."""

    def forward(self, x: Array, training: bool = False) -> Array:
        self._kept = x.shape if training else None
        return x.mean(axis=(0, 1))

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        shape = self._taken()
        scaled = gradient / (shape[0] * shape[1])
        return np.broadcast_to(scaled, shape).copy()


class Linear(Layer):
    """Weighted sums of features: (feature, image) to (image, output).

    Parameters
    ----------
    features, outputs : int
    rng : numpy.random.Generator, optional
        Draws the weights: normal, with the standard deviation 1/sqrt(features); 0 if None.
    dtype : float32 or float64
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        features = integer("features", features, minimum=1)
        outputs = integer("outputs", outputs, minimum=1)
        weights = _drawn(rng, (features, outputs), 1 / math.sqrt(features), dtype)
        self.parameters = {"weights": weights, "bias": np.zeros(outputs, dtype)}
        self.gradients = {name: np.zeros_like(p) for name, p in self.parameters.items()}

    def forward(self, x: Array, training: bool = False) -> Array:
        self._kept = x if training else None
        return x.T @ self.parameters["weights"] + self.parameters["bias"]

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        x = self._taken()
        np.matmul(x, gradient, out=self.gradients["weights"])
        gradient.sum(axis=0, out=self.gradients["bias"])
        return self.parameters["weights"] @ gradient.T


class Sequential(Layer):
    """Layers one after another, by name."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__()
        self.layers = layers

    def named(self, name: str) -> Iterator[tuple[str, Layer]]:
        for inner, layer in self.layers.items():
            yield from layer.named(f"{name}.{inner}" if name else inner)

    def forward(self, x: Array, training: bool = False) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x, training)
        return x

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        layers = list(self.layers.values())
        for layer in layers[:0:-1]:
            gradient = layer.backward(gradient)
        return layers[0].backward(gradient, wanted)


class Residual(Layer):
    """A branch of layers beside a shortcut without parameters, added, then ReLU.

    Where the branch has fewer positions and more channels, the shortcut leaves positions out and
    adds channels of zeros: option A of He et al.

    Parameters
    ----------
    branch : Layer
        Keeps the shape, or divides rows and columns by ``stride`` and adds channels.
    stride : int

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, CVPR 2016, arXiv:1512.03385.
    """

    def __init__(self, branch: Layer, stride: int = 1) -> None:
        super().__init__()
        self.branch, self.stride = branch, integer("stride", stride, minimum=1)
        self._relu = ReLU()

    def named(self, name: str) -> Iterator[tuple[str, Layer]]:
        yield from self.branch.named(name)

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.branch.forward(x, training)
        self._inner(y, x.shape[2])[...] += x[:: self.stride, :: self.stride]
        self._kept = x.shape if training else None
        return self._relu.forward(y, training)

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        shape = self._taken()
        gradient = self._relu.backward(gradient)
        shortcut = self._inner(gradient, shape[2]).copy()
        result = self.branch.backward(gradient)
        result[:: self.stride, :: self.stride] += shortcut
        return result

    def _inner(self, y: Array, channels: int) -> Array:
        """The channels that the shortcut reaches, in the middle."""
        first = (y.shape[2] - channels) // 2
        return y[:, :, first : first + channels]


def softmax(logits: Array) -> Array:
    """Probabilities of classes, (image, class)."""
    exponents: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


def cross_entropy(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
    """Return the mean of -log p(label), in nats, and its gradient with respect to the logits.

    Parameters
    ----------
    logits : array
        (image, class).
    labels : array of int
        (image,).
    """
    images = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    totals = exponents.sum(axis=1, keepdims=True)
    loss = float((np.log(totals[:, 0]) - shifted[images, labels]).mean(dtype=float))
    gradient = exponents / totals
    gradient[images, labels] -= 1
    gradient /= len(labels)
    return loss, gradient


def _drawn(
    rng: np.random.Generator | None, shape: tuple[int, ...], scale: float, dtype: Any
) -> Array:
    if rng is None:
        return np.zeros(shape, _checked(dtype))
    weights = rng.standard_normal(shape, dtype=_checked(dtype).type)
    weights *= scale
    return weights


def _checked(dtype: Any) -> np.dtype[Any]:
    try:
        if np.dtype(dtype) in (np.dtype("float32"), np.dtype("float64")):
            return np.dtype(dtype)
    except TypeError:
        pass
    raise ParameterError("dtype", "must be float32 or float64", dtype)
