"""The model as a plain loop over steps: slow, and simple enough to be checked by reading.

It is what the tests hold the propagator against.
"""

from __future__ import annotations

from functools import cache
from types import CodeType

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
    if batch.private:
        inputs = batch.private_block(0, batch.n_presentations)[:, circuit]
    else:
        inputs = batch.input_block(0, batch.n_presentations)[:, circuit]
    low, high = batch.plasticity.bounds or (-np.inf, np.inf)
    to_inh, from_inh = (weights[circuit] for weights in batch.connections())
    late = batch.delay[circuit]
    dt = batch.dt

    w = batch.state.weights[circuit].copy()
    r = batch.state.rate[circuit].copy()
    h = np.atleast_1d(batch.state.rate_inh[circuit])
    past = [] if batch.state.past is None else list(batch.state.past[circuit])
    past = [*past, h]  # the present one is the last
    if rule.per_presentation:
        momentum, m = batch.plasticity.momentum, batch.state.velocity[circuit].copy()
        number = batch.state.presentations
    else:
        momentum, rate_factor = batch.plasticity.per_step(dt)
        m = batch.state.velocity[circuit] * dt
        number = round(batch.state.elapsed / dt)

    rates, rates_inh = [], []
    measured = [_measure(w, w_init)]
    for number_shown, x in enumerate(inputs):
        x = np.broadcast_to(x, w.shape)  # one for each neuron, if they differ
        if rule.per_presentation:
            z = (w * x).sum(axis=1)
            signal = _signal(rule.signal, {"z": z, "z_mean": z.mean()}, w, x)
            learning_rate = schedule.at(number)
            m = momentum * m - learning_rate * (signal * x + gamma * (w - w_init))
            w = np.clip(w + m, low, high)
            number += 1
        else:
            noise = np.zeros((batch.steps, len(r)))
            if batch.sigma[circuit]:
                noise = batch.noise(circuit, number_shown, number_shown + 1)[0]
            for step in range(batch.steps):
                z = (w * x).sum(axis=1)
                here = {"z": z, "b": b, "b_inh": batch.b_inh[circuit]} | NAMES
                here |= {"alpha": alpha, "tau": tau, "tau_inh": tau_inh}
                felt = from_inh @ past[-1 - late]
                new_r = r + dt * eval(_code(dynamics.excitatory), here | {"r": r, "r_inh": felt})
                new_r = new_r + batch.sigma[circuit] * np.sqrt(2 * dt / tau) * noise[step]
                pool = here | {"r_inh": h, "r_mean": to_inh @ r}
                if np.ndim(tau):
                    del pool["tau"]
                r, h = new_r, h + dt * eval(_code(dynamics.interneuron), pool)
                past.append(h)
                felt = from_inh @ past[-1 - late]
                signal = _signal(batch.signal, here | {"r": r, "r_inh": felt}, w, x)
                learning_rate = 0.0
                if number >= schedule.first_step(dt):
                    learning_rate = rate_factor * schedule.at(number * dt)
                m = momentum * m - learning_rate * (signal * x + gamma * (w - w_init))
                w = np.clip(w + m, low, high)
                number += 1
                rates.append(r)
                rates_inh.append(h)
        measured.append(_measure(w, w_init))

    found = dict(
        zip(
            ("snr_w", "inverse_snr_w", "mean_weight_cosine"),
            np.array(measured)[batch.record].T,
            strict=True,
        )
    )
    one = batch.state.rate_inh.ndim == 1
    found |= {"weights": w, "rate": r, "rate_inh": h[0] if one else h}
    found["velocity"] = m if rule.per_presentation else m / dt
    if batch.record_rates:
        found |= {
            "rate_trace": np.array(rates).reshape(-1, len(r)),
            "rate_inh_trace": np.array(rates_inh).reshape((-1,) if one else (-1, len(h))),
        }
    return found


@cache
def _code(text: str) -> CodeType:
    """Compiled once: there are a million steps."""
    return compile(text, text, "eval")


def _signal(text: str, values: dict, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A rule's signal for each synapse."""
    columns = {n: v[:, None] if np.ndim(v) == 1 else v for n, v in values.items()}
    return eval(_code(text), columns | NAMES | {"w": w, "x": x}) * np.ones_like(w)


def _measure(w: np.ndarray, w_init: np.ndarray) -> tuple[float, float, float]:
    return (
        float(measures.snr_w(w)),
        float(measures.inverse_snr_w(w)),
        float(measures.mean_weight_cosine(w, w_init)),
    )
