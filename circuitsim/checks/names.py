"""Names that were meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from circuitsim.public import own

__dir__ = own(__name__)


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return the name that is most like what was given; empty if none is.

    Examples
    --------
    >>> nearest("circit", ["circuit", "mean_subtracted"])
    'circuit'
    >>> nearest("gated", ["circuit", "inhibition_gated"])
    'inhibition_gated'
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given, names, 1)
    close += [name for name in names if len(given) > 3 and given.lower() in name.lower()]
    return close[0] if close else ""
