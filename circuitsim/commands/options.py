"""Options made from the fields that dataclasses declare, and written again."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from circuitsim.checks import fields

Target = argparse._ArgumentGroup | argparse.ArgumentParser


def add(
    target: Target, of: Any, names: Iterable[str], called: Mapping[str, str] | None = None
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
    """
    declared = fields.declared(of)
    for name in names:
        what, default = declared[name], fields.default(of, name)
        option = (called or {}).get(name, "--" + name.replace("_", "-"))
        if what.kind is bool:
            target.add_argument(option, dest=name, action="store_true", help=what.text)
            continue
        target.add_argument(
            option,
            dest=name,
            type=what.kind,
            nargs="+" if what.several else None,
            default=list(default) if what.several else default,
            metavar=what.letter,
            help=what.text,
        )


def chosen(of: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a dataclass that options set."""
    names = [name for name in fields.declared(of) if hasattr(options, name)]
    given = {name: getattr(options, name) for name in names}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


def written(instance: Any, called: Mapping[str, str] | None = None) -> list[str]:
    """Return the options that make an instance of a dataclass again, each with its values."""
    words: list[str] = []
    for name in fields.declared(instance):
        value = getattr(instance, name)
        option = (called or {}).get(name, "--" + name.replace("_", "-"))
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        elif isinstance(value, bool):
            words += [option] * value
        elif value is not None:  # joined, or a negative number would be taken for an option
            words.append(f"{option}={value}")
    return words
