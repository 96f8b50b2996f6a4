"""Circuits of other equations: engines against a plain loop, and against what is known of them."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import reference
from brian2 import ms
from conftest import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

import circuitsim as cs
from circuitsim import noise
from circuitsim.engines import registry, stepper
from circuitsim.engines.simulation import make_batch
from circuitsim.engines.stepper import Stepper
from circuitsim.expressions import portable, read

PARTS = ("weights", "velocity", "rate", "rate_inh")
RELU = "dr/dt = (-r + clip(z - alpha*r_inh + b, 0, inf))/tau"


def problem(
    circuit, plasticity=None, seed=0, n_presentations=3, private=None, record_rates=True, **how
):
    rng = np.random.default_rng(seed)
    w_init, inputs = 1 + rng.standard_normal((2, 4, 3)), rng.standard_normal((n_presentations, 3))
    if private is not None:
        inputs = cs.inputs.Noisy(inputs, private, seed=5)
    plasticity = plasticity or cs.Plasticity(learning_rate=cs.ConstantRate(1e-3), gamma=0.3)
    batch, _ = make_batch(
        w_init, inputs, circuit, plasticity, 12 * ms, 1 * ms, record_rates, None, 1, **how
    )
    return batch


def same(outcome, expected, tolerance=1e-10):
    pairs = [(getattr(outcome.state, part), getattr(expected.state, part)) for part in PARTS]
    for name in ("snr_w", "inverse_snr_w", "rate_trace", "rate_inh_trace"):
        pairs.append((getattr(outcome, name), getattr(expected, name)))
    for found, known in pairs:  # a rectified interneuron may have been silent
        assert np.array_equal(found, known) or relative(found, known) < tolerance


WEIGHTS = np.random.default_rng(9).random((3, 4))


def made(transfer, inhibition, times, slower, more):
    return cs.Circuit(
        transfer=transfer,
        alpha=inhibition,
        tau=times,
        tau_inh=slower,
        **{k: v for d in more for k, v in d.items()},
    )


CIRCUITS = st.builds(
    made,
    st.sampled_from(["linear", "relu", "softplus", "tanh", "clip(u, 0, 2)**2/4", "u/(1 + abs(u))"]),
    st.sampled_from([0.0, 3.0, [1.0, 5.0], cs.per_neuron([1.0, 2.0, 3.0, 4.0])]),
    st.sampled_from([30 * ms, [10, 20] * ms]),
    st.sampled_from([None, 7 * ms, 90 * ms]),
    st.tuples(
        st.sampled_from([{"b": 1.0}, {"b": [0.0, 2.0]}]),
        st.sampled_from([{}, {"transfer_inh": "relu"}, {"b_inh": 2.0, "transfer_inh": "relu"}]),
        st.sampled_from([{}, {"delay": 2 * ms}, {"delay": [0, 3] * ms}]),
        st.sampled_from(
            [
                {},
                {"interneurons": 3, "connect_ei": 0.6, "connect_ie": 0.5},
                {"interneurons": 3, "connect_ei": WEIGHTS, "connect_ie": WEIGHTS.T},
                {"connect_ie": 0.7},
            ]
        ),
        st.sampled_from([{}, {"sigma": 0.3}]),
        st.sampled_from([{}, {"spread_tau": 0.2}]),
    ),
)


@pytest.mark.slow
@given(
    CIRCUITS,
    st.sampled_from(["circuit", "inhibition_gated", "s = tanh(r - b)"]),
    st.sampled_from([None, 0.2]),
)
@settings(max_examples=60, deadline=None)
def test_the_stepper_is_a_plain_loop(circuit, rule, private):
    plasticity = cs.Plasticity(rule, 0.3, learning_rate=cs.ConstantRate(1e-3))
    batch = problem(circuit, plasticity, private=private)
    same(Stepper("numpy").run(batch), reference.run(batch))


EVERYTHING = {
    "transfer": "relu",
    "alpha": cs.per_neuron([8, 9, 10, 11]),
    "tau_inh": 90 * ms,
    "b_inh": 1.5,
    "delay": [1, 3] * ms,
    "interneurons": 3,
    "connect_ei": 0.6,
    "connect_ie": 0.7,
    "spread_tau": 0.1,
    "sigma": 0.2,
}
OF_EACH_KIND = {
    "everything": EVERYTHING,
    "late": {"delay": 2 * ms, "alpha": 5.0, "sigma": [0.1, 0.3]},
    "neurons differ": {
        "transfer": "relu",
        "alpha": cs.per_neuron([8, 9, 10, 11]),
        "tau": cs.per_neuron([10, 20, 30, 40] * ms),
        "tau_inh": 90 * ms,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("private", [None, 0.2])
@pytest.mark.parametrize("circuit", OF_EACH_KIND.values(), ids=OF_EACH_KIND)
@pytest.mark.parametrize("engine", ["brian2", "brian2_per_synapse"])
def test_brian2_runs_the_same_equations(engine, circuit, private):
    plasticity = cs.Plasticity("inhibition_gated", 0.3, learning_rate=cs.ConstantRate(1e-3))
    batch = problem(cs.Circuit(**circuit), plasticity, private=private)
    outcome, expected = registry.get(engine, "numpy").run(batch), reference.run(batch)
    same(outcome, expected)
    if batch.delay.any():
        assert relative(outcome.state.past, Stepper("numpy").run(batch).state.past) < 1e-10


@pytest.mark.slow
@pytest.mark.thorough
def test_compiled_brian2_runs_the_same_equations():
    batch = problem(cs.Circuit(**EVERYTHING), private=0.2)
    same(registry.get("brian2", "cpp_standalone").run(batch), reference.run(batch))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["circuit", "own = (r - b)*x/w", "ideal = (z - z_mean)*w"])
def test_bounds_and_signals_of_synapses(rule):
    plasticity = cs.Plasticity(rule, 0.3, learning_rate=cs.ConstantRate(1e-3), bounds=(0.1, 1.2))
    ideal = plasticity.definition.per_presentation
    batch = problem(cs.Circuit(transfer="relu"), plasticity, record_rates=not ideal)
    expected = reference.run(batch)
    outcome = registry.get("brian2_per_synapse", "numpy").run(batch)
    assert relative(outcome.state.weights, expected.state.weights) < 1e-12
    weights = outcome.state.weights
    assert 0.1 <= weights.min() < 1 < weights.max() == 1.2
    for engine in ("propagator", "stepper", *(() if ideal else ("brian2",))):
        with pytest.raises(cs.ParameterError, match="engine='brian2_per_synapse'"):
            registry.get(engine, "numpy").run(batch)


def test_going_on_with_an_imperfect_circuit():
    rng = np.random.default_rng(3)
    w_init, inputs = rng.standard_normal((2, 4, 2)), rng.standard_normal((40, 2))
    circuit = cs.Circuit(**(EVERYTHING | {"alpha": 2.0, "spread_alpha": 0.1}))
    how = {"presentation": 5 * ms, "engine": "stepper", "codegen": "numpy"}

    def noisy(part):
        return cs.inputs.Noisy(part, 0.1, seed=[4, 5])

    whole = cs.simulate(w_init, noisy(inputs), circuit, seed=[7, 8], **how)
    alone = cs.simulate(
        w_init[1],
        cs.inputs.Noisy(inputs, 0.1, seed=[5]),
        circuit.replace(delay=3 * ms),
        seed=[8],
        **how,
    )
    assert relative(alone.weights, whole.weights[1]) == 0
    part = cs.simulate(w_init, noisy(inputs[:17]), circuit, seed=[7, 8], **how)
    rest = cs.simulate(None, noisy(inputs[17:]), start=part, seed=[7, 8], codegen="numpy")
    assert relative(rest.weights, whole.weights) < 1e-13
    assert relative(rest.rate_inh_past, whole.rate_inh_past) < 1e-12
    assert "changed" not in rest.attrs
    other = cs.simulate(
        None,
        noisy(inputs[17:]),
        circuit.replace(sigma=0.0),
        start=part,
        seed=[7, 8],
        codegen="numpy",
    )
    assert "sigma" in other.attrs["changed"]


@pytest.mark.slow
def test_compiled_steps():
    pytest.importorskip("numba")
    mixed = {"transfer": "softplus", "alpha": cs.per_neuron([8, 9, 10, 11]), "sigma": 0.3}
    several = {"interneurons": 2, "connect_ie": 0.8}
    for circuit in (mixed | {"tau_inh": 90 * ms}, several, *OF_EACH_KIND.values()):
        batch = problem(cs.Circuit(**circuit), private=0.2)
        alone, shared = (Stepper("numba", threads).run(batch) for threads in (1, 2))
        same(alone, Stepper("numpy").run(batch))
        np.testing.assert_array_equal(alone.state.weights, shared.state.weights)
        if batch.delay.any():
            assert relative(alone.state.past, Stepper("numpy").run(batch).state.past) < 1e-10
    linear = problem(cs.Circuit())
    same(Stepper("numba").run(linear), reference.run(linear))


@pytest.mark.slow
def test_compiled_numbers_depend_on_no_block(monkeypatch):
    """More neurons than a block of lanes has, noise, private inputs; to the last bit."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(6)
    w_init, inputs = 1 + rng.standard_normal((3, 70, 3)), rng.standard_normal((7, 3, 3))
    inputs[3] = 0
    circuit = cs.Circuit(transfer="relu", sigma=0.2, alpha=[3, 4, 5])
    plasticity = cs.Plasticity("inhibition_gated", 0.3)
    found = []
    for longest, private in ((512, 0.1), (2, 0.1), (512, 0.0)):
        monkeypatch.setattr(stepper, "_LONGEST", longest)
        source = cs.inputs.Noisy(inputs, private) if private else inputs
        batch, _ = make_batch(
            w_init, source, circuit, plasticity, 60 * ms, 1 * ms, True, None, 2, 4
        )
        found.append(Stepper("numba").run(batch))
        same(found[-1], Stepper("numpy").run(batch))
    for part in PARTS:
        np.testing.assert_array_equal(*(getattr(one.state, part) for one in found[:2]))
    np.testing.assert_array_equal(found[0].inverse_snr_w, found[1].inverse_snr_w)


def test_diverging_rates_are_told_of():
    rng = np.random.default_rng(2)
    w_init, inputs = rng.standard_normal((5, 3)), 9 * rng.standard_normal((4, 3))
    growing = cs.Circuit(excitatory="dr/dt = (r**3 - r + z - alpha*r_inh + b)/tau")
    how = {"presentation": 20 * ms, "engine": "stepper", "codegen": "numpy"}
    with pytest.raises(FloatingPointError, match="the rates grew by themselves"):
        cs.simulate(w_init, inputs, growing, **how)
    many = cs.simulate(w_init, inputs, cs.Circuit(interneurons=3, alpha=2), **how)
    with pytest.raises(cs.ParameterError, match="as many interneurons as the circuit, 1"):
        cs.simulate(None, inputs, cs.Circuit(alpha=2), start=many, codegen="numpy")


def test_equations_may_be_written_out():
    rng = np.random.default_rng(2)
    w_init, inputs = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    how = {"presentation": 20 * ms, "engine": "auto", "codegen": "numpy"}
    named = cs.Circuit(transfer="relu", tau_inh=60 * ms)
    written = cs.Circuit(
        excitatory=RELU, interneuron="dr_inh/dt = (-r_inh + r_mean - b)/tau_inh", tau_inh=60 * ms
    )
    one, two = (cs.simulate(w_init, inputs, circuit, **how) for circuit in (named, written))
    assert one.equals(two)
    assert one.attrs["engine"] == "stepper"
    # The paper's own equations are the paper's circuit.
    paper = cs.Circuit(excitatory="dr/dt = (-r+z-alpha*r_inh+b)/tau")
    assert paper.dynamics == cs.Circuit().dynamics
    assert cs.simulate(w_init, inputs, paper, **how).attrs["engine"] == "propagator"


LINEAR = {
    "interneuron of its own time": {"tau_inh": [10, 60] * ms},
    "baseline of the interneuron": {"b_inh": [0.5, 3.0], "alpha": 2.0},
    "gains": {"transfer": "2*u", "transfer_inh": "u/3", "b": 0.0},
    "leaks": {
        "excitatory": "dr/dt = (0.3*(b - r) + 2*z - alpha*r_inh)/tau",
        "interneuron": "dr_inh/dt = (3*(r_mean - b) - 0.5*r_inh)/tau_inh",
        "tau_inh": 50 * ms,
        "alpha": [1.0, 4.0],
    },
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("rule", ["circuit", "inhibition_gated"])
def test_the_propagator_runs_every_linear_circuit_of_equal_neurons(name, rule):
    rng = np.random.default_rng(8)
    w_init, inputs = 1 + rng.standard_normal((2, 5, 3)), rng.standard_normal((4, 3))
    circuit = cs.Circuit(**LINEAR[name])
    plasticity = cs.Plasticity(rule, 0.1, learning_rate=cs.ConstantRate(1e-3))
    how = {"presentation": 40 * ms, "record_rates": True, "codegen": "numpy"}
    run, steps = (
        cs.simulate(w_init, inputs, circuit, plasticity, engine=engine, **how)
        for engine in ("auto", "stepper")
    )
    assert run.attrs["engine"] == "propagator"
    for value in ("weights", "momentum", "rate", "rate_inh", "rate_trace", "rate_inh_trace"):
        assert relative(run[value], steps[value]) < 1e-12, value
    again = cs.simulate(None, inputs, start=run, **how)
    assert "changed" not in again.attrs
    assert relative(again.rate, cs.simulate(None, inputs, start=steps, **how).rate) < 1e-12


def test_a_circuit_that_rests_elsewhere_is_none_for_the_propagator():
    """Its rule's signal does not vanish without drive."""
    rng = np.random.default_rng(8)
    w_init, inputs = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    shifted = cs.Circuit(excitatory="dr/dt = (-r + z - alpha*r_inh + 2*b)/tau")
    how = {"presentation": 5 * ms, "codegen": "numpy"}
    assert cs.simulate(w_init, inputs, shifted, engine="auto", **how).attrs["engine"] == "stepper"
    with pytest.raises(cs.ParameterError, match="rest at their baselines"):
        cs.simulate(w_init, inputs, shifted, engine="propagator", **how)


def test_noise_depends_on_the_circuit_and_its_seed_alone():
    rng = np.random.default_rng(3)
    w_init, inputs = rng.standard_normal((3, 5, 2)), rng.standard_normal((40, 2))
    circuit = cs.Circuit(sigma=[0.1, 0.2, 0.3], alpha=2)
    how = {"presentation": 5 * ms, "engine": "stepper", "codegen": "numpy"}
    whole = cs.simulate(w_init, inputs, circuit, seed=[7, 8, 9], **how)
    alone = cs.simulate(w_init[1], inputs, circuit.replace(sigma=0.2), seed=[8], **how)
    assert alone.equals(whole.isel(circuit=1))
    part = cs.simulate(w_init, inputs[:17], circuit, seed=[7, 8, 9], **how)
    rest = cs.simulate(None, inputs[17:], start=part, seed=[7, 8, 9], codegen="numpy")
    assert relative(rest.weights, whole.weights) < 1e-13
    assert "changed" not in rest.attrs
    other = cs.simulate(w_init[1], inputs, circuit.replace(sigma=0.2), seed=[9], **how)
    assert relative(other.rate, alone.rate) > 1e-3


def test_philox_gives_the_published_words():
    """Known answers of Random123, the authors' own code."""
    for counter, key, words in (
        ([0] * 4, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0_A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):
        found = noise.philox(counter, key)
        assert " ".join(f"{int(word):08x}" for word in found) == words


@pytest.mark.slow
def test_noise_is_normal_and_independent():
    drawn = np.stack([noise.normals(3, number, 50, 41) for number in range(200)])
    assert kstest(drawn.ravel(), "norm").pvalue > 1e-3
    size = np.sqrt(drawn.size)
    assert abs(drawn.mean()) * size < 4
    assert abs((drawn**4).mean() - 3) * size / np.sqrt(96) < 4
    for one, other in (
        (drawn[:-1], drawn[1:]),
        (drawn[:, :-1], drawn[:, 1:]),
        (drawn[..., :-1], drawn[..., 1:]),
        (drawn[..., ::2][..., :20], drawn[..., 1::2]),
        (drawn, np.stack([noise.normals(4, number, 50, 41) for number in range(200)])),
    ):
        assert abs((one * other).mean()) * size < 4
        assert abs((one**2 * other**2).mean() - 1) * size / np.sqrt(8) < 4


@pytest.mark.slow
def test_compiled_noise_is_the_same():
    pytest.importorskip("numba")
    from circuitsim import _noise_numba

    for key, number in ((2**63 + 5, 0), (17, 2**33 + 1)):
        out = np.empty(4 * 2500)
        _noise_numba.normals(np.uint64(key), np.uint64(number), np.uint64(2500), out)
        expected = noise.normals(key, number, 100, 100).ravel()
        assert np.abs(out - expected).max() < 1e-14


def test_inputs_of_ones_own_depend_on_seed_circuit_and_presentation_alone(monkeypatch):
    common = np.arange(60.0).reshape(20, 1, 3)
    several = cs.inputs.Noisy(np.repeat(common, 2, axis=1), 0.5, seed=[8, 9])
    alone = cs.inputs.Noisy(common[:, 0], 0.5, seed=[9])
    whole, one = several.private_block(0, 20, (2, 7, 3)), alone.private_block(0, 20, (1, 7, 3))
    np.testing.assert_array_equal(whole[:, 1:], one)
    np.testing.assert_array_equal(several.private_block(5, 9, (2, 7, 3)), whole[5:9])
    later = cs.inputs.Noisy(common[5:, 0], 0.5, seed=[9])
    np.testing.assert_array_equal(later.private_block(0, 4, (1, 7, 3), done=5), one[5:9])
    # As NumPy draws them, around what is common; and not those of rates with the same seed.
    monkeypatch.setattr("circuitsim.inputs.find_spec", lambda _: None)
    np.testing.assert_allclose(several.private_block(0, 20, (2, 7, 3)), whole, rtol=0, atol=1e-13)
    drawn = (one - common[:, :, np.newaxis]) / 0.5
    (key,) = noise.keys([np.random.SeedSequence(9, spawn_key=(0,))])
    rates = np.array([noise.normals(int(key), number, 7, 3) for number in range(20)])
    assert abs((drawn[:, 0] * rates).mean()) * np.sqrt(drawn.size) < 4
    assert abs((drawn**2).mean() - 1) * np.sqrt(drawn.size / 2) < 4


def test_noise_has_the_variance_that_is_asked_for():
    """An Ornstein-Uhlenbeck process of variance sigma^2, up to Euler's 1/(1 - dt/2 tau)."""
    circuit = cs.Circuit(alpha=0, b=0, tau=10 * ms, sigma=0.5)
    still = cs.Plasticity(learning_rate=cs.ConstantRate(0))
    run = cs.simulate(
        np.zeros((50, 1)), np.zeros((1, 1)), circuit, still, 4000 * ms, engine="stepper",
        codegen="numpy", record_rates=True,
    )  # fmt: skip
    variance = float(run.rate_trace[200:].var())
    assert variance == pytest.approx(0.25 / (1 - 0.05), rel=0.03)


@pytest.mark.parametrize(
    "circuit, message",
    [
        ({"transfer": "foo"}, "Circuit.transfer: must be one of linear, relu"),
        ({"transfer": "__import__('os')"}, "may call only"),
        ({"excitatory": "dr/dt = -r"}, "divide by a time constant"),
        ({"excitatory": "dr/dt = (-r + q)/tau"}, "must use r, r_inh, z, b, b_inh, alpha, tau"),
        ({"excitatory": "dv/dt = -v/tau"}, "must be an equation, dr/dt"),
        ({"excitatory": RELU, "transfer": "relu"}, "has no effect with an equation"),
        ({"excitatory": RELU + " + xi"}, "must have its noise as a last term"),
        ({"excitatory": RELU + " + sigma*sqrt(2/tau)*xi"}, "sigma: must be > 0 for the noise"),
        ({"interneuron": "dr_inh/dt = (r_mean - r_inh)/tau", "tau_inh": 3 * ms}, "must be used by"),
        ({"tau": cs.per_neuron([1, 2] * ms)}, "tau_inh: must be given"),
        ({"sigma": -1}, "sigma: must be >= 0"),
        ({"tau_inh": 0 * ms}, "tau_inh: must be > 0 ms"),
        ({"connect_ie": 1.2}, "must be a probability, from 0 to 1"),
        ({"connect_ei": [0.1, 0.2]}, "must have the shape .interneuron, neuron."),
        ({"interneurons": 0}, "must be a whole number >= 1"),
        ({"spread_alpha": 1.0}, "spread_alpha: must be >= 0 and < 1"),
        ({"spread_alpha": 0.1, "alpha": cs.per_neuron([1, 2])}, "has no effect with one value"),
        (
            {"b_inh": 1.0, "excitatory": RELU, "interneuron": "dr_inh/dt = (r_mean - r_inh)/tau"},
            "b_inh: must be used",
        ),
        ({"delay": -1 * ms}, "delay: must be >= 0 ms"),
        ({"interneurons": 10**9}, "interneurons: must be at most 10000"),
        ({"excitatory": f"{RELU} : volt"}, "must have the unit 1, as rates have"),
        (
            {"excitatory": "dr/dt = (z - r)/tau", "alpha": 3},
            "alpha: must be used by the excitatory",
        ),
        (
            {"excitatory": "dr/dt = (z - r)/tau", "spread_alpha": 0.1},
            "alpha: must be used by the excitatory",
        ),
        ({"b": cs.per_neuron([1, 2])}, "must be one, or one for each circuit"),
        (
            {"transfer_inh": "relu", "interneuron": "dr_inh/dt = (r_mean - r_inh)/tau"},
            "transfer_inh: has no effect with an equation",
        ),
    ],
)
def test_circuits_that_are_none(circuit, message):
    with pytest.raises(cs.ParameterError, match=message):
        cs.Circuit(**circuit)


def test_what_engines_refuse():
    rng = np.random.default_rng(4)
    w_init, inputs = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    for engine, options, message in (
        ("propagator", {"transfer": "relu"}, "use engine='stepper'"),
        ("propagator", {"alpha": cs.per_neuron(np.ones(5))}, "use engine='stepper'"),
        ("propagator", {"sigma": 0.1}, "use engine='stepper'"),
        ("propagator", {"delay": 1 * ms}, "use engine='stepper'"),
        ("propagator", {"interneurons": 2}, "use engine='stepper'"),
        ("stepper", {"delay": 1.5 * ms}, "a whole number of steps"),
        ("stepper", {"delay": 1e9 * ms}, "must be at most 1000 steps of dt = 1 ms"),
        ("stepper", {"delay": 20 * ms}, "oscillate more and more"),
        ("stepper", {"connect_ei": np.ones((1, 4))}, r"must have the shape .1, 5."),
        ("stepper", {"alpha": cs.per_neuron(np.ones(4))}, "one value for each of 5 neurons"),
    ):
        with pytest.raises(cs.ParameterError, match=message):
            cs.simulate(w_init, inputs, cs.Circuit(**options), engine=engine, codegen="numpy")
    with pytest.raises(cs.ParameterError, match="must be linear with neurons that are alike"):
        cs.transfer(inputs, cs.Circuit(transfer="relu"))
    how = {"codegen": "numpy", "dt": None}
    with pytest.raises(cs.ParameterError, match="steps; use a time, or engine='propagator'"):
        cs.simulate(w_init, inputs, engine="stepper", **how)
    for options in ({"sigma": 0.1}, {"transfer": "relu"}, {"alpha": cs.per_neuron(np.ones(5))}):
        with pytest.raises(cs.ParameterError, match="use a time; in continuous time run linear"):
            cs.simulate(w_init, inputs, cs.Circuit(**options), engine="auto", **how)
    with pytest.raises(cs.ParameterError, match="must be the same for all neurons"):
        cs.inputs.Noisy(cs.inputs.Noisy(inputs, 0.1), 0.1)
    for values in (3.0, np.ones((1, 2, 3)), [], "abc", [np.nan]):
        with pytest.raises(cs.ParameterError, match="per_neuron"):
            cs.per_neuron(values)
    unstable = {
        "Euler with dt = 1 ms is unstable from alpha = 59": {"transfer": "relu", "alpha": 80},
        "Euler with dt = 1 ms is unstable from alpha = 29": {"transfer_inh": "2*u", "alpha": 30},
        r"tau: must be > 1 ms for alpha = 1": {"tau": 0.5 * ms, "alpha": 1},
        "rates that come to rest": {"excitatory": "dr/dt = (r + z - alpha*r_inh + b)/tau"},
    }
    for message, options in unstable.items():
        with pytest.raises(cs.ParameterError, match=message):
            cs.simulate(w_init, inputs, cs.Circuit(**options), engine="stepper", codegen="numpy")


def test_arrays_over_neurons_or_circuits():
    rng = np.random.default_rng(4)
    w_init, inputs = rng.standard_normal((3, 2)), rng.standard_normal((2, 2))
    how = {"engine": "auto", "codegen": "numpy", "presentation": 20 * ms}
    for values in ({"alpha": [1, 2, 3]}, {"tau": [10, 20, 30] * ms}):
        (name,) = values
        with pytest.raises(cs.ParameterError, match=f"write {name}=circuitsim.per_neuron"):
            cs.simulate(w_init, inputs, cs.Circuit(**values), **how)
        several = cs.simulate(np.stack([w_init] * 3), inputs, cs.Circuit(**values), **how)
        assert several[name].dims == ("circuit",)
    one = cs.simulate(w_init, inputs, cs.Circuit(alpha=cs.per_neuron([1, 2, 3])), **how)
    assert one.alpha.dims == ("neuron",)
    assert cs.simulate(w_init, inputs, cs.Circuit(alpha=[1, 2]), **how).sizes["circuit"] == 2


@pytest.mark.parametrize("tau_inh", [5.0, 30.0, 200.0])
@pytest.mark.parametrize("alpha", [0.0, 3.0, 40.0])
def test_the_bound_of_stability_is_where_modes_grow(alpha, tau_inh):
    circuit = cs.Circuit(alpha=alpha, tau_inh=tau_inh * ms)
    matrix = np.array([[-1 / 30, -alpha / 30], [1 / tau_inh, -1 / tau_inh]])
    for dt in np.geomspace(0.1, 100, 40):
        modes = np.abs(np.linalg.eigvals(np.eye(2) + dt * matrix))
        stable = modes.max() < 1 and abs(1 - dt / 30) < 1
        if stable:
            circuit.check_step(dt)
        else:
            with pytest.raises(cs.ParameterError, match="unstable"):
                circuit.check_step(dt)


# -- one meaning of a text in all engines ----------------------------------------------------------

EXPRESSIONS = st.recursive(
    st.sampled_from(["r", "b", "1", "2", "3", "0.5", "7"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(
            st.sampled_from(["r", "b", "2", "5"]), st.sampled_from(["-2", "-1", "2", "3"])
        ).map(lambda t: f"{t[0]}**{t[1]}"),
        inner.map(lambda t: f"-{t}"),
        inner.map(lambda t: f"sign({t})"),
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(EXPRESSIONS)
@settings(max_examples=300, deadline=None)
def test_whole_numbers_are_handed_on_as_others(text):
    try:
        form = read(text, ("r", "b"))
    except ValueError:
        return
    handed = portable(form.text)
    tree = ast.parse(handed, mode="eval")
    exponents = {id(n.right) for n in ast.walk(tree) if isinstance(n, ast.BinOp)
                 and isinstance(n.op, ast.Pow)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, float) or id(node) in exponents
    scope = {"sign": np.sign, "r": np.float64(1.7), "b": np.float64(-0.3)}
    with np.errstate(all="ignore"):
        try:
            expected = eval(form.text, dict(scope))
        except ZeroDivisionError:
            return
        assert eval(handed, scope) == pytest.approx(expected, rel=1e-12, nan_ok=True)


TEXTS = st.tuples(EXPRESSIONS, EXPRESSIONS)
FEW = settings(max_examples=max(4, settings.default.max_examples // 20))


def outcomes(batch, engines):
    """What engines make of a batch; None for numbers that are none, or that it cannot run."""
    for engine in engines:
        try:
            with np.errstate(all="ignore"):
                yield engine, registry.get(engine, "numpy").run(batch)
        except (FloatingPointError, cs.ParameterError):
            yield engine, None


def all_the_same(batch, engines):
    """Engines against Python's own arithmetic, where that gives numbers."""
    with np.errstate(all="ignore"):
        try:
            expected = reference.run(batch)
        except ZeroDivisionError:
            return
    finite = all(np.isfinite(getattr(expected.state, part)).all() for part in PARTS)
    if not finite or np.abs(expected.state.weights).max() > 1e3:
        return
    for engine, found in outcomes(batch, engines):
        if found is None:
            assert engine == "propagator"
            assert batch.plasticity.definition.linear is None or not batch.solvable
            continue
        for part in PARTS:
            known = getattr(expected.state, part)
            assert getattr(found.state, part) == pytest.approx(known, rel=1e-9, abs=1e-9), engine


def little(circuit, plasticity):
    rng = np.random.default_rng(2)
    w_init, inputs = 1 + rng.standard_normal((1, 3, 2)), rng.standard_normal((2, 2))
    batch, _ = make_batch(w_init, inputs, circuit, plasticity, 3 * ms, 1 * ms, False, None, 1)
    return batch


@pytest.mark.slow
@given(EXPRESSIONS)
@FEW
def test_a_rule_means_the_same_in_all_engines(text):
    try:
        plasticity = cs.Plasticity(f"a = r_inh/100 + {text}", learning_rate=cs.ConstantRate(1e-3))
    except cs.ParameterError:
        return
    all_the_same(little(cs.Circuit(), plasticity), ("propagator", "stepper", "brian2"))


@pytest.mark.slow
@given(TEXTS)
@FEW
def test_equations_mean_the_same_in_all_engines(texts):
    """Of a neuron, and of the interneuron: bounded, so that they lead somewhere."""
    excitatory, inhibitory = texts[0], texts[1].replace("r", "r_mean")
    try:
        circuit = cs.Circuit(
            excitatory=f"dr/dt = (-r + z - alpha*r_inh + tanh({excitatory}))/tau",
            interneuron=f"dr_inh/dt = (-r_inh + r_mean - tanh({inhibitory}))/tau",
        )
    except cs.ParameterError:
        return
    plasticity = cs.Plasticity(learning_rate=cs.ConstantRate(1e-3))
    all_the_same(little(circuit, plasticity), ("propagator", "stepper", "brian2"))


@pytest.mark.slow
def test_brian2_gives_a_negative_power_its_meaning():
    rng = np.random.default_rng(5)
    w_init, inputs = 1 + rng.standard_normal((5, 3)), rng.standard_normal((3, 3))
    runs = [
        cs.simulate(
            w_init, inputs, None, cs.Plasticity("half = 2**-1*(r - b)"), 60 * ms, engine=engine,
            codegen="numpy",
        )
        for engine in ("brian2", "propagator", "stepper")
    ]  # fmt: skip
    for run in runs[1:]:
        assert relative(run.weights, runs[0].weights) < 1e-13
        assert relative(run.momentum, runs[0].momentum) < 1e-9
