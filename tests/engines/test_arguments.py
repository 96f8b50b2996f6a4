"""Arrays that enter, and what a result says of how it was made."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import xarray as xr
from brian2 import DimensionMismatchError, mV
from brian2 import ms as brian_ms

import circuitsim as cs

FAST = {"engine": "propagator", "codegen": "numpy"}


@pytest.fixture
def w_init(rng):
    return 1 + rng.standard_normal((3, 5, 4))


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((6, 4))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda a: a + 1j, "must be an array of real numbers .got .complex128 array"),
        (lambda a: a.astype("U8"), "must be an array of real numbers"),
        (lambda a: np.full(a.shape, np.datetime64("1970-01-01")), "real numbers"),
        (lambda a: a.astype(object), "must be an array of real numbers"),
        (lambda a: np.ma.masked_greater(a, 0), "must have no masked values"),
        (lambda a: np.where(a > 0, np.nan, a), "must be finite"),
        (lambda a: a[0], "must have the shape"),
        (lambda a: [[1.0], [1.0, 2.0]], "must be an array of real numbers"),
    ],
)
def test_arrays_that_are_no_plain_numbers(spoil, message, w_init, inputs):
    for name, call in (
        ("w_init", lambda: cs.simulate(spoil(w_init[0]), inputs, **FAST)),
        ("inputs", lambda: cs.simulate(w_init[0], spoil(inputs), **FAST)),
        ("w_init", lambda: cs.theory.fixed_point(spoil(w_init[0]), 0.1)),
    ):
        with pytest.raises(cs.ParameterError, match=f"{name}: .*{message}"):
            call()


@pytest.mark.parametrize("given", ["circuit", 10.0, {"alpha": 3}, [cs.Circuit()], cs.Circuit])
def test_what_is_no_circuit_or_plasticity(given, w_init, inputs):
    calls = [
        partial(cs.simulate, w_init, inputs, **FAST),
        partial(cs.transfer, inputs, codegen="numpy"),
        partial(cs.network, w_init[0], inputs),
        partial(cs.simulate_layer, np.ones((4, 3, 1, 1)), 6, **FAST),
        cs.describe,
        partial(cs.linear.end_point, w_init[0]),
    ]
    for name, wanted in (("circuit", "Circuit"), ("plasticity", "Plasticity")):
        for call in calls:
            with pytest.raises(cs.ParameterError, match=f"{name}: must be a circuitsim.{wanted}"):
                call(**{name: given})
    with pytest.raises(cs.ParameterError, match=r"circuit: must be a circuitsim\.Circuit"):
        cs.linear.signal_matrix(given)


def test_flags_are_true_or_false(w_init, inputs):
    for call, name in (
        (cs.simulate, "record_rates"), (cs.network, "record_rates"), (cs.network, "per_synapse")
    ):  # fmt: skip
        for given in ([0, 2], "no", 1, np.array([True, False])):
            with pytest.raises(cs.ParameterError, match=f"{name}: must be True or False"):
                call(w_init[0], inputs, **{name: given})


def test_a_setting_with_one_value():
    """Whatever it is written as; with a unit it is refused, since a sweep's times are in ms."""
    for given in (30, 30.0, [30], np.array(30.0), np.array([30])):
        study = cs.studies.Study(settings={"tau_inh": given})
        assert study.settings == (("tau_inh", (30.0,)),)
    for given in (30 * brian_ms, [30] * brian_ms):
        with pytest.raises(DimensionMismatchError, match="settings.tau_inh: a plain number"):
            cs.studies.Study(settings={"tau_inh": given})


@pytest.mark.parametrize("given", ["x", [0.1, -0.1], np.nan, 1j])
def test_theory_of_what_is_no_strength(given):
    with pytest.raises(cs.ParameterError, match="gamma: must be"):
        cs.theory.minimum_inverse_snr_w(given)
    with pytest.raises(cs.ParameterError, match="alpha: must be"):
        cs.theory.stability_bound(30 * brian_ms, given)


def test_arrays_with_a_unit(w_init, inputs):
    for call in (
        lambda: cs.simulate(w_init * mV, inputs, **FAST),
        lambda: cs.simulate(w_init, inputs * mV, **FAST),
        lambda: cs.measures.snr_w(w_init * mV),
        lambda: cs.theory.fixed_point(w_init * mV, 0.1),
        lambda: cs.simulate(w_init, xr.DataArray(inputs * mV, dims=("presentation", "input"))),
    ):
        with pytest.raises(DimensionMismatchError, match="without a unit"):
            call()


def test_labelled_arrays_are_taken_by_their_labels(w_init, inputs):
    plain = cs.simulate(w_init, inputs, **FAST)
    w = xr.DataArray(w_init, dims=("circuit", "neuron", "input")).transpose("input", ...)
    x = xr.DataArray(inputs, dims=("presentation", "input")).transpose()
    assert cs.simulate(w, x, **FAST).equals(plain)
    np.testing.assert_array_equal(cs.measures.snr_w(w), cs.measures.snr_w(w_init))
    with pytest.raises(cs.ParameterError, match=r"must have the dimensions \(neuron, input\) or"):
        cs.simulate(w.rename(neuron="cell"), x, **FAST)
    with pytest.raises(cs.ParameterError, match="alpha: must be a finite number"):
        cs.Circuit(alpha=xr.DataArray([1.0, 2.0], dims="neuron"))


def test_numpy_integers_are_kept_as_integers():
    study = cs.studies.Study(seed=np.int64(3), trials=np.int32(1), presentations=np.int64(2))
    assert study.to_json() == cs.studies.Study(seed=3, trials=1, presentations=2).to_json()
    assert type(cs.Circuit(n_neurons=np.int64(3)).n_neurons) is int


def test_swapped_and_transposed_arguments_are_told(w_init, inputs):
    with pytest.raises(cs.ParameterError, match="were the two swapped"):
        cs.simulate(inputs, w_init[0], cs.Circuit(n_neurons=5), **FAST)
    with pytest.raises(cs.ParameterError, match="was inputs transposed"):
        cs.simulate(w_init, inputs.T, **FAST)
    with pytest.raises(cs.ParameterError, match="plasticity: must be a circuitsim.Plasticity"):
        cs.simulate(w_init, inputs, plasticity="circuit", **FAST)


def test_a_circuit_takes_its_size_from_the_weights(w_init, inputs):
    run = cs.simulate(w_init, inputs, cs.Circuit(alpha=3), **FAST)
    assert run.equals(cs.simulate(w_init, inputs, cs.Circuit(n_neurons=5, alpha=3), **FAST))


def test_a_result_says_what_made_it(w_init, inputs):
    circuit = cs.Circuit(alpha=[1, 2, 3], tau=20 * brian_ms, b=0.5)
    plasticity = cs.Plasticity("half = r - b - 0.5*r_inh", gamma=[0.1, 0.2, 0.3])
    run = cs.simulate(w_init, inputs, circuit, plasticity, 40 * brian_ms, 2 * brian_ms, **FAST)
    assert run.alpha.dims == run.gamma.dims == ("circuit",)
    assert run.alpha.values.tolist() == [1, 2, 3]
    assert run.tau.dims == ()
    assert (float(run.tau), run.tau.attrs["units"]) == (20, "ms")
    attributes = {"b": 0.5, "tau_ms": 20, "presentation_ms": 40, "dt_ms": 2, "engine": "propagator",
                  "rule": plasticity.rule, "signal": "r - b - 0.5 * r_inh",
                  "heavy_ball_momentum": 0.95}  # fmt: skip
    assert attributes.items() <= run.attrs.items()
    assert "alpha" not in run.attrs
    assert cs.simulate(w_init, inputs, **FAST).attrs["alpha"] == 10


def test_going_on_keeps_the_parameters(w_init, inputs):
    circuit = cs.Circuit(alpha=[1, 2, 3], tau=20 * brian_ms, b=0.5)
    rate = cs.InverseSqrtRate(1e-3, timescale=7 * brian_ms, onset=33.3 * brian_ms)
    plasticity = cs.Plasticity("half = r - b - 0.5*r_inh", [0.1, 0.2, 0.3], 0.8, rate)
    how = (circuit, plasticity, 40 * brian_ms, 2 * brian_ms)
    first = cs.simulate(w_init, inputs[:3], *how, **FAST)
    explicit = cs.simulate(None, inputs[3:], *how, start=first, **FAST)
    implicit = cs.simulate(None, inputs[3:], start=first, codegen="numpy")
    assert implicit.identical(explicit)
    assert "changed" not in implicit.attrs
    # Whatever the order of its dimensions, and from circuits put together again.
    turned = first.transpose("input", "neuron", "presentation", "circuit")
    assert cs.simulate(None, inputs[3:], start=turned, codegen="numpy").identical(explicit)
    apart = [
        cs.simulate(w_init[i], inputs[:3], circuit.replace(alpha=i + 1),
                    plasticity.replace(gamma=(0.1, 0.2, 0.3)[i]), *how[2:], **FAST)
        for i in range(3)
    ]  # fmt: skip
    whole = xr.concat(apart, "circuit")
    again = cs.simulate(None, inputs[3:], start=whole, codegen="numpy")
    np.testing.assert_array_equal(again.weights, explicit.weights)


@pytest.mark.slow
def test_going_on_otherwise_is_noted(w_init, inputs):
    first = cs.simulate(w_init[0], inputs, **FAST)
    other = cs.simulate(None, inputs, cs.Circuit(alpha=3), start=first, dt=2 * brian_ms)
    assert other.attrs["engine"] == "propagator"
    assert other.attrs["changed"] == "after 6 presentations: alpha from 10 to 3, dt_ms from 1 to 2"
    later = cs.simulate(None, inputs, start=other)
    assert later.attrs["changed"] == other.attrs["changed"]
    assert later.attrs["alpha"] == 3


def test_going_on_with_what_contradicts(w_init, inputs):
    first = cs.simulate(w_init[0], inputs, **FAST)
    for message, call in (
        ("whose momentum and learning rate count otherwise",
         lambda: cs.simulate(None, inputs, None, cs.Plasticity("mean_subtracted"), start=first)),
        ("must have as many neurons",
         lambda: cs.simulate(None, inputs, cs.Circuit(7), start=first)),
        ("must have as many inputs", lambda: cs.simulate(None, inputs[:, :3], start=first)),
        ("does not say its alpha; give circuit too",
         lambda: cs.simulate(None, inputs, start=first.drop_vars("alpha"))),
        ("with its weights", lambda: cs.simulate(None, inputs, start=first.drop_vars("weights"))),
        ("over .neuron, input. and no more",
         lambda: cs.simulate(None, inputs, start=first.expand_dims("trial"))),
    ):  # fmt: skip
        with pytest.raises(cs.ParameterError, match=message):
            call()
