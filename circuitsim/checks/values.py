"""What parameters hold: times that need no Brian2 until asked for, and equality by value.

Importing Brian2 takes seconds. A time that is nobody's quantity yet is a number of milliseconds,
and becomes a quantity when a user looks at it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from circuitsim.processwide import load_brian2

if TYPE_CHECKING:
    from brian2.units import Quantity

_SECONDS = 1e-3  # of a millisecond

_V = TypeVar("_V", bound="Values")


class Milliseconds:
    """A time, or an array of times, without Brian2: ``30 * ms`` with this module's `ms`.

    Parameters
    ----------
    number : float or ndarray
        In milliseconds.
    """

    __slots__ = ("number",)
    __array_ufunc__ = None  # arrays leave their products to `__rmul__`

    def __init__(self, number: Any = 1.0) -> None:
        self.number = number

    def __rmul__(self, factor: Any) -> Milliseconds:
        return Milliseconds(factor * self.number)

    def __truediv__(self, unit: Milliseconds) -> Any:
        return self.number / unit.number if isinstance(unit, Milliseconds) else NotImplemented

    def __repr__(self) -> str:
        return time_text(self)

    def quantity(self) -> Quantity:
        """The same as a quantity of Brian2."""
        load_brian2()
        from brian2 import ms

        return self.number * ms


ms = Milliseconds()


def seconds(time: Quantity | Milliseconds) -> Any:
    """Return the number that Brian2 keeps for a time."""
    if isinstance(time, Milliseconds):
        return np.multiply(time.number, _SECONDS)  # still one for each neuron, if it was
    return np.asarray(time)


def in_ms(time: Quantity | Milliseconds) -> Any:
    """Return a time in milliseconds, the same number whichever of the two it is."""
    # Dividing by ms rather than multiplying by 1000 gives the number that the user wrote.
    return seconds(time) / _SECONDS


def time_text(time: Quantity | Milliseconds) -> str:
    """Return a time as a user would write it."""
    numbers = in_ms(time)
    text = str(numbers.tolist()) if np.ndim(numbers) else repr(float(numbers)).removesuffix(".0")
    return f"{text}*ms"


def frozen_time(times: Any) -> Quantity | Milliseconds:
    """Return a copy of an array of times that nobody can write to."""
    if isinstance(times, Milliseconds):
        numbers = np.array(times.number, dtype=float, subok=True)
        numbers.setflags(write=False)
        return Milliseconds(numbers)
    from brian2.units import Quantity, second

    kept = Quantity(times, dim=second.dim, copy=True)
    kept.setflags(write=False)
    return kept


class PerNeuron(np.ndarray[Any, Any]):
    """An array whose last dimension runs over the neurons of a pool."""


class TimeField:
    """A field of a dataclass that is a time: kept as it was given, a quantity when asked for.

    Parameters
    ----------
    default : Milliseconds, optional
        None for a field that must be given.
    optional : bool
        Whether the default is None, which is no time.
    """

    def __init__(self, default: Milliseconds | None = None, optional: bool = False) -> None:
        self.default = default
        self.optional = optional

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Milliseconds | None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Quantity: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:  # the dataclass asks for the default
            if self.default is None and not self.optional:
                raise AttributeError(self.name)
            return self.default
        value = vars(instance)[self.name]
        return value.quantity() if isinstance(value, Milliseconds) else value

    def __set__(self, instance: object, value: Any) -> None:
        vars(instance)[self.name] = value


class Values:
    """For frozen dataclasses: equal if their fields are, be they arrays or times."""

    def replace(self: _V, **changes: Any) -> _V:
        """Return a copy with some parameters changed, validated anew."""
        return type(self)(**(self._given() | changes))

    def _given(self) -> dict[str, Any]:
        """Fields as they were given: times without unit as such."""
        return {f.name: vars(self)[f.name] for f in fields(self)}  # type: ignore[arg-type]

    def _compared(self) -> tuple[Any, ...]:
        values = [in_ms(v) if is_time(v) else v for v in self._given().values()]
        return tuple((np.shape(v), np.asarray(v).tobytes()) if np.ndim(v) else v for v in values)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((type(self), self._compared()))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={time_text(value) if is_time(value) else repr(value)}"
            for name, value in self._given().items()
            if value is not None
        )
        return f"{type(self).__name__}({shown})"


def is_time(value: Any) -> bool:
    """Whether a checked value is a time."""
    return isinstance(value, Milliseconds) or hasattr(value, "dim")
