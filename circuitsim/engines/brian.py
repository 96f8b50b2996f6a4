"""The Brian2 engine: a batch run block by block on the network, in any code generation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from circuitsim import measures
from circuitsim.checks.validation import ParameterError, one_of
from circuitsim.checks.values import is_time, seconds
from circuitsim.engines import standalone
from circuitsim.engines.batch import Array, Batch, Engine, Outcome, Progress, State
from circuitsim.engines.spec import MILLI, NetworkSpec
from circuitsim.processwide import load_brian2
from circuitsim.rules import Rule

logger = logging.getLogger("circuitsim")

BLOCK = 500  # presentations in one run of the network: bounds memory, and code serves any length
_LARGEST = 10_000_000  # numbers in an array of all neurons' own inputs or noise

Values = dict[str, Any]


class BrianEngine(Engine):
    """Runs batches on the Brian2 network.

    Parameters
    ----------
    codegen : str
        ``"cpp_standalone"``, ``"cython"`` or ``"numpy"``; ``"auto"`` takes C++ standalone where a
        C++ compiler works and NumPy elsewhere.

    Raises
    ------
    ParameterError
        If ``codegen`` is unknown, or does not work here.
    """

    codegens: ClassVar[tuple[str, ...]] = ("auto", "cpp_standalone", "cython", "numpy")
    per_synapse: ClassVar[bool] = False

    def __init__(self, codegen: str = "auto") -> None:
        one_of("codegen", codegen, self.codegens)
        self.codegen = choose_codegen() if codegen == "auto" else codegen
        if self.codegen == "cython":
            _require_cython()
        if self.codegen == "cpp_standalone" and not standalone.compiler_works():
            raise ParameterError(
                "codegen",
                "C++ standalone needs g++ and make, which do not work here; install them (Debian: "
                "apt install g++ make) or use 'numpy'",
                codegen,
            )

    @classmethod
    def check_rule(cls, rule: Rule) -> None:
        """Any rule can be run."""

    @classmethod
    def stop(cls) -> None:
        """Kill compilers and compiled programs."""
        standalone.kill_all()

    def run(self, batch: Batch, progress: Progress | None = None) -> Outcome:
        """Run a batch.

        Raises
        ------
        ParameterError
            If continuous time is asked for.
        """
        check(batch, self.per_synapse)
        total = batch.n_presentations
        length = self._length(batch)
        state = batch.state
        traces: list[tuple[Array, Array]] = []
        means, variances = [], []
        for first in range(0, total, length):
            stop = min(first + length, total)
            spec, values = prepared(batch, state, first, stop, self.per_synapse)

            def report(fraction: float, first: int = first, n: int = stop - first) -> None:
                if progress is not None:
                    progress((first + fraction * n) / total)

            results = self._execute(spec, values, report)
            state = _state_after(batch, spec, state, values, results)
            wanted = batch.record[(batch.record >= first) & (batch.record < stop)] - first
            shape = (len(wanted), spec.n_circuits, spec.n_inputs)
            means.append(results["moments.w_mean"][wanted].reshape(shape))
            variances.append(results["moments.w_var"][wanted].reshape(shape))
            if batch.record_rates:
                rates = results["rate_trace.r"].reshape(-1, spec.n_circuits, spec.n_neurons)
                of_inh = results["rate_inh_trace.r_inh"]
                traces.append((rates, of_inh.reshape(-1, *state.rate_inh.shape)))
        if batch.record[-1] == total:
            means.append(state.weights.mean(axis=1)[np.newaxis])
            variances.append(state.weights.var(axis=1)[np.newaxis])
        # (circuit, recorded presentation, input)
        mean, variance = (np.concatenate(m).swapaxes(0, 1) for m in (means, variances))
        outcome = Outcome(
            state=state,
            snr_w=measures.snr_from_moments(mean, variance),
            inverse_snr_w=measures.inverse_snr_from_moments(mean, variance),
            mean_weight_cosine=measures.cosine(mean, batch.w_init.mean(axis=1)[:, np.newaxis]),
            attributes={"codegen": self.codegen, "brian2_version": metadata.version("brian2")},
        )
        if batch.record_rates:
            outcome.rate_trace = np.concatenate(
                [t[0] for t in traces] or [np.empty((0, *state.rate.shape))]
            ).swapaxes(0, 1)
            outcome.rate_inh_trace = np.concatenate(
                [t[1] for t in traces] or [np.empty((0, *state.rate_inh.shape))]
            ).swapaxes(0, 1)
        return outcome

    def pilot(self, n_presentations: int) -> tuple[int, int]:
        """One run of the network, made twice, if it is compiled; else two very short ones."""
        if self.codegen == "cpp_standalone":
            return (block_length(n_presentations),) * 2
        return 1, min(10, n_presentations)

    def _length(self, batch: Batch) -> int:
        """Presentations in one run of the network."""
        return block_length(batch.n_presentations, _most(batch))

    def _execute(self, spec: NetworkSpec, values: Values, report: Progress) -> Values:
        if self.codegen == "cpp_standalone":
            return standalone.run(spec, values, report)
        load_brian2()
        from circuitsim.engines import runtime  # Brian2, which compiled programs do not need

        return runtime.run(spec, values, self.codegen, report)


class PerSynapseEngine(BrianEngine):
    """The same on the plain network, in which every synapse is updated at every step."""

    per_synapse: ClassVar[bool] = True


def check(batch: Batch, per_synapse: bool) -> None:
    """Refuse what the network cannot run.

    Raises
    ------
    ParameterError
        If continuous time is asked for, or what synapses do that are updated at every step.
    """
    batch.check_steps("Brian2")
    ideal = batch.plasticity.definition.per_presentation
    if batch.plasticity.per_synapse and not (per_synapse or ideal):
        raise ParameterError(
            "engine",
            "bounds, and signals of w or x, need synapses that change at every step; use "
            "engine='brian2_per_synapse'",
            "brian2",
        )


def prepared(
    batch: Batch, state: State, first: int, stop: int, per_synapse: bool
) -> tuple[NetworkSpec, Values]:
    """Return the network of some presentations, and what to set in it before it runs."""
    spec = NetworkSpec.of(batch, stop - first, per_synapse)
    show = batch.private_block if batch.private else batch.input_block
    values = _values(batch, spec, state, show(first, stop))
    if spec.noisy:
        values["noise.values"] = _noise(batch, first, stop)
    return spec, values


def block_length(n_presentations: int, most: int = BLOCK) -> int:
    """Presentations in one run of the network: a divisor of all of them, if there is a long one.

    Then all blocks are alike, and compiled code serves every one. They are at most ``most``.
    """
    if n_presentations <= most:
        return max(n_presentations, 1)
    divisors = [d for d in range(max(most // 2, 1), most + 1) if n_presentations % d == 0]
    return max(divisors, default=most)


def _most(batch: Batch) -> int:
    """Presentations in a run of the network at most: what is each neuron's own takes memory."""
    n_circuits, n_neurons, n_inputs = batch.shape
    numbers = n_circuits * n_neurons * n_inputs if batch.private else 0
    if batch.sigma.any():
        numbers += n_circuits * n_neurons * batch.steps
    return int(np.clip(_LARGEST // max(numbers, 1), 1, BLOCK))


def _noise(batch: Batch, first: int, stop: int) -> Array:
    """Noise of all neurons over steps, (step, neuron of any circuit)."""
    drawn = [batch.noise(circuit, first, stop) for circuit in range(batch.shape[0])]
    return np.concatenate(drawn, axis=-1).reshape(-1, batch.shape[0] * batch.shape[1])


def choose_codegen() -> str:
    """Return what ``"auto"`` stands for here, and log it in one line."""
    if standalone.compiler_works():
        logger.info("Brian2 code generation: C++ standalone")
        return "cpp_standalone"
    logger.warning(
        "Brian2 code generation: NumPy, tens of times slower, since no C++ compiler works here "
        "(Debian: apt install g++ make)"
    )
    return "numpy"


def _require_cython() -> None:
    try:
        import Cython  # noqa: F401
    except ImportError:
        raise ParameterError(
            "codegen", "Cython is not installed; pip install cython, or use 'numpy'", "cython"
        ) from None


def _values(batch: Batch, spec: NetworkSpec, state: State, inputs: Array) -> Values:
    """What to set before a run of the network, in SI units, by ``"group.variable"``."""
    dt_ms = 1.0 if spec.per_presentation else spec.dt
    momentum, rate_factor = batch.plasticity.momentum, 1.0
    learning_rate = batch.plasticity.learning_rate
    if not spec.per_presentation:
        momentum, rate_factor = batch.plasticity.per_step(spec.dt)
    per_neuron: Callable[[Array], Array] = lambda a: np.repeat(a, spec.n_neurons)  # noqa: E731
    values: Values = {
        # Of each synapse in their order, if inputs are private.
        "stimulus.values": (inputs.swapaxes(2, 3) if spec.private else inputs).reshape(
            spec.n_presentations, -1
        ),
        "feedforward.w_init": _by_synapse(batch.w_init),
        "feedforward.m": _by_synapse(state.velocity * dt_ms),
        "excitatory.gamma": per_neuron(batch.gamma),
        "excitatory.momentum": momentum,
        "excitatory.rate_factor": rate_factor,
        "excitatory.time_before": state.elapsed * MILLI,
        "excitatory.presented_before": float(state.presentations),
    }
    for name, value in learning_rate.constants.items():
        values[f"excitatory.{name}"] = float(seconds(value) if is_time(value) else value)
    if "onset" in learning_rate.constants:
        # Times of steps are not exact: the comparison is moved to halfway between two steps.
        values["excitatory.onset"] = (learning_rate.first_step(spec.dt) - 0.5) * spec.dt * MILLI
    if spec.per_synapse:
        values["feedforward.w"] = _by_synapse(state.weights)
    else:
        values["feedforward.dev"] = _by_synapse(state.weights - batch.w_init)
        values["interneuron.gamma"] = np.repeat(batch.gamma, spec.pools)
        # Nothing to consolidate yet when the first presentation starts.
        values["interneuron.dev_kept"] = values["interneuron.m_kept"] = 1.0
    if spec.clipped:
        assert batch.plasticity.bounds is not None
        values["excitatory.lowest"], values["excitatory.highest"] = batch.plasticity.bounds
    if not spec.per_presentation:
        of_circuit = {
            "b": batch.b,
            "b_inh": batch.b_inh,
            "tau": batch.tau * MILLI,
            "alpha": batch.alpha,
        }
        for name, given in of_circuit.items():
            neurons = given.ndim == 2
            values[f"excitatory.{name}"] = given.ravel() if neurons else per_neuron(given)
            if name != "alpha":  # where neurons differ in tau, the interneuron has another
                one = given[:, 0] if neurons else given
                values[f"interneuron.{name}"] = np.repeat(one, spec.pools)
        values["interneuron.tau_inh"] = np.repeat(batch.tau_inh * MILLI, spec.pools)
        values["excitatory.r"] = state.rate.ravel()
        values["interneuron.r_inh"] = state.rate_inh.ravel()
        if spec.noisy:
            values["excitatory.sigma"] = per_neuron(batch.sigma)
        if spec.n_interneurons:
            values |= _connections(batch, state)
    return values


def _connections(batch: Batch, state: State) -> Values:
    """What connections are set to: their weights, and the rates on their way."""
    to_inh, from_inh = batch.connections()
    now = state.rate_inh.reshape(len(from_inh), -1)
    line, arriving = [], []
    for c, (late, weights) in enumerate(zip(batch.delay, from_inh, strict=True)):
        past = np.empty((0, now.shape[1]))
        if late and state.past is not None:
            past = state.past[c, -late:]
        waiting = np.concatenate([past, now[c : c + 1]])  # (step, interneuron)
        line.append(waiting.T.ravel())
        arriving.append(weights @ waiting[0])
    return {
        "averaging.weight": to_inh.swapaxes(1, 2).ravel(),
        "inhibiting.weight": from_inh.ravel(),
        "line.value": np.concatenate(line),
        "arriving.r_inh": np.concatenate(arriving),
    }


def _past(batch: Batch, before: State, line: Array) -> Array | None:
    """Rates of the interneurons that are still on their way, as `State.past` has them."""
    if before.past is None:
        return None
    past, first = np.zeros_like(before.past), 0
    for of_circuit, late in zip(past, batch.delay, strict=True):
        length = past.shape[2] * (late + 1)
        waiting = line[first : first + length].reshape(-1, late + 1)
        first += length
        if late:
            of_circuit[-late:] = waiting[:, :-1].T
    return past


def _state_after(
    batch: Batch, spec: NetworkSpec, before: State, values: Values, results: Values
) -> State:
    """State at the end of a run of the network."""
    dt_ms = 1.0 if spec.per_presentation else spec.dt
    rate, rate_inh, past = before.rate, before.rate_inh, before.past
    if not spec.per_presentation:
        rate = results["excitatory.r"].reshape(rate.shape)
        rate_inh = results["interneuron.r_inh"].reshape(rate_inh.shape)
        if spec.n_interneurons:
            past = _past(batch, before, results["line.value"])
    if spec.per_synapse:
        weights = _by_neuron(results["feedforward.w"], spec)
        momentum = _by_neuron(results["feedforward.m"], spec)
    else:
        last: Any = values["stimulus.values"][-1]  # (circuit, 1 or neuron, input)
        pattern = (
            _by_neuron(last, spec)
            if spec.private
            else last.reshape(spec.n_circuits, 1, spec.n_inputs)
        )
        deviation, momentum = _consolidated(spec, results, pattern)
        weights = batch.w_init + deviation
    return State(
        weights=weights,
        velocity=momentum / dt_ms,
        rate=rate,
        rate_inh=rate_inh,
        presentations=before.presentations + spec.n_presentations,
        elapsed=before.elapsed + spec.n_presentations * batch.presentation,
        past=past,
    )


def _consolidated(spec: NetworkSpec, results: Values, pattern: Array) -> tuple[Array, Array]:
    """`equations.CONSOLIDATE` after the last presentation, when the network has stopped."""
    deviation = _by_neuron(results["feedforward.dev"], spec)
    momentum = _by_neuron(results["feedforward.m"], spec)
    factor = {
        name: results[f"interneuron.{name}"].reshape(-1, spec.pools, 1)[:, :1]
        for name in ("dev_kept", "dev_from_m", "m_from_dev", "m_kept")
    }
    moved, moving = (
        results[f"excitatory.{name}"].reshape(-1, spec.n_neurons, 1) for name in ("moved", "moving")
    )
    return (
        factor["dev_kept"] * deviation + factor["dev_from_m"] * momentum + moved * pattern,
        factor["m_from_dev"] * deviation + factor["m_kept"] * momentum + moving * pattern,
    )


def _by_synapse(array: Array) -> Array:
    """From (circuit, neuron, input) to the order in which the synapses were made."""
    return np.ascontiguousarray(array.swapaxes(1, 2)).ravel()


def _by_neuron(values: Array, spec: NetworkSpec) -> Array:
    """From the order in which the synapses were made to (circuit, neuron, input)."""
    by_input = values.reshape(spec.n_circuits, spec.n_inputs, spec.n_neurons)
    return np.ascontiguousarray(by_input.swapaxes(1, 2))
