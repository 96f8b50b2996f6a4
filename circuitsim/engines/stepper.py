"""The stepper: every step of any circuit, in code made from its equations.

While an input x is shown, weights move along x alone and by a common decay, whatever the transfer
function, the noise and the parameters of single neurons are (see
`circuitsim.engines.coefficients`). So a step costs as much as there are neurons, not synapses: each
neuron integrates how far it has moved along x, and its weights follow once a presentation. The
arithmetic is that of the second half of `circuitsim.equations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from circuitsim import measures
from circuitsim.dynamics import evaluate
from circuitsim.engines.batch import Array, Batch, Engine, Outcome, Progress
from circuitsim.engines.schemes import Euler
from circuitsim.expressions import portable
from circuitsim.rules import Rule
from circuitsim.validation import ParameterError, integer, one_of

BLOCK = 16  # presentations at a time: bounds the memory of noise and of recorded rates


class Stepper(Engine):
    """Engine for circuits of any equations, in forward Euler's steps.

    Parameters
    ----------
    codegen : str
        ``"numba"`` for compiled loops, ``"numpy"`` for arrays over circuits and neurons, or
        ``"auto"``: Numba where it is installed. Their numbers agree to rounding.
    threads : int
        Number of threads that share the circuits of a batch; >= 1.

    Raises
    ------
    ParameterError
        If codegen is none of these, or is ``"numba"`` where that is not installed.
    """

    codegens: ClassVar[tuple[str, ...]] = ("auto", "numba", "numpy")
    threads: bool = True

    def __init__(self, codegen: str = "auto", threads: int = 1) -> None:
        one_of("codegen", codegen, self.codegens)
        self.codegen = _available(codegen)
        self.threads = self.codegen == "numba"
        self._threads = integer("threads", threads, minimum=1)

    @classmethod
    def check_rule(cls, rule: Rule) -> None:
        """Any rule can be run."""

    def run(self, batch: Batch, progress: Progress | None = None) -> Outcome:
        """Run a batch.

        Raises
        ------
        ParameterError
            If continuous time is asked for.
        """
        if batch.dt is None:
            raise ParameterError(
                "dt", "the stepper makes steps; use a time, or engine='propagator'", None
            )
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return _Run(batch, self.codegen).to_the_end(self._threads, progress)

    def pilot(self, n_presentations: int) -> tuple[int, int]:
        """A short run, made twice: compiling may come first."""
        return (min(100, n_presentations),) * 2


def _available(codegen: str) -> str:
    if codegen == "numpy":
        return codegen
    try:
        import numba  # noqa: F401
    except ImportError:
        if codegen == "auto":
            return "numpy"
        raise ParameterError(
            "codegen",
            "needs Numba, which is not installed; use codegen='numpy', or "
            "`pip install circuitsim[compiled]`",
            codegen,
        ) from None
    return "numba"


@dataclass
class _Circuits:
    """State of some circuits, which changes as they are carried on; views of the whole batch's."""

    w_init: Array
    moved: Array
    velocity: Array
    rate: Array
    inhibition: Array

    def of(self, which: slice) -> _Circuits:
        return _Circuits(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


class _Run:
    """One batch on its way."""

    def __init__(self, batch: Batch, codegen: str) -> None:
        self.batch = batch
        self.codegen = codegen
        self.ideal = batch.plasticity.definition.per_presentation
        dt = 1.0 if self.ideal else batch.dt
        assert dt is not None  # the engine refuses continuous time
        self.dt = dt
        state = batch.state
        self.circuits = _Circuits(
            np.array(batch.w_init),  # arrays of one kind alone: writable, contiguous
            state.weights - batch.w_init,
            state.velocity * self.dt,
            np.array(state.rate, order="C"),
            np.array(state.rate_inh),
        )
        n_circuits, n_neurons, n_inputs = batch.shape
        self.moments = np.empty((2, n_circuits, len(batch.record), n_inputs))
        self.rate_trace: Array | None = None
        self.rate_inh_trace: Array | None = None
        if batch.record_rates:
            n_steps = batch.n_presentations * batch.steps
            self.rate_trace = np.empty((n_circuits, n_steps, n_neurons))
            self.rate_inh_trace = np.empty((n_circuits, n_steps))
        self.euler = Euler(batch, _no_kernel)
        dynamics, signal = batch.dynamics, batch.plasticity.definition.signal
        neuron, pool = (np.ndim(v) == 2 for v in (batch.alpha, batch.tau))
        self.texts = (
            portable(dynamics.excitatory),
            portable(dynamics.interneuron),
            portable(signal),
            neuron,
            pool,
            bool(np.any(batch.sigma)),
        )

    def to_the_end(self, threads: int, progress: Progress | None) -> Outcome:
        """Carry all circuits through all presentations."""
        batch = self.batch
        if 0 in batch.record:
            weights = batch.state.weights
            self.moments[0, :, 0] = weights.mean(axis=1)
            self.moments[1, :, 0] = weights.var(axis=1)
        n_circuits = batch.shape[0]
        size = 1 if self.codegen == "numba" else n_circuits
        parts = [slice(i, i + size) for i in range(0, n_circuits, size)]
        with ThreadPoolExecutor(threads) as executor:
            spread: Callable[..., Iterable[Any]] = executor.map if threads > 1 else map
            for start in range(0, batch.n_presentations, BLOCK):
                stop = min(start + BLOCK, batch.n_presentations)
                inputs = batch.input_block(start, stop)
                slots = np.searchsorted(batch.record, np.arange(start + 1, stop + 1))
                wanted = np.isin(np.arange(start + 1, stop + 1), batch.record)
                slots = np.where(wanted, slots, -1)
                if self.ideal:
                    done = batch.state.presentations
                    rates = batch.plasticity.learning_rate.at(done + np.arange(start, stop))
                    self._update(inputs, rates, slots)
                else:
                    rates = np.ascontiguousarray(self.euler.rates(start, stop).T)

                    def advance(
                        part: slice,
                        start: int = start,
                        inputs: Array = inputs,
                        rates: Array = rates,
                        slots: NDArray[np.int64] = slots,
                    ) -> None:
                        self._advance(part, start, inputs[:, part], rates, slots)

                    for _ in spread(advance, parts):
                        pass
                if progress is not None:
                    progress(stop / batch.n_presentations)
        return self._outcome()

    # -- rules of the circuit --------------------------------------------------------------------

    def _advance(
        self, part: slice, start: int, inputs: Array, rates: Array, slots: NDArray[np.int64]
    ) -> None:
        """Carry some circuits through a block of presentations."""
        batch = self.batch
        circuits = self.circuits.of(part)
        n = len(inputs)
        noise = np.empty((len(circuits.w_init), 0, 0, 0))
        if self.texts[-1]:
            noise = np.stack(
                [self._noise(c, start, n) for c in range(*part.indices(batch.shape[0]))]
            )
        momentum = batch.plasticity.per_step(self.dt).momentum
        parameters = [v[part] for v in (batch.alpha, batch.tau, batch.b, batch.tau_inh)]
        parameters += [batch.sigma[part], batch.gamma[part]]
        steps = slice(start * batch.steps, (start + n) * batch.steps)
        traces = np.empty((len(circuits.w_init), 0, 0)), np.empty((len(circuits.w_init), 0))
        if self.rate_trace is not None and self.rate_inh_trace is not None:
            traces = self.rate_trace[part, steps], self.rate_inh_trace[part, steps]
        moments = self.moments[:, part]
        if self.codegen == "numba":
            kernel = _compiled(*self.texts)
            for c in range(len(circuits.w_init)):
                kernel(
                    circuits.w_init[c],
                    circuits.moved[c],
                    circuits.velocity[c],
                    circuits.rate[c],
                    circuits.inhibition[c : c + 1],
                    np.array(inputs[:, c], order="C"),
                    rates,
                    noise[c],
                    *(_scalar(values[c]) for values in parameters),
                    momentum,
                    self.dt,
                    slots,
                    moments[0, c],
                    moments[1, c],
                    *(trace[c] for trace in traces),
                )
            return
        _numpy_block(
            self.texts, circuits, inputs, rates, noise, parameters, momentum, self.dt, slots,
            moments, traces,
        )  # fmt: skip

    def _noise(self, circuit: int, start: int, n: int) -> Array:
        """Standard normal numbers of some presentations, (presentation, step, neuron).

        Each presentation has a stream of its own, so that numbers depend on the circuit's seed and
        the presentation's number alone.
        """
        batch = self.batch
        seed = batch.seeds[circuit]
        drawn = np.empty((n, batch.steps, batch.shape[1]))
        for i in range(n):
            number = batch.state.presentations + start + i
            key = (*seed.spawn_key, number)
            stream = np.random.SeedSequence(seed.entropy, spawn_key=key)
            np.random.Generator(np.random.SFC64(stream)).standard_normal(out=drawn[i])
        return drawn

    # -- rules that make one update a presentation -----------------------------------------------

    def _update(self, inputs: Array, rates: Array, slots: NDArray[np.int64]) -> None:
        circuits, batch = self.circuits, self.batch
        gamma = batch.gamma[:, np.newaxis, np.newaxis]
        text = portable(batch.plasticity.definition.signal)
        for x, rate, slot in zip(inputs, rates, slots, strict=True):
            weights = circuits.w_init + circuits.moved
            z = (weights * x[:, np.newaxis]).sum(axis=-1)
            values: dict[str, object] = {"z": z, "z_mean": z.mean(axis=-1, keepdims=True)}
            signal = np.asarray(evaluate(text, values)) * np.ones_like(z)
            circuits.velocity *= batch.plasticity.momentum
            circuits.velocity -= rate * (
                signal[..., np.newaxis] * x[:, np.newaxis] + gamma * circuits.moved
            )
            circuits.moved += circuits.velocity
            _measure(circuits, slot, self.moments)

    def _outcome(self) -> Outcome:
        batch, state, circuits = self.batch, self.batch.state, self.circuits
        moved = batch.n_presentations > 0
        after = replace(
            state,
            weights=batch.w_init + circuits.moved if moved else state.weights,
            velocity=circuits.velocity / self.dt if moved else state.velocity,
            rate=circuits.rate,
            rate_inh=circuits.inhibition,
            presentations=state.presentations + batch.n_presentations,
            elapsed=state.elapsed + batch.n_presentations * batch.presentation,
        )
        mean, variance = self.moments
        initial = batch.w_init.mean(axis=1)[:, np.newaxis]
        outcome = Outcome(
            after,
            measures.snr_from_moments(mean, variance),
            measures.inverse_snr_from_moments(mean, variance),
            measures.cosine(mean, initial),
            self.rate_trace,
            self.rate_inh_trace,
        )
        outcome.attributes["codegen"] = self.codegen
        return outcome


def _no_kernel(*_: Any) -> Any:
    raise AssertionError("the stepper needs no coefficients")


def _scalar(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.array(value, dtype=float)


def _measure(circuits: _Circuits, slot: int, moments: Array) -> None:
    if slot >= 0:
        weights = circuits.w_init + circuits.moved
        moments[0, :, slot] = weights.mean(axis=1)
        moments[1, :, slot] = weights.var(axis=1)


def _numpy_block(
    texts: tuple[Any, ...],
    circuits: _Circuits,
    inputs: Array,
    rates: Array,
    noise: Array,
    parameters: list[Array],
    momentum: float,
    dt: float,
    slots: NDArray[np.int64],
    moments: Array,
    traces: tuple[Array, Array],
) -> None:
    """Carry circuits through a block of presentations, with arrays over circuits and neurons."""
    excitatory, interneuron, signal_text, *_, noisy = texts
    column = [v if v.ndim == 2 else v[:, np.newaxis] for v in parameters]
    alpha, tau, b, tau_inh, sigma, gamma = column
    scale = sigma * np.sqrt(2 * dt / tau)
    constants: dict[str, object] = {"alpha": alpha, "tau": tau, "b": b}
    # An interneuron is one of its circuit; its equation has no tau where neurons differ in it.
    of_pool: dict[str, object] = {"tau": tau[:, 0], "b": b[:, 0], "tau_inh": tau_inh[:, 0]}
    r, h = circuits.rate, circuits.inhibition
    step = 0
    for number, x in enumerate(inputs):
        y, dx, vx = (
            (weights * x[:, np.newaxis]).sum(axis=-1)
            for weights in (circuits.w_init, circuits.moved, circuits.velocity)
        )
        square = (x * x).sum(axis=-1)[:, np.newaxis]
        along, pace = np.zeros_like(r), np.zeros_like(r)
        a, c, e, f = (
            np.ones_like(gamma),
            np.zeros_like(gamma),
            np.zeros_like(gamma),
            np.ones_like(gamma),
        )
        for t, rate in enumerate(rates[number]):
            z = y + a * dx + c * vx + square * along
            change = evaluate(excitatory, {"r": r, "r_inh": h[:, np.newaxis], "z": z} | constants)
            change_inh = evaluate(interneuron, {"r_inh": h, "r_mean": r.mean(axis=-1)} | of_pool)
            r = r + dt * np.asarray(change)
            if noisy:
                r = r + scale * noise[:, number, t]
            h = h + dt * np.asarray(change_inh)
            values: dict[str, object] = {"r": r, "r_inh": h[:, np.newaxis], "b": b}
            signal = np.asarray(evaluate(signal_text, values))
            pace = momentum * pace - rate * (signal + gamma * along)
            along = along + pace
            e = momentum * e - rate * gamma * a
            a = a + e
            f = momentum * f - rate * gamma * c
            c = c + f
            if traces[0].size:
                traces[0][:, step], traces[1][:, step] = r, h
            step += 1
        a, c, e, f = (factor[..., np.newaxis] for factor in (a, c, e, f))
        x_row = x[:, np.newaxis]
        moved = a * circuits.moved + c * circuits.velocity + along[..., np.newaxis] * x_row
        circuits.velocity[:] = (
            e * circuits.moved + f * circuits.velocity + pace[..., np.newaxis] * x_row
        )
        circuits.moved[:] = moved
        _measure(circuits, slots[number], moments)
    circuits.rate[:], circuits.inhibition[:] = r, h


_KERNEL = """
def kernel(w_init, moved, velocity, rate, inhibition, inputs, rates, noise, alpha, tau, b, tau_inh,
           sigma, gamma, momentum, dt, slots, means, variances, rate_trace, inhibition_trace):
    n_neurons, n_inputs = w_init.shape
    r_inh = inhibition[0]
    y = np.empty(n_neurons)
    dx = np.empty(n_neurons)
    vx = np.empty(n_neurons)
    along = np.empty(n_neurons)
    pace = np.empty(n_neurons)
    scale = np.empty(n_neurons)
    total = 0.0
    for i in range(n_neurons):
        total += rate[i]
        scale[i] = sigma*math.sqrt(2.0*dt/{tau})
    r_mean = total/n_neurons
    step = 0
    for number in range(inputs.shape[0]):
        x = inputs[number]
        square = 0.0
        for j in range(n_inputs):
            square += x[j]*x[j]
        for i in range(n_neurons):
            of_init = of_moved = of_velocity = 0.0
            for j in range(n_inputs):
                of_init += w_init[i, j]*x[j]
                of_moved += moved[i, j]*x[j]
                of_velocity += velocity[i, j]*x[j]
            y[i], dx[i], vx[i] = of_init, of_moved, of_velocity
            along[i] = pace[i] = 0.0
        a, c, e, f = 1.0, 0.0, 0.0, 1.0
        for t in range(rates.shape[1]):
            learning = rates[number, t]
            new_inh = r_inh + dt*({interneuron})
            total = 0.0
            for i in range(n_neurons):
                r = rate[i]
                p = along[i]
                z = y[i] + a*dx[i] + c*vx[i] + square*p
                r = r + dt*({excitatory}){noise}
                rate[i] = r
                total += r
                q = momentum*pace[i] - learning*(({signal}) + gamma*p)
                pace[i] = q
                along[i] = p + q
            r_inh = new_inh
            r_mean = total/n_neurons
            e = momentum*e - learning*gamma*a
            a = a + e
            f = momentum*f - learning*gamma*c
            c = c + f
            if rate_trace.size:
                rate_trace[step] = rate
                inhibition_trace[step] = r_inh
            step += 1
        slot = slots[number]
        if slot >= 0:
            means[slot] = 0.0
            variances[slot] = 0.0
        for i in range(n_neurons):
            for j in range(n_inputs):
                d, v = moved[i, j], velocity[i, j]
                moved[i, j] = a*d + c*v + along[i]*x[j]
                velocity[i, j] = e*d + f*v + pace[i]*x[j]
            if slot >= 0:
                for j in range(n_inputs):
                    means[slot, j] += w_init[i, j] + moved[i, j]
        if slot >= 0:
            for j in range(n_inputs):
                means[slot, j] /= n_neurons
            for i in range(n_neurons):
                for j in range(n_inputs):
                    deviation = w_init[i, j] + moved[i, j] - means[slot, j]
                    variances[slot, j] += deviation*deviation
            for j in range(n_inputs):
                variances[slot, j] /= n_neurons
    inhibition[0] = r_inh
"""


@lru_cache(maxsize=32)
def _compiled(
    excitatory: str,
    interneuron: str,
    signal: str,
    alpha_of_neurons: bool,
    tau_of_neurons: bool,
    noisy: bool,
) -> Any:
    """Compile the kernel of some equations, all of which have been checked."""
    import math

    import numba

    def substituted(text: str, names: dict[str, str]) -> str:
        return re.sub(r"\w+", lambda match: names.get(match[0], match[0]), text)

    one = {"alpha": "alpha[i]" if alpha_of_neurons else "alpha"}
    one["tau"] = "tau[i]" if tau_of_neurons else "tau"
    source = _KERNEL.format(
        excitatory=substituted(excitatory, one),
        interneuron=interneuron,
        signal=substituted(signal, {"r_inh": "new_inh"}),
        tau=one["tau"],
        noise=" + scale[i]*noise[number, t, i]" if noisy else "",
    )
    # Sums may be reordered and quotients be products: infinities and NaN stay what they are.
    options = {"nogil": True, "fastmath": {"contract", "nsz", "reassoc", "arcp"}}
    scope: dict[str, Any] = {"np": np, "math": math, "inf": np.inf}
    for name in ("arctan", "cos", "exp", "log", "sin", "sqrt", "tanh"):
        scope[name] = getattr(math, "atan" if name == "arctan" else name)
    scope["clip"] = numba.njit(_clip, **options)
    scope["sign"] = numba.njit(_sign, **options)
    exec(source, scope)
    return numba.njit(scope["kernel"], **options)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _sign(value: float) -> float:
    return 1.0 if value > 0 else (-1.0 if value < 0 else 0.0)
