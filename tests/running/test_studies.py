"""Studies that are watched, fail in part, run elsewhere, and are killed at any moment."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from commands import Forked, assert_same_data, command, processes_with, run, wait_for

import circuitsim as cs
from circuitsim import files, status, studies, sweep
from circuitsim.running import compare, local, records, results, runner, slurm, state
from circuitsim.running.store import Store
from circuitsim.studies.registry import KINDS
from circuitsim.studies.sweep import CELLS_PER_JOB, LIMITS, Study, load_seconds, run_cells

pytestmark = pytest.mark.slow

STUDY = Study(k=(2, 3), gamma=(0.1, 0.01), trials=12, presentations=5, neurons=(6,),
              engine="propagator", codegen="numpy")  # fmt: skip
OPTIONS = ["--k", 2, 3, "--gamma", 0.1, 0.01, "--trials", 12, "--presentations", 5, "--neurons", 6,
           "--engine", "propagator", "--codegen", "numpy"]  # fmt: skip
SIZE, PARTS = 48, 6


def in_process(*arguments, module=sweep):
    return module.main(list(map(str, arguments)))


def threaded(study, output, **options):
    with ThreadPoolExecutor(2) as executor:
        return studies.run(study, output, executor, **options)


@pytest.fixture(scope="module")
def finished(once):
    """The result of an uninterrupted study."""
    place, summary = once("finished", lambda place: threaded(STUDY, place / "out.nc"))
    assert (summary.total, summary.computed, summary.failures) == (SIZE, SIZE, [])
    return place / "out.nc"


class Faulty(Executor):
    """Runs jobs at once, and fails as it is told."""

    def __init__(self, fault):
        self.fault = fault
        self.calls = []

    def submit(self, fn, /, study, cells):
        self.calls.append(cells)
        future = Future()
        try:
            self.fault(cells)
            future.set_result(fn(study, cells))
        except Exception as error:
            future.set_exception(error)
        return future


# -- the fixed list of parts ----------------------------------------------------------------------


def test_parts_are_the_jobs_of_all_cells():
    study = Study(k=(2, 3), neurons=(4, 5), gamma=(0.1, 0.2, 0.3), trials=7)
    jobs = study.jobs(study.cells)
    assert study.parts == len(jobs) == 12
    assert study.size == len(study.cells)
    assert [study.part(number) for number in range(study.parts)] == jobs
    assert max(map(len, jobs)) <= CELLS_PER_JOB
    for number in (-1, study.parts):
        with pytest.raises(cs.ParameterError, match="must be from 0 to 11"):
            study.part(number)


def test_a_study_survives_json():
    study = replace(STUDY, gamma=(0.1, 1e-7), learning_rate=1e-4)
    assert Study.from_json(study.to_json()) == study
    for text in ("", "[]", "{", "3", "null", '{"k": "x"}', '{"k": [[1]]}', "[" * 100_000, None):
        with pytest.raises(ValueError, match="describes no valid study"):
            Study.from_json(text)


# -- watching -------------------------------------------------------------------------------------


def test_status_of_a_finished_study(finished, capsys):
    assert in_process(finished, module=status) == 0
    said = capsys.readouterr().out
    assert f"finished    {SIZE}" in said
    assert f"merged      in {finished}" in said
    assert "(lower = more alike)\nafter 5 presentations" in said
    assert max(map(len, said.splitlines()[6:])) < 80


def test_status_before_the_end(finished, tmp_path, capsys):
    output = tmp_path / "out.nc"
    for part in (0, 3):
        runner.run_parts(STUDY, output, [part])
    assert in_process(output, module=status) == 0
    said = capsys.readouterr()
    counts = dict(line.split(maxsplit=1) for line in said.out.splitlines()[:6])
    assert counts == {"circuits": "48", "finished": "20", "running": "0", "failed": "0",
                      "missing": "28", "merged": "no"}  # fmt: skip
    lines = said.out.splitlines()[-4:]
    assert [line.split()[-1] for line in lines] == ["10/12", "0/12", "10/12", "0/12"]
    assert "none yet" in lines[1]
    found = state.read(output, KINDS)
    table = list(STUDY.rows_so_far(found.reader(pytest.fail)))
    inverse = cs.load(finished).inverse_snr_w.sel(k=3, gamma=0.1)[..., :10, -1].values.ravel()
    assert table[2].final == pytest.approx(np.log10(inverse).mean())
    assert in_process(output, "--no-table", module=status) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    # A file that has gone bad is told, and counts no more.
    next((tmp_path / "out.cells").glob("*/*.npz")).write_bytes(b"no")
    assert in_process(output, module=status) == 0
    said = capsys.readouterr()
    assert "is bad" in said.err
    assert "9/12" in said.out


def test_status_of_nothing(tmp_path, capsys):
    assert in_process(tmp_path / "none.nc", module=status) == 2
    assert "there is no study" in capsys.readouterr().err
    (tmp_path / "notes.nc").write_text("my notes")
    assert in_process(tmp_path / "notes.nc", module=status) == 2
    assert "cannot be read as the result of a study" in capsys.readouterr().err


def test_status_while_it_runs(tmp_path, capsys):
    output = tmp_path / "out.nc"
    goes_on = threading.Event()

    def hold(cells):
        if cells[0].k == 3:
            assert goes_on.wait(60)

    def slow(study, cells):
        hold(cells)
        return run_cells(study, cells)

    class Slow(ThreadPoolExecutor):
        def submit(self, fn, /, study, cells):
            return super().submit(slow, study, cells)

    with Slow(2) as executor:
        thread = threading.Thread(target=studies.run, args=(STUDY, output, executor))
        thread.start()
        try:
            wait_for(lambda: len(Store(tmp_path / "out.cells").digests()) == 24)
            wait_for(lambda: len(state.read(output, KINDS).running) == 20, step=0.2)
            found = state.read(output, KINDS)
            assert (len(found.finished), len(found.failed), found.missing) == (24, 0, 4)
            assert [process.pid for process in found.processes] == [os.getpid()]
            assert in_process(output, module=status) == 0
            assert f"running     20 (process {os.getpid()} on" in capsys.readouterr().out
        finally:
            goes_on.set()
            thread.join()
    assert list((tmp_path / "out.cells" / "running").iterdir()) == []
    assert state.read(output, KINDS).groups is not None


def test_dead_processes_do_not_run(tmp_path):
    folder = tmp_path / "running"
    folder.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    content = {"host": "here\x1b[2J", "pid": 1, "cells": ["0" * 32, "../x", 3]}
    ours, theirs = files.machine(), "01234567"
    for name, pid, age in ((f"{ours}-{dead.pid}", dead.pid, 0), (f"{ours}-1", 1, 0),
                           (f"{theirs}-7", 7, 0), (f"{theirs}-8", 8, 3600)):  # fmt: skip
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content | {"pid": pid}))
        os.utime(path, (time.time() - age,) * 2)
    found = records.read_running(tmp_path)
    assert sorted(process.pid for process in found) == [1, 7]
    assert found[0].digests == {"0" * 32}
    assert found[0].host.isprintable()
    records.remove_dead(tmp_path)
    assert len(list(folder.iterdir())) == 3


def test_another_study_is_not_begun_where_one_was(tmp_path, capsys):
    output = tmp_path / "out.nc"
    assert in_process(*OPTIONS, "--output", output, "--cell", 0) == 0
    assert in_process(*OPTIONS, "--output", output, "--seed", 1) == 2
    assert "holds another sweep (seed 0, not 1)" in capsys.readouterr().err
    (tmp_path / "out.cells" / "study.json").write_text("{")  # written anew
    assert in_process(*OPTIONS, "--output", output, "--cell", 1) == 0
    assert Study.from_json(records.read_study(tmp_path / "out.cells").study) == STUDY


# -- what fails -----------------------------------------------------------------------------------


def test_failures_are_tried_once_more_and_reported(finished, tmp_path, capsys):
    output = tmp_path / "out.nc"
    culprit = STUDY.cells[17]

    def out_of_memory(cells):
        if culprit in cells:
            raise MemoryError("no room for\nthis circuit")

    faulty = Faulty(out_of_memory)
    summary = studies.run(STUDY, output, faulty)
    assert (summary.computed, len(summary.failures)) == (SIZE - 1, 1)
    assert [len(cells) for cells in faulty.calls if culprit in cells] == [10, 1]
    (failure,) = summary.failures
    assert failure.task == culprit
    assert failure.error == "MemoryError: no room for"
    assert "Traceback" in failure.file.read_text()
    assert not output.exists()
    assert in_process(output, module=status) == 0
    said = capsys.readouterr().out
    assert "failed      1" in said
    assert f"failed: {culprit}: this circuit" in said

    again = Faulty(out_of_memory)
    summary = studies.run(STUDY, output, again)
    assert (again.calls, summary.failed_before, len(summary.failures)) == ([], 1, 1)
    assert in_process(*OPTIONS, "--output", output) == 1
    said = capsys.readouterr().err
    assert "1 of them failed before and were not tried again: give --retry-failed" in said
    assert in_process(*OPTIONS, "--output", output, "--merge") == 1
    assert in_process(*OPTIONS, "--output", output, "--cell", 1) == 1
    assert not output.exists()

    assert in_process(*OPTIONS, "--output", output, "--retry-failed", "--cell", 1) == 0
    assert records.failed_digests(tmp_path / "out.cells") == set()
    assert in_process(*OPTIONS, "--output", output, "--merge") == 0
    assert_same_data(output, finished)


def test_a_passing_failure_costs_nothing(finished, tmp_path):
    failed = []

    def once(cells):
        if len(failed) < 2:
            failed.append(cells)
            raise OSError("the network is down")

    summary = studies.run(STUDY, tmp_path / "out.nc", Faulty(once))
    assert (summary.computed, summary.failures) == (SIZE, [])
    assert_same_data(tmp_path / "out.nc", finished)


def test_an_executor_that_has_broken_down_ends_the_study(tmp_path):
    with ProcessPoolExecutor(1) as executor:
        pass
    with pytest.raises(OSError, match="the executor runs nothing any more"):
        studies.run(STUDY, tmp_path / "out.nc", executor)

    class Dropping(Executor):
        def submit(self, fn, /, *args):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(OSError, match="the executor has dropped its work"):
        studies.run(STUDY, tmp_path / "out.nc", Dropping())


def _end(signal_number):
    os.kill(os.getpid(), signal_number)


def _pid():
    return os.getpid()


def _raise():
    raise MemoryError


def test_processes_fail_alone():
    with local.LocalPool(2) as pool:
        first, second = pool.submit(_pid), pool.submit(_pid)
        assert first.result() != second.result()
        slow, dying = pool.submit(time.sleep, 2), pool.submit(_end, signal.SIGKILL)
        assert isinstance(dying.exception(), local.BrokenExecutor)
        third = pool.submit(_pid).result()
        assert third not in (first.result(), second.result())
        assert slow.result() is None
        # One in which a job has failed is replaced.
        with local.LocalPool(1) as single:
            before = single.submit(_pid).result()
            assert isinstance(single.submit(_raise).exception(), MemoryError)
            assert single.submit(_pid).result() != before


def test_nothing_of_processes_that_were_ended_is_left():
    """Python's own exit, which may follow at once, must find none of their threads half ended."""
    before = set(threading.enumerate())
    for _ in range(3):
        with local.LocalPool(3) as pool:
            pool.submit(_pid).result()
            running = [pool.submit(time.sleep, 60) for _ in range(3)]
        assert all(future.done() for future in running)
        left = set(threading.enumerate()) - before
        assert not [thread.name for thread in left if "Feeder" not in thread.name]


# -- any executor, any order ----------------------------------------------------------------------


class Shuffled(Executor):
    """Runs jobs in a random order."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._waiting = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, fn, /, *args):
        future = Future()
        self._waiting.append((future, fn, args))
        return future

    def _work(self):
        while not self._ended.is_set():
            time.sleep(0.05)
            while self._waiting:
                self._random.shuffle(self._waiting)
                future, fn, args = self._waiting.pop()
                future.set_result(fn(*args))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._ended.set()
        self._thread.join()


def test_the_order_does_not_matter(finished, tmp_path):
    with Shuffled(3) as executor:
        assert studies.run(STUDY, tmp_path / "out.nc", executor).computed == SIZE
    assert_same_data(tmp_path / "out.nc", finished)


@pytest.mark.parametrize(
    "engine", [pytest.param("brian2", marks=pytest.mark.thorough), "propagator"]
)
def test_threads_take_turns(engine, tmp_path):
    study = Study(k=(2,), gamma=(0.1,), trials=30, presentations=3, neurons=(4,), engine=engine,
                  codegen="numpy")  # fmt: skip
    with ThreadPoolExecutor(3) as executor:
        studies.run(study, tmp_path / "a.nc", executor)
    with Shuffled(0) as executor:
        studies.run(study, tmp_path / "b.nc", executor)
    assert_same_data(tmp_path / "a.nc", tmp_path / "b.nc", ("/", "weights/k2"))


# -- without daemons ------------------------------------------------------------------------------


def test_parts_and_merge(finished, tmp_path, capsys):
    output = tmp_path / "out.nc"
    assert in_process(*OPTIONS, "--output", output, "--merge") == 2
    assert "run the parts with --cell first" in capsys.readouterr().err
    assert in_process(*OPTIONS, "--output", output, "--dry-run") == 0
    assert "6 of up to 10 circuits: --cell 0 to 5" in capsys.readouterr().out
    assert in_process(*OPTIONS, "--output", output, "--cell", 6) == 2
    assert "--cell 6: must be from 0 to 5" in capsys.readouterr().err
    assert in_process(*OPTIONS, "--output", output, "--cell", 5) == 0
    assert "part 5: 4 circuits are in" in capsys.readouterr().out
    assert not output.exists()
    assert in_process(*OPTIONS, "--output", output, "--merge") == 1
    said = capsys.readouterr().err
    assert (
        "44 of 48 circuits are missing, in 5 of 6 parts: run these with --cell 0 1 2 3 4." in said
    )
    # Two processes at the same part at the same time, and a file that is bad.
    next((tmp_path / "out.cells").glob("*/*.npz")).write_bytes(b"")
    both = [
        Forked(command(*OPTIONS, "--output", output, "--cell", *range(6)),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert in_process(*OPTIONS, "--output", output, "--merge") == 0
    assert_same_data(output, finished)


@pytest.mark.thorough
def test_slurm_script(finished, tmp_path):
    """Tasks of the array in a plain shell, in a place whose name needs quoting."""
    place = tmp_path / "it's $HOME; echo *"
    place.mkdir()
    output, script = place / "my sweep.nc", place / "run it.sh"
    done = run(*OPTIONS, "--output", output, "--write-slurm", script, cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"sbatch {shlex.quote(str(script))}" in done.stdout
    text = script.read_text()
    assert "#SBATCH --array=0-5\n" in text
    assert "#SBATCH --job-name=my_sweep\n" in text
    middle = [str(part) for part in range(1, PARTS - 1)]  # in one process
    assert in_process(*OPTIONS, "--output", output, "--cell", *middle) == 0
    for task in (0, PARTS - 1):
        done = subprocess.run(
            ["bash", script], env=os.environ | {"SLURM_ARRAY_TASK_ID": str(task)}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    merge = text.splitlines()[-1].partition(": ")[2]
    done = subprocess.run(["bash", "-c", merge], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_data(output, finished)
    line = cs.load(output).attrs["command_line"]  # of the study, not of its last part
    assert "--gamma" in line
    assert not {"--merge", "--jobs", "--overwrite"} & set(shlex.split(line))
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_slurm_script_of_a_large_study():
    text = slurm.script(["run", "it"], 2502, "x")
    assert "--array=0-833\n" in text
    line = next(line for line in text.splitlines() if line.startswith("exec"))
    echo = line.replace("exec", "echo")
    for task, expected in ((0, "0 1 2"), (833, "2499 2500 2501")):
        done = subprocess.run(
            ["bash", "-c", echo], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip() == f"run it --cell {expected}"
    with pytest.raises(cs.ParameterError, match="must be printable"):
        slurm.script(["run", "a\nrm b"], 3, "x")


def test_the_command_line_is_that_of_the_study(tmp_path):
    from circuitsim.commands.options import chosen, written

    study = Study(k=(2, 3), gamma=(1e-7, 0.1), alpha=(0.5, 1.0), neurons=(5, 6), trials=3, seed=9,
                  correlation=-1e-5, presentation=20.0, dt=0.5, tau=12.5, learning_rate=1.25e-5,
                  momentum=0.3, b=-2.0)  # fmt: skip
    options = sweep.parser().parse_args(written(study))
    assert Study(**chosen(Study, options)) == study


# -- on a cluster ---------------------------------------------------------------------------------


class Cluster:
    """A Dask scheduler and workers, each a process."""

    def __init__(self, directory, workers=2):
        self.file = directory / "scheduler.json"
        self.directory = directory
        self.processes = []
        self.start("scheduler", "--port", 0, "--no-dashboard", "--scheduler-file", self.file)
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        for _ in range(workers):
            self.work()

    def work(self, *options):
        self.start("worker", "--scheduler-file", self.file, "--no-nanny", "--nthreads", 2,
                   "--no-dashboard", "--local-directory", self.directory, *options)  # fmt: skip

    def start(self, what, *arguments):
        with (self.directory / f"{what}.log").open("a") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, arguments)],
                    stdout=log, stderr=log, cwd=self.directory,
                )
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.mark.thorough
def test_on_a_dask_cluster_with_a_worker_that_is_killed(hard, tmp_path):
    output = tmp_path / "out.nc"
    with Cluster(tmp_path) as cluster:
        process = Forked(
            command(*HARD, "--output", output, "--scheduler-file", cluster.file),
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: list(tmp_path.glob("out.cells/*/*.npz")), step=0.01)
        cluster.processes[2].kill()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert_same_data(output, hard)


@pytest.mark.slow
def test_a_worker_that_joins_late_with_another_version(tmp_path, capsys):
    """Until it comes nothing runs, which is said; what it computes is refused by its name."""
    (tmp_path / "other.py").write_text(
        "from circuitsim import version\nversion.__version__ = '0.0.9'"
    )
    output = tmp_path / "out.nc"
    with Cluster(tmp_path, workers=0) as cluster:
        process = Forked(
            command(*OPTIONS, "--output", output, "--scheduler-file", cluster.file),
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = process.stderr.readline()
        assert "the scheduler has no workers" in said
        wait_for(lambda: list(tmp_path.glob("out.cells/running/*.json")))
        assert in_process(output, "--no-table", module=status) == 0
        assert re.search(r"^running +0\b", capsys.readouterr().out, re.MULTILINE)
        cluster.work("--preload", tmp_path / "other.py")
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"the worker process \d+ on \S+ has circuitsim 0\.0\.9, not ", said)
    assert "Traceback" not in said
    assert not list(tmp_path.glob("out.cells/*/*.npz"))


@pytest.mark.thorough
def test_a_scheduler_that_is_killed(tmp_path):
    """Nothing is lost, and no circuit is blamed."""
    with Cluster(tmp_path) as cluster:
        address = json.loads(cluster.file.read_text())["address"]
        process = Forked(
            command(*HARD, "--trials", 400, "--output", tmp_path / "c.nc", "--scheduler", address),
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: list(tmp_path.glob("c.cells/*/*.npz")), step=0.01)
        cluster.processes[0].kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "finished circuits are kept in" in said
    assert not (tmp_path / "c.cells" / "failed").exists()


def test_a_scheduler_that_cannot_be_reached(tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.nc"
    assert in_process(*OPTIONS, "--output", output, "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "no scheduler answers there within 10 s" in capsys.readouterr().err
    assert in_process(*OPTIONS, "--output", output, "--scheduler", "nonsense://x") == 2
    file = tmp_path / "scheduler.json"
    for content in (None, "", "{}", '{"address": 3}', "[" * 100_000):
        if content is not None:
            file.write_text(content)
        assert in_process(*OPTIONS, "--output", output, "--scheduler-file", file) == 2
        assert "must be what a Dask scheduler wrote" in capsys.readouterr().err
    for mode in (["--merge"], ["--cell", 0], ["--dry-run"], ["--jobs", 2]):
        assert in_process(*OPTIONS, *mode, "--output", output, "--scheduler", "x") == 2
        assert "has no effect with" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert in_process(*OPTIONS, "--output", output, "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "pip install 'circuitsim[cluster]'" in capsys.readouterr().err
    assert not output.exists()


# -- again ----------------------------------------------------------------------------------------


def test_reproduce(finished, tmp_path, capsys):
    before = finished.read_bytes()
    assert in_process("--reproduce", finished) == 0
    said = capsys.readouterr().out
    assert "identical to the last bit" in said
    assert "weights/k3" in said
    assert finished.read_bytes() == before
    output = tmp_path / "again.nc"
    assert in_process("--reproduce", finished, "--output", output) == 0
    assert_same_data(output, finished)
    for wrong, message in (
        (["--k", 4], "--k has no effect with --reproduce"),
        (["--output", finished], "is the file to reproduce"),
    ):
        assert in_process("--reproduce", finished, *wrong) == 2
        assert message in capsys.readouterr().err
    assert in_process("--reproduce", tmp_path / "none.nc") == 2
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.thorough
def test_differences(finished, tmp_path, capsys):
    """A result whose numbers are a little off, as another machine's might be."""
    store = Store(finished.with_name("out.cells"))
    for factor, code in ((1 + 1e-12, 0), (1 + 1e-6, 1)):

        def read(cell, factor=factor):
            found = store.read(STUDY, cell)
            if cell == STUDY.cells[5]:
                found["snr_w"] = found["snr_w"] * factor
            return found

        other = tmp_path / f"{code}.nc"
        results.write(STUDY, read, other)
        found = {d.variable: d for d in compare.differences(STUDY, other, finished)}
        assert found["snr_w"].relative == pytest.approx(factor - 1, rel=1e-3)
        assert found["inverse_snr_w"] == ("inverse_snr_w", 0.0, 0.0)
        assert in_process("--reproduce", other) == code
        assert ("not the same" in capsys.readouterr().out) == bool(code)


def test_a_number_in_one_result_only(finished, tmp_path, capsys):
    """As when one version knows an end point that another does not."""
    store = Store(finished.with_name("out.cells"))

    def read(cell):
        found = store.read(STUDY, cell)
        if cell == STUDY.cells[5]:
            found["limits"] = found["limits"].copy()
            found["limits"][LIMITS.index("fixed_point_snr_w")] = np.nan
        return found

    results.write(STUDY, read, tmp_path / "other.nc")
    for pair in ((tmp_path / "other.nc", finished), (finished, tmp_path / "other.nc")):
        found = {d.variable: d for d in compare.differences(STUDY, *pair)}
        assert found["fixed_point_snr_w"] == ("fixed_point_snr_w", np.inf, np.inf)
        assert found["theory_snr_w"].relative == 0
    assert in_process("--reproduce", tmp_path / "other.nc") == 1
    assert "not the same" in capsys.readouterr().out


def test_provenance(finished):
    attributes = cs.load(finished).attrs
    assert {"circuitsim_version", "numpy_version", "numba_version", "python_version", "machine",
            "git_revision", "citation", "created", "seed"} <= set(attributes)  # fmt: skip
    assert shlex.split(attributes["command_line"])
    assert Study.from_json(attributes["study"]) == STUDY
    seconds = load_seconds(finished)
    assert seconds.dims == ("k", "gamma", "alpha", "neurons", "trial")
    assert (seconds > 0).all()
    assert xr.load_dataset(finished, group="provenance", engine="h5netcdf").seconds.units == "s"


def test_workers_that_cannot_start_are_told_once(tmp_path):
    """As from a script whose top level runs in every worker again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from circuitsim import studies\n"
        f"study = studies.Study.from_json({STUDY.to_json()!r})\n"
        "studies.run(study, sys.argv[1], jobs=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "out.nc"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "OSError: worker processes die as soon as they start" in done.stderr
    assert not (tmp_path / "out.cells" / "failed").exists()


# -- killed ---------------------------------------------------------------------------------------

HARD = ["--k", 2, 3, "--gamma", 0.1, 0.01, "--trials", 40, "--presentations", 600, "--neurons", 6,
        "--engine", "propagator", "--codegen", "numpy",
        "--rule", "half_gated = r - b - 0.5*r_inh"]  # fmt: skip
HARD_STUDY = replace(STUDY, trials=40, presentations=600, rule="half_gated = r - b - 0.5*r_inh")


@pytest.fixture(scope="module")
def hard(once):
    place, summary = once("hard", lambda place: threaded(HARD_STUDY, place / "out.nc"))
    assert summary.failures == []
    return place / "out.nc"


class Victim:
    """A sweep that is killed: the process itself, not those that it has started."""

    def __init__(self, output, jobs):
        self.mark = str(uuid.uuid4())
        self.process = Forked(
            command(*HARD, "--output", output, "--jobs", jobs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"CIRCUITSIM_TEST": self.mark},
        )

    def kill_when(self, condition, seconds=60):
        """Kill it when a condition holds, or let it end; tell whether it was killed."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and not condition():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        killed = self.process.poll() is None
        self.process.kill()
        _, said = self.process.communicate()
        if not killed:
            assert self.process.returncode == 0, said
        # Its workers end with it.
        wait_for(lambda: not processes_with(self.mark), 10)
        return killed


def leftovers(directory):
    return [path for path in directory.rglob("*") if path.name.endswith((".part", ".tmp"))]


def after(seconds):
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def moments(directory, rng):
    """When to kill: in the midst of a cell's file, of the merge, and at any moment."""
    cells = directory / "out.cells"

    def writing():
        return any(entry.name.endswith(".part") for entry in os.scandir(directory)) or any(
            path.name.endswith(".part") for path in cells.glob("[0-9a-f][0-9a-f]/.*")
        )

    def merging():
        return any(entry.name.startswith(".out.nc.") for entry in os.scandir(directory))

    def some_more(count):
        before = len(Store(cells).digests())
        return lambda: len(Store(cells).digests()) >= before + count

    yield writing
    yield some_more(int(rng.integers(10, 100)))
    yield merging
    yield after(rng.uniform(0.3, 3))
    yield some_more(int(rng.integers(1, 30)))
    yield after(rng.uniform(2, 6))
    yield merging


@pytest.mark.parametrize(
    ("jobs", "times"),
    [
        (2, 3),
        pytest.param(1, 4, marks=pytest.mark.thorough),
        pytest.param(4, 7, marks=pytest.mark.thorough),
    ],
)
def test_killed_at_any_moment(jobs, times, hard, tmp_path):
    output = tmp_path / "out.nc"
    rng = np.random.default_rng()
    killed = 0
    for condition in itertools.islice(moments(tmp_path, rng), times):
        killed += Victim(output, jobs).kill_when(condition)
    assert killed >= 2
    done = run(*HARD, "--output", output, "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    assert "bad" not in done.stderr
    assert_same_data(output, hard)
    assert leftovers(tmp_path) == []
    assert list((tmp_path / "out.cells" / "running").iterdir()) == []
    assert not (tmp_path / "out.cells" / "failed").exists()


@pytest.mark.thorough
def test_killed_again_and_again(hard, tmp_path):
    """With another number of workers each time."""
    output = tmp_path / "out.nc"
    rng = np.random.default_rng()
    for _ in range(12):
        Victim(output, rng.integers(1, 5)).kill_when(after(rng.uniform(0.5, 5)))
    assert run(*HARD, "--output", output).returncode == 0
    assert_same_data(output, hard)
    assert leftovers(tmp_path) == []


def test_a_worker_that_is_killed_is_replaced(hard, tmp_path):
    output = tmp_path / "out.nc"
    process = Forked(
        command(*HARD, "--output", output, "--jobs", 2), stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: list(tmp_path.glob("out.cells/*/*.npz")), step=0.01)
    server = next(child for child in children(process.pid) if children(child))
    for worker in children(server)[:1]:
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert_same_data(output, hard)


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


def test_abandoned_files_are_removed_and_others_are_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, theirs = files.machine(), "01234567"
    gone = [f".x.npz.{ours}-{dead.pid}-abc.part", f".x.npz.{theirs}-1-old.part"]
    kept = [f".x.npz.{ours}-{os.getpid()}-abc.part", f".x.npz.{theirs}-1-new.part", ".x.part",
            f"x.npz.{ours}-{dead.pid}-abc.part", f".x.npz.{ours}-{dead.pid}-abc.npz"]  # fmt: skip
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / gone[1], (time.time() - 100_000,) * 2)
    files.remove_abandoned(files.entries(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_names_of_the_greatest_length(tmp_path):
    path = tmp_path / ("ä" * 125 + ".nc")
    files.write_text(path, "x")
    assert path.read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


# -- cores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("membership", "written", "quotas"),
    [
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/", {"cpu.max": "250000 100000"}, [2.5]),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, [3.0]),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, [0.5, 3.0]),
        ("4:cpu,cpuacct:/d", {"cpu,cpuacct/d/cpu.cfs_quota_us": "400000",
                              "cpu,cpuacct/d/cpu.cfs_period_us": "100000"}, [4.0]),
        ("4:cpu:/d", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("nonsense", {"cpu.max": "some 1"}, []),
    ],
)  # fmt: skip
def test_quotas_of_control_groups(membership, written, quotas, tmp_path):
    root = tmp_path / "root"
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (tmp_path / "self").write_text(membership + "\n")
    assert sorted(local._quotas(tmp_path / "self", root)) == quotas
    assert 1 <= local.available_cores() <= os.cpu_count()
