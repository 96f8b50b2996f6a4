"""The circuit as a Brian2 network.

Three networks, all for a whole batch of circuits at once:

* `_per_synapse`: the definition. Every synapse has its weight and its momentum, and both change at
  every step.
* `_reduced`: the same numbers at a cost that grows with the number of neurons, not of synapses; see
  the second half of `circuitsim.equations`.
* `_ideal`: rules that make one update a presentation, without a circuit.

Order within a step (Brian2 sorts by ``when``, then ``order``, then name): at the first step of a
presentation the synapses follow what the last one did (start, 0), accumulators are reset (start,
1), the next pattern is shown (start, 2) and the weights' moments and projections are summed
(groups, -21 and -13; a summed variable comes one before its target). At every step the mean rate is
summed from the old rates (groups, -5), r and then r_inh advance from the old values (groups, -2
and 0), and the plasticity uses the new rates (synapses).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from brian2 import (
    Clock,
    Network,
    NeuronGroup,
    StateMonitor,
    Synapses,
    TimedArray,
    linked_var,
    second,
)

from circuitsim import equations
from circuitsim.engines.spec import MILLI, NetworkSpec


@dataclass
class BuiltNetwork:
    """A Brian2 network with the names of what goes in and comes out, as ``"group.variable"``."""

    network: Network
    duration: Any
    groups: dict[str, Any]
    results: tuple[str, ...]


def build(spec: NetworkSpec) -> BuiltNetwork:
    """Make the network of a spec on whatever Brian2 device is active."""
    return _Builder(spec).build()


class _Builder:
    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.step = Clock(spec.dt * MILLI * second, name="step_clock")
        self.tick = Clock(spec.steps * spec.dt * MILLI * second, name="presentation_clock")
        self.stimulus = TimedArray(
            np.zeros((spec.n_presentations, spec.n_circuits * spec.n_inputs)),
            dt=self.tick.dt,
            name="stimulus",
        )
        # Names that cannot be mistaken for Brian2's own, such as N.
        self.constants = {
            "pool_size": float(spec.n_neurons),
            "presentation_time": self.tick.dt,
            "stimulus": self.stimulus,
        }
        self.circuit_of_neuron = np.repeat(np.arange(spec.n_circuits), spec.n_neurons)
        self.circuit_of_input = np.repeat(np.arange(spec.n_circuits), spec.n_inputs)

    def build(self) -> BuiltNetwork:
        spec = self.spec
        if spec.per_presentation:
            objects, results = self._ideal()
        elif spec.per_synapse:
            objects, results = self._per_synapse()
        else:
            objects, results = self._reduced()
        inputs = objects[0]
        objects.append(
            StateMonitor(
                inputs,
                ["w_mean", "w_var"],
                record=True,
                clock=self.tick,
                when="end",
                name="moments",
            )
        )
        results += ["moments.w_mean", "moments.w_var"]
        if spec.record_rates:
            excitatory, interneuron = objects[1], objects[2]
            for name, group, variable in (
                ("rate_trace", excitatory, "r"),
                ("rate_inh_trace", interneuron, "r_inh"),
            ):
                objects.append(
                    StateMonitor(
                        group, variable, record=True, clock=self.step, when="end", name=name
                    )
                )
                results.append(f"{name}.{variable}")
        groups = {item.name: item for item in objects}
        groups["stimulus"] = self.stimulus
        duration = spec.n_presentations * spec.steps * spec.dt * MILLI * second
        return BuiltNetwork(Network(objects), duration, groups, tuple(results))

    # -- the pieces ------------------------------------------------------------------------------

    def _inputs(self, more: str = "") -> NeuronGroup:
        """Inputs of all circuits, one after another; they also hold their weights' moments."""
        inputs = NeuronGroup(
            self.spec.n_circuits * self.spec.n_inputs,
            "x : 1\nw_mean : 1\nw_var : 1" + more,
            clock=self.tick,
            order=-20,
            name="inputs",
            namespace=self.constants,
        )
        inputs.run_regularly(
            "x = stimulus(t, i)", clock=self.tick, when="start", order=2, name="show_pattern"
        )
        return inputs

    def _neurons(self, model: str, clock: Clock, **options: Any) -> NeuronGroup:
        """Excitatory neurons of all circuits, one pool after another, with their parameters."""
        constants = "\n".join(
            f"{name} : {unit} (shared, constant)" for name, unit in self.spec.rate_constants
        )
        return NeuronGroup(
            self.spec.n_circuits * self.spec.n_neurons,
            f"""{model}
            gamma : 1 (constant)
            momentum : 1 (shared, constant)
            rate = rate_factor*{self.spec.rate} : 1 (shared)
            rate_factor : 1 (shared, constant)
            elapsed = t + time_before : second (shared)
            time_before : second (shared, constant)
            presented = floor(t/presentation_time + 0.5) + presented_before : 1 (shared)
            presented_before : 1 (shared, constant)
            {constants}
            """,
            clock=clock,
            name="excitatory",
            namespace=self.constants,
            **options,
        )

    def _pool(self, variable: str, clock: Clock, order: int) -> NeuronGroup:
        """One unit for each pool that holds a mean over it, summed just before ``order``."""
        return NeuronGroup(
            self.spec.n_circuits, f"{variable} : 1", clock=clock, order=order, name="pool"
        )

    def _averaging(self, excitatory: NeuronGroup, pool: NeuronGroup, mean: str) -> Synapses:
        averaging = Synapses(excitatory, pool, mean, name="averaging", namespace=self.constants)
        averaging.connect(j=f"i//{self.spec.n_neurons}")
        return averaging

    def _circuit(self, drive: str) -> list[Any]:
        """Excitatory neurons, interneurons, and what averages the rates of each pool."""
        excitatory = self._neurons(
            f"""
            dr/dt = {self.spec.excitatory} : 1
            {drive}
            alpha : 1 (constant)
            b : 1 (constant)
            tau : second (constant)
            r_inh : 1 (linked)
            """,
            self.step,
            method="euler",
            order=-2,
        )
        decay_factors = "dev_kept : 1\ndev_from_m : 1\nm_from_dev : 1\nm_kept : 1"
        interneuron = NeuronGroup(
            self.spec.n_circuits,
            f"""
            dr_inh/dt = {self.spec.interneuron} : 1
            r_mean : 1 (linked)
            b : 1 (constant)
            tau : second (constant)
            tau_inh : second (constant)
            gamma : 1 (constant)
            momentum : 1 (linked)
            rate : 1 (linked)
            {"" if self.spec.per_synapse else decay_factors}
            """,
            method="euler",
            clock=self.step,
            order=0,
            name="interneuron",
            namespace=self.constants,
        )
        excitatory.r_inh = linked_var(interneuron, "r_inh", index=self.circuit_of_neuron)
        interneuron.momentum = linked_var(excitatory, "momentum")
        interneuron.rate = linked_var(excitatory, "rate")
        pool = self._pool("r_mean", self.step, order=-4)
        interneuron.r_mean = linked_var(pool, "r_mean")
        averaging = self._averaging(excitatory, pool, equations.MEAN_RATE)
        return [excitatory, interneuron, pool, averaging]

    def _feedforward(self, inputs: NeuronGroup, target: NeuronGroup, model: str) -> Synapses:
        """Synapses from every input of a circuit to every neuron of its pool."""
        synapses = Synapses(
            inputs,
            target,
            f"{model}\n{equations.MOMENTS}",
            clock=self.tick,
            name="feedforward",
            namespace=self.constants,
        )
        n, k = self.spec.n_neurons, self.spec.n_inputs
        synapses.connect(j=f"post for post in range((i//{k})*{n}, (i//{k} + 1)*{n})")
        return synapses

    # -- the networks ----------------------------------------------------------------------------

    def _per_synapse(self) -> tuple[list[Any], list[str]]:
        inputs = self._inputs()
        circuit = self._circuit("z : 1\nsignal : 1")
        feedforward = self._plastic(inputs, circuit[0], self.step)
        results = ["feedforward.w", "feedforward.m", "excitatory.r", "interneuron.r_inh"]
        return [inputs, *circuit, feedforward], results

    def _ideal(self) -> tuple[list[Any], list[str]]:
        inputs = self._inputs()
        excitatory = self._neurons("z : 1\nz_mean : 1 (linked)\nsignal : 1", self.tick, order=-10)
        pool = self._pool("z_mean", self.tick, order=-8)
        excitatory.z_mean = linked_var(pool, "z_mean", index=self.circuit_of_neuron)
        averaging = self._averaging(excitatory, pool, equations.MEAN_DRIVE)
        feedforward = self._plastic(inputs, excitatory, self.tick)
        return [inputs, excitatory, pool, averaging, feedforward], [
            "feedforward.w",
            "feedforward.m",
        ]

    def _plastic(self, inputs: NeuronGroup, excitatory: NeuronGroup, clock: Clock) -> Synapses:
        """Feedforward synapses that drive the neurons and learn at every tick of ``clock``."""
        feedforward = self._feedforward(
            inputs, excitatory, f"w : 1\nw_init : 1\nm : 1\n{equations.DRIVE}"
        )
        excitatory.run_regularly(
            f"signal = {self.spec.signal}", clock=clock, when="synapses", order=0, name="judge"
        )
        feedforward.run_regularly(
            equations.LEARN, clock=clock, when="synapses", order=1, name="learn"
        )
        return feedforward

    def _reduced(self) -> tuple[list[Any], list[str]]:
        factors = ("dev_kept", "dev_from_m", "m_from_dev", "m_kept")
        circuit = self._circuit(
            f"""
            {equations.DRIVE_WITHIN_PRESENTATION}
            moved : 1
            moving : 1
            z_init : 1 (linked)
            z_dev : 1 (linked)
            z_m : 1 (linked)
            x_squared : 1 (linked)
            dev_kept : 1 (linked)
            dev_from_m : 1 (linked)
            """
        )
        excitatory, interneuron = circuit[:2]
        # Synapses cannot read linked variables with an index: the inputs copy the factors.
        inputs = self._inputs("\n" + "\n".join(f"{f} : 1\nfinal_{f} : 1 (linked)" for f in factors))
        for factor in factors:
            source = linked_var(interneuron, factor, index=self.circuit_of_input)
            setattr(inputs, f"final_{factor}", source)
        inputs.run_regularly(
            "\n".join(f"{f} = final_{f}" for f in factors),
            clock=self.tick,
            when="start",
            order=-1,
            name="hand_over",
        )

        # A summed variable follows its target's clock: the projections of the weights on the
        # pattern, once a presentation, need neurons of their own.
        dendrites = NeuronGroup(
            self.spec.n_circuits * self.spec.n_neurons,
            """
            z_init : 1
            z_dev : 1
            z_m : 1
            moved : 1 (linked)
            moving : 1 (linked)
            """,
            clock=self.tick,
            order=-12,
            name="dendrites",
        )
        dendrites.moved = linked_var(excitatory, "moved")
        dendrites.moving = linked_var(excitatory, "moving")
        for variable in ("z_init", "z_dev", "z_m"):
            setattr(excitatory, variable, linked_var(dendrites, variable))
        patterns = NeuronGroup(
            self.spec.n_circuits, "x_squared : 1", clock=self.tick, order=-12, name="patterns"
        )
        norm = Synapses(inputs, patterns, equations.NORM, name="norm")
        norm.connect(j=f"i//{self.spec.n_inputs}")
        excitatory.x_squared = linked_var(patterns, "x_squared", index=self.circuit_of_neuron)
        for factor in ("dev_kept", "dev_from_m"):
            source = linked_var(interneuron, factor, index=self.circuit_of_neuron)
            setattr(excitatory, factor, source)

        feedforward = self._feedforward(
            inputs,
            dendrites,
            f"w_init : 1\ndev : 1\nm : 1\nw = w_init + dev : 1\n{equations.PROJECTIONS}",
        )
        feedforward.run_regularly(
            equations.CONSOLIDATE, clock=self.tick, when="start", order=0, name="consolidate"
        )
        excitatory.run_regularly(
            "moved = 0\nmoving = 0", clock=self.tick, when="start", order=1, name="reset_movement"
        )
        interneuron.run_regularly(
            "dev_kept = 1\ndev_from_m = 0\nm_from_dev = 0\nm_kept = 1",
            clock=self.tick,
            when="start",
            order=1,
            name="reset_decay",
        )
        excitatory.run_regularly(
            equations.LEARN_ALONG_INPUT.format(signal=f"({self.spec.signal})"),
            clock=self.step,
            when="synapses",
            name="learn",
        )
        interneuron.run_regularly(equations.DECAY, clock=self.step, when="synapses", name="decay")
        objects = [inputs, *circuit, dendrites, patterns, norm, feedforward]
        results = ["feedforward.dev", "feedforward.m", "excitatory.r", "interneuron.r_inh"]
        results += ["excitatory.moved", "excitatory.moving", "inputs.x"]
        results += [f"interneuron.{factor}" for factor in factors]
        return objects, results
