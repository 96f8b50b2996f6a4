"""Ctrl-C is met even where a library loses it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from circuitsim.checks import interrupts
from circuitsim.checks.interrupts import insistent


@pytest.fixture(autouse=True)
def _handler():
    """Python's own, whatever started this process or ran in it before."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def interrupt_in_a_callback():
    """As compilers do: C code calls Python back, and an exception there is printed and dropped."""
    callback = ctypes.CFUNCTYPE(None)(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0)))
    callback()


@insistent()
def interrupted(rest):
    interrupt_in_a_callback()
    rest()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_is_lost_in_a_callback_but_not_within():
    interrupt_in_a_callback()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    # Also where the work ends, or fails, before it can be repeated.
    for rest in (partial(time.sleep, 20), int, partial(int, "a consequence")):
        with pytest.raises(KeyboardInterrupt):
            interrupted(rest)
    assert time.monotonic() - started < 10
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_lost_is_raised_before_the_next_step():
    with interrupts.receiving():
        interrupts.check()
        interrupt_in_a_callback()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()  # what was received has been dealt with
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.receiving():
        os.kill(os.getpid(), signal.SIGINT)
        interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_nothing_changes_without_interrupt():
    with pytest.raises(RuntimeError, match="mine"), insistent():
        raise RuntimeError("mine")
    done = []

    def elsewhere():
        with insistent():
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_handler_that_waits_is_not_repeated():
    """One that returns has dealt with the signal."""
    calls = []
    previous = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    try:
        with insistent():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert calls == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_handler_is_called_once_and_left_to_finish():
    """As those of jobs that write a checkpoint, ask to be queued again, and exit."""
    begun, finished = [], []

    def checkpoint(*_):
        begun.append(1)
        time.sleep(0.5)
        finished.append(1)
        sys.exit("told to end")

    def signalled_in_a_callback(rest):
        with insistent():
            ctypes.CFUNCTYPE(None)(lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0)))()
            rest()

    previous = signal.signal(signal.SIGTERM, checkpoint)
    try:
        for rest in (partial(time.sleep, 20), int, partial(int, "a consequence")):
            with pytest.raises(SystemExit, match="told to end"):
                signalled_in_a_callback(rest)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert begun == finished == [1, 1, 1]


INTERRUPTED = """
import os, signal, threading
import numpy as np
import circuitsim as cs
import brian2

before = signal.getsignal(signal.SIGINT)
threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    cs.simulate(np.ones((5, 4)), np.ones((100_000, 4)), engine="brian2", codegen="numpy")
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGINT) is before
assert brian2.prefs["core.stop_on_keyboard_interrupt"]
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("and again")
"""


@pytest.mark.slow
def test_an_interrupted_network_is_not_taken_for_a_finished_one():
    """Brian2 would end the run at once, and quietly."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "interrupted\nand again\n", done.stderr
