"""How well trained networks predict recorded neurons."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import campaign, cli

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign

HELP = "tell how well trained networks predict recorded neurons"
DESCRIPTION = (
    "Predict the responses of neurons to images from the features that each layer of trained "
    "networks has for them, by partial least squares, cross-validated; and from what must be "
    "beaten: the same networks untrained, pixels, and edge energies. Written are a table, a "
    "figure, its data and its caption. Trainings that differ in their seeds alone count as one "
    "network."
)
OPTIONS = campaign.OPTIONS
_FILES = ("run", "stimuli", "responses", "order")
_FIELDS = ("components", "folds", "resamples", "confidence", "seed")


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from circuitsim.commands import options
    from circuitsim.studies.predictivity import Predictivity

    what = p.add_argument_group("networks and neurons")
    what.add_argument("--run", type=Path, nargs="+", default=None, metavar="RUN",
                      help="directories that train has written")  # fmt: skip
    what.add_argument("--stimuli", type=Path, default=None, metavar="DIR",
                      help="directory (or .zip file) of images")  # fmt: skip
    what.add_argument(
        "--responses",
        type=Path,
        default=None,
        metavar="FILE.npy",
        help="responses (neuron, stimulus), or (neuron, stimulus, repeat) with NaN where one is "
        "missing: with repeats, correlations are divided by the noise ceiling",
    )
    what.add_argument(
        "--order",
        type=Path,
        default=None,
        metavar="FILE.txt",
        help="names of the stimuli, one a line, in the order of the responses; by default that of "
        "their names",
    )
    options.add(p.add_argument_group("measure"), Predictivity, _FIELDS)
    how = p.add_argument_group("how to run it")
    campaign.add_options(p, how, "predictivity.* (figure, data and caption)",
                         things="sets of features",
                         jobs="processes to use, each on one core")  # fmt: skip


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    offer = campaign.Offer(
        sys.modules[__name__], ["predictivity"], _made, "circuitsim.classify predictivity",
        _written, again=_again, beside=_FILES,
    )  # fmt: skip
    return campaign.body(options, offer)


def _described(options: argparse.Namespace, settings: dict[str, Any]) -> Any:
    from circuitsim.studies.predictivity import Predictivity

    for name in ("run", "stimuli", "responses"):
        if getattr(options, name) is None:
            raise cli.UsageError(f"--{name} must be given")
    try:
        return Predictivity.of(
            options.run, options.stimuli, options.responses, options.order, **settings
        )
    except FileNotFoundError as error:
        raise cli.UsageError(f"--run {error}") from None


def _made(options: argparse.Namespace) -> list[tuple[Campaign[Any], Path]]:
    from circuitsim.commands.options import chosen
    from circuitsim.studies.predictivity import Predictivity

    made = _described(options, chosen(Predictivity, options))
    _warn(options)
    return [(made, options.output / f"{made.file_name}.nc")]


def _warn(options: argparse.Namespace) -> None:
    """Tell where the order of names may not be that of the responses."""
    import re

    from circuitsim.vision.predictivity import survey

    if options.order is not None:
        return
    names, _, _ = survey(options.stimuli)

    def natural(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]

    counted = sorted(names, key=lambda name: [(isinstance(x, str), x) for x in natural(name)])
    if counted != names:
        place = next(n for n, (a, b) in enumerate(zip(names, counted, strict=True)) if a != b)
        print(
            f"note: stimuli are taken in the order of their names as text: {names[place]} comes "
            f"before {counted[place]}; if responses are in another order, give it with --order",
            file=sys.stderr,
        )


def _again(options: argparse.Namespace, made: Any) -> Any:
    """Give the study of a result the places of its files, which it does not hold."""
    asked = _described(options, {name: getattr(made, name) for name in _FIELDS})
    if asked != made:
        raise cli.UsageError(
            f"--reproduce {options.reproduce}: is of other files: {asked.difference(made)}"
        )
    return replace(made, places=asked.places)


def _written(made: Any) -> list[str]:
    from circuitsim.commands.options import written

    stimuli, responses, order, *runs = made.places
    words = ["--run", *runs, "--stimuli", stimuli, "--responses", responses]
    return [*written(made), *words, *(["--order", order] if order else [])]
