"""Processes that train one network together, each on a part of every batch, over MPI.

Each process, a *rank*, has the whole network. Sums over images, of gradients and of what batch norm
needs, are added up over ranks, so that numbers are those of one process but for rounding. What is
drawn, read or decided once is rank 0's.

    mpirun -n 8 python -m circuitsim.classify train ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.public import own

__dir__ = own(__name__)

T = TypeVar("T")
Array = NDArray[Any]

# What Open MPI, and MPICH and Intel's, tell the processes that they start.
_STARTED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Ranks:
    """One process alone; `joined` gives those that train together.

    Attributes
    ----------
    rank : int
        Of this process, from 0.
    size : int
        How many there are.
    """

    rank = 0
    size = 1

    def total(self, array: Array) -> Array:
        """Return the sum of an array over ranks, in place where it can be, the same on all."""
        return array

    def shared(self, array: Array) -> None:
        """Set an array to that of rank 0."""

    def first(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0, and return on each rank what it does, or raise it."""
        return function()

    def agreed(self, error: BaseException | None) -> None:
        """Raise on each rank if one of them could not begin: its own error, or that of the first.

        Parameters
        ----------
        error : Exception, optional
            Of this rank.
        """
        if error is not None:
            raise error

    def part(self, number: int) -> slice:
        """Return which of so many things are this rank's."""
        return slice(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    def abort(self, code: int) -> None:
        """End all processes, which may be waiting for this one; one alone goes on."""


class _OverMPI(Ranks):
    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._world = mpi.COMM_WORLD
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()

    def total(self, array: Array) -> Array:
        array = np.ascontiguousarray(array)
        # Added on one rank, and from there to all: others may add in another order.
        if self.rank == 0:
            self._world.Reduce(self._mpi.IN_PLACE, array, root=0)
        else:
            self._world.Reduce(array, None, root=0)
        self._world.Bcast(array, root=0)
        return array

    def shared(self, array: Array) -> None:
        whole = np.ascontiguousarray(array)
        self._world.Bcast(whole, root=0)
        if whole is not array:
            array[...] = whole

    def first(self, function: Callable[[], T]) -> T:
        told: tuple[T | None, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                told = function(), None
            except Exception as error:
                told = None, error
        found, mistake = self._world.bcast(told, root=0)
        if mistake is not None:
            raise mistake
        return found

    def agreed(self, error: BaseException | None) -> None:
        errors = self._world.allgather(error)
        if error is not None:
            raise error
        found = [other for other in errors if other is not None]
        if found:
            raise found[0]

    def abort(self, code: int) -> None:
        self._world.Abort(code)


_ranks = Ranks()


def here() -> Ranks:
    """Return the ranks that train together: this process alone unless they have `joined`."""
    return _ranks


@contextmanager
def together(ranks: Ranks) -> Iterator[Ranks]:
    """Let batches be divided among ranks."""
    global _ranks
    outer, _ranks = _ranks, ranks
    try:
        yield ranks
    finally:
        _ranks = outer


def joined() -> Ranks:
    """Return the ranks that ``mpirun`` has started; a process that it has not is alone.

    Raises
    ------
    ParameterError
        If mpi4py is missing, which they need.
    """
    started = max(int(os.environ.get(name) or 1) for name in _STARTED)
    if started == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ParameterError(
            "mpirun",
            f"has started {started} processes, which need mpi4py to train together ({error}): "
            "pip install 'circuitsim[mpi]'",
            "",
        ) from None
    except RuntimeError as error:  # which it raises where it finds no MPI library
        raise ParameterError(
            "mpirun", f"has started processes that cannot use MPI ({error})", ""
        ) from None
    if MPI.COMM_WORLD.Get_size() != started:
        raise ParameterError(
            "mpirun",
            f"has started {started} processes, and mpi4py sees {MPI.COMM_WORLD.Get_size()}: it is "
            "of another MPI library; install mpi4py for this one",
            "",
        )
    return _OverMPI(MPI)
