"""The propagator performs the published step-by-step scheme to rounding."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from brian2 import ms
from hypothesis import given, settings

import circuitsim as cs
from circuitsim.engines import propagator
from circuitsim.engines.batch import Batch, Outcome, State
from circuitsim.engines.propagator import Propagator
from circuitsim.inputs import ArrayInputs, GaussianInputs, StackedInputs
from circuitsim.rules import RULES

STATE = ("weights", "velocity", "rate", "rate_inh")
MEASURES = ("snr_w", "inverse_snr_w", "mean_weight_cosine")


CODEGENS = ["numpy", "numba"]
codegens = pytest.mark.parametrize("codegen", CODEGENS)


def make_batch(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    n_presentations: int = 5,
    steps: int = 12,
    dt: float = 1.0,
    plasticity: cs.Plasticity | None = None,
    shared_inputs: bool = False,
    fresh: bool = True,
    record_rates: bool = False,
    **parameters: np.ndarray,
) -> Batch:
    """A batch with random weights and inputs, in any state if it is not `fresh`."""
    n_circuits, n_neurons, n_inputs = shape
    w_init = 1 + rng.standard_normal(shape)
    state = State(
        w_init.copy(), np.zeros(shape), np.zeros((n_circuits, n_neurons)), np.zeros(n_circuits)
    )
    plasticity = cs.Plasticity() if plasticity is None else plasticity
    if plasticity.definition.per_presentation:
        steps = 1
    if not fresh:
        state.weights += 0.3 * rng.standard_normal(shape)
        state.velocity += 1e-3 * rng.standard_normal(shape)
        state.rate += 1 + rng.standard_normal(state.rate.shape)
        state.rate_inh += rng.standard_normal(n_circuits)
        state.presentations = 7
        state.elapsed = 7 * steps * dt
    circuits = () if shared_inputs else (n_circuits,)
    inputs = rng.standard_normal((n_presentations, *circuits, n_inputs))
    tau = parameters.get("tau", 30.0)
    defaults = {"alpha": 10.0, "tau": tau, "tau_inh": tau, "b": 1.0, "gamma": 0.01, "sigma": 0.0}
    return Batch(
        w_init=w_init,
        inputs=ArrayInputs(inputs),
        plasticity=plasticity,
        presentation=steps * dt,
        dt=dt,
        steps=steps,
        state=state,
        record=np.arange(n_presentations + 1),
        record_rates=record_rates,
        **{
            name: np.broadcast_to(parameters.get(name, value), (n_circuits,)).astype(float)
            for name, value in defaults.items()
        },
    )


def close(actual: np.ndarray, desired: np.ndarray, tolerance: float) -> None:
    """Check that arrays agree within a share of the largest number among those wanted."""
    assert actual.shape == desired.shape
    scale = np.max(np.abs(desired), initial=1e-300)
    np.testing.assert_allclose(actual / scale, desired / scale, rtol=0, atol=tolerance)


def same(actual: Outcome, desired: Outcome, tolerance: float = 1e-11) -> None:
    """Check two outcomes against each other."""
    for name in STATE:
        close(getattr(actual.state, name), getattr(desired.state, name), tolerance)
    for name in MEASURES:
        np.testing.assert_allclose(getattr(actual, name), getattr(desired, name), rtol=1e-10)
    assert actual.state.presentations == desired.state.presentations
    assert actual.state.elapsed == pytest.approx(desired.state.elapsed)
    assert (actual.rate_trace is None) == (desired.rate_trace is None)
    if actual.rate_trace is not None:
        close(actual.rate_trace, desired.rate_trace, tolerance)
        close(actual.rate_inh_trace, desired.rate_inh_trace, tolerance)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rule = draw(st.sampled_from(sorted(RULES)))
    per_presentation = RULES[rule].per_presentation
    n_circuits = draw(st.integers(1, 3))
    n_inputs = draw(st.integers(1, 12))
    dt = draw(st.sampled_from([0.1, 0.5, 1.0, 2.0]))
    peak = draw(st.sampled_from([0.0, 3e-4, 3e-3]))
    schedules = [cs.ConstantRate(peak)]
    if per_presentation:
        schedules.append(cs.HyperbolicRate(100 * peak, offset=10))
    else:
        onset = draw(st.sampled_from([0.0, 0.3, 5.0, 50.0]))
        schedules.append(cs.InverseSqrtRate(peak, timescale=2 * ms, onset=onset * ms))
    plasticity = cs.Plasticity(
        rule=rule,
        momentum=draw(st.sampled_from([0.0, 0.3, 0.95])),
        learning_rate=draw(st.sampled_from(schedules)),
    )
    if plasticity.momentum == 0.3 and not per_presentation:
        dt = min(dt, 1.0)  # a filter of 1.4 ms

    def per_circuit(low: float, high: float) -> np.ndarray:
        return np.array(
            draw(st.lists(st.floats(low, high), min_size=n_circuits, max_size=n_circuits))
        )

    return make_batch(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        (n_circuits, draw(st.integers(2, 15)), n_inputs),
        n_presentations=draw(st.integers(0, 5)),
        steps=draw(st.integers(1, 30)),
        dt=dt,
        plasticity=plasticity,
        shared_inputs=draw(st.booleans()),
        fresh=draw(st.booleans()),
        record_rates=not per_presentation and draw(st.booleans()),
        alpha=per_circuit(0, 15),
        tau=per_circuit(20, 60),
        b=per_circuit(-2, 2),
        gamma=per_circuit(0, 0.2) * draw(st.sampled_from([0, 1])),
    )


class TestPlainLoop:
    """The same numbers as the loop over steps in `reference`."""

    @pytest.mark.slow
    @codegens
    @settings(max_examples=2 * settings.default.max_examples)
    @given(data=st.data())
    def test_any_batch(self, codegen: str, data: st.DataObject) -> None:
        batch = data.draw(batches())
        same(Propagator(codegen).run(batch), reference.run(batch))

    @codegens
    @pytest.mark.parametrize("rule", sorted(RULES))
    @pytest.mark.parametrize("fresh", [True, False])
    @pytest.mark.parametrize(
        "shape", [(2, 100, 4), (1, 4, 30), (3, 10, 10), (1, 2, 1), (1, 600, 70)]
    )
    def test_many_and_few_neurons(
        self, shape: tuple[int, int, int], fresh: bool, rule: str, codegen: str
    ) -> None:
        rng = np.random.default_rng(1)
        batch = make_batch(rng, shape, plasticity=cs.Plasticity(rule=rule), fresh=fresh)
        same(Propagator(codegen).run(batch), reference.run(batch))

    @codegens
    @pytest.mark.parametrize(
        "parameters", [{"alpha": 0.0}, {"gamma": 0.0}, {"alpha": np.array([0.0, 3.0]), "tau": 25.0}]
    )
    def test_limits_of_parameters(self, parameters: dict, codegen: str) -> None:
        batch = make_batch(np.random.default_rng(2), (2, 20, 3), fresh=False, **parameters)
        same(Propagator(codegen).run(batch), reference.run(batch))

    @codegens
    def test_input_of_zero(self, codegen: str) -> None:
        batch = make_batch(np.random.default_rng(3), (2, 20, 3), fresh=False)
        batch.inputs = ArrayInputs(np.zeros((5, 3)))
        same(Propagator(codegen).run(batch), reference.run(batch))

    @codegens
    def test_weights_that_are_the_same_already(self, codegen: str) -> None:
        batch = make_batch(np.random.default_rng(3), (1, 20, 3))
        batch.w_init[:] = batch.state.weights[:] = [1.0, 2.0, 0.5]
        outcome = Propagator(codegen).run(batch)
        np.testing.assert_array_equal(outcome.snr_w, np.inf)
        np.testing.assert_array_equal(outcome.inverse_snr_w, 0)
        close(outcome.state.weights, reference.run(batch).state.weights, 1e-11)

    @codegens
    def test_many_presentations_in_blocks(
        self, codegen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = make_batch(np.random.default_rng(4), (2, 20, 3), n_presentations=70)
        whole = Propagator(codegen).run(batch)
        same(whole, reference.run(batch))
        monkeypatch.setattr(propagator, "_NUMBERS", 16 * 12)
        same(Propagator(codegen).run(batch), whole, 1e-14)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "length", [100, pytest.param(10_000, marks=pytest.mark.thorough, id="published")]
    )
    def test_steps_of_the_published_protocol(self, length: int) -> None:
        rng, gamma = np.random.default_rng(5), np.array([0.001])
        batch = make_batch(rng, (1, 20, 9), n_presentations=length, steps=150, gamma=gamma)
        batch.record = np.arange(0, length + 1, 100)
        looped = reference.run(batch)
        for codegen in CODEGENS:
            same(Propagator(codegen).run(batch), looped)


class TestInvariances:
    @codegens
    @pytest.mark.parametrize("rule", sorted(RULES))
    @pytest.mark.parametrize("shared_inputs", [True, False])
    @pytest.mark.parametrize("shape", [(40, 30, 1), (40, 30, 7), (3, 5, 20)])
    def test_company_does_not_matter_to_the_last_bit(
        self, shape: tuple[int, int, int], shared_inputs: bool, rule: str, codegen: str
    ) -> None:
        rng = np.random.default_rng(12)
        gamma, alpha = np.resize([0.1, 0.01, 0.001], shape[0]), np.linspace(0, 10, shape[0])
        batch = make_batch(
            rng,
            shape,
            n_presentations=300,
            plasticity=cs.Plasticity(rule=rule),
            shared_inputs=shared_inputs,
            gamma=gamma,
            alpha=alpha,
        )
        together = Propagator(codegen, threads=2).run(batch)
        one = slice(1, 2)
        state = batch.state
        alone = replace(
            batch,
            w_init=batch.w_init[one],
            inputs=ArrayInputs(batch.input_block(0, 300)[:, one]),
            state=State(*(getattr(state, name)[one] for name in STATE)),
            **{
                name: getattr(batch, name)[one]
                for name in ("alpha", "tau", "b", "gamma", "tau_inh", "sigma", "b_inh", "delay")
            },
        )
        outcome = Propagator(codegen).run(alone)
        for name in STATE:
            np.testing.assert_array_equal(
                getattr(outcome.state, name), getattr(together.state, name)[one]
            )
        for name in MEASURES:
            np.testing.assert_array_equal(getattr(outcome, name), getattr(together, name)[one])

    @codegens
    def test_threads_give_the_same_bits(self, codegen: str) -> None:
        batch = make_batch(np.random.default_rng(13), (7, 40, 20), n_presentations=40)
        one, two = (Propagator(codegen, threads).run(batch) for threads in (1, 3))
        np.testing.assert_array_equal(two.state.weights, one.state.weights)
        np.testing.assert_array_equal(two.inverse_snr_w, one.inverse_snr_w)


class TestRecording:
    @codegens
    @pytest.mark.parametrize("record", [[0], [30], [1, 2, 29], [0, 7, 8, 30]])
    def test_only_what_is_asked_for(
        self, record: list[int], codegen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(propagator, "_NUMBERS", 8 * 12)
        batch = make_batch(np.random.default_rng(15), (2, 20, 3), n_presentations=30)
        whole = Propagator(codegen).run(batch)
        batch.record = np.array(record)
        some = Propagator(codegen).run(batch)
        for name in MEASURES:
            np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[:, record])

    @codegens
    def test_progress_goes_up_to_one(self, codegen: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(propagator, "_NUMBERS", 2 * 12)
        seen: list[float] = []
        Propagator(codegen).run(make_batch(np.random.default_rng(16), (1, 5, 3)), seen.append)
        assert seen == [0.4, 0.8, 1.0]

    @pytest.mark.slow
    @codegens
    def test_memory_does_not_grow_with_the_run(
        self, codegen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        n_presentations = 6000
        monkeypatch.setattr(propagator, "_NUMBERS", 2**12)
        plasticity = cs.Plasticity(rule="mean_subtracted")
        batch = make_batch(np.random.default_rng(17), (1, 10, 50), plasticity=plasticity)
        Propagator(codegen).run(batch)  # what is compiled and imported does not count
        batch.inputs = GaussianInputs(n_presentations, 50, seed=1)
        batch.record = np.array([n_presentations])
        tracemalloc.start()
        Propagator(codegen).run(batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < n_presentations * 50 * 8 / 2


class TestRefusals:
    def test_unknown_codegen(self) -> None:
        with pytest.raises(cs.ParameterError, match="auto, numba, numpy"):
            cs.simulate(
                np.ones((3, 2)), np.ones((1, 2)), engine="propagator", codegen="cpp_standalone"
            )

    def test_without_numba(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "numba", None)
        with pytest.raises(cs.ParameterError, match=r"pip install circuitsim\[compiled\]"):
            Propagator("numba")
        run = cs.simulate(np.eye(3), np.ones((1, 3)), engine="propagator")
        assert run.attrs["codegen"] == "numpy"

    @codegens
    @pytest.mark.parametrize("n_neurons", [3, 50])
    @pytest.mark.filterwarnings("error")
    def test_divergence_is_an_error_without_warnings(self, n_neurons: int, codegen: str) -> None:
        plasticity = cs.Plasticity(learning_rate=cs.ConstantRate(10.0))
        w_init = 1 + np.random.default_rng(18).standard_normal((4, n_neurons, 3))
        with pytest.raises(FloatingPointError, match="lower learning rate"):
            cs.simulate(
                w_init,
                np.ones((300, 4, 3)),
                plasticity=plasticity,
                engine="propagator",
                codegen=codegen,
            )
        batch = make_batch(np.random.default_rng(19), (4, n_neurons, 3), plasticity=plasticity)
        batch.inputs = ArrayInputs(np.ones((300, 4, 3)))
        assert not np.isfinite(Propagator(codegen, threads=2).run(batch).state.weights).all()

    @pytest.mark.slow
    def test_importing_does_not_import_numba(self) -> None:
        code = (
            "import sys, circuitsim, circuitsim.engines.propagator, circuitsim.engines.simulation;"
            "sys.exit('numba' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_compiles_where_nothing_can_be_cached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import numba

        from circuitsim.engines import _kernels_numba

        compiled = numba.njit

        def refusing(*args: object, cache: bool = False, **options: object):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return compiled(*args, **options)

        monkeypatch.setattr(numba, "njit", refusing)
        assert _kernels_numba._compiled(lambda x: x + 1)(1) == 2


def test_sources_of_inputs_are_read_in_blocks() -> None:
    """Stacked sources, as sweeps use them, give what the arrays they stand for give."""
    sources = [GaussianInputs(40, 3, seed=seed) for seed in range(2)]
    stacked = StackedInputs(sources, [0, 1, 0])
    w_init = np.random.default_rng(18).standard_normal((3, 10, 3))
    streamed = cs.simulate(w_init, stacked, engine="propagator", codegen="numpy")
    arrays = cs.simulate(w_init, stacked.block(0, 40), engine="propagator", codegen="numpy")
    np.testing.assert_array_equal(streamed.weights, arrays.weights)
