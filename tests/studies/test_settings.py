"""Sweeps of circuits that are not the published ones, and of patterns that are given."""

import itertools
import json

import numpy as np
import pytest
import xarray as xr
from brian2 import ms

import circuitsim as cs
from circuitsim import sweep
from circuitsim.running.store import Store
from circuitsim.studies import Study
from circuitsim.studies import sweep as module
from circuitsim.studies.figure4 import Figure4
from circuitsim.studies.sweep import Cell

SMALL = {"k": 2, "gamma": [0.1, 0.01], "neurons": 5, "trials": 2, "presentations": 4,
         "engine": "stepper", "codegen": "numpy", "presentation": 20.0}  # fmt: skip
GRID = {"tau_inh": [30, 90], "sigma": [0, 0.3]}


def options(of):
    words = [[f"--{name.replace('_', '-')}", *map(str, np.atleast_1d(v))] for name, v in of.items()]
    return list(itertools.chain(*words))


@pytest.mark.parametrize(
    ("settings", "rule", "engine"),
    [
        ({}, "circuit", "propagator"),
        ({"tau_inh": (30.0, 90.0)}, "inhibition_gated", "propagator"),
        ({"sigma": (0.0, 0.3)}, "circuit", "stepper"),
        ({"private": (0.0, 0.3)}, "mean_subtracted", "stepper"),
        ({"transfer": ("relu",)}, "circuit", "stepper"),
        ({}, "cubic = (r - b)**3", "stepper"),
        ({}, "decays = (r - b)*w", "brian2_per_synapse"),
    ],
)
def test_auto_is_one_engine_that_runs_all_circuits(settings, rule, engine):
    study = Study(engine="auto", rule=rule, settings=tuple(settings.items()))
    assert study.engine == engine
    assert Study.from_json(study.to_json()) == study
    if not settings and rule == "circuit":
        assert Figure4(engine="auto").engine == engine


@pytest.mark.slow
def test_settings_are_dimensions(tmp_path, capsys):
    file = tmp_path / "s.nc"
    words = [*options(SMALL), "--set", "tau_inh=30", "90", "--set", "sigma=0", "0.3",
             "--set", "transfer=relu", "--jobs", "1", "--output", str(file)]  # fmt: skip
    assert sweep.main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert all(text in told for text in ("16, of which 0", "tau_inh", "30 90", "relu"))
    assert sweep.main(words) == 0
    table = capsys.readouterr().out
    assert table.count("tau_inh = 90 ms, sigma = 0.3:") == 1
    assert max(map(len, table.splitlines()[:15])) <= 79
    found = cs.load(file)
    dims = ("k", "gamma", "alpha", "neurons", "tau_inh", "sigma", "trial", "presentation")
    assert found.inverse_snr_w.dims == dims
    assert found.tau_inh.attrs["units"] == "ms"
    xr.testing.assert_equal(found, cs.sweep(**SMALL, **GRID, transfer="relu"))
    # Each is what `simulate` makes of its circuit.
    study = module.study_in(file)
    assert json.loads(study.to_json())["settings"][0] == ["tau_inh", [30.0, 90.0]]
    cell = Cell(2, 5, 0.01, 10.0, 1, (("tau_inh", 90.0), ("sigma", 0.3)))
    alone = cs.simulate(
        study.initial_weights(cell), study.source(cell),
        cs.Circuit(tau_inh=90 * ms, sigma=0.3, transfer="relu"), cs.Plasticity(gamma=0.01),
        20 * ms, engine="stepper", codegen="numpy", seed=[study.noise(cell, "rates")],
    )  # fmt: skip
    here = found.sel(k=2, gamma=0.01, alpha=10, neurons=5, tau_inh=90, sigma=0.3, trial=1)
    np.testing.assert_array_equal(here.inverse_snr_w, alone.inverse_snr_w)
    assert np.isnan(found.fixed_point_inverse_snr_w).all()
    titles = [axis.get_title() for axis in cs.plot(found).axes]
    assert titles[-1] == "$k$ = 2\ntau_inh = 90 ms\nsigma = 0.3"
    weights = np.load(cs.export_weights(file))
    assert weights["sigma"].tolist() == [0, 0, 0.3, 0.3] * 4
    # A larger grid takes what is there, and another setting is another sweep.
    larger = cs.sweep(**SMALL, tau_inh=[30, 90, 60], sigma=[0, 0.3], transfer="relu", output=file)
    xr.testing.assert_equal(larger.sel(tau_inh=[30, 90]), found)
    assert len(Store(tmp_path / "s.cells").digests()) == 24
    with pytest.raises(cs.ParameterError, match="holds another sweep"):
        cs.sweep(**SMALL, **GRID, transfer="tanh", output=file)


def test_cells_without_settings_have_the_names_that_they_had():
    study = Study(k=3, gamma=0.01, trials=1)
    assert study.digest(study.cells[0]) == "b72887e8ebe4b41089aca8939230fb94"
    old = json.loads(study.to_json())
    for name in ("settings", "patterns", "inputs"):
        del old[name]
    assert Study.from_json(json.dumps(old)) == study


def test_parts_are_the_jobs_of_all_cells():
    study = Study(k=(2, 3), gamma=(0.1, 0.01), trials=7, engine="stepper", settings=GRID)
    assert [study.part(n) for n in range(study.parts)] == study.jobs(study.cells)
    assert Study.from_json(study.to_json()) == study
    assert len({study.digest(cell) for cell in study.cells}) == study.size == 2 * 2 * 7 * 4


def test_linear_imperfections_have_their_end_point():
    study = Study(**SMALL, settings={"spread_alpha": 0.1, "private": 0.2, "delay": 2})
    cell = study.cells[0]
    (result,) = study.run([cell])
    w_init = study.initial_weights(cell)
    end = cs.linear.end_point(
        w_init, cs.Circuit(spread_alpha=0.1, delay=2 * ms), cs.Plasticity(gamma=0.1), private=0.2,
        seed=[study.noise(cell, "rates")],
    )  # fmt: skip
    limit = result["limits"][module.LIMITS.index("fixed_point_inverse_snr_w")]
    assert limit == pytest.approx(float(cs.measures.inverse_snr_w(end)), rel=1e-12)


@pytest.mark.slow
def test_given_patterns(tmp_path):
    file = tmp_path / "p.npy"
    patterns = np.random.default_rng(0).standard_normal((6, 4))
    np.save(file, patterns)
    of = SMALL | {"engine": "propagator", "inputs": str(file)}
    found = cs.sweep(**of, output=tmp_path / "p.nc")
    study = module.study_in(tmp_path / "p.nc")
    shown = study.source(study.cells[0]).block(0, 4)
    assert all((row == patterns).all(axis=1).any() for row in shown)
    end = cs.theory.fixed_point(
        study.initial_weights(study.cells[0]), 0.1, "circuit", 10, patterns.T @ patterns / 6
    )
    limit = found.fixed_point_inverse_snr_w.sel(gamma=0.1).isel(trial=0).item()
    assert limit == pytest.approx(float(cs.measures.inverse_snr_w(end)))
    # A result is read without them; where they have moved to, and not changed, it goes on.
    file.rename(tmp_path / "q.npy")
    xr.testing.assert_equal(cs.load(tmp_path / "p.nc"), found)
    of["inputs"] = str(tmp_path / "q.npy")
    xr.testing.assert_equal(cs.sweep(**of, output=tmp_path / "p.nc"), found)
    np.save(tmp_path / "q.npy", patterns + 1)
    with pytest.raises(cs.ParameterError, match="holds another sweep"):
        cs.sweep(**of, output=tmp_path / "p.nc")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "sigma"], "--set sigma: must be NAME=VALUE"),
        (["--set", "sigma=x"], "--set sigma=x: must be a number"),
        (["--set", "sgma=1"], "--set sgma: must be one of"),
        (["--set", "alpha=1"], "--set alpha: has an option of its own, --alpha"),
        (["--set", "sigma=1", "--set", "sigma=2"], "--set sigma: must not be given twice"),
        (["--set", "sigma=0", "tau_inh=3"], "--set tau_inh=3: needs a --set of its own"),
        (["--set", "sigma=-1"], "--set sigma=-1: must be >= 0"),
        (["--set", "transfer=foo"], "--set transfer=foo: must be one of linear"),
        (["--set", "delay=1.5"], "--set delay=1.5 ms: must be a whole number of steps"),
        (["--set", "sigma=1", "--engine", "propagator"], "use --engine stepper"),
        (["--set", "sigma=1", "--rule", "mean_subtracted"], "has no circuit; leave this out"),
        (["--inputs", "nowhere.npy"], "--inputs"),
        (["--inputs", "5.npy"], "must have as many inputs"),
        (["--inputs", "5.npy", "--correlation", "0.1"], "has no effect with patterns"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("5.npy", np.ones((3, 5)))
    assert sweep.main([*options(SMALL), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("sweep*"))
