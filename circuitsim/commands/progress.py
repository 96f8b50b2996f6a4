"""How work goes on, for a person at a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from circuitsim.commands import cli, waiting
from circuitsim.running.campaign import Arrays, Campaign
from circuitsim.running.runner import Observer


@contextmanager
def line() -> Iterator[Callable[[float], None]]:
    """Give a callable that shows the share of the work done on a terminal; silent in a pipe."""
    with bar(1.0) as shown:
        yield lambda done: shown.update(max(0.0, done - shown.n))


class Progress(Observer):
    """A line on the terminal with the tasks done and the remaining time; silent in a pipe.

    Parameters
    ----------
    campaign : Campaign
        What is run.
    store : Path or None
        Where finished tasks are kept.
    """

    def __init__(self, campaign: Campaign[Any], store: Path | None) -> None:
        self._campaign, self._store = campaign, store
        self._finished = 0
        self._total = self._reused = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        waiting.clear()
        self._bar = bar(1.0, "getting ready: ")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begun(self, total: int, reused: int) -> None:
        things = self._campaign.things
        if reused:
            self.note(f"{reused} of {total} {things} were there already in {self._store}")
        self._finished, self._total, self._reused = reused, total, reused
        how = self._campaign.compiled
        self._bar.set_description_str(
            f"{reused}/{total} {things}, getting ready{how and ': ' + how}: "
        )

    def advanced(self, share: float, done: float, total: int) -> None:
        self._total = total
        begun = done - self._reused if share < 1 else 1
        if not begun:  # it is compiled, or workers start: the time goes on
            self._bar.refresh()
            return
        if not self._bar.n:
            self._bar.initial = self._bar.n = share  # speed is that of what is done now
        self._bar.set_description_str(
            f"{done:.1f}/{total} {self._campaign.things}: ", refresh=False
        )
        self._bar.update(max(0.0, share - self._bar.n))

    def finished(self, task: Any, result: Arrays) -> None:
        self._finished += 1
        told = self._campaign.tell(task, result)
        if told:
            with tqdm.external_write_mode():
                print(f"[{self._finished}/{self._total}] {told}", flush=True)

    def note(self, message: str) -> None:
        with tqdm.external_write_mode():
            print(cli.as_options(message), file=sys.stderr)


def bar(total: float, description: str = "", initial: float = 0) -> Any:
    """Return a line that shows which share of a total is done, and goes on while nothing is."""
    waiting.clear()
    return _Bar(
        desc=description,
        total=total,
        initial=initial,
        disable=None,
        leave=False,
        nrows=20,  # terminals that do not know their size would hide the line
        bar_format="{desc}{percentage:3.0f} %|{bar}| {elapsed} so far, {remaining} left",
    )


class _Bar(tqdm):  # type: ignore[misc]
    """A line as wide as the terminal is now; its time goes on by itself."""

    monitor_interval = 0  # a thread of tqdm's, which does nothing that `_tick` does not

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._over = threading.Event()
        if not self.disable:
            with suppress(RuntimeError):  # where no thread can be started, it stands still
                threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._over.wait(0.5):
            if time.time() - self.last_print_t > 0.4:
                self.refresh()

    @property
    def format_dict(self) -> Any:
        """What the line is made of."""
        columns = waiting.width()
        form = self.bar_format if columns >= 60 else "{percentage:3.0f} % {desc}"
        if not self.n:  # nothing is done yet: neither share nor time left
            form = "{desc}{elapsed}"
        return super().format_dict | {"ncols": columns, "bar_format": form}

    def __str__(self) -> str:
        return str(super().__str__()[: waiting.width()])  # older ones let it be longer

    def close(self) -> None:
        """Take the line away."""
        self._over.set()
        super().close()
