"""What every command that runs a campaign offers: its options, and what they do."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from circuitsim.commands import cli, waiting

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign, Groups
    from circuitsim.running.runner import Failure, Summary

FIGURE_FILES = (".pdf", ".png", ".md")

_FAR = 20  # times that a pilot's own time stands for without being a mere guess
_SHORT = 5.0  # seconds that nobody wants to know better

# From names of parameters to options, where they differ.
OPTIONS = {
    "n_neurons": "--neurons",
    "peak": "--learning-rate",
    "scale": "--learning-rate",
    **dict.fromkeys(("signal", "name"), "--rule"),
}


@dataclass(frozen=True)
class Offer:
    """What a command runs, and how it writes it.

    Attributes
    ----------
    command : module
        The command.
    kinds : sequence of str
        Names of the campaigns that its files may be of.
    campaigns : callable
        Makes campaigns from options, each with the file that is its result.
    module : str
        What runs the command: ``circuitsim.sweep``.
    written : callable
        Gives the options that make a campaign again, but for ``--output``.
    figure : bool
        Whether it writes a figure into a directory, with a caption; else a plot beside a file.
    store : str
        Option that names the directory of finished tasks.
    subset : callable, optional
        Takes of what was read again what options choose.
    again : callable, optional
        Gives a campaign that was read what else it needs of options to be run.
    beside : sequence of str
        Names of options that go with ``--redraw``.
    """

    command: Any
    kinds: Sequence[str]
    campaigns: Callable[[argparse.Namespace], list[tuple[Campaign[Any], Path]]]
    module: str
    written: Callable[[Campaign[Any]], list[str]]
    figure: bool = True
    store: str = "--cells"
    subset: Callable[[argparse.Namespace, Campaign[Any], Groups], Any] | None = None
    again: Callable[[argparse.Namespace, Campaign[Any]], Campaign[Any]] | None = None
    beside: Sequence[str] = ()


def add_options(
    p: argparse.ArgumentParser,
    how: argparse._ArgumentGroup,
    output: str,
    *,
    figure: bool = True,
    store: str = "--cells",
    things: str = "circuits",
    jobs: str = "processes to use, each on one core (threads, where the engine takes them)",
) -> None:
    """Add the options that every campaign has.

    Parameters
    ----------
    p : argparse.ArgumentParser
        Gets a group of its own for what else there is to do.
    how : argument group
        For options that say how it is run.
    output : str
        Files that are written.
    figure, store
        As in `Offer`.
    things : str
        What its tasks are.
    jobs : str
        What ``--jobs`` counts.
    """
    how.add_argument("--jobs", type=int, default=None, metavar="J",
                     help=f"{jobs}; by default the cores available")  # fmt: skip
    where = how.add_mutually_exclusive_group()
    where.add_argument(
        "--scheduler",
        default=None,
        metavar="ADDRESS",
        help="run on the Dask cluster whose scheduler is there, e.g. tcp://node1:8786; needs "
        "circuitsim[cluster]; by default on this machine",
    )
    where.add_argument(
        "--scheduler-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="the same, for the scheduler that wrote this file",
    )
    if figure:
        how.add_argument("--output", type=Path, default=None, metavar="DIR",
                         help=f"directory for {output}, made if need be; by default figures, with "
                         "--redraw that of the file")  # fmt: skip
    else:
        how.add_argument("--output", type=Path, default=None, metavar="FILE.nc", help=output)
    kept = f"finished {things}, which studies may share"
    if store == "--cells":
        how.add_argument(
            store,
            dest="cells",
            type=Path,
            default=None,
            metavar="DIR",
            help=f"directory that holds {kept}; by default FILE.cells beside the result",
        )
    if figure and store == "--cells":
        how.add_argument(
            "--keep",
            action="store_true",
            help=f"keep finished {things} on the disk, so that whatever ends the command, the same "
            "command goes on; by default they are kept in memory, unless they take minutes",
        )
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an output that holds something else of this command",
    )
    how.add_argument("--retry-failed", action="store_true",
                     help=f"try {things} again that failed in an earlier run; else they are left "
                     "out")  # fmt: skip
    group = p.add_argument_group(
        "what else to do (one of these)",
        "A study is a list of parts, which --dry-run counts; `python -m circuitsim.status FILE.nc` "
        "tells how far it is.",
    )
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be run, its parts and how long it would take, from a short timed "
        "pilot, and write nothing",
    )
    mode.add_argument(
        "--cell",
        type=int,
        nargs="+",
        default=None,
        metavar="I",
        help=f"run only these parts (from 0), in this process, and write their {things}' files "
        "alone: any number of such commands may run at once",
    )
    mode.add_argument(
        "--merge",
        action="store_true",
        help=f"run nothing; write the output from the {things} that --cell has finished",
    )
    mode.add_argument(
        "--write-slurm",
        type=Path,
        default=None,
        metavar="FILE",
        help="run nothing; write a script for sbatch that runs all parts as an array of tasks",
    )
    mode.add_argument(
        "--reproduce",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="run the study of this result again and print how much differs; exit code 0 if "
        "nothing does by more than 1e-9 of its value, else 1",
    )
    mode.add_argument(
        "--redraw",
        type=Path,
        default=None,
        metavar="FILE.nc",
        help="run nothing; draw what this file holds, and print its table",
    )


_IDLE = {
    "scheduler": ("dry_run", "cell", "merge", "write_slurm", "jobs"),
    "scheduler_file": ("dry_run", "cell", "merge", "write_slurm", "jobs"),
    "retry_failed": ("dry_run", "merge", "write_slurm"),
}


def body(options: argparse.Namespace, offer: Offer) -> int:
    """Do what the options of a campaign's command ask for; return the exit code."""
    for name, others in _IDLE.items():
        for other in others:
            if all(getattr(options, n) not in (None, False) for n in (name, other)):
                raise cli.UsageError(
                    f"--{name} has no effect with --{other}: leave one of them out".replace(
                        "_", "-"
                    )
                )
    cells: Path | None = options.cells
    if cells is not None and cells.exists() and not cells.is_dir():
        raise cli.UsageError(
            f"{offer.store} {cells}: must be a directory, which is made if need be"
        )
    if options.redraw is not None:
        return _redraw(options, offer)
    if options.reproduce is not None:
        return _reproduce(options, offer)
    waiting.show("getting ready")
    made = [
        (campaign, _checked_output(output, campaign, options.overwrite, offer.figure))
        for campaign, output in offer.campaigns(options)
    ]
    jobs = cli.jobs(options.jobs)
    waiting.clear()
    if not options.merge and options.write_slurm is None and options.scheduler is None:
        for campaign, output in made:
            campaign.check(_cells(output, options))
    code = 0
    for campaign, output in made:
        if options.dry_run:
            print(_estimate(campaign, output, options, jobs))
        elif options.write_slurm is not None or options.cell is not None:
            if len(made) > 1:
                raise cli.UsageError(
                    f"--{'cell' if options.cell else 'write-slurm'}: takes one figure at a time; "
                    "choose it with --figure"
                )
            if options.cell is None:
                return _write_slurm(campaign, output, options, offer)
            return _run_parts(campaign, output, options)
        elif options.merge:
            code = max(code, _merge(campaign, output, options, offer))
        else:
            code = max(code, _run_and_present(campaign, output, options, offer, jobs))
    return code


def _run_and_present(
    campaign: Campaign[Any], output: Path, options: argparse.Namespace, offer: Offer, jobs: int
) -> int:
    started = time.monotonic()
    summary = _run(campaign, output, options, offer)
    if summary.failures:
        return _report_failures(summary, campaign, _cells(output, options))
    took = time.monotonic() - started
    code = present(output, offer)
    if summary.computed:
        last = campaign.tasks()[-summary.computed :] if not campaign.adaptive else []
        for line in campaign.faster(last, jobs, took):
            print(line)
    return code


def _cells(output: Path, options: argparse.Namespace) -> Path:
    """Directory of finished tasks."""
    from circuitsim.running.records import Place

    return Place(output, options.cells).directory


def _keeps(campaign: Campaign[Any], options: argparse.Namespace, offer: Offer) -> bool:
    """Whether finished tasks go to the disk: they do not where all takes seconds."""
    asked = getattr(options, "keep", True) or options.cells is not None
    return asked or not campaign.quick


def _run(
    campaign: Campaign[Any], output: Path, options: argparse.Namespace, offer: Offer
) -> Summary:
    """Run a campaign on this machine or on a cluster."""
    from circuitsim.commands.progress import Progress
    from circuitsim.running import cluster, runner

    keep = _keeps(campaign, options, offer)
    store = _cells(output, options)
    if keep:
        options.kept.append(lambda: _kept(store, campaign))
    settings: dict[str, Any] = {
        "retry_failed": options.retry_failed,
        "command_line": options.command_line,
        "cells": options.cells,
        "keep": keep,
    }
    with Progress(campaign, store if keep else None) as observer:
        settings["observer"] = observer
        if options.scheduler is None and options.scheduler_file is None:
            return runner.run(campaign, output, jobs=cli.jobs(options.jobs), **settings)
        with cluster.connected(options.scheduler, options.scheduler_file, observer.note) as found:
            executor, jobs = found
            return runner.run(campaign, output, executor, in_flight=jobs, **settings)


def _run_parts(campaign: Campaign[Any], output: Path, options: argparse.Namespace) -> int:
    from circuitsim.commands.progress import Progress
    from circuitsim.running import runner

    store = _cells(output, options)
    options.kept.append(lambda: _kept(store, campaign))
    with Progress(campaign, store) as observer:
        summary = runner.run_parts(
            campaign,
            output,
            options.cell,
            retry_failed=options.retry_failed,
            observer=observer,
            cells=options.cells,
        )
    if summary.failures:
        return _report_failures(summary, campaign, store)
    parts = "part" if len(options.cell) == 1 else "parts"
    numbers = " ".join(map(str, options.cell))
    print(f"{parts} {numbers}: {summary.total} {campaign.things} are in {store}")
    return 0


def _merge(
    campaign: Campaign[Any],
    output: Path,
    options: argparse.Namespace,
    offer: Offer,
    partial: bool = False,
) -> int:
    from circuitsim.commands.progress import Progress
    from circuitsim.running import runner

    store = _cells(output, options)
    if not store.is_dir():
        how = "run the command without it" if partial else "run the parts with --cell"
        name = "report-only" if partial else "merge"
        raise cli.UsageError(f"--{name}: there is no {store}; {how} first")
    with Progress(campaign, store) as observer:
        summary = runner.collect(
            campaign,
            output,
            command_line=options.command_line,
            observer=observer,
            cells=options.cells,
            partial=partial,
        )
    if summary.missing and not partial:
        missing = set(summary.missing)
        parts = [n for n in range(campaign.parts) if missing.intersection(campaign.part(n))]
        shown = " ".join(map(str, parts[:20])) + (" ..." if len(parts) > 20 else "")
        print(
            f"{len(missing)} of {summary.total} {campaign.things} are missing, in {len(parts)} of "
            f"{campaign.parts} parts: run these with --cell {shown}. No result was written.",
            file=sys.stderr,
        )
    if summary.failures and not partial:
        return _report_failures(summary, campaign, store)
    if summary.missing and not partial:
        return cli.EXIT_FAILED
    if partial and not summary.reused:
        raise cli.UsageError(f"{offer.store} {store}: nothing of this comparison is finished")
    return present(output, offer, complete=not partial)


def report(options: argparse.Namespace, offer: Offer) -> int:
    """Write the output from what is finished, and run nothing."""
    codes = [
        _merge(
            campaign,
            _checked_output(output, campaign, options.overwrite, offer.figure),
            options,
            offer,
            partial=True,
        )
        for campaign, output in offer.campaigns(options)
    ]
    return max(codes)


def _estimate(campaign: Campaign[Any], output: Path, options: argparse.Namespace, jobs: int) -> str:
    """Describe a campaign, and how long what is missing of it would take."""
    from circuitsim.running.campaign import spoken
    from circuitsim.running.state import known_tasks
    from circuitsim.running.store import Store

    store = Store(_cells(output, options))
    tasks = known_tasks(campaign, store)
    finished = store.finished(campaign, tasks)
    missing = [task for task in tasks if task not in finished]
    things = campaign.things
    lines = [
        *campaign.outline(),
        ("jobs", str(jobs)),
        (things, f"{len(tasks)}, of which {len(finished)} are finished"),
        ("parts", f"{campaign.parts}{campaign.part_size}: --cell 0 to {campaign.parts - 1}"),
    ]
    faster: list[str] = []
    if missing:
        began = time.monotonic()
        with waiting.told("timing a short pilot"):
            once, run = campaign.pilot(missing, jobs)
        total = once + run
        if total > max(_FAR * (time.monotonic() - began), _SHORT):
            estimate = f"{spoken(total / 2)} to {spoken(2 * total)}, from a pilot that is short"
        else:
            estimate = f"{spoken(total)}, from a pilot"
        if once > 1:
            estimate += f" ({spoken(once)} of it to get ready, once)"
        lines.append(("estimate", estimate))
        faster = campaign.faster(missing, jobs, once + run)
    return "\n".join([f"{name:<11} {value}" for name, value in lines] + faster)


def _write_slurm(
    campaign: Campaign[Any], output: Path, options: argparse.Namespace, offer: Offer
) -> int:
    from circuitsim.files import write_text
    from circuitsim.running import slurm

    file: Path = options.write_slurm
    place = output.parent if offer.figure else output
    command = [sys.executable, "-m", *offer.module.split(), *offer.written(campaign)]
    command.append(f"--output={place.absolute()}")
    if options.cells is not None:
        command.append(f"{offer.store}={options.cells.absolute()}")
    text = slurm.script(command, campaign.parts, output.stem)
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise cli.UsageError(f"--write-slurm {file}: must be a file in a directory that exists")
    cli.check_new(file, text.encode("utf-8", "surrogateescape"), options.overwrite, "write-slurm")
    write_text(file, text)
    print(
        f"sbatch {shlex.quote(str(file))}\nruns {campaign.parts} parts; its last line merges them"
    )
    return 0


def _loaded(path: Path, option: str, offer: Offer) -> tuple[Campaign[Any], Groups, str]:
    """Read a result that an option names."""
    from circuitsim.checks.validation import ParameterError
    from circuitsim.running import results
    from circuitsim.studies.registry import KINDS

    try:
        return results.load(path, [KINDS[kind] for kind in offer.kinds])
    except FileNotFoundError as error:
        raise cli.UsageError(f"--{option} {error}") from None
    except ParameterError as error:
        if error.parameter != "file":
            raise
        raise ParameterError(option, error.rule, error.value) from None


def figures(options: argparse.Namespace) -> Path:
    """Return the directory that a figure's command writes to."""
    given: Path | None = options.output
    if given is None:
        return Path("figures") if options.redraw is None else options.redraw.parent
    return given


def _redraw(options: argparse.Namespace, offer: Offer) -> int:
    cli.refuse_beside(options, offer.command, "redraw", "output", "overwrite", *offer.beside)
    campaign, groups, line = _loaded(options.redraw, "redraw", offer)
    if offer.subset is not None:
        campaign, groups = offer.subset(options, campaign, groups)
    output = options.redraw if options.output is None else options.output
    if offer.figure:
        output = figures(options) / f"{campaign.file_name}.nc"
        if output.exists() and output.resolve() != options.redraw.resolve():
            _checked_output(output, campaign, options.overwrite, figure=True)
        checked_directory(output.parent)
    _present(campaign, groups, line, output, offer, drawn_again=True)
    return 0


def _reproduce(options: argparse.Namespace, offer: Offer) -> int:
    from circuitsim.running import compare

    kept = ("output", "overwrite", "jobs", "scheduler", "scheduler_file", "retry_failed", "cells")
    cli.refuse_beside(options, offer.command, "reproduce", *kept, *offer.beside)
    original: Path = options.reproduce
    campaign, _, _ = _loaded(original, "reproduce", offer)
    if offer.again is not None:
        campaign = offer.again(options, campaign)
    cli.check_memory(campaign)
    given = None if offer.figure else options.output
    if given is not None and given.resolve() == original.resolve():
        raise cli.UsageError(f"--output {given}: is the file to reproduce; name another")
    with _place(given, original) as output:
        _checked_output(output, campaign, options.overwrite, figure=False)
        summary = _run(campaign, output, options, offer)
        if summary.failures:
            return _report_failures(summary, campaign, _cells(output, options))
        differences = compare.differences(campaign, original, output)
    print(compare.table(differences))
    return 0 if all(d.relative <= compare.IDENTICAL for d in differences) else cli.EXIT_FAILED


@contextmanager
def _place(output: Path | None, original: Path) -> Iterator[Path]:
    """Give the output, or one in a directory that is removed in the end."""
    if output is not None:
        yield output
        return
    with TemporaryDirectory(prefix="circuitsim-") as directory:
        yield Path(directory) / f"{original.stem}.nc"


def checked_directory(path: Path) -> Path:
    """Return a directory for output, which exists or can be made: its parent exists.

    Raises
    ------
    ParameterError
        If it cannot be written to.
    """
    from circuitsim.checks.validation import ParameterError

    home = path if path.exists() else path.absolute().parent
    if not home.is_dir():
        what = "is not a directory" if home.exists() else "does not exist"
        raise ParameterError("output", f"{home} {what}", str(path))
    if not os.access(home, os.W_OK | os.X_OK):
        raise ParameterError("output", f"the directory {home} cannot be written", str(path))
    return path


def _checked_output(output: Path, campaign: Campaign[Any], overwrite: bool, figure: bool) -> Path:
    """Return the output's path if the campaign may be written there."""
    from circuitsim.checks.validation import ParameterError

    named = str(output.parent if figure else output)
    if figure:
        checked_directory(output.parent)
    else:
        if output.suffix != ".nc":
            raise ParameterError("output", "must end in .nc", named)
        if not output.parent.is_dir():
            raise ParameterError("output", f"the directory {output.parent} does not exist", named)
        if not os.access(output.parent, os.W_OK | os.X_OK):
            raise ParameterError(
                "output", f"the directory {output.parent} cannot be written", named
            )
    if output.is_dir():
        raise ParameterError("output", "is a directory; name a file", str(output))
    for existing in _existing(output, campaign):
        if not campaign.extends(existing) and not overwrite:
            raise ParameterError(
                "output",
                f"holds another {campaign.called} ({campaign.difference(existing)})"
                + (f" in {output.name}" if figure else "")
                + "; name another with --output, or give --overwrite to replace it",
                named,
            )
    beside = [output.with_suffix(kind) for kind in (FIGURE_FILES if figure else (".png",))]
    if not output.exists() and not overwrite:
        for file in beside:
            if file.exists():
                raise ParameterError(
                    "output",
                    f"would replace {file}, which is from elsewhere; name another with --output, "
                    "or give --overwrite to replace it",
                    named,
                )
    return output


def _existing(output: Path, campaign: Campaign[Any]) -> Iterator[Campaign[Any]]:
    """Campaigns that an output holds: a finished one, and one that has been begun."""
    from circuitsim.checks.validation import ParameterError
    from circuitsim.running import records, results, state
    from circuitsim.studies.registry import KINDS

    if output.exists() or output.is_symlink():
        try:
            yield results.identify(output, [type(campaign)])
        except (ParameterError, FileNotFoundError) as error:
            raise ParameterError(
                "output",
                f"exists and is no {campaign.called} that could be replaced ({error})",
                str(output),
            ) from None
    try:
        record = records.read_study(records.Place(output).record)
        begun = None if record is None else state.begun(record, KINDS)
    except records.BadRecord:  # it is written anew
        return
    # Finished tasks of another kind are only used.
    if isinstance(begun, type(campaign)):
        yield begun


def _kept(directory: Path, campaign: Campaign[Any]) -> str:
    from circuitsim.running.store import Store

    count = len(Store(directory).digests())
    told = f"{count} finished {campaign.things} are kept in {directory}: " if count else ""
    if not told and not campaign.adaptive:
        return ""
    return f"{told}the same command goes on from there"


def _report_failures(summary: Summary, campaign: Campaign[Any], store: Path) -> int:
    by_error: dict[str, list[Failure]] = {}
    for failure in summary.failures:
        by_error.setdefault(failure.error, []).append(failure)
    for error, (first, *others) in list(by_error.items())[:5]:
        also = f" and {len(others)} like it" if others else ""
        where = "" if first.file is None else f" ({first.file})"
        print(f"failed: {first.task}{also}: {cli.as_options(error)}{where}", file=sys.stderr)
    count, things = f"{len(summary.failures)} of {summary.total}", campaign.things
    if all(failure.file is None for failure in summary.failures):
        print(f"{count} {things} failed. No result was written.", file=sys.stderr)
        return cli.EXIT_FAILED
    print(
        f"{count} {things} failed; their tracebacks are in {store / 'failed'}, and the others are "
        f"kept in {store}. No result was written.",
        file=sys.stderr,
    )
    if summary.failed_before:
        print(
            f"{summary.failed_before} of them failed before and were not tried again: "
            "give --retry-failed to do so",
            file=sys.stderr,
        )
    return cli.EXIT_FAILED


def present(output: Path, offer: Offer, complete: bool = True) -> int:
    """Draw a result, write what goes beside it, and print its table; return the exit code."""
    campaign, groups, line = _loaded(output, "output", offer)
    _present(campaign, groups, line, output, offer)
    for note in campaign.notes(groups):
        print(f"note: {note}", file=sys.stderr)
    failed = campaign.failed(groups) if complete else []
    for told in failed:
        print(f"failed: {told}", file=sys.stderr)
    return cli.EXIT_FAILED if failed else 0


def _present(
    campaign: Campaign[Any],
    groups: Groups,
    command_line: str,
    output: Path,
    offer: Offer,
    drawn_again: bool = False,
) -> None:
    from circuitsim.files import own_directory, write_text

    own_directory(output.absolute().parent)
    written = [] if drawn_again else [output]
    with waiting.told("drawing"):
        from circuitsim import plots

        figure = campaign.draw(groups)
        for kind in (".pdf", ".png") if offer.figure else (".png",):
            written.append(output.with_suffix(kind))
            plots.save(figure, written[-1])
    if offer.figure:
        texts = campaign.further_files(groups)
        for kind, text in {**texts, ".md": campaign.caption(groups, command_line)}.items():
            written.append(output.with_suffix(kind))
            write_text(written[-1], text)
    print(campaign.table(groups))
    if not offer.figure:
        print("\n" + "\n".join(f"written: {path}" for path in written))
        return
    stem = output.with_suffix("")
    print(f"\nwritten: {stem}{{{','.join(path.suffix for path in written)}}}")
