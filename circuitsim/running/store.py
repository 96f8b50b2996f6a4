"""Finished tasks: one file each, named by the digest of all that determines its numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.files import arrays, entries, own_directory, remove_abandoned
from circuitsim.files.arrays import BadFile
from circuitsim.running.campaign import Arrays, Campaign, T

_FOLDER = re.compile(r"[0-9a-f]{2}")
_RECORDS = ("failed", "running")  # folders that hold no results


class Store:
    """A directory of finished tasks, which several campaigns may share.

    Parameters
    ----------
    directory : Path
        Made when the first result is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, digest: str) -> Path:
        """File of a result; in one of 256 folders, so that listing them stays fast."""
        return self.directory / digest[:2] / f"{digest}.npz"

    def finished(self, campaign: Campaign[T], tasks: Iterable[T]) -> set[T]:
        """Return which tasks have a file, sound or not."""
        present = self.digests()
        return {task for task in tasks if campaign.digest(task) in present}

    def digests(self) -> set[str]:
        """Names of all files there are, found with one listing for each folder."""
        return {
            entry.name.removesuffix(".npz")
            for folder in self._folders()
            for entry in entries(folder)
            if entry.name.endswith(".npz")
        }

    def clean(self) -> None:
        """Remove what processes that were killed have left half-written."""
        for folder in (self.directory, *self._folders(), *map(self.directory.joinpath, _RECORDS)):
            remove_abandoned(entries(folder))

    def _folders(self) -> list[Path]:
        return [Path(e.path) for e in entries(self.directory) if _FOLDER.fullmatch(e.name)]

    def write(self, campaign: Campaign[T], task: T, result: Arrays) -> None:
        """Write a result, whole or not at all."""
        digest = campaign.digest(task)
        path = self.path(digest)
        own_directory(path.parent)
        content = {name: np.ascontiguousarray(array) for name, array in result.items()}
        content |= {"digest": _encoded(digest), "cell": _encoded(campaign.describe(task))}
        # What is lost with the machine's power is computed again: not worth another wait.
        arrays.write(path, content, flush="content")

    def read(self, campaign: Campaign[T], task: T) -> Arrays:
        """Read a result, trusting nothing.

        Raises
        ------
        BadFile
            If the file is not exactly what `write` makes for this task, with finite numbers.
        OSError
            If there is no file.
        """
        digest, byte = campaign.digest(task), np.dtype("u1")
        layout = campaign.layout(task) | {
            "digest": ((len(digest),), byte),
            "cell": ((len(campaign.describe(task)),), byte),
        }
        found = arrays.read(self.path(digest), layout)
        if found.pop("digest").tobytes() != digest.encode():
            raise BadFile("it is the file of another task")
        del found["cell"]
        for name, array in found.items():
            if name in campaign.undefined or array.dtype.kind not in "f":
                continue
            sound = ~np.isnan(array) if name in campaign.infinite else np.isfinite(array)
            if not np.all(sound):
                raise BadFile(f"{name} has values that are not finite")
        return found

    def set_aside(self, campaign: Campaign[T], task: T) -> Path:
        """Move a bad file out of the way, keeping it; return its new path."""
        path = self.path(campaign.digest(task))
        aside = own_directory(self.directory / "bad")
        target = aside / path.name
        number = 1
        while target.exists() or target.is_symlink():
            number += 1
            target = aside / f"{path.stem}-{number}.npz"
        os.replace(path, target)
        return target


class Memory:
    """Finished tasks of a campaign of seconds, which are not worth files."""

    directory = None

    def __init__(self) -> None:
        self._results: dict[str, Arrays] = {}

    def finished(self, campaign: Campaign[T], tasks: Iterable[T]) -> set[T]:
        """Return which tasks have a result."""
        return {task for task in tasks if campaign.digest(task) in self._results}

    def write(self, campaign: Campaign[T], task: T, result: Arrays) -> None:
        """Keep a result."""
        self._results[campaign.digest(task)] = result

    def read(self, campaign: Campaign[T], task: T) -> Arrays:
        """Return a result."""
        return self._results[campaign.digest(task)]


def _encoded(text: str) -> NDArray[Any]:
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
