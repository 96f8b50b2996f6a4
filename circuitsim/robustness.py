"""How much imperfection sharing tolerates: ``python -m circuitsim.robustness``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.robustness"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("robustness", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("robustness", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
