"""What a newcomer is told: of mistakes, of waits, and of files that are there already."""

import argparse
import contextlib
import dataclasses
import inspect
import io
import math
import os
import pty
import re
import runpy
import subprocess
import sys
import time
import tomllib
import types

import numpy as np
import pytest
import xarray as xr
from brian2 import DimensionMismatchError, ms
from conftest import ROOT

import circuitsim as cs
from circuitsim import commands
from circuitsim.checks import names, waits
from circuitsim.commands import main, progress, waiting
from circuitsim.studies.comparison import Comparison
from circuitsim.studies.endpoint import Endpoint
from circuitsim.studies.figure4 import Figure4
from circuitsim.studies.layer import Layer
from circuitsim.studies.rates import Rates
from circuitsim.studies.robustness import Robustness
from circuitsim.studies.sweep import Study
from circuitsim.vision import predictivity
from circuitsim.vision.datasets import from_arrays
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.layers import BatchNorm2D, Conv2D, Linear, LocallyConnected2D, MaxPool2D
from circuitsim.vision.networks import Architecture
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

SMALL = (
    "--engine propagator --codegen numpy --presentations 20 --trials 1 --k 2 --gamma 0.1 --jobs 1"
)


def said(capsys, name, *words):
    try:
        code = commands.run(name, name, [str(word) for word in words])
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "name, words, expected",
    [
        ("sweep", ["--tau", "0.03"], "--tau 0.03: must be > 5.5 ms for alpha = 10"),
        ("sweep", ["--presentation", "0.15"], "was it meant in seconds?"),
        ("sweep", ["--tau", "30ms"], "--tau 30ms: must be a number of ms, without the unit"),
        ("sweep", ["--k", "None"], "--k None: must be a whole number"),
        ("sweep", ["--k", "3,5"], "several are separated by spaces"),
        ("sweep", ["--rule", "a = q - b"], "--rule q - b: must use r, r_inh"),
        ("sweep", ["--rule", "circit"], "did you mean circuit?"),
        ("sweep", ["--rule", "gated"], "did you mean inhibition_gated?"),
        ("sweep", ["--rule", "m = exp(r)", "--engine", "propagator"], "use --engine stepper"),
        ("sweep", ["--gama", "0.1"], "did you mean --gamma?"),
        ("sweep", ["-k", "3"], "did you mean --k?"),
        ("classify", [], "needs a command: train, evaluate"),
        ("classify", ["trian"], "predictivity; did you mean train?"),
        ("classify", ["--download", "train"], "; --download stands after the command, which may"),
        ("classify", ["evaluate", "--run", "X"], "--run; RUN is given without a name before it"),
        ("classify", ["evaluate", "X", "--trials=3"], "; --trials is an option of compare only"),
        ("classify", ["train", "--trials", "3"], "; --trials is an option of compare only"),
        ("classify", ["evaluate", "X", "--gamma", "3"], "of train, readout and compare only"),
        ("classify", ["train", "--xyz", "3"], "unrecognized arguments: --xyz 3 (see"),
        ("sweep", ["--set", "tau_inh=9ms"], "tau_inh=9ms: must be a number of ms, without the"),
        ("sweep", ["--inputs", "no.npy"], "no.npy: must be an .npy file of numbers (No such file"),
        ("sweep", ["--cells", __file__], f"--cells {__file__}: must be a directory"),
        ("classify", ["compare", "--runs", __file__], f"--runs {__file__}: must be a directory"),
        ("status", ["."], ".: is a directory; name a result, such as"),
        ("status", [os.sep], f"{os.sep}: is a directory; name a result, such as"),
        ("status", [__file__], "cannot be read as the result of a study (it was cut short, or"),
        ("export", [__file__], f"error: {__file__}: cannot be read"),
    ],
)
def test_mistakes_are_told_by_the_option_that_was_given(capsys, name, words, expected):
    code, told = said(capsys, name, *words)
    assert code == 2
    assert expected in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--k", "3", "sweep"], "--k: options of a command stand after it: circuitsim sweep --k"),
        (["sweeep", "--k", "3"], "sweeep: no command; there are sweep, figure4"),
    ],
)
def test_commands_that_are_none(capsys, words, expected):
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_setuptools_that_is_too_old_is_told(monkeypatch):
    """Which pip takes with --no-build-isolation; it would call the licence's field wrong."""
    old = types.SimpleNamespace(__version__="65.5.0")
    monkeypatch.setitem(sys.modules, "setuptools", old)
    with pytest.raises(SystemExit, match="setuptools >= 77, and here is 65.5.0"):
        runpy.run_path(str(ROOT / "setup.py"))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert needed == ["setuptools>=77"]


def test_names_that_were_meant():
    assert names.nearest("xyz", ["circuit"]) == ""


@pytest.mark.parametrize("name", ["sweep", "figure4", "companions", "status", "export", "classify"])
def test_help_gives_no_default_of_none(name):
    parsers = [commands.parser(name, name)]
    for action in parsers[0]._actions:
        parsers += (
            getattr(action, "choices", None)
            and action.metavar == "COMMAND"
            and list(action.choices.values())
        ) or []
    options = set()
    for parser in parsers:
        text = " ".join(parser.format_help().split())
        assert "None" not in text
        shown = [a for a in parser._actions if a.help != argparse.SUPPRESS]
        options |= {o for a in shown for o in a.option_strings}
    assert not {"--threads", "--seeds"} & options  # one name for one thing


def test_inputs_and_weights_that_were_swapped(rng):
    w_init, inputs = 1 + rng.standard_normal((50, 9)), rng.standard_normal((60, 9))
    with pytest.warns(UserWarning, match="were the two swapped"):
        cs.simulate(inputs, w_init, engine="propagator", codegen="numpy")
    cs.simulate(w_init, inputs, engine="propagator", codegen="numpy")  # warnings are errors


def test_inputs_that_are_pixels(rng):
    w_init, inputs = 1 + rng.standard_normal((20, 9)), rng.integers(0, 256, (300, 9))
    with pytest.raises(FloatingPointError, match="scale the inputs: their mean square is 2"):
        cs.simulate(w_init, inputs, engine="propagator", codegen="numpy")


_IMAGES = {"input_shape": (32, 32, 3), "n_classes": 10}
DESCRIPTIONS = [
    (cs.Circuit, {}), (cs.Plasticity, {}),
    (Study, {}), (Figure4, {}), (Rates, {}), (Endpoint, {}), (Robustness, {}), (Layer, {}),
    (Comparison, {"variants": ("lc", "circuit-1")}),
    (Training, {}), (Sharing, {"method": "circuit"}), (Architecture, _IMAGES),
    (Geometry, {"input_shape": (7, 7), "kernel": 3}),
]  # fmt: skip
ODD = [
    None, True, -1, 0, 1.5, 10**30, math.nan, math.inf, "x", "", (), {}, [[1, 2]], ["relu", "tanh"],
    np.array([1.0, 2.0]), np.array(["relu", "tanh"]), 3 * ms, [1, 2] * ms, object(),
]  # fmt: skip
FOUND = {"pools", "initial_digest", "patterns"}  # in files that are given, not by a user


@pytest.mark.parametrize(("of", "usual"), DESCRIPTIONS, ids=[of.__name__ for of, _ in DESCRIPTIONS])
def test_any_value_is_taken_or_refused(of, usual):
    """Whatever a field is given: a message that names it, or something that can be shown."""
    for field in dataclasses.fields(of):
        for odd in ODD if field.init and field.name not in FOUND else ():
            with contextlib.suppress(cs.ParameterError, DimensionMismatchError):
                made = of(**{**usual, field.name: odd})
                assert str(made)
                assert repr(made)


W, X = np.random.default_rng(0).standard_normal((2, 4, 4))
FAST = {"engine": "propagator", "codegen": "numpy"}
LAYER = {"weights": np.ones((4, 3, 1, 1)), "input_shape": 6, "patterns": 3, **FAST}
CALLED = {"rho": "correlation", "array": "inputs"}  # in messages
IMAGES = {"images": np.random.default_rng(0).random((6, 8, 8)), "labels": [0, 1, 2] * 2}
CURVE = xr.DataArray([1.0, 0.1], {"presentation": [0, 1]}, "presentation", "inverse_snr_w")


def apply(weights, rate=None, rate_inh=None):
    return cs.transfer(X, codegen="numpy").apply(weights, rate, rate_inh)


CALLS = [
    (cs.simulate, {"w_init": W, "inputs": X, **FAST}),
    (cs.simulate_layer, LAYER),
    (cs.transfer, {"inputs": X, "codegen": "numpy"}),
    (apply, {"weights": W}),
    (cs.log_spaced, {"n_presentations": 50}),
    (cs.measures.snr_w, {"weights": W}),
    (cs.measures.snr_z, {"weights": W, "covariance": np.eye(4)}),
    (cs.measures.mean_weight_cosine, {"weights": W, "w_init": X}),
    (cs.measures.mean_weight_kept, {"weights": W, "w_init": X}),
    (cs.measures.snr_from_moments, {"mean": W, "variance": X**2}),
    (cs.measures.inverse_snr_from_moments, {"mean": W, "variance": X**2}),
    (cs.measures.cosine, {"a": W, "b": X}),
    (cs.measures.presentations_until, {"run": CURVE.to_dataset(), "inverse_snr_w": 0.1}),
    (cs.theory.fast_fixed_point, {"drive": W}),
    (cs.theory.fixed_point, {"w_init": W, "gamma": 0.1}),
    (cs.theory.gains, {}),
    (cs.theory.minimum_inverse_snr_w, {"gamma": 0.1}),
    (cs.theory.stability_bound, {"tau": 30.0, "alpha": 10.0}),
    (cs.linear.end_point, {"w_init": W}),
    (cs.linear.signal_matrix, {"n_neurons": 4}),
    (cs.inputs.ArrayInputs, {"array": X}),
    (cs.inputs.GaussianInputs, {"n_presentations": 4, "n_inputs": 3, "seed": 0}),
    (cs.inputs.Noisy, {"inputs": X, "private": 0.1}),
    (cs.inputs.Patterns, {"patterns": X}),
    (cs.inputs.StackedInputs, {"sources": [cs.inputs.GaussianInputs(4, 3, 0)], "which": [0, 0]}),
    (cs.inputs.equicorrelated, {"rho": 0.1, "n_inputs": 3}),
    (cs.inputs.patches, {"images": IMAGES["images"], "k": 3, "number": 5}),
    (cs.initial.mean_kernel, {"mean": "gabor", "k": 3, "rng": np.random.default_rng(0)}),
    (from_arrays, IMAGES),
    (Conv2D, {"input_shape": (6, 6), "in_channels": 2, "out_channels": 4}),
    (LocallyConnected2D, {"input_shape": (6, 6), "in_channels": 2, "out_channels": 4}),
    (BatchNorm2D, {"channels": 3}),
    (Linear, {"features": 3, "outputs": 2}),
    (MaxPool2D, {"input_shape": (6, 6)}),
    (predictivity.reliability, {"repeats": np.ones((3, 4, 5)), "splits": 2}),
    (predictivity.mean_responses, {"repeats": np.ones((3, 4, 5))}),
]


@pytest.mark.parametrize(("of", "usual"), CALLS, ids=[of.__name__ for of, _ in CALLS])
def test_any_argument_is_taken_or_refused_by_name(of, usual):
    """Its own, or where two do not fit each other, the other's."""
    of(**usual)
    names = inspect.signature(of).parameters
    known = re.compile(rf"\b({'|'.join(CALLED.get(name, name) for name in names)})\b")
    for name in names:
        for odd in [*ODD, 1j, b"x", [[1, 2], [3]], np.zeros((0, 3)), int]:
            told = name
            try:
                of(**{**usual, name: odd})
            except (cs.ParameterError, DimensionMismatchError) as error:
                told = str(error)
            except FloatingPointError:  # too large a number
                pass
            assert told == name or known.search(told), (name, odd, told)


@pytest.mark.slow
def test_one_policy_for_files_that_are_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = [*SMALL.split(), "--rule", "inhibition_gated"]
    assert said(capsys, "sweep", *SMALL.split())[0] == 0
    code, told = said(capsys, "sweep", *other)
    assert code == 2
    assert "name another with --output, or give --overwrite" in told
    assert said(capsys, "sweep", *other, "--overwrite")[0] == 0
    # A picture of something else is not drawn over.
    (tmp_path / "mine.png").write_bytes(b"mine")
    code, told = said(capsys, "sweep", *SMALL.split(), "--output", "mine.nc")
    assert code == 2
    assert "would replace mine.png" in told
    # What is exported, and scripts for Slurm: the same again is no matter, something else is.
    assert said(capsys, "export", "sweep.nc", "--output", "w.npz")[0] == 0
    assert said(capsys, "export", "sweep.nc", "--output", "w.npz")[0] == 0
    (tmp_path / "w.npz").write_bytes(b"mine")
    code, told = said(capsys, "export", "sweep.nc", "--output", "w.npz")
    assert code == 2
    assert "--overwrite" in told
    assert (tmp_path / "w.npz").read_bytes() == b"mine"
    assert said(capsys, "export", "sweep.nc", "--output", "w.npz", "--overwrite")[0] == 0
    (tmp_path / "job.sh").write_text("mine")
    code, told = said(capsys, "sweep", *other, "--write-slurm", "job.sh")
    assert code == 2
    assert (tmp_path / "job.sh").read_text() == "mine"


class Terminal(io.StringIO):
    """A terminal of some columns that remembers what was written."""

    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [20, 40, 59, 79, 200])
def test_progress_fits_into_the_terminal(monkeypatch, columns):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress.bar(1.0, "12.5/9000 circuits, getting ready: compiling, once: ") as shown:
        shown.refresh()
        shown.update(0.3)
        shown.refresh()
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    assert max(map(len, lines)) < columns
    assert "30 %" in terminal.getvalue() or columns == 20


def test_time_goes_on_while_nothing_is_done(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar(1.0, "getting ready: "):
        until = time.monotonic() + 10
        while "00:01" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    assert "getting ready: 00:01" in terminal.getvalue()
    assert "?" not in terminal.getvalue()


def test_a_line_of_waiting_is_taken_away(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    waiting.show("starting")
    waiting.clear()
    waiting.clear()
    assert terminal.getvalue() == "starting ...\r\x1b[K"


def test_a_command_tells_what_it_waits_for(monkeypatch, tmp_path):
    """From its first moment, and each line is taken away before anything else is said."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main.main(["status", str(tmp_path / "no.nc")]) == 2
    away = "\r\x1b[K"
    first, second, told = terminal.getvalue().split(away)
    assert first == "circuitsim status: starting ..."
    assert second == f"reading {tmp_path / 'no.nc'} ..."[: waiting.width()]
    assert told.startswith("circuitsim status: error: ")


def test_those_who_call_from_python_are_told_what_takes_long(monkeypatch):
    monkeypatch.setattr(waits, "_PATIENCE", 0.01)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with waits.told("compiling") as over:
        assert over is not None
        until = time.monotonic() + 10
        while not terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert terminal.getvalue() == "circuitsim: compiling\n"
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # a pipe
    with waits.told("compiling") as over:
        assert over is None


@pytest.mark.slow
def test_a_command_says_at_once_that_it_starts(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "circuitsim.sweep", *SMALL.split()]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            found = os.read(ours, 1000)
        except OSError:  # its end
            break
        if not found:
            break
        shown += found
    assert running.wait() == 0
    assert shown.startswith(b"python -m circuitsim.sweep: starting ...\r\x1b[K")
    assert b"getting ready: " in shown
    assert np.char.find(shown, b"written: sweep.nc") > 0
