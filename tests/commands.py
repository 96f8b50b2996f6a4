"""Commands as their users run them, and what they leave."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import inspect
import io
import multiprocessing.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nursery
import sketches
import xarray as xr


def command(*arguments, module="sweep"):
    return [sys.executable, "-m", f"circuitsim.{module}", *map(str, arguments)]


class Forked(subprocess.Popen):
    """A command in a process of its own that imports nothing anew: it is forked from `nursery`.

    Else it is what `command` would start: arguments, streams, environment, exit code, signals, end.
    Where a system cannot do this, it is started plainly.
    """

    def _execute_child(self, *given, **more):
        if sys.platform != "linux":
            super()._execute_child(*given, **more)
            return
        options = inspect.signature(super()._execute_child).bind(*given, **more).arguments
        _, _, module, *arguments = options["args"]
        streams = [options["p2cread"], options["c2pwrite"], options["errwrite"]]
        wanted = {
            "module": module,
            "arguments": arguments,
            "directory": os.path.abspath(options["cwd"] or "."),
            "session": bool(options["start_new_session"]),
            "sketched": sketches.wanted,
        }
        if options["env"] is not None:
            given = options["env"].items()
            wanted["environment"] = {os.fsdecode(k): os.fsdecode(v) for k, v in given}
        self.pid = _forked(
            wanted, [number if given == -1 else given for number, given in enumerate(streams)]
        )
        self._child_created = True
        self._close_pipe_fds(
            *(
                options[name]
                for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            )
        )


def _forked(wanted, descriptors):
    """Number of a process that the nursery has forked, a child of this one."""
    connection = _nursery()
    nursery.ask(connection, wanted, descriptors)
    answer = connection.recv(8)
    if not answer:
        raise OSError("the process that forks commands has ended")
    return int.from_bytes(answer, "big")


@contextlib.contextmanager
def forked_server():
    """Let the fork server of this process's workers be forked, too: it imports nothing anew."""
    plainly = multiprocessing.util.spawnv_passfds

    def spawn(path, arguments, descriptors):
        command = os.fsdecode(arguments[-1])
        if sys.platform != "linux" or "forkserver" not in command:
            return plainly(path, arguments, descriptors)
        return _forked({"command": command}, descriptors)

    multiprocessing.util.spawnv_passfds = spawn
    yield
    multiprocessing.util.spawnv_passfds = plainly


@functools.cache
def _nursery():
    mine, its = socket.socketpair()
    subprocess.Popen(
        [sys.executable, Path(__file__).with_name("nursery.py"), str(its.fileno())],
        pass_fds=[its.fileno()],
    )
    its.close()
    # The processes that it forks become children of this one.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    return mine


def run(*arguments, module="sweep", program=None, **options):
    whole = [sys.executable, "-m", program or f"circuitsim.{module}", *map(str, arguments)]
    with Forked(
        whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        said, told = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, told)


def run_here(*arguments, module="sweep"):
    """As `run`, in this process: imports nothing anew. For what needs no process of its own."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        main = importlib.import_module(f"circuitsim.{module}").main
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), told.getvalue())


def interrupted_after(imported, *arguments, module="sweep"):
    """Run a command and press Ctrl-C once it has imported something: the same place on any machine.

    Returns the exit code and what the command has said.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command(*arguments, module=module)[1:]],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == imported:
            break
    os.killpg(process.pid, signal.SIGINT)
    said = [line for line in process.stderr if not line.startswith("import time:")]
    return process.wait(timeout=120), "".join(said)


def wait_for(condition, seconds=300.0, step=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(step)


def contents(path, groups=("/", "weights/k2", "weights/k3")):
    """Everything in a result but where and when it was made."""
    return [xr.load_dataset(path, group=g, engine="h5netcdf").drop_attrs() for g in groups]


def assert_same_data(path, other, groups=("/", "weights/k2", "weights/k3")):
    """Two results must hold the same bits."""
    pairs = zip(contents(path, groups), contents(other, groups), strict=True)
    for mine, theirs in pairs:
        xr.testing.assert_identical(mine, theirs)
        for name in mine.variables:
            assert mine[name].dtype == theirs[name].dtype
            assert mine[name].values.tobytes() == theirs[name].values.tobytes()


def processes_with(mark):
    """Processes in whose environment a text is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
