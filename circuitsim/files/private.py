"""Directories that this user alone can change: what is run from there is what this user put there.

A checksum tells damage, not who wrote a file. So a cache is used only if neither it nor its files,
nor a directory around it, can be changed by anybody else; if not, another place is found.
"""

from __future__ import annotations

import functools
import grp
import logging
import os
import pwd
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "CIRCUITSIM_CACHE"

logger = logging.getLogger("circuitsim")


def cache_directory() -> Path:
    """Directory of compiled programs: ``$CIRCUITSIM_CACHE``, or the user's cache directory.

    Raises
    ------
    RuntimeError
        If the user has no home.
    """
    given = os.environ.get(CACHE_VARIABLE)
    chosen = Path(given) if given else platformdirs.user_cache_path("circuitsim")
    return chosen.expanduser().absolute()


def is_private(path: Path, around: bool = False) -> bool:
    """Whether nobody but this user, and root, can change a file or directory.

    Parameters
    ----------
    path : Path
        What must exist; a symbolic link is not private.
    around : bool
        Whether to look at all directories above it too, which decide what is found there.
    """
    try:
        found = path.lstat()
    except OSError:
        return False
    if stat.S_ISLNK(found.st_mode) or not _ours(found):
        return False
    return not around or all(_ours(p.stat(), sticky=True) for p in path.resolve().parents)


def _ours(found: os.stat_result, sticky: bool = False) -> bool:
    if found.st_uid not in (os.getuid(), 0):
        return False
    if sticky and found.st_mode & stat.S_ISVTX:
        return True  # others may make files there, but not rename or remove those of this user
    if found.st_mode & stat.S_IWOTH:
        return False
    return not found.st_mode & stat.S_IWGRP or _own_group(found.st_gid)


def _own_group(number: int) -> bool:
    """Whether a group is this user's alone, as many systems make one for each user."""
    if number == 0:
        return True
    try:
        group, name = grp.getgrgid(number), pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def cache(executable: bool = True) -> Path:
    """Return the cache directory, or one in the temporary directory if that is of no use.

    Parameters
    ----------
    executable : bool
        Whether programs are to be run from there, which some file systems do not allow.
    """
    return _found(os.environ.get(CACHE_VARIABLE), executable)


@functools.cache
def _found(given: str | None, executable: bool) -> Path:
    reason: object
    try:
        home = cache_directory()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=home).close()
        if not is_private(home, around=True):
            reason = "others can write there (chmod go-w, for it and the directories around it)"
        elif executable and not _executes(home):
            reason = "no program can be run from there"
        else:
            return home
    except (OSError, RuntimeError) as error:
        reason = error
    home = temporary_home() / "cache"
    home.mkdir(exist_ok=True, mode=0o700)
    logger.info("caches are kept in %s: %s", home, reason)
    if given:  # which somebody has chosen
        logger.warning("%s is not used (%s); %s is", CACHE_VARIABLE, reason, home)
    return home


def temporary_home() -> Path:
    """Return a directory of this user's own in the temporary directory.

    Where somebody else has made the one of its name, another is made.
    """
    base, name = Path(tempfile.gettempdir()).absolute(), f"circuitsim-{os.getuid()}"
    with suppress(OSError):
        (base / name).mkdir(mode=0o700)
    for home in (base / name, *sorted(base.glob(f"{name}-*"))):
        if is_private(home) and home.stat().st_uid == os.getuid() and home.is_dir():
            return home
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))


def _executes(home: Path) -> bool:
    descriptor, name = tempfile.mkstemp(prefix="probe-", suffix=".sh", dir=home)
    try:
        with open(descriptor, "w") as script:
            script.write("#!/bin/sh\nexit 0\n")
        os.chmod(name, 0o700)
        return subprocess.run([name], check=False).returncode == 0
    except OSError:
        return False
    finally:
        os.unlink(name)
