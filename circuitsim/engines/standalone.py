"""C++ standalone code: compiled once for each shape of network, kept, and run as a process.

Brian2 keeps the active device in the state of the whole process. So the code is generated and
compiled in a process of its own, into a directory named by everything that determines it; a run
starts the program found there, with its values in files. Programs are only read, each run has its
own directory, and a directory gets its name when it is complete: any number of runs can go on at
once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import circuitsim
from circuitsim.engines.batch import Progress
from circuitsim.engines.spec import NetworkSpec
from circuitsim.files import OWNER, is_abandoned, machine, private
from circuitsim.files.locks import locked

_MANIFEST = "program.json"
_running: set[subprocess.Popen[Any]] = set()
_CRASHES = (signal.SIGILL, signal.SIGBUS, signal.SIGSEGV)
_REPORT = "std::cout << completed << std::endl;"


class CompilationError(RuntimeError):
    """The generated C++ code could not be compiled."""


class _Broken(Exception):
    """A program is not what a compiler should have made."""


@functools.cache
def compiler_works() -> bool:
    """Whether g++ (or ``$CXX``) and make are there and can make a program that runs."""
    if shutil.which("make") is None or shutil.which(_compiler()[0]) is None:
        return False
    # Where programs are kept: from the temporary directory none may be run.
    with tempfile.TemporaryDirectory(prefix="probe-", dir=private.cache()) as directory:
        source, program = Path(directory, "probe.cpp"), Path(directory, "probe")
        source.write_text(
            "#include <vector>\nint main() { return std::vector<int>(3).size() - 3; }\n"
        )
        try:
            command = [*_compiler(), str(source), "-o", str(program)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            subprocess.run([str(program)], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def run(spec: NetworkSpec, values: dict[str, Any], report: Progress) -> dict[str, Any]:
    """Run the compiled network of a spec, compiling it if need be.

    Parameters
    ----------
    spec : NetworkSpec
        What to run.
    values : dict
        What to set first, in SI units, by ``"group.variable"``.
    report : callable
        Called with the fraction done.

    Returns
    -------
    dict
        The network's results by ``"group.variable"``, flat except for monitors.

    Raises
    ------
    CompilationError
        If the code does not compile.
    RuntimeError
        If the program fails.
    """
    program = prepare(spec)
    manifest = json.loads((program / _MANIFEST).read_text())
    with _own_directory(private.temporary_home(), "run") as directory:
        arguments = []
        for name, value in values.items():
            if np.ndim(value):
                file = directory / name
                np.ascontiguousarray(value, dtype=np.float64).tofile(file)
                arguments.append(f"{name}={file}")
            else:
                arguments.append(f"{name}={float(value)!r}")
        results = directory / "results"
        results.mkdir()
        command = [str(program / "main"), "--results_dir", f"{results}/", *arguments]
        # The program reads its constant arrays from its own directory.
        try:
            _watch(command, program, report)
        except _Broken as error:
            shutil.rmtree(program, ignore_errors=True)
            raise CompilationError(
                f"the compiled network cannot be run ({error}); it is compiled anew the next time; "
                "use codegen='numpy' if that is no better"
            ) from None
        return {
            name: np.fromfile(results / file, dtype=dtype).reshape(shape)
            for name, (file, dtype, shape) in manifest["results"].items()
        }


def prepare(spec: NetworkSpec) -> Path:
    """Return the directory of the compiled program of a spec, compiling it if it is not there."""
    home = private.cache()
    program = home / _key(spec)
    if _complete(program):
        return program
    # The lock only saves work: whoever comes second finds the program ready.
    with locked(home / f"{program.name}.lock", wait=True):
        if not _complete(program):
            shutil.rmtree(program, ignore_errors=True)
            _compile(spec, program)
    return program


def _compile(spec: NetworkSpec, program: Path) -> None:
    with _own_directory(program.parent, "build") as work:
        (work / "spec.json").write_text(json.dumps(asdict(spec)))
        package = str(Path(circuitsim.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with (work / "log.txt").open("w") as log:
            command = [sys.executable, "-m", __name__, str(work)]
            # Not in the user's directory: Brian2 would read preferences there.
            environment = {**os.environ, "PYTHONPATH": path}
            process = _start(command, cwd=work, env=environment, stdout=log, stderr=log)
            code = _wait(process)
        built = work / "program"
        if code != 0 or not (built / _MANIFEST).exists():
            said = (work / "log.txt").read_text(errors="replace").strip().splitlines()
            first = next((line.strip() for line in said if "error" in line.lower()), "")
            raise CompilationError(
                f"the generated C++ code did not compile ({first[:200] or f'exit code {code}'}); "
                "use codegen='numpy'\n" + "\n".join(said[-15:])
            )
        os.rename(built, program)


def _build(work: Path) -> None:
    """Generate and compile the program of ``work/spec.json``; runs in a process of its own."""
    import brian2  # which a run of a compiled program does not need

    from circuitsim.engines import network

    spec = NetworkSpec.of_json(json.loads((work / "spec.json").read_text()))
    brian2.prefs["core.default_float_dtype"] = np.float64
    brian2.set_device("cpp_standalone", build_on_run=False)
    project, target = work / "project", work / "program"
    built = network.build(spec)
    built.network.run(built.duration, report=_REPORT, report_period=0.1 * brian2.second)
    brian2.device.build(directory=str(project), compile=False, run=False)
    _spare_system_calls(project / "network.cpp")
    _make(project)

    results = {}
    for name in built.results:
        group, variable_name = name.split(".")
        variable = built.groups[group].variables[variable_name]
        shape = [-1, spec.n_circuits * spec.n_inputs] if group == "moments" else [-1]
        if group == "rate_trace":
            shape = [-1, spec.n_circuits * spec.n_neurons]
        if group == "rate_inh_trace":
            shape = [-1, spec.n_circuits * spec.pools]
        file = os.path.basename(brian2.device.get_array_filename(variable))
        results[name] = (file, np.dtype(variable.dtype).str, shape)
    target.mkdir()
    shutil.copytree(project / "static_arrays", target / "static_arrays")
    shutil.copy2(project / "main", target / "main")
    manifest = {"results": results, "checksum": _checksum(target), "spec": asdict(spec)}
    (target / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _make(project: Path) -> None:
    """Compile Brian2's sources, most of whose length is headers: once for all of them."""
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    objects = sorted(path.stem for path in project.glob("code_objects/*.cpp"))
    sources = [path.name for path in project.glob("*.cpp")]
    for job in range(min(jobs, len(objects))):
        sources.append(f"code_objects_{job}.cpp")
        (project / sources[-1]).write_text(_joined(project, objects[job::jobs]))
    (project / "headers.h").write_text(
        "".join(
            f"#include {header}\n"
            for header in (
                '"objects.h"',
                '"brianlib/common_math.h"',
                '"brianlib/stdint_compat.h"',
                "<iostream>",
                "<fstream>",
                "<climits>",
            )
        )
    )
    # Dependencies matter to those who edit sources.
    make = ["make", f"-j{jobs}", "DEPS=", f"SRCS={' '.join(sources)}"]
    rules = (
        "headers.h.gch: headers.h\n\t$(CXX) $(CXXFLAGS) -x c++-header $< -o $@\n"
        # Declares arrays, reads and writes them: takes long to optimise, and gains nothing.
        "objects.o: OPTIMISATIONS += -O0\n"
    )
    # Where the compiler makes no such file, it reads the headers themselves.
    compiler = f"CXX={shlex.join(_compiler())}"
    made = [*make, f"--eval={rules}", compiler, "headers.h.gch"]
    subprocess.run(made, cwd=project, check=False)
    with_headers = f"{compiler} -include headers.h"
    subprocess.run([*make, f"--eval={rules}", with_headers, "main"], cwd=project, check=True)


def _joined(project: Path, objects: list[str]) -> str:
    """One source of many: each code object in a namespace, as they name their helpers alike."""
    texts = [(project / "code_objects" / f"{name}.cpp").read_text() for name in objects]
    # What they include must not be declared within: here first, there no more.
    includes = dict.fromkeys(re.findall(r"^#include.*$", "\n".join(texts), re.MULTILINE))
    parts = [
        f"namespace unit_{name} {{\n{text}\n}}\n"
        f"void _run_{name}() {{ unit_{name}::_run_{name}(); }}\n"
        for name, text in zip(objects, texts, strict=True)
    ]
    return "\n".join([*includes, *parts])


def _spare_system_calls(source: Path) -> None:
    """Let Brian2's main loop look at a clock that costs nothing.

    Up to 2.9 it asks for the CPU time of the process before every object in every step: a system
    call each time, which takes longer than the objects themselves.
    """
    cheap = (
        "#include <chrono>\n#include <ctime>\n"
        "static std::clock_t wall_clock()\n{\n"
        "    using namespace std::chrono;\n"
        "    const auto now = steady_clock::now().time_since_epoch();\n"
        "    using ticks = duration<std::clock_t, std::ratio<1, CLOCKS_PER_SEC>>;\n"
        "    return duration_cast<ticks>(now).count();\n}\n"
    )
    code = source.read_text()
    if "std::clock()" in code:
        source.write_text(cheap + code.replace("std::clock()", "wall_clock()"))


def _watch(command: list[str], directory: Path, report: Progress) -> None:
    """Run a program to its end, passing on the fractions that it prints."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = _start(
                command, cwd=directory, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except OSError as error:  # it is no program
            raise _Broken(error.strerror) from None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                with suppress(ValueError):
                    report(float(line))
        except BaseException:
            _kill(process)
            raise
        code = _wait(process)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if -code in _CRASHES:
        raise _Broken(signal.strsignal(-code))
    if code != 0 or said:
        raise RuntimeError(f"the compiled network failed with exit code {code}: {said[-500:]}")


def kill_all() -> None:
    """Kill the programs and compilers that this process has started, before it ends itself."""
    for process in list(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a process in a group of its own, so that all that it starts can be ended with it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    _running.add(process)
    return process


def _wait(process: subprocess.Popen[Any]) -> int:
    """Wait for a process; if interrupted, end it with everything that it has started."""
    try:
        code = process.wait()
    except BaseException:
        _kill(process)
        raise
    _running.discard(process)
    return code


def _kill(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _running.discard(process)


def _key(spec: NetworkSpec) -> str:
    """Name of a program: a digest of all that its machine code depends on."""
    parts = [json.dumps(asdict(spec), sort_keys=True), metadata.version("brian2"), _toolchain()]
    digest = hashlib.sha256("\0".join(parts).encode())
    here = Path(__file__).parent
    # What makes a network's code, and the user's preferences, which the compiler is given too.
    sources = [*sorted(here.parent.glob("*.py")), here / "spec.py", here / "network.py"]
    with suppress(RuntimeError):
        sources.append(Path("~/.brian/user_preferences").expanduser())
    for source in (*sources, Path(__file__)):
        with suppress(OSError):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


@functools.cache
def _toolchain() -> str:
    """Compiler and processor: Brian2 compiles with -march=native."""
    command = [*_compiler(), "--version"]
    version = shlex.join(command) + subprocess.run(command, capture_output=True, text=True).stdout
    processor = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith("flags")), "")
    return f"{version}{os.uname().machine}{processor}"


def _compiler() -> list[str]:
    """The compiler, with what stands before or after it: ``ccache g++``, ``g++ -std=c++17``."""
    try:
        return shlex.split(os.environ.get("CXX", "")) or ["g++"]
    except ValueError:
        return [os.environ["CXX"]]


def _complete(program: Path) -> bool:
    """Whether a program is there and is what was compiled, by this user."""
    try:
        files = (program, *program.rglob("*"))
        if not all(map(private.is_private, files)):
            return False
        manifest = json.loads((program / _MANIFEST).read_text())
        return bool(manifest["checksum"] == _checksum(program))
    except (OSError, ValueError, KeyError):
        return False


def _checksum(program: Path) -> str:
    """Digest of a program and of the arrays that it reads; it would go on without one of these."""
    digest = hashlib.sha256((program / "main").read_bytes())
    for array in sorted((program / "static_arrays").iterdir()):
        digest.update(array.name.encode() + array.read_bytes())
    return digest.hexdigest()


@contextmanager
def _own_directory(home: Path, purpose: str) -> Iterator[Path]:
    """Make a directory for a while; those of processes that were killed are removed on the way."""
    named = re.compile(rf"{purpose}-{OWNER}\w*")
    with os.scandir(home) as entries:
        for entry in entries:
            match = named.fullmatch(entry.name)
            with suppress(OSError):
                if match is not None and is_abandoned(entry, match):
                    shutil.rmtree(entry.path, ignore_errors=True)
    # Machines of a cluster share the cache: a process is told by its machine too.
    prefix = f"{purpose}-{machine()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=home) as directory:
        yield Path(directory)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
