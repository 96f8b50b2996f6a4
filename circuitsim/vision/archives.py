"""Reading archives that anybody may have put there: in memory, and never more than they should be.

Nothing is written to disk, so that names in an archive cannot lead anywhere; and what a small file
unpacks to is counted while it is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import shown
from circuitsim.files import open_regular

_BLOCK = 2**20
_SPARE = 2**20  # bytes of an archive that may be headers, and files of no interest
_INFLATED = 1100  # times that DEFLATE shortens what is all the same, and a little more
_MEMBERS = 1000  # files and folders of an archive that holds a few large ones
_HEADER = 2**16  # bytes that the header of an array takes at most


class BadArchive(Exception):
    """An archive is not what it should be."""


def read_members(path: Path, largest: Mapping[str, int]) -> tuple[dict[str, bytes], str]:
    """Read files out of a ``.tar.gz`` archive.

    Parameters
    ----------
    path : Path
        The archive.
    largest : mapping
        From the names of the files wanted, in whatever folder of the archive they are, to the most
        bytes that each may have.

    Returns
    -------
    dict of bytes, str
        Contents of those that are there, by name; and the MD5 sum of the archive itself, of the
        very bytes that were read.

    Raises
    ------
    BadArchive
        If it is damaged, holds anything but files and folders or a name that leads out of it, or
        unpacks to much more than the files wanted.
    OSError, ValueError
        As `open_regular`.
    """
    most = sum(largest.values()) + _SPARE
    with open_regular(path) as file:
        summed = _Summed(file, most)
        try:
            with gzip.GzipFile(fileobj=io.BufferedReader(summed)) as unpacked:
                contents = _members(io.BufferedReader(_Limited(unpacked, most)), largest, most)
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise BadArchive(f"is damaged or no .tar.gz archive ({error})") from None
        while summed.read(_BLOCK):
            pass
    return contents, summed.md5.hexdigest()


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file.

    Raises
    ------
    BadArchive
        If it is damaged or none, or has two arrays of one name.
    OSError, ValueError
        As `open_regular`.
    """
    with _zip(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if len(set(names)) < len(names):
        raise BadArchive("has two arrays of one name")
    return names


def read_array(path: Path, name: str) -> NDArray[Any]:
    """Read an array of an ``.npz`` file, compressed or not; no pickle is opened.

    Raises
    ------
    BadArchive
        If it is damaged, of Python objects, or unpacks to more than a file of its size can hold.
    OSError, ValueError
        As `open_regular`.
    """
    with _zip(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        check_method(info)
        with archive.open(info) as member:
            shape, by_columns, dtype = _header(member)
            if dtype.hasobject:
                raise BadArchive(f"{name} is of Python objects, which are not read")
            size = math.prod(shape) * dtype.itemsize
            if not 0 <= info.file_size - size <= _HEADER or (
                size > info.compress_size * _INFLATED + _SPARE
            ):
                raise BadArchive(f"{name} does not hold the {size} bytes that it says")
            content = bytearray(size)
            filled = 0
            while filled < size and (block := member.read(min(size - filled, 16 * _BLOCK))):
                content[filled : filled + len(block)] = block
                filled += len(block)
            # To the end, where the sum of all bytes is compared.
            if filled < size or member.read(1):
                raise BadArchive(f"{name} does not hold the {size} bytes that it says")
        return _shaped(content, shape, by_columns, dtype)


def check_method(member: zipfile.ZipInfo) -> None:
    """Refuse what is not stored or compressed by DEFLATE: others unpack without a limit.

    Raises
    ------
    BadArchive
        If so.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadArchive(
            f"{member.filename} is compressed by a method that is not read; pack it again with "
            "the usual one, deflate"
        )


def read_npy(path: Path) -> NDArray[Any]:
    """Read the array of an ``.npy`` file; no pickle is opened.

    Raises
    ------
    BadArchive
        If it is damaged or none, or of Python objects.
    OSError, ValueError
        As `open_regular`.
    """
    with open_regular(path) as file:
        try:
            shape, by_columns, dtype = _header(file)
        except (ValueError, SyntaxError, tokenize.TokenError, EOFError, RecursionError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise BadArchive(f"it is damaged or no .npy file: {reason}") from None
        if dtype.hasobject:
            raise BadArchive("it is of Python objects, which are not read")
        size = math.prod(shape) * dtype.itemsize
        left = os.fstat(file.fileno()).st_size - file.tell()
        if left != size:
            raise BadArchive(f"it has {left} bytes of numbers and not the {size} that it says")
        return _shaped(file.read(size), shape, by_columns, dtype)


def _shaped(
    content: bytes | bytearray, shape: tuple[int, ...], by_columns: bool, dtype: np.dtype[Any]
) -> NDArray[Any]:
    try:
        array = np.frombuffer(content, dtype)
        return array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)
    except ValueError as error:  # axes of no length beside endless ones, elements of no bytes
        raise BadArchive(f"it is damaged: {error}") from None


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member)
    raise BadArchive(f"has arrays of the unknown format {version}")


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except (
            zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError,
            SyntaxError, tokenize.TokenError, ValueError, MemoryError, OverflowError,
        ) as error:  # fmt: skip
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise BadArchive(f"it is damaged or no .npz archive: {reason}") from None


def _members(stream: io.BufferedReader, largest: Mapping[str, int], most: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, member in enumerate(archive):
            if number == _MEMBERS:
                raise BadArchive(f"holds more than {_MEMBERS} files")
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise BadArchive(f"holds a name that leads out of it, {shown(member.name)}")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise BadArchive(f"holds something that is no plain file, {shown(member.name)}")
            if member.size > most:  # or what is not there would be skipped, block by block
                raise BadArchive(
                    f"holds {shown(member.name)} that claims {member.size} bytes, more than all "
                    "of it should hold"
                )
            if name.name not in largest:
                continue
            if name.name in contents:
                raise BadArchive(f"holds {name.name} twice")
            if member.size > largest[name.name]:
                raise BadArchive(
                    f"holds {name.name} with {member.size} bytes, more than the "
                    f"{largest[name.name]} that it may have"
                )
            opened = archive.extractfile(member)
            assert opened is not None  # it is a plain file
            contents[name.name] = opened.read()
    while stream.read(_BLOCK):  # to the end, where the sum of all bytes is checked
        pass
    return contents


class _Summed(io.RawIOBase):
    """A file of limited size whose MD5 sum is taken as it is read."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._left = most
        self.md5 = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        count = self._file.readinto(view)  # type: ignore[attr-defined]
        self.md5.update(view[:count])
        self._left -= count
        if self._left < 0:
            raise BadArchive("is larger than what it should hold")
        return count


class _Limited(io.RawIOBase):
    """A stream that ends with an error if it is longer than it may be."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream = stream
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        block = self._stream.read(len(view))
        view[: len(block)] = block
        self._left -= len(block)
        if self._left < 0:
            raise BadArchive("unpacks to more than what it should hold")
        return len(block)
