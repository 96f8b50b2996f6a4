"""What determines the code of a Brian2 network: plain data, made without Brian2."""

from __future__ import annotations

from dataclasses import dataclass

from circuitsim.engines.batch import Batch
from circuitsim.expressions import portable
from circuitsim.values import is_time

MILLI = 1e-3


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that determines a network's code: its equations and its sizes.

    Values of parameters are not part of it: they are set before each run. Plain types only, so
    that it can be written to JSON.
    """

    excitatory: str
    interneuron: str
    signal: str
    per_presentation: bool
    rate: str
    rate_constants: tuple[tuple[str, str], ...]  # name and unit of each
    per_synapse: bool
    n_circuits: int
    n_neurons: int
    n_inputs: int
    n_presentations: int
    steps: int
    dt: float  # ms
    record_rates: bool

    @classmethod
    def of(cls, batch: Batch, n_presentations: int, per_synapse: bool) -> NetworkSpec:
        """Spec of the network that runs some presentations of a batch."""
        rule, learning_rate = batch.plasticity.definition, batch.plasticity.learning_rate
        n_circuits, n_neurons, n_inputs = batch.shape
        # Durations do not matter to ideal rules: one millisecond for each of their updates.
        steps, dt = (1, 1.0) if rule.per_presentation else (batch.steps, batch.dt)
        assert dt is not None  # the engine refuses continuous time
        return cls(
            excitatory=portable(batch.dynamics.excitatory),
            interneuron=portable(batch.dynamics.interneuron),
            signal=portable(rule.signal),
            per_presentation=rule.per_presentation,
            rate=learning_rate.expression,
            rate_constants=tuple(
                (name, "second" if is_time(value) else "1")
                for name, value in learning_rate.constants.items()
            ),
            per_synapse=per_synapse or rule.per_presentation,
            n_circuits=n_circuits,
            n_neurons=n_neurons,
            n_inputs=n_inputs,
            n_presentations=n_presentations,
            steps=steps,
            dt=dt,
            record_rates=batch.record_rates,
        )
