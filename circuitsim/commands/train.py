"""Training of image classifiers: ``python -m circuitsim.classify train``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.checks import fields
from circuitsim.commands import cli, waiting
from circuitsim.commands.images import SLEEP, TIMES, add_data, add_jobs, add_times, load_data

if TYPE_CHECKING:
    from circuitsim.parameters import Circuit
    from circuitsim.vision.ranks import Ranks
    from circuitsim.vision.runs import Run
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Progress, Trainer

HELP = "train a network"
DESCRIPTION = (
    "Train a network and write it, with the history of its training, into a directory: run.json "
    "(what is trained), checkpoint.npz (the network), history.nc, and in the end training.png: "
    "accuracy and SNR over epochs, and kernels of the first layer. The numbers depend on the "
    "options and the data alone, not on the number of threads, nor on having been interrupted."
)

_SHARING = {"method": "--sharing", "learning_rate": "--sharing-rate"}
_GRACE = 10.0  # seconds in which the first of several processes tells what befalls all


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from circuitsim.commands import options
    from circuitsim.vision.networks import Architecture
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Training

    add_data(p.add_argument_group("images"), "digits")
    options.add(
        p.add_argument_group("network"),
        Architecture,
        ("network", "connectivity", "width", "first_conv"),
    )
    of_sleep = ("share_every", "sleep_length")
    awake = [name for name in fields.declared(Training) if name not in of_sleep]
    options.add(p.add_argument_group("awake"), Training, awake)
    asleep = p.add_argument_group("asleep")
    options.add(asleep, Sharing, ["method"], _SHARING, defaults={"method": "none"})
    options.add(asleep, Training, of_sleep)
    otherwise = fields.defaults(Sharing) | SLEEP
    otherwise |= {
        "presentations": "as the next says",
        "learning_rate": "one that suits the number of inputs, for awake 0.1",
    }
    sleep = [name for name in fields.declared(Sharing) if name != "method"]
    options.add(asleep, Sharing, sleep, _SHARING, otherwise)
    add_times(asleep)
    asleep.add_argument(
        "--circuit", action="append", nargs="+", default=None, metavar="NAME=VALUE",
        help="what pools sleep in, in place of the published circuit with --alpha and --tau: "
        "parameters of circuitsim.Circuit, times in ms, such as sigma=0.1 transfer=relu "
        "tau_inh=90 alpha=5 (by default 10). It is simulated, which takes far longer",
    )  # fmt: skip
    how = p.add_argument_group("how to run it")
    add_jobs(how)
    how.add_argument(
        "--output",
        type=Path,
        default=Path("classifier"),
        metavar="RUN",
        help="directory to write",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="go on where the run in this directory stopped, with its own options; begin it if it "
        "has not begun",
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="print the network's parameters, the memory and, from a short timed pilot, the time "
        "that its training would take, and write nothing",
    )


def body(options: argparse.Namespace) -> int:
    """Train a network; return the exit code."""
    from circuitsim.vision import ranks

    together = ranks.joined()
    if together.size == 1:
        with waiting.told("reading images"):
            run, data = _prepared(options)
        return _train(options, run, data)
    if options.dry_run:
        raise cli.UsageError("--dry-run has no effect with mpirun: leave one of them out")
    with ranks.together(together):
        return _train_together(options, together)


def _train_together(options: argparse.Namespace, together: Ranks) -> int:
    """Train as one of several processes, of which the first speaks."""
    import atexit
    import os
    import time
    from contextlib import ExitStack, redirect_stderr, redirect_stdout

    failed = True

    def leave() -> None:
        if failed:  # others may wait for this one for ever
            together.abort(cli.EXIT_FAILED)

    with ExitStack() as silent:
        if together.rank:
            nowhere = silent.enter_context(open(os.devnull, "w"))
            silent.enter_context(redirect_stdout(nowhere))
            silent.enter_context(redirect_stderr(nowhere))
        error: Exception | None = None
        try:
            run, data = _prepared(options)
            with _sharing_options():
                run.trainer(data)  # what is wrong is found before any of them waits for others
        except Exception as mistake:
            error = mistake
        try:
            together.agreed(error)
            if together.first(run.plain) != run.plain():
                error = cli.UsageError("--data: processes have different images; give all the same")
            together.agreed(error)
        except Exception:
            if together.rank == 0:
                raise
            return cli.EXIT_USER
        atexit.register(leave)
        try:
            code = _train(options, run, data, together.size)
        except BaseException as mistake:
            if together.rank:
                time.sleep(_GRACE)  # what befalls all is told by the first, which then ends all
                if isinstance(mistake, Exception):
                    told = f"{options.prog}: error: in process {together.rank}: {mistake}"
                    print(told, file=sys.__stderr__, flush=True)
                together.abort(cli.EXIT_FAILED)
            raise
        failed = False
        return code


def _prepared(options: argparse.Namespace) -> tuple[Run, Any]:
    """Describe the run, or read what goes on, and load its images."""
    from circuitsim.vision import checkpoints
    from circuitsim.vision.runs import Run

    directory: Path = options.output
    trained = (directory / checkpoints.ARRAYS).exists()
    begun = trained or (directory / checkpoints.DESCRIPTION).exists()
    if trained and not options.resume:
        raise cli.UsageError(
            f"--output {directory}: holds a run already; give --resume to go on with it, or name "
            "another directory"
        )
    if begun and options.resume:
        try:
            run = Run.read(directory)
        except FileNotFoundError as error:
            raise cli.UsageError(f"--output {error}") from None
        _check_same(options, run)
        return run, load_data(options, run.dataset, run)
    data = load_data(options, options.dataset)
    return _described(options, data), data


def _train(options: argparse.Namespace, run: Run, data: Any, processes: int = 1) -> int:
    """Train; processes share this machine's cores unless --jobs says how many each takes."""
    from circuitsim.files import provenance
    from circuitsim.files.locks import Taken
    from circuitsim.vision import parallel

    directory: Path = options.output
    threads = cli.jobs(options.jobs)
    if options.jobs is None:
        threads = max(1, threads // processes)
    if options.dry_run:
        with parallel.threads(threads), _sharing_options():
            for name, value in _estimate(run, data):
                print(f"{name:<12} {value}")
        return 0
    with parallel.threads(threads), _Observer(run) as observer, _sharing_options():
        options.kept.append(lambda: _kept(directory))
        try:
            made = provenance.versions() | provenance.made_here()
            made["command_line"] = options.command_line
            trainer, diverged = run.carry_out(directory, data, observer.advanced, made, wait=False)
        except Taken as error:
            raise cli.UsageError(
                f"--output {directory}: another process is training it: {error}"
            ) from None
        except (NotADirectoryError, PermissionError) as error:
            raise cli.UsageError(f"--output {directory}: {error.strerror}") from None
    if diverged is not None:
        print(
            f"{options.prog}: error: {diverged}; try a lower --learning-rate; {_kept(directory)}",
            file=sys.stderr,
        )
        return cli.EXIT_FAILED
    with waiting.told("drawing"):
        _draw(directory, trainer)
    print(f"\nrun: {directory}")
    return 0


def _draw(directory: Path, trainer: Trainer) -> None:
    """Draw how the training went, once, whatever processes took part."""
    from circuitsim import plots
    from circuitsim.vision import ranks, training
    from circuitsim.vision.evaluation import first_kernels

    if ranks.here().rank == 0:
        history = training.history(trainer.progress.history)
        figure = plots.training(history, first_kernels(trainer.network))
        plots.save(figure, directory / "training.png")


def _estimate(run: Run, data: Any) -> Iterator[tuple[str, str]]:
    """Say what a training would take; the pilot comes last."""
    from circuitsim.running.campaign import spoken

    architecture, training = run.architecture, run.training
    rows, columns, channels = architecture.input_shape
    parameters, needed = run.sizes()
    yield "images", f"{len(data.train)} of {rows} x {columns} x {channels}, {run.dataset}"
    kind = f"{architecture.network}, {architecture.connectivity}, width {architecture.width}"
    yield "network", kind + (", first layer conv" if architecture.first_conv else "")
    yield "parameters", f"{parameters:,}"
    yield "memory", f"about {needed / 1e9:.2g} GB, images not counted"
    trainer = run.trainer(data)
    yield "batches", f"{trainer.per_epoch} an epoch, of {training.batch_size} images"
    if run.sharing is not None and run.sharing.rule is not None and run.sharing.circuit is None:
        layers = trainer.network.lc_layers().values()
        inputs = {math.prod(layer.weights.shape[2:5]) for layer in layers}
        stages = " in each of two stages" * (run.sharing.periods == 2)
        for number in sorted({min(inputs), max(inputs)}):
            left = run.sharing.kept(number)
            shares = f"{left.deviation:.2g} of deviations and {left.mean:.3g} of the mean"
            yield "a sleep", f"leaves {shares}{stages}, for {number} inputs"
    seconds = trainer.seconds_per_epoch()
    yield "epoch", f"{spoken(seconds)}, from a pilot"
    yield "training", f"{spoken(seconds * training.epochs)} for {training.epochs} epochs"


def _described(options: argparse.Namespace, data: Any) -> Run:
    """Describe the run that the options ask for."""
    from circuitsim.commands.options import chosen
    from circuitsim.vision.networks import Architecture
    from circuitsim.vision.runs import Run
    from circuitsim.vision.training import Training

    training = chosen(Training, options)
    for name in ("milestones", "factor"):
        if options.schedule != "step" and training[name] != fields.default(Training, name):
            raise cli.UsageError(f"--{name} has no effect without --schedule step")
    return Run.new(data, Training(**training), _sharing(options), **chosen(Architecture, options))


def _sharing(options: argparse.Namespace) -> Sharing | None:
    from circuitsim.checks.values import ms
    from circuitsim.commands.options import chosen, spelled
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Training

    given = chosen(Sharing, options, _SHARING)
    given |= {**_times(options), "circuit": _circuit(options)}
    method = given.pop("method")
    given = {name: value for name, value in given.items() if value is not None}
    with _sharing_options():
        plain = None if method == "none" else Sharing(method)
    said = [*given]
    if options.sleep_length != fields.default(Training, "sleep_length"):
        said.append("sleep_length")
    heeded = frozenset[str]() if plain is None else plain.heeded
    if idle := [name for name in said if name not in heeded]:
        raise cli.UsageError(f"{spelled(idle[0], _SHARING)} has no effect with --sharing {method}")
    for name in ("alpha", "tau"):
        if name in given and "circuit" in given:
            raise cli.UsageError(f"--{name} has no effect with --circuit: write {name}=... there")
    if "presentations" in given and "presentations_per_input" in given:
        raise cli.UsageError("--presentations and --presentations-per-input: leave one out")
    if plain is None:
        return None
    if options.share_every is None:
        raise cli.UsageError(f"--sharing {method} needs --share-every, the batches between sleeps")
    given |= {name: given[name] * ms for name in TIMES if name in given}
    if plain.rule is not None:
        alone = {"alpha"} if "circuit" in given else set()
        given = {name: value for name, value in SLEEP.items() if name not in alone} | given
    with _sharing_options(), _circuit_option(options):
        return Sharing(method, **given)


def _times(options: argparse.Namespace) -> dict[str, float | None]:
    return {name: getattr(options, name) for name in TIMES}


def _circuit(options: argparse.Namespace) -> Circuit | None:
    """Return what --circuit says."""
    from circuitsim.vision.sharing import of_words

    if options.circuit is None:
        return None
    with _circuit_option(options):
        return of_words([word for given in options.circuit for word in given])


@contextmanager
def _circuit_option(options: argparse.Namespace) -> Iterator[None]:
    """Name --circuit, and the word of it that an error is about."""
    from circuitsim.checks.validation import ParameterError

    try:
        yield
    except ParameterError as error:
        owner, _, name = error.parameter.rpartition(".")
        if not options.circuit or (owner != "Circuit" and error.parameter != "Circuit"):
            raise
        words = [word for given in options.circuit for word in given]
        word = next((w for w in words if w.partition("=")[0].strip() == name), " ".join(words))
        raise ParameterError("circuit", error.rule, word) from None


@contextmanager
def _sharing_options() -> Iterator[None]:
    """Name the option of sharing in an error, not one of the same name."""
    from circuitsim.checks.validation import ParameterError

    of_rule = dict.fromkeys(("Sharing.method", "Rule.name", "Rule.signal"), "sharing")
    options = {"Sharing.learning_rate": "sharing_rate", **of_rule}
    try:
        yield
    except ParameterError as error:
        if error.parameter not in options:
            raise
        raise ParameterError(options[error.parameter], error.rule, error.value) from None


def _check_same(options: argparse.Namespace, run: Run) -> None:
    """Refuse options that differ both from their defaults and from the run that is to go on."""
    from dataclasses import asdict

    from circuitsim.checks.values import in_ms
    from circuitsim.commands.options import chosen, spelled
    from circuitsim.vision.networks import Architecture
    from circuitsim.vision.sharing import Sharing
    from circuitsim.vision.training import Training

    if options.sharing != "none":
        with _sharing_options():
            options.sharing = Sharing(options.sharing).method  # a definition in its usual form
    defaults = cli.parser(sys.modules[__name__], "").parse_args([])
    sharing = {"method": "none"} if run.sharing is None else asdict(run.sharing)
    times = {name: float(in_ms(sharing[name])) for name in TIMES if name in sharing}

    def asked(values: argparse.Namespace) -> tuple[dict[str, Any], ...]:
        return (
            chosen(Architecture, values),
            chosen(Training, values),
            chosen(Sharing, values, _SHARING) | _times(values) | {"circuit": _circuit(values)},
            {"dataset": values.dataset},
        )

    called: tuple[dict[str, str], ...] = ({}, {}, _SHARING, {})
    its = (
        asdict(run.architecture),
        asdict(run.training),
        sharing | times | {"circuit": None if run.sharing is None else run.sharing.circuit},
        {"dataset": run.dataset},
    )
    for names, given, usual, has in zip(called, asked(options), asked(defaults), its, strict=True):
        for name, value in given.items():
            if value not in (usual[name], has.get(name)):
                raise cli.UsageError(
                    f"{spelled(name, names)}: the run in {options.output} has {has.get(name)}; "
                    "leave it out to go on with it, or name another --output"
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

    def __init__(self, run: Run) -> None:
        self._run, self._epochs = run, run.training.epochs
        self._parts: tuple[str, ...] = ()
        self._printed = 0
        self._bar: Any = None

    def __enter__(self) -> _Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self, progress: Progress, trainer: Trainer) -> None:
        from circuitsim.commands.progress import bar

        for note in trainer.notes():
            print(f"note: {note}", file=sys.stderr)
        self._parts = trainer.parts
        self._printed = len(progress.history)
        if progress.batches:
            print(f"going on after {progress.epoch} epochs and {progress.batch} batches")
        print((" " * 6 + "".join(f"  {part:16}" for part in self._parts)).rstrip())
        print(
            " epoch"
            + "  loss    top-1   " * len(self._parts)
            + "     SNR_w" * bool(trainer.network.lc_layers())
            + "      time     left",
            flush=True,
        )
        done = progress.batches / trainer.per_epoch
        self._bar = bar(self._epochs, f"0/{self._epochs} epochs: ", initial=done)

    def advanced(self, progress: Progress, trainer: Trainer) -> None:
        if self._bar is None:
            self._begin(progress, trainer)
        done = progress.batches / trainer.per_epoch
        if progress.images:
            loss, top1, _ = progress.means
            self._bar.set_description_str(
                f"{done:.1f}/{self._epochs} epochs, loss {loss:.3f}, top-1 {100 * top1:.0f} %: ",
                refresh=False,
            )
        self._bar.update(done - self._bar.n)
        for number in range(self._printed, len(progress.history)):
            self._print(progress.history[: number + 1])
        self._printed = len(progress.history)

    def _print(self, history: list[dict[str, Any]]) -> None:
        from circuitsim import measures

        seconds = [row["seconds"] for row in history]
        left = sum(seconds) / len(seconds) * (self._epochs - len(history))
        scores = "".join(
            f"  {history[-1][part][0]:6.4f}  {100 * history[-1][part][1]:6.2f} %"
            for part in self._parts
        )
        # Those without two positions that see the same have none.
        of_layers = [
            min(snr, measures.SAME_SNR_W) for snr in history[-1]["snr_w"].values() if snr > 0
        ]
        if of_layers:  # their geometric mean
            mean = math.exp(sum(map(math.log, of_layers)) / len(of_layers))
            scores += f"  {mean:8.3g}"
        self._bar.clear()
        print(
            f"{len(history):3}/{self._epochs:<2}{scores}  "
            f"{seconds[-1]:6.1f} s  {self._bar.format_interval(left):>7}",
            flush=True,
        )
