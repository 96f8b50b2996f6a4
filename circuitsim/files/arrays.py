"""``.npz`` files that are checked before anything of them is believed; none holds a pickle."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from circuitsim.files import atomic_write, open_regular

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

Note = Callable[[str], None]

_OVERHEAD = 4096  # more than the headers of any array file of ours
_SEAL = b"circuitsim sha256 "  # in the archive's comment, at the end of the file
_END = 22  # bytes that end an archive without a comment
_DIGEST = 64  # digits of the checksum of all that stands before them


class BadFile(Exception):
    """A file is not what was once written."""


def write(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    flush: Literal["name", "content", "nothing"] = "name",
) -> None:
    """Write arrays, whole or not at all, and seal the file; see `atomic_write`."""
    with atomic_write(path, flush=flush) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = _SEAL + bytes(_DIGEST)
        with temporary.open("rb+") as sealed:
            digest = _digest(sealed, os.fstat(sealed.fileno()).st_size - _DIGEST)
            sealed.write(digest)


def read(path: Path, layout: Layout) -> dict[str, NDArray[Any]]:
    """Read a file of a given layout, allocating nothing before that is checked.

    Raises
    ------
    BadFile
        If it has another layout, or is damaged.
    FileNotFoundError
        If there is none.
    """
    return dict(members(path, layout))


def members(
    path: Path, layout: Layout, others: Iterable[str] = (), note: Note | None = None
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read the arrays of a file one by one; see `read`.

    Parameters
    ----------
    path : Path
        The file.
    layout : mapping
        Shapes and types by names.
    others : iterable of str
        Beginnings of the names of arrays that may be there too, and are not read.
    note : callable, optional
        Is told if the file has no seal, as those of earlier versions.

    Raises
    ------
    BadFile, FileNotFoundError
        As `read`.
    """
    most = sum(math.prod(shape) * dtype.itemsize + _OVERHEAD for shape, dtype in layout.values())
    with _opened(path, None if others else most + _OVERHEAD, note) as archive:
        found = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        if len(set(found)) < len(found):
            raise BadFile("it has two arrays of one name")
        unknown = {n for n in found if n not in layout and not n.startswith((*others,))}
        for what, names in (("lacks", set(layout) - set(found)), ("has an unknown", unknown)):
            if names:
                raise BadFile(f"it {what} array {min(names)!r}")
        for name, (shape, dtype) in layout.items():
            size = math.prod(shape) * dtype.itemsize
            content = _content(archive, name, size)
            header = _header(shape, dtype)
            if not content.startswith(header):
                raise BadFile(f"{name} must be {dtype} of {shape}")
            if len(content) != len(header) + size:
                raise BadFile(f"{name} is not stored as it was written")
            yield name, np.frombuffer(content, dtype, offset=len(header)).reshape(shape)


def read_bytes_of(path: Path, name: str, at_most: int) -> bytes:
    """Read an array of bytes, of whatever length up to a limit; raises as `read`."""
    with _opened(path, None, None) as archive:
        content = _content(archive, name, at_most)
        stream = io.BytesIO(content)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise BadFile(f"{name} has an unknown format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype != np.uint8 or shape != (len(content) - stream.tell(),):
            raise BadFile(f"{name} is not stored as it was written")
        return stream.read()


@contextmanager
def _opened(path: Path, most: int | None, note: Note | None) -> Iterator[zipfile.ZipFile]:
    """Open a file whose seal is right, or that has none; what goes wrong is the file's fault."""
    try:
        if path.is_symlink():
            raise BadFile("it is a symbolic link")
        with open_regular(path, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise BadFile(f"it has {size} bytes")
            file.seek(max(size - _DIGEST - len(_SEAL), 0))
            if file.read(len(_SEAL)) == _SEAL:
                said = file.read(_DIGEST)
                if said != _digest(file, size - _DIGEST):
                    raise BadFile("it has changed since it was written: its checksum is another")
            else:
                file.seek(max(size - _END, 0))
                end = file.read()
                if not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0")):
                    raise BadFile("it was cut short")
                if note is not None:
                    note("has no checksum, as files of earlier versions: what is in it is believed")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except (FileNotFoundError, BadFile):
        raise
    # What zipfile raises for a damaged file is of many kinds.
    except Exception as error:
        raise BadFile(str(error) or type(error).__name__) from error


def _content(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Read a member to its end, where zipfile checks the sum of its bytes."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise BadFile(f"{name} is not stored as it was written")
    if info.file_size > size + _OVERHEAD:
        raise BadFile(f"{name} is larger than it should be")
    return archive.read(info)


def _digest(file: BinaryIO, length: int) -> bytes:
    """Return the checksum of a file's first bytes, and leave it behind them."""
    file.seek(0)
    digest = hashlib.sha256()
    while length:
        block = file.read(min(length, 2**20))
        if not block:
            break
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()


@cache
def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What stands before an array's data in a ``.npy`` file of format 1.0."""
    stream = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()
