"""A layer as one circuit in plain numbers: who is wired to whom, and its pools as circuits.

`Wired` is to a layer what `circuitsim.engines.batch.Batch` is to pools: what an engine needs,
checked already. `by_pools` runs it as what it consists of, one circuit for each pool and channel,
in any engine for circuits; `circuitsim.engines.wired_network` is all of it as one Brian2 network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.checks.values import ms
from circuitsim.engines.batch import Array, Batch, Engine, Progress
from circuitsim.engines.simulation import make_batch
from circuitsim.inputs import InputSource
from circuitsim.parameters import Circuit, Plasticity
from circuitsim.public import own

__dir__ = own(__name__)

_BLOCK = 64  # presentations whose sheets are drawn at a time
_NUMBERS = 2**21  # inputs of all neurons, in one presentation, that a batch has at most


@dataclass
class Wired:
    """A sheet of inputs, neurons with receptive fields on it, and their interneurons.

    Attributes
    ----------
    w_init : ndarray, shape (position, input, output channel)
        Of the positions that sleep.
    fields : ndarray of int, shape (position, input)
        The cell of the sheet that each input is.
    pool : ndarray of int, shape (position,)
        Those of a pool share an interneuron, one for each output channel.
    phase : ndarray of int, shape (cell,)
        Cells of one phase are laterally connected.
    gain : float
        Of the lateral connections; 1 for the limit in which they repeat a pattern exactly.
    drives : InputSource, shape (presentation, cell)
        What each cell is driven by alone.
    tau_sheet : float or None
        Time constant of the cells, in ms; None for a sheet that has settled.
    circuit : Circuit
        Of each pool and output channel, with one value for each parameter.
    plasticity : Plasticity
    steps : int
        Of a presentation; 1 for a rule that makes one update.
    dt : float
        In ms.
    record : ndarray of int
        After how many presentations weights are kept; ascending, the last is all of them.
    seed : numpy.random.SeedSequence
        Of what circuits leave to chance: noise, spreads.
    """

    w_init: Array
    fields: NDArray[np.int64]
    pool: NDArray[np.int64]
    phase: NDArray[np.int64]
    gain: float
    drives: InputSource
    tau_sheet: float | None
    circuit: Circuit
    plasticity: Plasticity
    steps: int
    dt: float
    record: NDArray[np.int64]
    seed: np.random.SeedSequence

    @property
    def n_presentations(self) -> int:
        """Number of patterns."""
        return self.drives.shape[0]

    def sheet(self, start: int, stop: int) -> Sheet:
        """Return what the sheet shows in some presentations."""
        drive = self.drives.block(start, stop)
        mean = phase_means(drive, self.phase)
        private = drive - mean
        kept = None if self.tau_sheet is None else 1 - self.dt / self.tau_sheet
        return Sheet(mean + (1 - self.gain) * private, self.gain * private, kept)


@dataclass
class Sheet:
    """Activity of cells in some presentations, in closed form.

    A cell with the drive I starts a presentation at x = I and obeys

        tau dx/dt = -x + g xbar + (1 - g) I,

    where xbar is the mean over the cells of its phase. xbar stays what it is, and x approaches
    Ibar + (1 - g)(I - Ibar) as exp(-t/tau), by forward Euler as (1 - dt/tau)^(t/dt).

    Attributes
    ----------
    settled : ndarray, shape (presentation, cell)
        Ibar + (1 - g)(I - Ibar).
    lost : ndarray, shape (presentation, cell)
        g (I - Ibar): how far cells are from there at the start.
    kept : float or None
        What a step leaves of that; None for a sheet that is settled from the start.
    """

    settled: Array
    lost: Array
    kept: float | None

    def after(self, presentation: int, steps: int) -> Array:
        """Activity of all cells in one of the presentations, after some of its steps."""
        settled = self.settled[presentation]
        return (
            settled if self.kept is None else settled + self.kept**steps * self.lost[presentation]
        )


def phase_means(values: Array, phase: NDArray[np.int64]) -> Array:
    """Return the mean over its phase for each cell, both (presentation, cell)."""
    cells = np.bincount(phase)
    sums = [np.bincount(phase, of_one) for of_one in values]
    return np.asarray((np.reshape(sums, (-1, len(cells))) / cells)[:, phase])


@dataclass
class Slept:
    """What an engine makes of a `Wired`.

    Attributes
    ----------
    weights : ndarray, shape (record, position, input, output channel)
    sheet : ndarray, shape (record, cell)
        At the end of the last presentation before each; NaN at the start.
    rate : ndarray, shape (position, output channel)
    rate_inh : ndarray, shape (pool, output channel)
    """

    weights: Array
    sheet: Array
    rate: Array
    rate_inh: Array


@dataclass
class _Seen:
    """Inputs of pools whose neurons see the same; a source of a `Batch`.

    Where the sheet changes in time, each step is a presentation.
    """

    sheet: Sheet
    steps: int
    fields: NDArray[np.int64]  # (pool, neuron, input)
    n_channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        pools, _, inputs = self.fields.shape
        return len(self.sheet.settled) * self.steps, pools * self.n_channels, inputs

    def block(self, start: int, stop: int) -> Array:
        """Return what the first neuron of each sees, (presentation, circuit, input)."""
        return self._seen(start, stop, self.fields[:, 0])

    def _seen(self, start: int, stop: int, fields: NDArray[np.int64]) -> Array:
        sheets = [self.sheet.after(*divmod(number, self.steps)) for number in range(start, stop)]
        seen = np.reshape(sheets, (-1, self.sheet.settled.shape[1]))[:, fields]
        return np.repeat(seen, self.n_channels, axis=1)


class _SeenByEach(_Seen):
    """Inputs of pools whose neurons differ in what they see."""

    def private_block(
        self, start: int, stop: int, shape: tuple[int, int, int], done: int = 0
    ) -> Array:
        """Return what each sees, (presentation, circuit, neuron, input)."""
        return self._seen(start, stop, self.fields)


@dataclass
class _Circuits:
    """Pools of one size: a circuit for each of them and each output channel."""

    pools: NDArray[np.int64]
    members: NDArray[np.int64]  # (pool, neuron)
    engine: Engine
    batch: Batch

    def run(self, sheet: Sheet) -> None:
        """Carry them through what a sheet shows."""
        inputs = replace(self.batch.inputs, sheet=sheet)  # type: ignore[type-var]
        ends = np.array(inputs.shape[:1])
        after = self.engine.run(replace(self.batch, inputs=inputs, record=ends)).state
        self.batch = replace(self.batch, state=after)

    def of_neurons(self, values: Array) -> Array:
        """Return values of all circuits' neurons by (pool, neuron, ..., channel)."""
        by_channel = values.reshape(len(self.pools), -1, *values.shape[1:])
        return np.moveaxis(by_channel, 1, -1)


def by_pools(
    wired: Wired, find: Callable[[Batch], Engine], progress: Progress | None = None
) -> Slept:
    """Run a layer as one circuit for each pool and output channel.

    Parameters
    ----------
    wired : Wired
        The layer.
    find : callable
        Gives the engine that is to run a batch of such circuits.
    progress : callable, optional
        Called with the fraction done.

    Raises
    ------
    ParameterError
        If the engine cannot run these circuits.
    """
    circuits = list(_circuits(wired, find))
    weights = np.repeat(wired.w_init[np.newaxis], len(wired.record), axis=0)
    sheets = np.full((len(wired.record), len(wired.phase)), np.nan)
    cuts = np.unique([*range(0, wired.n_presentations, _BLOCK), *wired.record])
    for start, stop in itertools.pairwise(cuts):
        sheet = wired.sheet(start, stop)
        for number, of_size in enumerate(circuits, start=1):
            of_size.run(sheet)
            for slot in np.flatnonzero(wired.record == stop):
                weights[slot, of_size.members] = of_size.of_neurons(of_size.batch.state.weights)
                sheets[slot] = sheet.after(-1, wired.steps)
            if progress is not None:
                done = start + (stop - start) * number / len(circuits)
                progress(done / wired.n_presentations)
    rate = np.zeros((len(wired.pool), wired.w_init.shape[-1]))
    rate_inh = np.zeros((int(wired.pool.max()) + 1, rate.shape[1]))
    for of_size in circuits:
        rate[of_size.members] = of_size.of_neurons(of_size.batch.state.rate)
        rate_inh[of_size.pools] = of_size.of_neurons(of_size.batch.state.rate_inh)
    return Slept(weights, sheets, rate, rate_inh)


def _circuits(wired: Wired, find: Callable[[Batch], Engine]) -> Iterator[_Circuits]:
    """Give the circuits of a layer, before they have seen anything."""
    sizes = np.bincount(wired.pool)
    _, n_inputs, n_channels = wired.w_init.shape
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        at_once = max(1, _NUMBERS // (int(size) * n_inputs * n_channels))
        for first in range(0, len(of_size), at_once):
            pools = of_size[first : first + at_once]
            members = np.array([np.flatnonzero(wired.pool == pool) for pool in pools])
            batch = _batch(wired, pools, members)
            yield _Circuits(pools, members, find(batch), batch)


def _batch(wired: Wired, pools: NDArray[np.int64], members: NDArray[np.int64]) -> Batch:
    in_time = wired.tau_sheet is not None
    size, (_, n_inputs, n_channels) = members.shape[1], wired.w_init.shape
    neurons = np.resize(members.T, (max(2, size), len(pools))).T  # a circuit has two, or more
    weights = np.moveaxis(wired.w_init[neurons], -1, 1).reshape(-1, neurons.shape[1], n_inputs)
    key = wired.seed.spawn_key
    seeds = [np.random.SeedSequence(wired.seed.entropy, spawn_key=(*key, pool)) for pool in pools]
    batch, _ = make_batch(
        weights,
        np.empty((0, n_inputs)),
        wired.circuit.replace(n_neurons=neurons.shape[1]),
        wired.plasticity,
        presentation=(1 if in_time else wired.steps) * wired.dt * ms,
        dt=wired.dt * ms,
        record_rates=False,
        start=None,
        record=[0],
        seed=[int(number) for seed in seeds for number in seed.generate_state(n_channels)],
    )
    if size == 1:
        batch = _first_neurons(batch)
    seen = (_Seen if wired.gain == 1 and not in_time else _SeenByEach)(
        wired.sheet(0, 0), wired.steps if in_time else 1, wired.fields[members], n_channels
    )
    return replace(batch, inputs=seen)


def _first_neurons(batch: Batch) -> Batch:
    """Return a batch whose circuits have their first neuron alone."""
    of_neurons = {name: getattr(batch, name) for name in ("alpha", "tau")}
    state = batch.state
    return replace(
        batch,
        w_init=batch.w_init[:, :1],
        state=replace(
            state, **{name: getattr(state, name)[:, :1] for name in ("weights", "velocity", "rate")}
        ),
        **{name: value[:, :1] if value.ndim == 2 else value for name, value in of_neurons.items()},
    )
