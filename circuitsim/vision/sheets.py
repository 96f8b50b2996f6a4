"""A whole layer as one circuit: a sheet of inputs, receptive fields on it, an interneuron a pool.

The sheet
---------
At the start of a presentation each cell of the sheet gets a private drive I, and lateral
connections pull cells of equal phase (every k-th, in rows and columns) together. With the gain g of
these connections a cell obeys

    tau dx/dt = -x + g xbar + (1 - g) I,

xbar the mean over the M cells of its phase. It starts at x = I and settles at
x = Ibar + (1 - g)(I - Ibar) with the time constant tau: what cells share is kept, and 1 - g of
what is private is left. Either the sheet is taken as fast, and the layer sees it settled; or it has
its ``tau_sheet``, and while a presentation is young neurons of a pool see what is private in their
inputs. For drives that are independent normal numbers with the variance M, what they share is a
standard normal pattern p, and what is left beside it, settled, has in each cell the variance

    (1 - g)^2 (M - 1)                                    (`private_variance`)

and sums to zero over a phase. The limit g -> 1 repeats p exactly. Drives are drawn as just that,
p and what is private apart, so that sheets of different gains show the same patterns, which are
those that `circuitsim.vision.sharing` draws from the same seed.

The layer
---------
Neurons have k x k x channels fields on the sheet, and those whose fields start at cells of equal
phase share an interneuron, one for each output channel. All learn at once, from the same sheet.
For exactly repeated patterns that is, pool by pool, what `circuitsim.vision.sharing` does with
matrices. With finite gains neurons of a pool see different patterns, and even the ideal rule lets
their mean decay: see `end_point`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from circuitsim import measures, rules
from circuitsim.checks.fields import listed
from circuitsim.checks.validation import (
    ParameterError,
    array,
    count,
    dimensionless,
    function,
    in_range,
    integer,
    milliseconds,
    one_of,
    regular,
    whole_steps,
)
from circuitsim.checks.values import PerNeuron
from circuitsim.engines import registry
from circuitsim.engines.batch import Batch, Engine, Progress
from circuitsim.engines.simulation import LONG_NAMES
from circuitsim.engines.wired import Slept, Wired, by_pools, phase_means
from circuitsim.inputs import GaussianInputs, as_source
from circuitsim.parameters import DT, PRESENTATION, Circuit, Plasticity, or_published
from circuitsim.processwide import load_brian2, one_blas_thread
from circuitsim.public import own
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.sharing import BORDERS, Kept

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__)

_NETWORK = "brian2"  # the engine that runs all of it as one
_CODEGENS = ("auto", "numpy", "cython")  # of that

_PARAMETERS = ("alpha", "tau_ms", "tau_inh_ms", "b")
_PLANE = ("row", "column", "kernel_row", "kernel_column", "channel", "output_channel")
_LINE = ("position", "kernel_position", "channel", "output_channel")
_PRIVATE, _CIRCUITS = 1, 2  # keys of the seeds of private drives, and of noise of circuits


def simulate_layer(
    weights: ArrayLike,
    input_shape: int | Sequence[int] | Geometry,
    circuit: Circuit | None = None,
    plasticity: Plasticity | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    border: str = "asleep",
    patterns: ArrayLike | int = 100,
    gain: float | None = None,
    tau_sheet: Quantity | None = None,
    presentation: Quantity = PRESENTATION,
    dt: Quantity = DT,
    engine: str = "brian2",
    codegen: str = "auto",
    record: int | Sequence[int] | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Let a whole locally connected layer sleep as one network of neurons.

    Parameters
    ----------
    weights : array_like
        Of a layer of rows and columns, (row, column, kernel row, kernel column, channel, output
        channel), as those of `circuitsim.vision.layers.LocallyConnected2D`; or of a line of
        positions, (position, kernel position, channel, output channel).
    input_shape : int, (int,), (int, int) or Geometry
        Rows and columns, or the length, of the layer's input without padding. A `Geometry` has
        stride and padding too.
    circuit : Circuit, optional
        Of each pool, with one value for each parameter; the published one by default. ``n_neurons``
        has no effect: pools are as large as they are. Only pools that run by themselves may have
        other equations than Eqs. 7 and 8 (with any tau_inh), noise, spreads or late inhibition.
    plasticity : Plasticity, optional
        The circuit's rule as published by default.
    stride, padding : int
        As of `Geometry`.
    border : {"asleep", "awake"}
        Whether the sheet goes on where an image has its padding, so that neurons whose fields reach
        there sleep too; or ends with the image, and they keep their weights.
    patterns : int or array_like, shape (presentation, kernel row, kernel column, channel)
        What cells share in each presentation, (presentation, kernel position, channel) for a line;
        or how many to draw from N(0, 1).
    gain : float, optional
        Of the lateral connections, from 0 to below 1; None for the limit of 1, in which patterns
        are repeated exactly.
    tau_sheet : Quantity, time, optional
        Time constant with which connections pull cells together, from their private drives on;
        above dt/2. By default the layer sees the sheet settled, as a rule that makes one update a
        presentation always does.
    presentation, dt : Quantity, time
        As in `circuitsim.simulate`.
    engine : str
        ``"brian2"``: the whole layer as one Brian2 network, each synapse updated at every step. Or
        an engine of `circuitsim.simulate` that runs each pool as a circuit, to the same numbers:
        ``"stepper"``, ``"propagator"`` (exact repetition by a settled sheet alone), or ``"auto"``,
        the fastest that can.
    codegen : str
        How the engine's code is made. For ``"brian2"``: "numpy" (where "auto") or "cython".
    record : int or sequence of int, optional
        Keep weights and measures after every ``record``-th presentation, or after the given
        numbers of them; by default at both ends.
    seed : int or sequence of int
        Fixes patterns, as the same seed does in `circuitsim.vision.sharing.Sharing.share`, and what
        is private beside them.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    xarray.Dataset
        ``weights`` at the end, in the layout of the argument; ``weights_trace``, with a leading
        ``presentation``, at the presentations recorded; ``sheet`` (presentation, cells in rows and
        columns, channel), the activity at the end of the presentation before (NaN at the start);
        ``snr_w`` and ``inverse_snr_w`` (presentation, pool, output channel), NaN for pools of one
        neuron; ``rate`` and ``rate_inh`` at the end (for rules of the circuit); ``pool`` of each
        position, -1 for those that are awake. Parameters are attributes.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If shapes do not fit each other, the sheet is too small for the kernel, the gain is not
        below 1, patterns are of another size, or as in `circuitsim.simulate`.
    FloatingPointError
        If the weights diverge: the learning rate is too high.

    Examples
    --------
    >>> import numpy as np, circuitsim as cs
    >>> weights = 1 + np.random.default_rng(0).standard_normal((10, 10, 3, 3, 1, 1))
    >>> rule = cs.Plasticity("mean_subtracted", momentum=0, learning_rate=cs.ConstantRate(0.1))
    >>> run = cs.simulate_layer(weights, (12, 12), plasticity=rule, engine="stepper")
    >>> bool((run.snr_w.isel(presentation=-1) > 100 * run.snr_w.isel(presentation=0)).all())
    True
    """
    layer = _Layer.of(weights, input_shape, stride, padding, border)
    circuit, plasticity = _checked(circuit, plasticity)
    duration, step = milliseconds("presentation", presentation), milliseconds("dt", dt)
    in_range("presentation", duration, presentation, above=0, unit="ms")
    in_range("dt", step, dt, above=0, unit="ms")
    steps = 1
    if plasticity.definition.per_presentation:
        plasticity.check_step(duration)
    else:
        circuit.check_step(step)
        plasticity.check_step(step)
        steps = whole_steps(duration, step)
    if not isinstance(engine, str):
        raise ParameterError("engine", "must be the name of an engine", engine)
    in_time = None if tau_sheet is None else _tau_sheet(tau_sheet, step, plasticity)
    if engine == _NETWORK:
        one_of("codegen", codegen, _CODEGENS)
        _check_network(circuit, plasticity)
    elif engine != "auto":
        registry.get(engine, codegen).check_rule(plasticity.definition)
    function("progress", progress)
    root = _root(seed)
    shared = _patterns(patterns, layer, root)
    strength = _gain(gain)
    wired = Wired(
        w_init=layer.weights[layer.asleep].reshape(-1, layer.n_inputs, layer.n_outputs),
        fields=layer.fields,
        pool=layer.pool[layer.asleep],
        phase=layer.phase,
        gain=strength,
        drives=_Drives(shared, layer.phase, root, private=strength < 1 or in_time is not None),
        tau_sheet=in_time,
        circuit=circuit,
        plasticity=plasticity,
        steps=steps,
        dt=1.0 if plasticity.definition.per_presentation else step,
        record=_recorded(record, shared.shape[0]),
        seed=_below(root, _CIRCUITS),
    )
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        slept = _run(wired, engine, codegen, progress)
    if not np.isfinite(slept.weights).all():
        raise FloatingPointError("the weights diverged; use a lower learning rate")
    made = _labelled(layer, wired, slept)
    made.attrs |= {
        "rule": plasticity.rule,
        "gamma": float(np.asarray(plasticity.gamma)),
        "learning_rate": repr(plasticity.learning_rate),
        "heavy_ball_momentum": plasticity.momentum,
        **{name: float(np.asarray(getattr(circuit, name))) for name in _PARAMETERS},
        "presentation_ms": duration,
        "dt_ms": step,
        "gain": strength,
        "border": border,
        "stride": layer.stride,
        "padding": layer.padding,
        "engine": engine,
    }
    if in_time is not None:
        made.attrs["tau_sheet_ms"] = in_time
    return made


def private_variance(
    input_shape: int | Sequence[int], kernel: int, gain: float, padding: int = 0
) -> NDArray[np.float64]:
    """Variance of what lateral connections leave of a cell's private drive: (1 - g)^2 (M - 1).

    Parameters
    ----------
    input_shape : int, (int,) or (int, int)
        Rows and columns of the sheet.
    kernel : int
        Rows, and columns, from one cell to the next of its phase.
    gain : float
        g, from 0 to below 1.
    padding : int
        Cells that the sheet has beyond ``input_shape`` on every side: the layer's padding where
        border positions sleep, else 0.

    Returns
    -------
    ndarray, shape (kernel, kernel), or (kernel,) for a line
        By phase, as the sheets of `simulate_layer` have it beside patterns of variance 1; M is the
        number of cells of a phase.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> private_variance((6, 6), 3, 0.9).round(3).tolist()
    [[0.03, 0.03, 0.03], [0.03, 0.03, 0.03], [0.03, 0.03, 0.03]]
    """
    sizes = _sizes(input_shape)
    k = count("kernel", kernel, minimum=1)
    strength = _gain(gain)
    count("padding", padding, minimum=0)
    per_axis = []
    for size in sizes:
        phases = (np.arange(size + 2 * padding) - padding) % k
        per_axis.append(np.bincount(phases, minlength=k))
    if min(map(min, per_axis)) < 1:
        raise ParameterError("kernel", f"does not fit into {_by(sizes)} cells", kernel)
    cells = np.multiply.outer(*per_axis) if len(sizes) == 2 else per_axis[0]
    return np.asarray((1 - strength) ** 2 * (cells - 1.0), dtype=np.float64)


def end_point(
    n_neurons: int,
    n_cells: int,
    gain: float | None,
    gamma: float,
    rule: str = "circuit",
    alpha: float = 10.0,
) -> Kept:
    """Where a pool's weights end, averaged over patterns, if repetition is imperfect.

    With d = (1 - g)^2 the inputs of a neuron have the variance 1 + d (M - 1), and those of two
    neurons of a pool the covariance 1 - d. A rule whose settled signal is u z_i - v zbar then moves
    deviations at the rate u (1 + d (M - 1)) - v d M/N and the mean at u (1 + d (M - 1)) -
    v (1 - d + d M/N), times the learning rate; gamma/(rate + gamma) is left in the end.

    Parameters
    ----------
    n_neurons : int
        N, in the pool; >= 1.
    n_cells : int
        M, of each phase of the sheet; >= N.
    gain : float or None
        g, of the lateral connections; None for exact repetition.
    gamma : float
        Pull towards the weights before the sleep; > 0.
    rule : str
        As in `circuitsim.Plasticity`; linear, or with a linear average.
    alpha : float
        Strength of inhibition.

    Raises
    ------
    ParameterError
        If a value is out of its range, or the rule has no closed form.

    Examples
    --------
    >>> kept = end_point(36, 36, None, gamma=0.01, rule="mean_subtracted")
    >>> round(kept.deviation, 4), kept.mean
    (0.0099, 1.0)
    >>> round(end_point(36, 36, 0.99, gamma=0.01, rule="mean_subtracted").mean, 3)
    0.741
    """
    size = count("n_neurons", n_neurons, minimum=1)
    cells = count("n_cells", n_cells, minimum=size)
    in_range("gamma", dimensionless("gamma", gamma), gamma, above=0)
    in_range("alpha", dimensionless("alpha", alpha), alpha, minimum=0)
    definition = rules.get(rule)
    of_mean = float(definition.gain_of_mean(alpha))
    assert definition.averaged is not None  # or there is no gain
    own_drive = definition.averaged.rate
    common = own_drive - of_mean  # the settled signal is own_drive z_i - common zbar
    left = (1 - _gain(gain)) ** 2
    variance = own_drive * (1 + left * (cells - 1))
    deviation = variance - common * left * cells / size
    mean = variance - common * (1 - left + left * cells / size)
    return Kept(gamma / (deviation + gamma), gamma / (mean + gamma))


class _Layer(NamedTuple):
    """What is where; axes are one or two."""

    weights: NDArray[np.float64]
    asleep: tuple[NDArray[np.int64], ...] | Any  # index of positions that sleep
    fields: NDArray[np.int64]  # (position asleep, input)
    pool: NDArray[np.int64]  # by position, -1 awake
    phase: NDArray[np.int64]  # by cell
    sheet: tuple[int, ...]  # cells along each axis
    kernel: int
    n_channels: int
    n_outputs: int
    stride: int
    padding: int

    @property
    def n_inputs(self) -> int:
        return self.kernel ** len(self.sheet) * self.n_channels

    @classmethod
    def of(
        cls, weights: ArrayLike, input_shape: Any, stride: int, padding: int, border: str
    ) -> _Layer:
        one_of("border", border, BORDERS)
        if isinstance(input_shape, Geometry):
            if (stride, padding) != (1, 0):
                raise ParameterError(
                    "stride", "and padding have no effect beside a Geometry; leave them out", stride
                )
            stride, padding = input_shape.stride, input_shape.padding
            input_shape = input_shape.input_shape
        sizes = _sizes(input_shape)
        values = array("weights", weights, _PLANE if len(sizes) == 2 else _LINE)
        axes = len(sizes)
        kernel = values.shape[axes]
        # A line is a row of a square: what a layer is has one definition.
        square = (sizes[0], sizes[-1])
        geometry = Geometry(square, kernel, stride, padding)
        expected = (*geometry.output_shape[:axes], *[kernel] * axes)
        if values.shape[: 2 * axes] != expected:
            raise ParameterError(
                "weights",
                f"must have the shape ({', '.join(map(str, expected))}, channel, output channel) "
                f"for an input of {_by(sizes)}, stride {stride} and padding {padding}",
                values.shape,
            )
        channels, outputs = values.shape[-2:]
        beyond = padding if border == "asleep" else 0  # cells of the sheet on either side
        sheet = tuple(size + 2 * beyond for size in sizes)
        # Where fields start, in cells of the sheet.
        starts = [np.arange(n) * stride - padding + beyond for n in values.shape[:axes]]
        inside = [(s >= 0) & (s + kernel <= n) for s, n in zip(starts, sheet, strict=True)]
        asleep = np.nonzero(np.logical_and.reduce(np.meshgrid(*inside, indexing="ij")))
        if not asleep[0].size:
            raise ParameterError(
                "border", "leaves no position asleep: all fields reach into the padding", border
            )
        phases = [(np.arange(n) - beyond) % kernel for n in sheet]
        shape = (*sheet, channels)
        cell = np.arange(math.prod(shape)).reshape(shape)
        period = (*[kernel] * axes, channels)
        along = np.meshgrid(*phases, np.arange(channels), indexing="ij")
        phase = np.ravel_multi_index(tuple(along), period).ravel()
        within = np.meshgrid(*[np.arange(kernel)] * axes, np.arange(channels), indexing="ij")
        offsets = np.ravel_multi_index(tuple(within), shape).ravel()
        first = cell[..., 0][tuple(s[a] for s, a in zip(starts, asleep, strict=True))]
        fields = first[:, np.newaxis] + offsets
        # Pools are numbered by the phase at which their fields start.
        pool = np.full(values.shape[:axes], -1)
        pool[asleep] = np.unique(phase[first] // channels, return_inverse=True)[1]
        return cls(
            values, asleep, fields, pool, phase, sheet, kernel, channels, outputs, stride, padding
        )


class _Drives:
    """Drives of cells: what a phase shares and, unless it is all, what is private beside it."""

    def __init__(
        self, patterns: Any, phase: NDArray[np.int64], root: np.random.SeedSequence, private: bool
    ) -> None:
        self._patterns, self._phase, self._private = patterns, phase, None
        self.shape = (patterns.shape[0], len(phase))
        self._cells = np.bincount(phase)
        if private:
            self._private = GaussianInputs(*self.shape, _below(root, _PRIVATE))

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        shared = self._patterns.block(start, stop)[:, self._phase]
        if self._private is None:
            return np.asarray(shared)
        drawn = self._private.block(start, stop)
        means = phase_means(drawn, self._phase)
        return np.asarray(shared + np.sqrt(self._cells)[self._phase] * (drawn - means))


def _checked(circuit: Circuit | None, plasticity: Plasticity | None) -> tuple[Circuit, Plasticity]:
    circuit, plasticity = or_published(circuit, plasticity)
    if circuit.connected:
        raise ParameterError(
            "circuit",
            "must have one interneuron, connected to all of its pool, for a layer",
            circuit,
        )
    numbers = {name: getattr(circuit, name) for name in _PARAMETERS}
    for name, value in {**numbers, "gamma": plasticity.gamma}.items():
        if isinstance(value, PerNeuron) or np.ndim(value):
            raise ParameterError(
                name.removesuffix("_ms"), "must be one number for a whole layer", value
            )
    return circuit, plasticity


def _check_network(circuit: Circuit, plasticity: Plasticity) -> None:
    """Refuse what the network of a whole layer does not have."""
    if not circuit.solvable or circuit.dynamics.raised:
        raise ParameterError(
            "circuit",
            "must be linear and rest at b, without noise, spreads, delay or b_inh, for the Brian2 "
            "network of a whole layer; use engine='stepper'",
            circuit,
        )
    if plasticity.per_synapse:
        raise ParameterError(
            "plasticity",
            "must have no bounds, and no signals of w or x, for the Brian2 network of a whole "
            "layer; use engine='brian2_per_synapse'",
            plasticity,
        )


def _tau_sheet(tau_sheet: Any, step: float, plasticity: Plasticity) -> float:
    value = milliseconds("tau_sheet", tau_sheet)
    if plasticity.definition.per_presentation:
        raise ParameterError(
            "tau_sheet",
            f"has no effect with the rule {plasticity.definition.name}, which makes one update a "
            "presentation; leave it out",
            tau_sheet,
        )
    rule = f"must be above half of dt = {step:g} ms, or steps are unstable"
    if not step / 2 < value < np.inf:
        raise ParameterError("tau_sheet", rule, tau_sheet)
    return value


def _below(root: np.random.SeedSequence, key: int) -> np.random.SeedSequence:
    """Return a stream that is not one of the patterns."""
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, 0, key))


def _sizes(input_shape: Any) -> tuple[int, ...]:
    given = listed(input_shape)
    if len(given) not in (1, 2):
        raise ParameterError("input_shape", "must be a length, or rows and columns", input_shape)
    return tuple(count("input_shape", size, minimum=1) for size in given)


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _gain(gain: float | None) -> float:
    if gain is None:
        return 1.0
    value = dimensionless("gain", gain)
    if not 0 <= value < 1:
        raise ParameterError(
            "gain",
            "must be from 0 to below 1, or lateral connections make the sheet's activity grow "
            "without end; None is the limit of 1, exact repetition",
            gain,
        )
    return float(value)


def _root(seed: Any) -> np.random.SeedSequence:
    if isinstance(seed, np.random.SeedSequence):
        return seed
    given = regular("seed", seed, "must be a whole number >= 0, or several")
    parts = [integer("seed", part, minimum=0) for part in np.atleast_1d(given)]
    return np.random.SeedSequence(parts if given.ndim else parts[0])


def _patterns(patterns: Any, layer: _Layer, root: np.random.SeedSequence) -> Any:
    rule = "must be their number, or an array of them"
    if regular("patterns", patterns, rule).ndim == 0:
        return GaussianInputs(count("patterns", patterns, minimum=0), layer.n_inputs, root)
    axes = len(layer.sheet)
    names = _PLANE[2:5] if axes == 2 else _LINE[1:3]
    values = array("patterns", patterns, ("presentation", *names), empty=True)
    period = (*[layer.kernel] * axes, layer.n_channels)
    if values.shape[1:] != period:
        raise ParameterError(
            "patterns",
            f"must have the shape (presentation, {', '.join(map(str, period))}): a field's",
            values.shape,
        )
    return as_source(values.reshape(len(values), -1))


def _recorded(record: Any, total: int) -> NDArray[np.int64]:
    if record is None:
        return np.unique([0, total])
    rule = f"must be from 0 to {total} presentations"
    if regular("record", record, rule).ndim == 0:
        every = integer("record", record, minimum=1)
        return np.unique([*range(0, total, every), total])
    numbers = [integer("record", number, minimum=0) for number in record]
    if max(numbers, default=0) > total:
        raise ParameterError("record", rule, record)
    return np.unique([*numbers, total])


def _run(wired: Wired, engine: str, codegen: str, progress: Progress | None) -> Slept:
    if engine != _NETWORK:

        def find(batch: Batch) -> Engine:
            return registry.get(registry.choose(batch) if engine == "auto" else engine, codegen)

        return by_pools(wired, find, progress)
    load_brian2()
    from circuitsim.engines.wired_network import by_network

    return by_network(wired, "numpy" if codegen == "auto" else codegen, progress)


def _labelled(layer: _Layer, wired: Wired, slept: Slept) -> xr.Dataset:
    plane = len(layer.sheet) == 2
    dims = _PLANE if plane else _LINE
    places = dims[: len(layer.sheet)]
    trace = np.repeat(layer.weights[np.newaxis], len(wired.record), axis=0)
    sleeping = (slice(None), *layer.asleep)
    trace[sleeping] = slept.weights.reshape(trace[sleeping].shape)
    measured = np.full((2, len(wired.record), len(slept.rate_inh), layer.n_outputs), np.nan)
    for pool in range(len(slept.rate_inh)):
        neurons = np.moveaxis(slept.weights[:, wired.pool == pool], -1, 1)
        if neurons.shape[2] > 1:
            measured[0, :, pool] = measures.snr_w(neurons)
            measured[1, :, pool] = measures.inverse_snr_w(neurons)
    sheets = slept.sheet.reshape(-1, *layer.sheet, layer.n_channels)
    cells = ("sheet_row", "sheet_column") if plane else ("sheet_position",)
    over = ("presentation", "pool_number", "output_channel")
    variables: dict[str, Any] = {
        "weights": (dims, trace[-1]),
        "weights_trace": (("presentation", *dims), trace),
        "sheet": (("presentation", *cells, "channel"), sheets),
        "snr_w": (over, measured[0]),
        "inverse_snr_w": (over, measured[1]),
        "pool": (places, layer.pool),
    }
    if not wired.plasticity.definition.per_presentation:
        rate = np.full((*layer.pool.shape, layer.n_outputs), np.nan)
        rate[layer.asleep] = slept.rate
        variables["rate"] = ((*places, "output_channel"), rate)
        variables["rate_inh"] = (over[1:], slept.rate_inh)
    made = xr.Dataset(variables, {"presentation": wired.record})
    names = LONG_NAMES | {
        "weights_trace": "feedforward weights after each presentation recorded",
        "sheet": "activity of the sheet at the end of the last presentation",
        "pool": "pool of each position; -1 awake",
        "presentation": "presentations since the initial weights",
    }
    for name in map(str, made.variables):
        made[name].attrs["long_name"] = names[name]
    return made
