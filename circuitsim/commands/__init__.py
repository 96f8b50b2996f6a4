"""Options, messages and exit codes of the commands; `circuitsim.commands.main` lists them."""

import sys
from typing import Any

from circuitsim.checks import interrupts
from circuitsim.commands import waiting


@interrupts.receiving()
def run(name: str, prog: str, arguments: list[str] | None = None) -> int:
    """Run a command by its name, and meet an interrupt while it is imported; see `cli.run`."""
    try:
        waiting.show(f"{prog}: starting")
        return _cli().run(_command(name), prog, arguments)
    except KeyboardInterrupt:  # `cli.run` meets all that come later
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


def parser(name: str, prog: str) -> Any:
    """Return the parser of a command's options; see `cli.parser`."""
    return _cli().parser(_command(name), prog)


def _cli() -> Any:
    from circuitsim.commands import cli

    return cli


def _command(name: str) -> Any:
    from circuitsim.commands import main

    return main.command(name)
