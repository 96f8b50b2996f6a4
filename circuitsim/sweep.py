"""Convergence studies of the weights' SNR over a grid: ``python -m circuitsim.sweep``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.sweep"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("sweep", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("sweep", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
