"""Finished cells on disk: one file each, named by the digest of all that determines its numbers."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.files import atomic_write
from circuitsim.studies.study import CURVES, LIMITS, Cell, CellResult, Study

_OVERHEAD = 4096  # more than the headers of any array file of ours


class BadCellFile(Exception):
    """A cell's file is not what was once written."""


class Store:
    """A directory of finished cells.

    Parameters
    ----------
    directory : Path
        Made when the first cell is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, digest: str) -> Path:
        """File of a cell; in one of 256 folders, so that listing them stays fast."""
        return self.directory / digest[:2] / f"{digest}.npz"

    def finished(self, study: Study, cells: Iterable[Cell]) -> set[Cell]:
        """Return which cells have a file, sound or not."""
        present = self.digests()
        return {cell for cell in cells if study.digest(cell) in present}

    def digests(self) -> set[str]:
        """Names of all files there are, found with one listing for each folder."""
        found = set()
        if self.directory.is_dir():
            for folder in os.scandir(self.directory):
                if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                    found |= {
                        entry.name.removesuffix(".npz")
                        for entry in os.scandir(folder.path)
                        if entry.name.endswith(".npz")
                    }
        return found

    def write(self, study: Study, cell: Cell, result: CellResult) -> None:
        """Write a finished cell, whole or not at all."""
        path = self.path(study.digest(cell))
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = dict(result.curves)
        arrays["limits"] = np.array([result.limits[name] for name in LIMITS])
        arrays["weights"] = np.ascontiguousarray(result.weights)
        arrays["seconds"] = np.array([result.seconds])
        arrays["digest"] = _encoded(study.digest(cell))
        arrays["cell"] = _encoded(json.dumps(asdict(cell), sort_keys=True))
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def read(self, study: Study, cell: Cell) -> CellResult:
        """Read a finished cell, trusting nothing.

        Raises
        ------
        BadCellFile
            If the file is not exactly what `write` makes for this cell, with finite numbers.
        OSError
            If there is no file.
        """
        path = self.path(study.digest(cell))
        arrays = _read_arrays(path, _layout(study, cell))
        if _decoded(arrays["digest"]) != study.digest(cell):
            raise BadCellFile("it is the file of another cell")
        for name in (*CURVES, "weights", "seconds"):
            # Weights that are all the same to the last bit have an infinite SNR.
            valid = ~np.isnan(arrays[name]) if name == "snr_w" else np.isfinite(arrays[name])
            if not np.all(valid):
                raise BadCellFile(f"{name} has values that are not finite")
        return CellResult(
            curves={name: arrays[name] for name in CURVES},
            limits=dict(zip(LIMITS, arrays["limits"].tolist(), strict=True)),
            weights=arrays["weights"],
            seconds=float(arrays["seconds"][0]),
        )

    def set_aside(self, study: Study, cell: Cell) -> Path:
        """Move a cell's bad file out of the way, keeping it; return its new path."""
        path = self.path(study.digest(cell))
        aside = self.directory / "bad"
        aside.mkdir(parents=True, exist_ok=True)
        target = aside / path.name
        number = 1
        while target.exists() or target.is_symlink():
            number += 1
            target = aside / f"{path.stem}-{number}.npz"
        os.replace(path, target)
        return target


_Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


def _layout(study: Study, cell: Cell) -> _Layout:
    """Shape and type of every array in a cell's file."""
    number, byte = np.dtype("<f8"), np.dtype("u1")
    layout: _Layout = dict.fromkeys(CURVES, ((study.presentations + 1,), number))
    layout["limits"] = ((len(LIMITS),), number)
    layout["weights"] = ((cell.neurons, cell.k**2), number)
    layout["seconds"] = ((1,), number)
    layout["digest"] = ((len(study.digest(cell)),), byte)
    layout["cell"] = ((len(json.dumps(asdict(cell), sort_keys=True)),), byte)
    return layout


def _read_arrays(path: Path, layout: _Layout) -> dict[str, np.ndarray[Any, Any]]:
    """Read an ``.npz`` file of a given layout, allocating nothing before that is checked."""
    if path.is_symlink() or not path.is_file():
        raise BadCellFile("it is not a regular file")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if set(members) != {f"{name}.npy" for name in layout}:
                raise BadCellFile("it has other arrays than expected")
            for name, (shape, dtype) in layout.items():
                size = math.prod(shape) * dtype.itemsize
                info = members[f"{name}.npy"]
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or not size <= info.file_size <= size + _OVERHEAD:
                    raise BadCellFile(f"{name} has another size than expected")
                # Reading to the end makes zipfile check the sum of the bytes.
                stream = io.BytesIO(archive.read(info))
                if np.lib.format.read_magic(stream) != (1, 0):
                    raise BadCellFile(f"{name} is in another format than expected")
                if np.lib.format.read_array_header_1_0(stream) != (shape, False, dtype):
                    raise BadCellFile(f"{name} has another shape or type than expected")
                data = stream.read()
                if len(data) != size:
                    raise BadCellFile(f"{name} has another size than expected")
                arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadCellFile(str(error)) from error
    return arrays


def _encoded(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)


def _decoded(array: np.ndarray[Any, Any]) -> str:
    return array.tobytes().decode("ascii", errors="replace")
