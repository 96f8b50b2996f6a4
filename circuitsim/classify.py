"""Image classifiers with shared and unshared weights: ``python -m circuitsim.classify``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim import cli
from circuitsim.classify_options import parser

if TYPE_CHECKING:
    from circuitsim.vision.runs import Run
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Progress

_OF_SLEEP = ("presentations", "presentations_per_input", "gamma", "alpha")
OPTIONS = {"method": "--sharing", "sharing_rate": "--sharing-rate", "file": "--redraw"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    return cli.run(parser(), _body, arguments, OPTIONS)


def _body(options: argparse.Namespace) -> int:
    from circuitsim import classify_compare

    return {"train": _train, "compare": classify_compare.body}[options.subcommand](options)


def _train(options: argparse.Namespace) -> int:
    import filelock

    from circuitsim.files import entries, own_directory, remove_abandoned
    from circuitsim.vision import checkpoints, datasets, parallel
    from circuitsim.vision.runs import Run
    from circuitsim.vision.training import Diverged

    directory: Path = options.output
    threads = cli.jobs(options.threads)
    present = (directory / checkpoints.DESCRIPTION).exists()
    if present and not options.resume:
        raise cli.UsageError(
            f"--output {directory}: holds a run already; give --resume to go on with it, or name "
            "another directory"
        )
    if present:
        run = Run.read(directory)
        _check_same(options, run)
        data = datasets.load(run.dataset, options.data, options.download)
    else:
        data = datasets.load(options.dataset, options.data, options.download)
        run = _described(options, data)
    with _sharing_options():
        trainer = run.trainer(data)
    try:
        own_directory(directory)
    except OSError as error:
        raise cli.UsageError(f"--output {directory}: {error.strerror}") from None
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise cli.UsageError(f"--output {directory}: another process is training it") from None
    with lock, parallel.threads(threads), _Observer(run, trainer.per_epoch) as observer:
        remove_abandoned(entries(directory))
        if present:
            trainer.resume(directory)
        else:
            run.write(directory, {"command_line": options.command_line})
        options.kept.append(lambda: _kept(directory))
        observer.begun(trainer.progress)
        try:
            trainer.run(directory, observer.advanced)
        except Diverged as error:
            observer.close()
            print(
                f"{parser().prog}: error: {error}; try a lower --learning-rate. {_kept(directory)}",
                file=sys.stderr,
            )
            return cli.EXIT_FAILED
    print(f"\nrun: {directory}")
    return 0


def _described(options: argparse.Namespace, data: Any) -> Run:
    """Describe the run that the options ask for."""
    from circuitsim.vision.runs import Run
    from circuitsim.vision.training import Training

    names = set(Training.__dataclass_fields__) - {"milestones", "factor"}
    given = {name: getattr(options, name) for name in names}
    for name in ("milestones", "factor"):
        value = getattr(options, name)
        if value is not None:
            if options.schedule != "step":
                raise cli.UsageError(f"--{name} has no effect without --schedule step")
            given[name] = tuple(value) if name == "milestones" else value
    return Run.new(
        data,
        Training(**given),
        _sharing(options),
        network=options.network,
        connectivity=options.connectivity,
        width=options.width,
    )


def _sharing(options: argparse.Namespace) -> Sharing | None:
    from brian2 import ms

    from circuitsim.validation import one_of
    from circuitsim.vision.sharing import METHODS, Sharing

    one_of("sharing", options.sharing, METHODS)
    fields = {"sharing_rate": "learning_rate"}
    names = (*_OF_SLEEP, "tau", "sharing_rate")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.sharing in ("none", "instant") and given:
        option = next(iter(given)).replace("_", "-")
        raise cli.UsageError(f"--{option} has no effect with --sharing {options.sharing}")
    if "presentations" in given and "presentations_per_input" in given:
        raise cli.UsageError("--presentations and --presentations-per-input: leave one out")
    if options.sharing == "none":
        return None
    if "tau" in given:
        given["tau"] = given["tau"] * ms
    with _sharing_options():
        return Sharing(options.sharing, **{fields.get(n, n): v for n, v in given.items()})


@contextmanager
def _sharing_options() -> Iterator[None]:
    """Name the option of sharing in an error, not that of training."""
    from circuitsim.validation import ParameterError

    try:
        yield
    except ParameterError as error:
        if error.parameter != "Sharing.learning_rate":
            raise
        raise ParameterError("sharing_rate", error.rule, error.value) from None


def _check_same(options: argparse.Namespace, run: Run) -> None:
    """Refuse options that differ both from their defaults and from the run that is to go on."""
    from dataclasses import asdict

    from brian2 import ms

    of_run: dict[str, Any] = {"dataset": run.dataset, "sharing": "none"}
    of_run |= asdict(run.architecture) | asdict(run.training)
    if run.sharing is not None:
        sharing = asdict(run.sharing)
        of_run |= {"sharing": sharing["method"], "sharing_rate": sharing["learning_rate"]}
        of_run |= {n: sharing.get(n) for n in _OF_SLEEP}
        if sharing.get("tau") is not None:
            of_run["tau"] = float(sharing["tau"] / ms)
    free = ("data", "download", "threads", "output", "resume", "subcommand", "command_line", "kept")
    defaults = parser().parse_args(["train"])
    for name, value in vars(options).items():
        value = tuple(value) if isinstance(value, list) else value
        if name in free or value == getattr(defaults, name) or value == of_run.get(name):
            continue
        option = "--" + name.replace("_", "-")
        raise cli.UsageError(
            f"{option}: the run in {options.output} has {of_run.get(name)}; leave it out to "
            "go on with it, or name another --output"
        )


def _kept(directory: Path) -> str:
    from circuitsim.vision import checkpoints
    from circuitsim.vision.training import Progress

    content = checkpoints.read_progress(directory)
    if content is None:
        return "no checkpoint had been written yet"
    progress = Progress(**content)
    return (
        f"the checkpoint after {progress.epoch} epochs and {progress.batch} batches is in "
        f"{directory}: the same command with --resume goes on from there"
    )


class _Observer:
    """Prints a line for every epoch, and shows how the present one goes on a terminal."""

    def __init__(self, run: Run, per_epoch: int) -> None:
        self._epochs, self._per_epoch = run.training.epochs, per_epoch
        self._printed = 0
        self._bar: Any = None

    def __enter__(self) -> _Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def begun(self, progress: Progress) -> None:
        from circuitsim.progress import bar

        self._printed = len(progress.history)
        if progress.batches:
            print(f"going on after {progress.epoch} epochs and {progress.batch} batches")
        total = self._epochs * self._per_epoch
        self._bar = bar(total, "{n:.0f}/{total} batches, ", initial=progress.batches)

    def advanced(self, progress: Progress) -> None:
        self._bar.update(progress.batches - self._bar.n)
        if progress.images:
            loss, top1, _ = progress.means
            self._bar.set_description_str(
                f"epoch {progress.epoch + 1}, loss {loss:.3f}, {100 * top1:.1f} %", refresh=False
            )
        for number, row in enumerate(progress.history[self._printed :], self._printed + 1):
            self._print(number, row)
        self._printed = len(progress.history)

    def _print(self, number: int, row: dict[str, Any]) -> None:
        parts = [
            f"{part} loss {row[part][0]:.4f} top-1 {100 * row[part][1]:5.2f} %"
            for part in ("train", "validation", "test")
            if part in row
        ]
        self._bar.clear()
        print(
            f"epoch {number}/{self._epochs}: {', '.join(parts)}, {row['seconds']:.1f} s", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
