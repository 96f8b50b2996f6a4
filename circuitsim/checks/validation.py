"""Checks of values that users give: one place, one style of message.

Every check names the parameter, states the rule and repeats what was given, in the style
``Circuit.alpha: must be >= 0 (got -1)``.
"""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.names import nearest
from circuitsim.checks.values import Milliseconds, PerNeuron, in_ms, is_time
from circuitsim.processwide import load_brian2

MAX_STEPS = 10_000_000  # in a presentation: more would never end


class ParameterError(ValueError):
    """A value that a parameter cannot take.

    Parameters
    ----------
    parameter : str
        The parameter's full name, e.g. ``"Circuit.alpha"``.
    rule : str
        What is allowed, and where possible what to do instead.
    value : object
        What was given.
    """

    def __init__(self, parameter: str, rule: str, value: object) -> None:
        self.parameter = parameter
        self.rule = rule
        self.value = value
        super().__init__(f"{parameter}: {rule} (got {shown(value)})")

    def __reduce__(self) -> tuple[type[ParameterError], tuple[str, str, object]]:
        return type(self), (self.parameter, self.rule, self.value)


def shown(value: object) -> str:
    """Show a value in a message: as the user would write it, and never at length."""
    if isinstance(value, np.ndarray) and not hasattr(value, "dim") and value.ndim == 0:
        value = value.item()
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def dimensionless(parameter: str, value: Any, *, array: bool = False) -> Any:
    """Return ``value`` as a float, or as a read-only 1-d float array where that is allowed.

    Raises
    ------
    ParameterError
        If it is no finite real number (or, with ``array``, no non-empty 1-d array of them).
    DimensionMismatchError
        If it has a unit.
    """
    _refuse_unit(parameter, value, "a plain number is required, without a unit")
    return _finite(parameter, value, value, array)


def milliseconds(parameter: str, value: Any, *, array: bool = False) -> Any:
    """Return a time given as a Brian2 quantity in milliseconds, as `dimensionless` does.

    Raises
    ------
    DimensionMismatchError
        If it is not a time; a bare number is not.
    ParameterError
        If it is not finite.
    """
    if isinstance(value, Milliseconds):
        return _finite(parameter, in_ms(value), value, array)
    dimensions = _dimensions(value)
    load_brian2()  # whose error it is if a number has no unit
    from brian2.units import second
    from brian2.units.fundamentalunits import DimensionMismatchError

    if dimensions is not second.dim:
        what = "it has no unit" if dimensions is None else "it is no time"
        raise DimensionMismatchError(
            f"{parameter}: a time is required, e.g. 30*ms with `from brian2 import ms` "
            f"(got {shown(value)}: {what})",
            *([] if dimensions is None else [dimensions]),
        )
    return _finite(parameter, in_ms(value), value, array)


def _refuse_unit(parameter: str, value: Any, rule: str) -> None:
    """Raise a `DimensionMismatchError` if a value has a unit."""
    dimensions = _dimensions(value)
    if dimensions is not None:
        from brian2.units.fundamentalunits import DimensionMismatchError

        raise DimensionMismatchError(f"{parameter}: {rule} (got {shown(value)})", dimensions)


def _dimensions(value: Any) -> Any:
    """Return the dimensions of a quantity, None of everything that has none."""
    if isinstance(value, Milliseconds):
        value = value.quantity()
    units = sys.modules.get("brian2.units.fundamentalunits")
    if units is None or not hasattr(units, "get_dimensions"):  # nobody can have made a quantity yet
        return None
    try:
        dimensions = units.get_dimensions(value)
    except (TypeError, ValueError):  # no number at all: the checks that follow say so
        return None
    return None if dimensions is units.DIMENSIONLESS else dimensions


def _finite(parameter: str, bare: Any, given: Any, array: bool) -> Any:
    kind = "a finite number" + (", or a 1-d array with one for each circuit" if array else "")
    labels = getattr(given, "dims", ())
    if np.ma.is_masked(given) or (labels and labels != ("circuit",)):
        raise ParameterError(parameter, f"must be {kind}", given)
    try:
        numeric = np.asarray(bare)
    except ValueError:
        raise ParameterError(parameter, f"must be {kind}", given) from None
    if numeric.dtype.kind not in "iuf":
        raise ParameterError(parameter, f"must be {kind}", given)
    numeric = numeric.astype(float)
    if not np.all(np.isfinite(numeric)):
        raise ParameterError(parameter, f"must be {kind}", given)
    if numeric.ndim == 0:
        return float(numeric)
    neurons = isinstance(bare, PerNeuron) and numeric.ndim == 2
    if not array or (numeric.ndim > 1 and not neurons) or numeric.size == 0:
        raise ParameterError(parameter, f"must be {kind}", given)
    if isinstance(bare, PerNeuron):
        numeric = numeric.view(PerNeuron)
    numeric.setflags(write=False)
    return numeric


def array(
    parameter: str,
    value: Any,
    *layouts: tuple[str, ...],
    empty: bool = False,
    finite: bool = True,
) -> NDArray[np.float64]:
    """Return an array of plain real numbers as float64: the one check for all that enter.

    Parameters
    ----------
    parameter : str
        What a message calls it.
    value : array_like
        A labelled array (xarray) is taken by its labels, in whatever order they come.
    *layouts : tuple of str
        Names of dimensions that it may have; ``"..."`` first for any number before the others.
    empty : bool
        Whether the first dimension may have no length.
    finite : bool
        Whether NaN and infinities are refused.

    Raises
    ------
    ParameterError
        If it is no such array: other dimensions, masked, complex, text, dates.
    DimensionMismatchError
        If it has a unit.
    """
    wanted = " or ".join(f"({', '.join(layout)})" for layout in layouts)
    if hasattr(value, "dims") and hasattr(value, "transpose"):
        value = _by_labels(parameter, value, layouts, wanted)
    _refuse_unit(parameter, value, "plain numbers are required, without a unit")
    if np.ma.is_masked(value):
        raise ParameterError(parameter, "must have no masked values; fill them first", value)
    try:
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf":
            raise TypeError
        numbers = numbers.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        rule = "must be an array of real numbers"
        kind = f"{value.dtype} array" if hasattr(value, "dtype") else value
        raise ParameterError(parameter, rule, kind) from None
    fits = any(
        numbers.ndim >= len(layout) - 1 if layout[0] == "..." else numbers.ndim == len(layout)
        for layout in layouts
    )
    if not fits or 0 in numbers.shape[1 if empty else 0 :]:
        raise ParameterError(parameter, f"must have the shape {wanted}", numbers.shape)
    if finite and not np.all(np.isfinite(numbers)):
        raise ParameterError(parameter, "must be finite", numbers)
    return numbers


def pool_shape(parameter: str, weights: NDArray[Any]) -> tuple[int, int]:
    """Return the numbers of neurons and inputs of weights, (..., neuron, input).

    Raises
    ------
    ParameterError
        If there is one neuron alone: a pool is what shares.
    """
    if weights.shape[-2] < 2:
        raise ParameterError(parameter, "must be weights of at least 2 neurons", weights.shape)
    return weights.shape[-2], weights.shape[-1]


def fitting(parameter: str, value: Any, shape: tuple[int, ...], rule: str) -> None:
    """Raise a `ParameterError` unless an array can be broadcast together with this shape."""
    try:
        np.broadcast_shapes(np.shape(value), shape)
    except ValueError:
        raise ParameterError(parameter, rule, np.shape(value)) from None


def regular(parameter: str, value: Any, rule: str) -> NDArray[Any]:
    """Return an array of anything; raises a `ParameterError` where rows differ in length."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ParameterError(parameter, rule, value) from None


def _by_labels(
    parameter: str, value: Any, layouts: tuple[tuple[str, ...], ...], wanted: str
) -> Any:
    """Bring the dimensions of a labelled array into their order."""
    for layout in layouts:
        named = [name for name in layout if name != "..."]
        if set(named) == set(value.dims) or (layout[0] == "..." and set(named) <= set(value.dims)):
            return value.transpose(*(... if name == "..." else name for name in layout)).data
    raise ParameterError(parameter, f"must have the dimensions {wanted}", tuple(value.dims))


def in_range(
    parameter: str,
    value: Any,
    given: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    unit: str = "",
) -> None:
    """Raise a `ParameterError` unless every number in ``value`` lies in the range."""
    unit = f" {unit}" if unit else ""
    rules = [
        (above, np.greater, ">"),
        (minimum, np.greater_equal, ">="),
        (below, np.less, "<"),
    ]
    wanted = " and ".join(f"{sign} {b:g}{unit}" for b, _, sign in rules if b is not None)
    if not all(np.all(holds(value, b)) for b, holds, _ in rules if b is not None):
        raise ParameterError(parameter, f"must be {wanted}", given)


def integer(parameter: str, value: Any, *, minimum: int) -> int:
    """Return ``value`` as an int.

    Raises
    ------
    ParameterError
        If it is no whole number, smaller than ``minimum``, or of more than 128 bits.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or int(value) < minimum:
        raise ParameterError(parameter, f"must be a whole number >= {minimum}", value)
    if int(value).bit_length() > 128:  # more than anything is, and than a float can count
        raise ParameterError(parameter, "must be a whole number below 2^128", value)
    return int(value)


def count(parameter: str, value: Any, *, minimum: int) -> int:
    """Return ``value`` as an int, as `integer` does, if there may be so many of something."""
    number = integer(parameter, value, minimum=minimum)
    if number.bit_length() > 31:
        raise ParameterError(parameter, "must be a whole number below 2^31", value)
    return number


def flag(parameter: str, value: Any) -> bool:
    """Return ``value`` as a bool; raises a `ParameterError` if it is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ParameterError(parameter, "must be True or False", value)
    return bool(value)


def function(parameter: str, value: Any) -> Any:
    """Return ``value``; raises a `ParameterError` if it is neither a function nor None."""
    if value is not None and not callable(value):
        raise ParameterError(parameter, "must be a function, or None", value)
    return value


def generator(parameter: str, value: Any) -> np.random.Generator:
    """Return ``value``; raises a `ParameterError` if it is no generator of random numbers."""
    if not isinstance(value, np.random.Generator):
        raise ParameterError(parameter, "must be a numpy.random.Generator", value)
    return value


def per_neuron(values: Any) -> Any:
    """Say that a parameter has one value for each neuron: a bare array has one for each circuit.

    Parameters
    ----------
    values : array_like, shape (neuron,) or (circuit, neuron)
        Numbers, or times.

    Returns
    -------
    PerNeuron or Milliseconds
        For `circuitsim.Circuit`.

    Raises
    ------
    ParameterError
        If they have another shape, or are not finite.

    Examples
    --------
    >>> import circuitsim as cs
    >>> cs.Circuit(alpha=cs.per_neuron([9.0, 10.0, 11.0])).alpha.tolist()
    [9.0, 10.0, 11.0]
    """
    dims = ("neuron",), ("circuit", "neuron")
    if is_time(values):
        return Milliseconds(np.array(array("per_neuron", in_ms(values), *dims)).view(PerNeuron))
    return np.array(array("per_neuron", values, *dims)).view(PerNeuron)


def one_of(parameter: str, value: Any, allowed: Any) -> str:
    """Return ``value`` if it is one of the names allowed, else raise a `ParameterError`."""
    if not isinstance(value, str) or value not in allowed:
        rule = f"must be one of {', '.join(sorted(allowed))}"
        near = nearest(value, allowed) if isinstance(value, str) else ""
        raise ParameterError(parameter, rule + (f"; did you mean {near}?" if near else ""), value)
    return value


def whole_steps(presentation: float, dt: float) -> int:
    """Return how many steps of ``dt`` make one presentation, both in ms.

    Raises
    ------
    ParameterError
        If a presentation is not a whole number of steps, or has too many.
    """
    steps = presentation / dt
    if steps > MAX_STEPS:
        raise ParameterError(
            "dt", f"must be at least 1/{MAX_STEPS:g} of a presentation of {presentation:g} ms", dt
        )
    if steps < 0.5 or not math.isclose(steps, round(steps), rel_tol=1e-9):
        raise ParameterError(
            "presentation",
            f"must be a whole number of steps of dt = {dt:g} ms"
            + ("; was it meant in seconds?" if steps < 0.5 else ""),
            Milliseconds(presentation),
        )
    return round(steps)
