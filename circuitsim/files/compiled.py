"""Functions compiled by Numba, kept from one process to the next where that is safe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuitsim.files.private import is_private

logger = logging.getLogger("circuitsim")


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Return a function compiled by Numba, with what was compiled before if it is there.

    What is kept is run as it is found. So it is read from the directory of the source, or from one
    that nobody else can change; and what cannot be read, or written, is made anew.
    """
    import numba

    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it
        return numba.njit(**options)(function)
    kept = made._cache
    place = Path(kept.cache_path)
    source = Path(function.__code__.co_filename).resolve().parent
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not (place.is_relative_to(source) or is_private(existing, around=True)):
        return numba.njit(**options)(function)
    load, save = kept.load_overload, kept.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception as error:  # of any kind: it is a damaged pickle
            logger.info("compiled anew: what was kept in %s cannot be read (%s)", place, error)
            try:
                kept.flush()
            except OSError:
                kept.disable()
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except Exception as error:  # a full disk, or an index that is damaged
            logger.info("what was compiled is not kept in %s (%s)", place, error)

    kept.load_overload, kept.save_overload = load_overload, save_overload
    return made
