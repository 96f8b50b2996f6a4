"""Learning rates over time.

The numbers are those of the published protocol: the rate of one step of 1 ms, whatever the time
step of the simulation is (`Plasticity.per_step` converts), or of one update for a rule that makes
one update a presentation.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks.validation import dimensionless, in_range, milliseconds
from circuitsim.checks.values import TimeField, Values, in_ms, ms
from circuitsim.public import own

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__)


class LearningRate(Values):
    """A learning rate that depends on time or on the number of presentations.

    Attributes
    ----------
    counts : frozenset of str
        What the rate may be counted in: ``"time"`` for rules that learn at every step,
        ``"presentations"`` for rules that make one update a presentation.
    expression : str
        The rate in Brian2's syntax, of ``elapsed`` (time since the start, with unit) or
        ``presented`` (number of presentations before this one) and the names of `constants`.
    """

    counts: ClassVar[frozenset[str]]
    expression: ClassVar[str]

    @property
    def constants(self) -> dict[str, Any]:
        """Values of the names in `expression`: numbers, and times as they were given."""
        raise NotImplementedError

    def at(self, when: ArrayLike) -> NDArray[np.float64]:
        """Rate at times in ms since the start, or at presentation numbers 0, 1, ..."""
        raise NotImplementedError

    @property
    def onset_ms(self) -> float:
        """Time in ms after which learning starts."""
        return 0.0

    def first_step(self, dt: float) -> int:
        """Number of the first step (of ``dt`` ms) that learns."""
        return 0

    def starting_at(self, rate: float) -> LearningRate:
        """Return the same schedule with another rate at its start."""
        raise NotImplementedError


def read(text: str) -> LearningRate:
    """Return the learning rate whose ``repr`` a text is; nothing in it is evaluated by Python.

    Raises
    ------
    ValueError
        If it is none of this module's.

    Examples
    --------
    >>> read("InverseSqrtRate(peak=0.0003, timescale=2*ms, onset=50*ms)").onset_ms
    50.0
    """
    kinds = {kind.__name__: kind for kind in (InverseSqrtRate, HyperbolicRate, ConstantRate)}
    try:
        match ast.parse(text, mode="eval").body:
            case ast.Call(ast.Name(name), [], keywords):
                given = {str(keyword.arg): _written(keyword.value) for keyword in keywords}
                return kinds[name](**given)
    except (SyntaxError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no learning rate: {text[:80]}") from error
    raise ValueError(f"no learning rate: {text[:80]}")


def _written(node: ast.expr) -> Any:
    """Return the number, or the time, that is written."""
    match node:
        case ast.BinOp(number, ast.Mult(), ast.Name("ms")):
            return ast.literal_eval(number) * ms
    return ast.literal_eval(node)


@dataclass(frozen=True, eq=False, repr=False)
class InverseSqrtRate(LearningRate):
    """``peak / sqrt(1 + t/timescale)``, and 0 while ``t <= onset`` (protocol B of the paper).

    Parameters
    ----------
    peak : float
        Rate of a step of 1 ms at t = 0, were it not for the onset; >= 0.
    timescale : Quantity, time
        When the rate has fallen by sqrt(2).
    onset : Quantity, time
        Learning starts after this, so that the rates have settled.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is out of its range, or has the wrong unit.

    Examples
    --------
    >>> from brian2 import ms
    >>> rate = InverseSqrtRate(3e-4, timescale=2 * ms, onset=50 * ms)
    >>> rate.at([50, 96]).round(7).tolist()
    [0.0, 4.29e-05]
    """

    peak: float
    timescale: Quantity = TimeField()  # noqa: RUF009
    onset: Quantity = TimeField(0 * ms)  # noqa: RUF009

    counts: ClassVar[frozenset[str]] = frozenset({"time"})
    expression: ClassVar[str] = "peak/sqrt(1 + elapsed/timescale)*int(elapsed > onset)"

    def __post_init__(self) -> None:
        peak = dimensionless("InverseSqrtRate.peak", self.peak)
        in_range("InverseSqrtRate.peak", peak, self.peak, minimum=0)
        given = self._given()
        timescale = milliseconds("InverseSqrtRate.timescale", given["timescale"])
        in_range("InverseSqrtRate.timescale", timescale, given["timescale"], above=0, unit="ms")
        onset = milliseconds("InverseSqrtRate.onset", given["onset"])
        in_range("InverseSqrtRate.onset", onset, given["onset"], minimum=0, unit="ms")
        object.__setattr__(self, "peak", peak)

    @property
    def constants(self) -> dict[str, Any]:
        return self._given()

    @property
    def onset_ms(self) -> float:
        return float(in_ms(self._given()["onset"]))

    def at(self, when: ArrayLike) -> NDArray[np.float64]:
        when = np.asarray(when, dtype=float)
        rate = self.peak / np.sqrt(1 + when / float(in_ms(self._given()["timescale"])))
        return np.where(when > self.onset_ms, rate, 0.0)

    def starting_at(self, rate: float) -> InverseSqrtRate:
        return self.replace(peak=rate)

    def first_step(self, dt: float) -> int:
        # Multiples of dt are not exact: without the margin a step at the onset could be late.
        return math.floor(self.onset_ms / dt + 1e-6) + 1


@dataclass(frozen=True, eq=False, repr=False)
class HyperbolicRate(LearningRate):
    """``scale / (offset + i)`` in presentation i = 0, 1, ... (protocol A of the paper).

    Parameters
    ----------
    scale : float
        >= 0.
    offset : float
        Presentations, > 0.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is out of its range, or has a unit.

    Examples
    --------
    >>> HyperbolicRate(0.5, offset=1000).at([0, 1000]).tolist()
    [0.0005, 0.00025]
    """

    scale: float
    offset: float

    counts: ClassVar[frozenset[str]] = frozenset({"presentations"})
    expression: ClassVar[str] = "scale/(offset + presented)"

    def __post_init__(self) -> None:
        scale = dimensionless("HyperbolicRate.scale", self.scale)
        in_range("HyperbolicRate.scale", scale, self.scale, minimum=0)
        offset = dimensionless("HyperbolicRate.offset", self.offset)
        in_range("HyperbolicRate.offset", offset, self.offset, above=0)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "offset", offset)

    @property
    def constants(self) -> dict[str, Any]:
        return {"scale": self.scale, "offset": self.offset}

    def at(self, when: ArrayLike) -> NDArray[np.float64]:
        return self.scale / (self.offset + np.asarray(when, dtype=float))

    def starting_at(self, rate: float) -> HyperbolicRate:
        return self.replace(scale=rate * self.offset)


@dataclass(frozen=True, eq=False, repr=False)
class ConstantRate(LearningRate):
    """The same rate always, for rules of either kind.

    Parameters
    ----------
    value : float
        Rate of a step of 1 ms, or of one update a presentation; >= 0.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If the value is negative, or has a unit.
    """

    value: float

    counts: ClassVar[frozenset[str]] = frozenset({"time", "presentations"})
    expression: ClassVar[str] = "constant_rate"

    def __post_init__(self) -> None:
        value = dimensionless("ConstantRate.value", self.value)
        in_range("ConstantRate.value", value, self.value, minimum=0)
        object.__setattr__(self, "value", value)

    @property
    def constants(self) -> dict[str, Any]:
        return {"constant_rate": self.value}

    def at(self, when: ArrayLike) -> NDArray[np.float64]:
        return np.full(np.shape(when), self.value)

    def starting_at(self, rate: float) -> ConstantRate:
        return self.replace(value=rate)
