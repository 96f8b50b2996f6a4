"""Sweeps with input patterns of several channels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import assert_same_data

import circuitsim as cs
from circuitsim import plots
from circuitsim.checks.validation import ParameterError
from circuitsim.studies.sweep import Cell, Study
from circuitsim.sweep import main

GROUPS = ("/", "weights/k2")
SMALL = "--k 2 --gamma 0.1 0.01 --neurons 6 --trials 2 --presentations 5 --jobs 1".split()  # noqa: SIM905
FAST = ("--engine", "propagator", "--codegen", "numpy")


def test_one_channel_is_what_there_was_before_channels():
    """Names of finished cells, weights and inputs, as versions without channels had them."""
    study = Study()
    cell = study.cells[17]
    assert study.digest(cell) == "7cbcc1df7f97a5ddf264973c26608aba"
    key = (cell.k, cell.neurons, cell.trial)
    drawn = [
        np.random.default_rng(np.random.SeedSequence(0, spawn_key=(*key, *purpose)))
        for purpose in ((0,), (1, 0))
    ]
    weights = 1 + drawn[0].standard_normal((cell.neurons, cell.k**2))
    np.testing.assert_array_equal(study.initial_weights(cell), weights)
    inputs = drawn[1].standard_normal((512, cell.k**2))
    np.testing.assert_array_equal(study.source(cell).block(0, 512), inputs)
    old = {name: v for name, v in json.loads(study.to_json()).items() if name != "channels"}
    assert Study.from_json(json.dumps(old)) == study


def test_channels_are_part_of_what_a_cell_is():
    cell = Cell(3, 10, 0.1, 10.0, 0)
    studies = [Study(neurons=10, channels=channels) for channels in (1, 2, 3)]
    assert len({study.digest(cell) for study in studies}) == 3
    drawn = [study.initial_weights(cell)[:, :9] for study in studies]
    drawn += [study.source(cell).block(0, 10)[:, :9] for study in studies]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert not np.isclose(one - one.mean(), other - other.mean()).any()
    assert studies[0].difference(studies[1]) == "channels 2, not 1"
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ParameterError, match="channels: must be a whole number >= 1"):
            Study(channels=wrong)
    assert "channels" in replace(studies[0], channels=10**12).memory()


@pytest.mark.slow
def test_a_sweep_with_channels(tmp_path, capsys):
    first, again = tmp_path / "a.nc", tmp_path / "b.nc"
    assert main([*SMALL, *FAST, "--channels", "3", "--output", str(first)]) == 0
    dataset, weights = cs.load(first), cs.load_weights(first)
    assert dataset.attrs["channels"] == 3
    assert weights.sizes["input"] == 12
    title = plots.sweep(dataset).axes[0].get_title()
    assert title == "$k$ = 2, 3 channels"

    study = Study.from_json(dataset.attrs["study"])
    cell = Cell(2, 6, 0.01, 10.0, 1)
    simulated = cs.simulate(
        study.initial_weights(cell),
        study.source(cell),
        plasticity=cs.Plasticity(gamma=0.01),
        engine="brian2",
        codegen="numpy",
    )
    found = weights.sel(gamma=0.01).isel(alpha=0, neurons=0, trial=1)
    np.testing.assert_allclose(found, simulated.weights, rtol=0, atol=1e-12)

    assert main(["--reproduce", str(first), "--output", str(again), "--jobs", "1"]) == 0
    assert_same_data(first, again, GROUPS)
    assert main([*SMALL, *FAST, "--output", str(first)]) == 2
    assert "channels 3, not 1" in capsys.readouterr().err

    exported = cs.export_weights(first)
    with np.load(exported, allow_pickle=False) as arrays:
        assert arrays["channels"] == 3
        assert arrays["weights"].shape == (4, 6, 12)
