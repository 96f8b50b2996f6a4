"""Memory of large arrays, used again: what the system hands out anew it clears page by page.

A training step makes and drops the same arrays every time; without this a twelfth of it is spent in
the system.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 2**16  # bytes; smaller arrays the system does not hand back either
_LINE = 64  # bytes of a cache's line: where arrays begin, no register is read from two of them


class _Pool:
    def __init__(self) -> None:
        self._free: list[memoryview] = []
        # Held by those who take. Whoever gives back only appends: that may happen at any moment,
        # even in a thread that is just taking.
        self._taking = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < _SMALL:
            return np.empty(shape, dtype)
        memory = self._left_over(size)
        if memory is None:
            whole = np.empty(size + _LINE, np.uint8)
            start = -whole.ctypes.data % _LINE
            memory = memoryview(whole[start : start + size])
        # Views of an array refer to the first one in a row of arrays. That is the loan, since what
        # is lent is none; so a loan ends with the last view of it.
        loan = np.frombuffer(memory, dtype, math.prod(shape))
        weakref.finalize(loan, self._free.append, memory).atexit = False
        return loan.reshape(shape)

    def _left_over(self, size: int) -> memoryview | None:
        with self._taking:
            free = list(enumerate(self._free))
            fitting = [(len(m), n) for n, m in free if size <= len(m) <= 1.5 * size]
            return self._free.pop(min(fitting)[1]) if fitting else None


_pool: _Pool | None = None


@contextmanager
def reused() -> Iterator[None]:
    """Keep the memory of arrays that nobody refers to any more for others, until the end."""
    global _pool
    outer, _pool = _pool, _pool or _Pool()
    try:
        yield
    finally:
        _pool = outer


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array of any content, as `numpy.empty`; within `reused` from what is left over."""
    return np.empty(shape, dtype) if _pool is None else _pool.empty(shape, dtype)
