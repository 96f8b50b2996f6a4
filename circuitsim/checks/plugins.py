"""What other installed packages add, by entry points: see docs/rules.md."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

from circuitsim.checks.validation import ParameterError


@cache
def installed(group: str) -> dict[str, metadata.EntryPoint]:
    """Entry points of a group by their names; nothing is imported."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def load(group: str, name: str, parameter: str) -> Any:
    """Import what an entry point of a group stands for.

    Raises
    ------
    ParameterError
        If that fails, in terms of the parameter that asked for it.
    """
    point = installed(group)[name]
    try:
        return point.load()
    except Exception as error:
        raise ParameterError(
            parameter,
            f"{point.value} of an installed package cannot be imported "
            f"({type(error).__name__}: {error})",
            name,
        ) from error
