"""Fields of dataclasses that say once what they are: options, checks, help and labels follow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from circuitsim.checks.validation import (
    ParameterError,
    dimensionless,
    flag,
    in_range,
    integer,
    one_of,
)
from circuitsim.public import own

__dir__ = own(__name__)

_KEY = "circuitsim"


@dataclass(frozen=True)
class Declared:
    """What a field is.

    Attributes
    ----------
    text : str
        What it means, in a few words: the help of its option, the label of its axis.
    letter : str
        Stands for its value in ``--help``.
    unit : str
        Unit of the number that it holds: a time in ms is a plain number.
    minimum, above, below : float or None
        Bounds of the number, or of each.
    choices : callable or None
        Gives the names that it may have.
    kind : type
        int, float, str or bool: of the value, or of each.
    several : bool
        Whether it holds a list of values.
    repeated : bool
        Whether the list may hold a value twice.
    optional : bool
        Whether None stands for what the text says.
    """

    text: str
    letter: str = ""
    unit: str = "1"
    minimum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Callable[[], Sequence[str]] | None = None
    kind: type = str
    several: bool = False
    repeated: bool = False
    optional: bool = False


_KINDS = {"int": int, "float": float, "str": str, "bool": bool}


def declare(default: Any, text: str, letter: str = "", **more: Any) -> Any:
    """Return a field with a default, and what it is (see `Declared`)."""
    declared = Declared(text, letter, **more)
    return dataclasses.field(default=default, metadata={_KEY: declared})


def same(of: Any, name: str, **changes: Any) -> Any:
    """Return a field like that of another dataclass, with another default or other words."""
    field = next(field for field in dataclasses.fields(of) if field.name == name)
    given = changes.pop("default", field.default)
    what = dataclasses.replace(field.metadata[_KEY], **changes)
    return dataclasses.field(default=given, metadata={_KEY: what})


def declared(of: Any) -> dict[str, Declared]:
    """Return what the fields of a dataclass are that say it, by their names."""
    found = {}
    for field in dataclasses.fields(of):
        if _KEY in field.metadata:
            # The annotation as text, which it is already in modules that put off annotations.
            name = field.type.__name__ if isinstance(field.type, type) else str(field.type)
            several = name.startswith("tuple[")
            kind = name.removeprefix("tuple[").partition(",")[0].partition(" ")[0]
            found[field.name] = dataclasses.replace(
                field.metadata[_KEY],
                kind=_KINDS.get(kind, str),
                several=several,
                optional=name.endswith("| None"),
            )
    return found


def default(of: Any, name: str) -> Any:
    """Return the default of a field."""
    return next(field.default for field in dataclasses.fields(of) if field.name == name)


def defaults(of: Any) -> dict[str, Any]:
    """Return the defaults of the declared fields of a dataclass, by their names."""
    return {name: default(of, name) for name in declared(of)}


def check(instance: Any, prefix: str | None = None) -> None:
    """Check the declared fields of an instance, and keep them as plain numbers and tuples.

    Parameters
    ----------
    instance : dataclass
        Frozen or not.
    prefix : str, optional
        Of the names that messages give to fields; ``Class.`` by default.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is of another type or out of its bounds, or has a unit.
    """
    for name, what in declared(instance).items():
        given = getattr(instance, name)
        if given is None and what.optional:
            continue
        called = (f"{type(instance).__name__}." if prefix is None else prefix) + name
        if what.several:
            values = listed(given)
            one = partial(_checked, called, what)
            value: Any = (
                several(called, values, one, what.repeated) if values or not what.optional else None
            )
        else:
            value = _checked(called, what, given)
        object.__setattr__(instance, name, value)


def listed(given: Any) -> tuple[Any, ...]:
    """Return several values, or one that is given in their place."""
    try:
        return (given,) if isinstance(given, str | bytes) else tuple(given)
    except TypeError:
        return (given,)


def several(
    name: str, given: tuple[Any, ...], checked: Callable[[Any], Any], repeated: bool = False
) -> tuple[Any, ...]:
    """Return values as ``checked`` makes them; none, and one that is given twice, are refused."""
    if not given:
        raise ParameterError(name, "needs at least one value", given)
    values = tuple(map(checked, given))
    for place, one in enumerate(values):
        if one in values[:place] and not repeated:
            raise ParameterError(name, "must not be given twice", one)
    return values


def _checked(name: str, what: Declared, given: Any) -> Any:
    if what.choices is not None:
        return one_of(name, given, what.choices())
    if what.kind is int:
        number = integer(name, given, minimum=int(what.minimum or 0))
        in_range(name, number, given, below=what.below)
        return number
    if what.kind is float:
        value = dimensionless(name, given)
        unit = "" if what.unit == "1" else what.unit
        bounds = {"above": what.above, "minimum": what.minimum, "below": what.below}
        in_range(name, value, given, unit=unit, **bounds)
        return value
    if what.kind is bool:
        return flag(name, given)
    if what.kind is str:
        given = os.fspath(given) if isinstance(given, os.PathLike) else given
        if not isinstance(given, str):
            raise ParameterError(name, "must be text", given)
    return given
