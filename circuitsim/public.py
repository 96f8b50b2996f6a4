"""What a module offers: its public names, listed once, and those loaded that are asked for."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def own(module: str, *constants: str) -> Callable[[], list[str]]:
    """Return a module's ``__dir__`` that lists what is its own, and nothing that it has imported.

    Parameters
    ----------
    module : str
        The module's ``__name__``. Its classes and functions tell by themselves where they belong.
    *constants : str
        What else is public.
    """

    def names() -> list[str]:
        found = vars(sys.modules[module]).items()
        defined = {name for name, value in found if getattr(value, "__module__", "") == module}
        return sorted({name for name in defined if not name.startswith("_")} | {*constants})

    return names


def lazy(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, from its stub.

    The stub, ``__init__.pyi``, is what type checkers and editors read: ``from .module import name
    as name`` and ``from . import module as module``. What it names is imported when it is used.
    ``--help`` needs none of it, and Brian2 alone takes seconds.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    file : str
        Its ``__file__``.
    """
    homes: dict[str, tuple[str, str]] = {}
    values = []
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                base = package.rsplit(".", node.level - 1)[0]  # a package above, by more dots
                homes[alias.name] = (f"{base}.{node.module or alias.name}", node.module or "")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            values.append(node.target.id)  # the package has it itself

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, within = homes[name]
        imported = import_module(module)
        return getattr(imported, name) if within else imported

    names = sorted([*homes, *values])
    return get, lambda: names, names
