"""A layer that sleeps: the mechanism in one picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuitsim.plots.style import COLOURS, TEXT_WIDTH, Picture, panel_letter, paper

_MAP = "RdBu_r"


def layer(dataset: xr.Dataset) -> Figure:
    """Draw sheets, kernels over the layer, the SNR of every pool, and the kernels that are left.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `circuitsim.studies.layer.Layer` makes it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    weights = dataset["weights"].to_numpy()
    k = weights.shape[-1]
    stages = dataset["stage"].to_numpy()
    limit = float(np.quantile(np.abs(weights), 0.99))
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 4.1))
        axes = figure.subplots(2, 4)
        for axis, gain in zip(axes[0], dataset["gain"].to_numpy(), strict=False):
            sheet = dataset["sheet"].sel(gain=gain).to_numpy()
            extreme = float(np.abs(sheet).max())
            _image(axis, sheet, extreme)
            title = f"lateral gain {gain:g}" if gain < 1 else "limit of gain 1"
            axis.set_title("no lateral connections" if gain == 0 else title)
        axes[0, 0].set_ylabel("input sheet")
        for axis, kernels, stage in zip(axes[1], weights, stages, strict=False):
            _image(axis, _mosaic(kernels), limit)
            axis.set_title("kernels before sleep" if stage == 0 else f"after {stage} patterns")
        axes[1, 0].set_ylabel("layer, a kernel a neuron")
        _snr(axes[0, 3], dataset)
        means = [[weights[-1, r::k, c::k].mean(axis=(0, 1)) for c in range(k)] for r in range(k)]
        _image(axes[1, 3], _mosaic(np.array(means)), limit)
        axes[1, 3].set_title(f"{k} x {k} kernels are left")
        for letter, axis in zip("ABCD", (*axes[:, 0], *axes[:, 3]), strict=True):
            panel_letter(axis, letter)
    return figure


def _image(axis: Axes, values: NDArray[np.float64], limit: float) -> None:
    axis.imshow(values, cmap=_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _mosaic(kernels: NDArray[np.float64]) -> Any:
    """Kernels side by side, (row, column, k, k), with lines between them."""
    rows, columns, k, _ = kernels.shape
    framed = np.full((rows, columns, k + 1, k + 1), np.nan)
    framed[..., :k, :k] = kernels
    whole = framed.transpose(0, 2, 1, 3).reshape(rows * (k + 1), columns * (k + 1))
    return whole[:-1, :-1]


def _snr(axis: Axes, dataset: xr.Dataset) -> None:
    snr = dataset["snr_w"].to_numpy()
    for pool in snr.T:
        axis.semilogy(dataset["presentation"], pool, color=COLOURS[1], linewidth=0.8, alpha=0.7)
    for stage in dataset["stage"].to_numpy()[1:-1]:
        axis.axvline(stage, color="0.85", linewidth=0.6, zorder=0)
    axis.set(xlabel="patterns", ylabel="SNR$_w$ of each pool")
