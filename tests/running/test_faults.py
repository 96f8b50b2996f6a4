"""Disks, limits, locks and names as machines have them: one message, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import io
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr
from commands import command, run, run_here

import circuitsim as cs
from circuitsim import files, studies, sweep
from circuitsim.checks import interrupts
from circuitsim.files import locks, netcdf
from circuitsim.files.locks import Taken, locked
from circuitsim.processwide import tell_unless_starved
from circuitsim.running import cluster, local, runner
from circuitsim.running.store import Store
from circuitsim.studies import sweep as study_module
from circuitsim.studies import timing
from circuitsim.studies.sweep import Study
from circuitsim.vision.training import history

QUICK = ["--k", 2, "--gamma", 0.1, "--trials", 2, "--presentations", 3, "--neurons", 3,
         "--engine", "propagator", "--codegen", "numpy", "--jobs", 1]  # fmt: skip
STUDY = Study(k=(2,), gamma=(0.1,), trials=2, presentations=3, neurons=(3, 4),
              engine="propagator", codegen="numpy")  # fmt: skip


# -- the disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 5000, 9000])
def test_a_limit_of_file_sizes_leaves_what_was_there(size, tmp_path):
    """Below what the library writes at first, and in its middle: an error, and no new file."""
    path = tmp_path / "result.nc"
    path.write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OSError) as error, netcdf.writing(path) as add:
            add(xr.Dataset({"a": ("x", np.zeros(2000))}), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert os.listdir(tmp_path) == ["result.nc"]
    assert path.read_text() == "before"


@pytest.mark.slow
@pytest.mark.thorough
def test_a_limit_of_file_sizes_is_one_message_and_what_is_finished_stays(tmp_path):
    output = tmp_path / "out.nc"
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command(*QUICK, "--output", output)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{output}: a file would be larger than files may be" in done.stderr
    assert "2 finished circuits are kept" in done.stderr
    assert run(*QUICK, "--output", output).returncode == 0


@pytest.mark.slow
def test_a_part_that_is_stopped_keeps_each_circuit_that_has_ended(tmp_path, monkeypatch):
    """However short the time limit, submitting again gets further, to the same numbers."""
    study = replace(STUDY, trials=5, neurons=(3,))
    left, real = [], study_module.run_cells

    def limited(of, cells, progress=None):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return real(of, cells, progress)

    monkeypatch.setattr(study_module, "run_cells", limited)
    output, store = tmp_path / "parts.nc", Store(tmp_path / "parts.cells")
    for finished in (2, 4):
        left += [None] * 2
        with pytest.raises(KeyboardInterrupt):
            runner.run_parts(study, output, [0])
        assert len(store.digests()) == finished
    left += [None] * 9
    assert runner.run_parts(study, output, [0]).computed == 1
    runner.collect(study, output)
    studies.run(study, tmp_path / "whole.nc", runner.Here())
    assert cs.load(output).equals(cs.load(tmp_path / "whole.nc"))


# -- locks -----------------------------------------------------------------------------------------


def test_a_lock_says_who_holds_it_and_how_to_go_on(tmp_path):
    path = tmp_path / "lock"
    with locked(path), pytest.raises(Taken) as told, locked(path):
        pass
    assert f"process {os.getpid()} on" in str(told.value)
    assert f"holds {path}" in str(told.value)
    assert "remove that file" in str(told.value)
    with locked(path):
        pass


def test_what_a_lock_says_is_not_believed(tmp_path):
    """A soft lock of another machine, or anything else that a dead process has left."""
    path = tmp_path / "lock"
    for content in ('{"pid": 1, "host": "elsewhere", "since": "long ago"}', "[" * 9999, "\0\xff"):
        path.write_text(content, encoding="latin-1")
        with locked(path):
            pass


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import os, pathlib\nfrom circuitsim.files.locks import locked\n"
        f"with locked(pathlib.Path({str(path)!r})):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with locked(path):
        pass


def test_what_is_waited_for_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.0)
    path, said, descriptor = tmp_path / "lock", [], []

    def told(text):
        said.append(text)
        os.close(descriptor.pop())  # and now the other gives it back

    descriptor.append(os.open(path, os.O_RDWR | os.O_CREAT))
    fcntl.flock(descriptor[0], fcntl.LOCK_EX)
    with locked(path, wait=True, told=told):
        pass
    assert said == [f"waiting for another process, which holds {path}; {locks._WAY_OUT}"]


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks(code, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    output, said = tmp_path / "out.nc", []
    with locked(tmp_path / "lock", told=said.append), locked(tmp_path / "lock", told=said.append):
        pass
    assert len(said) == 1
    assert f"the file system of {tmp_path} has no locks" in said[0]
    assert studies.run(STUDY, output, runner.Here()).failures == []
    assert cs.load(output).snr_w.notnull().all()


# -- files that others read ------------------------------------------------------------------------


def test_texts_in_results_are_arrays_of_characters(tmp_path):
    """As netCDF's NC_CHAR, which Octave and MATLAB read; not strings of variable length."""
    studies.run(STUDY, tmp_path / "out.nc", runner.Here())
    row: dict = dict.fromkeys(("train", "test"), (0.1, 0.2, 0.3))
    row |= {name: {"first": 1.0, "second": 2.0} for name in ("snr_w", "snr_w_before_sleep")}
    with netcdf.writing(tmp_path / "history.nc") as add:
        add(history([row | {"seconds": 1.0, "seconds_asleep": 0.5}]), None)

    def check(_name, thing):
        for name in thing.attrs:
            kind = h5py.check_string_dtype(thing.attrs.get_id(name).dtype)
            assert kind is None or kind.length is not None, name
        if isinstance(thing, h5py.Dataset):
            assert h5py.check_vlen_dtype(thing.dtype) is None

    for name in ("out.nc", "history.nc"):
        with h5py.File(tmp_path / name) as file:
            check("/", file)
            file.visititems(check)
    found = xr.load_dataset(tmp_path / "history.nc", engine="h5netcdf")
    assert found.sel(layer="second").snr_w.item() == 2.0
    assert found.seconds.units == "s"


@pytest.mark.slow
def test_a_name_that_is_no_utf_8(tmp_path, monkeypatch):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    place.mkdir()
    script, said = place / "job.sh", io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", said)
    for further in ([], ["--write-slurm", script], ["--merge"]):
        options = [*QUICK, "--output", place / "out.nc", *further]
        assert sweep.main(list(map(str, options))) == 0
    assert os.fsencode(place) in script.read_bytes()
    assert r"M\udcfcller" in netcdf.attributes(place / "out.nc", "")["command_line"]
    said.flush()
    assert rb"M\udcfcller/out.nc" in said.buffer.getvalue()


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS"])
def test_cores_of_a_job_are_those_there_are(name, monkeypatch):
    everywhere = local.available_cores()
    for given, cores in (("1", 1), ("0", 1), ("9999", everywhere), ("many", everywhere)):
        monkeypatch.setenv(name, given)
        assert local.available_cores() == cores


@pytest.mark.parametrize("codegen", ["numpy", "cython"])
@pytest.mark.parametrize("each", [0.002, 0.02, 0.5])
@pytest.mark.parametrize("steady", [0.1, 1.0])
def test_an_estimate_is_not_misled_by_the_first_run(each, steady, codegen, monkeypatch):
    """By a clock of its own: the first run takes long, any run a while, and presentations count.

    Cython compiles some code for every length anew.
    """
    clock, lengths = [0.0], set()
    compiling = 5 * (codegen == "cython")

    def run_cells(study, cells, progress=None):
        clock[0] += (clock[0] == 0) * 7 + steady + each * study.presentations
        clock[0] += compiling * (study.presentations not in lengths)
        lengths.add(study.presentations)
        return []

    monkeypatch.setattr(study_module, "run_cells", run_cells)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    study = Study(k=(3,), gamma=(0.1,), presentations=2000, engine="brian2", codegen=codegen)
    ready, run = timing.seconds(study, study.cells, 1)
    assert ready == pytest.approx(7 + 2 * compiling)  # of the shortest run's own code, too
    assert run == pytest.approx(steady + 2000 * each)
    assert clock[0] < 80


def test_a_scheduler_without_workers_is_said_once_each_time(monkeypatch):
    monkeypatch.setattr(cluster, "_LOOKS", 0.0)
    workers, said, ended = [1, 0, 0, 2, 0], [], threading.Event()

    class Client:
        def ncores(self):
            left = workers.pop(0)
            if not workers:
                ended.set()
            return dict.fromkeys(map(str, range(left)), 4)

    executor = SimpleNamespace()
    cluster._watch(Client(), executor, ended, said.append)
    assert executor.at_once == 0
    assert [text[:33] for text in said] == ["the scheduler has no workers: not"] * 2


@pytest.mark.parametrize(
    "error, told",
    [
        (
            ImportError("failed to map segment"),
            "cannot be loaded (failed to map segment)",
        ),
        (RuntimeError("can't start new thread"), "no thread can be started here"),
        (
            OSError("Could not find shared object 'a.so'. This means"),
            "loaded (Could not find shared",
        ),
        (OSError(errno.EDQUOT, "Quota", "a.nc"), "a.nc: the quota of this disk is used up"),
    ],
)
def test_what_a_machine_refuses_is_one_message(error, told, monkeypatch, capsys):
    def refused(_):
        raise error

    monkeypatch.setattr("circuitsim.commands.sweep.body", refused)
    assert sweep.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_command(number, ignored, monkeypatch, capsys):
    """SIGHUP is that of a terminal that is closed; under nohup it is ignored."""
    monkeypatch.setattr("circuitsim.commands.sweep.body", lambda _: os.kill(os.getpid(), number))
    before = signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    others = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = sweep.main([])
        assert signal.getsignal(number) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(number, before)
        signal.signal(signal.SIGINT, others)
    if ignored and number == signal.SIGHUP:
        assert not code
        return
    assert code == 128 + number
    interrupts.check()  # it has been dealt with
    assert capsys.readouterr().err.endswith(f": stopped by {number.name}\n")


def test_numbers_of_many_digits_are_refused(capsys):
    for option in ("--channels", "--trials", "--neurons", "--k", "--presentations", "--seed"):
        assert sweep.main([option, "9" * 400, "--dry-run"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"error: {option}" in line


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_what_a_killed_command_left_beside_its_output_is_removed(keep, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".out.pdf.{files.machine()}-{dead.pid}-abc.part"
    left.touch()
    runner.run(STUDY, tmp_path / "out.nc", runner.Here(), keep=keep)
    assert not left.exists()


@pytest.mark.slow
def test_closed_streams_do_not_end_workers(tmp_path):
    """As a daemon has them; two workers, which write to no stream of their own either."""
    options = command(*QUICK[:-1], 2, "--output", tmp_path / "out.nc")
    closed = ["bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash", *options]
    assert subprocess.run(closed, check=False).returncode == 0
    assert (tmp_path / "out.nc").exists()


def test_a_killed_tracker_of_semaphores_leaves_no_tracebacks(tmp_path):
    """Whoever kills all that a command has started kills multiprocessing's own helper, too."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, signal, time
            from multiprocessing import resource_tracker
            from circuitsim.running.local import LocalPool

            if __name__ == "__main__":
                with LocalPool(1) as pool:
                    worker = pool.submit(os.getpid).result()
                    for pid in (resource_tracker._resource_tracker._pid, worker):
                        os.kill(pid, signal.SIGKILL)
                    while pool._processes[0].pool._broken is False:
                        time.sleep(0.01)
                    print(pool.submit(int).result())
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.slow
def test_a_pool_that_can_start_no_thread_is_not_waited_for(tmp_path, monkeypatch, capfd):
    """As under a limit of memory or processes: its own thread dies where it starts another."""
    real = threading.Thread.start

    def start(thread):
        if thread.name == "QueueFeederThread":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threading, "excepthook", tell_unless_starved)
    with pytest.raises(RuntimeError, match="start new thread"), local.LocalPool(1) as pool:
        runner.run(STUDY, tmp_path / "out.nc", pool)
    assert capfd.readouterr().err == ""
    failing = threading.Thread(target={}.pop, args=("other",))
    failing.start()
    failing.join()
    assert "KeyError: 'other'" in capfd.readouterr().err


def _in_a_pool(output):
    notes = []

    class Told(runner.Observer):
        def note(self, message):
            notes.append(message)

    return studies.run(STUDY, output, jobs=2, observer=Told()).computed, notes


@pytest.mark.slow
@pytest.mark.thorough
def test_workers_of_a_pool_run_studies(tmp_path):
    """They are daemonic, as Celery's are, and may have no children."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        computed, notes = pool.apply(_in_a_pool, (tmp_path / "pool.nc",))
    assert computed == STUDY.size
    assert len(notes) == 1
    assert "may not start others" in notes[0]
    studies.run(STUDY, tmp_path / "here.nc", runner.Here())
    assert cs.load(tmp_path / "pool.nc").equals(cs.load(tmp_path / "here.nc"))


@pytest.mark.parametrize(("seconds", "said"), [(4000.0, "33 min to 2.2 h"), (1e-3, "1 s, from")])
def test_an_estimate_that_is_far_from_its_pilot_is_a_range(seconds, said, tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "pilot", lambda self, tasks, jobs: (0.0, seconds))
    done = run_here(*QUICK, "--output", tmp_path / "out.nc", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"estimate    {said}" in done.stdout
