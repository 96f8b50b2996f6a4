"""Which code does the arithmetic of layers and optimisers: Numba's where it is installed.

Both codes have the same functions, and the same numbers up to rounding: `_kernels_numpy` says what
each does, `_kernels_numba` does it in fewer passes over memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from circuitsim.checks.validation import ParameterError, one_of
from circuitsim.public import own
from circuitsim.vision import _kernels_numpy

__dir__ = own(__name__, "CODES")

middle = _kernels_numpy.middle

CODES = ("auto", "numba", "numpy")

_code = "auto"


@contextmanager
def code(name: str) -> Iterator[None]:
    """Let layers and optimisers use this code.

    Parameters
    ----------
    name : {"auto", "numba", "numpy"}
        ``auto`` is Numba where it is installed (``circuitsim[compiled]``), and NumPy elsewhere.

    Raises
    ------
    ParameterError
        If it is none of these, or Numba is not installed.
    """
    global _code
    one_of("code", name, CODES)
    outer, _code = _code, name
    try:
        chosen()
        yield
    finally:
        _code = outer


def chosen() -> ModuleType:
    """Return the module of functions that is in use."""
    return _module(_code)


@cache
def _module(name: str) -> ModuleType:
    if name == "numpy":
        return _kernels_numpy
    try:
        import numba  # noqa: F401
    except ImportError:
        if name == "auto":
            return _kernels_numpy
        raise ParameterError(
            "code",
            "needs Numba, which is not installed; use 'numpy', or `pip install "
            "circuitsim[compiled]`",
            name,
        ) from None
    from circuitsim.vision import _kernels_numba

    return _kernels_numba
