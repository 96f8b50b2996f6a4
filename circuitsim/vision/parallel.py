"""Threads over the rows of images or the pieces of arrays, with one BLAS thread in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from circuitsim import processwide
from circuitsim.checks.validation import integer
from circuitsim.public import own
from circuitsim.vision import memory

__dir__ = own(__name__)

_pool: ThreadPoolExecutor | None = None
_threads = 1


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let all layers and optimisers work with this many threads.

    BLAS is held to one thread in each: its own threads fight over products as small as those of a
    position. Work is divided so that no sum depends on the number of threads. Memory of
    arrays is used again (see `memory`). NumPy does not warn
    of overflows: whoever trains looks at the loss.

    Parameters
    ----------
    number : int
        Threads to use.

    Raises
    ------
    ParameterError
        If it is no whole number >= 1.
    """
    global _pool, _threads
    number = integer("threads", number, minimum=1)
    outer = _pool, _threads
    with (
        processwide.one_blas_thread(),
        np.errstate(over="ignore", invalid="ignore"),
        ThreadPoolExecutor(number, initializer=_ignore_overflows) as pool,
        memory.reused(),
    ):
        _pool, _threads = (pool, number) if number > 1 else (None, 1)
        try:
            yield
        finally:
            _pool, _threads = outer


def _ignore_overflows() -> None:
    np.seterr(over="ignore", invalid="ignore")


def number() -> int:
    """How many threads work; see `threads`."""
    return _threads


def over(work: Callable[[int], None], count: int) -> None:
    """Call ``work`` with 0, 1, ..., count - 1, in any order; see `threads`."""
    if _pool is None or count < 2:
        for n in range(count):
            work(n)
        return

    def part(first: int, last: int) -> None:
        for n in range(first, last):
            work(n)

    parts = min(_threads, count)
    ends = [count * n // parts for n in range(parts + 1)]
    futures = [_pool.submit(part, *pair) for pair in pairwise(ends[1:])]
    part(ends[0], ends[1])
    for future in futures:
        future.result()
