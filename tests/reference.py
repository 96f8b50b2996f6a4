"""The model as a plain loop over steps: slow, and simple enough to be checked by reading.

It is what the tests hold the propagator against.
"""

from __future__ import annotations

import numpy as np

from circuitsim import measures
from circuitsim.engines.batch import Batch, Outcome, State
from circuitsim.expressions import FUNCTIONS

NAMES = FUNCTIONS | {"inf": np.inf}


def run(batch: Batch) -> Outcome:
    """Run a batch step by step, one circuit after the other."""
    outcomes = [_run_circuit(batch, circuit) for circuit in range(batch.shape[0])]
    stacked = {name: np.stack([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    state = State(
        stacked.pop("weights"),
        stacked.pop("velocity"),
        stacked.pop("rate"),
        stacked.pop("rate_inh"),
        batch.state.presentations + batch.n_presentations,
        batch.state.elapsed + batch.n_presentations * batch.presentation,
    )
    return Outcome(state, **stacked)


def _run_circuit(batch: Batch, circuit: int) -> dict[str, np.ndarray]:
    rule = batch.plasticity.definition
    schedule = batch.plasticity.learning_rate
    alpha, tau, b = batch.alpha[circuit], batch.tau[circuit], batch.b[circuit]
    tau_inh, dynamics = batch.tau_inh[circuit], batch.dynamics
    gamma, w_init = batch.gamma[circuit], batch.w_init[circuit]
    inputs = batch.input_block(0, batch.n_presentations)[:, circuit]
    dt = batch.dt

    w = batch.state.weights[circuit].copy()
    r = batch.state.rate[circuit].copy()
    r_inh = float(batch.state.rate_inh[circuit])
    if rule.per_presentation:
        momentum, m = batch.plasticity.momentum, batch.state.velocity[circuit].copy()
        number = batch.state.presentations
    else:
        momentum, rate_factor = batch.plasticity.per_step(dt)
        m = batch.state.velocity[circuit] * dt
        number = round(batch.state.elapsed / dt)

    rates, rates_inh = [], []
    measured = [_measure(w, w_init)]
    for x in inputs:
        if rule.per_presentation:
            z = w @ x
            signal = eval(rule.signal, {"z": z, "z_mean": z.mean()} | NAMES)
            learning_rate = schedule.at(number)
            m = momentum * m - learning_rate * (np.outer(signal, x) + gamma * (w - w_init))
            w = w + m
            number += 1
        else:
            for _ in range(batch.steps):
                z = w @ x
                here = {"r": r, "r_inh": r_inh, "r_mean": r.mean(), "z": z, "b": b} | NAMES
                here |= {"alpha": alpha, "tau": tau, "tau_inh": tau_inh}
                r, r_inh = (
                    r + dt * eval(dynamics.excitatory, here),
                    r_inh + dt * eval(dynamics.interneuron, here),
                )
                signal = eval(rule.signal, {"r": r, "r_inh": r_inh, "b": b} | NAMES)
                learning_rate = 0.0
                if number >= schedule.first_step(dt):
                    learning_rate = rate_factor * schedule.at(number * dt)
                m = momentum * m - learning_rate * (np.outer(signal, x) + gamma * (w - w_init))
                w = w + m
                number += 1
                rates.append(r)
                rates_inh.append(r_inh)
        measured.append(_measure(w, w_init))

    found = dict(
        zip(
            ("snr_w", "inverse_snr_w", "mean_weight_cosine"),
            np.array(measured)[batch.record].T,
            strict=True,
        )
    )
    found |= {"weights": w, "rate": r, "rate_inh": np.array(r_inh)}
    found["velocity"] = m if rule.per_presentation else m / dt
    if batch.record_rates:
        found |= {
            "rate_trace": np.array(rates).reshape(-1, len(r)),
            "rate_inh_trace": np.array(rates_inh),
        }
    return found


def _measure(w: np.ndarray, w_init: np.ndarray) -> tuple[float, float, float]:
    return (
        float(measures.snr_w(w)),
        float(measures.inverse_snr_w(w)),
        float(measures.mean_weight_cosine(w, w_init)),
    )
