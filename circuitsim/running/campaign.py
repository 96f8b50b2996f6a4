"""What a study declares, so that it can be run, kept, resumed, merged, repeated and told about.

A campaign is a list of tasks that each give some arrays, and a file that all of them make. Whatever
runs, keeps and writes them asks the campaign what it has to know, and knows nothing of circuits,
images or figures. docs/extending.md adds a campaign step by step.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.public import own

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__dir__ = own(__name__, "NUMBER")

T = TypeVar("T")  # what a campaign's tasks are: hashable, with a readable str()

Arrays = dict[str, NDArray[Any]]
Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
Groups = dict[str, "xr.Dataset"]
Progress = Callable[[float], None]

NUMBER = np.dtype("<f8")


@dataclass(frozen=True)
class Group:
    """What a group of a result's file holds: written, sealed, read and checked from this.

    Attributes
    ----------
    axes : mapping
        From the names of dimensions to their values: numbers or names. A range takes no memory,
        whatever a hostile file says of its length.
    variables : mapping
        From the names of variables to their dimensions.
    attributes : mapping
        What the group's attributes must be, since it follows from the campaign.
    complete : bool
        Whether all values must be numbers, none NaN.
    """

    axes: Mapping[str, Any]
    variables: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """From the names of variables and coordinates to their shapes."""
        sizes = {name: len(values) for name, values in self.axes.items()}
        return {name: (size,) for name, size in sizes.items()} | {
            name: tuple(sizes[dim] for dim in dims) for name, dims in self.variables.items()
        }


class Campaign(ABC, Generic[T]):
    """A study that can be run: what its tasks are, and what becomes of their results.

    Subclasses are frozen dataclasses whose fields determine all numbers. Their digests name
    results on disk, so that a task that two campaigns share is computed once.
    """

    kind: ClassVar[str]  # its name in commands and records
    called: ClassVar[str] = "figure"  # what it is, for messages
    things: ClassVar[str] = "circuits"  # what its tasks are, for messages
    part_size: ClassVar[str] = ""  # of how many tasks a part is, for messages
    adaptive: ClassVar[bool] = False  # whether later tasks depend on the results of others
    units: ClassVar[Mapping[str, tuple[str, str]]]  # long name and unit of all variables and axes
    what: ClassVar[str]  # what a file of it is, for messages
    format: ClassVar[tuple[str, int]]  # of its files, and its version
    infinite: ClassVar[Collection[str]] = ()  # arrays of a result that may have infinite numbers
    scheme: ClassVar[int] = 1  # raised when the same campaign would give other numbers
    undefined: ClassVar[Collection[str]] = ()  # those that may have NaN too

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            cls.what = vars(cls).get("what", f"the data of {cls.kind}")
            cls.format = getattr(cls, "format", (f"circuitsim {cls.kind}", 1))

    # -- what is to be done ------------------------------------------------------------------------

    @property
    @abstractmethod
    def parts(self) -> int:
        """Number of parts, of which each can be run on its own, on any machine."""

    @abstractmethod
    def tasks(
        self, done: Mapping[T, Arrays] | None = None, parts: Sequence[int] | None = None
    ) -> list[T]:
        """List the tasks in the order of the work.

        Parameters
        ----------
        done : mapping
            Results so far; only an adaptive campaign asks for them, and lists what they make
            possible.
        parts : sequence of int, optional
            List only what these parts need.

        Raises
        ------
        ParameterError
            If there is no such part.
        """

    def part(self, number: int) -> tuple[T, ...]:
        """Return the tasks of one part; raises as `tasks`."""
        return tuple(self.tasks({}, [number]))

    def jobs(self, tasks: Sequence[T]) -> list[tuple[T, ...]]:
        """Split tasks into those that `run` is given at once; each on its own by default."""
        return [(task,) for task in tasks]

    @abstractmethod
    def run(self, tasks: Sequence[T], progress: Progress | None = None) -> list[Arrays]:
        """Run tasks of one job, wherever this is called; results in their order.

        A task's numbers do not depend on those that are run with it.
        """

    def cost(self, task: T) -> float:
        """How long a task takes, in any unit; those that take longest start first."""
        return 1.0

    @property
    def quick(self) -> bool:
        """Whether all takes seconds, so that finished tasks are not worth files."""
        return False

    @property
    def threads(self) -> bool:
        """Whether threads of one process can run the tasks at the same time."""
        return False

    def check(self, store: Path) -> None:
        """Refuse what cannot be run here, before anything is written.

        Parameters
        ----------
        store : Path
            Directory of finished tasks.

        Raises
        ------
        ParameterError
        """

    def prepare(self) -> None:
        """Make ready, in the main thread, where an interrupt is met at once."""

    @staticmethod
    def stop() -> None:
        """End what `run` has started outside of its process, which is about to end."""

    def directory(self, store: Path) -> Campaign[T]:
        """Return this campaign with a directory in which its tasks may keep what they like."""
        return self

    # -- how results are kept ----------------------------------------------------------------------

    @abstractmethod
    def digest(self, task: T) -> str:
        """Name of a task's result: 32 hexadecimal digits of all that determines its numbers."""

    @abstractmethod
    def describe(self, task: T) -> str:
        """Return the task as ASCII text, always the same, kept with its result."""

    @abstractmethod
    def layout(self, task: T) -> Layout:
        """Shape and type of every array of a result: what a file must be before it is believed."""

    # -- the file ----------------------------------------------------------------------------------

    @abstractmethod
    def groups(self) -> dict[str, Group]:
        """Groups of the file, ``""`` for its root."""

    def former_groups(self) -> list[dict[str, Group]]:
        """What other groups earlier files of the same format have, which are read, too."""
        return []

    @abstractmethod
    def collect(self, read: Callable[[T], Arrays]) -> Iterator[tuple[str, Arrays, str]]:
        """Give groups of the file one by one: name, variables, and title."""

    def complete(self, done: Mapping[T, Arrays]) -> Campaign[T]:
        """Return an adaptive campaign with what only its results tell of its file."""
        return self

    def attributes(self) -> dict[str, Any]:
        """What the file's attributes say beside format and provenance; `from_attributes` reads."""
        return {"study": self.to_json()}

    @classmethod
    def recognises(cls, attributes: Mapping[str, Any]) -> bool:
        """Whether a file with these attributes is one of this kind, of any version."""
        return attributes.get("format") == cls.format[0]

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, Any], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Self:
        """Return the campaign that a file describes.

        Parameters
        ----------
        attributes : mapping
            Of the file.
        of_group : callable
            Reads those of one of its groups.

        Raises
        ------
        ValueError
            If it describes none.
        """
        return cls.from_json(attributes.get("study"))

    reproducible: ClassVar[bool] = True  # files say neither where nor when they were made

    # -- the campaign as text ----------------------------------------------------------------------

    def to_json(self) -> str:
        """Return all parameters as text."""
        values = asdict(self)  # type: ignore[call-overload]
        return json.dumps({f.name: values[f.name] for f in self._determining()})

    @classmethod
    def _determining(cls) -> list[Any]:
        """Fields that numbers depend on: not where files are, which does not count in ==."""
        return [f for f in fields(cls) if f.compare]  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """Return the campaign that `to_json` has described; unknown parameters are left out.

        Raises
        ------
        ValueError
            If the text describes no valid campaign.
        """
        try:
            values = json.loads(text)
            known = {f.name for f in cls._determining()}
            lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            return cls(**{name: v for name, v in (values | lists).items() if name in known})
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"it describes no valid study: {error}") from None

    grid: ClassVar[tuple[str, ...]] = ()  # fields that list values, of which more may be added
    counted: ClassVar[tuple[str, ...]] = ()  # fields that say how many, of which more may be asked

    def difference(self, other: Any) -> str:
        """What keeps this campaign from having all tasks of another, in words; empty if nothing."""
        if type(other) is not type(self):
            return f"a {other.kind}"
        differences = []
        mine, theirs = (vars(one) for one in (self, other))
        for f in self._determining():
            ours, its = mine[f.name], theirs[f.name]
            if f.name in self.grid:
                missing = [shown(v) for v in its if v not in ours]
                if missing:
                    differences.append(f"{f.name} {', '.join(missing)} is not in this one")
            elif f.name in self.counted:
                if ours < its:
                    differences.append(f"{its} {f.name}, not {ours}")
            elif ours != its:
                told = ["by default" if value is None else value for value in (its, ours)]
                differences.append(f"{f.name} {told[0]}, not {told[1]}")
        return "; ".join(differences)

    def extends(self, other: Any) -> bool:
        """Whether this campaign has all tasks of another, and perhaps more."""
        return not self.difference(other)

    # -- before it starts --------------------------------------------------------------------------

    @property
    def compiled(self) -> str:
        """What is compiled before tasks run, in words; empty if nothing is."""
        return ""

    def memory(self) -> dict[str, float]:
        """Bytes that running it takes at least, by the parameter that matters most to it."""
        return {}

    def outline(self) -> list[tuple[str, str]]:
        """Say what would be run, in names and values."""
        values = ((f.name, getattr(self, f.name)) for f in self._determining())
        return [
            (n, " ".join(map(shown, v)) if isinstance(v, tuple) else shown(v)) for n, v in values
        ]

    def pilot(self, tasks: Sequence[T], jobs: int) -> tuple[float, float]:
        """Seconds that tasks would take, to get ready and to run.

        By default the task that costs least is run, and the others are taken to cost as they say.
        """
        least = min(tasks, key=self.cost)
        began = time.monotonic()
        self.run([least])
        seconds = (time.monotonic() - began) / self.cost(least)
        return 0.0, sum(map(self.cost, tasks)) * seconds / min(jobs, len(tasks))

    def faster(self, tasks: Sequence[T], jobs: int, seconds: float) -> list[str]:
        """Name a faster way to the same numbers, if there is one, for what takes so long."""
        return []

    # -- what came out -----------------------------------------------------------------------------

    @property
    def file_name(self) -> str:
        """Name of its files in a directory, without endings."""
        return self.kind

    @abstractmethod
    def table(self, groups: Groups) -> str:
        """Summarise the result, in lines of at most 79 columns."""

    def so_far(self, read: Callable[[T], Arrays | None]) -> Iterator[str]:
        """Summarise what is finished of it, line by line; ``read`` gives None for what is not."""
        return iter(())

    def caption(self, groups: Groups, command_line: str) -> str:
        """Describe the figure, as Markdown: by default its settings and its table."""
        settings = "\n".join(f"- {name}: {value}" for name, value in self.outline())
        made = f"Made by `{command_line}`."
        parts = [f"# {self.kind}", settings, made, f"```\n{self.table(groups)}\n```\n"]
        return "\n\n".join(parts)

    @abstractmethod
    def draw(self, groups: Groups) -> Figure:
        """Draw the result."""

    def tell(self, task: T, result: Arrays) -> str:
        """Say in a line what came of a task, if that is worth it."""
        return ""

    def further_files(self, groups: Groups) -> dict[str, str]:
        """Further text files beside the figure, by their endings."""
        return {}

    def failed(self, groups: Groups) -> list[str]:
        """What of the finished result counts as failed, one line each."""
        return []

    def notes(self, groups: Groups) -> list[str]:
        """What else the user should know of the result, one line each."""
        return []


class Listed(Campaign[T]):
    """A campaign whose tasks are all known at the start, and are each run on their own."""

    @property
    @abstractmethod
    def every_task(self) -> list[T]:
        """All tasks."""

    @abstractmethod
    def run_one(self, task: T, progress: Progress | None) -> Arrays:
        """Run a task."""

    def determining(self, task: T) -> dict[str, Any]:
        """All that a task's numbers depend on, as JSON can hold it: by default every field."""
        return {"study": self.to_json(), "task": str(task)}

    @property
    def parts(self) -> int:
        """One for each task."""
        return len(self.every_task)

    def tasks(
        self, done: Mapping[T, Arrays] | None = None, parts: Sequence[int] | None = None
    ) -> list[T]:
        """List all tasks, or those of some parts."""
        every = self.every_task
        return every if parts is None else [every[chosen_part(n, len(every))] for n in parts]

    def run(self, tasks: Sequence[T], progress: Progress | None = None) -> list[Arrays]:
        """Run tasks one after the other."""
        return [self.run_one(task, progress) for task in tasks]

    def digest(self, task: T) -> str:
        """Name of a task's result."""
        return digest_of(kind=self.kind, scheme=self.scheme, **self.determining(task))

    def describe(self, task: T) -> str:
        """Return the task as text."""
        return str(task)


def digest_of(**values: Any) -> str:
    """Return 32 hexadecimal digits that stand for values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def shown(value: Any) -> str:
    """Return a value as a user would write it."""
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def spoken(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def batched(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    """Split a sequence into tuples of at most ``size``."""
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]


def chosen_part(number: int, parts: int) -> int:
    """Return the number of a part if there is one.

    Raises
    ------
    ParameterError
        If there is none.
    """
    if not 0 <= number < parts:
        raise ParameterError("cell", f"must be from 0 to {parts - 1}", number)
    return number
