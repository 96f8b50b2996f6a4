"""The exact propagator: the numbers of the step-by-step scheme without its steps.

For a linear circuit a whole presentation is one small matrix (`circuitsim.engines.coefficients`),
and a pool of any size is as many rows as it has inputs (`circuitsim.engines.rows`). What remains is
a rank-one change of those rows in each presentation. It performs the arithmetic of the published
scheme in another order, so that its numbers agree with that scheme's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from circuitsim import measures, processwide
from circuitsim.checks import interrupts
from circuitsim.checks.validation import ParameterError, integer, one_of
from circuitsim.dynamics import Slopes
from circuitsim.engines import _kernels_numpy, blocks
from circuitsim.engines.batch import Array, Batch, Engine, Outcome, Progress
from circuitsim.engines.coefficients import Coefficients, Dynamics
from circuitsim.engines.continuous import Continuous
from circuitsim.engines.rows import Pool, reduced
from circuitsim.engines.schemes import Euler, Scheme, Updates
from circuitsim.engines.traces import RateTraces
from circuitsim.rules import LinearSignal, Rule
from circuitsim.schedules import ConstantRate

_NUMBERS = 2**17  # how many inputs, learning rates or rates of a circuit are held at a time


class Propagator(Engine):
    """Engine for circuits and rules that are linear.

    Parameters
    ----------
    codegen : str
        ``"numba"`` for compiled loops, ``"numpy"``, or ``"auto"``: Numba where it is installed.
        Their numbers agree to rounding. Rates after every step are always rebuilt by NumPy.
    threads : int
        Number of threads that share the circuits of a batch; >= 1.

    Raises
    ------
    ParameterError
        If codegen is none of these, or is ``"numba"`` where that is not installed.
    """

    codegens: ClassVar[tuple[str, ...]] = ("auto", "numba", "numpy")
    exact: ClassVar[bool] = True
    threads: bool = True

    def __init__(self, codegen: str = "auto", threads: int = 1) -> None:
        one_of("codegen", codegen, self.codegens)
        self._kernels = _kernels(codegen)
        self.codegen = "numpy" if self._kernels is _kernels_numpy else "numba"
        # Small NumPy operations of several threads would wait for each other most of the time.
        self.threads = self.codegen == "numba"
        self._threads = integer("threads", threads, minimum=1)

    @classmethod
    def check_rule(cls, rule: Rule) -> None:
        """Raise `ParameterError` for a rule that is not linear in the rates."""
        _signal(rule)

    def run(self, batch: Batch, progress: Progress | None = None) -> Outcome:
        """Run a batch.

        Parameters
        ----------
        batch : Batch
            What to run; it is not changed.
        progress : callable, optional
            Called with the fraction done.

        Raises
        ------
        ParameterError
            If the rule is not linear in the rates, or if rates are to be recorded after every step
            in continuous time.
        """
        if batch.record_rates and batch.dt is None:
            raise ParameterError(
                "record_rates", "records after every step, and dt=None has none; give a dt", True
            )
        _check_circuit(batch)
        kernels = _kernels_numpy if batch.record_rates else self._kernels
        with processwide.one_blas_thread(), _overflowing(), interrupts.insistent():
            scheme = _scheme(batch, kernels)
            pool = reduced(batch, scheme.step, batch.plasticity.momentum > 0)
            before = pool.deviations.moved.copy(), pool.mean.moved.copy()
            run = _Run(batch, kernels, scheme, pool)
            run.to_the_end(self._threads, progress)
            return run.outcome(*before)

    def propagate(self, batch: Batch, pool: Pool) -> None:
        """Carry rows of any kind through the inputs of a batch, in place.

        Parameters
        ----------
        batch : Batch
            Its state and what it records do not matter.
        pool : Pool
            May have any number of rows that evolve like the mean.

        Raises
        ------
        ParameterError
            As `run`.
        """
        with processwide.one_blas_thread(), _overflowing(), interrupts.insistent():
            scheme = _scheme(batch, self._kernels)
            run = _Run(replace(batch, record=batch.record[:0]), self._kernels, scheme, pool)
            frame = run.frame() if batch.shape[2] >= blocks.LEAST else None
            if frame is not None:
                run.blocks = blocks.Blocks(self._kernels, pool, frame)
            run.to_the_end(self._threads)
            if run.blocks is not None:
                run.blocks.finish()

    def pilot(self, n_presentations: int) -> tuple[int, int]:
        """A short run, made twice: compiling may come first."""
        return (min(500, n_presentations),) * 2


def _kernels(codegen: str) -> ModuleType:
    if codegen == "numpy":
        return _kernels_numpy
    try:
        import numba  # noqa: F401
    except ImportError:
        if codegen == "auto":
            return _kernels_numpy
        raise ParameterError(
            "codegen",
            "needs Numba, which is not installed; use codegen='numpy', or "
            "`pip install circuitsim[compiled]`",
            codegen,
        ) from None
    from circuitsim.engines import _kernels_numba

    return _kernels_numba


def _overflowing() -> AbstractContextManager[Any]:
    # Weights that diverge are told of once, by `simulate`. Every thread needs this anew.
    return np.errstate(over="ignore", invalid="ignore")


class _Run:
    """One batch on its way.

    Parameters
    ----------
    batch : Batch
    kernels : module
        `_kernels_numpy` or `_kernels_numba`.
    scheme : Scheme
        How time advances.
    pool : Pool
        The state of the batch, which changes as it is carried on.
    """

    def __init__(self, batch: Batch, kernels: ModuleType, scheme: Scheme, pool: Pool) -> None:
        self.batch = batch
        self.kernels = kernels
        self.scheme = scheme
        self.pool = pool
        self.blocks: blocks.Blocks | None = None  # which carry the pool on, if they can
        n_circuits = batch.shape[0]

        # Circuits that see the same inputs with the same parameters share their coefficients.
        slopes = batch.dynamics.slopes(batch.alpha, batch.tau, batch.tau_inh)
        parameters = np.stack([*slopes, batch.gamma])
        self.inputs_shared = len(batch.inputs.shape) == 2
        self.which = np.arange(n_circuits)
        if self.inputs_shared:
            parameters, which = np.unique(parameters, axis=1, return_inverse=True)
            self.which = which.reshape(n_circuits)
        *by, gamma = parameters
        self.dynamics = Dynamics(_signal(batch.plasticity.definition), Slopes(*by), gamma)

        at_once = kernels.circuits_at_once(*pool.deviations.init.shape)
        self.traces = None
        if batch.record_rates:
            self.traces = RateTraces(batch, pool, self.which)
            at_once = n_circuits
        self.chunks = _slices(n_circuits, at_once)
        self.parameter_chunks = _slices(parameters.shape[1], at_once)
        shape = (n_circuits, len(batch.record))
        self.measured = [np.empty(shape) for _ in range(3)]
        self.mean_init = pool.mean.init[:, 0]

    def to_the_end(self, threads: int, progress: Progress | None = None) -> None:
        """Carry the pool through all presentations."""
        batch, pool = self.batch, self.pool
        if 0 in batch.record:
            weights = pool.deviations.init + pool.deviations.moved
            self._measure(
                slice(None),
                slice(0, 1),
                (self.mean_init + pool.mean.moved[:, 0])[np.newaxis],
                np.square(weights).sum(axis=1)[np.newaxis],
            )
        with ThreadPoolExecutor(threads) as executor:
            spread = executor.map if threads > 1 else map
            for block in _slices(batch.n_presentations, self._presentations_at_once()):
                self._advance(block, spread)
                if progress is not None:
                    progress(block.stop / batch.n_presentations)

    def frame(self) -> blocks.Frame | None:
        """In which rows are carried on by blocks, if one frame serves all presentations."""
        if not isinstance(self.batch.plasticity.learning_rate, ConstantRate):
            return None
        # Learning may begin within the first presentation, in which nothing has moved yet.
        rates = self.scheme.rates(1, 2)
        silence = np.zeros((self.dynamics.gamma.size, 1))
        weights = self.scheme.coefficients(rates, silence, self.dynamics).weights
        return blocks.Frame.of(weights[self.which, 0])

    def _presentations_at_once(self) -> int:
        """As many as memory allows, whatever other circuits there are in the batch.

        Compiled sums are grouped in another way at the start of a block, and a circuit's numbers
        must not depend on its company. A power of two, as sources draw inputs in such blocks.
        """
        batch = self.batch
        numbers = max(batch.steps, batch.shape[2])
        if batch.record_rates:
            numbers = batch.steps * batch.shape[1]
        return 1 << (max(1, _NUMBERS // numbers).bit_length() - 1)

    def _advance(self, block: slice, spread: Callable[..., Iterable[Any]]) -> None:
        """Carry all circuits through a block of presentations."""
        batch = self.batch
        inputs = batch.input_block(block.start, block.stop)
        seen = inputs[:, :1] if self.inputs_shared else inputs
        square = np.einsum("pcj,pcj->cp", seen, seen)
        square = np.broadcast_to(square, (self.dynamics.gamma.size, len(inputs)))
        rates = self.scheme.rates(block.start, block.stop)
        traces = self.traces
        watch_steps = {} if traces is None else {"after_step": traces.after_step}
        watch_starts = {} if traces is None else {"before": traces.before_presentation}

        def coefficients_of(chunk: slice) -> Coefficients:
            with _overflowing():
                dynamics = self.dynamics.of_circuits(chunk)
                return self.scheme.coefficients(rates, square[chunk], dynamics, **watch_steps)

        common: Coefficients | None = None
        if self.inputs_shared:
            common = Coefficients.joined(spread(coefficients_of, self.parameter_chunks))

        # Where in `measured` the presentations of this block are, and where in the block.
        first, last = np.searchsorted(batch.record, [block.start, block.stop], side="right")
        slots = np.full(len(inputs), -1)
        slots[batch.record[first:last] - block.start - 1] = np.arange(last - first)

        def advance(chunk: slice) -> None:
            coefficients = (
                coefficients_of(chunk) if common is None else common.of_circuits(self.which[chunk])
            )
            with _overflowing():
                if self.blocks is not None:
                    self.blocks.advance(chunk, inputs[:, chunk], coefficients)
                    return
                moments = self.kernels.advance(
                    self.pool.deviations.of_circuits(chunk),
                    self.pool.mean.of_circuits(chunk),
                    inputs[:, chunk],
                    coefficients,
                    slots,
                    **watch_starts,
                )
                self._measure(chunk, slice(first, last), *moments)

        for _ in spread(advance, self.chunks):  # asking for results raises a thread's errors
            pass
        if traces is not None:
            traces.finish_block()

    def _measure(self, chunk: slice, at: slice, mean: Array, squares: Array) -> None:
        """Measure weights by mean and sum of squared deviations, (measurement, circuit, input)."""
        if not mean.size:  # nothing was recorded in this block
            return
        variance = squares / self.batch.shape[1]
        snr_w, inverse_snr_w, mean_weight_cosine = self.measured
        snr_w[chunk, at] = measures.snr_from_moments(mean, variance).T
        inverse_snr_w[chunk, at] = measures.inverse_snr_from_moments(mean, variance).T
        mean_weight_cosine[chunk, at] = measures.cosine(mean, self.mean_init[chunk]).T

    def outcome(self, deviations_before: Array, mean_before: Array) -> Outcome:
        """Return the end, given how far rows had moved from their initial weights at the start."""
        batch, pool, state = self.batch, self.pool, self.batch.state
        after = replace(
            state,
            presentations=state.presentations + batch.n_presentations,
            elapsed=state.elapsed + batch.n_presentations * batch.presentation,
        )
        if batch.n_presentations:
            # Differences, so that weights which do not move stay what they are to the last bit.
            after.weights = pool.neurons(
                pool.deviations.moved - deviations_before, pool.mean.moved - mean_before
            )
            after.weights += state.weights
            after.velocity = pool.neurons(pool.deviations.velocity, pool.mean.velocity)
            after.velocity /= self.scheme.step
            if not batch.plasticity.definition.per_presentation:
                rate = pool.neurons(
                    pool.deviations.rate[..., np.newaxis], pool.mean.rate[..., np.newaxis]
                )
                after.rate = rate[..., 0] + batch.b[:, np.newaxis]
                after.rate_inh = pool.mean.inhibition[:, 0] + batch.rest_inh
        snr_w, inverse_snr_w, mean_weight_cosine = self.measured
        outcome = Outcome(after, snr_w, inverse_snr_w, mean_weight_cosine)
        if self.traces is not None:
            outcome.rate_trace, outcome.rate_inh_trace = self.traces.rate, self.traces.rate_inh
        outcome.attributes["codegen"] = self.kernels.__name__.rpartition("_")[-1]
        return outcome


def _check_circuit(batch: Batch) -> None:
    if batch.plasticity.bounds is not None:
        raise ParameterError(
            "Plasticity.bounds",
            "clipped weights need every synapse at every step; use engine='brian2_per_synapse'",
            batch.plasticity.bounds,
        )
    ideal = batch.plasticity.definition.per_presentation and not batch.private
    if not (batch.solvable or ideal):
        raise ParameterError(
            "engine",
            "the propagator runs linear circuits that rest at their baselines, without noise and "
            "with neurons that are alike and see the same; use engine='stepper'",
            "propagator",
        )


def _signal(rule: Rule) -> LinearSignal:
    if rule.linear is None:
        raise ParameterError(
            "Plasticity.rule",
            f"{rule.name} is not linear in the rates, which the propagator needs; use engine="
            + ("'brian2_per_synapse'" if rule.per_synapse else "'stepper'"),
            rule.signal,
        )
    return rule.linear


def _scheme(batch: Batch, kernels: ModuleType) -> Scheme:
    if batch.plasticity.definition.per_presentation:
        return Updates(batch)
    if batch.dt is None:
        return Continuous(batch)
    return Euler(batch, kernels.euler)


def _slices(length: int, at_once: int) -> list[slice]:
    return [slice(i, min(i + at_once, length)) for i in range(0, length, at_once)]
