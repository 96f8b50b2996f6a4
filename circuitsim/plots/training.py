"""How a network was trained: accuracy, SNR of its weights, and kernels of its first layer."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from circuitsim.plots import circuit
from circuitsim.plots.style import COLOURS, TEXT_WIDTH, Picture, panel_letter, paper

_PARTS = ("train", "validation", "test")
_POSITIONS, _OUTPUTS = 8, 16  # kernels that are shown at most


def training(history: xr.Dataset, kernels: NDArray[np.floating]) -> Figure:
    """Draw accuracies and SNR over epochs, and kernels of the first layer.

    Parameters
    ----------
    history : xarray.Dataset
        As `circuitsim.vision.training.history` makes it.
    kernels : ndarray, shape (row, column, kernel row, kernel column, channel, output channel)
        Weights of the first layer, shown by position; of a convolution for one, (1, 1, ...).

    Returns
    -------
    matplotlib.figure.Figure
    """
    several = "snr_w" in history
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 2.4))
        axes = figure.subplots(1, 3 if several else 2)
        for colour, part in zip(COLOURS, _PARTS, strict=False):
            if f"{part}_top1" in history:
                accuracy = 100 * history[f"{part}_top1"].to_numpy()
                axes[0].plot(history["epoch"], accuracy, ".-", color=colour, label=part)
        axes[0].set(xlabel="epoch", ylabel="accuracy (%)")
        axes[0].legend()
        if several:
            # Where no two positions see the same there are no pools, and no SNR.
            layers = history["snr_w"].dropna("layer", how="all")
            names = layers["layer"].to_numpy()
            many = len(names) > len(COLOURS)
            colours = colormaps["viridis"](np.linspace(0, 0.9, len(names))) if many else COLOURS
            for number, name in enumerate(names):
                named = not many or number in (0, len(names) - 1)
                axes[1].semilogy(
                    history["epoch"], layers.sel(layer=name), ".-", color=colours[number],
                    label=str(name) if named else None,
                )  # fmt: skip
            axes[1].set(xlabel="epoch", ylabel="SNR$_w$ (Eq. 6)")
            axes[1].set_xlim(axes[0].get_xlim())  # also where there is nothing to draw
            if np.isinf(layers).any():
                axes[1].set_title("infinite where no line is")
            if len(names):
                axes[1].legend()
        for axis in axes[:-1]:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _kernels(axes[-1], np.asarray(kernels, float))
        for letter, axis in zip("ABC", axes, strict=False):
            panel_letter(axis, letter)
    return figure


def _kernels(axis: Axes, weights: NDArray[np.float64]) -> None:
    """Kernels of one output channel at their positions; of one position, of all channels."""
    means = weights.mean(axis=4)
    if means.shape[:2] == (1, 1):
        shown = np.moveaxis(means[0, 0, ..., :_OUTPUTS], -1, 0)
        columns = int(np.ceil(np.sqrt(len(shown))))
        gaps = np.full((-len(shown) % columns, *shown.shape[1:]), np.nan)
        shown = np.concatenate([shown, gaps]).reshape(-1, columns, *shown.shape[1:])
        axis.set_title("kernels of the first layer")
    else:
        shown = means[:_POSITIONS, :_POSITIONS, ..., 0]
        axis.set_title("kernels of a channel")
    limit = float(np.nanmax(np.abs(shown))) or 1.0
    rows, columns = shown.shape[:2]
    circuit.kernels(axis, shown.reshape(rows * columns, -1), limit, rows)
