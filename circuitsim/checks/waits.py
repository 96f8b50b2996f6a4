"""Long waits of those who call from Python: after a second they are told what is being done."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from circuitsim.public import own

__dir__ = own(__name__)

_PATIENCE = 1.0  # seconds


@contextmanager
def told(what: str) -> Iterator[Callable[[float], None] | None]:
    """Print a line to the error stream if what is done within takes more than a second.

    Only where a person may look, a terminal or a notebook, and in the main process.

    Parameters
    ----------
    what : str
        What is being done.

    Yields
    ------
    callable or None
        To be called with the fraction done, which means that the wait is over; None where nobody
        looks.
    """
    if not _watched():
        yield None
        return
    timer = threading.Timer(_PATIENCE, lambda: print(f"circuitsim: {what}", file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield lambda _: timer.cancel()
    finally:
        timer.cancel()


def _watched() -> bool:
    if multiprocessing.parent_process() is not None or sys.stderr is None:
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()
