"""Convergence studies of the weights' SNR over a grid: ``python -m circuitsim.sweep``."""

import sys

from circuitsim.commands import cli
from circuitsim.commands import sweep as _command

PROG = "python -m circuitsim.sweep"


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    return cli.parser(_command, PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(_command, PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
