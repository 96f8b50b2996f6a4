"""What a directory of finished tasks says of its campaign: `circuitsim.status` reads it."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitsim.files import (
    atomic_write,
    entries,
    is_alive,
    machine,
    own_directory,
    read_text,
    write_text,
)
from circuitsim.running.campaign import Campaign

FORMAT = "circuitsim study"
FORMAT_VERSION = 1
FIRST_KIND = "sweep"  # what a record that does not say it is of: there was no other

_DIGEST = re.compile(r"[0-9a-f]{32}")
_HEARTBEAT = 20.0  # seconds between signs of life
_LIFELESS = 300.0  # seconds without one after which a process of another machine counts as dead


class BadRecord(Exception):
    """A record is not what was once written."""


@dataclass(frozen=True)
class Place:
    """Where a campaign writes.

    Attributes
    ----------
    output : Path
        Its result.
    cells : Path or None
        Directory of finished tasks, if that is not the one beside the result.
    """

    output: Path
    cells: Path | None = None

    @property
    def record(self) -> Path:
        """Directory beside the result that says what is run: ``sweep.cells`` for ``sweep.nc``."""
        return self.output.parent / (self.output.name.removesuffix(".nc") + ".cells")

    @property
    def directory(self) -> Path:
        """Directory of finished tasks."""
        return self.record if self.cells is None else self.cells


@dataclass(frozen=True)
class Record:
    """What is being run beside a result.

    Attributes
    ----------
    kind : str
        Of the campaign.
    study : str
        All its parameters, as text.
    cells : Path or None
        As in `Place`.
    """

    kind: str
    study: str
    cells: Path | None


def write_study(place: Place, campaign: Campaign[Any]) -> None:
    """Say beside a result what is being run there."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "study": campaign.to_json()}
    if campaign.kind != FIRST_KIND:
        content["campaign"] = campaign.kind
    if place.cells is not None:
        content["cells"] = str(place.cells.absolute())
    path = own_directory(place.record) / "study.json"
    text = json.dumps(content) + "\n"
    with suppress(OSError, ValueError):
        if read_text(path) == text:
            return
    write_text(path, text)


def read_study(directory: Path) -> Record | None:
    """Return what is being run according to a directory, None where nothing is said.

    Raises
    ------
    BadRecord
        If what is said makes no sense.
    """
    try:
        content = _object(directory / "study.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if (content.get("format"), content.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise BadRecord("study.json is of another format")
    kind: Any = content.get("campaign", FIRST_KIND)
    study: Any = content.get("study")
    cells: Any = content.get("cells")
    if not isinstance(kind, str) or not isinstance(cells, str | None):
        raise BadRecord("study.json does not say what is run")
    return Record(kind, study, None if cells is None else Path(cells))


@dataclass(frozen=True)
class Running:
    """A process that works on a campaign.

    Attributes
    ----------
    host, pid
        Where it runs.
    digests : frozenset of str
        Of the tasks under way.
    done : float
        How much of these is done, in the campaign's measure of cost.
    speed : float
        Cost of what it does in a second, 0 as long as that is not known.
    """

    host: str
    pid: int
    digests: frozenset[str]
    done: float = 0.0
    speed: float = 0.0


class Announcement:
    """Keeps a file up to date that says which tasks this process has under way; a context.

    Parameters
    ----------
    directory : Path
        The directory of finished tasks.
    """

    def __init__(self, directory: Path) -> None:
        folder = own_directory(directory / "running")
        self._path = folder / f"{machine()}-{os.getpid()}.json"
        self._content: dict[str, Any] = {"cells": [], "done": 0.0, "speed": 0.0}
        self._changed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Announcement:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._changed.set()
        self._thread.join()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def update(self, digests: Iterable[str], done: float = 0.0, speed: float = 0.0) -> None:
        """Say which tasks are under way now, and how fast; as in `Running`."""
        content = {"cells": list(digests), "done": done, "speed": speed}
        if content["cells"] != self._content["cells"]:
            self._changed.set()  # else the next sign of life tells of it
        self._content = content

    def _keep(self) -> None:
        while not self._ended:
            self._changed.clear()
            with suppress(OSError):  # it only informs
                self._write()
            self._changed.wait(_HEARTBEAT)
            time.sleep(0 if self._ended else 0.2)  # several changes at a time

    def _write(self) -> None:
        content = {"host": socket.gethostname(), "pid": os.getpid(), **self._content}
        with atomic_write(self._path, flush="nothing") as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_running(directory: Path) -> list[Running]:
    """Return the processes that work on a campaign; what is left of dead ones does not count."""
    found = []
    for entry in entries(directory / "running"):
        with suppress(OSError, BadRecord):
            content = _object(Path(entry.path))
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            running = _running(content)
            if _lives(entry.name, running.pid, age):
                found.append(running)
    return found


def remove_dead(directory: Path) -> None:
    """Remove what processes have left that died on this machine."""
    for entry in entries(directory / "running"):
        match = re.fullmatch(r"([0-9a-f]{8})-([0-9]{1,10})\.json", entry.name)
        if match and match[1] == machine() and not is_alive(int(match[2])):
            with suppress(OSError):
                os.unlink(entry.path)


def _lives(name: str, pid: int, age: float) -> bool:
    return is_alive(pid) if name.startswith(f"{machine()}-") else age < _LIFELESS


def _running(content: dict[str, Any]) -> Running:
    host, pid, cells = (content.get(name) for name in ("host", "pid", "cells"))
    if not (isinstance(host, str) and type(pid) is int and pid > 0 and isinstance(cells, list)):
        raise BadRecord("it says nothing of a process")
    digests = frozenset(d for d in cells if isinstance(d, str) and _DIGEST.fullmatch(d))
    done, speed = (content.get(name, 0.0) for name in ("done", "speed"))
    if not all(isinstance(n, int | float) and 0 <= n < math.inf for n in (done, speed)):
        done = speed = 0.0
    return Running(printable(host)[:64], pid, digests, done, speed)


def _object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise BadRecord(f"{path.name}: it holds no object")
    return content


def write_failure(directory: Path, digest: str, task: object, report: str) -> Path:
    """Write the report of a task that failed; return its file."""
    path = own_directory(directory / "failed") / f"{digest}.txt"
    write_text(path, f"{task}\n\n{report}")
    return path


def failed_digests(directory: Path) -> set[str]:
    """Digests of all tasks that failed, with one listing."""
    names = (entry.name for entry in entries(directory / "failed"))
    return {n[:-4] for n in names if n.endswith(".txt") and _DIGEST.fullmatch(n[:-4])}


def failure(directory: Path, digest: str) -> tuple[Path, str]:
    """Return the report of a task that failed, and the error in one line."""
    path = directory / "failed" / f"{digest}.txt"
    try:
        lines = read_text(path).strip().splitlines()
    except (OSError, ValueError) as error:
        lines = [f"its report cannot be read: {error}"]
    return path, printable(lines[-1] if lines else "its report is empty")[:500]


def remove_failure(directory: Path, digest: str) -> None:
    """Forget that a task failed."""
    folder = directory / "failed"
    if not folder.is_symlink():
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / f"{digest}.txt").unlink()


def printable(text: str) -> str:
    """Return text that moves no cursor: control characters as the user would write them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
