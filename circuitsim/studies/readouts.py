"""What the weights of a sweep's circuits are worth for images, beside what they have to beat.

Pools become output channels of a locally connected layer, whose responses a linear readout
classifies: see `circuitsim.vision.readout`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError, function, integer
from circuitsim.public import own
from circuitsim.studies import origins, sweep

if TYPE_CHECKING:
    from circuitsim.vision.datasets import Dataset

__dir__ = own(__name__)

BEFORE, AFTER, SHARED = "before sleep", "after sleep", "exactly shared"
RANDOM, PIXELS = "random kernels", "raw pixels"


class Circuits(NamedTuple):
    """Circuits of one point of a sweep's grid, which differ in their trial alone.

    Attributes
    ----------
    study : Study
    cells : list of Cell
    before, after : ndarray, shape (neuron, input, trial)
        Weights before and after the sleep.
    snr_w : xarray.DataArray, shape (presentation, pool)
    """

    study: sweep.Study
    cells: list[sweep.Cell]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    snr_w: xr.DataArray


def circuits(path: Path, **point: Any) -> Circuits:
    """Read the circuits of one point of a sweep's grid.

    Parameters
    ----------
    path : Path
        Result of a sweep.
    **point
        ``k``, ``neurons``, ``gamma``, ``alpha``; None where the sweep has one alone.

    Raises
    ------
    ParameterError
        If it is no such file, or lacks the point, or has several.
    FileNotFoundError
        If there is none.
    """
    study = sweep.study_in(path)
    names = ("k", "neurons", "gamma", "alpha")
    chosen = {n: sweep.only(n, getattr(study, n), point.get(n)) for n in names}
    for name, values in study.further.items():
        if len(values) > 1:
            raise ParameterError("weights", f"has several {name}; one is needed", str(path))
    further = dict.fromkeys(study.further, 0)
    weights = sweep.load_weights(path, chosen["k"], chosen["neurons"])
    weights = weights.sel(gamma=chosen["gamma"], alpha=chosen["alpha"])
    weights = weights.isel(neurons=0).isel(further)
    after = weights.transpose("neuron", "input", "trial").to_numpy()
    cells = [
        sweep.Cell(trial=trial, settings=study.points[0], **chosen) for trial in range(study.trials)
    ]
    before = np.stack([study.initial_weights(cell) for cell in cells], axis=-1)
    curves = sweep.load(path)["snr_w"].sel(chosen).isel(further)
    curves = curves.transpose("presentation", "trial").isel(trial=slice(origins.CURVES))
    plain = xr.DataArray(
        curves.to_numpy(), {"presentation": curves["presentation"]}, ("presentation", "pool"),
        attrs=curves.attrs,
    )  # fmt: skip
    return Circuits(study, cells, before, after, plain)


def evaluate(
    found: Circuits,
    dataset: Dataset,
    pooling: int = 2,
    repeats: int = 1,
    progress: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """Fit and test readouts of the circuits' weights, and of what they have to beat.

    Parameters
    ----------
    found : Circuits
        Those of one point.
    dataset : Dataset
        Images to learn from and to test with.
    pooling : int
        Rows, and columns, of positions that are averaged over.
    repeats : int
        Into how many layers the trials are parted, each with as many channels; and how many draws
        of random kernels there are.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    xarray.Dataset
        By ``state`` (before and after the sleep, exactly shared, random kernels, raw pixels):
        ``accuracy``, ``train_accuracy`` and ``penalty`` of every ``repeat``, of which raw pixels
        have one; their mean ``top1``, with Wilson's 95 % interval over draws of as many test
        images, ``interval``, and the half width of the 95 % interval of Student's t over repeats,
        ``repeats_interval``, NaN of one. ``kernels`` (stage, position, kernel_row, kernel_column,
        channel, output) before and after the sleep; ``snr_w``.

    Raises
    ------
    ParameterError
        If the images have other channels than the circuits, the repeats do not divide the trials,
        or the grid of neurons does not fit.
    """
    from scipy.stats import t

    from circuitsim.vision.evaluation import wilson
    from circuitsim.vision.readout import Grid, pixels, readout

    study, cells = found.study, found.cells
    rows, columns, colours = dataset.train.images.shape[1:]
    if study.channels != colours:
        raise ParameterError(
            "weights",
            f"have {study.channels} channel{'s' if study.channels > 1 else ''}, and images of "
            f"{dataset.name} have {colours}; run the sweep with --channels {colours}",
            f"{study.channels} channels",
        )
    if len(cells) % integer("repeats", repeats, minimum=1):
        raise ParameterError(
            "repeats",
            f"must divide the {len(cells)} trials of the sweep, each of which is a channel of one "
            "repeat",
            repeats,
        )
    function("progress", progress)
    grid = Grid((rows, columns), cells[0].k, cells[0].neurons)
    states = (BEFORE, AFTER, SHARED, RANDOM, PIXELS)
    numbers = {n: np.full((len(states), repeats), np.nan) for n in _PER_REPEAT}
    total, done = 4 * repeats + 1, 0

    def advanced(finished: int, share: float) -> None:
        if progress is not None:
            progress((finished + share) / total)

    def keep(state: str, repeat: int, result: Any) -> None:
        for name, array in numbers.items():
            array[states.index(state), repeat] = getattr(result, name)

    for repeat, part in enumerate(np.split(np.arange(len(cells)), repeats)):
        for state, weights in _variants(found.before[..., part], found.after[..., part], repeat):
            result = readout(weights, grid, dataset, pooling, partial(advanced, done))
            keep(state, repeat, result)
            done += 1
    keep(PIXELS, 0, pixels(dataset))
    accuracy = numbers["accuracy"]
    count = np.isfinite(accuracy).sum(axis=1)
    top1 = np.nanmean(accuracy, axis=1)
    tested = np.full(len(states), len(dataset.test))
    half = np.full(len(states), np.nan)
    several = count > 1
    spread = np.nanstd(accuracy[several], axis=1, ddof=1)
    half[several] = t.ppf(0.975, count[several] - 1) * spread / np.sqrt(count[several])
    shape = (grid.neurons, grid.kernel, grid.kernel, colours, len(cells))
    kernels = np.stack([w.reshape(shape) for w in (found.before, found.after)])
    return xr.Dataset(
        {
            **{n: (("state", "repeat"), numbers[n], about) for n, about in _PER_REPEAT.items()},
            "top1": ("state", top1, {"long_name": "accuracy, mean of the repeats", "units": "1"}),
            "interval": (
                ("state", "bound"), wilson(top1 * tested, tested),
                {"long_name": "95 % interval over test images (Wilson)", "units": "1"},
            ),
            "repeats_interval": (
                "state", half,
                {"long_name": "half width of the 95 % interval over repeats", "units": "1"},
            ),
            "kernels": (
                ("stage", "position", "kernel_row", "kernel_column", "channel", "output"), kernels,
                {"long_name": "weights", "units": "1"},
            ),
            "snr_w": found.snr_w,
        },
        {"state": list(states), "bound": ["lower", "upper"], "stage": ["before", "after"],
         "repeat": np.arange(repeats)},
        {"images": len(dataset.test), "stride": grid.geometry.stride, "side": grid.side},
    )  # fmt: skip


_PER_REPEAT = {
    "accuracy": {"long_name": "accuracy on test images", "units": "1"},
    "train_accuracy": {"long_name": "accuracy on the images to learn from", "units": "1"},
    "penalty": {"long_name": "ridge penalty, for each image", "units": "1"},
}


def _variants(
    before: NDArray[np.float64], after: NDArray[np.float64], seed: int
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    yield BEFORE, before
    yield AFTER, after
    yield SHARED, np.broadcast_to(before.mean(axis=0), before.shape)
    random = np.random.default_rng(seed).standard_normal(before.shape[1:])
    yield RANDOM, np.broadcast_to(random, before.shape)


def table(made: xr.Dataset) -> str:
    """Return what `evaluate` has found as text."""
    several = made.sizes["repeat"] > 1
    over = f"{'over repeats':>15}" if several else ""
    lines: Sequence[str] = [
        f"{'weights':<16}{'test accuracy':>15}{'interval':>17}{over}{'on training images':>20}"
        f"{'penalty':>10}"
    ]
    for state in made["state"].to_numpy():
        of = made.sel(state=state)
        low, high = 100 * of["interval"].to_numpy()
        half = 100 * float(of["repeats_interval"])
        over = f"{'-' if np.isnan(half) else f'+- {half:.2f}':>15}" if several else ""
        mean = {n: float(of[n].mean()) for n in ("top1", "train_accuracy")}
        penalties = np.unique(of["penalty"].dropna("repeat"))
        penalty = f"{penalties[0]:g}" if len(penalties) == 1 else "various"
        lines = [
            *lines,
            f"{state:<16}{100 * mean['top1']:>13.2f} %{f'{low:.1f} to {high:.1f}':>17}{over}"
            f"{100 * mean['train_accuracy']:>18.2f} %{penalty:>10}",
        ]
    return "\n".join(lines)
