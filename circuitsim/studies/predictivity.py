"""How well the layers of trained networks predict recorded neurons, beside what must be beaten.

Each trained network is a task, and so are the same network untrained, and the stimuli's pixels and
edge energies; trainings that differ in their seeds alone count as one network, with the mean of
their correlations. See `circuitsim.vision.predictivity` for the measure.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from circuitsim.checks import fields
from circuitsim.checks.fields import declare
from circuitsim.checks.validation import ParameterError, integer
from circuitsim.files import read_text
from circuitsim.public import own
from circuitsim.running.campaign import (
    NUMBER,
    Arrays,
    Group,
    Groups,
    Layout,
    Listed,
    Progress,
    digest_of,
)
from circuitsim.vision import checkpoints, parallel, predictivity
from circuitsim.vision.archives import BadArchive, read_npy
from circuitsim.vision.networks import Network
from circuitsim.vision.runs import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from matplotlib.figure import Figure

__dir__ = own(__name__, "BASELINES")

BASELINES = {"pixels": predictivity.pixels, "edges": predictivity.gabor_energies}
_LARGEST = 128  # rows and columns of stimuli for the baselines
_UNTRAINED = "untrained_"


class Trained(NamedTuple):
    """A trained network.

    Attributes
    ----------
    name : str
        Of its directory.
    network : str
        Name that it shares with trainings of other seeds.
    digest : str
        Stands for its parameters.
    blank : str
        Stands for what it was before it was trained.
    layers : tuple of str
        Names of its layers.
    """

    name: str
    network: str
    digest: str
    blank: str
    layers: tuple[str, ...]


class Task(NamedTuple):
    """What features are of: ``trained`` or ``untrained`` of a run, a baseline, or ``neurons``.

    The last takes no features: it is the reliability of the neurons themselves.
    """

    what: str
    run: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.run}" if self.what.endswith("trained") else self.what


@dataclass(frozen=True)
class Predictivity(Listed[Task]):
    """Predictivity of neurons by the layers of trained networks; `of` makes it from files.

    Parameters
    ----------
    runs : sequence of Trained
    stimuli, responses : str
        Digests of the images and of the responses.
    shape : tuple of int
        Neurons, stimuli, and repeats (0 where there are means alone).
    size : tuple of int
        Rows, columns and channels of the stimuli for the baselines.
    components, folds, resamples, confidence, seed
        As in `circuitsim.vision.predictivity.measure`.
    places : tuple of str
        Where files are: of stimuli, responses, their order (empty: that of names), and runs. Not
        part of what determines the numbers.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    runs: tuple[Trained, ...] = ()
    stimuli: str = ""
    responses: str = ""
    shape: tuple[int, int, int] = (1, 1, 0)
    size: tuple[int, int, int] = (1, 1, 1)
    components: int = declare(
        predictivity.COMPONENTS, "components of the regression", "C", minimum=1
    )
    folds: int = declare(5, "parts of the images, each predicted from the others", "F", minimum=3)
    resamples: int = declare(2000, "bootstrap samples of neurons for intervals", "R", minimum=1)
    confidence: float = declare(0.95, "of the intervals", "SHARE", above=0, below=1)
    seed: int = declare(
        0, "fixes folds, halves of repeats, bootstrap and untrained networks", "SEED"
    )
    places: tuple[str, ...] = field(default=(), compare=False)

    kind = "predictivity"
    what = "the predictivity of neurons by networks"
    things = "sets of features"
    undefined = ("correlation", "reliability")
    units: ClassVar[Mapping[str, tuple[str, str]]] = {
        "source": ("network, untrained network or baseline", "1"),
        "other": ("what it is compared with", "1"),
        "neuron": ("neuron, in the order of the responses", "1"),
        "bound": ("bound of the interval", "1"),
        "run": ("training, of several seeds", "1"),
        "layer": ("layer of the network, or baseline", "1"),
        "fold": ("part of the images that is predicted from the others", "1"),
        "runs": ("trainings that the mean is over", "1"),
        "correlation": ("correlation of predictions with mean responses", "1"),
        "predictivity": ("correlation over the noise ceiling", "1"),
        "reliability": ("reliability of mean responses (split halves, Spearman-Brown)", "1"),
        "ceiling": ("noise ceiling of a correlation", "1"),
        "best_layer": ("number of the layer that is best on the other folds", "1"),
        "median_correlation": ("median over neurons of the correlation", "1"),
        "median_correlation_interval": ("its interval (bootstrap over neurons)", "1"),
        "median_predictivity": ("median over neurons of the predictivity", "1"),
        "median_predictivity_interval": ("its interval (bootstrap over neurons)", "1"),
        "deviation": ("standard deviation over trainings of the median correlation", "1"),
        "difference": ("median over neurons of the difference of correlations", "1"),
        "difference_interval": ("its interval (bootstrap over neurons)", "1"),
    }

    def __post_init__(self) -> None:
        runs = tuple(Trained(*run[:4], tuple(run[4])) for run in self.runs)
        object.__setattr__(self, "runs", runs)
        for name in ("shape", "size"):
            values = tuple(integer(name, v, minimum=0) for v in getattr(self, name))
            object.__setattr__(self, name, values)
        fields.check(self, prefix="")
        if not runs:
            raise ParameterError("run", "must name a trained network at least", None)
        layers = max(len(run.layers) for run in runs)
        predictivity.check(self.shape[:2], layers, **self._settings(), **self._bootstrap())

    def _settings(self) -> dict[str, int]:
        return {"components": self.components, "folds": self.folds, "seed": self.seed}

    def _bootstrap(self) -> dict[str, Any]:
        return {"resamples": self.resamples, "confidence": self.confidence}

    @classmethod
    def of(
        cls,
        runs: Sequence[Path],
        stimuli: Path,
        responses: Path,
        order: Path | None = None,
        **settings: Any,
    ) -> Predictivity:
        """Describe what files ask for.

        Parameters
        ----------
        runs : sequence of Path
            Directories of trained networks.
        stimuli : Path
            Directory or ``.zip`` file of images.
        responses : Path
            ``.npy`` file of numbers (neuron, stimulus), or (neuron, stimulus, repeat) with NaN
            where a repeat is missing.
        order : Path, optional
            Text file with the names of the stimuli, one a line, in the order of the responses.
        **settings
            Other fields.

        Raises
        ------
        ParameterError
            If files cannot be read or do not fit together.
        FileNotFoundError
            If a directory holds no run.
        """
        directories = [Path(directory) for directory in runs]
        for n, directory in enumerate(directories):
            if directory.resolve() in [other.resolve() for other in directories[:n]]:
                raise ParameterError("run", "must not be given twice", str(directory))
        names, digest, shape = predictivity.survey(stimuli, _read_order(order))
        values = _responses(responses)
        _check_numbers(values, len(names), responses)
        larger = max(1.0, max(shape[:2]) / _LARGEST)
        rows, columns = (max(1, round(n / larger)) for n in shape[:2])
        places = [stimuli, responses, order, *directories]
        return cls(
            runs=_described(directories),
            stimuli=digest,
            responses=_digest(values),
            shape=(*values.shape, 0)[:3],
            size=(rows, columns, shape[2]),
            places=tuple("" if p is None else str(Path(p).absolute()) for p in places),
            **settings,
        )

    # -- what is to be done ------------------------------------------------------------------------

    @property
    def every_task(self) -> list[Task]:
        """Networks trained and, each kind and seed once, untrained; baselines; and the neurons."""
        trained = [Task("trained", n) for n in range(len(self.runs))]
        blanks = dict.fromkeys(self._untrained(n) for n in range(len(self.runs)))
        return [*trained, *blanks, *map(Task, BASELINES), Task("neurons")]

    def _untrained(self, run: int) -> Task:
        blanks = [one.blank for one in self.runs]
        return Task("untrained", blanks.index(blanks[run]))

    def determining(self, task: Task) -> dict[str, Any]:
        """What a task's numbers depend on: not which other networks there are."""
        of: Any = {"trained": "digest", "untrained": "blank"}.get(task.what)
        return {
            "what": task.what,
            "of": getattr(self.runs[task.run], of) if of else "",
            "stimuli": "" if task.what == "neurons" else self.stimuli,
            "size": list(self.size) if task.what in BASELINES else [],
            "responses": self.responses,
            **self._settings(),
        }

    def digest(self, task: Task) -> str:
        """Name of a task's result."""
        return digest_of(kind=self.kind, scheme=self.scheme, **self.determining(task))

    def layout(self, task: Task) -> Layout:
        """Correlations of each layer; of the neurons, their reliability."""
        if task.what == "neurons":
            return {"reliability": ((self.shape[0],), NUMBER)}
        shape = (len(self._layers(task)), self.shape[0], self.folds)
        return {"correlation": (shape, NUMBER)}

    def _layers(self, task: Task) -> tuple[str, ...]:
        return self.runs[task.run].layers if task.what.endswith("trained") else (task.what,)

    def cost(self, task: Task) -> float:
        """Layers."""
        return float(len(self._layers(task)))

    def run_one(self, task: Task, progress: Progress | None) -> Arrays:
        """Read the files, compute features, and regress."""
        if len(self.places) < 3 + len(self.runs):
            raise ParameterError(
                "stimuli", "must be given again, with --responses and --run: a result does not "
                "say where they are", None,
            )  # fmt: skip
        stimuli, file, order, *runs = (Path(place) if place else None for place in self.places)
        assert stimuli is not None
        assert file is not None
        responses = _responses(file)
        if _digest(responses) != self.responses:
            raise ParameterError("responses", "have changed since this was begun", str(file))
        if responses.ndim == 3:
            if task.what == "neurons":
                return {"reliability": predictivity.reliability(responses, seed=self.seed)}
            responses = predictivity.mean_responses(responses)
        if task.what == "neurons":
            return {"reliability": np.full(len(responses), np.nan)}
        names = _read_order(order)
        if predictivity.survey(stimuli, names)[1] != self.stimuli:
            raise ParameterError("stimuli", "have changed since this was begun", str(stimuli))
        with parallel.threads(1):
            features = self._features(task, stimuli, names, runs)
            found = predictivity.correlations(
                features, responses, **self._settings(), advanced=progress
            )
        return {"correlation": found}

    def _features(
        self, task: Task, stimuli: Path, names: list[str] | None, runs: Sequence[Path | None]
    ) -> Mapping[str, Any]:
        if task.what in BASELINES:
            _, images = predictivity.stimuli(stimuli, self.size, names)
            return {task.what: BASELINES[task.what](images)}
        directory = runs[task.run]
        assert directory is not None
        run = Run.read(directory)
        if _parameters(directory) != self.runs[task.run].digest:
            raise ParameterError("run", "has been trained on since this was begun", str(directory))
        network = run.network(directory)
        _, images = predictivity.stimuli(stimuli, run.architecture.input_shape, names)
        if task.what == "untrained":
            network = predictivity.untrained(network, images, run.training.seed)
        return predictivity.network_features(network, images, *run.statistics)

    # -- the file ----------------------------------------------------------------------------------

    @property
    def networks(self) -> dict[str, list[int]]:
        """Names of networks, and the numbers of their trainings."""
        found: dict[str, list[int]] = {}
        for n, run in enumerate(self.runs):
            found.setdefault(run.network, []).append(n)
        return found

    def _sources(self) -> dict[str, list[Task]]:
        """What there is to compare, and the tasks whose mean it is."""
        networks = self.networks
        found = {name: [Task("trained", n) for n in of] for name, of in networks.items()}
        for name, of in networks.items():
            found[_UNTRAINED + name] = list(dict.fromkeys(map(self._untrained, of)))
        return found | {name: [Task(name)] for name in BASELINES}

    def groups(self) -> dict[str, Group]:
        """The comparison in the root; and a group for each network, with all its layers."""
        sources = self._sources()
        bounds, neurons = ("lower", "upper"), range(self.shape[0])
        over = {"source": tuple(sources)}
        groups = {
            "": Group(
                {**over, "other": tuple(sources), "neuron": neurons, "bound": bounds},
                {
                    **dict.fromkeys(("correlation", "predictivity"), ("source", "neuron")),
                    **dict.fromkeys(("reliability", "ceiling"), ("neuron",)),
                    **_of_medians("source"),
                    **dict.fromkeys(("runs", "deviation"), ("source",)),
                    "difference": ("source", "other"),
                    "difference_interval": ("source", "other", "bound"),
                },
            )
        }
        for name, tasks in sources.items():
            axes = {
                "run": range(len(tasks)),
                "layer": self._layers(tasks[0]),
                "neuron": neurons,
                "fold": range(self.folds),
                "bound": bounds,
            }
            groups[name] = Group(
                axes,
                {
                    "correlation": ("run", "layer", "neuron", "fold"),
                    "best_layer": ("run", "fold"),
                    **_of_medians("layer"),
                },
            )
        return groups

    def collect(self, read: Callable[[Task], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Choose layers, take means over trainings and medians over neurons."""
        reliable = read(Task("neurons"))["reliability"]
        ceiling = predictivity.ceilings(reliable)
        best, runs, deviation, inner = [], [], [], []
        for name, tasks in self._sources().items():
            found = np.stack([read(task)["correlation"] for task in tasks])
            chosen = [predictivity.best_layers(one) for one in found]
            at_best = np.stack(
                [
                    predictivity.at_best(one, c).mean(-1)
                    for one, c in zip(found, chosen, strict=True)
                ]
            )
            best.append(at_best.mean(axis=0))
            runs.append(len(tasks))
            with np.errstate(invalid="ignore"):
                each = _nanmedian(at_best)
            deviation.append(each.std(ddof=1) if len(tasks) > 1 else math.nan)
            of_layers = found.mean(axis=(0, 3))
            numbers = {"correlation": found, "best_layer": np.array(chosen, float)}
            inner.append((name, numbers | self._medians(of_layers, ceiling)))
        correlation = np.stack(best)
        difference, interval = self._median(correlation[:, None] - correlation[None])
        yield "", {
            "correlation": correlation, "predictivity": correlation / ceiling,
            "reliability": reliable, "ceiling": ceiling,
            **self._medians(correlation, ceiling),
            "runs": np.array(runs, float), "deviation": np.array(deviation),
            "difference": difference, "difference_interval": interval,
        }, "Predictivity of neurons by networks, each at its best layer"  # fmt: skip
        for name, numbers in inner:
            yield name, numbers, f"Predictivity of neurons by the layers of {name}"

    def _median(self, of_neurons: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        return predictivity.medians(of_neurons, seed=self.seed, **self._bootstrap())

    def _medians(self, correlation: Any, ceiling: Any) -> Arrays:
        found: Arrays = {}
        for name, values in (("correlation", correlation), ("predictivity", correlation / ceiling)):
            median, interval = self._median(values)
            found |= {f"median_{name}": median, f"median_{name}_interval": interval}
        return found

    # -- what came out -----------------------------------------------------------------------------

    def outline(self) -> list[tuple[str, str]]:
        """Say what would be computed."""
        neurons, images, repeats = self.shape
        told = f"{neurons} neurons, {images} stimuli"
        named = [f"{name} ({len(of)} runs)" * (len(of) > 1) or name
                 for name, of in self.networks.items()]  # fmt: skip
        return [
            ("networks", ", ".join(named)),
            ("responses", told + (f", up to {repeats} repeats" if repeats else ", means alone")),
            ("regression", f"PLS with {self.components} components, {self.folds} folds"),
            ("intervals", f"{100 * self.confidence:g} %, {self.resamples} samples of neurons"),
            ("seed", str(self.seed)),
        ]

    def table(self, groups: Groups) -> str:
        """One line for each network and baseline."""
        root = groups[""]
        width = max(len(str(name)) for name in root["source"].to_numpy())
        lines = [f"{'':{width}}  {'correlation':<22}{'over the ceiling':<22}{'best layer':<14}"]
        for name in map(str, root["source"].to_numpy()):
            one = root.sel(source=name)
            lines.append(
                f"{name:{width}}  {_interval(one, 'median_correlation'):<22}"
                f"{_interval(one, 'median_predictivity'):<22}{self._best(groups[name])}".rstrip()
            )
        return "\n".join([*lines, "", *self._differences(root)])

    def _best(self, of: xr.Dataset) -> str:
        """The layer that is chosen most often."""
        numbers = of["best_layer"].to_numpy().astype(int).ravel()
        return str(of["layer"].to_numpy()[np.bincount(numbers).argmax()])

    def _differences(self, root: xr.Dataset) -> list[str]:
        """How networks differ from the best of what they must beat, and from each other."""
        networks = list(self.networks)
        median = root["median_correlation"]
        pairs = []
        for name in networks:
            rivals = [_UNTRAINED + name, *BASELINES]
            values = [float(median.sel(source=rival)) for rival in rivals]
            if np.isfinite(values).any():
                pairs.append((name, rivals[int(np.nanargmax(values))]))
        pairs += [(b, a) for n, b in enumerate(networks) for a in networks[:n]]
        lines = ["differences of correlations, median over neurons:"]
        for name, other in pairs:
            one = root.sel(source=name, other=other)
            lines.append(f"  {name} - {other}: {_interval(one, 'difference', '+')}")
        return lines

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure, its settings and its table, as Markdown."""
        settings = "\n".join(f"- {name}: {value}" for name, value in self.outline())
        text = (
            "How well networks predict recorded neurons. **A** Each network at the layer that is "
            "best on other folds than it is scored on, beside the same network untrained, the "
            "stimuli's pixels and their edge energies (Gabor functions): median over neurons and "
            f"its {100 * self.confidence:g} % interval; dots are neurons. **B** All layers of the "
            "trained networks (lines) and untrained (dashed). Correlations are of cross-validated "
            "predictions with mean responses"
            + (", divided by the noise ceiling." if self._normalised(groups[""]) else ".")
            + " Where there are several trainings of a network, its correlations are their mean; "
            "intervals are over neurons."
        )
        return "\n\n".join([
            "# Predictivity of neurons by networks", f"`{command_line}`", text, settings,
            f"```\n{self.table(groups)}\n```\n",
        ])  # fmt: skip

    @staticmethod
    def _normalised(root: xr.Dataset) -> bool:
        return bool(np.isfinite(root["median_predictivity"]).any())

    def draw(self, groups: Groups) -> Figure:
        """Draw networks beside baselines, and layers."""
        from circuitsim.plots.predictivity import predictivity as draw

        return draw(groups, list(self.networks))

    def notes(self, groups: Groups) -> list[str]:
        """Which neurons are left out of what."""
        root, lines = groups[""], []
        flat = int(np.isnan(root["correlation"].to_numpy()).any(axis=0).sum())
        if flat:
            lines.append(f"{flat} of {self.shape[0]} neurons always respond alike: left out")
        without = int(np.isnan(root["ceiling"].to_numpy()).sum())
        if self.shape[2] and without:
            lines.append(
                f"{without} of {self.shape[0]} neurons have no reliability of "
                f"{predictivity.RELIABLE:g} or more (or no repeats): not divided by a ceiling, and "
                "left out there"
            )
        return lines


def _of_medians(axis: str) -> dict[str, tuple[str, ...]]:
    names = ("median_correlation", "median_predictivity")
    return dict.fromkeys(names, (axis,)) | {f"{name}_interval": (axis, "bound") for name in names}


def _nanmedian(values: Any) -> Any:
    known = np.isfinite(values).all(axis=0)
    return np.median(values[:, known], axis=1) if known.any() else np.full(len(values), np.nan)


def _interval(one: xr.Dataset, name: str, sign: str = "") -> str:
    low, high = one[f"{name}_interval"].to_numpy()
    value = float(one[name])
    if not math.isfinite(value):
        return "-"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


# --- files ----------------------------------------------------------------------------------------


def _described(directories: Sequence[Path]) -> tuple[Trained, ...]:
    found, kinds = [], []
    for directory in directories:
        run = Run.read(directory)
        plain = run.plain()
        plain["training"] = plain["training"] | {"seed": None}
        for name in ("mean", "deviation"):  # of the images that the seed has chosen
            plain.pop(name)
        kinds.append(json.dumps(plain, sort_keys=True))
        blank = {"architecture": asdict(run.architecture), "seed": run.training.seed}
        names = tuple(Network(run.architecture).activity_names())
        found.append((directory, _parameters(directory), digest_of(**blank), names))
    labels = _labels([directory.resolve().name for directory in directories], kinds)
    names_of = _distinct([_word(directory.resolve().name) for directory in directories])
    return tuple(
        Trained(name, label, digest, blank, layers)
        for name, label, (_, digest, blank, layers) in zip(names_of, labels, found, strict=True)
    )


def _labels(names: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Name each kind of run by what the names of its directories begin with."""
    by_kind: dict[str, str] = {}
    for kind in dict.fromkeys(kinds):
        of = [name for name, other in zip(names, kinds, strict=True) if other == kind]
        start = _start(of) if len(of) > 1 else of[0]
        if len(of) > 1:
            start = re.sub(r"[-_. ]*(seed)?[-_. ]*$", "", start) or of[0]
        by_kind[kind] = _word(start)
    distinct = dict(zip(by_kind, _distinct(list(by_kind.values())), strict=True))
    return [distinct[kind] for kind in kinds]


def _start(names: Sequence[str]) -> str:
    """Letters that all names begin with."""
    first, last = min(names), max(names)
    alike = [a == b for a, b in zip(first, last, strict=False)]
    return first[: alike.index(False)] if False in alike else first[: len(alike)]


def _word(name: str) -> str:
    """Return a name without what separates names in a file."""
    return re.sub(r"[\s/]+", "_", name).strip(".") or "run"


def _distinct(names: list[str]) -> list[str]:
    taken = {*BASELINES}
    found = []
    for name in names:
        number, new = 1, name
        while new in taken or new.startswith(_UNTRAINED):
            number += 1
            new = f"{name.removeprefix(_UNTRAINED)}_{number}"
        taken.add(new)
        found.append(new)
    return found


def _parameters(directory: Path) -> str:
    """Digest of a trained network, whatever it was called."""
    if checkpoints.read_progress(directory) is None:
        raise ParameterError("run", "has no checkpoint yet; let it train", str(directory))
    with (directory / checkpoints.ARRAYS).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    description = json.dumps(Run.read(directory).plain(), sort_keys=True)
    return hashlib.sha256((content + description).encode()).hexdigest()[:32]


def _read_order(file: Path | None) -> list[str] | None:
    if file is None:
        return None
    try:
        lines = read_text(Path(file)).splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ParameterError("order", f"cannot be read ({why})", str(file)) from None
    return [line.strip() for line in lines if line.strip()]


@lru_cache(1)
def _read_responses(file: str, changed: int) -> np.ndarray[Any, Any]:
    try:
        array = read_npy(Path(file))
    except (OSError, ValueError, BadArchive) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ParameterError("responses", f"cannot be read ({why})", file) from None
    if array.dtype.kind not in "fiu":
        raise ParameterError("responses", f"must be numbers, and are {array.dtype}", file)
    array = array.astype(float)
    array.setflags(write=False)
    return array


def _responses(file: Path) -> np.ndarray[Any, Any]:
    try:
        changed = os.stat(file).st_mtime_ns
    except OSError as error:
        raise ParameterError("responses", f"cannot be read ({error.strerror})", str(file)) from None
    return _read_responses(str(file), changed)


def _digest(values: np.ndarray[Any, Any]) -> str:
    content = np.ascontiguousarray(values, "<f8")
    whole = hashlib.sha256(repr(values.shape).encode() + content.tobytes())
    return whole.hexdigest()[:32]


def _check_numbers(values: np.ndarray[Any, Any], images: int, file: Path) -> None:
    """Refuse responses that are not of so many images, or to some of them are none."""
    form = "(neuron, stimulus), or (neuron, stimulus, repeat) with NaN where one is missing"
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ParameterError(
            "responses", f"must be {form}; they have the shape {values.shape}", str(file)
        )
    if values.shape[1] != images:
        hint = "; is it (stimulus, neuron)?" if values.shape[0] == images else ""
        raise ParameterError(
            "responses",
            f"are to {values.shape[1]} stimuli, and there are {images}; they must be {form}{hint}",
            str(file),
        )
    if values.ndim == 3:
        if np.isinf(values).any():
            raise ParameterError("responses", "must be finite, or NaN where missing", str(file))
        try:
            predictivity.mean_responses(values)
        except ParameterError as error:
            raise ParameterError("responses", f"{error.rule} ({error.value})", str(file)) from None
    elif not np.isfinite(values).all():
        neurons = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ParameterError(
            "responses",
            f"must be finite: {(~np.isfinite(values)).sum()} are NaN or infinite, of "
            f"{len(neurons)} neurons (the first is {neurons[0]}); leave those out, or give all "
            "repeats, (neuron, stimulus, repeat), with NaN where one is missing",
            str(file),
        )
