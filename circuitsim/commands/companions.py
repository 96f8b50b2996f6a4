"""Figures beside Figure 4 of the paper."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import campaign, cli

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign, Groups

HELP = "draw a circuit's rates, and where its weights end"
DESCRIPTION = (
    "Draw two figures beside Figure 4 of the paper, with its protocol. rates: the rates of a "
    "circuit in its first and last presentations, and the fast fixed point to which they settle. "
    "endpoint: how the circuit passes the end point of its weights and drifts back as their mean "
    "decays, far less so when the rule is gated by inhibition. Each is written as a figure (.pdf, "
    ".png), its data (.nc) and its caption (.md)."
)
OPTIONS = campaign.OPTIONS
FIGURES = ("rates", "endpoint")


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from circuitsim.commands import options
    from circuitsim.studies.endpoint import Endpoint

    p.add_argument(
        "--figure",
        nargs="+",
        default=None,
        metavar="FIGURE",
        help="figures to draw: rates, endpoint; by default both, or that in the file to --redraw",
    )
    model = p.add_argument_group("model")
    options.add(model, Endpoint, ("k", "gamma", "alpha", "neurons", "trials"))
    model.add_argument(
        "--presentations",
        type=int,
        default=None,
        metavar="P",
        help="input patterns shown to each circuit; by default 2000 in rates, 10000 in endpoint",
    )
    options.add(model, Endpoint, ("long", "seed"))
    how = p.add_argument_group("how to run it")
    options.add(how, Endpoint, ("codegen",))
    campaign.add_options(p, how, "rates.* and endpoint.*")


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    offer = campaign.Offer(
        sys.modules[__name__], FIGURES, _figures, "circuitsim.companions", _written,
        subset=_figure_chosen, beside=["figure"],
    )  # fmt: skip
    return campaign.body(options, offer)


def _figures(options: argparse.Namespace) -> list[tuple[Campaign[Any], Path]]:
    from circuitsim.commands.figure import with_code
    from circuitsim.commands.options import chosen
    from circuitsim.studies.registry import KINDS

    made = []
    for name in _chosen(options.figure, FIGURES):
        given = chosen(KINDS[name], options)
        if options.presentations is None:
            del given["presentations"]
        figure: Any = with_code(KINDS[name](**given))
        cli.check_memory(figure)
        made.append((figure, campaign.figures(options) / f"{figure.file_name}.nc"))
    return made


def _written(figure: Campaign[Any]) -> list[str]:
    from circuitsim.commands.options import written

    return ["--figure", figure.kind, *written(figure)]


def _figure_chosen(options: argparse.Namespace, figure: Any, groups: Groups) -> tuple[Any, Groups]:
    _chosen(options.figure, [figure.kind])
    return figure, groups


def _chosen(wanted: Any, available: Any) -> list[str]:
    """Return which of the names available are wanted: all if None is given."""
    from circuitsim.checks.validation import ParameterError, one_of

    wanted = available if wanted is None else wanted
    for place, name in enumerate(wanted):
        one_of("figure", name, available)
        if name in wanted[:place]:
            raise ParameterError("figure", "must not be given twice", name)
    return [name for name in available if name in wanted]
