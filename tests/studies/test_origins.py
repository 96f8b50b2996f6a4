"""Weights that are given: from a layer of a network into circuits, and back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from commands import run_here
from conftest import relative
from hypothesis import assume, given
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim import studies
from circuitsim.running import runner
from circuitsim.studies import origins, slept
from circuitsim.studies.sweep import Study, run_cells, study_in
from circuitsim.vision import datasets
from circuitsim.vision.estimator import load
from circuitsim.vision.evaluation import hits, logits, renew_statistics
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.pools import pools
from circuitsim.vision.sharing import Sharing

HOW = {"gamma": (0.01,), "presentations": 30, "engine": "propagator", "codegen": "numpy"}
FAST = ["--engine", "propagator", "--codegen", "numpy", "--jobs", 1]


@given(st.tuples(st.integers(3, 9), st.integers(3, 9)), st.integers(1, 3), st.integers(1, 2))
def test_pools_of_a_layer_are_put_back_where_they_were(size, kernel, stride):
    geometry = Geometry(size, kernel, stride, padding=kernel // 2)
    weights = np.random.default_rng(0).random((*geometry.output_shape, kernel, kernel, 2, 3))
    found = origins.gathered(weights, geometry)
    assume(found)
    assert np.array_equal(origins.scattered(found, weights, geometry), weights)
    means = {
        n: np.broadcast_to(pool.mean(axis=1, keepdims=True), pool.shape)
        for n, pool in found.items()
    }
    shared = origins.scattered(means, weights, geometry)
    assert relative(shared, Sharing("instant").share(weights, geometry, 0)) < 1e-12
    assert sum(len(pool) for pool in found.values()) == 3 * sum(
        pool.size > 1 for pool in pools(geometry)
    )


@pytest.fixture(scope="module")
def trained(once):
    options = ["--dataset", "digits", "--width", "2", "--epochs", "1", "--jobs", "1", "--output"]
    place, done = once(
        "trained", lambda place: run_here("train", *options, place / "run", module="classify")
    )
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.fixture(scope="module")
def study(trained):
    return Study(initial=f"{trained}:layer1", **HOW)


@pytest.mark.slow
def test_circuits_are_the_pools_of_a_layer(trained, study, tmp_path):
    layer = load(trained).network_.lc_layers()["layer1"]
    sizes = [pool.size for pool in pools(layer.geometry) if pool.size > 1]
    assert study.neurons == tuple(sorted(set(sizes)))
    assert study.size == len(study.cells) == 2 * len(sizes)
    assert [cell for n in range(study.parts) for cell in study.part(n)] == study.cells
    (first, *_) = (pool for pool in pools(layer.geometry) if pool.size == study.neurons[0])
    known = layer.weights[first.rows, first.columns, ..., 0].reshape(first.size, -1)
    assert np.array_equal(study.initial_weights(study.cells[0]), known)
    assert Study.from_json(study.to_json()) == study

    output = tmp_path / "out.nc"
    studies.run(study, output, runner.Here())
    assert study_in(output) == study
    curves = cs.load(output).snr_w
    for n, neurons in enumerate(study.neurons):
        there = curves.isel(k=0, gamma=0, alpha=0, neurons=n, presentation=-1).notnull()
        assert int(there.sum()) == study.trials_of(neurons)
    cell = study.cells[-1]
    (alone,) = run_cells(study, [cell])
    weights = cs.load_weights(output, 3, cell.neurons)
    kept = weights.sel(gamma=cell.gamma, alpha=cell.alpha, trial=cell.trial).to_numpy()
    assert np.array_equal(kept[0], alone["weights"])
    assert studies.run(study, output, runner.Here()).reused == study.size


@pytest.mark.slow
def test_what_was_learned_goes_back_into_the_network(trained, tmp_path):
    """Against the same done by hand; and long sleeps by the ideal rule are exact sharing."""
    ideal = dict(HOW, gamma=(1e-6, 0.1), rule="mean_subtracted", presentations=3000)
    study = Study(initial=f"{trained}:layer1", **ideal)
    output = tmp_path / "out.nc"
    studies.run(study, output, runner.Here())
    classifier, data = load(trained), datasets.load("digits")
    layer = classifier.network_.lc_layers()["layer1"]
    before = layer.weights.copy()
    found = slept.evaluate(classifier, data, slept.learned(output), "layer1")
    assert np.array_equal(layer.weights, before)
    assert list(found.state.values) == [
        "awake", "asleep, gamma 1e-06", "asleep, gamma 0.1", "exactly shared"
    ]  # fmt: skip
    statistics = classifier.run_.statistics
    layer.weights[...] = Sharing("instant").share(before, layer.geometry, 0)
    renew_statistics(classifier.network_, data.train.images, *statistics)
    right = hits(logits(classifier.network_, data.test.images, *statistics), data.test.labels)[0]
    assert float(found.top1[3]) == right.mean()
    assert float(found.loss[1]) == pytest.approx(float(found.loss[3]), rel=1e-3)
    assert float(found.loss[2]) != pytest.approx(float(found.loss[3]), rel=1e-3)
    assert (found.interval[:, 0] < found.top1).all()
    assert (found.top1 < found.interval[:, 1]).all()
    changes = (found.gained - found.lost) / len(data.test.labels)
    assert changes.values == pytest.approx((found.top1 - found.top1[0]).values)

    with pytest.raises(cs.ParameterError, match="began with layer1, not with"):
        slept.evaluate(load(trained), data, slept.learned(output), "layer2")
    other = load(trained)
    other.network_.lc_layers()["layer1"].weights[...] += 1
    with pytest.raises(cs.ParameterError, match="other weights than this network has"):
        slept.evaluate(other, data, slept.learned(output))


@pytest.mark.slow
def test_the_way_from_a_network_to_the_circuit_and_back(trained, tmp_path):
    """The commands of docs/howto/yardstick.md, smaller."""
    output, report = tmp_path / "slept.nc", tmp_path / "report"
    done = run_here("--initial", f"{trained}:layer2", "--gamma", 0.01, "--presentations", 20, *FAST,
                    "--output", output)  # fmt: skip
    assert done.returncode == 0, done.stderr
    evaluate = ["evaluate", trained, "--weights", f"{output}:layer2", "--report", report]
    done = run_here(*evaluate, module="classify")
    assert done.returncode == 0, done.stderr
    assert "exactly shared" in done.stdout
    assert sorted(p.suffix for p in report.iterdir()) == [".nc", ".pdf", ".png"]
    kept = xr.load_dataset(report / "slept.nc", engine="h5netcdf")
    assert kept.top1.dims == ("state",)
    assert run_here(*evaluate, module="classify").returncode == 0
    done = run_here("evaluate", trained, "--weights", f"{output}:layer1", module="classify")
    assert done.returncode == 2
    assert "--weights layer1: began with layer2, not with" in done.stderr


@pytest.mark.parametrize("shape", [(4, 5, 9), (5, 9), (3, 5, 18)])
def test_weights_of_a_file(shape, tmp_path):
    weights = np.random.default_rng(1).random(shape)
    more = {"k": 3, "channels": 2} if shape[-1] == 18 else {}
    np.savez(tmp_path / "given.npz", weights=weights, **more)
    study = Study(initial=str(tmp_path / "given.npz"), **HOW)
    assert (study.k, study.neurons, study.channels) == ((3,), (5,), more.get("channels", 1))
    assert study.trials == (1 if len(shape) == 2 else shape[0])
    first = weights if len(shape) == 2 else weights[0]
    assert np.array_equal(study.initial_weights(study.cells[0]), first)
    # Where the file is does not count, what is in it does.
    (tmp_path / "given.npz").rename(tmp_path / "moved.npz")
    moved = Study(initial=str(tmp_path / "moved.npz"), **HOW)
    assert moved.digest(moved.cells[0]) == study.digest(study.cells[0])
    np.savez(tmp_path / "moved.npz", weights=weights + 1, **more)
    other = Study(initial=str(tmp_path / "moved.npz"), **HOW)
    assert other.digest(other.cells[0]) != study.digest(study.cells[0])
    with pytest.raises(cs.ParameterError, match="other weights than those that this study"):
        moved.initial_weights(moved.cells[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--initial", "nowhere:layer1"], "--initial nowhere:layer1: there is no trained network"),
        (["--initial", "nowhere"], "must be RUN:LAYER or FILE.npz"),
        (["--initial", "nowhere.npz"], "there is no such file"),
        (["--initial", "given.npz", "--k", 5], "--k 5: is that of the weights in given.npz"),
        (["--initial", "given.npz", "--initial-mean", "gabor"], "has no effect with initial"),
        (["--initial", "bad.npz"], "must have finite weights"),
        (["--initial", "odd.npz"], "must have k x k x channels inputs, not 7"),
        (["--initial", "text.npz"], "cannot be read"),
        (["--initial", "no.npz"], "must have an array weights"),
    ],
)
def test_weights_that_will_not_do(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("given.npz", weights=np.ones((2, 3, 9)))
    np.savez("bad.npz", weights=np.full((2, 3, 9), np.nan))
    np.savez("odd.npz", weights=np.ones((2, 3, 7)))
    np.savez("no.npz", other=np.ones(3))
    (tmp_path / "text.npz").write_text("weights")
    done = run_here(*options, "--gamma", 0.1, *FAST, "--presentations", 2)
    assert done.returncode == 2
    assert message in done.stderr
