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

import re
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

# Of a standard normal number in each step, so that Euler's step has sigma sqrt(2 dt/tau) times it.
NOISE = "sigma*sqrt(2/tau/dt)*noise(t, i)"


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
        n_inputs = spec.n_circuits * spec.n_inputs * (spec.n_neurons if spec.private else 1)
        self.stimulus = TimedArray(
            np.zeros((spec.n_presentations, n_inputs)), dt=self.tick.dt, name="stimulus"
        )
        # Names that cannot be mistaken for Brian2's own, such as N.
        self.constants = {
            "pool_size": float(spec.n_neurons),
            "presentation_time": self.tick.dt,
            "stimulus": self.stimulus,
        }
        if spec.noisy:
            n_steps, n_neurons = spec.n_presentations * spec.steps, spec.n_circuits * spec.n_neurons
            noise = TimedArray(np.zeros((n_steps, n_neurons)), dt=self.step.dt, name="noise")
            self.constants["noise"] = noise
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
        if spec.noisy:
            groups["noise"] = self.constants["noise"]
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
        if not self.spec.private:  # else synapses have their own
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
            {"lowest : 1 (constant)" if self.spec.clipped else ""}
            {"highest : 1 (constant)" if self.spec.clipped else ""}
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
        """One unit for each mean over a pool, summed just before ``order``."""
        number = self.spec.n_circuits * (self.spec.pools if clock is self.step else 1)
        return NeuronGroup(number, f"{variable} : 1", clock=clock, order=order, name="pool")

    def _averaging(self, excitatory: NeuronGroup, pool: NeuronGroup, mean: str) -> Synapses:
        averaging = Synapses(excitatory, pool, mean, name="averaging", namespace=self.constants)
        averaging.connect(j=f"i//{self.spec.n_neurons}")
        return averaging

    def _circuit(self, drive: str) -> list[Any]:
        """Excitatory neurons, interneurons, and what averages the rates of each pool."""
        excitatory = self._neurons(
            f"""
            dr/dt = {self.spec.excitatory}{" + " + NOISE if self.spec.noisy else ""} : 1
            {drive}
            alpha : 1 (constant)
            b : 1 (constant)
            b_inh : 1 (constant)
            {"sigma : 1 (constant)" if self.spec.noisy else ""}
            tau : second (constant)
            r_inh : 1 (linked)
            """,
            self.step,
            method="euler",
            order=-2,
        )
        decay_factors = "dev_kept : 1\ndev_from_m : 1\nm_from_dev : 1\nm_kept : 1"
        pools = self.spec.pools
        interneuron = NeuronGroup(
            self.spec.n_circuits * pools,
            f"""
            dr_inh/dt = {self.spec.interneuron} : 1
            r_mean : 1 (linked)
            b : 1 (constant)
            b_inh : 1 (constant)
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
        interneuron.momentum = linked_var(excitatory, "momentum")
        interneuron.rate = linked_var(excitatory, "rate")
        pool = self._pool("r_mean", self.step, order=-4)
        interneuron.r_mean = linked_var(pool, "r_mean")
        if not self.spec.n_interneurons:
            excitatory.r_inh = linked_var(interneuron, "r_inh", index=self.circuit_of_neuron)
            averaging = self._averaging(excitatory, pool, equations.MEAN_RATE)
            return [excitatory, interneuron, pool, averaging]
        return [excitatory, interneuron, pool, *self._inhibition(excitatory, interneuron, pool)]

    def _inhibition(
        self, excitatory: NeuronGroup, interneuron: NeuronGroup, pool: NeuronGroup
    ) -> list[Any]:
        """Connections to and from interneurons, whose rates come late.

        Rates wait in a line, one unit for each step from the oldest that is felt to the present
        one. After the interneurons they move up, and what arrives is summed in the same step: rates
        take it in the next step, plasticity in this one.
        """
        spec = self.spec
        n_neurons, pools = spec.n_neurons, spec.pools
        circuits, neurons, units = (
            a.ravel() for a in np.mgrid[: spec.n_circuits, :n_neurons, :pools]
        )
        of_neuron, of_unit = circuits * n_neurons + neurons, circuits * pools + units
        averaging = Synapses(
            excitatory, pool, f"weight : 1 (constant)\n{equations.WEIGHTED_RATE}", name="averaging"
        )
        averaging.connect(i=of_neuron, j=of_unit)

        lengths = np.repeat(np.array(spec.delays) + 1, pools)
        first = np.cumsum(lengths) - lengths
        last = np.zeros(lengths.sum())
        last[first + lengths - 1] = 1
        line = NeuronGroup(
            len(last),
            "value : 1\nbefore : 1\nnewest : 1 (constant)\nnext_one : 1 (linked)\n"
            "present : 1 (linked)",
            clock=self.step, name="line",
        )  # fmt: skip
        line.next_one = linked_var(
            line, "before", index=np.minimum(np.arange(len(last)) + 1, len(last) - 1)
        )
        line.present = linked_var(
            interneuron, "r_inh", index=np.repeat(np.arange(len(lengths)), lengths)
        )
        line.newest = last
        line.run_regularly(
            "before = value", clock=self.step, when="groups", order=1, name="line_moves"
        )
        line.run_regularly(
            "value = newest*present + (1 - newest)*next_one",
            clock=self.step, when="groups", order=2, name="line_moved",
        )  # fmt: skip
        arriving = NeuronGroup(len(self.circuit_of_neuron), "r_inh : 1", clock=self.step, order=5,
                               name="arriving")  # fmt: skip
        inhibiting = Synapses(
            line, arriving, f"weight : 1 (constant)\n{equations.INHIBITION}", name="inhibiting"
        )
        inhibiting.connect(i=first[of_unit], j=of_neuron)
        excitatory.r_inh = linked_var(arriving, "r_inh")
        return [averaging, line, arriving, inhibiting]

    def _feedforward(self, inputs: NeuronGroup, target: NeuronGroup, model: str) -> Synapses:
        """Synapses from every input of a circuit to every neuron of its pool."""
        private = self.spec.private
        synapses = Synapses(
            inputs,
            target,
            f"{self._own(model)}\n{equations.MOMENTS}" + ("\nx_own : 1" if private else ""),
            clock=self.tick,
            name="feedforward",
            namespace=self.constants,
        )
        n, k = self.spec.n_neurons, self.spec.n_inputs
        synapses.connect(j=f"post for post in range((i//{k})*{n}, (i//{k} + 1)*{n})")
        if private:
            synapses.run_regularly(
                f"x_own = stimulus(t, i*{n} + j % {n})",
                clock=self.tick, when="start", order=2, name="show_private_patterns",
            )  # fmt: skip
        return synapses

    def _own(self, code: str) -> str:
        """Let code of synapses take the inputs of their own, if they have them."""
        return code.replace("x_pre", "x_own") if self.spec.private else code

    # -- the networks ----------------------------------------------------------------------------

    def _per_synapse(self) -> tuple[list[Any], list[str]]:
        inputs = self._inputs()
        circuit = self._circuit("z : 1\nsignal : 1")
        feedforward = self._plastic(inputs, circuit[0], self.step)
        results = ["feedforward.w", "feedforward.m", "excitatory.r", "interneuron.r_inh"]
        if self.spec.n_interneurons:
            results.append("line.value")
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
        learn = equations.LEARN
        if self.spec.synaptic:
            learn = learn.replace("signal_post", f"({self._of_synapse(self.spec.signal)})")
            # Synapses cannot read linked variables with an index: neurons copy them.
            common = "z_mean" if self.spec.per_presentation else "r_inh"
            excitatory.run_regularly(
                f"signal = {common}", clock=clock, when="synapses", order=0, name="judge"
            )
        else:
            excitatory.run_regularly(
                f"signal = {self.spec.signal}", clock=clock, when="synapses", order=0, name="judge"
            )
        if self.spec.clipped:
            learn += equations.CLIP
        feedforward.run_regularly(
            self._own(learn), clock=clock, when="synapses", order=1, name="learn"
        )
        return feedforward

    @staticmethod
    def _of_synapse(signal: str) -> str:
        """Write a signal as synapses see it: what is their neuron's, and what their own."""
        theirs = {name: f"{name}_post" for name in ("r", "b", "b_inh", "z")}
        theirs |= {"r_inh": "signal_post", "z_mean": "signal_post", "x": "x_pre"}
        return re.sub(r"\w+", lambda match: theirs.get(match[0], match[0]), signal)

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
        pools = self.spec.pools  # whose factors are those of their circuit
        # Synapses cannot read linked variables with an index: the inputs copy the factors.
        inputs = self._inputs("\n" + "\n".join(f"{f} : 1\nfinal_{f} : 1 (linked)" for f in factors))
        for factor in factors:
            source = linked_var(interneuron, factor, index=self.circuit_of_input * pools)
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
            x_squared : 1
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
        if self.spec.private:
            excitatory.x_squared = linked_var(dendrites, "x_squared")
            patterns = []
        else:
            patterns = self._patterns(inputs, excitatory)
        for factor in ("dev_kept", "dev_from_m"):
            source = linked_var(interneuron, factor, index=self.circuit_of_neuron * pools)
            setattr(excitatory, factor, source)

        feedforward = self._feedforward(
            inputs,
            dendrites,
            f"w_init : 1\ndev : 1\nm : 1\nw = w_init + dev : 1\n{equations.PROJECTIONS}"
            + (equations.NORM if self.spec.private else ""),
        )
        feedforward.run_regularly(
            self._own(equations.CONSOLIDATE),
            clock=self.tick,
            when="start",
            order=0,
            name="consolidate",
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
        objects = [inputs, *circuit, dendrites, *patterns, feedforward]
        results = ["feedforward.dev", "feedforward.m", "excitatory.r", "interneuron.r_inh"]
        results += ["excitatory.moved", "excitatory.moving"]
        results += [f"interneuron.{factor}" for factor in factors]
        if self.spec.n_interneurons:
            results.append("line.value")
        return objects, results

    def _patterns(self, inputs: NeuronGroup, excitatory: NeuronGroup) -> list[Any]:
        """Squares of the patterns that all neurons of a pool see."""
        patterns = NeuronGroup(
            self.spec.n_circuits, "x_squared : 1", clock=self.tick, order=-12, name="patterns"
        )
        norm = Synapses(inputs, patterns, equations.NORM, name="norm")
        norm.connect(j=f"i//{self.spec.n_inputs}")
        excitatory.x_squared = linked_var(patterns, "x_squared", index=self.circuit_of_neuron)
        return [patterns, norm]
