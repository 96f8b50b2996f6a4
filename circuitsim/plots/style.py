"""What figures have in common: colours, sizes, and files that depend on the drawing alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuitsim.files import atomic_write

# Okabe and Ito's palette, readable with any colour vision, in an order that also differs in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLUMN, TEXT_WIDTH = 3.4, 7.0  # inches: one column of a paper, and both
DPI = 200
THIN = 0.9  # points: lines that are not data

_PAPER = {
    "figure.constrained_layout.use": True,
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.0,
    "axes.formatter.use_mathtext": True,
    "pdf.fonttype": 42,  # outlines that journals accept
    "svg.hashsalt": "circuitsim",  # names of parts that are the same each time
}
# Nothing that differs between two drawings of the same: neither times nor versions.
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


@contextmanager
def paper() -> Iterator[None]:
    """Within this context, figures look the same whatever the user's own settings are."""
    with matplotlib.style.context(["default", _PAPER]):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format that its name ends in.

    The same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn with the functions of this package.
    path : Path
        Ends in ``.pdf``, ``.png`` or ``.svg``.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    kind = path.suffix.removeprefix(".")
    with paper(), atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=_METADATA[kind])


def mean_and_band(
    axis: Axes,
    x: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
    dash: object = "-",
) -> None:
    """Draw the mean over trials of values (trial, point), and a band of one standard deviation."""
    mean = values.mean(axis=0)
    axis.plot(x, mean, color=colour, linestyle=dash, linewidth=1.2)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)


def panel_letter(axis: Axes, letter: str) -> None:
    """Put a panel's letter above the labels on its left."""
    axis.annotate(
        letter,
        (0, 1),
        xytext=(-30, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontweight="bold",
        fontsize=10,
    )


def note(axis: Axes, text: str) -> None:
    """Put a few words into a panel's upper right corner."""
    axis.text(0.98, 0.98, text, transform=axis.transAxes, ha="right", va="top", fontsize=7.5)
