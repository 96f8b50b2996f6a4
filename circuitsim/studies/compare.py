"""Two results of one study, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.studies import results
from circuitsim.studies.study import CURVES, LIMITS

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


def differences(first: Path, second: Path) -> list[Difference]:
    """Compare the curves, end points and weights of two results of one study.

    Raises
    ------
    ParameterError
        If a file is no result of a sweep.
    """
    return [_difference(*variable) for variable in _variables(first, second)]


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


def _variables(first: Path, second: Path) -> Iterator[tuple[str, _Array, _Array]]:
    study = results.study_in(first)
    a, b = results.load(first), results.load(second)
    for name in (*CURVES, *LIMITS):
        yield name, a[name].to_numpy(), b[name].to_numpy()
    for k, neurons in product(study.k, study.neurons):
        group = results.weights_group(study.neurons, k, neurons)
        w, v = (results.load_weights(path, k, neurons).to_numpy() for path in (first, second))
        yield group, w, v


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
