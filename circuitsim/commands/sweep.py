"""Convergence studies of the weights' SNR over a grid."""

from __future__ import annotations

import argparse
import logging
import runpy
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import campaign, cli

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign

HELP = "run circuits over a grid of parameters and study how their weights converge"
DESCRIPTION = (
    "Run circuits over a grid of parameters and study how their weights converge. The grid is the "
    "product of --k, --gamma, --alpha and --neurons, each with --trials circuits. Finished "
    "circuits are kept beside the output and never run twice."
)
OPTIONS = campaign.OPTIONS
DEFAULT_OUTPUT = Path("sweep.nc")


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from circuitsim.commands import options
    from circuitsim.studies import settings
    from circuitsim.studies.sweep import Study

    grid = p.add_argument_group("grid (each option takes several values)")
    options.add(grid, Study, (*Study.grid, "trials"))
    model = p.add_argument_group("model (defaults: the published protocol)")
    options.add(model, Study, ("rule",))
    model.add_argument(
        "--rules-from",
        type=Path,
        default=None,
        metavar="FILE.py",
        help="Python file to run first, which registers rules",
    )
    names = (
        "initial_mean", "initial", "channels", "inputs", "presentations", "presentation",
        "correlation",
        "tau", "b", "momentum", "learning_rate", "dt", "seed",
    )  # fmt: skip
    options.add(model, Study, names)
    model.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar=("NAME=VALUE", "VALUE"),
        help="a further parameter of the circuit, times in ms; several values are a dimension of "
        f"the grid: {', '.join(settings.NUMBERS)} (private is the standard deviation of each "
        f"neuron's own input); or a text: {', '.join(settings.TEXTS)}",
    )
    how = p.add_argument_group("how to run it")
    options.add(how, Study, ("engine", "codegen"))
    campaign.add_options(
        p,
        how,
        "netCDF file to write, with a plot FILE.png and finished circuits in FILE.cells beside it; "
        f"by default {DEFAULT_OUTPUT} (with --reproduce, a file that is not kept)",
        figure=False,
    )


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    offer = campaign.Offer(
        sys.modules[__name__], ["sweep"], _studies, "circuitsim.sweep", _written, figure=False
    )
    return campaign.body(options, offer)


def _studies(options: argparse.Namespace) -> list[tuple[Campaign[Any], Path]]:
    from circuitsim.checks.validation import ParameterError, shown
    from circuitsim.checks.values import in_ms, is_time
    from circuitsim.commands.options import chosen
    from circuitsim.engines import registry
    from circuitsim.studies import Study, settings

    if options.rules_from is not None:
        _register_rules(options.rules_from)
    try:
        study = Study(**chosen(Study, options), settings=settings.checked(_set(options.set)))
    except ParameterError as error:
        owner, _, name = error.parameter.rpartition(".")
        given = [first.partition("=")[0] for first, *_ in options.set]
        if owner == "Study" and name == "settings":
            raise cli.UsageError(f"--set {error.value}: {error.rule}") from None
        if name in given and owner in ("Circuit", "Study.settings"):
            value = f"{in_ms(error.value):g}" if is_time(error.value) else shown(error.value)
            value = error.value if isinstance(error.value, str) else value
            raise cli.UsageError(f"--set {name}={value}: {error.rule}") from None
        raise
    if options.cell is None:
        cli.check_memory(study)
    # What cannot work is said before anything starts; and "auto" must mean the same for every cell.
    study = replace(study, codegen=registry.get(study.engine, study.codegen).codegen)
    return [(study, options.output or DEFAULT_OUTPUT)]


def _written(study: Campaign[Any]) -> list[str]:
    from circuitsim.commands.options import written

    words = written(study)
    for name, values in vars(study)["settings"]:
        first, *rest = map(str, values)
        words += ["--set", f"{name}={first}", *rest]
    return words


def _set(given: list[list[str]]) -> list[tuple[str, list[str]]]:
    """Read what --set says."""
    pairs = []
    for first, *rest in given:
        name, equals, value = first.partition("=")
        if not equals or not value:
            raise cli.UsageError(f"--set {first}: must be NAME=VALUE, such as tau_inh=90")
        if wrong := [word for word in rest if "=" in word]:
            raise cli.UsageError(f"--set {wrong[0]}: needs a --set of its own")
        pairs.append((name, [value, *rest]))
    return pairs


def _register_rules(file: Path) -> None:
    """Run the user's own file of rules."""
    if not file.is_file():
        raise cli.UsageError(f"--rules-from {file}: there is no such file")
    try:
        runpy.run_path(str(file))
    except Exception as error:  # whatever the user's code may raise
        lines = [
            at.lineno
            for at in traceback.extract_tb(error.__traceback__)
            if at.filename == str(file)
        ]
        where = f"line {lines[-1]}: " if lines else ""
        message = f"--rules-from {file}: {where}{type(error).__name__}: {error}"
        raise cli.UsageError(message) from error
