"""Figure 4 of the paper, from nothing: ``python -m circuitsim.figure4``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.figure4"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("figure4", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("figure4", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
