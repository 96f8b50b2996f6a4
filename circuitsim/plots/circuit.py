"""The circuit itself, as a drawing, and the kernels that its weights are."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.typing import ArrayLike, NDArray

from circuitsim.plots.style import TEXT_WIDTH, Picture, paper

_INHIBITED = "#D55E00"
_SHOWN = 10  # neurons whose kernels are drawn


def schematic(axis: Axes) -> None:
    """Draw the circuit of Eqs. 7 and 8: inputs, neurons with weights of their own, inhibition.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Is filled, and loses its frame.
    """
    axis.set(xlim=(0, 10), ylim=(0, 7.4), aspect="equal")
    axis.set_axis_off()
    neurons = [(x, 3.6) for x in (1.4, 3.8, 6.2, 8.6)]
    inputs = [(x, 0.9) for x in (2.0, 4.0, 6.0, 8.0)]
    interneuron = (5.0, 6.2)
    shades = ("#0072B2", "#56B4E9", "#004B75", "#3C9BD0")  # weights of its own: a shade each

    def line(start: tuple[float, float], end: tuple[float, float], colour: str, head: str,
             bend: float = 0.0, width: float = 0.6) -> None:  # fmt: skip
        axis.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle=head, mutation_scale=7, color=colour, linewidth=width,
                shrinkA=8, shrinkB=9, connectionstyle=f"arc3,rad={bend}",
            )
        )  # fmt: skip

    for (x, y), shade in zip(neurons, shades, strict=True):
        for source in inputs:
            line(source, (x, y), shade, "-|>")
        line((x, y), interneuron, "0.35", "-|>", 0.12 if x < 5 else -0.12)
        line(interneuron, (x, y), _INHIBITED, "-[", 0.12 if x < 5 else -0.12, 1.1)
        axis.add_patch(Circle((x, y), 0.42, facecolor=shade, edgecolor="none", zorder=3))
    axis.add_patch(Circle(interneuron, 0.48, facecolor=_INHIBITED, edgecolor="none", zorder=3))
    for x, y in inputs:
        axis.add_patch(Circle((x, y), 0.24, facecolor="0.3", edgecolor="none", zorder=3))
    for place, text, side in (
        ((5.0, 0.42), "the same input $x$ for all neurons", "center"),
        ((0.1, 2.2), "$w_i$", "left"),
        ((0.1, 4.3), "$r_i$", "left"),
        ((5.75, 6.35), "interneuron $r_\\mathrm{inh}$", "left"),
        ((5.0, 7.1), "$\\Delta w_i \\propto -(r_i - b)\\,x - \\gamma\\,(w_i - w_i^\\mathrm{init})$",
         "center"),
    ):  # fmt: skip
        axis.text(*place, text, ha=side, va="center", fontsize=7.5)


def mosaic(weights: ArrayLike, rows: int = 2) -> NDArray[np.float64]:
    """Return neurons' weights (neuron, input) as one image of k x k kernels, with gaps between.

    Inputs that make no square are one row each. As many neurons are shown as fill the rows.
    """
    found = np.asarray(weights, dtype=float)
    rows = min(rows, len(found))
    found = found[: len(found) // rows * rows]
    side = round(np.sqrt(found.shape[1]))
    height, width = (side, side) if side**2 == found.shape[1] else (1, found.shape[1])
    framed = np.full((rows, len(found) // rows, height + 1, width + 1), np.nan)
    framed[..., :height, :width] = found.reshape(rows, -1, height, width)
    return framed.swapaxes(1, 2).reshape(rows * (height + 1), -1)[:-1, :-1]


def kernels(axis: Axes, weights: ArrayLike, limit: float, rows: int = 2) -> None:
    """Draw neurons' weights, (neuron, input), as k x k images, colours from -limit to limit."""
    image = mosaic(weights, rows)
    axis.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axis.set_axis_off()


def before_and_after(axes: tuple[Axes, Axes], before: ArrayLike, after: ArrayLike) -> None:
    """Draw kernels of ten neurons, above at the start and below at the end, in one colour scale."""
    first, last = (np.asarray(weights)[:_SHOWN] for weights in (before, after))
    limit = float(np.abs(first).max()) or 1.0
    for axis, weights, when in zip(axes, (first, last), ("before", "after"), strict=True):
        kernels(axis, weights, limit)
        axis.set_title(f"kernels of {len(weights)} neurons {when}", loc="left")


def overview(before: ArrayLike, after: ArrayLike, snr: tuple[float, float]) -> Figure:
    """Draw the circuit, and what it does to the kernels of a pool.

    Parameters
    ----------
    before, after : array_like, shape (neuron, input)
        Weights.
    snr : tuple of float
        SNR_w of all of the pool's weights, before and after.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with paper():
        figure = Picture(figsize=(TEXT_WIDTH, 2.3))
        layout = figure.subplot_mosaic("AB;AC", width_ratios=(1, 1.35))
        schematic(layout["A"])
        before_and_after((layout["B"], layout["C"]), before, after)
        for name, when, value in zip("BC", ("awake", "after sleep"), snr, strict=True):
            title = (
                f"{when}: ten neurons of the pool, SNR$_w$ = {value:,.{0 if value > 10 else 1}f}"
            )
            layout[name].set_title(title, loc="left")
    return figure
