"""Convergence studies of the weights' SNR over a grid: ``python -m circuitsim.sweep``."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from circuitsim import cli
from circuitsim.sweep_options import DEFAULT_OUTPUT, command_line, parser

if TYPE_CHECKING:
    from circuitsim.studies.runner import Summary
    from circuitsim.studies.study import Study

# Options of the study whose names differ from its fields, or from those of what it is made of.
OPTIONS = {"n_neurons": "--neurons", "peak": "--learning-rate", "scale": "--learning-rate"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    _refuse_ignored(options)
    if options.reproduce is not None:
        return _reproduce(options)
    from circuitsim.studies import pilot, runner

    study = _study(options)
    output = _checked_output(
        options.output or DEFAULT_OUTPUT, study, getattr(options, "overwrite", False)
    )
    jobs = cli.jobs(options.jobs)
    if hasattr(options, "dry_run"):
        print(pilot.estimate(study, jobs, runner.cells_directory(output)))
        return 0
    if options.write_slurm is not None:
        return _write_slurm(study, output, options.write_slurm)
    if options.cell is not None:
        return _run_parts(study, output, options)
    if hasattr(options, "merge"):
        return _merge(study, output, options)
    started = time.monotonic()
    summary = _run(study, output, options)
    if summary.failures:
        return _report_failures(summary, output)
    _present(output)
    took = time.monotonic() - started
    if summary.computed:
        for line in pilot.faster_way(study, study.cells[-summary.computed :], jobs, took):
            print(line)
    return 0


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Refuse to run on a cluster what is not run there."""
    given = [n for n in ("scheduler", "scheduler_file") if getattr(options, n) is not None]
    modes = [n for n in ("dry_run", "cell", "merge", "write_slurm") if getattr(options, n, None)]
    if options.jobs is not None:
        modes.append("jobs")
    for name in given:
        for mode in modes:
            raise cli.UsageError(
                f"--{name} has no effect with --{mode}: leave one of them out".replace("_", "-")
            )


def _study(options: argparse.Namespace) -> Study:
    from circuitsim.engines import registry
    from circuitsim.studies import Study

    if options.rules_from is not None:
        _register_rules(options.rules_from)
    given: dict[str, Any] = {name: getattr(options, name) for name in Study.__dataclass_fields__}
    study = Study(**given)
    if options.cell is None:
        cli.check_memory(study)
    # What cannot work is said before anything starts; and "auto" must mean the same for every cell.
    return replace(study, codegen=registry.get(study.engine, study.codegen).codegen)


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


def _run(study: Study, output: Path, options: argparse.Namespace) -> Summary:
    """Run a study on this machine or on a cluster."""
    from circuitsim.progress import Progress
    from circuitsim.studies import cluster, runner

    retry = getattr(options, "retry_failed", False)
    store = runner.cells_directory(output)
    options.kept.append(lambda: _kept(store))
    with Progress(store) as observer:
        if options.scheduler is None and options.scheduler_file is None:
            return runner.run(
                study,
                output,
                jobs=cli.jobs(options.jobs),
                retry_failed=retry,
                command_line=options.command_line,
                observer=observer,
            )
        with cluster.connected(options.scheduler, options.scheduler_file) as (executor, jobs):
            return runner.run(
                study,
                output,
                executor,
                in_flight=jobs,
                retry_failed=retry,
                command_line=options.command_line,
                observer=observer,
            )


def _run_parts(study: Study, output: Path, options: argparse.Namespace) -> int:
    from circuitsim.progress import Progress
    from circuitsim.studies import runner

    store = runner.cells_directory(output)
    options.kept.append(lambda: _kept(store))
    with Progress(store) as observer:
        summary = runner.run_parts(
            study,
            output,
            options.cell,
            retry_failed=getattr(options, "retry_failed", False),
            observer=observer,
        )
    if summary.failures:
        return _report_failures(summary, output)
    parts = "part" if len(options.cell) == 1 else "parts"
    print(f"{parts} {' '.join(map(str, options.cell))}: {summary.total} circuits are in {store}")
    return 0


def _merge(study: Study, output: Path, options: argparse.Namespace) -> int:
    from circuitsim.progress import Progress
    from circuitsim.studies import runner

    store = runner.cells_directory(output)
    if not store.is_dir():
        raise cli.UsageError(f"--merge: there is no {store}; run the parts with --cell first")
    with Progress(store) as observer:
        summary = runner.collect(
            study, output, command_line=options.command_line, observer=observer
        )
    if summary.missing:
        missing = set(summary.missing)
        parts = [n for n in range(study.parts) if missing.intersection(study.part(n))]
        shown = " ".join(map(str, parts[:20])) + (" ..." if len(parts) > 20 else "")
        print(
            f"{len(missing)} of {summary.total} circuits are missing, in {len(parts)} of "
            f"{study.parts} parts: run these with --cell {shown}. No result was written.",
            file=sys.stderr,
        )
    if summary.failures:
        return _report_failures(summary, output)
    if summary.missing:
        return cli.EXIT_FAILED
    _present(output)
    return 0


def _write_slurm(study: Study, output: Path, file: Path) -> int:
    from circuitsim.files import write_text
    from circuitsim.studies import slurm

    text = slurm.script(command_line(study, output), study.parts, output.stem)
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise cli.UsageError(f"--write-slurm {file}: must be a file in a directory that exists")
    write_text(file, text)
    print(f"sbatch {shlex.quote(str(file))}\nruns {study.parts} parts; its last line merges them")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from circuitsim.engines import registry
    from circuitsim.studies import compare, results

    kept = ("output", "overwrite", "jobs", "scheduler", "scheduler_file", "retry_failed")
    cli.refuse_beside(options, parser(), "reproduce", *kept)
    original: Path = options.reproduce
    try:
        study = results.study_in(original)
    except FileNotFoundError as error:
        raise cli.UsageError(f"--reproduce {error}") from None
    cli.check_memory(study)
    registry.get(study.engine, study.codegen)
    if options.output is not None and options.output.resolve() == original.resolve():
        raise cli.UsageError(f"--output {options.output}: is the file to reproduce; name another")
    with _place(options.output, original) as output:
        _checked_output(output, study, getattr(options, "overwrite", False))
        summary = _run(study, output, options)
        if summary.failures:
            return _report_failures(summary, output)
        differences = compare.differences(original, output)
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


def _checked_output(output: Path, study: Study, overwrite: bool) -> Path:
    """Return the output's path if the study may be written there."""
    from circuitsim.validation import ParameterError

    if output.suffix != ".nc":
        raise ParameterError("output", "must end in .nc", str(output))
    if not output.parent.is_dir():
        raise ParameterError("output", f"the directory {output.parent} does not exist", str(output))
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ParameterError(
            "output", f"the directory {output.parent} cannot be written", str(output)
        )
    if output.is_dir():
        raise ParameterError("output", "is a directory; name a file", str(output))
    for existing in _existing(output):
        if not study.extends(existing) and not overwrite:
            raise ParameterError(
                "output",
                f"holds another sweep ({study.difference(existing)}); choose another file, or give "
                "--overwrite",
                str(output),
            )
    return output


def _existing(output: Path) -> Iterator[Study]:
    """Studies that an output holds: a finished one, and one that has been begun."""
    from circuitsim.studies import records, results, runner
    from circuitsim.validation import ParameterError

    if output.exists() or output.is_symlink():
        try:
            yield results.study_in(output)
        except (ParameterError, FileNotFoundError) as error:
            raise ParameterError(
                "output", f"exists and is no sweep that could be replaced ({error})", str(output)
            ) from None
    try:
        begun = records.read_study(runner.cells_directory(output))
    except records.BadRecord:  # it is written anew
        return
    if begun is not None:
        yield begun


def _kept(directory: Path) -> str:
    from circuitsim.studies.store import Store

    count = len(Store(directory).digests())
    if not count:
        return ""
    return f"{count} finished circuits are kept in {directory}: the same command goes on from there"


def _report_failures(summary: Summary, output: Path) -> int:
    from circuitsim.studies.runner import cells_directory

    store = cells_directory(output)
    for failure in summary.failures[:5]:
        print(f"failed: {failure.cell}: {failure.error} ({failure.file})", file=sys.stderr)
    print(
        f"{len(summary.failures)} of {summary.total} circuits failed; their tracebacks are in "
        f"{store / 'failed'}, and the others are kept in {store}. No result was written.",
        file=sys.stderr,
    )
    if summary.failed_before:
        print(
            f"{summary.failed_before} of them failed before and were not tried again: "
            "give --retry-failed to do so",
            file=sys.stderr,
        )
    return cli.EXIT_FAILED


def _present(output: Path) -> None:
    from circuitsim import plots
    from circuitsim.files import atomic_write
    from circuitsim.studies import results, tables

    dataset = results.load(output)
    picture = output.with_suffix(".png")
    with atomic_write(picture) as temporary:
        plots.sweep(dataset).savefig(temporary, format="png", dpi=150)
    print(tables.summary(dataset))
    print(f"\nresult: {output}\nplot:   {picture}")


if __name__ == "__main__":
    sys.exit(main())
