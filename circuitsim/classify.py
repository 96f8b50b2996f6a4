"""Image classifiers with shared and unshared weights: ``python -m circuitsim.classify``."""

from __future__ import annotations

import argparse
import sys

from circuitsim import (
    classify_compare,
    classify_evaluate,
    classify_predict,
    classify_readout,
    classify_train,
    cli,
)

# Each has HELP and DESCRIPTION, add_options(parser), and body(options) that returns an exit code.
COMMANDS = {
    "train": classify_train,
    "evaluate": classify_evaluate,
    "predict": classify_predict,
    "readout": classify_readout,
    "compare": classify_compare,
}
# The first two have no names.
OPTIONS = {"run": "", "image": "", "file": "--redraw", "n_neurons": "--neurons"}


def parser() -> cli.Parser:
    """Return the parser of the commands and their options."""
    p = cli.Parser(
        prog="python -m circuitsim.classify",
        description="Train and use image classifiers whose layers are convolutional, or locally "
        "connected and share their weights when they sleep.",
    )
    commands = p.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    return COMMANDS[options.subcommand].body(options)


if __name__ == "__main__":
    sys.exit(main())
