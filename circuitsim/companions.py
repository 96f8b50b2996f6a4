"""Figures beside Figure 4 of the paper: ``python -m circuitsim.companions``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.companions"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("companions", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("companions", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
