"""Trained networks, and all that continuing a training needs, in a directory of their own.

``run.json`` says what is trained, and is written once; ``checkpoint.npz`` holds arrays, replaced as
the training goes on. Nothing in them is code, and nothing is believed before it is checked.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.checks.validation import ParameterError
from circuitsim.files import arrays as files
from circuitsim.files import read_text, write_text

FORMAT = "circuitsim classifier"
FORMAT_VERSION = 2  # 2: with a checksum
DESCRIPTION = "run.json"
ARRAYS = "checkpoint.npz"
_PROGRESS = "progress"  # text, as bytes, beside the arrays

logger = logging.getLogger("circuitsim")


def write_description(directory: Path, content: Mapping[str, Any]) -> None:
    """Write what is trained.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    content["sha256"] = _checksum(content)
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
        if content["format_version"] not in (1, FORMAT_VERSION):
            raise ValueError(
                f"its format is version {content['format_version']!r}, and this version of "
                f"circuitsim reads {FORMAT_VERSION}"
            )
        if content["format_version"] == 1:
            logger.info("%s has no checksum: what is in it is believed", path)
        elif content.pop("sha256", None) != _checksum(content):
            raise ValueError("it has changed since it was written: its checksum is another")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise damaged(path, error) from None
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """Checksum of all that a description says, however its text is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_arrays(directory: Path, arrays: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Write arrays, and how far the training is, whole or not at all.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    text = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    files.write(directory / ARRAYS, {_PROGRESS: text, **arrays})


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
        content = json.loads(files.read_bytes_of(path, _PROGRESS, 2**24).decode())
        if not isinstance(content, dict):
            raise ValueError("it does not say how far the training is")
    except (files.BadFile, OSError, ValueError, RecursionError) as error:
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
    layout = {name: (array.shape, array.dtype) for name, array in into.items()}
    try:
        found = files.members(
            path, layout, [_PROGRESS, *others], lambda text: logger.info("%s %s", path, text)
        )
        for name, values in found:
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has numbers that are not finite")
            into[name][...] = values
    except (files.BadFile, OSError, ValueError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ParameterError:
    """Return the error that says why a file of a run cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ParameterError("run", f"{path.name} cannot be read ({reason[:300]})", str(path.parent))
