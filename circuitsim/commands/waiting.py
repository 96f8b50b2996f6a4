"""What is said while there is nothing to show yet: one line on a terminal, taken away again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_shown = False


def width() -> int:
    """Columns of the terminal that messages go to, less one: a line as wide would scroll."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, or none that knows its size
        columns = 0
    return min(79, (columns or int(os.environ.get("COLUMNS") or 80)) - 1)


def show(text: str) -> None:
    """Show a line in the place of the last one; nothing where nobody looks."""
    global _shown
    if sys.stderr is None or not sys.stderr.isatty():
        return
    clear()
    sys.stderr.write(f"{text} ..."[: width()])
    sys.stderr.flush()
    _shown = True


@contextmanager
def told(text: str) -> Iterator[None]:
    """Show a line for as long as what is done within takes."""
    show(text)
    try:
        yield
    finally:
        clear()


def clear() -> None:
    """Take the line away, if there is one."""
    global _shown
    if _shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
    _shown = False
