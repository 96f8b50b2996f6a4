"""Reports of trained networks: numbers that can be counted, and kernels that have slept."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from circuitsim.classify import main
from circuitsim.vision import datasets, evaluation
from circuitsim.vision.networks import Architecture, Network
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

NAMES = ("cat", "dog, wild", "貓")


def network(connectivity="lc"):
    made = Architecture((10, 9, 3), 3, connectivity=connectivity, width=2)
    return Network(made, np.random.default_rng(0))


def test_an_interval_holds_its_share():
    """To the last bit, also where no image or every image is classified rightly."""
    for number in range(1, 200):
        hits = np.arange(number + 1)
        low, high = evaluation.wilson(hits, np.full(number + 1, number)).T
        share = hits / number
        assert (low <= share).all()
        assert (share <= high).all()
        assert low[0] == 0
        assert high[-1] == 1


def test_what_is_counted():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    found = rng.standard_normal((500, 3)) + np.eye(3)[labels]
    made = evaluation.report(found, labels, NAMES, network(), bins=10)
    best, sure = found.argmax(axis=1), evaluation.softmax(found).max(axis=1)
    for a, name in enumerate(NAMES):
        for b, other in enumerate(NAMES):
            count = ((labels == a) & (best == b)).sum()
            assert made["confusion"].sel({"class": name, "predicted": other}) == count
        right = (best == labels)[labels == a]
        assert float(made["class_accuracy"][a]) == right.mean()
        exact = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        np.testing.assert_allclose(made["class_accuracy_interval"][a], exact, rtol=1e-9)
    gaps = 0.0
    for n in range(10):
        within = (sure >= n / 10) & (sure < (n + 1) / 10)
        assert int(made["bin_images"][n]) == within.sum()
        if within.any():
            gaps += within.mean() * abs(sure[within].mean() - (best == labels)[within].mean())
    np.testing.assert_allclose(made["calibration_error"], gaps, rtol=1e-9)
    assert float(made["top1"]) == (best == labels).mean()


@pytest.mark.parametrize("sharing", [None, Sharing("instant", border="awake")])
def test_kernels_are_of_one_pool_and_alike_after_a_sleep(sharing):
    made = evaluation.report(np.eye(3), np.arange(3), NAMES, network(), sharing)
    awake, asleep = made["kernels"].sel(state="awake"), made["kernels"].sel(state="asleep")
    weights = network().layers["layer1"].weights
    for n, (row, column) in enumerate(zip(made["row"], made["column"], strict=True)):
        np.testing.assert_array_equal(awake[n], weights[int(row), int(column)])
        np.testing.assert_allclose(asleep[n], asleep[0], rtol=1e-6)
    assert np.ptp(awake.to_numpy(), axis=0).max() > 0.1
    alone = evaluation.report(np.eye(3), np.arange(3), NAMES, network("conv"))
    assert alone["state"].to_numpy().tolist() == ["awake"]


@pytest.mark.slow
def test_a_report_in_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 2
    file = tmp_path / "images.npz"
    np.savez(file, images=images, labels=labels)
    data = datasets.load("npz", file)
    run = Run.new(
        data, Training(epochs=1, batch_size=8, share_every=2), Sharing("instant"), width=2
    )
    run.carry_out(tmp_path / "run", data, lambda *_: None)
    given = ["evaluate", str(tmp_path / "run"), "--data", str(file)]
    assert main([*given, "--report", str(tmp_path / "none" / "x")]) == 2
    assert "--report" in capsys.readouterr().err
    assert main([*given, "--report", str(tmp_path / "report")]) == 0
    written = xr.load_dataset(tmp_path / "report" / "evaluation.nc", engine="h5netcdf")
    assert int(written["confusion"].sum()) == len(data.test.labels)
    assert all("long_name" in written[name].attrs for name in written.variables)
    assert {"circuitsim_version", "command_line", "run", "citation"} <= set(written.attrs)
    assert {p.suffix for p in (tmp_path / "report").iterdir()} == {".nc", ".pdf", ".png"}
