"""The command as one: ``circuitsim NAME``, and ``python -m circuitsim``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from circuitsim.commands import cli, waiting
from circuitsim.commands.figure import FigureCommand
from circuitsim.studies.registry import FIGURES
from circuitsim.version import __version__

# Each is a module of this package with HELP, DESCRIPTION, add_options and body.
COMMANDS = ("sweep", "figure4", "companions", "status", "export", "classify")
SHELLS = ("bash", "zsh", "tcsh")


def commands() -> list[str]:
    """Names of all commands: those of campaigns without one of their own too."""
    return [*COMMANDS, *FIGURES]


def command(name: str) -> Any:
    """Return a command: its module, or what does for a module."""
    if name in FIGURES:
        return FigureCommand(name, FIGURES[name])
    return import_module(f"circuitsim.commands.{name}")


def parser(prog: str, whole: bool = False) -> cli.Parser:
    """Return a parser of all commands; with their options, ``whole``, it takes longer to make."""
    made = cli.Parser(
        prog=prog,
        description="Simulate how a cortical circuit could learn shared weights.",
        epilog=f"`{prog} COMMAND --help` explains a command.",
    )
    made.add_argument("--version", action="version", version=f"circuitsim {__version__}")
    made.add_argument(
        "--print-completion",
        choices=SHELLS,
        metavar="SHELL",
        help="print a script that completes commands and options in bash, zsh or tcsh; needs "
        "circuitsim[completion]",
    )
    subparsers = made.add_subparsers(dest="command", metavar="COMMAND")
    for name in commands():
        of = command(name)
        sub = subparsers.add_parser(name, help=of.HELP, description=of.DESCRIPTION, add_help=whole)
        if whole:
            of.add_options(sub)
    return made


def main(arguments: list[str] | None = None, prog: str = "circuitsim") -> int:
    """Run a command; return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in commands():
        waiting.show(f"{prog} {given[0]}: starting")
        return cli.run(command(given[0]), f"{prog} {given[0]}", given[1:])
    made = parser(prog)
    named = next((word for word in given if word in commands()), None)
    if named and given[0].startswith("-") and given[0].partition("=")[0] not in made.options():
        made.error(
            f"{given[0]}: options of a command stand after it: {prog} {named} {given[0]} ..."
        )
    options = made.parse_args(given)
    if options.print_completion is not None:
        return _print_completion(options, prog)
    made.print_help()
    return cli.EXIT_USER


def _print_completion(options: argparse.Namespace, prog: str) -> int:
    try:
        import shtab
    except ImportError:
        print(
            f"{prog}: error: --print-completion needs shtab: pip install 'circuitsim[completion]'",
            file=sys.stderr,
        )
        return cli.EXIT_USER
    print(shtab.complete(parser("circuitsim", whole=True), shell=options.print_completion))
    return 0
