"""The linear maps of a sequence of inputs give what simulating it gives."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from brian2 import ms

import circuitsim as cs
from circuitsim.engines import blocks
from circuitsim.rules import RULES


def _close(actual: np.ndarray, desired: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * np.abs(desired).max())


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("n_inputs", [1, 4, 12])
@pytest.mark.parametrize("codegen", ["auto", "numpy"])
def test_apply_equals_simulate(codegen: str, n_inputs: int, rule: str) -> None:
    rng = np.random.default_rng(1)
    w_init, inputs = 1 + rng.standard_normal((10, n_inputs)), rng.standard_normal((30, n_inputs))
    circuit, plasticity = cs.Circuit(10, alpha=4, b=2.0), cs.Plasticity(rule=rule)
    run = cs.simulate(w_init, inputs, circuit, plasticity, engine="propagator")
    maps = cs.transfer(inputs, circuit, plasticity, codegen=codegen)
    _close(maps.apply(w_init), run.weights.to_numpy())


def test_maps_act_on_deviations_and_mean() -> None:
    rng = np.random.default_rng(2)
    w_init, inputs = rng.standard_normal((10, 4)), rng.standard_normal((30, 4))
    maps = cs.transfer(inputs)
    final = cs.simulate(w_init, inputs, engine="propagator").weights.to_numpy()
    mean, mean_init = final.mean(axis=0), w_init.mean(axis=0)
    _close(final - mean, (w_init - mean_init) @ maps.deviation)
    _close(mean, mean_init @ maps.mean - maps.b * maps.mean_by_rate)


def test_one_operator_serves_every_pool_of_a_layer() -> None:
    rng = np.random.default_rng(3)
    w_init, inputs = rng.standard_normal((3, 5, 10, 4)), rng.standard_normal((20, 4))
    final = cs.transfer(inputs).apply(w_init)
    one = cs.simulate(w_init[1, 2], inputs, engine="propagator")
    _close(final[1, 2], one.weights.to_numpy())


def test_circuits_side_by_side() -> None:
    rng = np.random.default_rng(4)
    w_init, inputs = rng.standard_normal((7, 3, 10, 4)), rng.standard_normal((20, 3, 4))
    circuit = cs.Circuit(10, alpha=[1.0, 5.0, 10.0], b=[0.0, 1.0, 2.0])
    plasticity = cs.Plasticity(gamma=[0.1, 0.0, 0.01])
    maps = cs.transfer(inputs, circuit, plasticity)
    assert maps.deviation.shape == (3, 4, 4)
    run = cs.simulate(w_init[5], inputs, circuit, plasticity, engine="propagator")
    _close(maps.apply(w_init)[5], run.weights.to_numpy())


def test_initial_rates() -> None:
    """A run that starts with given rates: the rates of another, its weights and clock set back."""
    rng = np.random.default_rng(5)
    w_init, inputs = rng.standard_normal((10, 4)), rng.standard_normal((20, 4))
    plasticity = cs.Plasticity(learning_rate=cs.ConstantRate(1e-3))
    start = cs.simulate(w_init, inputs[:1], plasticity=plasticity, engine="propagator")
    start["rate"] = start.rate + rng.standard_normal(10)
    start["weights"], start["momentum"] = start.w_init, 0 * start.momentum
    run = cs.simulate(None, inputs, plasticity=plasticity, engine="propagator", start=start)
    final = cs.transfer(inputs, plasticity=plasticity).apply(w_init, start.rate, start.rate_inh)
    _close(final, run.weights.to_numpy())
    assert np.abs(final - cs.transfer(inputs, plasticity=plasticity).apply(w_init)).max() > 1e-4


@pytest.mark.parametrize(
    ("rule", "momentum", "dt"),
    [
        ("circuit", 0.95, 1 * ms),
        ("circuit", 0, 0.25 * ms),
        ("inhibition_gated", 0, 1 * ms),
        ("inhibition_gated", 0.95, None),
        ("mean_subtracted", 0, 1 * ms),
    ],
)
def test_many_inputs_go_through_in_blocks(rule, momentum, dt, monkeypatch) -> None:
    rng = np.random.default_rng(7)
    n_inputs, ideal = blocks.LEAST + 3, RULES[rule].per_presentation
    w_init = 1 + rng.standard_normal((2, 5, n_inputs))
    # Two circuits, inputs of their own; a last block that is not whole, a scale that varies.
    inputs = rng.standard_normal((150, 2, n_inputs)) * rng.uniform(0.2, 2, (150, 1, 1))
    options = {
        "circuit": cs.Circuit(alpha=[4.0, 9.0], b=[0.0, 1.0]),
        "plasticity": cs.Plasticity(
            rule,
            gamma=[0.0, 0.05],
            momentum=momentum,
            learning_rate=cs.ConstantRate(5e-3 if ideal else 1e-4 * (1 - momentum)),
        ),
        "presentation": 100 * ms,
        "dt": dt,
    }
    calls = []
    advance = blocks.Blocks.advance
    monkeypatch.setattr(
        blocks.Blocks, "advance", lambda self, *rest: calls.append(advance(self, *rest))
    )
    maps = cs.transfer(inputs, **options)
    assert calls
    run = cs.simulate(w_init, inputs, engine="propagator", **options)
    moved = np.abs(run.weights.to_numpy() - w_init).max()
    assert 0.1 < moved < 10
    _close(maps.apply(w_init), run.weights.to_numpy())
    # Rates at the start, too.
    monkeypatch.setattr(blocks, "LEAST", n_inputs + 1)
    one_by_one = cs.transfer(inputs, **options)
    for part in dataclasses.fields(maps):
        _close(getattr(maps, part.name), getattr(one_by_one, part.name))


@pytest.mark.parametrize("n_inputs", [9, blocks.LEAST])
@pytest.mark.parametrize("codegen", ["auto", "numpy"])
def test_threads_give_the_same_bits(codegen: str, n_inputs: int) -> None:
    inputs = np.random.default_rng(7).standard_normal((70, 16, n_inputs))
    plasticity = cs.Plasticity(learning_rate=cs.ConstantRate(1e-5))
    one, *others = (
        cs.transfer(inputs, plasticity=plasticity, codegen=codegen, threads=n)
        for n in (1, 2, 5, 10**30)
    )
    for other, part in itertools.product(others, dataclasses.fields(one)):
        np.testing.assert_array_equal(getattr(other, part.name), getattr(one, part.name))
    assert isinstance(cs.transfer(inputs[:, 0], plasticity=plasticity).b, np.ndarray)
    with pytest.raises(cs.ParameterError, match="threads"):
        cs.transfer(inputs, threads=0)


def test_what_no_frame_serves_goes_one_by_one(monkeypatch) -> None:
    def refused(*_) -> None:
        raise AssertionError("in blocks")

    monkeypatch.setattr(blocks.Blocks, "advance", refused)
    inputs = np.random.default_rng(8).standard_normal((5, blocks.LEAST))
    falls = cs.Plasticity()
    remembers = cs.Plasticity("mean_subtracted", momentum=0.9, learning_rate=cs.ConstantRate(1e-3))
    forgets_all = cs.Plasticity(
        "mean_subtracted", gamma=1e3, momentum=0, learning_rate=cs.ConstantRate(1e-3)
    )
    for plasticity in falls, remembers, forgets_all:
        maps = cs.transfer(inputs, plasticity=plasticity)
        w_init = np.random.default_rng(9).standard_normal((3, blocks.LEAST))
        run = cs.simulate(w_init, inputs, cs.Circuit(3), plasticity, engine="propagator")
        _close(maps.apply(w_init), run.weights.to_numpy())


def test_no_inputs_change_nothing() -> None:
    maps = cs.transfer(np.empty((0, 3)))
    np.testing.assert_array_equal(maps.deviation, np.eye(3))
    np.testing.assert_array_equal(maps.mean, np.eye(3))
    np.testing.assert_array_equal(maps.mean_by_rate, 0)


def test_options_are_those_of_simulate() -> None:
    rng = np.random.default_rng(6)
    w_init, inputs = rng.standard_normal((10, 4)), rng.standard_normal((20, 4))
    times = {"presentation": 20 * ms, "dt": 0.5 * ms}
    plasticity = cs.Plasticity(learning_rate=cs.ConstantRate(1e-3), momentum=0)
    run = cs.simulate(w_init, inputs, plasticity=plasticity, engine="propagator", **times)
    _close(
        cs.transfer(inputs, plasticity=plasticity, **times).apply(w_init), run.weights.to_numpy()
    )


def test_refusals() -> None:
    with pytest.raises(cs.ParameterError, match="dt = 10 ms is unstable"):
        cs.transfer(np.ones((2, 3)), dt=10 * ms)
    with pytest.raises(cs.ParameterError, match=r"weights: must have the shape \(..., neuron, 3\)"):
        cs.transfer(np.ones((2, 3))).apply(np.ones((5, 4)))
    with pytest.raises(ValueError, match="read-only"):
        cs.transfer(np.ones((2, 3))).mean[0] = 0
