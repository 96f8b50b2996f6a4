"""Convergence studies of the weights' SNR over a grid: ``python -m circuitsim.sweep``.

In Python the module is a function, too, `circuitsim.studies.sweep.sweep`:
``circuitsim.sweep(k=[3, 5], gamma=[0.1, 0.01])``.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from circuitsim import commands

if TYPE_CHECKING:
    from circuitsim.studies.sweep import sweep as sweep

PROG = "python -m circuitsim.sweep"


class _Sweep(ModuleType):
    """A module that can be called: importing it makes it ``circuitsim.sweep``, which is both."""

    def __call__(self, **given: Any) -> Any:
        from circuitsim.studies.sweep import sweep as run

        return run(**given)


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("sweep", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("sweep", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
elif not TYPE_CHECKING:
    sweep = sys.modules[__name__]
    sweep.__class__ = _Sweep
