"""A layer as one Brian2 network: a sheet of cells, neurons with fields on it, their interneurons.

The plain form, as the first of `circuitsim.engines.network`: every synapse has its weight and its
momentum, and both change at every step (once a presentation, for rules without a circuit).

Within a presentation's first step cells get their drives (start, 0). Lateral connections sum them
over each phase and cells settle (start, 1 and 2); or, where they have a time constant, connections
sum what cells show and cells make their step when all others have made theirs (end). The rest is in
the order of `circuitsim.engines.network`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from brian2 import Clock, Network, NeuronGroup, Synapses, TimedArray, linked_var, second

from circuitsim import equations
from circuitsim.checks.values import is_time, seconds
from circuitsim.engines.batch import Progress
from circuitsim.engines.runtime import one_session
from circuitsim.engines.spec import MILLI
from circuitsim.engines.wired import Slept, Wired
from circuitsim.expressions import portable


def by_network(wired: Wired, target: str, progress: Progress | None = None) -> Slept:
    """Run a layer as a Brian2 network, with code generated and run in this process.

    Parameters
    ----------
    wired : Wired
        The layer.
    target : str
        ``"numpy"`` or ``"cython"``.
    progress : callable, optional
        Called with the fraction done.
    """
    positions, inputs, channels = wired.w_init.shape
    sheets = np.full((len(wired.record), len(wired.phase)), np.nan)
    with one_session(target):
        net = _Built(wired)
        kept: list[Any] = []
        for first, stop in zip([0, *wired.record[:-1]], wired.record, strict=True):
            if stop > first:
                net.network.run((stop - first) * net.tick.dt)
                sheets[len(kept)] = net.cells.x_
            weights = np.array(net.feedforward.w_).reshape(positions, channels, inputs)
            kept.append(weights.swapaxes(1, 2))
            if progress is not None:
                progress(stop / max(wired.n_presentations, 1))
        if wired.plasticity.definition.per_presentation:
            rate, rate_inh = np.zeros((positions, channels)), np.zeros((net.n_pools, channels))
        else:
            rate = np.array(net.excitatory.r_).reshape(positions, channels)
            rate_inh = np.array(net.interneuron.r_inh_).reshape(-1, channels)
    return Slept(np.array(kept), sheets, rate, rate_inh)


class _Built:
    def __init__(self, wired: Wired) -> None:
        self.wired = wired
        rule = wired.plasticity.definition
        self.ideal = rule.per_presentation
        dt, steps = (1.0, 1) if self.ideal else (wired.dt, wired.steps)
        self.step = Clock(dt * MILLI * second, name="step_clock")
        self.tick = Clock(steps * dt * MILLI * second, name="presentation_clock")
        positions, self.n_inputs, self.n_channels = wired.w_init.shape
        self.n_pools = int(wired.pool.max()) + 1
        # One neuron for each channel of each position, one interneuron for each of each pool.
        channel = np.arange(self.n_channels)
        self.pool = (wired.pool[:, np.newaxis] * self.n_channels + channel).ravel()
        self.sizes = np.repeat(np.bincount(wired.pool), self.n_channels)
        sheet = self._settled_sheet() if wired.tau_sheet is None else self._sheet()
        neurons = self._ideal() if self.ideal else self._circuit()
        self.feedforward = self._fields(self.cells, positions)
        self.excitatory.run_regularly(
            f"signal = {portable(rule.signal)}",
            clock=self.step, when="synapses", order=0, name="judge",
        )  # fmt: skip
        self.feedforward.run_regularly(
            equations.LEARN, clock=self.step, when="synapses", order=1, name="learn"
        )
        self.network = Network([*sheet, *neurons, self.feedforward])

    def _cells(self, model: str, lateral: str, clock: Clock) -> tuple[NeuronGroup, Synapses]:
        """Cells, and what connects those of equal phase."""
        wired = self.wired
        stimulus = TimedArray(
            wired.drives.block(0, wired.n_presentations), dt=self.tick.dt, name="stimulus"
        )
        cells = self.cells = NeuronGroup(
            len(wired.phase),
            f"{model}\ndrive : 1\ngain : 1 (shared, constant)\ncells : 1 (constant)",
            clock=clock, order=-20, name="inputs", namespace={"stimulus": stimulus},
            method="euler",
        )  # fmt: skip
        cells.gain_ = wired.gain
        cells.cells_ = np.bincount(wired.phase)[wired.phase]
        connections = Synapses(cells, cells, lateral, clock=clock, order=-20, name="lateral")
        connections.connect(
            i=np.concatenate([np.flatnonzero(wired.phase == p) for p in wired.phase]),
            j=np.repeat(np.arange(len(wired.phase)), np.bincount(wired.phase)[wired.phase]),
        )
        return cells, connections

    def _sheet(self) -> list[Any]:
        """Cells that approach in time what the others of their phase show."""
        cells, lateral = self._cells(equations.CELL, equations.LATERAL, self.step)
        cells.tau_sheet_ = (self.wired.tau_sheet or 0) * MILLI
        cells.run_regularly(
            "drive = stimulus(t, i)\nx = drive",
            clock=self.tick, when="start", order=0, name="drive_cells",
        )  # fmt: skip
        cells.state_updater.when = "end"
        return [cells, lateral]

    def _settled_sheet(self) -> list[Any]:
        """Cells that are taken as settled."""
        cells, lateral = self._cells("x : 1\ndrive_mean : 1", "", self.tick)
        cells.run_regularly(
            "drive = stimulus(t, i)\ndrive_mean = 0",
            clock=self.tick, when="start", order=0, name="drive_cells",
        )  # fmt: skip
        lateral.run_regularly(
            "drive_mean_post += drive_pre/cells_post",
            clock=self.tick, when="start", order=1, name="connect_cells",
        )  # fmt: skip
        cells.run_regularly(
            "x = drive_mean + (1 - gain)*(drive - drive_mean)",
            clock=self.tick, when="start", order=2, name="settle_cells",
        )  # fmt: skip
        return [cells, lateral]

    def _neurons(self, model: str, **options: Any) -> NeuronGroup:
        plasticity = self.wired.plasticity
        momentum, factor = plasticity.momentum, 1.0
        if not self.ideal:
            momentum, factor = plasticity.per_step(self.wired.dt)
        constants = plasticity.learning_rate.constants
        group = NeuronGroup(
            len(self.pool),
            "\n".join(
                [
                    model,
                    "signal : 1",
                    "gamma : 1 (shared, constant)",
                    "momentum : 1 (shared, constant)",
                    "rate_factor : 1 (shared, constant)",
                    f"rate = rate_factor*{plasticity.learning_rate.expression} : 1 (shared)",
                    "elapsed = t : second (shared)",
                    "presented = floor(t/presentation_time + 0.5) : 1 (shared)",
                    *(
                        f"{name} : {'second' if is_time(value) else '1'} (shared, constant)"
                        for name, value in constants.items()
                    ),
                ]
            ),
            clock=self.step, name="excitatory", namespace={"presentation_time": self.tick.dt},
            **options,
        )  # fmt: skip
        group.gamma_, group.momentum_ = float(np.asarray(plasticity.gamma)), momentum
        group.rate_factor_ = factor
        for name, value in constants.items():
            setattr(group, f"{name}_", float(seconds(value) if is_time(value) else value))
        if "onset" in constants:  # halfway between two steps, whose times are not exact
            first = plasticity.learning_rate.first_step(self.wired.dt)
            group.onset_ = (first - 0.5) * self.wired.dt * MILLI
        return group

    def _pools(self, variable: str, order: int) -> NeuronGroup:
        pools = NeuronGroup(
            len(self.sizes), f"{variable} : 1\npool_size : 1 (constant)",
            clock=self.step, order=order, name="pool",
        )  # fmt: skip
        pools.pool_size_ = self.sizes
        return pools

    def _averaging(self, pools: NeuronGroup, mean: str) -> Synapses:
        """Synapses from the neurons of each pool to what takes their mean."""
        model = mean.replace("pool_size", "pool_size_post")
        averaging = Synapses(self.excitatory, pools, model, name="averaging")
        averaging.connect(i=np.arange(len(self.pool)), j=self.pool)
        return averaging

    def _ideal(self) -> list[Any]:
        self.excitatory = self._neurons("z : 1\nz_mean : 1 (linked)", order=-10)
        pools = self._pools("z_mean", order=-8)
        self.excitatory.z_mean = linked_var(pools, "z_mean", index=self.pool)
        return [self.excitatory, pools, self._averaging(pools, equations.MEAN_DRIVE)]

    def _circuit(self) -> list[Any]:
        circuit = self.wired.circuit
        self.excitatory = self._neurons(
            f"""
            dr/dt = {portable(circuit.dynamics.excitatory)} : 1
            z : 1
            alpha : 1 (shared, constant)
            b : 1 (shared, constant)
            tau : second (shared, constant)
            r_inh : 1 (linked)
            """,
            method="euler", order=-2,
        )  # fmt: skip
        self.interneuron = NeuronGroup(
            len(self.sizes),
            f"""
            dr_inh/dt = {portable(circuit.dynamics.interneuron)} : 1
            r_mean : 1 (linked)
            b : 1 (shared, constant)
            tau : second (shared, constant)
            tau_inh : second (shared, constant)
            """,
            method="euler", clock=self.step, order=0, name="interneuron",
        )  # fmt: skip
        self.excitatory.alpha_ = float(np.asarray(circuit.alpha))
        self.interneuron.tau_inh_ = float(np.asarray(circuit.tau_inh_ms)) * MILLI
        for group in (self.excitatory, self.interneuron):
            group.b_ = float(np.asarray(circuit.b))
            group.tau_ = float(np.asarray(circuit.tau_ms)) * MILLI
        pools = self._pools("r_mean", order=-4)
        self.excitatory.r_inh = linked_var(self.interneuron, "r_inh", index=self.pool)
        self.interneuron.r_mean = linked_var(pools, "r_mean")
        averaging = self._averaging(pools, equations.MEAN_RATE)
        return [self.excitatory, self.interneuron, pools, averaging]

    def _fields(self, cells: NeuronGroup, positions: int) -> Synapses:
        """Synapses from the cells of each neuron's receptive field."""
        feedforward = Synapses(
            cells, self.excitatory, f"w : 1\nw_init : 1\nm : 1\n{equations.DRIVE}",
            clock=self.step, name="feedforward",
        )  # fmt: skip
        seen = np.broadcast_to(
            self.wired.fields[:, np.newaxis], (positions, self.n_channels, self.n_inputs)
        )
        feedforward.connect(i=seen.ravel(), j=np.repeat(np.arange(len(self.pool)), self.n_inputs))
        feedforward.w_ = feedforward.w_init_ = self.wired.w_init.swapaxes(1, 2).ravel()
        return feedforward
