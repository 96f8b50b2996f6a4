"""Write learned weights of a sweep as ``.npz``: ``python -m circuitsim.export``."""

import sys
from typing import Any

from circuitsim import commands

PROG = "python -m circuitsim.export"


def parser() -> Any:
    """Return the parser of the command's options."""
    return commands.parser("export", PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return commands.run("export", PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
