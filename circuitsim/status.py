"""How far a study is: ``python -m circuitsim.status``."""

import sys

from circuitsim.commands import cli
from circuitsim.commands import status as _command

PROG = "python -m circuitsim.status"


def parser() -> cli.Parser:
    """Return the parser of the command's options."""
    return cli.parser(_command, PROG)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(_command, PROG, arguments)


if __name__ == "__main__":
    sys.exit(main())
