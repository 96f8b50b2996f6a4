"""What a file says of how it was made."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from circuitsim.version import __version__

CITATION = (
    "R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible "
    "Convolutional Networks, NeurIPS 2021, arXiv:2106.13031"
)

# What the numbers may depend on, and what writes them.
_PACKAGES = ("brian2", "numpy", "scipy", "numba", "xarray", "h5netcdf", "h5py")


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the packages that numbers may depend on."""
    return {
        "circuitsim_version": __version__,
        **{f"{name}_version": _version(name) for name in _PACKAGES},
        "python_version": platform.python_version(),
    }


def made_here() -> dict[str, str]:
    """Where, when and by which command; not for files that are to be the same each time."""
    return {
        "machine": f"{platform.node()}: {platform.platform()}, {os.cpu_count()} processors",
        "git_revision": _git_revision(),
        "command_line": shlex.join(_command()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _command() -> list[str]:
    if multiprocessing.parent_process() is None:
        return sys.orig_argv
    return [sys.executable, *sys.argv]  # a worker's own is of the server that forks it


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _git_revision() -> str:
    """Revision of the source that runs, where that is a git checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return "unknown"
    # Without locks: ended by the time limit, it would leave one behind in the checkout.
    command = ["git", "--no-optional-locks", "-C", str(checkout)]
    command += ["describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
