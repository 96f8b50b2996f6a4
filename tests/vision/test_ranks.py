"""Processes that train one network together: the numbers of one, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import command

from circuitsim.checks.validation import ParameterError
from circuitsim.vision import ranks
from circuitsim.vision.augmentation import augmented

MPIRUN = Path(sys.executable).with_name("mpirun")
OPTIONS = (
    "train --width 2 --epochs 2 --batch-size 40 --repetitions 2 --crop-padding 1 --flips "
    "--optimiser sgd --sharing instant --share-every 5 --moments shared --validation 0.2 --jobs 1"
)


def trained(place, images, processes, *more):
    given = [*OPTIONS.split(), "--dataset", "npz", "--data", images, "--output", place, *more]
    whole = command(*given, module="classify")
    if processes > 1:
        whole = [str(MPIRUN), "-n", str(processes), *whole]
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    return subprocess.run(whole, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_several_processes_train_as_one(tmp_path, thorough):
    pytest.importorskip("mpi4py")
    if not MPIRUN.exists():
        pytest.skip("there is no mpirun")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (150, 8, 8, 1), dtype=np.uint8), np.arange(150) % 3
    file = tmp_path / "images.npz"
    np.savez(file, images=images, labels=labels)
    found = {}
    several = (2, 3) if thorough else (2,)  # which wait for each other by asking all the time
    for processes in (1, *several):
        place = tmp_path / str(processes)
        done = trained(place, file, processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run: ") == 1  # one of them speaks
        with np.load(place / "checkpoint.npz") as arrays:
            network = {n: arrays[n] for n in arrays.files if n.startswith(("parameter", "state"))}
        found[processes] = network, xr.load_dataset(place / "history.nc", engine="h5netcdf")
    alone, history = found[1]
    for processes in several:
        network, its = found[processes]
        assert network.keys() == alone.keys()
        for name, values in network.items():
            size = np.abs(alone[name]).max()
            np.testing.assert_allclose(values, alone[name], atol=2e-3 * size, err_msg=name)
        for name in ("train_loss", "test_loss", "validation_loss"):
            np.testing.assert_allclose(its[name], history[name], rtol=2e-3)
        np.testing.assert_allclose(its["snr_w"][-1], history["snr_w"][-1], rtol=0.02)
    # A mistake is told once, by all of them ending.
    refused = trained(tmp_path / "2", file, 2)
    assert refused.returncode != 0
    assert refused.stderr.count("holds a run already") == 1
    few = trained(tmp_path / "few", file, 2, "--batch-size", "2")
    assert few.returncode != 0
    assert few.stderr.count("--batch-size 2: must have an image at least") == 1


def test_what_is_drawn_for_a_part_is_what_all_would_get():
    images = np.random.default_rng(0).integers(0, 256, (10, 9, 8, 3), dtype=np.uint8)
    for options in ((2, True), (0, True, (5, 5)), (0, True, (6, 6), 0.3)):
        whole = augmented(images, np.random.default_rng(1), *options)
        size, scale = (*options[2:], None, None)[:2]
        for part in (slice(0, 3), slice(3, 10)):
            mine = augmented(images[part], np.random.default_rng(1), *options[:2], size, scale,
                             part, 10)  # fmt: skip
            np.testing.assert_array_equal(mine, whole[part])


def test_mpi_that_is_missing_is_told(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ParameterError, match=r"mpirun: has started 4 processes.*circuitsim\[mpi\]"):
        ranks.joined()
    monkeypatch.delenv("PMI_SIZE")
    assert ranks.joined().size == 1


def test_parts_are_all_there_is():
    for size in (1, 2, 3, 7):
        found = []
        for rank in range(size):
            one = ranks.Ranks()
            one.rank, one.size = rank, size
            found += range(20)[one.part(20)]
        assert found == list(range(20))
