"""A process that has imported what commands import, and forks to run each of them.

Started with one end of a socket. Each message on it is a command: its module, arguments, working
directory and environment; three descriptors come with it. The answer is the number of the process,
a child of whoever asked (see `commands.Forked`). Instead of a module it may be the code of a fork
server of worker processes, with two more descriptors (see `commands.forked_server`).
"""

import gc
import importlib
import json
import multiprocessing.util
import os
import re
import runpy
import signal
import socket
import sys

from circuitsim import processwide


def prepared():
    """Import what commands import, but what is compiled: it is kept where the environment says."""
    import dask.array  # which xarray imports where it is installed
    import h5netcdf
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import numba
    import scipy.linalg
    import xarray

    processwide.ignore_local_preferences()
    processwide.load_brian2()
    # Its files in the temporary directory are of this process alone.
    from brian2.utils.logger import BrianLogger

    BrianLogger.tmp_log = BrianLogger.tmp_script = None
    processwide.ignore_local_preferences(False)
    for name in ("commands", "commands.campaign", "studies.registry", "running.runner",
                 "engines.simulation", "vision"):  # fmt: skip
        importlib.import_module(f"circuitsim.{name}")
    return dask, h5netcdf, matplotlib, numba, scipy, xarray


def asked(connection):
    """The next command, and its descriptors; None at the end."""
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 5)
    if not size:
        return None, descriptors
    text = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    return json.loads(text), descriptors


def ask(connection, wanted, descriptors):
    """Send a command, and descriptors with it."""
    here = {"directory": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(here | wanted).encode()
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], descriptors)
    connection.sendall(text)


def wait(connection):
    """Fork for each command that is asked for; return it in the process that is to run it."""
    while True:
        wanted, descriptors = asked(connection)
        if wanted is None:
            os._exit(0)
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid:
                os.write(writer, pid.to_bytes(8, "big"))
                os._exit(0)
            for descriptor in (reader, writer):
                os.close(descriptor)
            connection.close()
            return wanted, descriptors
        # Once the one in the middle is gone, the new one is the test's own.
        os.waitpid(middle, 0)
        connection.sendall(os.read(reader, 8))
        for descriptor in (reader, writer, *descriptors):
            os.close(descriptor)


def settle(wanted):
    """Take the environment and the working directory of whoever asked."""
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["directory"])


def become(wanted, descriptors):
    """Be as a process that was started for this command alone."""
    if wanted["session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    settle(wanted)
    if wanted["sketched"]:
        import sketches

        sketches.plots.save = sketches.save
    sys.argv = [wanted["module"], *wanted["arguments"]]
    added = wanted["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [os.getcwd(), *(path for path in added if path and path not in sys.path)]
    # Whatever has started the tests, these signals are not ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering, closefd=False)  # noqa: SIM115
        for number, mode, buffering in ((0, "r", -1), (1, "w", -1), (2, "w", 1))
    )
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)


def serve(wanted, descriptors):
    """Be the fork server that a process has asked for, as if it had started it."""
    settle(wanted)
    # Its descriptors' numbers, in the process that has asked, are the first two arguments.
    exec(re.sub(r"main\(\d+, \d+", "main({}, {}".format(*descriptors), wanted["command"]))
    os._exit(0)


def keep_fork_server():
    """Let the fork server of this process be forked, too, with all that is imported here.

    It waits from now on, while there is one thread and nothing has been done. A second one is
    started plainly.
    """
    mine, its = socket.socketpair()
    signals = {signal.SIGINT, signal.SIGHUP}  # which a fork server never sees
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if pid == 0:
        mine.close()
        wanted, descriptors = asked(its)
        its.close()
        if wanted is None:
            os._exit(0)
        serve(wanted, descriptors)
    its.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    plainly = multiprocessing.util.spawnv_passfds

    def spawn(path, arguments, descriptors):
        command = os.fsdecode(arguments[-1])
        if "forkserver" not in command or mine.fileno() < 0:
            return plainly(path, arguments, descriptors)
        ask(mine, {"command": command}, descriptors)
        mine.close()
        return pid

    multiprocessing.util.spawnv_passfds = spawn


if __name__ == "__main__":
    given = socket.socket(fileno=int(sys.argv[1]))
    kept = prepared()
    gc.freeze()
    command, received = wait(given)
    if "command" in command:
        serve(command, received)
    become(command, received)
    keep_fork_server()
    runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
