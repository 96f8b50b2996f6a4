"""From the weights of a sweep to a classifier: grids, responses, the readout, the command."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from sklearn.linear_model import Ridge

from circuitsim.checks.validation import ParameterError
from circuitsim.commands import cli
from circuitsim.commands import readout as classify_readout
from circuitsim.measures import snr_w
from circuitsim.running import results
from circuitsim.studies.readouts import circuits
from circuitsim.studies.sweep import Study, run_cells
from circuitsim.vision.datasets import Dataset, ImageSet, load
from circuitsim.vision.readout import PENALTIES, Grid, _pooled, pixels, readout


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 6), st.integers(1, 8))
def test_fields_lie_in_the_image_as_far_apart_as_possible(rows, columns, kernel, side):
    assume(side - 1 + kernel <= min(rows, columns))
    grid = Grid((rows, columns), kernel, side**2)
    assert grid.geometry.output_shape == (side, side)
    fields = list(grid.fields())
    assert len(fields) == side**2
    stride = grid.geometry.stride
    for row, column, r, c in fields:
        assert 0 <= r.start < r.stop == r.start + kernel <= rows
        assert 0 <= c.start < c.stop == c.start + kernel <= columns
        assert (r.start - fields[0][2].start, c.start - fields[0][3].start) == (
            row * stride,
            column * stride,
        )
    if side > 1:  # one more would not fit
        assert (side - 1) * (stride + 1) + kernel > min(rows, columns)
    first, last = fields[0], fields[-1]
    assert 0 <= (rows - last[2].stop) - first[2].start <= 1
    assert 0 <= (columns - last[3].stop) - first[3].start <= 1


@pytest.mark.parametrize("pooling", [1, 2, 3, 5])
def test_responses_of_shared_kernels_are_a_convolution(pooling, rng):
    images = rng.standard_normal((4, 12, 12, 2)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 2, 5)).astype(np.float32)
    grid = Grid((12, 12), 3, 25)  # stride 2, fields cover 11 x 11
    weights = np.broadcast_to(kernel.reshape(18, 5), (25, 18, 5))
    found = _pooled(images, weights, grid, pooling)
    side = -(-5 // pooling)
    for image, features in zip(images, found.reshape(4, side, side, 5), strict=True):
        for channel in range(5):
            full = correlate(image, kernel[..., channel], mode="valid")[..., 0]
            rectified = np.maximum(full[:9:2, :9:2], 0)
            for i, j in np.ndindex(side, side):
                rows, columns = (slice(n * pooling, (n + 1) * pooling) for n in (i, j))
                expected = rectified[rows, columns].mean()
                assert features[i, j, channel] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def toy(rng, n_train=300, n_test=100, classes=3):
    """Images whose class is the brightest of three pixels, more or less."""

    def images(count):
        pixels = rng.integers(0, 256, (count, 3, 3, 1), dtype=np.uint8)
        return ImageSet(pixels, np.argmax(pixels[:, 0, :, 0], axis=1).astype(np.int64))

    return Dataset("toy", images(n_train), images(n_test), ("a", "b", "c"))


@pytest.mark.slow
def test_the_readout_is_a_ridge_regression(rng):
    """Against scikit-learn's, with the penalty found, on all images to learn from."""
    dataset, grid = toy(rng), Grid((3, 3), 2, 4)
    weights = rng.standard_normal((4, 4, 60))
    weights[:, :, 5] = weights[:, :, 4]  # two channels that are the same
    found = readout(weights, grid, dataset, pooling=1)
    assert found.n_features == 240
    mean, deviation = dataset.train.images.mean(), dataset.train.images.std()

    def features(part):
        images = ((part.images - mean) / deviation).astype(np.float32)
        return _pooled(images, weights.astype(np.float32), grid, 1).astype(float)

    learned, tested = features(dataset.train), features(dataset.test)
    centre, spread = learned.mean(axis=0), learned.std(axis=0)
    ridge = Ridge(alpha=found.penalty * len(learned))
    ridge.fit((learned - centre) / spread, np.eye(3)[dataset.train.labels])
    for part, given_, accuracy in (
        (dataset.train, learned, found.train_accuracy),
        (dataset.test, tested, found.accuracy),
    ):
        told = np.argmax(ridge.predict((given_ - centre) / spread), axis=1)
        assert accuracy == np.mean(told == part.labels)
    assert found.accuracy > 0.7

    # The penalty is the one that does best for every tenth image, fitted to the others.
    held_out = np.arange(len(learned)) % 10 == 9
    part, labels = learned[~held_out], dataset.train.labels
    centre, spread = part.mean(axis=0), part.std(axis=0)
    correct = []
    for penalty in PENALTIES:
        ridge = Ridge(alpha=penalty * len(part))
        ridge.fit((part - centre) / spread, np.eye(3)[labels[~held_out]])
        told = np.argmax(ridge.predict((learned[held_out] - centre) / spread), axis=1)
        correct.append(int(np.sum(told == labels[held_out])))
    assert np.argmax(correct) > 0
    assert found.penalty == PENALTIES[int(np.argmax(correct))]


def test_constant_images_and_dead_channels(rng):
    dataset = toy(rng)
    blank = ImageSet(np.full_like(dataset.train.images, 7), dataset.train.labels)
    weights = np.zeros((4, 4, 2))
    for data in (replace(dataset, train=blank), dataset):
        found = readout(weights, Grid((3, 3), 2, 4), data)
        common = np.argmax(np.bincount(data.train.labels))
        assert found.accuracy == np.mean(data.test.labels == common)


def test_refusals(rng):
    dataset, grid = toy(rng), Grid((3, 3), 2, 4)
    with pytest.raises(ParameterError, match=r"must have the shape \(4, 4, channel\)"):
        readout(np.ones((4, 8, 2)), grid, dataset)
    with pytest.raises(ParameterError, match="pooling: must be from 1 to 2 positions"):
        readout(np.ones((4, 4, 2)), grid, dataset, pooling=3)
    with pytest.raises(ParameterError, match="one for images of"):
        readout(np.ones((4, 4, 2)), Grid((4, 4), 2, 4), dataset)
    with pytest.raises(ParameterError, match="must be a square number"):
        Grid((8, 8), 3, 10)
    with pytest.raises(ParameterError, match="7 x 7 fields of 3 x 3, which does not fit"):
        Grid((8, 8), 3, 49)


STUDY = Study(
    k=(2, 3),
    gamma=(0.1, 0.01),
    neurons=(36,),
    trials=6,
    presentations=300,
    engine="propagator",
    codegen="numpy",
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Results of small sweeps, as the command writes them."""

    def written(name, study):
        path = tmp_path_factory.mktemp("sweeps") / name
        done = {
            cell: result
            for job in study.jobs(study.cells)
            for cell, result in zip(job, run_cells(study, job), strict=True)
        }
        results.write(study, done.__getitem__, path)
        return path

    return {
        "good": written("good.nc", STUDY),
        "colours": written("colours.nc", replace(STUDY, k=(3,), gamma=(0.1,), channels=3)),
        "odd": written("odd.nc", replace(STUDY, k=(3,), gamma=(0.1,), neurons=(10,))),
        "many": written("many.nc", replace(STUDY, k=(3,), gamma=(0.1,), neurons=(49,), trials=1)),
    }


def command(*arguments):
    """Run the command in this process; return its exit code, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(classify_readout, "readout", [str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.mark.slow
def test_command(sweep):
    code, out, err = command("--weights", sweep["good"], "--k", 3, "--gamma", 0.01)
    assert (code, err) == (0, "")
    assert "layer: 6 channels, 6 x 6 positions with stride 1, kernels of 3 x 3 x 1" in out
    told = {
        line[:16].strip(): float(line.split("%")[0].split()[-1]) for line in out.splitlines()[5:]
    }
    assert list(told) == [
        "before sleep", "after sleep", "exactly shared", "random kernels", "raw pixels",
    ]  # fmt: skip

    # The same from the parts: the weights that the seed fixes, and those in the file.
    digits, grid = load("digits"), Grid((8, 8), 3, 36)
    cells = [c for c in STUDY.cells if (c.k, c.gamma) == (3, 0.01)]
    before = np.stack([STUDY.initial_weights(c) for c in cells], axis=-1)
    after = np.stack([r["weights"] for r in run_cells(STUDY, cells)], axis=-1)
    shared = np.repeat(before.mean(axis=0, keepdims=True), 36, axis=0)
    for name, weights in zip(list(told)[:3], (before, after, shared), strict=True):
        accuracy = readout(weights, grid, digits).accuracy
        assert told[name] == pytest.approx(100 * accuracy, abs=0.006)
        assert accuracy > 0.8
    assert command("--weights", sweep["good"], "--k", 3, "--gamma", 0.01) == (0, out, "")


@pytest.mark.slow
@pytest.mark.thorough
def test_repeats_are_layers_of_their_own(sweep, tmp_path):
    """Each of some of the trials; the report has every number, and is not replaced by another."""
    options = ["--weights", sweep["good"], "--k", 3, "--gamma", 0.01]
    reported = [*options, "--repeats", 3, "--report", tmp_path / "report"]
    code, out, err = command(*reported)
    assert (code, err) == (0, "")
    assert "3 layers: 2 channels" in out
    made = xr.load_dataset(tmp_path / "report" / "readout.nc", engine="h5netcdf")
    digits, grid = load("digits"), Grid((8, 8), 3, 36)
    found = circuits(sweep["good"], k=3, gamma=0.01)
    for repeat, trials in enumerate(([0, 1], [2, 3], [4, 5])):
        for state, weights in (("before sleep", found.before), ("after sleep", found.after)):
            accuracy = made.accuracy.sel(state=state, repeat=repeat)
            assert float(accuracy) == readout(weights[..., trials], grid, digits).accuracy
    accuracies = made.accuracy.sel(state="after sleep").to_numpy()
    interval = scipy.stats.t(2, accuracies.mean(), scipy.stats.sem(accuracies)).interval(0.95)
    half = made.repeats_interval.sel(state="after sleep")
    assert float(half) == pytest.approx((interval[1] - interval[0]) / 2)
    assert np.isnan(made.repeats_interval.sel(state="raw pixels"))
    assert np.array_equal(made.kernels[1, :, :, :, 0, 4].to_numpy().reshape(36, 9),
                          found.after[..., 4])  # fmt: skip
    expected = [snr_w(w) for w in np.moveaxis(found.after, -1, 0)]
    assert made.snr_w[-1].to_numpy() == pytest.approx(expected)
    assert sorted(p.suffix for p in (tmp_path / "report").iterdir()) == [".nc", ".pdf", ".png"]
    assert command(*reported)[0] == 0
    code, _, err = command(*options, "--report", tmp_path / "report")
    assert code == 2
    assert "holds a report of something else" in err
    code, _, err = command(*options, "--repeats", 4)
    assert code == 2
    assert "--repeats 4: must divide the 6 trials of the sweep" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "arguments", "code", "text"),
    [
        ("good", ["--gamma", "0.1"], 2, "--k: must be given: it may be 2, 3"),
        ("good", ["--k", "5"], 2, "--k 5: must be one of 2, 3"),
        ("good", ["--k", "3", "--gamma", "0.5"], 2, "--gamma 0.5: must be one of 0.1, 0.01"),
        ("colours", [], 2, "have 3 channels, and images of digits have 1; run the sweep with --ch"),
        ("odd", [], 2, "--neurons 10: must be a square number"),
        ("many", [], 2, "--neurons 49: make a grid of 7 x 7 fields of 3 x 3, which does not fit"),
        ("many", ["--dataset", "mnist"], 2, "--dataset mnist: must be one of"),
        ("colours", ["--dataset", "cifar10", "--data", "nowhere"], 2, "there is no such directory"),
        ("good", ["--k", "3", "--gamma", "0.1", "--pooling", "0"], 2, "--pooling 0: must be"),
        (
            "good",
            ["--k", "3", "--gamma", "0.1", "--pooling", "9"],
            2,
            "--pooling 9: must be from 1",
        ),
    ],
)
def test_command_refuses(file, arguments, code, text, sweep):
    found, out, err = command("--weights", sweep[file], *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert len(err.splitlines()) == 1


def test_command_refuses_files(tmp_path, sweep):
    for name, content in (("text.nc", b"no sweep"), ("cut.nc", sweep["odd"].read_bytes()[:5000])):
        (tmp_path / name).write_bytes(content)
        code, out, err = command("--weights", tmp_path / name)
        assert (code, out) == (2, "")
        assert err.startswith("readout: error: --weights ")
        assert len(err.splitlines()) == 1
    code, _, err = command("--weights", tmp_path / "none.nc")
    assert code == 2
    assert "none.nc" in err


def test_the_readout_of_pixels_is_a_ridge_regression(rng):
    """Against scikit-learn's, on pixels of zero mean and unit variance."""
    dataset = toy(rng)
    found = pixels(dataset)
    flat = [p.images.reshape(len(p), -1).astype(float) for p in (dataset.train, dataset.test)]
    mean, deviation = flat[0].mean(axis=0), flat[0].std(axis=0)
    train, test = ((part - mean) / deviation for part in flat)
    model = Ridge(found.penalty * len(train)).fit(train, np.eye(3)[dataset.train.labels])
    right = model.predict(test).argmax(axis=1) == dataset.test.labels
    assert found.accuracy == pytest.approx(right.mean(), abs=1e-12)
    low, high = found.interval
    expected = scipy.stats.binomtest(int(right.sum()), len(test)).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_other_means_of_initial_weights_change_no_kept_circuits():
    """What is kept from before there were means is found; trials then differ in their means."""
    old, new = Study(k=3), Study(k=3, initial_mean="gabor")
    assert "initial_mean" not in old._common
    assert old.digest(old.cells[0]) != new.digest(new.cells[0])
    assert Study.from_json(new.to_json()) == new
    first, second = (new.initial_weights(cell) for cell in new.cells[:2])
    plain = old.initial_weights(old.cells[0])
    assert np.allclose(first - plain, (first - plain)[0])  # the same noise, another mean
    assert not np.allclose(first.mean(axis=0), second.mean(axis=0), atol=0.3)
