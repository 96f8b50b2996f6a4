"""Image classifiers with shared and unshared weights: ``python -m circuitsim.classify``."""

import sys

from circuitsim.commands import classify as _command
from circuitsim.commands import cli

PROG = "python -m circuitsim.classify"


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    return cli.parser(_command, PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(_command, PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
