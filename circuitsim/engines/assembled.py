"""The Brian2 network itself, to be changed or watched before it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import xarray as xr
from numpy.typing import ArrayLike

from circuitsim.checks.validation import ParameterError, flag
from circuitsim.engines import simulation
from circuitsim.engines.batch import Batch, Progress
from circuitsim.engines.brian import BrianEngine, Values, check, prepared
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

    def __init__(self, batch: Batch, has_circuits: bool, per_synapse: bool) -> None:
        from circuitsim.engines import network, runtime

        self._batch, self._has_circuits, self._per_synapse = batch, has_circuits, per_synapse
        check(batch, per_synapse)
        total = batch.n_presentations
        with self._session():
            spec, values = prepared(batch, batch.state, 0, total, per_synapse)
            self._built = built = network.build(spec)
            runtime.fill(built, values)
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

        outcome = _Given(runtime.read(self._built), self._per_synapse).run(self._batch)
        name = "brian2_per_synapse" if self._per_synapse else "brian2"
        return simulation.labelled(self._batch, outcome, self._has_circuits, name)


class _Given(BrianEngine):
    """Tells what a network has made of a batch that has run already."""

    def __init__(self, results: Values, per_synapse: bool) -> None:
        super().__init__("numpy")
        self.per_synapse = per_synapse  # type: ignore[misc]
        self._results = results

    def _length(self, batch: Batch) -> int:
        return batch.n_presentations  # one network for all

    def _execute(self, spec: NetworkSpec, values: Values, report: Progress) -> Values:
        return self._results


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
    per_synapse = flag("per_synapse", per_synapse)
    batch, has_circuits = simulation.make_batch(
        w_init, inputs, circuit, plasticity, presentation, dt, record_rates, None, 1, seed
    )
    if batch.n_presentations == 0:
        raise ParameterError("inputs", "must have a presentation at least", batch.inputs.shape)
    return CircuitNetwork(batch, has_circuits, per_synapse)
