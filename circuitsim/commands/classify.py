"""Image classifiers with shared and unshared weights."""

from __future__ import annotations

import argparse

from circuitsim.commands import compare, evaluate, predict, predictivity, readout, train

HELP = "train, test and compare image classifiers that share weights in their sleep"
DESCRIPTION = (
    "Train and use image classifiers whose layers are convolutional, or locally connected and "
    "share their weights when they sleep."
)
COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "readout": readout,
    "compare": compare,
    "predictivity": predictivity,
}
# The first two have no names.
OPTIONS = {**compare.OPTIONS, "run": "", "image": ""}


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the commands, with their options."""
    commands = p.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        )


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    return COMMANDS[options.subcommand].body(options)
