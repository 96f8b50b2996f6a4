"""How far a campaign is, from what its processes leave on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitsim.checks.validation import ParameterError
from circuitsim.files import reason
from circuitsim.files.arrays import BadFile
from circuitsim.running import records, results
from circuitsim.running.campaign import Arrays, Campaign, Groups
from circuitsim.running.records import Place
from circuitsim.running.store import Store

Kinds = Mapping[str, type[Campaign[Any]]]


@dataclass(frozen=True)
class State:
    """How far a campaign is.

    Attributes
    ----------
    campaign : Campaign
    store : Store
        Of its finished tasks.
    tasks : list
        All of them, as far as they are known.
    finished, running, failed : set
        No task is in two of them; the others are missing. Files of finished tasks are there, and
        are checked when they are read.
    processes : list of Running
        That work on it.
    groups : dict or None
        Its result, if it is merged.
    """

    campaign: Campaign[Any]
    store: Store
    tasks: list[Any]
    finished: set[Any]
    running: set[Any]
    failed: set[Any]
    processes: list[records.Running]
    groups: Groups | None

    @property
    def missing(self) -> int:
        """Number of tasks that are neither finished nor running, and have not failed."""
        if self.groups is not None:
            return 0
        return len(self.tasks) - len(self.finished) - len(self.running) - len(self.failed)

    @property
    def seconds_left(self) -> float | None:
        """How long the processes that work on it will take; None where none does."""
        speed = sum(process.speed for process in self.processes)
        if not speed:
            return None
        over = self.finished | self.failed
        left = sum(self.campaign.cost(task) for task in self.tasks if task not in over)
        return max(left - sum(process.done for process in self.processes), 0.0) / speed

    def reader(self, note: Callable[[str], None]) -> Callable[[Any], Arrays | None]:
        """Return what reads finished tasks: None for others, and for bad files, which it notes."""

        def read(task: Any) -> Arrays | None:
            if task not in self.finished:
                return None
            try:
                return self.store.read(self.campaign, task)
            except (BadFile, OSError) as error:
                note(f"the file of {task} is bad ({error})")
                return None

        return read


def read(output: Path, kinds: Kinds) -> State:
    """Find out how far a campaign is; nothing is changed, and it may be running.

    Parameters
    ----------
    output : Path
        Its result, there or not yet, or the directory beside it that says what is run.
    kinds : mapping
        Campaigns by their names.

    Raises
    ------
    ParameterError
        If there is no campaign with this output.
    """
    if output.is_dir():
        if output.suffix != ".cells":
            there = sorted(output.glob("*.nc")) or [output / "sweep.nc"]
            raise ParameterError(
                "output", f"is a directory; name a result, such as {there[0]}", str(output)
            )
        output = output.with_suffix(".nc")
    directory = Place(output).record
    recorded, cells = _recorded(directory, output, kinds)
    merged = _result(output, directory, kinds)
    store = Store(Place(output, cells).directory)
    if merged is not None:
        campaign, groups = merged
        if recorded is None or recorded == campaign:
            tasks = known_tasks(campaign, store)
            return State(campaign, store, tasks, set(tasks), set(), set(), [], groups)
    if recorded is None:
        raise ParameterError(
            "output", f"there is no study: neither {output} nor {directory}/study.json", str(output)
        )
    processes = records.read_running(store.directory)
    present, failed = store.digests(), records.failed_digests(store.directory)
    under_way = frozenset().union(*(process.digests for process in processes))
    tasks = known_tasks(recorded, store)
    found: dict[str, set[Any]] = {"finished": set(), "running": set(), "failed": set()}
    for task in tasks:
        digest = recorded.digest(task)
        for name, digests in (("finished", present), ("running", under_way), ("failed", failed)):
            if digest in digests:
                found[name].add(task)
                break
    mine = {recorded.digest(task) for task in found["running"]}
    processes = [process for process in processes if process.digests & mine]
    return State(recorded, store, tasks, **found, processes=processes, groups=None)


def known_tasks(campaign: Campaign[Any], store: Store) -> list[Any]:
    """List the tasks, those too that results have made possible."""
    done: dict[Any, Arrays] = {}
    while True:
        tasks = campaign.tasks(done)
        if not campaign.adaptive:
            return tasks
        new = {}
        for task in store.finished(campaign, tasks) - done.keys():
            try:
                new[task] = store.read(campaign, task)
            except (BadFile, OSError):
                continue
        if not new:
            return tasks
        done |= new


def _recorded(
    directory: Path, output: Path, kinds: Kinds
) -> tuple[Campaign[Any] | None, Path | None]:
    try:
        record = records.read_study(directory)
        if record is None:
            return None, None
        return begun(record, kinds), record.cells
    except (records.BadRecord, OSError) as error:
        if output.exists():
            return None, None  # the result itself says it
        raise ParameterError(
            "output",
            f"{directory} cannot be read ({reason(error)}); run the study again",
            str(output),
        ) from None


def begun(record: records.Record, kinds: Kinds) -> Campaign[Any]:
    """Return the campaign that a record is of.

    Raises
    ------
    BadRecord
        If it is of none.
    """
    try:
        return kinds[record.kind].from_json(record.study)
    except KeyError:
        raise records.BadRecord(f"study.json: there is no {record.kind}") from None
    except ValueError as error:
        raise records.BadRecord(f"study.json: {error}") from None


def _result(output: Path, directory: Path, kinds: Kinds) -> tuple[Campaign[Any], Groups] | None:
    try:
        campaign, groups, _ = results.load(output, kinds.values())
    except FileNotFoundError:
        return None
    except ParameterError:
        if directory.is_dir():
            return None  # it is not finished
        raise
    return campaign, groups
