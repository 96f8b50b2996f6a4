"""One suite for every engine: published trajectories, a plain loop, theory, and each other.

Whatever is in the registry is tested, in every way of making code that it lists.
"""

from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest
import reference
from brian2 import ms
from conftest import grid, relative

import circuitsim as cs
from circuitsim.engines import registry, standalone
from circuitsim.engines.simulation import make_batch
from circuitsim.rules import RULES

needs_compiler = pytest.mark.skipif(
    not standalone.compiler_works(), reason="no C++ compiler works here"
)
# Ways that compile each shape of network for seconds: for them the tests that compare numbers.
SLOW_CODE = ("cpp_standalone", "cython")
NONLINEAR = "rectified = clip(r - b, 0, inf) - 0.1*r_inh**2"


def ways(slow):
    """Every engine with every way of making its code."""
    for name in registry.ENGINES:
        engine = registry.find(name)
        for codegen in engine.codegens[1:] or engine.codegens:
            # Brian2 takes a second and more for each run.
            marks = [pytest.mark.slow] if name.startswith("brian2") else []
            if (name, codegen) == ("stepper", "numba"):  # compiled anew for each rule and equation
                marks = [pytest.mark.slow]
            if codegen in SLOW_CODE:
                marks = [needs_compiler, pytest.mark.slow]
            if slow or codegen not in SLOW_CODE:
                yield pytest.param((name, codegen), marks=marks, id=f"{name}-{codegen}")


every_engine = pytest.mark.parametrize("engine", list(ways(slow=False)))
# For what the seam does that all share: Brian2's two forms take a second for each run.
every_kind = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(*way.values, marks=pytest.mark.thorough, id=way.id)
        if way.values[0][0] == "brian2_per_synapse"
        else way
        for way in ways(slow=False)
    ],
)
cpp = ("brian2", "cpp_standalone")


def simulate(engine, *args, presentation=30 * ms, **kwargs):
    """`circuitsim.simulate` with an engine and its code generation; presentations are short."""
    name, codegen = engine
    kwargs |= {"engine": name, "codegen": codegen, "presentation": presentation}
    return cs.simulate(*args, **kwargs)


def runs(engine, rule):
    """Whether an engine can run a rule: it must, if the rule is linear."""
    try:
        registry.find(engine[0]).check_rule(rule)
    except cs.ParameterError:
        if rule.linear is not None:
            raise
        return False
    return True


def problem(rng, n_circuits=3, n_neurons=6, n_inputs=4, n_presentations=5):
    """Initial weights and inputs of a small batch."""
    w_init = 1 + rng.standard_normal((n_circuits, n_neurons, n_inputs))
    return w_init, rng.standard_normal((n_presentations, n_circuits, n_inputs))


# -- fidelity -----------------------------------------------------------------------------------


def published_trajectories():
    """All for each engine; for what is compiled, one of each kind of code."""
    for way in ways(slow=True):
        engine, codegen = way.values[0]
        for name in ("circuit_k3", "circuit_k6", "rule_k3", "rule_k9"):
            marks = [*way.marks]
            # Cython takes seconds for each object, which is a minute and more for a network.
            compiled = ("circuit_k3", "brian2", "cpp_standalone")
            if codegen in SLOW_CODE and (name, engine, codegen) != compiled:
                marks.append(pytest.mark.thorough)
            # The network takes seconds for each; other engines take none.
            if engine == "brian2_per_synapse" and name != "circuit_k3":
                marks.append(pytest.mark.thorough)
            if engine == "brian2" and name == "rule_k9":
                marks.append(pytest.mark.thorough)
            yield pytest.param(*way.values, name, marks=marks, id=f"{name}-{way.id}")


@pytest.mark.parametrize("engine, name", list(published_trajectories()))
def test_published_trajectory(engine, name, oracle):
    published = oracle(name)
    rule = "circuit" if name.startswith("circuit") else "mean_subtracted"
    run = simulate(
        engine,
        published["w_init"],
        published["inputs"],
        cs.Circuit(n_neurons=int(published["n_neurons"])),
        cs.Plasticity(rule, gamma=float(published["gamma"])),
        presentation=150 * ms,
        record_rates=rule == "circuit",
    )
    assert run.inverse_snr_w.values == pytest.approx(published["inverse_snr"], rel=1e-9, abs=0)
    assert run.mean_weight_cosine.values == pytest.approx(
        published["mean_weight_cosine"], rel=1e-9, abs=0
    )
    assert relative(run.weights, published["w_final"]) < 1e-9
    if rule == "circuit":
        assert relative(run.rate, published["r_final"]) < 1e-9
        assert float(run.rate_inh) == pytest.approx(float(published["r_inh_final"][0]), rel=1e-9)
        assert relative(run.rate_trace[:300], published["r_trace"]) < 1e-9
        assert relative(run.rate_inh_trace[:300], published["r_inh_trace"]) < 1e-9
    else:
        assert "rate" not in run


def plain_loops():
    """Every engine with every kind of rule.

    What is compiled is compared with a published trajectory, and with all of these once a week.
    """
    ideal = "saturating = tanh(z - z_mean)"
    others = ["half_gated = r - b - 0.5*r_inh", "half_subtracted = z - z_mean/2"]
    for way in ways(slow=True):
        _, codegen = way.values[0]
        rules = [*RULES, *others] if codegen not in SLOW_CODE else ["circuit"]
        for rule in [*rules, NONLINEAR, ideal] if codegen != "cython" else []:
            marks = [*way.marks]
            if codegen in SLOW_CODE:
                marks.append(pytest.mark.thorough)
            yield pytest.param(*way.values, rule, marks=marks, id=f"{way.id}-{rule.split()[0]}")


def unlike(rule, rng, which=slice(None)):
    """Arguments of a batch in which every parameter differs between circuits, or of some of it."""
    w_init, inputs = problem(rng)
    ideal = cs.rules.get(rule).per_presentation
    tau, alpha, b, gamma = np.array([[20, 30, 50], [0, 3, 10], [1, -2, 0], [0, 0.01, 1]])[:, which]
    plasticity = cs.Plasticity(
        rule,
        gamma=gamma,
        momentum=0.9,
        learning_rate=None if ideal else cs.InverseSqrtRate(2e-3, timescale=20 * ms, onset=4 * ms),
    )
    circuit = cs.Circuit(n_neurons=6, tau=tau * ms, alpha=alpha, b=b)
    how = {"presentation": 20 * ms, "dt": 0.5 * ms, "record_rates": not ideal}
    return (w_init[which], inputs[:, which], circuit, plasticity), how


@pytest.mark.parametrize("engine, rule", list(plain_loops()))
def test_plain_loop(engine, rule, rng):
    """A batch in which every parameter differs between circuits, steps other than 1 ms."""
    definition = cs.rules.get(rule)
    arguments, how = unlike(rule, rng)
    if not runs(engine, definition):
        with pytest.raises(cs.ParameterError, match=r"not linear .* use engine='stepper'"):
            simulate(engine, *arguments, **how)
        return
    run = simulate(engine, *arguments, **how)
    batch, _ = make_batch(*arguments, *how.values(), None, 1)
    expected = reference.run(batch)
    assert relative(run.weights, expected.state.weights) < 1e-12
    assert run.snr_w.values == pytest.approx(expected.snr_w, rel=1e-11, abs=0)
    assert run.inverse_snr_w.values == pytest.approx(expected.inverse_snr_w, rel=1e-11, abs=0)
    assert relative(run.mean_weight_cosine, expected.mean_weight_cosine) < 1e-12
    assert relative(run.weights, arguments[0]) > 1e-3  # or there would be nothing to compare
    if not definition.per_presentation:
        assert relative(run.momentum, expected.state.velocity) < 1e-11
        assert relative(run.rate, expected.state.rate) < 1e-12
        assert relative(run.rate_trace, expected.rate_trace) < 1e-12
        assert relative(run.rate_inh_trace, expected.rate_inh_trace) < 1e-12
        assert run.time.values == pytest.approx(np.arange(1, 201) * 0.5)
        assert int(run.steps) == 200


# -- theory -------------------------------------------------------------------------------------


@every_kind
def test_rates_settle_at_the_fast_fixed_point(engine, rng):
    w_init, inputs = problem(rng, n_presentations=1)
    circuit = cs.Circuit(n_neurons=6, alpha=[0.5, 3, 10], b=[1, 2, -1])
    frozen = cs.Plasticity(learning_rate=cs.ConstantRate(0), gamma=0)
    run = simulate(engine, w_init, inputs, circuit, frozen, presentation=1500 * ms)
    drive = np.einsum("cnk,ck->cn", w_init, inputs[0])
    rate, rate_inh = cs.theory.fast_fixed_point(drive, circuit.alpha, circuit.b)
    assert run.rate.values == pytest.approx(rate, abs=1e-10)
    assert run.rate_inh.values == pytest.approx(rate_inh, abs=1e-10)
    assert np.array_equal(run.weights, w_init)


@every_kind
def test_error_of_the_rates_falls_with_slope_one(engine, rng):
    """Euler is of first order: the rates against the exact solution of the linear circuit."""
    from scipy.linalg import expm

    n, alpha, tau, duration = 4, 6.0, 30.0, 24.0
    w_init = 1 + rng.standard_normal((n, 3))
    x = rng.standard_normal((1, 3))
    drive = w_init @ x[0]
    # d(r, r_inh)/dt = A (r, r_inh) + c, with b = 0.
    a = -np.eye(n + 1)
    a[:n, n] = -alpha
    a[n, :n] = 1 / n
    c = np.append(drive, 0.0)
    settled = -np.linalg.solve(a, c)
    exact = settled - expm(a * duration / tau) @ settled
    errors = []
    steps = np.array([2.0, 1.0, 0.5, 0.25])
    for dt in steps:
        run = simulate(
            engine,
            w_init,
            x,
            cs.Circuit(n_neurons=n, alpha=alpha, b=0.0),
            cs.Plasticity(learning_rate=cs.ConstantRate(0)),
            presentation=duration * ms,
            dt=dt * ms,
        )
        found = np.append(run.rate.values, float(run.rate_inh))
        errors.append(np.abs(found - exact).max())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.1)


@every_kind
def test_learning_does_not_depend_on_dt(engine, rng):
    """Halving the step changes the weights by Euler's error, which halves as well."""
    w_init, inputs = problem(rng, n_circuits=1, n_presentations=3)
    rate = cs.InverseSqrtRate(1e-3, timescale=30 * ms, onset=20 * ms)
    runs = [
        simulate(
            engine,
            w_init,
            inputs,
            cs.Circuit(n_neurons=6),
            cs.Plasticity(learning_rate=rate),
            presentation=40 * ms,
            dt=dt * ms,
        ).weights.values
        for dt in (1.0, 0.5, 0.25)
    ]
    first, second = (np.abs(a - b).max() for a, b in itertools.pairwise(runs))
    assert np.abs(runs[0] - w_init).max() > 20 * first
    assert first / second == pytest.approx(2.0, abs=0.4)


@pytest.mark.parametrize("rule", ["circuit", "inhibition_gated"])
def test_weights_end_at_the_fixed_point_of_their_own_rule(rule, rng):
    """Long presentations of a fast circuit, little learning in each: section 3 of MODEL.md."""
    gamma, alpha = 0.1, 3.0
    w_init = 1 + rng.standard_normal((20, 4))
    inputs = cs.inputs.GaussianInputs(40_000, 4, seed=5)
    run = simulate(
        ("propagator", "numba"),
        w_init,
        inputs,
        cs.Circuit(n_neurons=20, tau=3 * ms, alpha=alpha),
        cs.Plasticity(rule, gamma=gamma, learning_rate=cs.ConstantRate(4e-7)),
        presentation=150 * ms,
        record=1000,
    )
    expected = cs.theory.fixed_point(w_init, gamma, rule, alpha)
    found = run.weights.values
    mean, deviations = found.mean(axis=0), found - found.mean(axis=0)
    expected_mean = expected.mean(axis=0)
    assert relative(mean, expected_mean) < 0.12
    assert relative(deviations, expected - expected_mean) < 0.12
    if rule == "circuit":  # the mean has decayed to 0.4/1.4 of where it was
        assert relative(mean, w_init.mean(axis=0)) > 0.6


def test_gated_rule_keeps_the_mean_as_presentations_grow_longer(rng):
    """Per unit of time, the mean decays like tau/T under the gated rule, for any alpha."""
    alphas = np.array([1.0, 10.0, 30.0])
    w_init = np.broadcast_to(1 + rng.standard_normal((10, 4)), (3, 10, 4))
    total = 240_000.0  # ms of learning, however it is split
    decay = {}
    for rule in ("circuit", "inhibition_gated"):
        for duration in (150.0, 600.0, 2400.0):
            inputs = cs.inputs.GaussianInputs(round(total / duration), 4, seed=3)
            run = simulate(
                ("propagator", "numba"),
                w_init,
                inputs,
                cs.Circuit(n_neurons=10, alpha=alphas),
                cs.Plasticity(rule, gamma=0, learning_rate=cs.ConstantRate(2e-8)),
                presentation=duration * ms,
                record=10_000,
            )
            before, after = w_init.mean(axis=1), run.weights.values.mean(axis=1)
            kept = np.einsum("cj,cj->c", after, before) / np.einsum("cj,cj->c", before, before)
            decay[rule, duration] = -np.log(kept)
    for duration in (150.0, 600.0):
        ratio = decay["inhibition_gated", 4 * duration] / decay["inhibition_gated", duration]
        assert ratio == pytest.approx(np.full(3, 0.25), rel=0.35)
        assert np.all(decay["circuit", duration] > 3 * decay["inhibition_gated", duration])
    ratio = decay["circuit", 2400.0] / decay["circuit", 600.0]
    assert ratio == pytest.approx(np.ones(3), rel=0.35)


# -- invariances --------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("rule", RULES)
def test_order_of_neurons_does_not_matter(engine, rule, rng):
    w_init, inputs = problem(rng)
    order = rng.permutation(6)
    both = np.concatenate([w_init, w_init[:, order]])
    inputs = np.tile(inputs, (1, 2, 1))
    run = simulate(engine, both, inputs, cs.Circuit(n_neurons=6), cs.Plasticity(rule))
    assert relative(run.weights[3:], run.weights[:3, order]) < 1e-13
    assert relative(run.snr_w[3:], run.snr_w[:3]) < 1e-12


@every_kind
@pytest.mark.parametrize("rule", ["circuit", "inhibition_gated"])
def test_baseline_only_shifts_rates(engine, rule, rng):
    """In the linear circuit, if the rates start at the baseline."""
    w_init, inputs = problem(rng)
    w_init, inputs = np.concatenate([w_init, w_init]), np.tile(inputs, (1, 2, 1))
    b = np.repeat([0.0, 5.0], 3)
    circuit, plasticity = cs.Circuit(n_neurons=6, b=b), cs.Plasticity(rule)
    still = simulate(engine, w_init, inputs[:0], circuit, plasticity)
    still["rate"] = still.rate + b[:, np.newaxis]
    run = simulate(engine, None, inputs, circuit, plasticity, start=still)
    run["rate"] = run.rate - b[:, np.newaxis]
    for name in ("weights", "rate", "rate_inh", "snr_w"):
        assert relative(run[name][3:], run[name][:3]) < 1e-12


@pytest.mark.slow
@grid(
    engine=[way.values[0] for way in ways(slow=False)],
    rule=list(RULES),
    momentum=[0.95, 0.0],
    dt=[1.0, 0.5],
)
def test_a_run_in_two_parts_equals_one(engine, rule, momentum, dt, rng):
    """In time too: learning starts within the second part."""
    w_init, inputs = problem(rng, n_presentations=6)
    rate = cs.ConstantRate(0.01)
    if not RULES[rule].per_presentation:
        rate = cs.InverseSqrtRate(3e-3, timescale=2 * ms, onset=41 * ms)
    circuit = cs.Circuit(n_neurons=6)
    plasticity = cs.Plasticity(rule, momentum=momentum, learning_rate=rate)
    how = {"presentation": 10 * ms, "dt": dt * ms}
    whole = simulate(engine, w_init, inputs, circuit, plasticity, **how)
    half = simulate(engine, w_init, inputs[:3], circuit, plasticity, **how)
    both = simulate(engine, None, inputs[3:], circuit, plasticity, start=half, **how)
    assert relative(whole.weights, w_init) > 1e-3
    for name in ("weights", "momentum", "rate", "rate_inh"):
        if name in whole:
            assert relative(both[name], whole[name]) < 1e-12
    assert int(both.presentations) == int(whole.presentations) == 6
    assert int(both.steps) == int(whole.steps)
    assert both.presentation.values.tolist() == [3, 4, 5, 6]
    assert relative(both.snr_w, whole.snr_w.sel(presentation=slice(3, 6))) < 1e-11


@every_engine
@pytest.mark.parametrize("rule", RULES)
def test_a_circuit_does_not_know_its_company(engine, rule, rng):
    w_init, inputs = problem(rng, n_circuits=5, n_neurons=7)
    gamma = np.array([0.1, 0.01, 0.1, 1.0, 0.0])
    alpha = np.array([1.0, 10.0, 3.0, 30.0, 0.0])

    def run(which):
        return simulate(
            engine,
            w_init[which],
            inputs[:, which],
            cs.Circuit(n_neurons=7, alpha=alpha[which]),
            cs.Plasticity(rule, gamma=gamma[which]),
        )

    together = run([0, 1, 2, 3, 4])
    for which in ([4, 2, 1], [3]):
        check_company(run(which), together, which)


@needs_compiler
@pytest.mark.thorough
def test_nor_does_one_in_compiled_code(rng):
    arguments, how = unlike(NONLINEAR, rng)  # compiled for the plain loop, too
    together = simulate(cpp, *arguments, **how)
    arguments, how = unlike(NONLINEAR, np.random.default_rng(1234), [1])
    check_company(simulate(cpp, *arguments, **how), together, [1])


def check_company(apart, together, which):
    """To the last bit: finished circuits of a study can be put together in any way."""
    for name in ("weights", "snr_w", "inverse_snr_w", "mean_weight_cosine"):
        assert np.array_equal(apart[name], together[name][which]), name


# -- shapes and recording -----------------------------------------------------------------------


@every_kind
def test_a_circuit_dimension_only_where_an_argument_has_one(engine, rng):
    w_init, inputs = problem(rng)
    alone = simulate(engine, w_init[0], inputs[:, 0], record_rates=True)
    assert alone.weights.dims == ("neuron", "input")
    assert alone.snr_w.dims == ("presentation",)
    assert alone.rate_trace.dims == ("time", "neuron")
    assert alone.rate_inh.dims == ()
    for arguments in (
        (w_init, inputs[:, 0]),
        (w_init[0], inputs),
        (w_init[0], inputs[:, 0], cs.Circuit(n_neurons=6, alpha=[10, 10, 10])),
        (w_init[0], inputs[:, 0], cs.Circuit(n_neurons=6), cs.Plasticity(gamma=[0.01] * 3)),
    ):
        run = simulate(engine, *arguments)
        assert run.weights.dims == ("circuit", "neuron", "input")
        assert run.sizes["circuit"] == 3
        assert relative(run.weights[0], alone.weights) < 1e-13
    assert all("long_name" in v.attrs for v in alone.variables.values())
    units = {
        str(name): v.attrs["units"] for name, v in alone.variables.items() if "units" in v.attrs
    }
    assert units == dict.fromkeys(("time", "elapsed", "tau", "tau_inh"), "ms")  # no "[1]" in plots


@every_kind
@pytest.mark.parametrize("rule", ["circuit", "mean_subtracted"])
def test_recording_can_be_thinned(engine, rule, rng):
    w_init, inputs = problem(rng, n_presentations=7)
    rest = (cs.Circuit(n_neurons=6), cs.Plasticity(rule))
    whole = simulate(engine, w_init, inputs, *rest)
    assert whole.presentation.values.tolist() == list(range(8))
    for record, expected in ((3, [0, 3, 6, 7]), ([2, 5], [2, 5]), (100, [0, 7])):
        thin = simulate(engine, w_init, inputs, *rest, record=record)
        assert thin.presentation.values.tolist() == expected
        assert np.array_equal(thin.snr_w, whole.snr_w.sel(presentation=expected))


@every_kind
def test_no_presentations_change_nothing(engine, rng):
    w_init, inputs = problem(rng)
    start = simulate(engine, w_init, inputs, presentation=60 * ms)
    run = simulate(engine, None, inputs[:0], start=start, record_rates=True, presentation=60 * ms)
    for name in ("weights", "momentum", "rate", "rate_inh", "presentations", "elapsed", "steps"):
        assert np.array_equal(run[name], start[name]), name
    assert run.presentation.values.tolist() == [5]
    assert relative(run.snr_w[:, 0], start.snr_w[:, -1]) < 1e-12
    assert run.sizes["time"] == 0


@every_kind
@pytest.mark.parametrize("rule", RULES)
def test_what_is_given_is_not_changed(engine, rule, rng):
    w_init, inputs = problem(rng)
    arguments = (cs.Circuit(n_neurons=6), cs.Plasticity(rule), 60 * ms, 1 * ms, False, None, 1)
    batch, untouched = (make_batch(w_init.copy(), inputs, *arguments)[0] for _ in range(2))
    outcome = registry.get(*engine).run(batch)
    assert not np.array_equal(outcome.state.weights, batch.w_init)
    for name in ("w_init", "alpha", "tau", "b", "gamma"):
        assert np.array_equal(getattr(batch, name), getattr(untouched, name)), name
    for part in fields(batch.state):
        assert np.array_equal(getattr(batch.state, part.name), getattr(untouched.state, part.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_init": np.ones(3)}, r"w_init: must have the shape \(neuron, input\)"),
        ({"w_init": np.full((6, 4), np.nan)}, "w_init: must be finite"),
        ({"w_init": [["a"]]}, "w_init: must be an array of real numbers"),
        ({"w_init": None}, "w_init: must be given where start is not"),
        ({"inputs": np.ones((5, 3))}, "inputs: must have as many inputs as w_init, 4"),
        ({"inputs": np.ones((5, 2, 4))}, "arrays over circuits must have one length"),
        ({"inputs": np.full((5, 4), np.inf)}, "inputs: must be finite"),
        ({"circuit": cs.Circuit(100)}, "w_init: must have as many neurons as the circuit, 100"),
        ({"presentation": 0 * ms}, "presentation: must be > 0 ms"),
        ({"dt": 0.7 * ms}, "presentation: must be a whole number of steps"),
        ({"dt": -1 * ms}, "dt: must be > 0 ms"),
        ({"dt": 6 * ms}, "Circuit.alpha: Euler with dt = 6 ms is unstable"),
        ({"dt": None}, "dt: Brian2 makes steps"),
        ({"engine": "neuron"}, "engine: must be one of"),
        ({"codegen": "cuda"}, "codegen: must be one of"),
        ({"record": 0}, "record: must be a whole number >= 1"),
        ({"record": [9]}, "record: must be whole numbers from 0 to 5"),
        ({"start": 1}, "start: must be a Dataset returned by simulate"),
        (
            {"plasticity": cs.Plasticity("mean_subtracted"), "record_rates": True},
            "record_rates: the rule mean_subtracted has no rates",
        ),
    ],
)
def test_arguments_are_checked(change, message, rng):
    w_init, inputs = problem(rng)
    arguments = {"w_init": w_init, "inputs": inputs, "codegen": "numpy"} | change
    with pytest.raises(cs.ParameterError, match=message):
        cs.simulate(**arguments)


def test_times_need_units(rng):
    from brian2 import DimensionMismatchError

    w_init, inputs = problem(rng)
    for name in ("dt", "presentation"):
        with pytest.raises(DimensionMismatchError, match=f"{name}: a time is required"):
            cs.simulate(w_init, inputs, **{name: 1.0})


@every_kind
def test_divergence_is_an_error(engine, rng):
    w_init, inputs = problem(rng, n_presentations=30)
    plasticity = cs.Plasticity("mean_subtracted", learning_rate=cs.ConstantRate(100))
    plasticity = plasticity.replace(gamma=0)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="diverged"):
        simulate(engine, w_init, np.tile(inputs, (20, 1, 1)), cs.Circuit(n_neurons=6), plasticity)
