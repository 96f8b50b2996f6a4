"""Options made from the fields that dataclasses declare, and written again."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from circuitsim.checks import fields

Target = argparse._ArgumentGroup | argparse.ArgumentParser


def add(
    target: Target,
    of: Any,
    names: Iterable[str],
    called: Mapping[str, str] | None = None,
    otherwise: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Add options for declared fields of a dataclass.

    Parameters
    ----------
    target : argument group or parser
        Where they go.
    of : dataclass
        Whose fields (see `circuitsim.checks.fields.declare`).
    names : iterable of str
        Which fields.
    called : mapping, optional
        From fields to their options, where these have other names.
    otherwise : mapping, optional
        From fields to what they are if the option, whose default is None then, is left out; for
        options that have an effect only together with others.
    defaults : mapping, optional
        From fields to the options' defaults, where these are not those of the dataclass.
    """
    declared = fields.declared(of)
    for name in names:
        what, text = declared[name], declared[name].text
        default = (defaults or {}).get(name, fields.default(of, name))
        option = spelled(name, called)
        dest = _dest(option)
        if what.kind is bool:
            target.add_argument(option, dest=dest, action="store_true", help=text)
            continue
        if otherwise is not None and name in otherwise:
            default, text = None, f"{text}; by default {otherwise[name]}"
        target.add_argument(
            option,
            dest=dest,
            type=what.kind,
            nargs="+" if what.several else None,
            default=list(default) if isinstance(default, tuple) else default,
            metavar=what.letter,
            help=text,
        )


def chosen(
    of: Any, options: argparse.Namespace, called: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the fields of a dataclass that options set."""
    dests = {name: _dest(spelled(name, called)) for name in fields.declared(of)}
    given = {name: getattr(options, dest) for name, dest in dests.items() if hasattr(options, dest)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


def written(instance: Any, called: Mapping[str, str] | None = None) -> list[str]:
    """Return the options that make an instance of a dataclass again, each with its values."""
    words: list[str] = []
    for name in fields.declared(instance):
        value = getattr(instance, name)
        option = spelled(name, called)
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        elif isinstance(value, bool):
            words += [option] * value
        elif value is not None:  # joined, or a negative number would be taken for an option
            words.append(f"{option}={value}")
    return words


def spelled(name: str, called: Mapping[str, str] | None = None) -> str:
    """Return the option of a field; see `add`."""
    return (called or {}).get(name, "--" + name.replace("_", "-"))


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def also(target: Target, option: str, former: str, kind: type) -> None:
    """Take an option by the name that it has in scripts of those who wrote them earlier."""
    target.add_argument(
        former, dest=_dest(option), type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
