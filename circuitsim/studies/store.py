"""Finished cells on disk: one file each, named by the digest of all that determines its numbers."""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.files import (
    atomic_write,
    entries,
    own_directory,
    read_bytes,
    remove_abandoned,
)
from circuitsim.studies.study import CURVES, DIGEST_LENGTH, LIMITS, Cell, CellResult, Study

_OVERHEAD = 4096  # more than the headers of any array file of ours
_FOLDER = re.compile(r"[0-9a-f]{2}")
_RECORDS = ("failed", "running")  # folders that hold no cells


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

    def write(self, study: Study, cell: Cell, result: CellResult) -> None:
        """Write a finished cell, whole or not at all."""
        digest = study.digest(cell)
        path = self.path(digest)
        own_directory(path.parent)
        arrays: dict[str, Any] = dict(result.curves)
        arrays["limits"] = np.array([result.limits[name] for name in LIMITS])
        arrays["weights"] = np.ascontiguousarray(result.weights)
        arrays["seconds"] = np.array([result.seconds])
        arrays["digest"] = _encoded(digest)
        arrays["cell"] = _encoded(cell.to_json())
        # A cell that is lost with the machine's power is computed again: not worth another wait.
        with (
            atomic_write(path, flush="content") as temporary,
            temporary.open("wb") as file,
        ):
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
        digest = study.digest(cell)
        arrays = _read_arrays(self.path(digest), _layout(study, cell))
        if _decoded(arrays["digest"]) != digest:
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
        aside = own_directory(self.directory / "bad")
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
    layout["weights"] = ((cell.neurons, study.n_inputs(cell.k)), number)
    layout["seconds"] = ((1,), number)
    layout["digest"] = ((DIGEST_LENGTH,), byte)
    layout["cell"] = ((len(cell.to_json()),), byte)
    return layout


def _read_arrays(path: Path, layout: _Layout) -> dict[str, np.ndarray[Any, Any]]:
    """Read an ``.npz`` file of a given layout, allocating nothing before that is checked."""
    most = sum(math.prod(shape) * dtype.itemsize + _OVERHEAD for shape, dtype in layout.values())
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, most))) as archive:
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
                content = archive.read(info)
                header = _header(shape, dtype)
                if not content.startswith(header):
                    raise BadCellFile(f"{name} has another shape or type than expected")
                if len(content) != len(header) + size:
                    raise BadCellFile(f"{name} has another size than expected")
                arrays[name] = np.frombuffer(content, dtype, offset=len(header)).reshape(shape)
    except FileNotFoundError:
        raise
    # What zipfile raises for a damaged file is of many kinds.
    except Exception as error:
        raise BadCellFile(str(error) or type(error).__name__) from error
    return arrays


@cache
def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before an array's data in a ``.npy`` file of format 1.0."""
    stream = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _encoded(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)


def _decoded(array: np.ndarray[Any, Any]) -> str:
    return array.tobytes().decode("ascii", errors="replace")
