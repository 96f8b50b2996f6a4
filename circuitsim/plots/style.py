"""What figures have in common: colours, sizes, and files that depend on the drawing alone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from numpy.typing import NDArray

from circuitsim.files import atomic_write

# Okabe and Ito's palette, readable with any colour vision, in an order that also differs in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# One colour and marker for how weights are shared, in every figure: a rule, averaging, or noise.
_OF_RULES = {
    "instant": (COLOURS[0], "o"),
    "circuit": (COLOURS[1], "s"),
    "inhibition_gated": (COLOURS[2], "D"),
    "mean_subtracted": (COLOURS[3], "^"),
    "awake": (COLOURS[4], "P"),
}
# One dash for an end point of the weights, and what it is called.
ENDS: dict[str, tuple[Any, str]] = {
    "theory": (":", "theoretical minimum (Eq. 5)"),
    "settled": ("-.", "own end point, rates settled"),
    "averaged": ((0, (4, 2)), "own end point, with transients"),
}
INVERSE_SNR = "$\\log_{10}$ inverse SNR$_w$\n(lower = more alike)"  # label of an axis
COLUMN, TEXT_WIDTH = 3.4, 7.0  # inches: one column of a paper, and both
DPI = 200
_SCREEN = 110  # dots per inch
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


class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not matplotlib is set up there."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with paper():
            self.savefig(stream, format="png", dpi=_SCREEN, metadata=_METADATA["png"])
        return stream.getvalue()


@contextmanager
def paper() -> Iterator[None]:
    """Within this context, figures look the same whatever the user's own settings are."""
    with matplotlib.style.context(["default", _PAPER]):
        yield


def rule_style(name: str) -> tuple[str, str]:
    """Colour and marker of a rule, by its name, of ``instant`` averaging, or ``awake``."""
    return _OF_RULES.get(name, (COLOURS[5], "v"))


def rule_words(name: str) -> str:
    """Name of a rule as legends have it."""
    return name.replace("_", "-")


def legend_below(figure: Figure, handles: Sequence[Artist], **more: Any) -> Legend:
    """Put a legend below all panels, in as many columns as fit, and make room for its lines.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Its height becomes larger by that of the legend.
    handles : sequence of matplotlib.artist.Artist
        With their labels.
    **more
        As `matplotlib.figure.Figure.legend` takes it.

    Returns
    -------
    matplotlib.legend.Legend
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches()
    for columns in range(min(len(handles), 6), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.5, **more
        )
        needed = legend.get_window_extent(renderer)
        if columns == 1 or needed.width <= 0.95 * width * figure.dpi:
            figure.set_figheight(height + needed.height / figure.dpi)
            return legend
        legend.remove()
    raise AssertionError  # one column is taken in any case


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
