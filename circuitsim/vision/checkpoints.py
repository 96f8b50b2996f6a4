"""Trained networks, and all that continuing a training needs, in a directory of their own.

``run.json`` says what is trained, and is written once; ``checkpoint.npz`` holds arrays, replaced as
the training goes on. Nothing in them is code, and nothing is believed before it is checked.
"""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from circuitsim.files import atomic_write, read_text, write_text
from circuitsim.validation import ParameterError

FORMAT = "circuitsim classifier"
FORMAT_VERSION = 1
DESCRIPTION = "run.json"
ARRAYS = "checkpoint.npz"
_PROGRESS = "progress"  # text, as bytes, beside the arrays
_HEADER = 4096  # bytes that the header of an array takes at most


def write_description(directory: Path, content: Mapping[str, Any]) -> None:
    """Write what is trained.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    write_text(directory / DESCRIPTION, json.dumps(content, indent=1) + "\n")


def read_description(directory: Path) -> dict[str, Any]:
    """Read what is trained.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ParameterError
        If it is none of this format and version.
    """
    path = directory / DESCRIPTION
    if not path.exists():
        raise FileNotFoundError(f"{directory}: holds no trained network ({DESCRIPTION} is missing)")
    try:
        content = json.loads(read_text(path, at_most=2**22))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it is no description of a classifier")
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"its format is version {content['format_version']!r}, and this version of "
                f"circuitsim reads {FORMAT_VERSION}"
            )
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise damaged(path, error) from None
    return content


def write_arrays(directory: Path, arrays: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Write arrays, and how far the training is, whole or not at all.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    text = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    with atomic_write(directory / ARRAYS) as temporary, temporary.open("wb") as file:
        content: dict[str, Any] = {_PROGRESS: text, **arrays}
        np.savez(file, **content)


def read_progress(directory: Path) -> dict[str, Any] | None:
    """Read how far the training is; None if no arrays have been written yet.

    Raises
    ------
    ParameterError
        If the file is damaged.
    """
    path = directory / ARRAYS
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive, _member(archive, _PROGRESS, 2**24) as file:
            shape, _ = _header(file)
            content = json.loads(file.read(shape[0]).decode())
        if not isinstance(content, dict):
            raise ValueError("it does not say how far the training is")
    except (*_UNREADABLE, IndexError, RecursionError) as error:
        raise damaged(path, error) from None
    return content


def read_arrays(directory: Path, into: Mapping[str, Any], others: Iterable[str] = ()) -> None:
    """Read arrays into those of the same names, shapes and types.

    Parameters
    ----------
    directory : Path
        Of the run.
    into : mapping
        From names to arrays. If the file is damaged they may have been changed in part.
    others : iterable of str
        Beginnings of the names of arrays that may be there too, and are not read.

    Raises
    ------
    ParameterError
        If the file is damaged, or lacks arrays, or has others.
    """
    path = directory / ARRAYS
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy") for name in archive.namelist()}
            unknown = {n for n in found - set(into) - {_PROGRESS} if not n.startswith((*others,))}
            for what, names in (("lacks", set(into) - found), ("has an unknown", unknown)):
                if names:
                    raise ValueError(f"it {what} array {min(names)!r}")
            for name, array in into.items():
                with _member(archive, name, array.nbytes) as file:
                    if _header(file) != (array.shape, array.dtype):
                        raise ValueError(f"{name} must be {array.dtype} of {array.shape}")
                    # Up to its end, where its checksum is compared.
                    content = file.read(array.nbytes + 1)
                values = np.frombuffer(content, array.dtype).reshape(array.shape)
                if not np.isfinite(values).all():
                    raise ValueError(f"{name} has numbers that are not finite")
                array[...] = values
    except _UNREADABLE as error:
        raise damaged(path, error) from None


# What NumPy and zipfile raise for damaged archives.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def damaged(path: Path, error: Exception) -> ParameterError:
    """Return the error that says why a file of a run cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ParameterError("run", f"{path.name} cannot be read ({reason[:300]})", str(path.parent))


def _member(archive: zipfile.ZipFile, name: str, at_most: int) -> IO[bytes]:
    """Open a member of an archive that is no larger in memory than it is on the disk."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > at_most + _HEADER:
        raise ValueError(f"{name} is not stored as it was written")
    return archive.open(info)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array in it has an unknown format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if by_columns:
        raise ValueError("an array in it is not stored as it was written")
    return shape, dtype
