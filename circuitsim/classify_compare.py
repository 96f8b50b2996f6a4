"""Networks that share weights, or do not, compared: ``python -m circuitsim.classify compare``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim import classify_report, cli, drawing
from circuitsim.classify_options import SLEEP, add_border, add_data, data_arguments, load_data

if TYPE_CHECKING:
    from circuitsim.vision.comparison import Comparison, Job, Result

HELP = "compare networks that share weights with those that do not"
DESCRIPTION = (
    "Train networks that share weights in several ways, and others that do not, and report how "
    "they compare: a table, a figure, its data and its caption. Trainings are kept, each in a "
    "directory of its own (that of train); whatever ends the command, the same command goes on."
)

_POLL = 0.2  # seconds between looks at which trainings have ended
_SHOW = 5.0  # seconds between looks at how far the others are
_GRACE = 20.0  # seconds that a training gets to end


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_data(p.add_argument_group("images"), "cifar10")
    what = p.add_argument_group("what is compared")
    what.add_argument(
        "--variants",
        nargs="+",
        default=None,
        metavar="NAME",
        help="conv, lc (locally connected), or how lc shares weights and the batches from one "
        "sleep to the next; None: conv lc instant-1 instant-10 instant-100 circuit-10 "
        "inhibition_gated-10",
    )
    what.add_argument(
        "--crop-padding",
        type=int,
        nargs="+",
        default=[0, 4],
        metavar="P",
        help="black pixels added on every side of an image before a random crop of its size; "
        "learning rates are chosen with the first",
    )
    what.add_argument(
        "--seeds", type=int, default=3, metavar="S", help="trainings of each, with seeds 0 to S-1"
    )
    training = p.add_argument_group("training")
    training.add_argument("--network", default="small", metavar="NAME", help="small or resnet20")
    training.add_argument(
        "--width",
        type=int,
        default=None,
        metavar="W",
        help="channels of the first layer; None: 32 in small, 16 in resnet20",
    )
    training.add_argument("--epochs", type=int, default=10, metavar="E", help="epochs of training")
    training.add_argument(
        "--batch-size", type=int, default=128, metavar="B", help="images in a batch"
    )
    training.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1e-3, 2e-3, 4e-3],
        metavar="RATE",
        help="learning rates that each variant's is chosen from; further ones if the best is the "
        "lowest or the highest; one alone is used as it is",
    )
    training.add_argument(
        "--rate-epochs",
        type=int,
        default=2,
        metavar="E",
        help="epochs of the short trainings that choose the rate",
    )
    training.add_argument(
        "--validation",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the training images by which the rate is chosen; the network that is tested "
        "is trained on all",
    )
    asleep = p.add_argument_group("asleep (all but instant)")
    for name, text in (
        ("presentations_per_input", "input patterns in a sleep, for each input of a neuron"),
        ("gamma", "pull towards the weights before the sleep, dimensionless"),
        ("alpha", "strength of inhibition, dimensionless"),
    ):
        asleep.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=SLEEP[name],
            metavar=name[0].upper(),
            help=text,
        )
    add_border(asleep, "asleep")
    how = p.add_argument_group("how to run it")
    how.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="J",
        help="trainings at a time, with one thread each; None: the cores available",
    )
    how.add_argument(
        "--runs",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="directory that holds the trainings; those in it are gone on with",
    )
    how.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing; report what is finished in --runs",
    )
    drawing.add_options(how, "classifiers.* (figure, table, data and caption)")


def body(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from circuitsim.files import own_directory
    from circuitsim.vision.comparison import condensed

    drawing.checked_directory(options.output)
    if options.redraw is not None:
        data, command_line = _read(options)
        classify_report.write(data, options.output, command_line, with_data=False)
        return 0
    comparison = _comparison(options)
    jobs = cli.jobs(options.jobs, "jobs")
    results = _finished(comparison, options.runs)
    failed: list[str] = []
    if not options.report_only:
        # Whatever is wrong with the images is said before anything starts.
        data = load_data(options, comparison.dataset)
        comparison.check_images(data)
        del data  # the processes that train have their own
        try:
            own_directory(options.runs)
        except OSError as error:
            raise cli.UsageError(f"--runs {options.runs}: {error.strerror}") from None
        options.kept.append(lambda: f"the same command goes on with what is in {options.runs}")
        with _Trainings(options) as trainings:
            _train(comparison, results, trainings, jobs)
            failed = trainings.failed
    if not results and options.report_only:
        raise cli.UsageError(f"--runs {options.runs}: no training of this comparison is finished")
    if results:
        data = condensed(comparison, results)
        classify_report.write(data, options.output, options.command_line, with_data=True)
    return cli.EXIT_FAILED if failed else 0


def _read(options: argparse.Namespace) -> tuple[Any, str]:
    """Read the data to draw again; of the options only the directory goes with it."""
    alone = cli.Parser(prog="")
    add_options(alone)
    return drawing.redrawn(options, alone, classify_report.load, "output")


def _comparison(options: argparse.Namespace) -> Comparison:
    from circuitsim.vision.comparison import VARIANTS, Comparison, Variant

    names = ("seeds", "dataset", "network", "width", "epochs", "batch_size", "rate_epochs")
    return Comparison(
        variants=tuple(map(Variant, options.variants or VARIANTS)),
        paddings=tuple(options.crop_padding),
        rates=tuple(options.rates),
        validation=options.validation,
        sleep={name: getattr(options, name) for name in (*SLEEP, "border")},
        **{name: getattr(options, name) for name in names},
    )


def _finished(comparison: Comparison, runs: Path) -> dict[str, Result]:
    """Read the trainings that are over."""
    from circuitsim.vision import comparison as vision

    results: dict[str, Any] = {}
    # What is to be done depends on the rates chosen, and so on the results of others.
    while True:
        new = {}
        for job in comparison.next(results):
            if (runs / job.name).is_dir():
                _check(comparison, job, runs)
                result = vision.read(runs / job.name)
                if result is not None:
                    new[job.name] = result
        if not new:
            return results
        results |= new


def _check(comparison: Comparison, job: Job, runs: Path) -> None:
    from circuitsim.vision import checkpoints

    if (runs / job.name / checkpoints.DESCRIPTION).exists():
        comparison.check(job, runs / job.name)


def _train(
    comparison: Comparison, results: dict[str, Any], trainings: _Trainings, jobs: int
) -> None:
    """Train whatever is not finished."""
    from circuitsim.progress import bar

    looked = 0.0
    with bar(1, "{n:.0f}/{total:.0f} epochs, ") as shown:
        while True:
            begun = {*trainings.names, *trainings.failed}
            waiting = [job for job in comparison.next(results) if job.name not in begun]
            while waiting and len(trainings.names) < jobs:
                job = waiting.pop(0)
                _check(comparison, job, trainings.runs)
                trainings.start(comparison, job)
            if not trainings.names:
                return
            if time.monotonic() - looked > _SHOW and not shown.disable:
                looked = time.monotonic()
                total = comparison.total(results)
                done = total - comparison.left(results) + trainings.epochs()
                if not shown.n:
                    shown.initial = done  # speed is that of this command
                shown.total, shown.n = total, done
                shown.refresh()
            time.sleep(_POLL)
            for job, result in trainings.ended():
                results[job.name] = result
                shown.clear()
                trainings.tell(comparison, job, result, results)


class _Trainings:
    """The trainings that run, as processes of their own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self.runs = options, options.runs
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
        self.failed: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def __enter__(self) -> _Trainings:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs; it can be resumed."""
        with _uninterrupted():
            for _job, process in self._running.values():
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + _GRACE
            for _job, process in self._running.values():
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def start(self, comparison: Comparison, job: Job) -> None:
        command = [sys.executable, "-m", "circuitsim.classify", "train"]
        command += _arguments(comparison, job)
        command += data_arguments(self._options)
        command += ["--threads", "1", "--resume", "--output", str(self.runs / job.name)]
        with _uninterrupted(), (self.runs / f"{job.name}.log").open("ab") as log:
            # In a session of its own: Ctrl-C reaches this process alone, which ends the others.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            self._running[job.name] = (job, process)

    def epochs(self) -> int:
        """Epochs that are over in the trainings that run."""
        from circuitsim.vision import checkpoints

        found = [checkpoints.read_progress(self.runs / name) for name in self._running]
        return sum(int(content.get("epoch", 0)) for content in found if content)

    def ended(self) -> Iterator[tuple[Job, Any]]:
        from circuitsim.vision.comparison import Result, read

        for name, (job, process) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            result = read(self.runs / name)
            if result is None:
                self.failed.append(name)
                diverged = code == cli.EXIT_FAILED and self._diverged(name)
                what = "diverged" if diverged else f"ended with code {code}"
                print(f"{name}: {what}, see {self.runs / name}.log", file=sys.stderr, flush=True)
                if not diverged:
                    continue  # perhaps it succeeds when the command is given again
                result = Result([], diverged=True)
            yield job, result

    def _diverged(self, name: str) -> bool:
        return "try a lower --learning-rate" in (self.runs / f"{name}.log").read_text()[-2000:]

    def tell(
        self, comparison: Comparison, job: Job, result: Result, results: dict[str, Any]
    ) -> None:
        """Print what came of a training."""
        if result.diverged:
            return
        part = "validation" if job.trial else "test"
        finals, last = comparison.final(), result.rows[-1]
        done = sum(f"{v.name}_padding{p}_seed{s}" in results for v, p, s in finals)
        print(
            f"[{done}/{len(finals)}] {job.variant.name}, padding {job.padding}, "
            f"{f'rate {job.rate:g}' if job.trial else f'seed {job.seed}'}: "
            f"{100 * last['train'][1]:.1f} % training, {100 * last[part][1]:.1f} % {part}",
            flush=True,
        )


def _arguments(comparison: Comparison, job: Job) -> list[str]:
    """Return the options of the command that does a job."""
    training, sharing = comparison.training(job), comparison.sharing(job.variant)
    options: dict[str, Any] = {
        "dataset": comparison.dataset,
        "network": comparison.network,
        "connectivity": job.variant.connectivity,
        "width": comparison.width,
        "sharing": job.variant.method,
    }
    names = (
        "epochs", "batch_size", "learning_rate", "crop_padding", "validation", "seed",
        "share_every",
    )  # fmt: skip
    options |= {name: getattr(training, name) for name in names}
    if sharing is not None and sharing.method != "instant":
        options |= {name: getattr(sharing, name) for name in (*SLEEP, "border")}
    return [
        text
        for name, value in options.items()
        if value is not None
        for text in ("--" + name.replace("_", "-"), str(value))
    ]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off what Ctrl-C and SIGTERM do, so that no process is left behind."""
    received: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(one, lambda number, _: received.append(number)) for one in both]
    try:
        yield
    finally:
        for one, handler in zip(both, previous, strict=True):
            signal.signal(one, handler)
    for number in received[:1]:
        signal.raise_signal(number)
