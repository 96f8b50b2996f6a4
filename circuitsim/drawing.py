"""What the commands that draw figures share: their options, and the files that they write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from circuitsim import cli

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuitsim.studies.figures import Data

T = TypeVar("T")

# Options whose names differ from those of what they set.
OPTIONS = {"n_neurons": "--neurons", "file": "--redraw"}


def add_options(group: argparse._ArgumentGroup, files: str) -> None:
    """Add the options that say where to write, and what to draw again."""
    group.add_argument(
        "--output",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help=f"directory for {files}, made if need be",
    )
    group.add_argument(
        "--redraw",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="run nothing and draw what this file holds; None: run",
    )


def checked_directory(path: Path) -> Path:
    """Return a directory for output, which exists or can be made: its parent exists.

    Raises
    ------
    ParameterError
        If it cannot be written to.
    """
    from circuitsim.validation import ParameterError

    home = path if path.exists() else path.absolute().parent
    if not home.is_dir():
        what = "is not a directory" if home.exists() else "does not exist"
        raise ParameterError("output", f"{home} {what}", str(path))
    if not os.access(home, os.W_OK | os.X_OK):
        raise ParameterError("output", f"the directory {home} cannot be written", str(path))
    return path


def redrawn(
    options: argparse.Namespace, parser: cli.Parser, load: Callable[[Path], T], choice: str
) -> T:
    """Return the data to draw again.

    Parameters
    ----------
    options : argparse.Namespace
        Those given; of them only ``--output`` and ``choice`` go with ``--redraw``.
    parser : Parser
        Knows their defaults.
    load : callable
        Reads and checks the file.
    choice : str
        Name of the option that chooses what to draw.

    Raises
    ------
    UsageError
        If there is no such file, or an option would have no effect.
    ParameterError
        If the file is not a figure's data.
    """
    cli.refuse_beside(options, parser, "redraw", choice, "output")
    try:
        return load(options.redraw)
    except FileNotFoundError as error:
        raise cli.UsageError(f"--redraw {error}") from None


def chosen(option: str, wanted: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Return which of the names available are wanted: all if None is given.

    Raises
    ------
    ParameterError
        If one is not available, or is given twice.
    """
    from circuitsim.validation import ParameterError, one_of

    wanted = available if wanted is None else wanted
    for place, name in enumerate(wanted):
        one_of(option, name, available)
        if name in wanted[:place]:
            raise ParameterError(option, "must not be given twice", name)
    return [name for name in available if name in wanted]


@contextmanager
def running() -> Iterator[Callable[[float], None]]:
    """Show on a terminal how far a run is, and say what ended it in one message."""
    from concurrent.futures import BrokenExecutor

    from circuitsim.progress import line

    try:
        with line() as advanced:
            yield advanced
    except FloatingPointError as error:
        raise cli.UsageError(str(error)) from None
    except BrokenExecutor:
        raise OSError("a process was ended from outside, perhaps for want of memory") from None


def write(stem: Path, figure: Figure, caption: str, table: str, data: Data | None = None) -> None:
    """Write a figure, its caption and its data, and print how it compares with theory.

    Parameters
    ----------
    stem : Path
        Files without their endings; the directory is made if need be.
    figure : matplotlib.figure.Figure
        What was drawn.
    caption, table : str
        What to write beside it, and to print.
    data : Data, optional
        What to write beside it; not for a figure that is drawn again.
    """
    from circuitsim import plots
    from circuitsim.files import write_text
    from circuitsim.studies import figures

    stem.parent.mkdir(exist_ok=True)
    written = []
    if data is not None:
        written.append(stem.with_suffix(".nc"))
        figures.save(data, written[-1])
    for kind in (".pdf", ".png"):
        written.append(stem.with_suffix(kind))
        plots.save(figure, written[-1])
    written.append(stem.with_suffix(".md"))
    write_text(written[-1], caption)
    print(table)
    print(f"\nwritten: {stem}{{{','.join(path.suffix for path in written)}}}\n")
