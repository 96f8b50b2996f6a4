"""Two results of one campaign, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.running import results
from circuitsim.running.campaign import Campaign

IDENTICAL = 1e-9  # relative difference that another machine's rounding may make


class Difference(NamedTuple):
    """How far a variable of one result is from that of another.

    Attributes
    ----------
    variable : str
    absolute : float
        Largest difference.
    relative : float
        Largest difference relative to the number itself, for a variable that is never negative; for
        others, which pass through zero, relative to the variable's root mean square.
    """

    variable: str
    absolute: float
    relative: float


def differences(campaign: Campaign[Any], first: Path, second: Path) -> list[Difference]:
    """Compare all numbers of two results of one campaign but the seconds that they took.

    Raises
    ------
    ParameterError
        If a file is no result of it.
    """
    return [_difference(*variable) for variable in _variables(campaign, first, second)]


def table(found: list[Difference]) -> str:
    """Return differences as text."""
    width = max(len(d.variable) for d in found)
    lines = [f"{'largest difference':<{width}} {'absolute':>10} {'relative':>10}"]
    lines += [f"{d.variable:<{width}} {d.absolute:>10.3g} {d.relative:>10.3g}" for d in found]
    worst = max(d.relative for d in found)
    if worst == 0:
        lines.append("identical to the last bit")
    elif worst <= IDENTICAL:
        lines.append(f"identical within {IDENTICAL:g}")
    else:
        lines.append(f"not the same: more than {IDENTICAL:g} apart")
    return "\n".join(lines)


_Array = NDArray[np.float64]


def _variables(
    campaign: Campaign[Any], first: Path, second: Path
) -> Iterator[tuple[str, _Array, _Array]]:
    for name, declared in campaign.groups().items():
        numbers = [v for v in declared.variables if campaign.units[v][1] != "s"]
        if not numbers:
            continue
        a, b = (results.group(path, campaign, name) for path in (first, second))
        for variable in numbers:
            parts = [name] if name and len(numbers) == 1 else [*filter(None, [name]), variable]
            yield "/".join(parts), a[variable].to_numpy(), b[variable].to_numpy()


def _difference(name: str, first: _Array, second: _Array) -> Difference:
    # Infinite values that are equal do not differ, nor do NaN: a rule may have no end point.
    apart = (first != second) & ~(np.isnan(first) & np.isnan(second))
    if not apart.any():
        return Difference(name, 0.0, 0.0)
    a, b = first[apart], second[apart]
    absolute = np.abs(a - b)
    absolute[np.isnan(absolute)] = np.inf  # a number in one of them only
    signed = np.any(first < 0) or np.any(second < 0)
    scale = np.sqrt(np.nanmean(first**2)) if signed else np.maximum(np.abs(a), np.abs(b))
    with np.errstate(invalid="ignore"):
        relative = np.where(np.isinf(absolute), np.inf, absolute / scale)
    return Difference(name, float(absolute.max()), float(relative.max()))
