"""Processes that train one network together: the numbers of one, up to rounding."""

from __future__ import annotations

import importlib.util
import os
import shutil
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
IN_DOUBLE = Path(__file__).with_name("train_in_double.py")

needs_mpi = pytest.mark.skipif(
    not MPIRUN.exists() or importlib.util.find_spec("mpi4py") is None,
    reason="there is no mpirun, or no mpi4py",
)


def started(processes, whole):
    """What so many processes of a program say together; one is started plainly."""
    if processes > 1:
        whole = [str(MPIRUN), "-n", str(processes), *whole]
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    return subprocess.run(whole, capture_output=True, text=True, check=False, env=environment)


def arrays(run):
    with np.load(run / "checkpoint.npz") as stored:
        return {n: stored[n] for n in stored.files if n.startswith(("parameter", "state"))}


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("together", [3, pytest.param(2, marks=pytest.mark.thorough)])
def test_several_processes_train_as_one(tmp_path, together):
    """Crops, sums, sleeps, checkpoints: in float64 what is left is the order of sums.

    In float32 rounding differs from the first sum on, and each step of a training makes more of it.
    """
    for processes in (1, together):
        place = tmp_path / str(processes)
        place.mkdir()
        if processes > 1:  # go on where one process has been left
            shutil.copytree(tmp_path / "1" / "gone-on", place / "gone-on")
        done = started(processes, [sys.executable, str(IN_DOUBLE), str(place)])
        assert done.returncode == 0, done.stderr
    for name in ("averaged", "asleep", "gone-on"):
        alone = arrays(tmp_path / "1" / (name if name == "averaged" else "asleep"))
        assert alone["parameter.layer1.weights"].dtype == float
        found = arrays(tmp_path / str(together) / name)
        assert found.keys() == alone.keys()
        for key, values in found.items():
            size = np.abs(alone[key]).max()
            np.testing.assert_allclose(values, alone[key], rtol=0, atol=1e-12 * size)
    one, other = (
        xr.load_dataset(tmp_path / str(processes) / "asleep" / "history.nc", engine="h5netcdf")
        for processes in (1, together)
    )
    for name in ("train_loss", "train_top1", "test_loss", "validation_loss", "snr_w"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-12)


@needs_mpi
@pytest.mark.slow
@pytest.mark.thorough
def test_command_speaks_once(tmp_path):
    options = "train --width 1 --epochs 1 --batch-size 300 --validation 0 --jobs 1 --output"

    def trained(processes, place, *more):
        whole = command(*options.split(), tmp_path / place, *more, module="classify")
        return started(processes, whole)

    done = trained(2, "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: ") == 1
    assert (tmp_path / "run" / "checkpoint.npz").exists()
    # A mistake is told once, by all of them ending.
    few = trained(2, "few", "--batch-size", "2", "--repetitions", "2")
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
