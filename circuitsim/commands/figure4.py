"""Figure 4 of the paper at its published protocol, from nothing.

R. Pogodin, Y. Mehta, T. P. Lillicrap, P. E. Latham, Towards Biologically Plausible Convolutional
Networks, NeurIPS 2021, arXiv:2106.13031. The caption that is written beside the figure tells what
differs from the paper.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circuitsim.commands.figure import FigureCommand

if TYPE_CHECKING:
    from circuitsim.running.campaign import Groups


def _panels(options: argparse.Namespace, figure: Any, groups: Groups) -> tuple[Any, Groups]:
    """Take the panels chosen of a figure; both, which are the default, are all there are."""
    from circuitsim.checks.validation import ParameterError, one_of

    wanted = options.panel
    if wanted == list(type(figure)().panel):
        return figure, groups
    for place, name in enumerate(wanted):
        one_of("panel", name, groups)
        if name in wanted[:place]:
            raise ParameterError("panel", "must not be given twice", name)
    return replace(figure, panel=tuple(wanted)), {n: groups[n] for n in groups if n in wanted}


_COMMAND = FigureCommand(
    "figure4",
    "draw Figure 4 of the paper: how the weights of a pool become alike",
    "Draw Figure 4 of the paper: how the weights of a pool become alike, under the ideal rule "
    "(panel a) and in the circuit (panel b). All defaults are the published protocol. Writes the "
    "figure (.pdf, .png), its data (.nc) and its caption (.md), and prints how each curve compares "
    "with theory.",
    above=("panel",),
    how=("engine", "codegen"),
    subset=_panels,
    files="figure4.* (figure4a.* or figure4b.* for one panel)",
)
HELP, DESCRIPTION, OPTIONS = _COMMAND.HELP, _COMMAND.DESCRIPTION, _COMMAND.OPTIONS
add_options, body = _COMMAND.add_options, _COMMAND.body
