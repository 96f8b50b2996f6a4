"""Layers of image classifiers, forward and backward, in NumPy.

Activations are (row, column, channel, image). With the image last, the part of a padded input that
a row of a receptive field covers, (column, channel, image), is one matrix in memory, so that a
locally connected layer is a batched matrix product over positions that copies no patches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import (
    ParameterError,
    count,
    dimensionless,
    flag,
    generator,
    in_range,
    integer,
    regular,
)
from circuitsim.public import own
from circuitsim.vision import kernels, memory, ranks
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

    # Layers hand each other frames: arrays with the zeros around them that the next one's fields
    # reach into, so that what is computed need not be copied there.
    padding = 0  # zeros on every side of the input that `forward_framed` expects

    def framed(self, x: Array) -> Array:
        """Return the input of `forward` as `forward_framed` expects it."""
        return x

    def forward_framed(self, x: Array, training: bool = False, outer: int = 0) -> Array:
        """Return the output with ``outer`` zeros on every side, of an input with `padding`."""
        return _framed(self.forward(x, training), outer)

    def backward_into(self, gradient: Array, into: Array) -> Array:
        """Add to ``into`` what `backward` returns, and return it."""
        into += self.backward(gradient)
        return into

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
        self.padding = padding
        self.in_channels = count("in_channels", in_channels, minimum=1)
        self.out_channels = count("out_channels", out_channels, minimum=1)
        self.groups = count("groups", groups, minimum=1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ParameterError(name, f"must be a multiple of the groups ({groups})", channels)
        positions = self._positions()
        shape = (*positions, kernel, kernel, in_channels // groups, out_channels)
        scale = math.sqrt(2 / (kernel**2 * out_channels / groups))
        weights = _drawn(rng, shape, scale, dtype)
        self.parameters["weights"] = weights
        self.gradients["weights"] = _zeros(weights.shape, weights.dtype)
        if flag("bias", bias):
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
        rule = f"must have the shape {self.weights.shape}"
        given = regular("weights", values, rule)
        if given.shape != self.weights.shape:
            raise ParameterError("weights", rule, given.shape)
        self.weights[...] = given

    def framed(self, x: Array) -> Array:
        wanted = (*self.geometry.input_shape, self.in_channels)
        if x.ndim != 4 or x.shape[:3] != wanted or x.dtype != self.weights.dtype:
            raise ParameterError(
                "x",
                f"must be (row, column, channel, image) with {wanted} and {self.weights.dtype}",
                f"{x.shape} {x.dtype}",
            )
        return _framed(x, self.padding)

    def forward(self, x: Array, training: bool = False) -> Array:
        return self.forward_framed(self.framed(x), training)

    def forward_framed(self, x: Array, training: bool = False, outer: int = 0) -> Array:
        y = self._outputs(x)
        self._kept = x if training else None
        return _framed(y, outer)

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        gradient = np.ascontiguousarray(gradient)
        self._set_gradients(self._taken(), gradient)
        return self._input_gradient(gradient) if wanted else gradient

    def backward_into(self, gradient: Array, into: Array) -> Array:
        gradient = np.ascontiguousarray(gradient)
        self._set_gradients(self._taken(), gradient)
        return self._input_gradient(gradient, into)

    def _products(self) -> Any:
        shared = not self._positions()
        return kernels.chosen().products(
            self.geometry, self.in_channels, self.out_channels, self.groups, shared
        )

    def _outputs(self, padded: Array, after: Callable[[int, Array], None] | None = None) -> Array:
        """Return the output of a framed input.

        ``after`` is called with every row and its number while that is in the cache.
        """
        products, bias = self._products(), self.parameters.get("bias")
        (rows, columns), images = self.geometry.output_shape, padded.shape[3]
        y = memory.empty((rows, columns, self.out_channels, images), padded.dtype)

        def row(p: int) -> None:
            products.forward(self.weights, padded, p, y)
            if bias is not None:
                y[p] += (bias if bias.ndim == 1 else bias[p])[..., None]
            if after is not None:
                after(p, y[p])

        over(row, rows)
        return y

    def _set_gradients(
        self, padded: Array, gradient: Array, before: Callable[[int], None] | None = None
    ) -> None:
        """Set the gradients of the parameters.

        ``before`` is called with the number of a row, to set the gradient of that row.
        """
        self._weight_gradient(padded, gradient, before or (lambda p: None))
        if "bias" in self.gradients:
            over_positions = gradient.sum(axis=3)
            shared = self.gradients["bias"].ndim == 1
            self.gradients["bias"][...] = over_positions.sum((0, 1)) if shared else over_positions

    def _weight_gradient(
        self, padded: Array, gradient: Array, before: Callable[[int], None]
    ) -> None:
        raise NotImplementedError

    def _input_gradient(self, gradient: Array, into: Array | None = None) -> Array:
        """Return the gradient with respect to the input without its frame, added to ``into``."""
        products, add = self._products(), into is not None
        shape = (*self.geometry.input_shape, self.in_channels, gradient.shape[3])
        result = memory.empty(shape, gradient.dtype) if into is None else into

        def row(h: int) -> None:  # each input row by itself, so that threads never share a sum
            products.input_gradient(self.weights, gradient, h, result, add)

        over(row, shape[0])
        return result


class Disturbing(Protocol):
    """Noise beside a layer's input, and what comes of it: `circuitsim.vision.awake.Disturbance`."""

    noise: Array
    product: Array | None
    seconds: float

    def subtract_means(self, response: Array) -> None:
        """Subtract what the layer answers to the noise alike."""


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

    disturbance: Disturbing | None = None  # noise for the next `forward`, which takes it

    def _positions(self) -> tuple[int, ...]:
        return self.geometry.output_shape

    def _outputs(self, padded: Array, after: Callable[[int, Array], None] | None = None) -> Array:
        taken, self.disturbance = self.disturbance, None
        if taken is None:
            return super()._outputs(padded, after)
        began, products = time.monotonic(), self._products()
        response = memory.empty(
            (*self.geometry.output_shape, self.out_channels, padded.shape[3]), padded.dtype
        )
        over(lambda p: products.forward(self.weights, taken.noise, p, response), len(response))
        taken.subtract_means(response)
        taken.seconds += time.monotonic() - began

        def add(p: int, row: Array) -> None:
            row += response[p]
            if after is not None:
                after(p, row)

        y = super()._outputs(padded, add)
        # Now, since what comes after may be written over the outputs.
        began, product = time.monotonic(), np.empty_like(self.weights)
        over(lambda p: products.weight_gradient(taken.noise, y, p, product), len(y))
        product /= padded.shape[3]
        taken.product = product
        taken.seconds += time.monotonic() - began
        return y

    def _weight_gradient(
        self, padded: Array, gradient: Array, before: Callable[[int], None]
    ) -> None:
        products, result = self._products(), self.gradients["weights"]

        def row(p: int) -> None:
            before(p)
            products.weight_gradient(padded, gradient, p, result)

        over(row, len(gradient))


class Conv2D(_Local):
    """A convolution (cross-correlation, as elsewhere); see `LocallyConnected2D`.

    Attributes
    ----------
    weights : array, shape (kernel row, kernel column, in_channels/groups, out_channels)
    """

    def _positions(self) -> tuple[int, ...]:
        return ()

    def _weight_gradient(
        self, padded: Array, gradient: Array, before: Callable[[int], None]
    ) -> None:
        products, result = self._products(), self.gradients["weights"]
        # Sums of rows are kept apart, so that the order of adding does not depend on threads.
        sums = memory.empty((len(gradient), *result.shape), result.dtype)

        def row(p: int) -> None:
            before(p)
            products.weight_gradient(padded, gradient, p, sums[p])

        over(row, len(gradient))
        sums.sum(axis=0, out=result)


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
        channels = count("channels", channels, minimum=1)
        self.momentum = dimensionless("momentum", momentum)
        self.epsilon = dimensionless("epsilon", epsilon)
        in_range("momentum", momentum, momentum, minimum=0)
        in_range("epsilon", epsilon, epsilon, above=0)
        dtype = _checked(dtype)
        self.parameters = {"scale": np.ones(channels, dtype), "shift": np.zeros(channels, dtype)}
        self.gradients = {name: np.zeros_like(p) for name, p in self.parameters.items()}
        self.state = {"mean": np.zeros(channels, dtype), "variance": np.ones(channels, dtype)}

    def forward(self, x: Array, training: bool = False) -> Array:
        code, x = kernels.chosen(), np.ascontiguousarray(x)
        moments = _Moments(x.shape) if training else None
        if moments is not None:
            over(lambda h: moments.add(h, x[h]), len(x))
        line = self._line(moments, x.dtype)
        y = np.empty_like(x)
        over(lambda h: code.normalise(x[h], line.factor, line.addend, None, 1, False, y[h]), len(x))
        self._kept = (x, line) if training else None
        return y

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        (x, line), gradient = self._taken(), np.ascontiguousarray(gradient)
        result = x.copy()  # x is the caller's
        over(self._before(gradient, None, result, line), len(x))
        return result

    def _line(self, moments: _Moments | None, dtype: Any) -> _Line:
        """Return what to do to inputs, from the moments of a batch or else the running ones."""
        number, mean, variance = 0, self.state["mean"], self.state["variance"]
        if moments is not None:
            number, mean, variance, unbiased = moments.merged()
            for name, new in (("mean", mean), ("variance", unbiased)):
                self.state[name] += (self.momentum * (new - self.state[name])).astype(dtype)
        inverse = (1 / np.sqrt(variance + self.epsilon)).astype(dtype)
        mean = mean.astype(dtype)
        factor = self.parameters["scale"] * inverse
        return _Line(mean, inverse, factor, self.parameters["shift"] - mean * factor, number)

    def _before(
        self, gradient: Array, y: Array | None, x: Array, line: _Line
    ) -> Callable[[int], None]:
        """Set the gradients of the parameters; return what overwrites a row of ``x`` with its own.

        Where ``y``, the rectified output, is given, ``gradient`` is set to 0 where that is.
        """
        code = kernels.chosen()
        rows, channels = len(x), x.shape[2]
        totals, products = np.empty((2, rows, channels))

        def add_up(h: int) -> None:
            rectified = None if y is None else y[h]
            code.sums(gradient[h], rectified, x[h], line.mean, totals[h], products[h])

        over(add_up, rows)
        total, product = totals.sum(axis=0), products.sum(axis=0) * line.inverse
        self.gradients["shift"][...] = total
        self.gradients["scale"][...] = product
        if ranks.here().size > 1:  # the parameters' gradients are added up later, with all others
            total, product = ranks.here().total(np.stack([total, product]))
        number = line.number
        slope = (-line.factor * line.inverse * product / number).astype(x.dtype)
        addend = (-line.factor * total / number - line.mean * slope).astype(x.dtype)
        return lambda h: code.unnormalise(gradient[h], line.factor, slope, addend, x[h])


class _Line(NamedTuple):
    """What batch norm does to the channels: factor * x + addend, in the type of x."""

    mean: Array
    inverse: Array  # of the standard deviation
    factor: Array
    addend: Array
    number: int  # of the values that mean and variance are of; 0 where they are the running ones


class _Moments:
    """Mean and variance of the channels, merged from those of rows (Chan et al. 1979).

    Parameters
    ----------
    shape : tuple of int
        Rows, columns, channels and images.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        rows, columns, channels, images = shape
        self._in_row = columns * images
        self._means, self._squares = np.empty((2, rows, channels))
        self._code = kernels.chosen()

    def add(self, h: int, row: Array) -> None:
        """Take those of row ``h``."""
        self._code.moments(row, self._means[h], self._squares[h])

    def merged(self) -> tuple[int, Array, Array, Array]:
        """Return the number of values, their mean, variance and unbiased variance, of all ranks."""
        number, mean = len(self._means) * self._in_row, self._means.mean(axis=0)
        together = ranks.here()
        if together.size > 1:
            count, *sums = together.total(np.concatenate([[number], number * mean]))
            number, mean = round(count), np.array(sums) / count
        between = self._in_row * np.square(self._means - mean).sum(axis=0)
        total = together.total(self._squares.sum(axis=0) + between)
        return number, mean, total / number, total / max(number - 1, 1)


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


class MaxPool2D(Layer):
    """The largest input of each field, channel by channel.

    What lies outside of the input counts for nothing; of equal inputs the first gets the gradient.

    Parameters
    ----------
    input_shape : tuple of int
        Rows and columns of the input.
    kernel, stride, padding : int
        As of `Geometry`; fields reach ``padding`` positions out of the input.
    """

    def __init__(
        self, input_shape: tuple[int, int], kernel: int = 3, stride: int = 2, padding: int = 1
    ) -> None:
        super().__init__()
        self.geometry = Geometry(input_shape, kernel, stride, padding)

    def forward(self, x: Array, training: bool = False) -> Array:
        geometry = self.geometry
        y = memory.empty((*geometry.output_shape, *x.shape[2:]), x.dtype)
        place = memory.empty(y.shape, np.uint8) if training else None

        def row(p: int) -> None:
            y[p] = -np.inf
            for i in range(geometry.kernel):
                h = p * geometry.stride + i - geometry.padding
                if not 0 <= h < len(x):
                    continue
                for j in range(geometry.kernel):
                    outputs, inputs = self._columns(j)
                    best, other = y[p, outputs], x[h, inputs]
                    larger = (other > best) | (other != other)  # what is no number stays none
                    np.copyto(best, other, where=larger)
                    if place is not None:
                        place[p, outputs][larger] = i * geometry.kernel + j

        over(row, len(y))
        self._kept = (x.shape, place) if training else None
        return y

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        (shape, place), geometry = self._taken(), self.geometry
        result = memory.empty(shape, gradient.dtype)

        def row(h: int) -> None:  # each input row by itself, so that threads never share a sum
            result[h] = 0
            for i in range(geometry.kernel):
                p, rest = divmod(h + geometry.padding - i, geometry.stride)
                if rest or not 0 <= p < len(gradient):
                    continue
                for j in range(geometry.kernel):
                    outputs, inputs = self._columns(j)
                    here = place[p, outputs] == i * geometry.kernel + j
                    result[h, inputs] += gradient[p, outputs] * here

        over(row, shape[0])
        return result

    def _columns(self, j: int) -> tuple[slice, slice]:
        """Columns of outputs whose field has its column ``j`` within the input, and those there."""
        geometry = self.geometry
        stride, first = geometry.stride, j - geometry.padding
        width, columns = geometry.input_shape[1], geometry.output_shape[1]
        low = -(min(first, 0) // stride)
        high = max(low, min(columns, (width - 1 - first) // stride + 1))
        start = low * stride + first
        return slice(low, high), slice(start, start + (high - low) * stride, stride)


class GlobalAveragePool(Layer):
    """Mean over positions: (row, column, channel, image) to (channel, image)."""

    def forward(self, x: Array, training: bool = False) -> Array:
        self._kept = x.shape if training else None
        return x.mean(axis=(0, 1))

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        shape = self._taken()
        result = memory.empty(shape, gradient.dtype)
        result[...] = gradient / (shape[0] * shape[1])
        return result


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
        features = count("features", features, minimum=1)
        outputs = count("outputs", outputs, minimum=1)
        weights = _drawn(rng, (features, outputs), 1 / math.sqrt(features), dtype)
        self.parameters = {"weights": weights, "bias": np.zeros(outputs, dtype)}
        self.gradients = {n: _zeros(p.shape, p.dtype) for n, p in self.parameters.items()}

    def forward(self, x: Array, training: bool = False) -> Array:
        self._kept = x if training else None
        return x.T @ self.parameters["weights"] + self.parameters["bias"]

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        x = self._taken()
        np.matmul(x, gradient, out=self.gradients["weights"])
        gradient.sum(axis=0, out=self.gradients["bias"])
        return self.parameters["weights"] @ gradient.T


class _Shortcut(NamedTuple):
    """What a residual block adds to its branch: every ``stride``-th row and column of ``x``."""

    x: Array
    stride: int

    def row(self, p: int) -> Array:
        """Return the row, of all columns, that is added to row ``p``."""
        return self.x[p * self.stride]


class _Normalised(Layer):
    """A layer with weights, its batch norm and perhaps ReLU, in three passes over memory each way.

    Forward: a row of outputs is written, and its moments are taken while it is in the cache; then
    each row is read, normalised, rectified and written to its place in the next layer's frame.
    Backward: the sums that batch norm needs, with the gradient set to 0 where the output is; then
    the gradient of each row, written over the row of outputs, and of the weights from there; then
    that of the inputs.
    """

    def __init__(self, local: _Local, norm: BatchNorm2D, rectify: bool) -> None:
        super().__init__()
        self.local, self.norm, self.rectify = local, norm, rectify
        self.padding = local.padding

    def framed(self, x: Array) -> Array:
        return self.local.framed(x)

    def forward_framed(
        self,
        x: Array,
        training: bool = False,
        outer: int = 0,
        shortcut: _Shortcut | None = None,
    ) -> Array:
        """See `Layer`; a shortcut is added before ReLU, to the channels in the middle."""
        code, geometry = kernels.chosen(), self.local.geometry
        shape = (*geometry.output_shape, self.local.out_channels, x.shape[3])
        moments = _Moments(shape) if training else None
        y = self.local._outputs(x, None if moments is None else moments.add)
        line = self.norm._line(moments, x.dtype)
        frame = _frame(shape, outer, x.dtype)
        z = _inside(frame, outer)

        def row(p: int) -> None:
            added, stride = (None, 1) if shortcut is None else (shortcut.row(p), shortcut.stride)
            code.normalise(y[p], line.factor, line.addend, added, stride, self.rectify, z[p])

        over(row, len(y))
        self._kept = (x, y, z if self.rectify else None, line) if training else None
        return frame

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        of_outputs = self._backward(np.ascontiguousarray(gradient))
        return self.local._input_gradient(of_outputs) if wanted else gradient

    def backward_into(self, gradient: Array, into: Array) -> Array:
        return self.local._input_gradient(self._backward(np.ascontiguousarray(gradient)), into)

    def _backward(self, gradient: Array) -> Array:
        """Set all gradients; return that with respect to what batch norm got."""
        x, y, z, line = self._taken()
        before = self.norm._before(gradient, z, y, line)
        self.local._set_gradients(x, y, before)
        return y


def _steps(layers: list[Layer]) -> list[Layer]:
    """Layers one after another, of which those that can be are done together."""
    steps: list[Layer] = []
    while layers:
        local, norm, relu = (*layers[:3], None, None)[:3]
        if isinstance(local, _Local) and isinstance(norm, BatchNorm2D):
            rectify = isinstance(relu, ReLU)
            steps.append(_Normalised(local, norm, rectify))
            layers = layers[2 + rectify :]
        else:
            steps.append(layers[0])
            layers = layers[1:]
    return steps


class Sequential(Layer):
    """Layers one after another, by name."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__()
        self.layers = layers
        self.steps = _steps(list(layers.values()))
        self.padding = self.steps[0].padding

    def named(self, name: str) -> Iterator[tuple[str, Layer]]:
        for inner, layer in self.layers.items():
            yield from layer.named(f"{name}.{inner}" if name else inner)

    def framed(self, x: Array) -> Array:
        return self.steps[0].framed(x)

    def forward(self, x: Array, training: bool = False) -> Array:
        return self.forward_framed(self.framed(x), training)

    def forward_framed(self, x: Array, training: bool = False, outer: int = 0) -> Array:
        wanted = [step.padding for step in self.steps[1:]] + [outer]
        for step, padding in zip(self.steps, wanted, strict=True):
            x = step.forward_framed(x, training, padding)
        return x

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        return self.steps[0].backward(self._back_to_first(gradient), wanted)

    def backward_into(self, gradient: Array, into: Array) -> Array:
        return self.steps[0].backward_into(self._back_to_first(gradient), into)

    def _back_to_first(self, gradient: Array) -> Array:
        for step in self.steps[:0:-1]:
            gradient = step.backward(gradient)
        return gradient


class Residual(Layer):
    """A branch of layers beside a shortcut, added, then ReLU.

    Where the branch has fewer positions and more channels, a shortcut without parameters leaves
    positions out and adds channels of zeros: option A of He et al. In option B it has a layer.

    Parameters
    ----------
    branch : Layer
        Keeps the shape, or divides rows and columns by ``stride`` and adds channels.
    stride : int
    shortcut : Layer, optional
        What the shortcut does; its output has the shape of the branch's.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, CVPR 2016, arXiv:1512.03385.
    """

    def __init__(self, branch: Layer, stride: int = 1, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.branch, self.stride = branch, integer("stride", stride, minimum=1)
        self.padding = branch.padding
        self._steps = list(branch.steps) if isinstance(branch, Sequential) else [branch]
        last = self._steps[-1]
        self._fused = isinstance(last, _Normalised) and not last.rectify
        if isinstance(last, _Normalised) and self._fused:
            self._steps[-1] = _Normalised(last.local, last.norm, True)

    def named(self, name: str) -> Iterator[tuple[str, Layer]]:
        yield from self.branch.named(name)
        if self.shortcut is not None:
            yield from self.shortcut.named(f"{name}.shortcut" if name else "shortcut")

    def framed(self, x: Array) -> Array:
        return self.branch.framed(x)

    def forward(self, x: Array, training: bool = False) -> Array:
        return self.forward_framed(self.framed(x), training)

    def forward_framed(self, x: Array, training: bool = False, outer: int = 0) -> Array:
        given = _inside(x, self.padding)
        shape = given.shape
        shortcut = _Shortcut(given, self.stride)
        if self.shortcut is not None:
            shortcut = _Shortcut(self.shortcut.forward(given, training), 1)
        *steps, last = self._steps
        for step, following in zip(steps, self._steps[1:], strict=True):
            x = step.forward_framed(x, training, following.padding)
        z = None
        if isinstance(last, _Normalised) and self._fused:
            frame = last.forward_framed(x, training, outer, shortcut)
        else:
            y = last.forward_framed(x, training)
            frame = _frame(y.shape, outer, y.dtype)
            z = _inside(frame, outer)
            for p in range(len(y)):
                z[p] = y[p]
                added = shortcut.row(p)[:: shortcut.stride]
                kernels.middle(z[p], shortcut.x.shape[2])[...] += added
                np.maximum(z[p], 0, out=z[p])
        self._kept = (shape, z) if training else None
        return frame

    def backward(self, gradient: Array, wanted: bool = True) -> Array:
        (shape, z), gradient = self._taken(), np.ascontiguousarray(gradient)
        if z is None:
            through = self._steps[-1].backward(gradient)  # which sets rectified positions to 0
        else:
            gradient *= z > 0
            through = self._steps[-1].backward(gradient.copy())
        if self.shortcut is not None:
            total = self.shortcut.backward(gradient)
        elif gradient.shape == shape:
            total = gradient
        else:
            total = memory.empty(shape, gradient.dtype)
            total[...] = 0
            total[:: self.stride, :: self.stride] = kernels.middle(gradient, shape[2])
        if len(self._steps) == 1:
            total += through
            return total
        for step in self._steps[-2:0:-1]:
            through = step.backward(through)
        return self._steps[0].backward_into(through, total)


def _frame(shape: tuple[int, ...], width: int, dtype: Any) -> Array:
    """Return an array with space for one of a shape within zeros on every side; see `_inside`."""
    rows, columns, *others = shape
    frame = memory.empty((rows + 2 * width, columns + 2 * width, *others), dtype)
    if width:
        frame[:width] = frame[-width:] = 0
        frame[:, :width] = frame[:, -width:] = 0
    return frame


def _inside(frame: Array, width: int) -> Array:
    """Return what lies within a frame, a view."""
    return frame[width:-width, width:-width] if width else frame


def _framed(x: Array, width: int) -> Array:
    """Return a copy within zeros; the array itself if there are none and it is in order."""
    if width == 0:
        return np.ascontiguousarray(x)
    frame = _frame(x.shape, width, x.dtype)
    inside = _inside(frame, width)

    def row(h: int) -> None:
        inside[h] = x[h]

    over(row, len(x))
    return frame


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


_outlined = False


@contextmanager
def outlined() -> Iterator[None]:
    """Let layers that are made have weights that have a shape and take no memory.

    They tell what a network would be that may be too large, and cannot be used or set.
    """
    global _outlined
    outer, _outlined = _outlined, True
    try:
        yield
    finally:
        _outlined = outer


def _zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    if _outlined:
        return np.broadcast_to(np.zeros((), dtype), shape)
    return np.zeros(shape, dtype)


def _drawn(
    rng: np.random.Generator | None, shape: tuple[int, ...], scale: float, dtype: Any
) -> Array:
    if rng is None:
        return _zeros(shape, _checked(dtype))
    generator("rng", rng)
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
