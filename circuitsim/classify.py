"""Image classifiers with shared and unshared weights: ``python -m circuitsim.classify``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.classify"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("classify", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("classify", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
