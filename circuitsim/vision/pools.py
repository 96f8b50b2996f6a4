"""Which neurons of a locally connected layer form a pool: those whose fields see the same pattern.

While the layer sleeps its input is one pattern of kernel x kernel x channels, repeated in rows and
columns. The sheet of inputs is larger than the image, so that the pattern goes on where an image
has its padding. The field at output position i starts at input row ``i * stride - padding``, and so
at row ``phase = (i * stride - padding) mod kernel`` of the pattern; likewise for columns. Fields of
equal phases see the same numbers, those of others see them shifted cyclically. With the stride s
and kernel k there are k/gcd(s, k) phases in each direction, k^2 pools in all where s and k have no
common factor, in each output channel.

Positions whose fields reach into the padding are *border* positions, the others *inner* ones. In
the authors' code the padding stays zero in sleep: there border positions see another input than the
inner positions of their pool, and are left out.

A pattern may also be larger than a field, and repeat every q > k positions: then there are pools of
every (q/gcd(s, q))-th position, each of which sees a part of the pattern.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from circuitsim.checks.validation import ParameterError, integer
from circuitsim.public import own
from circuitsim.vision.geometry import Geometry

__dir__ = own(__name__)


class Pool(NamedTuple):
    """Output positions whose fields see the same pattern.

    Attributes
    ----------
    rows, columns : slice
        All pairs of them are positions of the pool.
    phase : tuple of int
        Row and column of the pattern where their fields start.
    size : int
        Number of positions.
    """

    rows: slice
    columns: slice
    phase: tuple[int, int]
    size: int


def pools(geometry: Geometry, inner: bool = False, period: int | None = None) -> list[Pool]:
    """Pools of a layer.

    Parameters
    ----------
    geometry : Geometry
        Of the layer.
    inner : bool
        Whether to leave out border positions.
    period : int, optional
        Rows, and columns, from one repetition of the pattern to the next; the kernel's if None.

    Raises
    ------
    ParameterError
        If the period is shorter than the kernel.

    Returns
    -------
    list of Pool
        Each (inner) position is in exactly one. Empty if there are no inner positions where they
        are asked for, as in a layer that hardly exceeds its kernel.

    Examples
    --------
    >>> [p.size for p in pools(Geometry((8, 8), kernel=3, padding=1))]
    [9, 9, 6, 9, 9, 6, 6, 6, 4]
    >>> [p.size for p in pools(Geometry((8, 8), kernel=3, padding=1), inner=True)]
    [4, 4, 4, 4, 4, 4, 4, 4, 4]
    >>> len(pools(Geometry((8, 8), kernel=4, stride=2)))
    4
    """
    repeat = geometry.kernel if period is None else integer("period", period, minimum=1)
    if repeat < geometry.kernel:
        raise ParameterError("period", f"must be >= {geometry.kernel}, the kernel", period)
    rows, columns = (_along(geometry, axis, inner, repeat) for axis in (0, 1))
    return [
        Pool(r, c, (r_phase, c_phase), _count(r) * _count(c))
        for r, r_phase in rows
        for c, c_phase in columns
    ]


def _along(geometry: Geometry, axis: int, inner: bool, repeat: int) -> list[tuple[slice, int]]:
    """Positions along one axis by phase."""
    k, s, padding = geometry.kernel, geometry.stride, geometry.padding
    first, last = 0, geometry.output_shape[axis] - 1
    if inner:
        first = -(-padding // s)
        last = (geometry.input_shape[axis] + padding - k) // s
    period = repeat // math.gcd(s, repeat)
    return [
        (slice(start, last + 1, period), (start * s - padding) % repeat)
        for start in range(first, min(first + period, last + 1))
    ]


def _count(positions: slice) -> int:
    return len(range(positions.start, positions.stop, positions.step))
