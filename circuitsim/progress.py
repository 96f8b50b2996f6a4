"""How a study goes on, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from circuitsim.studies.runner import Observer


@contextmanager
def line() -> Iterator[Callable[[float], None]]:
    """Give a callable that shows the share of the work done on a terminal; silent in a pipe."""
    with bar(1.0, "") as shown:
        yield lambda done: shown.update(max(0.0, done - shown.n))


class Progress(Observer):
    """A line on the terminal with the circuits done and the remaining time; silent in a pipe."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begun(self, total: int, reused: int) -> None:
        if reused:
            self.note(f"{reused} of {total} circuits were there already in {self._store}")
        self._bar = bar(total, "{n:.1f}/{total} circuits, ", initial=reused)

    def advanced(self, done: float) -> None:
        self._bar.update(max(0.0, done - self._bar.n))

    def note(self, message: str) -> None:
        with tqdm.external_write_mode():
            print(message, file=sys.stderr)


def bar(total: float, amount: str, initial: float = 0) -> Any:
    """Return a line that shows how much of a total is done; ``amount`` says it in its units."""
    return tqdm(
        total=total,
        initial=initial,
        disable=None,
        leave=False,
        ncols=79,
        nrows=20,  # terminals that do not know their size would hide the line
        bar_format="{desc}{percentage:3.0f} %|{bar}| " + amount + "{elapsed} so far, "
        "{remaining} left",
    )
