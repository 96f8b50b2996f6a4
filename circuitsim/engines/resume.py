"""Going on from a result of `simulate`: its state and its parameters, as it says them."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from circuitsim import rules, schedules
from circuitsim.checks.validation import ParameterError, milliseconds, per_neuron, shown
from circuitsim.checks.values import Milliseconds
from circuitsim.dynamics import Dynamics
from circuitsim.engines.batch import Array, State
from circuitsim.parameters import Circuit, Plasticity

if TYPE_CHECKING:
    from brian2.units import Quantity


class Before:
    """A run that is gone on with.

    Parameters
    ----------
    start : xarray.Dataset
        What `simulate` returned.

    Raises
    ------
    ParameterError
        If it is no such Dataset.
    """

    def __init__(self, start: xr.Dataset) -> None:
        for name in ("w_init", "weights", "momentum", "presentations", "elapsed"):
            if not isinstance(start, xr.Dataset) or name not in start:
                raise ParameterError(
                    "start", f"must be a Dataset returned by simulate, with its {name}", type(start)
                )
        self.start = start

    # -- its state -------------------------------------------------------------------------------

    def array(self, name: str, *dims: str) -> Array:
        """Return part of the state, whatever the order of its dimensions, circuits first if any."""
        values = self.start[name]
        if set(values.dims) - {"circuit"} != set(dims):
            raise ParameterError(
                "start", f"must have its {name} over ({', '.join(dims)}) and no more", values.dims
            )
        return values.transpose(..., *dims).to_numpy()

    def state(self, n_circuits: int, n_neurons: int) -> State:
        """Return the state of so many circuits."""

        def batched(name: str, *dims: str) -> Array:
            if name not in self.start:  # rates, of a rule that has none
                return np.zeros((n_circuits, *([n_neurons] * len(dims))))
            values = self.array(name, *dims)
            shape = (n_circuits, *values.shape[values.ndim - len(dims) :])
            return np.broadcast_to(values, shape).astype(float)

        def same(name: str) -> float:
            values = np.unique(self.array(name))
            if len(values) != 1:
                raise ParameterError("start", f"must have circuits with the same {name}", values)
            return float(values[0])

        return State(
            weights=batched("weights", "neuron", "input"),
            velocity=batched("momentum", "neuron", "input"),
            rate=batched("rate", "neuron"),
            rate_inh=batched("rate_inh", *(["interneuron"] if self.several else [])),
            presentations=int(same("presentations")),
            elapsed=same("elapsed"),
        )

    @property
    def several(self) -> bool:
        """Whether it has interneurons in the plural."""
        return "rate_inh" in self.start and "interneuron" in self.start["rate_inh"].dims

    def past(self, n_circuits: int) -> Array | None:
        """Return the rates of the interneurons that are still felt, if inhibition was late."""
        if "rate_inh_past" not in self.start:
            return None
        values = self.array("rate_inh_past", "past", "interneuron")
        return np.broadcast_to(values, (n_circuits, *values.shape[-2:])).astype(float)

    # -- its parameters --------------------------------------------------------------------------

    def _attribute(self, name: str, parameter: str) -> Any:
        if name not in self.start.attrs:
            raise ParameterError(
                "start", f"does not say its {name}; give {parameter} too", list(self.start.attrs)
            )
        return self.start.attrs[name]

    def _coordinate(self, name: str, parameter: str) -> Any:
        if name not in self.start.coords:
            raise ParameterError(
                "start", f"does not say its {name}; give {parameter} too", list(self.start.coords)
            )
        values = self.start[name]
        if "neuron" in values.dims:
            return per_neuron(values.transpose(..., "neuron").to_numpy())
        return values.to_numpy() if values.ndim else float(values)

    def circuit(self) -> Circuit:
        """Return the circuit."""
        names = ("alpha", "tau", "b", "tau_inh", "sigma")
        values: dict[str, Any] = {name: self._coordinate(name, "circuit") for name in names}
        for name in ("tau", "tau_inh"):
            values[name] = Milliseconds(values[name])
        equations = {
            name: str(self._attribute(name, "circuit")) for name in ("excitatory", "interneuron")
        }
        if "tau_inh" not in equations["interneuron"]:
            del values["tau_inh"]
        if not re.search(r"\balpha\b", equations["excitatory"]):
            del values["alpha"]
        if "b_inh" in self.start.coords:
            values["b_inh"] = self._coordinate("b_inh", "circuit")
        if "delay" in self.start.coords:
            values["delay"] = Milliseconds(self._coordinate("delay", "circuit"))
        if "to_inh" in self.start.coords:
            values["connect_ei"] = self.array("to_inh", "interneuron", "neuron")
            values["connect_ie"] = self.array("from_inh", "neuron", "interneuron")
            values["interneurons"] = self.start.sizes["interneuron"]
        published = Dynamics()
        if equations["excitatory"] == f"dr/dt = {published.excitatory}":
            del equations["excitatory"]
        if equations["interneuron"].removeprefix("dr_inh/dt = ") in (
            published.interneuron,
            published.interneuron.replace("/tau", "/tau_inh"),
        ):
            del equations["interneuron"]
        return Circuit(**(values | equations))

    def plasticity(self) -> Plasticity:
        """Return its plasticity."""
        try:
            rate = schedules.read(str(self._attribute("learning_rate", "plasticity")))
        except ValueError as error:
            raise ParameterError("start", f"has {error}; give plasticity too", "") from None
        return Plasticity(
            self._attribute("rule", "plasticity"),
            self._coordinate("gamma", "plasticity"),
            float(self._attribute("heavy_ball_momentum", "plasticity")),
            rate,
        )

    def presentation(self) -> Milliseconds:
        """Return the duration of a presentation."""
        return Milliseconds(float(self._attribute("presentation_ms", "presentation")))

    def dt(self) -> Milliseconds | None:
        """Return the step, None for continuous time."""
        dt = float(self._attribute("dt_ms", "dt"))
        return None if np.isnan(dt) else Milliseconds(dt)

    def engine(self) -> str:
        """Return the engine's name."""
        return str(self._attribute("engine", "engine"))

    def changed(
        self,
        circuit: Circuit | None,
        plasticity: Plasticity | None,
        presentation: Quantity | Milliseconds | None,
        dt: Quantity | Milliseconds | None,
    ) -> str:
        """Return what of the parameters given differs from before, in words.

        Raises
        ------
        ParameterError
            If a rule of the circuit were to go on with an ideal one, or the other way round.
        """
        pairs: list[tuple[str, Any, Any]] = []
        names: tuple[str, ...]
        with suppress(ParameterError):  # a run that does not say them all
            if circuit is not None:
                mine = self.circuit()
                names = ("alpha", "tau_ms", "b", "tau_inh_ms", "sigma", "b_inh", "delay_ms")
                names = (*names, "dynamics", "interneurons", "connect_ei", "connect_ie")
                pairs += [(name, getattr(mine, name), getattr(circuit, name)) for name in names]
            if plasticity is not None:
                old = self.plasticity()
                names = ("rule", "gamma", "momentum", "learning_rate")
                pairs += [(name, getattr(old, name), getattr(plasticity, name)) for name in names]
            if presentation is not None:
                now = milliseconds("presentation", presentation)
                pairs.append(("presentation_ms", self.presentation().number, now))
            if dt is not None:
                was = self.dt()
                now = milliseconds("dt", dt)
                pairs.append(("dt_ms", None if was is None else was.number, now))
        rule = self.start.attrs.get("rule")
        if plasticity is not None and rule is not None:
            before = rules.get(str(rule), "start")
            if before.per_presentation != plasticity.definition.per_presentation:
                raise ParameterError(
                    "start",
                    f"was run with the rule {before.name}, whose momentum and learning rate count "
                    "otherwise; start anew from its weights",
                    plasticity.rule,
                )
        done = int(np.max(self.start["presentations"].to_numpy()))
        told = [
            f"{name} from {shown(was)} to {shown(now)}"
            for name, was, now in pairs
            if not np.array_equal(np.asarray(was), np.asarray(now))
        ]
        earlier = str(self.start.attrs.get("changed", ""))
        latest = f"after {done} presentations: {', '.join(told)}" if told else ""
        return "; ".join(filter(None, [earlier, latest]))
