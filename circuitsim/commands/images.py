"""Options that commands of the image classifier share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import waiting

if TYPE_CHECKING:
    from circuitsim.vision.datasets import Dataset
    from circuitsim.vision.runs import Run

# What a sleep is unless said otherwise: short, since training brings little of what it removes
# until the next one; and with strong inhibition, since the mean weights decay too, and faster the
# weaker it is. See docs/sharing.md.
SLEEP = {"presentations_per_input": 0.5, "gamma": 1e-3, "alpha": 50.0}


TIMES = {"tau": "time constant of the rates", "dt": "step in which rates are computed"}


def add_times(p: argparse._ArgumentGroup) -> None:
    """Add the options of a circuit in which layers sleep that are times."""
    from circuitsim.checks.values import in_ms
    from circuitsim.vision.sharing import Sharing

    for name, what in TIMES.items():
        usual = in_ms(getattr(Sharing(), name))
        told = f"{what}, in ms; by default {usual:g}"
        p.add_argument(f"--{name}", type=float, default=None, metavar="MS", help=told)


def add_data(p: argparse._ArgumentGroup | argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that say where images are from."""
    names = (
        "digits (needs no files), cifar10, cifar100, folder (images in folders of classes), "
        "tiny-imagenet, imagenet, or npz (arrays as Keras or MedMNIST name them)"
    )
    p.add_argument(
        "--dataset",
        default=default,
        metavar="NAME",
        help=names if default else f"{names}; by default that of the run",
    )
    p.add_argument(
        "--data",
        type=Path,
        default=None,
        metavar="DIR",
        help="directory (npz: file) that holds the data set; by default that in the environment "
        "variable CIRCUITSIM_DATA, else, for CIFAR's official files, one of the user's caches",
    )
    p.add_argument(
        "--download",
        action="store_true",
        help="download CIFAR there if it is missing or damaged; needs circuitsim[vision]",
    )
    p.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        default=None,
        metavar="S",
        help="rows (and columns) to which the middle of image files is brought; by default 64 in "
        "tiny-imagenet, 224 in imagenet, and in folder that of the files, which are alike then",
    )
    p.add_argument(
        "--channels",
        type=int,
        default=None,
        metavar="C",
        help="1 (grey) or 3 (colour), of folder; by default 1 if all images are grey",
    )
    p.add_argument(
        "--test-share",
        type=float,
        default=None,
        metavar="SHARE",
        help="share of each class that is set aside where no images to test with are given, always "
        "the same ones; by default 0.2",
    )
    p.add_argument(
        "--skip-bad", action="store_true", help="go on without image files that cannot be read"
    )
    p.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="W",
        help="processes that decode image files; by default one for each core, for few files none",
    )


OF_DATA = ("data", "download", "image_size", "channels", "test_share", "skip_bad", "workers")
LOADING = ("data", "download", "skip_bad", "workers")  # those that do not change the images


def load_data(options: argparse.Namespace, name: str, run: Run | None = None) -> Dataset:
    """Load the data set that the options ask for, in the form that a trained network takes.

    Raises
    ------
    ParameterError, OSError
        As `circuitsim.vision.datasets.load`.
    """
    from circuitsim.vision import datasets

    given: dict[str, Any] = {n: getattr(options, n) or None for n in OF_DATA}
    if run is not None and run.training.crop_size is None and name in datasets.SOURCES:
        *size, channels = run.architecture.input_shape
        for option, value in (("image_size", size), ("channels", channels)):
            if option in datasets.SOURCES[name].options and given[option] is None:
                given[option] = value
    given["workers"] = options.workers  # which may be 0
    data = datasets.load(name, given.pop("data"), bool(given.pop("download")), **given)
    for note in data.notes:
        waiting.clear()
        print(f"note: {note}", file=sys.stderr)
    return data


def add_jobs(p: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the option for the number of threads."""
    from circuitsim.commands import options

    p.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="J",
        help="threads to use; by default the cores available",
    )
    options.also(p, "--jobs", "--threads", int)
