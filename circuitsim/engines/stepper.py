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
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from circuitsim import measures, noise
from circuitsim.checks import interrupts
from circuitsim.checks.validation import ParameterError, integer, one_of
from circuitsim.dynamics import evaluate
from circuitsim.engines.batch import Array, Batch, Engine, Outcome, Progress
from circuitsim.engines.schemes import Euler
from circuitsim.expressions import portable
from circuitsim.rules import LinearSignal, Rule

_BLOCK = 16  # presentations at a time of array code: bounds the memory of noise
_LONGEST = 512  # presentations at a time of compiled code
_NUMBERS = 4_000_000  # at most, in an array of neurons' own inputs
_AT_ONCE = (
    20_000_000  # steps of neurons in a call: a tenth of a second, after which interrupts are met
)


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
        batch.check_steps("the stepper")
        if batch.plasticity.per_synapse:
            raise ParameterError(
                "engine",
                "the stepper moves weights along the input alone; bounds, and signals of w or x, "
                "need engine='brian2_per_synapse'",
                "stepper",
            )
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with quiet, interrupts.insistent():
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
    inhibition: Array  # (circuit, interneuron)
    past: Array  # (circuit, step, interneuron), the latest last

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
        rate_inh = np.array(state.rate_inh).reshape(batch.shape[0], -1)
        no_past = np.zeros((batch.shape[0], 0, rate_inh.shape[1]))
        self.circuits = _Circuits(
            np.array(batch.w_init),  # arrays of one kind alone: writable, contiguous
            state.weights - batch.w_init,
            state.velocity * self.dt,
            np.array(state.rate, order="C"),
            rate_inh,
            no_past if state.past is None else np.array(state.past),
        )
        # The connections of all neurons alike are one number in the loop.
        self.connections = batch.connections()
        n_circuits, n_neurons, _ = batch.shape
        # SNR of weights, its inverse, and the cosine, which are taken of moments block by block.
        self.measured = np.empty((3, n_circuits, len(batch.record)))
        self.mean_init = batch.w_init.mean(axis=1)[:, np.newaxis]
        self.moments: Array  # of the block that is carried on, mean and variance
        self.rate_trace: Array | None = None
        self.rate_inh_trace: Array | None = None
        if batch.record_rates:
            n_steps = batch.n_presentations * batch.steps
            self.rate_trace = np.empty((n_circuits, n_steps, n_neurons))
            self.rate_inh_trace = np.empty((n_circuits, n_steps, batch.n_interneurons))
        self.euler = Euler(batch, _no_kernel)
        self.kind = _Kind(
            excitatory=portable(batch.dynamics.excitatory),
            interneuron=portable(batch.dynamics.interneuron),
            signal=portable(batch.signal),
            alpha_of_neurons=batch.alpha.ndim == 2,
            tau_of_neurons=batch.tau.ndim == 2,
            noisy=bool(np.any(batch.sigma)),
            connected=batch.to_inh is not None,
            late=bool(batch.delay.any()),
            private=batch.private,
            linear=batch.plasticity.definition.linear,
        )
        self.keys = noise.keys(batch.seeds if self.kind.noisy else ())

    def to_the_end(self, threads: int, progress: Progress | None) -> Outcome:
        """Carry all circuits through all presentations."""
        batch = self.batch
        if 0 in batch.record:
            weights = batch.state.weights
            self._measured(0, np.stack((weights.mean(axis=1), weights.var(axis=1)))[:, :, None])
        n_circuits, _, n_inputs = batch.shape
        n_parts = min(n_circuits, 2 * threads) if threads > 1 else 1
        edges = np.linspace(0, n_circuits, n_parts + 1).astype(int)
        parts = [slice(*pair) for pair in pairwise(edges)]
        at_once = self._presentations_at_once(-(-n_circuits // n_parts))
        with ThreadPoolExecutor(threads) as executor:
            spread: Callable[..., Iterable[Any]] = executor.map if threads > 1 else map
            for start in range(0, batch.n_presentations, at_once):
                stop = min(start + at_once, batch.n_presentations)
                inputs = self._inputs(start, stop)
                first, after = np.searchsorted(batch.record, (start + 1, stop + 1))
                slots = np.full(stop - start, -1)
                slots[batch.record[first:after] - start - 1] = np.arange(after - first)
                self.moments = np.empty((2, n_circuits, after - first, n_inputs))
                if self.ideal:
                    done = batch.state.presentations
                    rates = batch.plasticity.learning_rate.at(done + np.arange(start, stop))
                    self._update(inputs, rates, slots)
                else:
                    rates = self.euler.rates(start, stop)

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
                self._measured(first, self.moments)
                if progress is not None:
                    progress(stop / batch.n_presentations)
        return self._outcome()

    def _measured(self, first: int, moments: Array) -> None:
        """Keep the measures of a block, the first of which has this number."""
        mean, variance = moments
        if not mean.size:  # nothing was recorded in this block
            return
        self.measured[:, :, first : first + mean.shape[1]] = (
            measures.snr_from_moments(mean, variance),
            measures.inverse_snr_from_moments(mean, variance),
            measures.cosine(mean, self.mean_init),
        )

    def _presentations_at_once(self, n_circuits: int) -> int:
        """As many as interrupts, progress and memory allow, of which no number depends."""
        if self.codegen == "numpy" or self.ideal:
            return _BLOCK
        n_neurons, n_inputs = self.batch.shape[1:]
        work = n_circuits * self.batch.steps * (20 + n_neurons * (3 if self.kind.noisy else 1))
        own = self.batch.shape[0] * n_neurons * n_inputs if self.batch.private else 1
        return max(1, min(_LONGEST, _AT_ONCE // work, _NUMBERS // own))

    def _inputs(self, start: int, stop: int) -> Array:
        """Inputs of a block, (presentation, circuit, 1 or neuron, input)."""
        if self.batch.private:
            return self.batch.private_block(start, stop)
        return self.batch.input_block(start, stop)[:, :, np.newaxis]

    # -- rules of the circuit --------------------------------------------------------------------

    def _advance(
        self, part: slice, start: int, inputs: Array, rates: Array, slots: NDArray[np.int64]
    ) -> None:
        """Carry some circuits through a block of presentations."""
        batch = self.batch
        circuits = self.circuits.of(part)
        n = len(inputs)
        momentum = batch.plasticity.per_step(self.dt).momentum
        connections = [weights[part] for weights in self.connections]
        delay = batch.delay[part]
        none = np.empty((len(circuits.w_init), 0, 0))
        traces = none, none
        if self.rate_trace is not None and self.rate_inh_trace is not None:
            traces = self.rate_trace[part], self.rate_inh_trace[part]
        moments = self.moments[:, part]
        if self.codegen == "numba":
            from circuitsim.engines import _stepper_numba

            two = (v[part].reshape(len(delay), -1) for v in (batch.alpha, batch.tau))
            of_circuits = (batch.b, batch.tau_inh, batch.b_inh, batch.sigma, batch.gamma)
            to_inh, from_inh = connections
            _stepper_numba.advance(
                _compiled(self.kind),
                *(getattr(circuits, name) for name in _Circuits.__dataclass_fields__),
                delay,
                np.ascontiguousarray(to_inh),
                np.ascontiguousarray(from_inh.swapaxes(1, 2)),
                np.ascontiguousarray(inputs),
                rates,
                self.keys[part],
                start,
                batch.state.presentations,
                *map(np.ascontiguousarray, two),
                np.stack([v[part] for v in of_circuits], axis=1),
                momentum,
                self.dt,
                slots,
                *moments,
                *traces,
            )
            return
        parameters = [v[part] for v in (batch.alpha, batch.tau, batch.b, batch.tau_inh)]
        parameters += [batch.b_inh[part], batch.sigma[part], batch.gamma[part]]
        steps = slice(start * batch.steps, (start + n) * batch.steps)
        drawn = np.empty((len(circuits.w_init), 0, 0, 0))
        if self.kind.noisy:
            numbers = range(*part.indices(batch.shape[0]))
            drawn = np.stack([batch.noise(c, start, start + n) for c in numbers])
        _numpy_block(
            self.kind, circuits, inputs, rates.T, drawn, parameters, connections, delay, momentum,
            self.dt, slots, moments, (traces[0][:, steps], traces[1][:, steps]),
        )  # fmt: skip

    # -- rules that make one update a presentation -----------------------------------------------

    def _update(self, inputs: Array, rates: Array, slots: NDArray[np.int64]) -> None:
        circuits, batch = self.circuits, self.batch
        gamma = batch.gamma[:, np.newaxis, np.newaxis]
        text = portable(batch.plasticity.definition.signal)
        for x, rate, slot in zip(inputs, rates, slots, strict=True):
            weights = circuits.w_init + circuits.moved
            z = (weights * x).sum(axis=-1)
            values: dict[str, object] = {"z": z, "z_mean": z.mean(axis=-1, keepdims=True)}
            signal = np.asarray(evaluate(text, values)) * np.ones_like(z)
            circuits.velocity *= batch.plasticity.momentum
            circuits.velocity -= rate * (signal[..., np.newaxis] * x + gamma * circuits.moved)
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
            rate_inh=self._interneurons(circuits.inhibition),
            past=circuits.past if state.past is not None else None,
            presentations=state.presentations + batch.n_presentations,
            elapsed=state.elapsed + batch.n_presentations * batch.presentation,
        )
        snr_w, inverse_snr_w, mean_weight_cosine = self.measured
        outcome = Outcome(
            after,
            snr_w,
            inverse_snr_w,
            mean_weight_cosine,
            self.rate_trace,
            None if self.rate_inh_trace is None else self._interneurons(self.rate_inh_trace),
        )
        outcome.attributes["codegen"] = self.codegen
        return outcome

    def _interneurons(self, values: Array) -> Array:
        """Leave out their dimension where there is one that needs no number."""
        return values if self.batch.to_inh is not None else values[..., 0]


@dataclass(frozen=True)
class _Kind:
    """What a kernel is made for: equations that have been checked, and what differs in them."""

    excitatory: str
    interneuron: str
    signal: str
    alpha_of_neurons: bool
    tau_of_neurons: bool
    noisy: bool
    connected: bool
    late: bool
    private: bool
    linear: LinearSignal | None


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
    kind: _Kind,
    circuits: _Circuits,
    inputs: Array,
    rates: Array,
    noise: Array,
    parameters: list[Array],
    connections: list[Array],
    delay: NDArray[np.int64],
    momentum: float,
    dt: float,
    slots: NDArray[np.int64],
    moments: Array,
    traces: tuple[Array, Array],
) -> None:
    """Carry circuits through a block of presentations, with arrays over circuits and neurons."""
    column = [v if v.ndim == 2 else v[:, np.newaxis] for v in parameters]
    alpha, tau, b, tau_inh, b_inh, sigma, gamma = column
    to_inh, from_inh = connections
    scale = sigma * np.sqrt(2 * dt / tau)
    constants: dict[str, object] = {"alpha": alpha, "tau": tau, "b": b, "b_inh": b_inh}
    # The equation of an interneuron has no tau where neurons differ in it.
    of_pool: dict[str, object] = {"b": b, "b_inh": b_inh, "tau_inh": tau_inh, "tau": tau[:, :1]}
    r = circuits.rate
    line = [*circuits.past.swapaxes(0, 1), circuits.inhibition]  # the present ones are the last
    longest, every = len(line), np.arange(len(r))

    def felt() -> Array:
        now = line[-1] if longest == 1 else np.stack(line[-longest:])[longest - 1 - delay, every]
        if not kind.connected:
            return now
        return (from_inh * now[:, np.newaxis]).sum(axis=-1)

    step = 0
    for number, x in enumerate(inputs):
        y, dx, vx = (
            (weights * x).sum(axis=-1)
            for weights in (circuits.w_init, circuits.moved, circuits.velocity)
        )
        square = (x * x).sum(axis=-1)
        along, pace = np.zeros_like(r), np.zeros_like(r)
        a, c, e, f = (
            np.ones_like(gamma),
            np.zeros_like(gamma),
            np.zeros_like(gamma),
            np.ones_like(gamma),
        )
        r_inh = felt()
        for t, rate in enumerate(rates[number]):
            z = y + a * dx + c * vx + square * along
            change = evaluate(kind.excitatory, {"r": r, "r_inh": r_inh, "z": z} | constants)
            r_mean = (
                (to_inh * r[:, np.newaxis]).sum(axis=-1)
                if kind.connected
                else r.mean(axis=-1, keepdims=True)
            )
            h = line[-1]
            change_inh = evaluate(kind.interneuron, {"r_inh": h, "r_mean": r_mean} | of_pool)
            r = r + dt * np.asarray(change)
            if kind.noisy:
                r = r + scale * noise[:, number, t]
            h = h + dt * np.asarray(change_inh)
            line = [*line[1:], h]
            r_inh = felt()
            values: dict[str, object] = {"r": r, "r_inh": r_inh, "b": b, "b_inh": b_inh}
            signal = np.asarray(evaluate(kind.signal, values))
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
        moved = a * circuits.moved + c * circuits.velocity + along[..., np.newaxis] * x
        circuits.velocity[:] = (
            e * circuits.moved + f * circuits.velocity + pace[..., np.newaxis] * x
        )
        circuits.moved[:] = moved
        _measure(circuits, slots[number], moments)
    circuits.rate[:], circuits.inhibition[:] = r, line[-1]
    for back, values_ in enumerate(reversed(line[:-1]), start=1):
        circuits.past[:, -back] = np.where((back <= delay)[:, np.newaxis], values_, 0.0)


_STEPS = """
def steps(rows, n_neurons, rates, noise, parameters, ring, place, to_inh, from_inh,
          rate_trace, inhibition_trace):
    dt, momentum, gamma = parameters[0], parameters[1], parameters[2]
    alpha, tau, b = parameters[3], parameters[4], parameters[5]
    tau_inh, b_inh, square = parameters[6], parameters[7], parameters[8]
    n_blocks = (n_neurons + LANES - 1)//LANES
    length, n_pools = ring.shape
    newest = place[0]
    present = ring[newest, 0]
    late = late_now = ring[(newest + 1) % length, 0]
    {feel}
    total = 0.0
    for block in range(n_blocks):
        base = np.uint64(block*BLOCK)
        for i in range(np.uint64(min(LANES, n_neurons - block*LANES))):
            total += rows[base + i + RATE]
            {start}
    r_mean = total/n_neurons
    all_moved = all_pace = 0.0
    for t in range(len(rates)):
        learning = rates[t]
        gain, pull = learning*square, learning*gamma
        {pools}
        total = 0.0
        for block in range(n_blocks):
            base = np.uint64(block*BLOCK)
            drawn = np.uint64(t*n_neurons + block*LANES)
            for i in range(np.uint64(min(LANES, n_neurons - block*LANES))):
                at = base + i
                r = rows[at + RATE]
                moved = rows[at + MOVED]
                z = rows[at + DRIVE] + moved + {square}*all_moved
                r = r + dt*({excitatory}){noise}
                rows[at + RATE] = r
                total += r
                pace = momentum*rows[at + PACE] - ({gain}*({signal}) + pull*moved)
                rows[at + PACE] = pace
                rows[at + MOVED] = moved + pace
                {shift}
        r_mean = total/n_neurons
        all_pace = momentum*all_pace - learning*({common} + gamma*all_moved)
        all_moved = all_moved + all_pace
        late = late_now
        if len(rate_trace):
            for number in range(n_neurons):
                rate_trace[t, number] = rows[number//LANES*BLOCK + number % LANES]
            for m in range(n_pools):
                inhibition_trace[t, m] = ring[newest, m]
    place[0] = newest
    for block in range(n_blocks):
        base = np.uint64(block*BLOCK)
        for i in range(np.uint64(min(LANES, n_neurons - block*LANES))):
            at = base + i
            rows[at + MOVED] += {square}*all_moved
            rows[at + PACE] += {square}*all_pace
"""

# Pieces of it. One interneuron is a number, which may be felt later.
_ONE = {
    "feel": "",
    "start": "",
    "pools": """
        r_inh = present
        present = r_inh + dt*({interneuron})
        newest = newest + 1 if newest + 1 < length else 0
        ring[newest, 0] = present
        late_now = ring[newest + 1 if newest + 1 < length else 0, 0]""",
    "shift": "",
}
_FEEL = """
{indent}oldest = (newest + 1) % length
{indent}for block in range(n_blocks):
{indent}    base = np.uint64(block*BLOCK)
{indent}    n = np.uint64(min(LANES, n_neurons - block*LANES))
{indent}    for i in range(n):
{indent}        rows[base + i + FELT_NOW] = 0.0
{indent}    for m in range(n_pools):
{indent}        felt = ring[oldest, m]
{indent}        for i in range(n):
{indent}            rows[base + i + FELT_NOW] += from_inh[m, np.uint64(block*LANES) + i]*felt"""
_CONNECTED = {
    "feel": _FEEL.replace("{indent}", "    "),
    "start": "rows[base + i + FELT] = rows[base + i + FELT_NOW]",
    "pools": """
        before = newest
        newest = (newest + 1) % length
        for m in range(n_pools):
            r_mean = 0.0
            for block in range(n_blocks):
                base = np.uint64(block*BLOCK)
                for i in range(np.uint64(min(LANES, n_neurons - block*LANES))):
                    r_mean += to_inh[m, np.uint64(block*LANES) + i]*rows[base + i + RATE]
            r_inh = ring[before, m]
            ring[newest, m] = r_inh + dt*({interneuron})"""
    + _FEEL.replace("{indent}", "        "),
    "shift": "rows[at + FELT] = rows[at + FELT_NOW]",
}


@lru_cache(maxsize=32)
def _compiled(kind: _Kind) -> Any:
    """Compile the steps of some equations, all of which have been checked."""
    import math

    import numba
    from numba import types

    from circuitsim.engines import _stepper_numba

    def substituted(text: str, names: dict[str, str]) -> str:
        return re.sub(r"\w+", lambda match: names.get(match[0], match[0]), text)

    def row(name: str) -> str:
        return f"rows[at + {name.upper()}]"

    one = {"alpha": row("alpha")} if kind.alpha_of_neurons else {}
    one |= {"tau": row("tau")} if kind.tau_of_neurons else {}
    pieces = _CONNECTED if kind.connected else _ONE
    felt, felt_now = (row("felt"), row("felt_now")) if kind.connected else ("late", "late_now")
    pools = pieces["pools"].replace("{interneuron}", kind.interneuron)
    # What a linear signal has alike in all neurons moves them alike: in two numbers of a circuit.
    own, common = substituted(kind.signal, {"r_inh": felt_now}), "0.0"
    if kind.linear is not None and not (kind.connected and kind.linear.common):
        rate, of_inhibition = kind.linear.rate, kind.linear.common
        own = f"({rate!r})*r"
        common = f"(({of_inhibition!r})*(late_now - b_inh) - ({rate!r})*b)"
    source = _STEPS.format(
        **(pieces | {"pools": pools}),
        excitatory=substituted(kind.excitatory, one | {"r_inh": felt}),
        signal=own,
        noise=f" + {row('scale')}*noise[drawn + i]" if kind.noisy else "",
        square=row("square") if kind.private else "square",
        gain=f"learning*{row('square')}" if kind.private else "gain",
        common=common,
    )
    # Sums may be reordered and quotients be products: infinities and NaN stay what they are.
    options = {
        "nogil": True,
        "fastmath": {"contract", "nsz", "reassoc", "arcp"},
        "error_model": "numpy",
    }
    scope: dict[str, Any] = {"np": np, "inf": np.inf, "LANES": _stepper_numba.LANES}
    scope |= {"BLOCK": _stepper_numba.BLOCK}
    scope |= {name.upper(): place for name, place in _stepper_numba.ROW.items()}
    for name in ("arctan", "cos", "exp", "log", "sin", "sqrt", "tanh"):
        scope[name] = getattr(math, "atan" if name == "arctan" else name)
    scope["clip"] = numba.njit(_clip, **options)
    scope["sign"] = numba.njit(_sign, **options)
    exec(source, scope)
    line, table = types.float64[::1], types.float64[:, ::1]
    signature = types.void(
        line, types.int64, line, line, line, table, types.int64[::1], table, table, table, table
    )
    return numba.cfunc(signature, **options)(scope["steps"])


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _sign(value: float) -> float:
    return 1.0 if value > 0 else (-1.0 if value < 0 else 0.0)
