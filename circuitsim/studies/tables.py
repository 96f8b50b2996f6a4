"""What a study found, in a table of 79 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim.studies import settings
from circuitsim.studies.settings import Point

NEAR_BEST = 1.1  # "within 10 % of its lowest"
_MEASURE = "log10 of the weights' inverse SNR (lower = more alike)"


class Row(NamedTuple):
    """One point of a study's grid; log10 of the weights' inverse SNR, the mean over trials.

    Attributes
    ----------
    k, gamma, alpha, neurons
        The point.
    final, spread : float
        After the last presentation: mean and standard deviation over trials.
    theory, end_point : float
        At the end point of Eq. 5, and at that of the simulated rule (NaN if it has none).
    best : float
        The lowest on the way.
    presentations_to_best : float
        Presentations until it was first within 10 % of its lowest, the median over trials.
    trials : int
        How many there are.
    settings : tuple
        Further parameters of the circuit, pairs of names and values.
    """

    k: int
    gamma: float
    alpha: float
    neurons: int
    final: float
    spread: float
    theory: float
    end_point: float
    best: float
    presentations_to_best: float
    trials: int
    settings: Point = ()


def row(
    point: tuple[int, float, float, int, Point],
    inverse: NDArray[np.float64],
    theory: NDArray[np.float64],
    end_point: NDArray[np.float64],
) -> Row:
    """Summarise one point of the grid.

    Parameters
    ----------
    point : tuple
        k, gamma, alpha, neurons, settings.
    inverse : ndarray, shape (trial, presentation)
        Inverse SNR of the weights (`circuitsim.measures.inverse_snr_w`) from the start (0) to the
        last presentation; without any trial, all is NaN.
    theory, end_point : ndarray, shape (trial,)
        The same there.
    """
    k, gamma, alpha, neurons, at = point
    trials, none = len(inverse), float("nan")
    if trials == 0:
        return Row(k, gamma, alpha, neurons, none, none, none, none, none, none, 0, at)
    best = inverse.min(axis=1, keepdims=True)
    reached = np.argmax(inverse <= NEAR_BEST * best, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        final = np.log10(inverse[:, -1])
        return Row(
            k,
            gamma,
            alpha,
            neurons,
            float(final.mean()),
            float(final.std(ddof=1)) if trials > 1 else float("nan"),
            float(np.log10(theory).mean()),
            float(np.log10(end_point).mean()),
            float(np.log10(best).mean()),
            float(np.median(reached)),
            trials,
            at,
        )


def rows(dataset: xr.Dataset) -> Iterator[Row]:
    """Summarise every point of the grid of a sweep's result (`circuitsim.load`)."""
    names = ("k", "gamma", "alpha", "neurons")
    further = [str(n) for n in dataset["theory_inverse_snr_w"].dims if n not in (*names, "trial")]
    axes = [dataset[name].to_numpy().tolist() for name in (*further, *names)]
    order = (*further, *names, "trial")
    inverse = dataset["inverse_snr_w"].transpose(*order, "presentation").to_numpy()
    theory = dataset["theory_inverse_snr_w"].transpose(*order).to_numpy()
    end_point = dataset["fixed_point_inverse_snr_w"].transpose(*order).to_numpy()
    for place in np.ndindex(inverse.shape[:-2]):
        *at, k, gamma, alpha, neurons = (axis[i] for axis, i in zip(axes, place, strict=True))
        point = (k, gamma, alpha, neurons, tuple(zip(further, at, strict=True)))
        there = ~np.isnan(inverse[place]).any(axis=1)  # pools of given weights differ in number
        yield row(point, *(array[place][there] for array in (inverse, theory, end_point)))


def _lines(found: Iterable[Row], last: Callable[[Row], str]) -> Iterator[str]:
    """One line a row, and one above those of each combination of settings."""
    before: Point = ()
    for row in found:
        if row.settings != before:
            yield f"{settings.spoken(row.settings)}:"
            before = row.settings
        yield f"{_line(row)} {last(row):>9}"


def summary(dataset: xr.Dataset) -> str:
    """Return the table that ends a sweep.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.load` returns it.

    Returns
    -------
    str
        A header and one line for each point of the grid.
    """
    trials, last = dataset.sizes["trial"], int(dataset["presentation"][-1])
    most = "up to " if bool(dataset["inverse_snr_w"].isnull().any()) else ""
    lines = [
        _MEASURE,
        f"after {last} presentations, mean +- standard deviation over {most}{trials} "
        f"trial{'s' if trials > 1 else ''}",
        f"{_GROUPS} {'near best':>9}",
        f"{_HEADER} {'after':>9}",
    ]
    lines += _lines(rows(dataset), lambda row: f"{row.presentations_to_best:.0f}")
    lines.append("near best: presentations until it is within 10 % of its lowest, median")
    return "\n".join(lines)


def so_far(found: Iterable[Row], presentations: int, trials: int) -> Iterator[str]:
    """Give the lines of the table of a study that is not finished, as soon as they are known.

    Parameters
    ----------
    found : iterable of Row
        Of the points of the grid.
    presentations, trials : int
        Of the study.
    """
    yield _MEASURE
    yield f"after {presentations} presentations, over the trials finished so far"
    yield f"{_GROUPS} {'trials':>9}"
    yield f"{_HEADER} {'finished':>9}"
    yield from _lines(found, lambda row: f"{row.trials}/{trials}")


_GROUPS = f"{'':>27}{'':>15} {'theory,':>8} {'own end':>8} {'':>7}"
_HEADER = (
    f"{'k':>3} {'gamma':>7} {'alpha':>6} {'neurons':>8}{'final':>15} "
    f"{'Eq. 5':>8} {'point':>8} {'best':>7}"
)


def _line(row: Row) -> str:
    point = f"{row.k:>3} {row.gamma:>7g} {row.alpha:>6g} {row.neurons:>8}"
    if row.trials == 0:
        return f"{point}{'none yet':>15} {'-':>8} {'-':>8} {'-':>7}"
    spread = f" +- {row.spread:.2f}" if np.isfinite(row.spread) else ""
    final = f"{row.final:.2f}{spread}"
    end_point = "-" if np.isnan(row.end_point) else f"{row.end_point:.2f}"
    return f"{point}{final:>15} {row.theory:>8.2f} {end_point:>8} {row.best:>7.2f}"
