"""How a study goes on, for a person at a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from circuitsim.studies.runner import Observer


class Progress(Observer):
    """A line on the terminal with the circuits done and the remaining time; silent in a pipe."""

    def __init__(self, kept: list[str], store: Path) -> None:
        self._kept, self._store = kept, store
        self._bar: Any = None
        self._finished = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begun(self, total: int, reused: int) -> None:
        if reused:
            self.note(f"{reused} of {total} circuits were there already in {self._store}")
        self._bar = tqdm(
            total=total,
            initial=reused,
            disable=None,
            leave=False,
            ncols=79,
            bar_format="{desc}{percentage:3.0f} %|{bar}| {n:.1f}/{total} circuits, "
            "{elapsed} so far, {remaining} left",
        )
        self.finished(reused)

    def advanced(self, done: float) -> None:
        self._bar.update(max(0.0, done - self._bar.n))

    def finished(self, count: int) -> None:
        self._finished += count
        text = f"{self._finished} finished circuits are kept in {self._store}"
        self._kept[:] = [text + ": the same command goes on from there"] if self._finished else []

    def note(self, message: str) -> None:
        with tqdm.external_write_mode():
            print(message, file=sys.stderr)
