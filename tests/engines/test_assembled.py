"""The Brian2 network itself: what it gives, what can be added to it, what can be changed."""

from __future__ import annotations

import brian2
import numpy as np
import pytest

import circuitsim as cs

pytestmark = pytest.mark.slow


def problem(rng):
    return 1 + rng.standard_normal((2, 6, 4)), rng.standard_normal((4, 4))


@pytest.mark.parametrize("per_synapse", [False, True])
def test_it_is_what_simulate_runs(per_synapse, rng):
    problems = problem(rng)
    net = cs.network(*problems, record_rates=True, per_synapse=per_synapse)
    # Through what is added, too.
    rates = brian2.StateMonitor(net.groups["excitatory"], "r", record=True)
    net.add(rates)
    net.run()
    engine = "brian2_per_synapse" if per_synapse else "brian2"
    run = cs.simulate(*problems, engine=engine, codegen="numpy", record_rates=True)
    assert net.result().identical(run)
    assert net.result().attrs == run.attrs
    # Brian2's monitors look before a step, ours after it.
    seen = rates.r[:, 1:].reshape(2, 6, -1).swapaxes(1, 2)
    assert np.array_equal(seen, run.rate_trace[:, :-1])


def test_an_ideal_rule_has_a_network(rng):
    plasticity = cs.Plasticity("mean_subtracted")
    net = cs.network(*problem(rng), plasticity=plasticity)
    net.run()
    assert float(net.result().snr_w[0, -1]) > float(net.result().snr_w[0, 0])


def test_what_is_changed_has_an_effect(rng):
    w_init, inputs = problem(rng)
    net = cs.network(w_init, inputs, cs.Circuit(alpha=10.0))
    net.groups["excitatory"].alpha = 0
    net.run()
    without = cs.simulate(w_init, inputs, cs.Circuit(alpha=0.0), engine="propagator")
    np.testing.assert_allclose(net.result().weights, without.weights, rtol=1e-10)


def test_refusals(rng):
    w_init, inputs = problem(rng)
    net = cs.network(w_init, inputs)
    with pytest.raises(cs.ParameterError, match="call run"):
        net.result()
    net.run()
    with pytest.raises(cs.ParameterError, match="has shown all presentations"):
        net.run()
    with pytest.raises(cs.ParameterError, match="a presentation at least"):
        cs.network(w_init, inputs[:0])
    with pytest.raises(cs.ParameterError, match="Brian2 makes steps; use a time"):
        cs.network(w_init, inputs, dt=None)
