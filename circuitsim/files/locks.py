"""Locks between processes that say who holds them, and that no dead process keeps.

The system forgets a lock of `flock` when its process ends, however that happens; the file stays,
and tells those who come second of its holder. A file system without such locks, as some of clusters
are, is worked on without: then nothing keeps two processes apart, which is said once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("circuitsim")

# What a file system says that has no locks; 524 is the kernel's ENOTSUPP, which has no name here.
_WITHOUT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, 524}
_POLL = 0.1  # seconds between tries
_PATIENCE = 3.0  # seconds after which it is said what is waited for
_LONGEST = 4096  # bytes of what a holder says of itself

_told: set[Path] = set()  # directories without locks that have been told of


class Taken(Exception):
    """Another process has the lock; the message says which, and what to do."""


@contextmanager
def locked(
    path: Path, *, wait: bool = False, told: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock, a file that is made if need be, as long as the context lasts.

    Parameters
    ----------
    path : Path
        The file, in a directory that exists.
    wait : bool
        Whether to wait while another holds it; what is waited for is said after some seconds.
    told : callable, optional
        Is given what there is to say; the log by default.

    Raises
    ------
    Taken
        If another holds it, and is not waited for.
    OSError
        If the file cannot be made, or is a symbolic link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        _acquire(descriptor, path, wait, told or logger.warning)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def _acquire(descriptor: int, path: Path, wait: bool, told: Callable[[str], None]) -> None:
    began: float | None = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno in _WITHOUT:
                if path.parent not in _told:
                    _told.add(path.parent)
                    told(
                        f"the file system of {path.parent} has no locks ({os.strerror(error.errno)}"
                        "): see to it yourself that one process alone writes there"
                    )
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise
        if not wait:
            raise Taken(f"{_holder(path)} holds {path}; {_WAY_OUT}")
        if began is not None and time.monotonic() - began > _PATIENCE:
            told(f"waiting for {_holder(path)}, which holds {path}; {_WAY_OUT}")
            began = None
        time.sleep(_POLL)
    content = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}
    with suppress(OSError):  # it only informs
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(content) + "\n").encode(), 0)


_WAY_OUT = "wait for it or end it; if there is no such process any more, remove that file"


def _holder(path: Path) -> str:
    """Say which process holds a lock, as far as the file tells."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LONGEST))
        pid, host, since = (str(found[name])[:64] for name in ("pid", "host", "since"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"
    text = f"process {pid} on {host} (since {since})"
    return "".join(c for c in text if c.isprintable())
