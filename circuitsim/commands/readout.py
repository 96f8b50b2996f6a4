"""From a sweep's circuits to a classifier: ``python -m circuitsim.classify readout``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim.commands import cli, reports, waiting
from circuitsim.commands.images import add_data, load_data

if TYPE_CHECKING:
    from circuitsim.studies.readouts import Circuits

HELP = "classify images with the weights that a sweep's circuits have learned"
DESCRIPTION = (
    "Make the pools of a sweep the output channels of one locally connected layer, and print how "
    "well a linear readout of its responses classifies images: with the weights before the sleep, "
    "after it, and with one exactly shared kernel, the mean of the weights before. The trials of "
    "one point of the sweep's grid are the channels. The N neurons of a pool, a square number, are "
    "positions on a square grid, row by row, with the largest stride with which all fields lie in "
    "the image; what is left of the image is left out on both sides. Images are brought to zero "
    "mean and unit variance; responses are rectified and averaged over --pooling x --pooling "
    "neighbours; the readout is a ridge regression, solved in closed form, its penalty chosen with "
    "every tenth image to learn from. Beside them stand what the layer has to beat, with the same "
    "readout: kernels of random numbers, shared, and the pixels themselves; intervals are "
    "Wilson's, of 95 %, over draws of as many test images. With --repeats the trials are parted "
    "into several layers, and the mean stands with its interval of 95 % over these, too. Colour "
    "images need a sweep with --channels 3; channels differ with --initial-mean gabor, where else "
    "all are nearly the same blur."
)


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    p.add_argument(
        "--weights",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        metavar="SWEEP.nc",
        help="result of python -m circuitsim.sweep",
    )
    add_data(p, "digits")
    for name, kind, what in (
        ("k", int, "kernel size"),
        ("neurons", int, "neurons in a pool"),
        ("gamma", float, "pull towards the initial weights"),
        ("alpha", float, "strength of inhibition"),
    ):
        p.add_argument(
            f"--{name}",
            type=kind,
            default=None,
            metavar=name[0].upper(),
            help=f"{what}; needed if the sweep has several",
        )
    p.add_argument(
        "--pooling",
        type=int,
        default=2,
        metavar="P",
        help="rows, and columns, of positions that are averaged over; 1: none",
    )
    p.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="R",
        help="layers into which the trials are parted, each with as many channels",
    )
    p.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="DIR",
        help="write readout.* there: kernels before and after the sleep, SNR over presentations, "
        "and accuracies, as a figure with its data; made if need be",
    )
    p.add_argument("--overwrite", action="store_true", help="replace a report of something else")


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with waiting.told(f"reading {options.weights}, and images"):
        from circuitsim.checks.validation import ParameterError
        from circuitsim.commands.progress import line
        from circuitsim.studies import readouts

        found = _circuits(options)
        dataset = load_data(options, options.dataset)
    study, cell = found.study, found.cells[0]
    attributes = {
        "dataset": dataset.name,
        "study": study.to_json(),
        "cell": cell.to_json(),
        "pooling": str(options.pooling),
        "repeats": str(options.repeats),
    }
    if options.report is not None:
        reports.checked(options.report, "readout", attributes, options.overwrite)
    with line() as progress:
        try:
            made = readouts.evaluate(found, dataset, options.pooling, options.repeats, progress)
        except ParameterError as error:
            given = str(options.weights) if error.parameter == "weights" else error.value
            raise ParameterError(error.parameter, error.rule, given) from None
    n, colours = len(found.cells) // options.repeats, study.channels
    layers = f"{options.repeats} layers" if options.repeats > 1 else "layer"
    print(
        f"{dataset.name}: {len(dataset.train)} images to learn from, {len(dataset.test)} to test\n"
        f"{layers}: {n} channel{'s' if n > 1 else ''}, {made.side} x {made.side} positions with "
        f"stride {made.stride}, kernels of {cell.k} x {cell.k} x {colours}\n"
        f"sleep: rule {study.rule}, gamma = {cell.gamma:g}, alpha = {cell.alpha:g}, "
        f"{study.presentations} presentations\n"
    )
    print(readouts.table(made))
    if options.report is not None:
        attributes |= {"title": f"How weights of a sweep classify {dataset.name}"}
        reports.write(options.report, "readout", made, "slept", attributes, options.command_line)
    return 0


def _circuits(options: argparse.Namespace) -> Circuits:
    from circuitsim.checks.validation import ParameterError
    from circuitsim.studies import readouts

    point = {name: getattr(options, name) for name in ("k", "neurons", "gamma", "alpha")}
    try:
        return readouts.circuits(options.weights, **point)
    except FileNotFoundError as error:
        raise cli.UsageError(f"--weights: {error}") from None
    except ParameterError as error:
        name = "weights" if error.parameter == "file" else error.parameter
        raise ParameterError(name, error.rule, error.value) from None
