"""The same as `_kernels_numpy`, compiled.

A layer's matrix products are small, 16 x 48 x 128 in the widest layers of a ResNet, so that a BLAS
spends much of its time on packing operands and on calls. Here, as images lie last, nothing needs to
be packed: a block of a product, a few rows by as many images as fit in the registers, is summed up
over all of its inputs before it is written, once. Where operands lie is looked up in tables that
are made once for each shape of a layer, so that one function does the products of convolutions and
locally connected layers, forward and backward, with any stride, padding and groups. Inputs are
added in the same order whatever the block, so that no number depends on the number of threads.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from circuitsim.files.compiled import compiled
from circuitsim.vision import memory
from circuitsim.vision.geometry import Geometry

Array = NDArray[Any]
Table = NDArray[np.int64]

PIECE = 2**18
_PULLED = 512  # numbers of each position at a time, for their means to stay in the cache


def _compiled(function: Any, **options: Any) -> Any:
    return compiled(function, **{"nogil": True, "error_model": "numpy", **options})


def _summing(function: Any) -> Any:
    # Sums over images may be reordered, to use vector registers; always in the same way.
    return _compiled(function, fastmath={"contract", "nsz", "reassoc"})


# A block has up to this many rows, and its widest row takes this many bytes: with two registers a
# row, sums and operands fill the registers that there are, 16 of 32 bytes or 32 of 64.
_MOST_ROWS, _ROW_BYTES = (8, 128) if binding.get_host_cpu_features().get("avx512f") else (6, 64)
_BYTES = tuple(n for n in (128, 64, 32, 16) if n <= _ROW_BYTES)


@intrinsic  # type: ignore[untyped-decorator]
def _block(
    context: Any,
    out: Any,
    rows: Any,
    width: Any,
    out_at: Any,
    out_row: Any,
    left: Any,
    left_at: Any,
    left_scale: Any,
    left_row: Any,
    left_step: Any,
    right: Any,
    right_at: Any,
    right_scale: Any,
    right_step: Any,
    segments: Any,
    n: Any,
    add: Any,
) -> Any:
    """Emit the sum of outer products for a block, for every number of rows and columns there is.

    out[r, c] = sum over segments s and over t < n of left[s][r, t] * right[s][t, c], of which all
    distances are given in bytes; added to what is there if ``add`` is not 0.
    """
    number = ir.FloatType() if out.dtype is types.float32 else ir.DoubleType()
    size = 4 if out.dtype is types.float32 else 8
    signature = types.void(out, *[types.intp] * 16)

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        word, index = ir.IntType(64), ir.IntType(32)
        _, rows, width, out_at, out_row, *operands, segments, n, add = arguments
        left, left_at, left_scale, left_row, left_step = operands[:5]
        right, right_at, right_scale, right_step = operands[5:]

        def constant(value: int) -> Any:
            return ir.Constant(word, value)

        def load(address: Any, kind: Any) -> Any:
            value = b.load(b.inttoptr(address, kind.as_pointer()))
            value.align = size
            return value

        def block(count: int, columns: int) -> None:
            vector = ir.VectorType(number, columns)
            zero = ir.Constant(vector, None)
            name = f"llvm.fmuladd.v{columns}f{8 * size}"
            fma = cgutils.get_or_insert_function(
                b.module, ir.FunctionType(vector, [vector] * 3), name
            )
            outs = [b.add(out_at, b.mul(out_row, constant(r))) for r in range(count)]
            shifts = [b.mul(left_row, constant(r)) for r in range(count)]
            # The sums live in registers: they are values that loops hand on (phi), not memory.
            sums = [cgutils.alloca_once_value(b, zero) for _ in range(count)]
            for s, at in zip(sums, outs, strict=True):
                b.store(zero, s)
                with b.if_then(b.icmp_signed("!=", add, constant(0))):
                    b.store(load(at, vector), s)
            with cgutils.for_range(b, segments) as segment:
                entry = b.mul(segment.index, constant(8))
                first = b.add(left, b.mul(load(b.add(left_at, entry), word), left_scale))
                other = b.add(right, b.mul(load(b.add(right_at, entry), word), right_scale))
                with cgutils.for_range(b, n) as term:
                    a = b.add(first, b.mul(term.index, left_step))
                    x = load(b.add(other, b.mul(term.index, right_step)), vector)
                    for s, shift in zip(sums, shifts, strict=True):
                        single = b.insert_element(
                            ir.Constant(vector, ir.Undefined),
                            load(b.add(a, shift), number),
                            ir.Constant(index, 0),
                        )
                        everywhere = b.shuffle_vector(
                            single,
                            ir.Constant(vector, ir.Undefined),
                            ir.Constant(ir.VectorType(index, columns), None),
                        )
                        b.store(b.call(fma, [everywhere, x, b.load(s)]), s)
            for s, at in zip(sums, outs, strict=True):
                stored = b.store(b.load(s), b.inttoptr(at, vector.as_pointer()))
                stored.align = size

        for columns in (*(n // size for n in _BYTES), 1):
            for count in range(1, _MOST_ROWS + 1):
                fits = b.and_(
                    b.icmp_signed("==", width, constant(columns)),
                    b.icmp_signed("==", rows, constant(count)),
                )
                with b.if_then(fits):
                    block(count, columns)
        return context.get_dummy_value()

    return signature, generate


class _Items(NamedTuple):
    """Products for all rows of positions: where operands and results start, in numbers.

    Attributes
    ----------
    per_row : int
        Products for each row.
    out : array of int, (product,)
    starts : array of int, (product + 1,)
        Which segments belong to a product.
    left, right : array of int, (segment,)
        Sums run over segments, and in each over terms.
    """

    per_row: int
    out: Table
    starts: Table
    left: Table
    right: Table


@_compiled
def _products(
    out: Any,
    left: Any,
    right: Any,
    tables: Any,
    first: int,
    last: int,
    scales: Any,
    shape: Any,
    steps: Any,
    add: bool,
) -> None:
    """Do products ``first`` to ``last``: out = sum of left[row, term] right[term, column].

    ``tables`` are those of `_Items` without ``per_row``, and their entries for out, left and right
    are to be multiplied with ``scales``. ``shape`` has rows, columns and terms of a product.
    ``steps`` are numbers from one row to the next in out and left, and from one term to the next in
    left and right; columns lie side by side.
    """
    size = out.itemsize
    out_at, starts, left_at, right_at = tables
    rows, columns, terms = shape
    out_row, left_row, left_step, right_step = steps
    widest = _ROW_BYTES // size
    blocks = (rows + _MOST_ROWS - 1) // _MOST_ROWS
    each, more = rows // blocks, rows % blocks
    left_start, right_start = np.intp(left.ctypes.data), np.intp(right.ctypes.data)
    for item in range(first, last):
        at = np.intp(out.ctypes.data) + out_at[item] * scales[0] * size
        segment, segments = starts[item], starts[item + 1] - starts[item]
        width, column = widest, 0
        while column < columns:
            while width > columns - column:
                width = width // 2 if width * size > 16 else 1
            row = 0
            for block in range(blocks):
                count = each + (1 if block < more else 0)
                _block(
                    out,
                    count,
                    width,
                    at + (row * out_row + column) * size,
                    out_row * size,
                    left_start + row * left_row * size,
                    np.intp(left_at.ctypes.data) + segment * 8,
                    scales[1] * size,
                    left_row * size,
                    left_step * size,
                    right_start + column * size,
                    np.intp(right_at.ctypes.data) + segment * 8,
                    scales[2] * size,
                    right_step * size,
                    segments,
                    terms,
                    1 if add else 0,
                )
                row += count
            column += width


@_compiled
def _transposed(row: Any, groups: int, out: Any) -> None:
    """Set out (column, group, image, channel of a group) from (column, channel, image)."""
    columns, channels, images = row.shape
    each = channels // groups
    for q in range(columns):
        for g in range(groups):
            for first in range(0, images, 8):
                for c in range(each):
                    for n in range(first, min(first + 8, images)):
                        out[q, g, n, c] = row[q, g * each + c, n]


class Products:
    """See `_kernels_numpy.Products`."""

    def __init__(
        self, geometry: Geometry, in_channels: int, out_channels: int, groups: int, shared: bool
    ) -> None:
        self._geometry, self._groups, self._shared = geometry, groups, shared
        self._inputs, self._outputs = in_channels // groups, out_channels // groups
        kernel, (rows, columns) = geometry.kernel, geometry.output_shape
        # One row of a field is one piece of memory, unless a group's channels are a part of it.
        self._whole = kernel if groups == 1 else 1
        # Axes: row, column, group, kernel row, kernel column.
        p, q, g, i, j = np.ix_(*(range(n) for n in (rows, columns, groups, kernel, kernel)))
        position = np.zeros_like(p + q) if shared else p * columns + q
        weights = ((position * kernel + i) * kernel + j) * self._inputs * out_channels
        weights = weights + g * self._outputs
        width = geometry.input_shape[1] + 2 * geometry.padding
        h, w = p * geometry.stride + i, q * geometry.stride + j
        inputs = (h * width + w) * in_channels + g * self._inputs
        outputs = (p * columns + q) * out_channels + g * self._outputs
        # In one row, and by group: see `_transposed`.
        transposed = (q * groups + g) * self._outputs
        full = (rows, columns, groups, kernel, kernel)
        weights, inputs, outputs, transposed = (
            np.broadcast_to(a, full) for a in (weights, inputs, outputs, transposed)
        )
        pieces = slice(None, None, self._whole)  # of kernel columns
        self._forward = self._items(outputs[..., 0, 0], weights[..., pieces], inputs[..., pieces])
        by_piece = (a[..., pieces, None] for a in (weights, inputs, transposed))
        self._weights = self._items(*by_piece)
        self._targets = weights, outputs, h, w

    def _items(self, out: Table, left: Table, right: Table) -> _Items:
        """Products for which all have equally many segments, along the axes that ``out`` lacks."""
        flat = np.ascontiguousarray(out, np.int64).ravel()
        starts = np.linspace(0, left.size, len(flat) + 1).astype(np.int64)
        left, right = (np.ascontiguousarray(a, np.int64).ravel() for a in (left, right))
        return _Items(len(flat) // out.shape[0], flat, starts, left, right)

    @cached_property
    def _backward(self) -> _Items:
        """Products for each input and group: over all fields that the input belongs to."""
        weights, outputs, h, w = self._targets
        (height, width), padding = self._geometry.input_shape, self._geometry.padding
        groups = self._groups
        group = np.arange(groups)[:, None, None]
        row, column = h - padding, w - padding
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        target = np.where(inside, (row * width + column) * groups + group, -1).ravel()
        order = np.argsort(target, kind="stable")
        order = order[np.searchsorted(target[order], 0) :]
        number = height * width * groups
        starts = np.searchsorted(target[order], np.arange(number + 1))
        out = np.arange(number) * self._inputs
        left, right = (a.ravel()[order] for a in (weights, outputs))
        return _Items(width * groups, out, starts.astype(np.int64), left, right)

    def forward(self, weights: Array, padded: Array, p: int, y: Array) -> None:
        """See `_kernels_numpy.Products`."""
        images, channels = y.shape[3], self._groups * self._outputs
        self._do(
            self._forward,
            p,
            (y, weights, padded),
            (images, 1, images),
            (self._outputs, images, self._whole * self._inputs),
            (images, 1, channels, images),
            False,
        )

    def weight_gradient(self, padded: Array, gradient: Array, p: int, out: Array) -> None:
        """See `_kernels_numpy.Products`."""
        _, columns, channels, images = gradient.shape
        shape = (columns, self._groups, images, self._outputs)
        transposed = memory.empty(shape, gradient.dtype)
        _transposed(gradient[p], self._groups, transposed)
        if self._shared:
            out[...] = 0
        self._do(
            self._weights,
            p,
            (out, padded, transposed),
            (1, images, images),
            (self._whole * self._inputs, self._outputs, images),
            (channels, images, 1, self._outputs),
            self._shared,
        )

    def input_gradient(
        self, weights: Array, gradient: Array, h: int, out: Array, add: bool
    ) -> None:
        """See `_kernels_numpy.Products`."""
        images, channels = gradient.shape[3], self._groups * self._outputs
        self._do(
            self._backward,
            h,
            (out, weights, gradient),
            (images, 1, images),
            (self._inputs, images, self._outputs),
            (images, channels, 1, images),
            add,
        )

    def _do(
        self,
        items: _Items,
        row: int,
        arrays: tuple[Array, ...],
        scales: tuple[int, ...],
        shape: tuple[int, ...],
        steps: tuple[int, ...],
        add: bool,
    ) -> None:
        first = row * items.per_row
        # Flat, so that one compiled function does for all; no copies, as all are contiguous.
        arrays = tuple(a.reshape(-1) for a in arrays)
        _products(*arrays, items[1:], first, first + items.per_row, scales, shape, steps, add)


products = lru_cache(maxsize=256)(Products)


@_summing
def moments(x: Any, mean: Any, squares: Any) -> None:
    """See `_kernels_numpy.moments`."""
    columns, channels, images = x.shape
    zero = x.dtype.type(0)
    for c in range(channels):
        total = 0.0
        for q in range(columns):
            s = zero
            for n in range(images):
                s += x[q, c, n]
            total += s
        mean[c] = total / (columns * images)
        middle = x.dtype.type(mean[c])
        total = 0.0
        for q in range(columns):
            s = zero
            for n in range(images):
                s += (x[q, c, n] - middle) ** 2
            total += s
        squares[c] = total


def normalise(
    x: Array,
    factor: Array,
    addend: Array,
    shortcut: Array | None,
    stride: int,
    rectify: bool,
    y: Array,
) -> None:
    """See `_kernels_numpy.normalise`."""
    added = x if shortcut is None else shortcut
    _normalise(x, factor, addend, added, 0 if shortcut is None else stride, rectify, y)


@_compiled
def _normalise(
    x: Any, factor: Any, addend: Any, shortcut: Any, stride: int, rectify: bool, y: Any
) -> None:
    columns, channels, images = x.shape
    zero = x.dtype.type(0)
    within = shortcut.shape[1] if stride else 0
    first = (channels - within) // 2
    for q in range(columns):
        for c in range(channels):
            f, a = factor[c], addend[c]
            if first <= c < first + within:
                for n in range(images):
                    value = x[q, c, n] * f + a + shortcut[q * stride, c - first, n]
                    # NaN stays, as with np.maximum.
                    y[q, c, n] = zero if rectify and value <= zero else value
            else:
                for n in range(images):
                    value = x[q, c, n] * f + a
                    y[q, c, n] = zero if rectify and value <= zero else value


def sums(
    gradient: Array, y: Array | None, x: Array, mean: Array, total: Array, product: Array
) -> None:
    """See `_kernels_numpy.sums`."""
    _sums(gradient, x if y is None else y, y is not None, x, mean, total, product)


@_summing
def _sums(
    gradient: Any, y: Any, rectified: bool, x: Any, mean: Any, total: Any, product: Any
) -> None:
    columns, channels, images = x.shape
    zero = x.dtype.type(0)
    for c in range(channels):
        plain, weighted, middle = 0.0, 0.0, mean[c]
        for q in range(columns):
            s = t = zero
            if rectified:
                for n in range(images):
                    g = gradient[q, c, n] if y[q, c, n] > zero else zero
                    gradient[q, c, n] = g
                    s += g
                    t += g * (x[q, c, n] - middle)
            else:
                for n in range(images):
                    g = gradient[q, c, n]
                    s += g
                    t += g * (x[q, c, n] - middle)
            plain += s
            weighted += t
        total[c] = plain
        product[c] = weighted


@_compiled
def unnormalise(gradient: Any, factor: Any, slope: Any, addend: Any, x: Any) -> None:
    """See `_kernels_numpy.unnormalise`."""
    columns, channels, images = x.shape
    for q in range(columns):
        for c in range(channels):
            f, s, a = factor[c], slope[c], addend[c]
            for n in range(images):
                x[q, c, n] = x[q, c, n] * s + a + gradient[q, c, n] * f


def pull(weights: Array, rows: slice, columns: slice, left: float) -> None:
    """See `_kernels_numpy.pull`."""
    at = (range(positions.start, positions.stop, positions.step) for positions in (rows, columns))
    _pull(weights, *map(np.array, at), left)


@_compiled
def _pull(weights: Any, rows: Any, columns: Any, left: float) -> None:
    numbers = weights.shape[2]
    mean = np.empty(_PULLED)
    for first in range(0, numbers, _PULLED):
        n = min(_PULLED, numbers - first)
        mean[:n] = 0
        for row in rows:
            for column in columns:
                kernel = weights[row, column, first : first + n]
                for i in range(n):
                    mean[i] += kernel[i]
        mean[:n] /= len(rows) * len(columns)
        for row in rows:
            for column in columns:
                kernel = weights[row, column, first : first + n]
                for i in range(n):
                    kernel[i] = mean[i] + left * (kernel[i] - mean[i])


def sgd(
    parameter: Array, gradient: Array, moments: list[Array], numbers: tuple[float, ...]
) -> None:
    """See `_kernels_numpy.sgd`."""
    _sgd(parameter, gradient, *moments, np.array(numbers, parameter.dtype))


@_compiled
def _sgd(parameter: Any, gradient: Any, velocity: Any, numbers: Any) -> None:
    momentum, decay, rate = numbers
    for n in range(len(parameter)):
        velocity[n] = velocity[n] * momentum + gradient[n] + decay * parameter[n]
        parameter[n] -= rate * velocity[n]


def adamw(
    parameter: Array, gradient: Array, moments: list[Array], numbers: tuple[float, ...]
) -> None:
    """See `_kernels_numpy.adamw`."""
    first, second, *rest = numbers
    _adamw(
        parameter,
        gradient,
        *moments,
        np.array((first, 1 - first, second, 1 - second, *rest), parameter.dtype),
    )


@_compiled
def _adamw(parameter: Any, gradient: Any, mean: Any, square: Any, numbers: Any) -> None:
    first, new, second, new_square = numbers[0], numbers[1], numbers[2], numbers[3]
    correction, epsilon, rate, kept = numbers[4], numbers[5], numbers[6], numbers[7]
    for n in range(len(parameter)):
        g = gradient[n]
        m = mean[n] * first + new * g
        s = square[n] * second + g * g * new_square
        mean[n] = m
        square[n] = s
        parameter[n] = parameter[n] * kept - m / (np.sqrt(s) * correction + epsilon) * rate
