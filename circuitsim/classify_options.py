"""Options of the image classifier's commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitsim import cli


def parser() -> cli.Parser:
    """Return the parser of the commands and their options."""
    from circuitsim import classify_compare

    p = cli.Parser(
        prog="python -m circuitsim.classify",
        description="Train and use image classifiers whose layers are convolutional, or locally "
        "connected and share their weights when they sleep.",
    )
    commands = p.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_train(
        commands.add_parser(
            "train",
            help="train a network",
            description="Train a network and write it, with the history of its training, into a "
            "directory: run.json (what is trained), checkpoint.npz (the network) and history.nc. "
            "The numbers depend on the options and the data alone, not on the number of threads, "
            "nor on having been interrupted.",
        )
    )
    classify_compare.add_options(
        commands.add_parser(
            "compare",
            help="compare networks that share weights with those that do not",
            description="Train networks that share weights in several ways, and others that do "
            "not, and report how they compare: a table, a figure, its data and its caption. "
            "Trainings are kept, each in a directory of its own (that of train); whatever ends "
            "the command, the same command goes on.",
        )
    )
    return p


def add_data(p: argparse._ArgumentGroup | argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that say where images are from."""
    p.add_argument(
        "--dataset",
        default=default,
        metavar="NAME",
        help="digits (needs no files), cifar10 or cifar100",
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


def _add_train(p: argparse.ArgumentParser) -> None:
    add_data(p.add_argument_group("images"), "digits")
    network = p.add_argument_group("network")
    network.add_argument(
        "--network",
        default="small",
        metavar="NAME",
        help="small (4 layers) or resnet20",
    )
    network.add_argument(
        "--connectivity",
        default="lc",
        metavar="NAME",
        help="lc (locally connected) or conv (convolutional)",
    )
    network.add_argument(
        "--width",
        type=int,
        default=None,
        metavar="W",
        help="channels of the first layer; None: 32 in small, 16 in resnet20",
    )
    awake = p.add_argument_group("awake")
    awake.add_argument("--epochs", type=int, default=10, metavar="E", help="epochs of training")
    awake.add_argument(
        "--batch-size",
        type=int,
        default=128,
        metavar="B",
        help="images in a batch, repetitions included",
    )
    awake.add_argument("--optimiser", default="adamw", metavar="NAME", help="adamw or sgd")
    awake.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        metavar="RATE",
        help="learning rate of the first batch; None: 0.001 with adamw, 0.1 with sgd",
    )
    awake.add_argument(
        "--weight-decay",
        type=float,
        default=None,
        metavar="D",
        help="pull of weights to 0, as a factor of the weights; None: 0.01 with adamw, 0.0005 with "
        "sgd",
    )
    awake.add_argument(
        "--momentum",
        type=float,
        default=None,
        metavar="MU",
        help="momentum of sgd; None: 0.9",
    )
    awake.add_argument(
        "--schedule",
        default="cosine",
        metavar="NAME",
        help="how the learning rate changes: constant, cosine (to 0) or step",
    )
    awake.add_argument(
        "--milestones",
        type=int,
        nargs="+",
        default=None,
        metavar="E",
        help="epochs after which the learning rate takes a step; None: half and three quarters of "
        "them",
    )
    awake.add_argument(
        "--factor",
        type=float,
        default=None,
        metavar="F",
        help="what each step multiplies the learning rate by; None: 0.25",
    )
    awake.add_argument(
        "--crop-padding",
        type=int,
        default=0,
        metavar="P",
        help="black pixels added on every side of an image before a random crop of its size",
    )
    awake.add_argument("--flips", action="store_true", help="mirror every second image or so")
    awake.add_argument(
        "--repetitions",
        type=int,
        default=1,
        metavar="R",
        help="crops of each image within a batch",
    )
    awake.add_argument(
        "--validation",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the training images that is set aside for validation; 0: none",
    )
    awake.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="SEED",
        help="fixes weights, validation images, order, crops and sleeps",
    )
    asleep = p.add_argument_group("asleep")
    asleep.add_argument(
        "--sharing",
        default="none",
        metavar="HOW",
        help="how locally connected layers share weights: none, instant, rule, circuit or gated",
    )
    asleep.add_argument(
        "--share-every",
        type=int,
        default=None,
        metavar="B",
        help="batches from one sleep to the next; must be given unless --sharing is none",
    )
    for name, unit, what in (
        ("presentations", int, "input patterns shown in a sleep"),
        ("presentations-per-input", float, "the same, for each input that a neuron has"),
        ("gamma", float, "pull towards the weights before the sleep, dimensionless"),
        ("alpha", float, "strength of inhibition, dimensionless"),
        ("tau", float, "time constant of the rates, in ms"),
        ("sharing-rate", float, "learning rate of the rule"),
    ):
        asleep.add_argument(
            f"--{name}",
            type=unit,
            default=None,
            metavar="P" if unit is int else name[0].upper(),
            help=f"{what}; None: that of the way of sharing",
        )
    how = p.add_argument_group("how to run it")
    add_threads(how)
    how.add_argument(
        "--output",
        type=Path,
        default=Path("classifier"),
        metavar="RUN",
        help="directory to write",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="go on where the run in this directory stopped, with its own options; begin it if it "
        "has not begun",
    )
