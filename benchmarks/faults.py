"""Kill, starve and damage what commands write, again and again; count what is lost.

    python benchmarks/faults.py --times 50

Every result is compared, bit by bit, with one that nothing disturbed.
Exit code 0 if nothing is lost.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import circuitsim as cs
from circuitsim.running.store import BadFile, Store
from circuitsim.studies.sweep import Study

STUDY = ["--k", "3", "--gamma", "0.1", "0.01", "--trials", "20", "--presentations", "400",
         "--engine", "propagator", "--codegen", "numpy", "--jobs", "2"]  # fmt: skip
SMALL = Study(k=(3,), gamma=(0.1, 0.01), trials=20, presentations=400, engine="propagator",
              codegen="numpy")  # fmt: skip


def sweep(output: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "circuitsim.sweep", *STUDY, "--output", str(output)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    )  # type: ignore[call-overload] # fmt: skip


def trace(said: str) -> str:
    """What a command has said, if it was a traceback: no user should meet one."""
    return f"a traceback: {said.strip().splitlines()[-3:]}" if "Traceback" in said else ""


def killed(output: Path, rng: random.Random, longest: float) -> str:
    """A signal to the command, or to all of its processes, at a random moment."""
    process = sweep(output)
    time.sleep(rng.uniform(0.1, longest))
    number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    send = rng.choice([os.kill, os.killpg])
    with suppress(ProcessLookupError):
        send(process.pid, number)
    _, said = process.communicate(timeout=120)
    return trace(said)


def starved(output: Path, rng: random.Random, longest: float) -> str:
    """A limit of file sizes, from nothing to more than any file needs."""
    size = int(2 ** rng.uniform(5, 21))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = sweep(output, preexec_fn=limit)
    _, said = process.communicate(timeout=300)
    if process.returncode not in (0, 1):
        return f"exit code {process.returncode}"
    return trace(said)


def damaged(output: Path, rng: random.Random, longest: float) -> str:
    """Bits of a finished circuit flipped, or its file cut."""
    store = Store(output.with_suffix(".cells"))
    there = [cell for cell in SMALL.cells if store.path(SMALL.digest(cell)).exists()]
    if not there:
        return ""
    path = store.path(SMALL.digest(rng.choice(there)))
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    try:
        store.read(SMALL, next(c for c in there if store.path(SMALL.digest(c)) == path))
    except BadFile:
        return ""
    return "a changed file was believed"


WAYS: list[Callable[[Path, random.Random, float], str]] = [killed, starved, damaged]


def campaign(times: int, seed: int, home: Path) -> Iterator[str]:
    """Give what came of each trial: nothing, or what was lost."""
    rng = random.Random(seed)
    began = time.monotonic()
    whole = home / "whole.nc"
    if sweep(whole).wait() != 0:
        raise SystemExit("the sweep fails by itself")
    longest = time.monotonic() - began
    expected = cs.load(whole)
    output = home / "out.nc"
    for n in range(times):
        fault = rng.choice(WAYS)(output, rng, longest)
        if n % 5 == 4 or n == times - 1:
            process = sweep(output)
            _, said = process.communicate(timeout=600)
            if process.returncode != 0:
                fault = fault or f"not gone on with: {said.strip().splitlines()[-1:]}"
            elif not cs.load(output).equals(expected):
                fault = "another result"
        yield fault


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--times", type=int, default=50)
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    lost = []
    with tempfile.TemporaryDirectory(prefix="circuitsim-faults-") as home:
        for n, fault in enumerate(campaign(options.times, options.seed, Path(home)), start=1):
            if fault:
                lost.append(fault)
                print(f"{n}: {fault}", flush=True)
    print(f"{options.times} tried, {len(lost)} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
