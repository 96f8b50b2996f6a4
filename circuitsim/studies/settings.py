"""What a sweep may set of its circuits beyond the published ones: `Study.settings`, ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from circuitsim.checks.fields import listed, several
from circuitsim.checks.validation import ParameterError, dimensionless, integer, one_of
from circuitsim.checks.values import ms
from circuitsim.engines.simulation import LONG_NAMES
from circuitsim.running.campaign import shown

Values = tuple[float, ...] | tuple[str, ...]
Settings = tuple[tuple[str, Values], ...]
Point = tuple[tuple[str, float], ...]

# Numbers, each a dimension of the grid: what it is, with its unit.
NUMBERS: dict[str, tuple[str, str]] = {
    name: (LONG_NAMES[name], unit)
    for name, unit in (
        ("tau", "ms"), ("b", "1"), ("tau_inh", "ms"), ("sigma", "1"), ("b_inh", "1"),
        ("delay", "ms"),
    )
} | {
    "interneurons": ("number of interneurons", "1"),
    "connect_ei": ("probability of a connection to an interneuron", "1"),
    "connect_ie": ("probability of a connection from an interneuron", "1"),
    "spread_alpha": ("standard deviation of alpha over neurons, as a share of its mean", "1"),
    "spread_tau": ("standard deviation of tau over neurons, as a share of its mean", "1"),
    "private": ("standard deviation of each neuron's own input", "1"),
}  # fmt: skip
# Texts, one of each for all circuits.
TEXTS = ("transfer", "transfer_inh", "excitatory", "interneuron")
_OPTIONS = {"alpha": "--alpha", "gamma": "--gamma", "n_neurons": "--neurons", "k": "--k"}


def checked(given: Any, parameter: str = "Study.settings") -> Settings:
    """Return settings as pairs of a name and its values, in one order.

    Parameters
    ----------
    given : mapping or sequence of pairs
        From names of `NUMBERS` to a value or several, of `TEXTS` to one.
    parameter : str
        What a message calls them.

    Raises
    ------
    ParameterError
        If a name is unknown or given twice, or a value is of another type.
    """
    try:
        pairs = [(name, v) for name, v in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise ParameterError(parameter, "must be pairs of a name and values", given) from None
    found: dict[str, Values] = {}
    for name, values in pairs:
        if name in _OPTIONS:
            raise ParameterError(parameter, f"has an option of its own, {_OPTIONS[name]}", name)
        one_of(parameter, name, (*NUMBERS, *TEXTS))
        if name in found:
            raise ParameterError(parameter, "must not be given twice", name)
        called, every = f"{parameter}.{name}", listed(values)
        if name in TEXTS and every:
            if len(every) > 1 or not isinstance(every[0], str):
                raise ParameterError(called, "must be one text", values)
            found[name] = every
        else:
            found[name] = several(called, every, partial(_number, called, name))
    return tuple((name, found[name]) for name in (*NUMBERS, *TEXTS) if name in found)


def _number(parameter: str, name: str, given: Any) -> float:
    if isinstance(given, str):
        try:
            given = float(given)
        except ValueError:
            unit = " of ms, without the unit" if NUMBERS[name][1] == "ms" else ""
            raise ParameterError(parameter, f"must be a number{unit}", given) from None
        given = int(given) if name == "interneurons" and given.is_integer() else given
    if name == "interneurons":
        return integer(parameter, given, minimum=1)
    return float(dimensionless(parameter, given))


def of_circuit(point: Point, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return what a point of the grid is to `circuitsim.Circuit`."""
    times = {name for name, (_, unit) in NUMBERS.items() if unit == "ms"}
    values = {name: value * ms if name in times else value for name, value in point}
    values.pop("private", None)
    return values | dict(texts)


def spoken(point: Point) -> str:
    """Return a point as text: tau_inh = 90 ms, sigma = 0.3."""
    units = {name: "" if unit == "1" else f" {unit}" for name, (_, unit) in NUMBERS.items()}
    return ", ".join(f"{name} = {shown(value)}{units[name]}" for name, value in point)
