"""Options that commands of the image classifier share."""

from __future__ import annotations

import argparse
from pathlib import Path

# What a sleep is unless said otherwise: short, since training brings little of what it removes
# until the next one; and with strong inhibition, since the mean weights decay too, and faster the
# weaker it is, whereas border positions keep theirs. See docs/sharing.md.
SLEEP = {"presentations_per_input": 0.5, "gamma": 1e-3, "alpha": 50.0}


def add_data(p: argparse._ArgumentGroup | argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that say where images are from."""
    names = "digits (needs no files), cifar10 or cifar100"
    p.add_argument(
        "--dataset",
        default=default,
        metavar="NAME",
        help=names if default else f"{names}; None: that of the run",
    )
    p.add_argument(
        "--data",
        type=Path,
        default=None,
        metavar="DIR",
        help="directory that holds the data sets' official files; None: that in the environment "
        "variable CIRCUITSIM_DATA, else one of the user's caches",
    )
    p.add_argument(
        "--download",
        action="store_true",
        help="download the data set there if it is missing; needs circuitsim[vision]",
    )


def add_threads(p: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the option for the number of threads."""
    p.add_argument(
        "--threads",
        type=int,
        default=None,
        metavar="T",
        help="threads to use; None: the cores available",
    )
