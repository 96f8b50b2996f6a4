"""What a directory of cells says of the study it is for: `circuitsim.status` reads it."""

from __future__ import annotations

import json
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
from circuitsim.studies.study import Cell, Study

FORMAT = "circuitsim study"
FORMAT_VERSION = 1

_DIGEST = re.compile(r"[0-9a-f]{32}")
_HEARTBEAT = 20.0  # seconds between signs of life
_LIFELESS = 300.0  # seconds without one after which a process of another machine counts as dead


class BadRecord(Exception):
    """A record is not what was once written."""


def write_study(directory: Path, study: Study) -> None:
    """Say in a directory of cells what is being run there."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "study": study.to_json()}
    path = directory / "study.json"
    text = json.dumps(content) + "\n"
    with suppress(OSError, ValueError):
        if read_text(path) == text:
            return
    write_text(path, text)


def read_study(directory: Path) -> Study | None:
    """Return what is being run in a directory of cells, None where nothing is said.

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
    try:
        return Study.from_json(content.get("study"))
    except ValueError as error:
        raise BadRecord(f"study.json: {error}") from None


@dataclass(frozen=True)
class Running:
    """A process that works on a study.

    Attributes
    ----------
    host, pid
        Where it runs.
    digests : frozenset of str
        Of the cells under way.
    """

    host: str
    pid: int
    digests: frozenset[str]


class Announcement:
    """Keeps a file up to date that says which cells this process has under way; a context.

    Parameters
    ----------
    directory : Path
        The directory of cells.
    """

    def __init__(self, directory: Path) -> None:
        folder = own_directory(directory / "running")
        self._path = folder / f"{machine()}-{os.getpid()}.json"
        self._digests: list[str] = []
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

    def update(self, digests: Iterable[str]) -> None:
        """Say which cells are under way now."""
        self._digests = list(digests)
        self._changed.set()

    def _keep(self) -> None:
        while not self._ended:
            self._changed.clear()
            with suppress(OSError):  # it only informs
                self._write()
            self._changed.wait(_HEARTBEAT)
            time.sleep(0 if self._ended else 0.2)  # several changes at a time

    def _write(self) -> None:
        content = {"host": socket.gethostname(), "pid": os.getpid(), "cells": self._digests}
        with atomic_write(self._path, flush="nothing") as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_running(directory: Path) -> list[Running]:
    """Return the processes that work on a study; what is left of dead ones does not count."""
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
    return Running(printable(host)[:64], pid, digests)


def _object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise BadRecord(f"{path.name}: it holds no object")
    return content


def write_failure(directory: Path, digest: str, cell: Cell, report: str) -> Path:
    """Write the report of a cell that failed; return its file."""
    path = own_directory(directory / "failed") / f"{digest}.txt"
    write_text(path, f"{cell}\n\n{report}")
    return path


def failed_digests(directory: Path) -> set[str]:
    """Digests of all cells that failed, with one listing."""
    names = (entry.name for entry in entries(directory / "failed"))
    return {n[:-4] for n in names if n.endswith(".txt") and _DIGEST.fullmatch(n[:-4])}


def failure(directory: Path, digest: str) -> tuple[Path, str]:
    """Return the report of a cell that failed, and the error in one line."""
    path = directory / "failed" / f"{digest}.txt"
    try:
        lines = read_text(path).strip().splitlines()
    except (OSError, ValueError) as error:
        lines = [f"its report cannot be read: {error}"]
    return path, printable(lines[-1] if lines else "its report is empty")[:500]


def remove_failure(directory: Path, digest: str) -> None:
    """Forget that a cell failed."""
    folder = directory / "failed"
    if not folder.is_symlink():
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / f"{digest}.txt").unlink()


def printable(text: str) -> str:
    """Return text that moves no cursor: control characters as the user would write them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
