"""Nothing leaks into a user's own Brian2 session, and runs do not disturb each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
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
from circuitsim.files import private

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


@pytest.mark.thorough
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
    cs.simulate(W, X, codegen="cpp_standalone")  # other tests have it compiled, too
    kept = private.cache()
    monkeypatch.setenv("CIRCUITSIM_CACHE", str(tmp_path))
    private._found.cache_clear()
    compiled = []

    def compiling(_spec, program):
        shutil.copytree(kept / program.name, program)
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
        (program,) = (p for p in tmp_path.iterdir() if p.is_dir())
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
        private._found.cache_clear()


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
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = private.temporary_home()
    assert home.parent == tmp_path
    assert home.stat().st_mode & 0o777 == 0o700
    home.rmdir()
    (tmp_path / "theirs").mkdir()
    home.symlink_to(tmp_path / "theirs")
    another = private.temporary_home()
    assert another not in (home, tmp_path / "theirs")
    assert another.stat().st_mode & 0o777 == 0o700
    assert private.temporary_home() == another
    home.unlink()
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    assert private.temporary_home() == another


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Sets the variable that names the cache, and tells which directory is used."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def used(given):
        monkeypatch.setenv("CIRCUITSIM_CACHE", str(given))
        private._found.cache_clear()
        return private.cache()

    yield used
    private._found.cache_clear()


def test_a_cache_that_others_can_write_is_not_used(caches, tmp_path, caplog):
    for inner in ("", "inner"):  # it, or a directory around it
        home = tmp_path / "open" / inner
        home.mkdir(parents=True, exist_ok=True)
        (tmp_path / "open").chmod(0o777)
        assert caches(home).parent.parent == tmp_path / "temporary"
        assert "CIRCUITSIM_CACHE is not used (others can write there" in caplog.text
    (tmp_path / "open").chmod(0o1777)  # as a temporary directory: others cannot rename in it
    assert caches(home) == home
    home.chmod(0o775)
    assert (caches(home) == home) == private._own_group(home.stat().st_gid)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert caches(tmp_path / "link") != tmp_path / "link"


def test_a_cache_by_a_relative_path_or_without_a_home(caches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert caches("mine") == tmp_path / "mine"

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert caches("").parent.parent == tmp_path / "temporary"
    assert not (tmp_path / "~").exists()


def test_a_cache_from_which_nothing_can_be_run(caches, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subprocess, "run", refused)
    assert caches(tmp_path / "mine").parent.parent == tmp_path / "temporary"
    assert private.cache(executable=False) == tmp_path / "mine"


def test_a_program_of_another_is_not_run(tmp_path):
    program = tmp_path / "program"
    (program / "static_arrays").mkdir(parents=True)
    (program / "main").write_text("#!/bin/sh\n")
    manifest = {"checksum": standalone._checksum(program)}
    (program / "program.json").write_text(json.dumps(manifest))
    for file in (program, program / "main", program / "program.json", program / "static_arrays"):
        assert standalone._complete(program)
        mode = file.stat().st_mode
        file.chmod(mode | 0o002)
        assert not standalone._complete(program), "others can write it"
        file.chmod(mode)
    somebody = os.getuid() + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getuid", lambda: somebody)
        assert standalone._complete(program) == (program.stat().st_uid == 0)


@pytest.mark.parametrize(
    "given, words",
    [("ccache g++", ["ccache", "g++"]), ("g++ -std=c++17", ["g++", "-std=c++17"]), ("", ["g++"]),
     ("g++ '", ["g++ '"])],
)  # fmt: skip
def test_a_compiler_with_a_launcher_or_options(given, words, monkeypatch):
    monkeypatch.setenv("CXX", given)
    assert standalone._compiler() == words


COMPILER = """#!/bin/sh
case "$*" in *--version*|*probe*) exec g++ "$@";; esac
case {way} in
    fails) echo "fatal error: disk quota exceeded" >&2; exit 1;;
    killed) kill -9 $$;;
    objects) case "$*" in *"-o main"*) exec g++ "$@";; esac;;
esac
for word; do [ "$before" = -o ] && echo "no machine code" > "$word"; before=$word; done
for word; do case "$word" in *.cpp) touch "$(basename "$word" .cpp).o";; esac; done
chmod +x main 2>/dev/null || true
"""


@needs_compiler
@pytest.mark.parametrize(
    "way, told",
    [
        pytest.param("fails", "did not compile (fatal error: disk", marks=pytest.mark.thorough),
        pytest.param("killed", "did not compile (make: *** ", marks=pytest.mark.thorough),
        pytest.param("objects", "did not compile (", marks=pytest.mark.thorough),
        ("all of it", "cannot be run (Exec format error)"),
    ],
)
def test_a_compiler_that_fails_halfway(way, told, caches, tmp_path, monkeypatch):
    """It makes the program that it is tried with, and then is killed, or writes what is none."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(way=f"'{way}'"))
    compiler.chmod(0o755)
    home = caches(tmp_path / "cache")
    monkeypatch.setenv("CXX", str(compiler))
    standalone.compiler_works.cache_clear()
    standalone._toolchain.cache_clear()
    try:
        with pytest.raises(standalone.CompilationError) as error:
            cs.simulate(W, X, codegen="cpp_standalone")
    finally:
        standalone.compiler_works.cache_clear()
        standalone._toolchain.cache_clear()
    first = str(error.value).splitlines()[0]
    assert told in first
    assert "use codegen='numpy'" in first
    assert not [path for path in home.iterdir() if path.is_dir()]  # nothing is taken for a program


@pytest.mark.thorough
def test_damaged_kept_code_of_numba_is_made_again(tmp_path):
    """Each file of it cut, at a place that pickle notices; and where nothing can be written."""
    (tmp_path / "mine.py").write_text(
        "from circuitsim.files.compiled import compiled\n"
        "@compiled\ndef double(x):\n    return 2 * x\n"
    )
    code = "import mine; assert mine.double(3) == 6; print(mine.double.stats.cache_hits)"

    def hits():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return sum(map(int, re.findall(r": (\d+)", done.stdout)))

    assert [hits(), hits()] == [0, 1]
    for kind in ("nbi", "nbc"):
        for file in (tmp_path / "__pycache__").glob(f"*.{kind}"):
            file.write_bytes(file.read_bytes()[:-10])
    assert [hits(), hits()] == [0, 1]


def test_commands_take_no_preferences_from_the_working_directory(tmp_path, thorough):
    (tmp_path / "brian_preferences").write_text("codegen.target = open('run', 'w') or 'numpy'\n")
    code = (
        "from circuitsim.processwide import ignore_local_preferences, load_brian2\n{}load_brian2()"
    )
    cases = (("ignore_local_preferences();", False), ("", True))
    for line, run in cases if thorough else cases[:1]:
        command = [sys.executable, "-c", code.format(line)]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        assert (tmp_path / "run").exists() == run


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
