"""What a study found, in a table of 79 columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import xarray as xr

NEAR_BEST = 0.9  # "within 10 % of its best"


class Row(NamedTuple):
    """One point of a study's grid; SNRs as log10 SNR_w, the mean over trials.

    Attributes
    ----------
    k, gamma, alpha, neurons
        The point.
    final, spread : float
        After the last presentation: mean and standard deviation over trials.
    theory, end_point : float
        At the end point of Eq. 5, and at that of the simulated rule.
    best : float
        The highest on the way.
    presentations_to_best : float
        Presentations until SNR_w was first within 10 % of its best, the median over trials.
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


def rows(dataset: xr.Dataset) -> Iterator[Row]:
    """Summarise every point of the grid of a sweep's result (`circuitsim.load`)."""
    axes = [dataset[name].to_numpy() for name in ("k", "gamma", "alpha", "neurons")]
    for k, gamma, alpha, neurons in product(*axes):
        point = dataset.sel(k=k, gamma=gamma, alpha=alpha, neurons=neurons)
        snr = point["snr_w"].transpose("trial", "presentation").to_numpy()
        with np.errstate(divide="ignore"):
            final = np.log10(snr[:, -1])
            theory = np.log10(point["theory_snr_w"].to_numpy()).mean()
            end_point = np.log10(point["fixed_point_snr_w"].to_numpy()).mean()
            best = snr.max(axis=1, keepdims=True)
            log_best = np.log10(best).mean()
        reached = np.argmax(snr >= NEAR_BEST * best, axis=1)
        yield Row(
            int(k),
            float(gamma),
            float(alpha),
            int(neurons),
            float(final.mean()),
            float(final.std(ddof=1)) if len(final) > 1 else float("nan"),
            float(theory),
            float(end_point),
            float(log_best),
            float(np.median(point["presentation"].to_numpy()[reached])),
        )


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
    lines = [
        f"-log10 SNR_w after {last} presentations, mean +- standard deviation over {trials} "
        f"trial{'s' if trials > 1 else ''}",
        f"{'':>27}{'':>15} {'theory,':>8} {'own end':>8} {'':>7} {'near best':>9}",
        f"{'k':>3} {'gamma':>7} {'alpha':>6} {'neurons':>8}{'final':>15} "
        f"{'Eq. 5':>8} {'point':>8} {'best':>7} {'after':>9}",
    ]
    for row in rows(dataset):
        spread = f" +- {row.spread:.2f}" if np.isfinite(row.spread) else ""
        final = f"{-row.final:.2f}{spread}"
        lines.append(
            f"{row.k:>3} {row.gamma:>7g} {row.alpha:>6g} {row.neurons:>8}{final:>15} "
            f"{-row.theory:>8.2f} {-row.end_point:>8.2f} {-row.best:>7.2f} "
            f"{row.presentations_to_best:>9.0f}"
        )
    lines.append("near best: presentations until SNR_w is within 10 % of its best, median")
    return "\n".join(lines)
