"""What determines the code of a Brian2 network: plain data, made without Brian2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circuitsim.checks.values import is_time
from circuitsim.engines.batch import Batch
from circuitsim.expressions import portable

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
    n_interneurons: int = (
        0  # of a circuit; 0 for one that all neurons share alike, and feel at once
    )
    delays: tuple[int, ...] = ()  # steps, of each circuit, where there are interneurons
    noisy: bool = False
    private: bool = False
    clipped: bool = False
    synaptic: bool = False  # whether the signal has w or x

    @property
    def pools(self) -> int:
        """Units for what is averaged over a pool: one for each interneuron."""
        return max(self.n_interneurons, 1)

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> NetworkSpec:
        """Return the spec that JSON has made lists of."""
        fields["rate_constants"] = tuple(tuple(pair) for pair in fields["rate_constants"])
        return cls(**(fields | {"delays": tuple(fields["delays"])}))

    @classmethod
    def of(cls, batch: Batch, n_presentations: int, per_synapse: bool) -> NetworkSpec:
        """Spec of the network that runs some presentations of a batch."""
        rule, learning_rate = batch.plasticity.definition, batch.plasticity.learning_rate
        n_circuits, n_neurons, n_inputs = batch.shape
        # Durations do not matter to ideal rules: one millisecond for each of their updates.
        steps, dt = (1, 1.0) if rule.per_presentation else (batch.steps, batch.dt)
        assert dt is not None  # the engine refuses continuous time
        apart = batch.to_inh is not None or bool(batch.delay.any())
        return cls(
            excitatory=portable(batch.dynamics.excitatory),
            interneuron=portable(batch.dynamics.interneuron),
            signal=portable(batch.signal),
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
            n_interneurons=batch.n_interneurons if apart else 0,
            delays=tuple(batch.delay.tolist()) if apart else (),
            noisy=bool(batch.sigma.any()) and not rule.per_presentation,
            private=batch.private,
            clipped=batch.plasticity.bounds is not None,
            synaptic=rule.per_synapse,
        )
