"""From a sweep's circuits to a classifier: ``python -m circuitsim.classify readout``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim.commands import cli
from circuitsim.commands.images import add_data, load_data

if TYPE_CHECKING:
    from circuitsim.engines.batch import Array
    from circuitsim.studies.sweep import Cell, Study
    from circuitsim.vision.readout import Result

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
    "Wilson's, of 95 %, over draws of as many test images. Colour images need a sweep with "
    "--channels 3; channels differ with --initial-mean gabor, where else all are nearly the same "
    "blur."
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


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from functools import partial

    from circuitsim.checks.validation import ParameterError
    from circuitsim.commands.progress import line
    from circuitsim.vision.readout import Grid, pixels, readout

    study, cells, learned = _circuits(options)
    dataset = load_data(options, options.dataset)
    rows, columns, colours = dataset.train.images.shape[1:]
    if study.channels != colours:
        raise ParameterError(
            "weights",
            f"have {study.channels} channel{'s' if study.channels > 1 else ''}, and images of "
            f"{dataset.name} have {colours}; run the sweep with --channels {colours}",
            str(options.weights),
        )
    grid = Grid((rows, columns), cells[0].k, cells[0].neurons)
    found: dict[str, Result] = {}
    with line() as progress:

        def advanced(finished: int, done: float) -> None:
            progress((finished + done) / 5)

        for name, weights in _variants(study, cells, learned):
            found[name] = readout(
                weights, grid, dataset, options.pooling, partial(advanced, len(found))
            )
        found["raw pixels"] = pixels(dataset)
    n, side = len(cells), grid.side
    print(
        f"{dataset.name}: {len(dataset.train)} images to learn from, {len(dataset.test)} to test\n"
        f"layer: {n} channel{'s' if n > 1 else ''}, {side} x {side} positions with stride "
        f"{grid.geometry.stride}, kernels of {grid.kernel} x {grid.kernel} x {colours}\n"
        f"sleep: rule {study.rule}, gamma = {cells[0].gamma:g}, alpha = {cells[0].alpha:g}, "
        f"{study.presentations} presentations\n"
    )
    print(
        f"{'weights':<16}{'test accuracy':>15}{'interval':>17}{'on training images':>20}"
        f"{'penalty':>10}"
    )
    for name, result in found.items():
        print(_line(name, result))
    return 0


def _circuits(options: argparse.Namespace) -> tuple[Study, list[Cell], Array]:
    """The sweep, the circuits chosen, and their weights (neuron, input, circuit)."""
    from circuitsim.checks.validation import ParameterError
    from circuitsim.studies import sweep
    from circuitsim.studies.sweep import Cell

    path = options.weights
    try:
        study = sweep.study_in(path)
        point = {
            name: sweep.only(name, getattr(study, name), getattr(options, name))
            for name in ("k", "neurons", "gamma", "alpha")
        }
        weights = sweep.load_weights(path, point["k"], point["neurons"])
    except FileNotFoundError as error:
        raise cli.UsageError(f"--weights: {error}") from None
    except ParameterError as error:
        name = "weights" if error.parameter == "file" else error.parameter
        raise ParameterError(name, error.rule, error.value) from None
    for name, values in study.further.items():
        if len(values) > 1:
            raise ParameterError("weights", f"has several {name}; one is needed", str(path))
    weights = weights.sel(gamma=point["gamma"], alpha=point["alpha"]).isel(neurons=0)
    weights = weights.isel(dict.fromkeys(study.further, 0))
    settings = study.points[0]
    cells = [Cell(trial=trial, settings=settings, **point) for trial in range(study.trials)]
    return study, cells, weights.transpose("neuron", "input", "trial").to_numpy()


def _variants(study: Study, cells: list[Cell], learned: Array) -> Iterator[tuple[str, Array]]:
    import numpy as np

    before = np.stack([study.initial_weights(cell) for cell in cells], axis=-1)
    yield "before sleep", before
    yield "after sleep", learned
    yield "exactly shared", np.broadcast_to(before.mean(axis=0), before.shape)
    random = np.random.default_rng(0).standard_normal(before.shape[1:])
    yield "random kernels", np.broadcast_to(random, before.shape)


def _line(name: str, result: Result) -> str:
    low, high = (100 * end for end in result.interval)
    return (
        f"{name:<16}{f'{100 * result.accuracy:.2f} %':>15}{f'{low:.1f} to {high:.1f}':>17}"
        f"{f'{100 * result.train_accuracy:.2f} %':>20}{result.penalty:>10g}"
    )
