"""Writing files so that they are either whole or not there, and reading those of others."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

OWNER = r"([0-9a-f]{8})-([0-9]{1,10})-"  # in names of temporary files: machine and process
_PART = re.compile(rf"\..*\.{OWNER}[^.]*\.part", re.DOTALL)
_FORGOTTEN = 86_400  # seconds after which another machine's temporary file is nobody's any more


@contextmanager
def atomic_write(
    path: Path, *, flush: Literal["name", "content", "nothing"] = "name"
) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; then flush it to disk and rename it.

    If anything goes wrong the temporary file is removed, and ``path`` is as it was. If the process
    is killed the temporary file stays, and `remove_abandoned` tells it by its name.

    Parameters
    ----------
    path : Path
        What to write.
    flush : {"name", "content", "nothing"}
        What to wait for until the disk has it. Should the machine lose its power, a file whose name
        was not flushed may be gone, but it is whole if it is there; one whose content was not
        flushed may be damaged.

    Raises
    ------
    OSError
        If the directory cannot be written or the disk is full.
    """
    # Cut, so that a name of the greatest length has room for what makes it unique.
    name = os.fsdecode(os.fsencode(path.name)[:150])
    descriptor, made = tempfile.mkstemp(
        prefix=f".{name}.{machine()}-{os.getpid()}-", suffix=".part", dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(made)
    try:
        yield temporary
        if flush != "nothing":
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; give what a plain open would give.
        # A file system that knows no permissions may refuse it.
        with suppress(OSError):
            temporary.chmod(0o666 & ~_mask())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # what the user knows of
        raise
    if flush == "name":
        with suppress(OSError):  # not every file system can flush a directory
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


@cache
def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; see `atomic_write`.

    Names of files in it that are no UTF-8 are written as they are.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_text(path: Path, at_most: int = 2**26) -> str:
    """Read a text file that anybody may have put there; as `read_bytes`.

    Raises
    ------
    ValueError
        Also if it is no UTF-8 text.
    """
    return read_bytes(path, at_most).decode("utf-8")


def read_bytes(path: Path, at_most: int) -> bytes:
    """Read a file that anybody may have put there.

    Raises
    ------
    ValueError
        If it is no regular file (a symbolic link is none), or is larger than ``at_most`` bytes.
    OSError
        If there is none, or it cannot be read.
    """
    if path.is_symlink():
        raise ValueError("it is a symbolic link")
    with open_regular(path, follow=False) as file:
        size = os.fstat(file.fileno()).st_size
        if size > at_most:
            raise ValueError(f"it has {size} bytes")
        return file.read(at_most)


@contextmanager
def open_regular(path: Path, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a file for reading that anybody may have put there.

    Parameters
    ----------
    path : Path
        What to open.
    follow : bool
        Whether it may be a symbolic link to a file.

    Raises
    ------
    ValueError
        If it is no regular file.
    OSError
        If there is none, or it cannot be read.
    """
    # Opening a pipe would wait for somebody to write to it.
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    with open(descriptor, "rb") as file:
        yield file


def reason(error: BaseException) -> str:
    """Say why a file cannot be read, where its name is told anyway."""
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(said.split())[:300]


def own_directory(path: Path) -> Path:
    """Make a directory of ours unless it is there; never write through a link to another place.

    Raises
    ------
    OSError
        If it is there as something else, or cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(parents=True)
    if path.is_symlink() or not path.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "is not a directory of its own; move it away", str(path)
        )
    return path


def entries(path: Path) -> list[os.DirEntry[str]]:
    """List a directory of ours: nothing if there is none, or a link to another place."""
    if path.is_symlink() or not path.is_dir():
        return []
    with os.scandir(path) as found:
        return list(found)


@cache
def machine() -> str:
    """Return a name of this machine since it was started, within which a process has one number.

    Containers have their own numbers, and so count as machines.
    """
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(source) if "ns" in source else Path(source).read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs (one that has ended and waits for its parent: no)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True


def remove_abandoned(entries: Iterable[os.DirEntry[str]]) -> None:
    """Remove temporary files of `atomic_write` whose process has died.

    Those of other machines, where this cannot be seen, are removed a day after their last change.
    """
    for entry in entries:
        match = _PART.fullmatch(entry.name)
        with suppress(OSError):
            if match is not None and is_abandoned(entry, match):
                os.unlink(entry.path)


def is_abandoned(entry: os.DirEntry[str], owner: re.Match[str]) -> bool:
    """Whether the process has died that a temporary file is of; ``owner`` has matched `OWNER`.

    On another machine this cannot be seen: then, whether its last change was over a day ago.
    """
    if owner[1] == machine():
        return not is_alive(int(owner[2]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN
