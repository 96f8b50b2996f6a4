"""How a whole layer sleeps, in one figure: ``python -m circuitsim.layer``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.layer"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("layer", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("layer", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
