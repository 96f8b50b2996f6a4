"""Reading archives that anybody may have put there: in memory, and never more than they should be.

Nothing is written to disk, so that names in an archive cannot lead anywhere; and what a small file
unpacks to is counted while it is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from circuitsim.files import open_regular
from circuitsim.validation import shown

_BLOCK = 2**20
_SPARE = 2**20  # bytes of an archive that may be headers, and files of no interest


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
                contents = _members(io.BufferedReader(_Limited(unpacked, most)), largest)
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise BadArchive(f"is damaged or no .tar.gz archive ({error})") from None
        while summed.read(_BLOCK):
            pass
    return contents, summed.md5.hexdigest()


def _members(stream: io.BufferedReader, largest: Mapping[str, int]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise BadArchive(f"holds a name that leads out of it, {shown(member.name)}")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise BadArchive(f"holds something that is no plain file, {shown(member.name)}")
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
