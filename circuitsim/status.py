"""How far a study is: ``python -m circuitsim.status``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.status"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("status", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("status", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
