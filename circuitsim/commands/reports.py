"""Reports in directories of their own: a figure with its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuitsim.commands import cli, waiting


def checked(directory: Path, kind: str, attributes: dict[str, str], overwrite: bool) -> None:
    """Refuse a directory that cannot be made, or holds a report of something else.

    Parameters
    ----------
    directory : Path
        Where it is to be.
    kind : str
        Its name there, without ending.
    attributes : dict
        What it is of: those that a report which may be replaced has, too.
    overwrite : bool
        Whether any other may be replaced.

    Raises
    ------
    ParameterError, UsageError
        If so.
    """
    from circuitsim.checks.validation import ParameterError
    from circuitsim.commands.campaign import checked_directory
    from circuitsim.files import netcdf

    try:
        checked_directory(directory)
    except ParameterError as error:
        raise ParameterError("report", error.rule, error.value) from None
    path = directory / f"{kind}.nc"
    if overwrite or not path.exists():
        return
    try:
        there = netcdf.attributes(path, "a report")
    except ParameterError:
        there = {}
    if any(there.get(name) != value for name, value in attributes.items()):
        raise cli.UsageError(
            f"--report {directory}: holds a report of something else; name another directory, or "
            "give --overwrite to replace it"
        )


def write(
    directory: Path, kind: str, made: Any, drawing: str, attributes: dict[str, str], line: str
) -> None:
    """Write a report, its figure (of `circuitsim.plots`) last, and say so."""
    from circuitsim.files import netcdf, own_directory, provenance

    stem = own_directory(directory) / kind
    attributes = attributes | provenance.versions() | provenance.made_here()
    attributes |= {"citation": provenance.CITATION, "command_line": line}
    endings = (".pdf", ".png")
    with waiting.told("drawing"):
        from circuitsim import plots

        figure = getattr(plots, drawing)(made)
        with netcdf.writing(stem.with_suffix(".nc")) as add:
            add(made.assign_attrs(made.attrs | attributes), None)
        for ending in endings:
            plots.save(figure, stem.with_suffix(ending))
    print(f"\nwritten: {stem}{{{','.join(('.nc', *endings))}}}")
