"""The Brian2 network itself, to be changed or watched before it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from circuitsim.checks.validation import ParameterError
from circuitsim.engines import simulation
from circuitsim.engines.batch import Batch, Progress
from circuitsim.engines.brian import BrianEngine
from circuitsim.engines.spec import NetworkSpec
from circuitsim.inputs import InputSource
from circuitsim.parameters import DT, PRESENTATION, Circuit, Plasticity
from circuitsim.public import own

if TYPE_CHECKING:
    import brian2
    from brian2.units import Quantity

__dir__ = own(__name__)


class CircuitNetwork:
    """A circuit's Brian2 network, made and not yet run: what `network` returns.

    Attributes
    ----------
    network : brian2.Network
        All of it. Objects can be added, and those that are there replaced, before it runs.
    groups : dict of str to object
        Its objects by their names: groups, synapses, monitors, timed arrays. Circuits of a batch
        follow one another in each group.
    duration : Quantity, time
        How long all presentations take.
    """

    def __init__(self, batch: Batch, has_circuits: bool, engine: type[BrianEngine]) -> None:
        self._batch, self._has_circuits = batch, has_circuits
        self._assembly = _Assembly("numpy", engine.per_synapse)
        with self._session():
            self._assembly.run(batch)
        built = self._assembly.built
        self.network: brian2.Network = built.network
        self.groups: dict[str, Any] = built.groups
        self.duration: Quantity = built.duration
        self._done = False

    @staticmethod
    def _session() -> AbstractContextManager[None]:
        from circuitsim.engines import runtime

        return runtime.one_session("numpy")

    def add(self, *objects: Any) -> None:
        """Add Brian2 objects, such as monitors of ``groups``, to the network."""
        self.network.add(*objects)

    def run(self, **options: Any) -> None:
        """Show all presentations, once.

        Parameters
        ----------
        **options
            For `brian2.Network.run`, such as ``report="text"`` and a ``namespace``.

        Raises
        ------
        ParameterError
            If it has run already: make another one, or go on with `circuitsim.simulate`.
        """
        if self._done:
            raise ParameterError(
                "run", "has shown all presentations; make another network, or go on from result()",
                self.duration,
            )  # fmt: skip
        with self._session():
            self.network.run(self.duration, **options)
        self._done = True

    def result(self) -> xr.Dataset:
        """Return what `circuitsim.simulate` returns of the same circuit.

        Raises
        ------
        ParameterError
            If the network has not run.
        FloatingPointError
            If the weights diverged.
        """
        if not self._done:
            raise ParameterError("result", "is there once the network has run; call run()", None)
        from circuitsim.engines import runtime

        self._assembly.results = runtime.read(self._assembly.built)
        outcome = self._assembly.run(self._batch)
        name = "brian2_per_synapse" if self._assembly.per_synapse else "brian2"
        return simulation.labelled(self._batch, outcome, self._has_circuits, name)


class _Assembly(BrianEngine):
    """Makes a network in place of running it; given its results, tells what they are."""

    def __init__(self, codegen: str, per_synapse: bool) -> None:
        super().__init__(codegen)
        self.per_synapse = per_synapse  # type: ignore[misc]
        self.built: Any = None
        self.results: dict[str, Any] | None = None

    def _length(self, batch: Batch) -> int:
        return max(batch.n_presentations, 1)  # one network for all

    def _execute(self, spec: NetworkSpec, values: dict[str, Any], report: Progress) -> Any:
        if self.results is not None:
            return self.results
        from circuitsim.engines import network, runtime

        self.built = network.build(spec)
        runtime.fill(self.built, values)
        # As if nothing had happened: what is made of these is thrown away.
        return runtime.read(self.built) | _still(self.built, spec)


def _still(built: Any, spec: NetworkSpec) -> dict[str, Any]:
    """Records of monitors that have recorded nothing, of the size that they will have."""
    shapes = {
        f"{group}.{variable}": (
            spec.n_presentations * (1 if group == "moments" else spec.steps),
            built.groups[group].source.N,
        )
        for group, variable in (name.split(".") for name in built.results)
        if group in ("moments", "rate_trace", "rate_inh_trace")
    }
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def network(
    w_init: ArrayLike | None,
    inputs: ArrayLike | InputSource,
    circuit: Circuit | None = None,
    plasticity: Plasticity | None = None,
    presentation: Quantity = PRESENTATION,
    dt: Quantity = DT,
    record_rates: bool = False,
    *,
    per_synapse: bool = False,
    seed: int = 0,
) -> CircuitNetwork:
    """Return the Brian2 network that `simulate` would run, to add monitors to it or to change it.

    Parameters
    ----------
    w_init, inputs, circuit, plasticity, presentation, dt, record_rates, seed
        As in `circuitsim.simulate`.
    per_synapse : bool
        The network in its plain form, in which every synapse is updated at every step, rather than
        once a presentation.

    Returns
    -------
    CircuitNetwork
        With ``run()``, and ``result()`` after it. Its code is NumPy's, in this process.

    Raises
    ------
    ParameterError, DimensionMismatchError
        As `circuitsim.simulate`; or if there are no inputs.

    Examples
    --------
    >>> import brian2, numpy as np, circuitsim as cs
    >>> rng = np.random.default_rng(0)
    >>> net = cs.network(1 + rng.standard_normal((20, 4)), rng.standard_normal((3, 4)))
    >>> monitor = brian2.StateMonitor(net.groups["interneuron"], "r_inh", record=True)
    >>> net.add(monitor)
    >>> net.run()
    >>> monitor.r_inh.shape
    (1, 450)
    >>> net.result().snr_w.sizes["presentation"]
    4
    """
    from circuitsim.engines.brian import PerSynapseEngine

    batch, has_circuits = simulation.make_batch(
        w_init, inputs, circuit, Plasticity() if plasticity is None else plasticity,
        presentation, dt, record_rates, None, 1, seed,
    )  # fmt: skip
    if batch.n_presentations == 0:
        raise ParameterError("inputs", "must have a presentation at least", batch.inputs.shape)
    return CircuitNetwork(batch, has_circuits, PerSynapseEngine if per_synapse else BrianEngine)
