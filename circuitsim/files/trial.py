"""Opening a file of HDF5 in a process of its own, before this one opens it.

A seal tells damage, not malice: a file that was forged and sealed can keep HDF5 busy for ever, take
all memory or end the process. In a process with limits it only ends that one.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_SECONDS = 5  # of processor time, more than any file of ours takes to be opened
_BYTES_A_SECOND = 2e7  # of the file, for which more is given
_MEMORY = 2**28  # bytes beside those of the file
_READY = b"ready\n"
_GROUPS = 100_000  # more than any file of ours has


def refused(path: Path) -> str | None:
    """Return why a file must not be opened in this process; None if it may.

    Where no process can be started, files are believed.

    Parameters
    ----------
    path : Path
        A regular file.
    """
    size = path.stat().st_size
    seconds = _SECONDS + int(size / _BYTES_A_SECOND)
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, os.fspath(path), str(seconds), str(_MEMORY + 4 * size)],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20 * seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"opening it takes more than {seconds} s"
    except OSError:  # an interpreter within another program, or no processes are allowed
        return None
    if done.returncode == 0 or not done.stdout.startswith(_READY):
        return None
    if done.returncode == 1:
        lines = done.stderr.decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line), "it is damaged")
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        return f"opening it takes more than {seconds} s"
    return "opening it ends the process that does"


def main() -> None:
    """Open the file that is named on the command line; what is wrong ends this process."""
    import h5netcdf
    import h5py

    path, seconds, memory = sys.argv[1], *map(int, sys.argv[2:])
    _limit(seconds, memory)
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    try:
        with h5py.File(path, "r", locking=False) as file:
            _walk(file, Path(path).stat().st_size)
            _look(h5netcdf.File(file, "r"))
    except BaseException as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(reason[:300], file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _limit(seconds: int, memory: int) -> None:
    with suppress(ImportError, OSError):  # not every system has such limits
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        for kind, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds),
            (resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory),
        ):
            hard = resource.getrlimit(kind)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, hard))


def _walk(file: Any, size: int) -> None:
    """Look at each group and array, and read their attributes."""
    import h5py

    seen: set[Any] = set()
    waiting = [file]
    while waiting:
        found = waiting.pop()
        place = h5py.h5o.get_info(found.id).addr
        if place in seen or len(seen) > _GROUPS:
            raise ValueError("its groups hold each other")
        seen.add(place)
        check_attributes(found, size)
        for name in found.attrs:
            found.attrs[name]
        if isinstance(found, h5py.Group):
            for name in found:
                if not isinstance(found.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link to another place")
                waiting.append(found[name])
        else:
            _ = found.shape, found.dtype, found.chunks


def check_attributes(found: Any, size: int) -> None:
    """Refuse attributes that would take more memory than the file has bytes."""
    for name in found.attrs:
        attribute = found.attrs.get_id(name)
        if max(attribute.get_storage_size(), math.prod(attribute.shape)) > size:
            raise ValueError(f"its attribute {name} is larger than the file")


def _look(group: Any) -> None:
    """Look at each group and variable as netCDF."""
    for variable in group.variables.values():
        _ = variable.dimensions, variable.shape, dict(variable.attrs)
    _ = dict(group.attrs), dict(group.dimensions)
    for inner in group.groups.values():
        _look(inner)
