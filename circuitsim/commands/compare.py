"""Networks that share weights, or do not, compared."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import campaign, cli
from circuitsim.commands.images import LOADING, OF_DATA, SLEEP, TIMES, add_data, add_times

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign

HELP = "compare networks that share weights with those that do not"
DESCRIPTION = (
    "Train networks that share weights in several ways, and others that do not, and report how "
    "they compare: a table, a figure, its data and its caption. Trainings are kept, each in a "
    "directory of its own (that of train); whatever ends the command, the same command goes on."
)
_CALLED = {"paddings": "--crop-padding", "seeds": "--trials"}
OPTIONS = campaign.OPTIONS | _CALLED
_SLEEP = (*SLEEP, "border", "periods", "moments")


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from circuitsim.commands import options
    from circuitsim.studies.comparison import Comparison
    from circuitsim.vision.sharing import Sharing

    add_data(p.add_argument_group("images"), "cifar10")
    what = p.add_argument_group("what is compared")
    options.add(what, Comparison, ("variants", "paddings", "seeds"), _CALLED)
    options.also(what, "--trials", "--seeds", int)
    training = p.add_argument_group("training")
    names = ("network", "width", "first_conv", "epochs", "batch_size", "schedule", "momentum",
             "rates", "rate_epochs", "validation")  # fmt: skip
    options.add(training, Comparison, names)
    asleep = p.add_argument_group("asleep (instant: --periods and --moments alone)")
    options.add(asleep, Sharing, _SLEEP, defaults=SLEEP)
    options.add(asleep, Comparison, ("sleep_length",))
    add_times(asleep)
    how = p.add_argument_group("how to run it")
    how.add_argument(
        "--runs",
        dest="cells",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="directory that holds the trainings; those in it are gone on with",
    )
    campaign.add_options(
        p,
        how,
        "classifiers.* (figure, table, data and caption)",
        store="--runs",
        things="trainings",
        jobs="trainings at a time, with one thread each",
    )
    how.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing; report what is finished in --runs",
    )


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    offer = campaign.Offer(
        sys.modules[__name__], ["compare"], _comparison, "circuitsim.classify compare", _written,
        store="--runs", again=_with_images,
    )  # fmt: skip
    if options.report_only:
        return campaign.report(options, offer)
    return campaign.body(options, offer)


def _comparison(options: argparse.Namespace) -> list[tuple[Campaign[Any], Path]]:
    from circuitsim.commands.options import chosen
    from circuitsim.studies.comparison import Comparison

    sleep = {name: getattr(options, name) for name in _SLEEP}
    sleep |= {name: v for name in TIMES if (v := getattr(options, name)) is not None}
    made = Comparison(
        dataset=options.dataset,
        sleep=sleep,
        **_images(options),
        **chosen(Comparison, options, _CALLED),
    )
    _check_heeded(made, options)
    return [(made, campaign.figures(options) / f"{made.file_name}.nc")]


def _check_heeded(comparison: Any, options: argparse.Namespace) -> None:
    """Refuse options that say how to sleep and that no variant heeds."""
    from circuitsim.checks import fields
    from circuitsim.commands.options import spelled
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Training

    usual = fields.defaults(Sharing) | SLEEP | dict.fromkeys(TIMES)
    usual["sleep_length"] = fields.default(Training, "sleep_length")
    given = [n for n in (*_SLEEP, *TIMES, "sleep_length") if getattr(options, n) != usual[n]]
    heeded = set[str]().union(*map(comparison.heeded, comparison.variants))
    if idle := [spelled(name) for name in given if name not in heeded]:
        variants = " ".join(comparison.variants)
        raise cli.UsageError(f"{idle[0]} has no effect with --variants {variants}")


def _with_images(options: argparse.Namespace, comparison: Any) -> Any:
    return replace(comparison, loading=_images(options)["loading"])


def _images(options: argparse.Namespace) -> dict[str, Any]:
    """Options of images, those that change them and others."""
    given = {n: v for n in OF_DATA if (v := getattr(options, n)) not in (None, False)}
    loading = {n: given.pop(n) for n in LOADING if n in given}
    return {"images": given, "loading": loading}


def _written(comparison: Any) -> list[str]:
    from circuitsim.commands.options import written

    sleep = [f"--{name.replace('_', '-')}={value}" for name, value in comparison.sleep.items()]
    given = {**comparison.images, **comparison.loading}
    if "data" in given:
        given["data"] = Path(given["data"]).absolute()
    data = [f"--dataset={comparison.dataset}"]
    for name, value in given.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        data += [f"--{name.replace('_', '-')}", *map(str, values)]
    return [*written(comparison, _CALLED), *data, *sleep]
