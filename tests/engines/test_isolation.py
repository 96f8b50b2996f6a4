"""Nothing leaks into a user's own Brian2 session, and runs do not disturb each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import brian2
import numpy as np
import pytest
from brian2 import ms

import circuitsim as cs
from circuitsim import files
from circuitsim.engines import standalone
from circuitsim.engines.brian import block_length

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(
    not standalone.compiler_works(), reason="no C++ compiler works here"
)
W = 1 + np.random.default_rng(0).standard_normal((5, 3))
X = np.random.default_rng(1).standard_normal((4, 3))


@pytest.mark.parametrize(
    "codegen",
    [
        pytest.param("numpy", marks=pytest.mark.thorough),
        pytest.param("cpp_standalone", marks=needs_compiler),
    ],
)
def test_a_users_own_network_is_not_disturbed(codegen):
    brian2.defaultclock.dt = 0.25 * ms
    brian2.prefs.codegen.target = "numpy"
    group = brian2.NeuronGroup(2, "dv/dt = -v/(10*ms) : 1", method="exact", name="excitatory")
    group.v = 1
    monitor = brian2.StateMonitor(group, "v", record=True)
    try:
        before = brian2.prefs.as_file
        brian2.run(5 * ms)
        with_company = cs.simulate(W, X, codegen=codegen)
        brian2.run(5 * ms)
        assert brian2.defaultclock.dt == 0.25 * ms
        assert brian2.get_device().__class__.__name__ == "RuntimeDevice"
        assert brian2.prefs.as_file == before
        assert group.v[0] == pytest.approx(np.exp(-1))
        assert monitor.t[-1] == 9.75 * ms
        assert np.array_equal(with_company.weights, cs.simulate(W, X, codegen=codegen).weights)
    finally:
        brian2.defaultclock.dt = 0.1 * ms
        brian2.prefs.codegen.target = "auto"


def test_a_users_standalone_device_is_not_disturbed(tmp_path):
    """With a device set and half a model built, as users of standalone code do."""
    script = tmp_path / "script.py"
    script.write_text(
        "from brian2 import *\n"
        "import numpy as np, circuitsim as cs\n"
        f"set_device('cpp_standalone', directory={str(tmp_path / 'out')!r}, build_on_run=False)\n"
        "prefs.core.default_float_dtype = float32\n"
        "group = NeuronGroup(2, 'dv/dt = -v/(10*ms) : 1', method='exact')\n"
        "group.v = 1\n"
        "w, x = np.ones((5, 3)) + np.arange(15).reshape(5, 3), np.ones((4, 3))\n"
        "run_ = cs.simulate(w, x, codegen='numpy')\n"
        "assert run_.weights.dtype == np.float64 and get_device().__class__.__name__ == "
        "'CPPStandaloneDevice'\n"
        "assert prefs.core.default_float_dtype is float32 and not get_device().build_on_run\n"
        "run(10*ms)\n"
        "device.build(compile=False, run=False)\n"
        "print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("fine"), done.stderr


@needs_compiler
def test_compiled_code_is_made_once_and_read_by_all(tmp_path, monkeypatch):
    monkeypatch.setenv("CIRCUITSIM_CACHE", str(tmp_path))
    standalone._writable_cache.cache_clear()
    compiled = []
    real = standalone._compile

    def compiling(spec, program):
        """Once; where it is asked for again, the same."""
        if not compiled:
            real(spec, program)
            shutil.copytree(program, tmp_path / "kept" / program.name)
        else:
            shutil.copytree(tmp_path / "kept" / program.name, program)
        compiled.append(program)

    monkeypatch.setattr(standalone, "_compile", compiling)
    try:
        with ThreadPoolExecutor(3) as threads:
            scales = [1.0, 2.0, 3.0]
            runs = list(
                threads.map(lambda s: cs.simulate(s * W, X, codegen="cpp_standalone"), scales)
            )
        assert len(compiled) == 1
        for scale, run in zip(scales, runs, strict=True):
            expected = cs.simulate(scale * W, X, codegen="numpy")
            assert run.weights.values == pytest.approx(expected.weights.values, rel=1e-12)
        # Whatever is wrong with a program, it is made again.
        (program,) = [p for p in tmp_path.iterdir() if p.is_dir() and p.name != "kept"]
        (program / "main").write_bytes((program / "main").read_bytes()[:1000])
        again = cs.simulate(W, X, codegen="cpp_standalone")
        assert np.array_equal(again.weights, runs[0].weights)
        assert len(compiled) == 2
        assert standalone._complete(program)
        for file in ("main", "program.json", *program.glob("static_arrays/*")):
            content = (program / file).read_bytes()
            (program / file).write_bytes(content[:-1])
            assert not standalone._complete(program)
            (program / file).unlink()
            assert not standalone._complete(program)
            (program / file).write_bytes(content)
        shutil.rmtree(program / "static_arrays")
        assert not standalone._complete(program)
    finally:
        standalone._writable_cache.cache_clear()


def test_directories_of_other_machines_are_left_to_them(tmp_path):
    """A cluster's machines may share a cache: what one compiles, another must not remove."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, theirs = files.machine(), "01234567"
    gone = [f"build-{ours}-{dead.pid}-x", f"build-{theirs}-{dead.pid}-old"]
    kept = [f"build-{ours}-{os.getpid()}-x", f"build-{theirs}-{dead.pid}-new", "build-1-x",
            f"run-{ours}-{dead.pid}-x"]  # fmt: skip
    for name in (*gone, *kept):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / gone[1], (time.time() - 100_000,) * 2)
    with standalone._own_directory(tmp_path, "build") as made:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, made.name])
        assert re.fullmatch(rf"build-{files.OWNER}\w+", made.name)[1] == ours
    assert not made.exists()


def test_a_directory_that_somebody_else_has_made_is_not_used(tmp_path, monkeypatch):
    """In a temporary directory that all share, anybody may make one of our name."""
    monkeypatch.setattr(standalone.tempfile, "tempdir", str(tmp_path))
    home = standalone._temporary_home()
    assert home.parent == tmp_path
    assert home.stat().st_mode & 0o777 == 0o700
    home.rmdir()
    (tmp_path / "theirs").mkdir()
    home.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="is not yours"):
        standalone._temporary_home()
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(PermissionError, match="is not yours"):
        standalone._temporary_home()


def test_without_a_compiler_numpy_is_used_and_said_in_one_line(tmp_path):
    script = (
        "import numpy as np, circuitsim as cs\n"
        "run = cs.simulate(np.arange(15.).reshape(5, 3), np.ones((2, 3)))\n"
        "print(run.attrs['codegen'])\n"
        "try:\n"
        "    cs.simulate(np.eye(3), np.ones((2, 3)), codegen='cpp_standalone')\n"
        "except cs.ParameterError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    used, refused = done.stdout.splitlines()
    assert used == "numpy"
    assert "codegen: C++ standalone needs g++ and make" in refused
    assert len(done.stderr.strip().splitlines()) == 1
    assert "NumPy" in done.stderr


def test_importing_the_package_is_light():
    script = (
        "import sys, circuitsim, circuitsim.sweep, circuitsim.export, circuitsim.classify\n"
        "heavy = ('brian2', 'numba', 'matplotlib', 'xarray', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_blocks_are_alike_where_they_can_be():
    assert [block_length(n) for n in (0, 1, 500, 2000, 10_000, 750)] == [1, 1, 500, 500, 500, 375]
    assert block_length(1999) == 500  # a prime: the last block is shorter
