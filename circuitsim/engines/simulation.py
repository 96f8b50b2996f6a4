"""`simulate`: check what the user gives, hand it to an engine, label what comes back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks import waits
from circuitsim.checks.validation import (
    ParameterError,
    array,
    count,
    flag,
    function,
    in_range,
    integer,
    milliseconds,
    pool_shape,
    regular,
    whole_steps,
)
from circuitsim.checks.values import PerNeuron
from circuitsim.engines import registry
from circuitsim.engines.batch import Array, Batch, Outcome, Progress, State
from circuitsim.engines.resume import Before
from circuitsim.inputs import ArrayInputs, InputSource, as_source
from circuitsim.parameters import (
    DT,
    PRESENTATION,
    Circuit,
    Plasticity,
    circuit_seeds,
    common_length,
    or_published,
    whole_delay,
)
from circuitsim.public import own

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__, "LONG_NAMES")

# Parameters of a circuit, and what gives their numbers.
_CIRCUIT = {
    "tau": "tau_ms",
    "alpha": "alpha",
    "b": "b",
    "tau_inh": "tau_inh_ms",
    "sigma": "sigma",
    "b_inh": "b_inh",
}

LONG_NAMES = {
    "snr_w": "signal-to-noise ratio of the weights (Eq. 6)",
    "inverse_snr_w": "mean over inputs of the inverse signal-to-noise ratio of the weights",
    "mean_weight_cosine": "cosine between the mean weights and the mean initial weights",
    "weights": "feedforward weights at the end",
    "w_init": "weights towards which gamma pulls",
    "momentum": "change of the weights per step of 1 ms (per update, where there are no steps)",
    "rate": "rate of the excitatory neurons at the end",
    "rate_inh": "rate of the inhibitory interneuron at the end",
    "rate_trace": "rate of the excitatory neurons after each step",
    "rate_inh_trace": "rate of the inhibitory interneuron after each step",
    "steps": "steps of dt done since the initial weights (0 in continuous time)",
    "elapsed": "time since the initial weights",
    "presentations": "presentations done since the initial weights",
    "presentation": "presentations since the initial weights",
    "time": "time since the initial weights",
    "alpha": "strength of inhibition",
    "tau": "time constant of the rates",
    "b": "baseline rate",
    "tau_inh": "time constant of the interneuron",
    "sigma": "standard deviation of the rates' noise",
    "gamma": "pull towards the initial weights",
    "b_inh": "baseline rate of the interneuron",
    "delay": "delay of inhibition",
    "to_inh": "weights of connections to interneurons",
    "from_inh": "weights of connections from interneurons",
    "rate_inh_past": "rates of the interneurons before the end, the latest last",
}

_READY = "getting ready: the code of an engine is compiled once, and kept for later runs"


def simulate(
    w_init: ArrayLike | None,
    inputs: ArrayLike | InputSource,
    circuit: Circuit | None = None,
    plasticity: Plasticity | None = None,
    presentation: Quantity = PRESENTATION,
    dt: Quantity | None = DT,
    engine: str | None = None,
    record_rates: bool = False,
    *,
    start: xr.Dataset | None = None,
    record: int | Sequence[int] | NDArray[np.integer] = 1,
    seed: int | Sequence[int] = 0,
    codegen: str = "auto",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run a circuit, or a batch of circuits of equal shape, over a sequence of inputs.

    Parameters
    ----------
    w_init : array_like, shape (neuron, input) or (circuit, neuron, input)
        Initial weights, dimensionless. May be None when ``start`` is given.
    inputs : array_like or InputSource
        Input patterns of shape (presentation, input) or (presentation, circuit, input),
        dimensionless.
    circuit : Circuit, optional
        The published one by default, with as many neurons as ``w_init``. Its array parameters,
        like gamma's, have one value for each circuit of the batch (`circuitsim.per_neuron`: for
        each neuron). Where they alone say that there are circuits, as many as neurons, of which
        both could be meant, this is an error.
    plasticity : Plasticity, optional
        The circuit's rule as published by default.
    presentation : Quantity, time
        How long each pattern is shown. Rules that make one update a presentation ignore it, as
        they do ``dt``.
    dt : Quantity, time
        Step of forward Euler. The learning rate and momentum are converted, so that learning does
        not depend on it. None for continuous time, which only the propagator offers.
    engine : str
        ``"brian2"``, the default: the network of neurons, its synapses updated once a presentation;
        ``"brian2_per_synapse"``: the same network in its plain form, every synapse updated at
        every step; ``"propagator"``: the same numbers from the exact solution, of linear circuits;
        ``"stepper"``: steps in code compiled from the equations, for any circuit; ``"auto"``: the
        propagator where it can, else the stepper, which the attribute ``engine`` then says.
    record_rates : bool
        Whether to return the rates after every step.
    start : xarray.Dataset, optional
        A result of `simulate` to go on from: its state, its numbering of presentations, its initial
        weights and its parameters, engine included, where no others are given. Others are noted in
        the attribute ``changed``.
    record : int or sequence of int
        Measure the weights after every ``record``-th presentation (and at both ends), or after the
        given numbers of presentations of this run.
    seed : int or sequence of int
        Of the rates' noise, where there is any: one for each circuit, or one for all of them, whose
        noise then differs by their numbers. Noise depends on nothing else.
    codegen : str
        How the engine's code is made: ``"auto"``, ``"cpp_standalone"``, ``"cython"`` or ``"numpy"``
        for Brian2; ``"auto"``, ``"numba"`` or ``"numpy"`` for the propagator and the stepper.
    progress : callable, optional
        Called now and then with the fraction done.

    Returns
    -------
    xarray.Dataset
        ``snr_w``, ``inverse_snr_w``, ``mean_weight_cosine`` (presentation); the final ``weights``
        (neuron, input) and, for rules of the circuit, ``rate`` (neuron) and ``rate_inh``; the rest
        of the state (``momentum``, ``w_init``, ``presentations``, ``elapsed`` and ``steps``); with
        ``record_rates`` ``rate_trace`` (time, neuron) and ``rate_inh_trace`` (time), time in ms.
        All with a leading ``circuit`` dimension where an argument had one. Parameters of the
        circuit and gamma are coordinates, over ``circuit`` where they were arrays, and else
        attributes too; the rule with its definition and how it was run are attributes.

    Raises
    ------
    ParameterError
        (a ValueError) If shapes do not fit, a value is out of its range, Euler would be unstable,
        or the engine cannot do what is asked.
    DimensionMismatchError
        If a time is given without its unit.
    FloatingPointError
        If the weights diverge, which means that the learning rate is too high.

    Examples
    --------
    >>> import numpy as np, circuitsim as cs
    >>> rng = np.random.default_rng(0)
    >>> w_init = 1 + rng.standard_normal((100, 9))
    >>> inputs = rng.standard_normal((50, 9))
    >>> run = cs.simulate(w_init, inputs, engine="brian2", codegen="numpy")
    >>> run.snr_w.sizes["presentation"]
    51
    """
    changed = ""
    if start is not None:
        before = Before(start)
        changed = before.changed(
            circuit,
            plasticity,
            None if presentation is PRESENTATION else presentation,
            None if dt is DT else dt,
        )
        circuit = before.circuit() if circuit is None else circuit
        plasticity = before.plasticity() if plasticity is None else plasticity
        presentation = before.presentation() if presentation is PRESENTATION else presentation
        dt = before.dt() if dt is DT else dt
        engine = before.engine() if engine is None else engine
    engine = "brian2" if engine is None else engine
    batch, has_circuits = make_batch(
        w_init, inputs, circuit, plasticity, presentation, dt, record_rates, start, record, seed
    )
    function("progress", progress)
    if isinstance(engine, str) and engine == registry.AUTO:
        engine = registry.choose(batch)
    with waits.told(_READY) if progress is None else nullcontext(progress) as over:
        outcome = registry.get(engine, codegen).run(batch, over)
    dataset = labelled(batch, outcome, has_circuits, engine)
    if changed:
        dataset.attrs["changed"] = changed
    return dataset


def labelled(batch: Batch, outcome: Outcome, has_circuits: bool, engine: str) -> xr.Dataset:
    """Return what `simulate` does, from what an engine has made of a batch."""
    _check_finite(outcome, batch)
    dataset = _label(batch, outcome)
    dataset.attrs.update({"engine": engine, **outcome.attributes})
    return dataset if has_circuits else dataset.isel(circuit=0)


def make_batch(
    w_init: ArrayLike | None,
    inputs: ArrayLike | InputSource,
    circuit: Circuit | None,
    plasticity: Plasticity | None,
    presentation: Quantity,
    dt: Quantity | None,
    record_rates: bool,
    start: xr.Dataset | None,
    record: int | Sequence[int] | NDArray[np.integer],
    seed: int | Sequence[int] = 0,
) -> tuple[Batch, bool]:
    """Check arguments as `simulate` takes them; return a batch, and whether one had circuits."""
    circuit, plasticity = or_published(circuit, plasticity)
    record_rates = flag("record_rates", record_rates)
    weights = _initial_weights(w_init, start)
    n_neurons, n_inputs = pool_shape("w_init", weights)
    if circuit.n_neurons is None:
        circuit = circuit.replace(n_neurons=n_neurons)
    source = as_source(inputs)
    if circuit.n_neurons != n_neurons:
        swapped = source.shape[0] == circuit.n_neurons and source.shape[-1] == n_inputs
        raise ParameterError(
            "w_init",
            f"must have as many neurons as the circuit, {circuit.n_neurons}"
            + ("; inputs has: were the two swapped?" if swapped else ""),
            weights.shape,
        )
    if source.shape[-1] != n_inputs:
        turned = "inputs" if source.shape[0] == n_inputs else "w_init"
        hint = f"; was {turned} transposed?"
        fits = turned == "inputs" or n_neurons == source.shape[-1]
        raise ParameterError(
            "inputs",
            f"must have as many inputs as w_init, {n_inputs}" + (hint if fits else ""),
            source.shape,
        )

    if start is None and isinstance(source, ArrayInputs):
        _warn_if_swapped(weights, source)

    # Which arguments have a dimension for circuits, and how many circuits they agree on.
    lengths = circuit.over_circuits() | {"gamma": plasticity.gamma}
    if weights.ndim == 3:
        lengths["w_init"] = weights[:, 0, 0]
    if len(source.shape) == 3:
        lengths["inputs"] = np.empty(source.shape[1])
    circuit.check_neurons(n_neurons, bool(lengths.keys() & {"w_init", "inputs"}))
    common = common_length("simulate", **lengths)
    n_circuits = common or 1
    if not plasticity.definition.per_presentation:
        circuit = circuit.drawn(n_neurons, seed, common)
    arrays = {name: getattr(circuit, of) for name, of in _CIRCUIT.items()}
    arrays["gamma"] = plasticity.gamma
    weights = np.broadcast_to(weights, (n_circuits, *weights.shape[-2:]))
    whole = {
        name: np.broadcast_to(
            np.asarray(values),
            (n_circuits, n_neurons) if isinstance(values, PerNeuron) else (n_circuits,),
        ).astype(float)
        for name, values in arrays.items()
    }

    per_presentation = plasticity.definition.per_presentation
    if per_presentation and record_rates:
        raise ParameterError(
            "record_rates",
            f"the rule {plasticity.definition.name} has no rates; use a rule of the circuit",
            True,
        )
    duration = milliseconds("presentation", presentation)
    in_range("presentation", duration, presentation, above=0, unit="ms")
    step = None
    steps = 0
    if per_presentation:
        step, steps = duration, 1
    elif dt is not None:
        step = milliseconds("dt", dt)
        in_range("dt", step, dt, above=0, unit="ms")
        circuit.check_step(step)
        if circuit.near_the_bound(step):
            warnings.warn(
                f"steps of {step:g} ms are near the bound of stability (2 tau/(1 + alpha) of the "
                "published circuit): mean rates ring more than in continuous time; use a smaller "
                "dt",
                stacklevel=3,
            )
        steps = whole_steps(duration, step)

    if step is not None:
        plasticity.check_step(step)

    delay = np.zeros(n_circuits, dtype=np.int64)
    if np.any(circuit.delay_ms) and not per_presentation:
        if step is None:
            raise ParameterError("Circuit.delay", "needs steps; give dt, not None", circuit.delay)
        times = np.broadcast_to(circuit.delay_ms, n_circuits)
        delay[:] = [whole_delay(float(time), step) for time in times]
    connected = circuit.connected and not per_presentation

    batch = Batch(
        w_init=np.ascontiguousarray(weights),
        inputs=source,
        **whole,
        plasticity=plasticity,
        presentation=duration,
        dt=step,
        steps=steps,
        state=_initial_state(weights, start, n_circuits),
        record=_recorded(record, source.shape[0]),
        record_rates=record_rates,
        arrays=frozenset(
            name
            for name, value in (arrays | {"delay": circuit.delay_ms}).items()
            if np.ndim(value) > isinstance(value, PerNeuron)
        ),
        dynamics=circuit.dynamics,
        seeds=circuit_seeds(seed, n_circuits),
        delay=delay,
        to_inh=_weights(circuit, "connect_ei", n_circuits) if connected else None,
        from_inh=_weights(circuit, "connect_ie", n_circuits) if connected else None,
    )
    _complete_state(batch, start)
    return batch, common is not None


def _weights(circuit: Circuit, name: str, n_circuits: int) -> Array:
    """Weights of the connections of each circuit, all of which are drawn already."""
    assert circuit.n_neurons is not None
    shape = (circuit.interneurons, circuit.n_neurons)
    given: Any = getattr(circuit, name)
    if given is None:  # to or from all of them alike
        given = 1 / shape[name == "connect_ei"]
    wanted = (n_circuits, *(shape if name == "connect_ei" else shape[::-1]))
    return np.array(np.broadcast_to(given, wanted), dtype=float)


def _complete_state(batch: Batch, start: xr.Dataset | None) -> None:
    """Give the state as many interneurons as there are, and their past where it counts."""
    state, n_circuits, number = batch.state, batch.shape[0], batch.n_interneurons
    if state.rate_inh.ndim > 1 and state.rate_inh.shape[1] != number:
        raise ParameterError(
            "start", f"must have as many interneurons as the circuit, {number}",
            state.rate_inh.shape[1],
        )  # fmt: skip
    if batch.to_inh is None:
        state.rate_inh = state.rate_inh.reshape(n_circuits)
    elif state.rate_inh.ndim == 1:
        state.rate_inh = np.repeat(state.rate_inh[:, np.newaxis], number, axis=1)
    longest = int(batch.delay.max())
    if longest:
        past = np.zeros((n_circuits, longest, number))
        before = None if start is None else Before(start).past(n_circuits)
        if before is not None and before.shape != past.shape:
            raise ParameterError("start", "must have the delay of the circuit", before.shape)
        state.past = past if before is None else before


def _initial_weights(w_init: ArrayLike | None, start: xr.Dataset | None) -> Array:
    before = None if start is None else Before(start).array("w_init", "neuron", "input")
    if w_init is None:
        if before is None:
            raise ParameterError("w_init", "must be given where start is not", None)
        return before
    weights = array("w_init", w_init, ("neuron", "input"), ("circuit", "neuron", "input"))
    if before is not None and not np.array_equal(weights, before):
        raise ParameterError(
            "w_init", "must be that of the run to go on from, or None", weights.shape
        )
    return weights


def _warn_if_swapped(weights: Array, inputs: ArrayInputs) -> None:
    """Warn where patterns look like a pool's weights, and weights like patterns."""
    patterns = inputs.block(0, 1000)
    if min(weights.shape[-2], len(patterns)) < 10:  # too few to tell
        return

    def in_common(values: Array, axis: int) -> float:
        """Mean over rows, in units of its standard error, averaged over columns."""
        error = values.std(axis=axis) / np.sqrt(values.shape[axis])
        return float(np.mean(np.abs(values.mean(axis=axis)) / np.maximum(error, 1e-300)))

    if in_common(weights, -2) < 1.5 and in_common(patterns, 0) > 5:
        warnings.warn(
            "the neurons' weights w_init have no mean in common, and the patterns of inputs have: "
            "were the two swapped? simulate(w_init, inputs) takes weights (neuron, input) first",
            stacklevel=4,
        )


def _initial_state(weights: Array, start: xr.Dataset | None, n_circuits: int) -> State:
    n_neurons = weights.shape[-2]
    if start is not None:
        return Before(start).state(n_circuits, n_neurons)
    return State(
        weights=np.array(weights),
        velocity=np.zeros(weights.shape),
        rate=np.zeros((n_circuits, n_neurons)),
        rate_inh=np.zeros(n_circuits),
    )


def _recorded(
    record: int | Sequence[int] | NDArray[np.integer], n_presentations: int
) -> NDArray[np.int64]:
    rule = f"must be whole numbers from 0 to {n_presentations} presentations"
    numbers = regular("record", record, rule)
    if numbers.ndim == 0:
        every = integer("record", record, minimum=1)
        numbers = np.append(np.arange(0, n_presentations, every), n_presentations)
        return np.unique(numbers).astype(np.int64)
    valid = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "iu"
    if not valid or numbers.min() < 0 or numbers.max() > n_presentations:
        raise ParameterError("record", rule, record)
    return np.unique(numbers).astype(np.int64)


def log_spaced(n_presentations: int, per_decade: int = 50) -> NDArray[np.int64]:
    """Numbers of presentations at equal distances on a logarithmic axis, for ``record``.

    Parameters
    ----------
    n_presentations : int
        Length of the run.
    per_decade : int
        At most how many for each factor of ten.

    Returns
    -------
    ndarray of int
        Ascending, with 0 and ``n_presentations``.

    Examples
    --------
    >>> log_spaced(1000, per_decade=1).tolist()
    [0, 1, 10, 100, 1000]
    """
    count("n_presentations", n_presentations, minimum=0)
    count("per_decade", per_decade, minimum=1)
    if n_presentations == 0:
        return np.zeros(1, dtype=np.int64)
    decades = np.log10(n_presentations)
    spaced = 10 ** np.linspace(0, decades, int(np.ceil(decades * per_decade)) + 1)
    return np.unique(np.concatenate([[0], np.round(spaced), [n_presentations]])).astype(np.int64)


def _check_finite(outcome: Outcome, batch: Batch) -> None:
    # Weights of a stable circuit stay as large as they were; this is far beyond, and NaN is too.
    bound = 1e6 * np.maximum(1, np.abs(batch.w_init).max(axis=(1, 2)))
    finite = np.abs(outcome.state.weights).max(axis=(1, 2)) < bound
    if not finite.all():
        worst = int(np.argmin(finite))
        raise FloatingPointError(
            f"the weights of {np.count_nonzero(~finite)} of {len(finite)} circuits diverged "
            f"(first: circuit {worst} with gamma = {batch.gamma[worst]:g}, "
            f"alpha = {np.mean(batch.alpha[worst]):g}); use a lower learning rate"
            + _too_large(batch, worst)
            + _unchecked(batch)
        )


def _unchecked(batch: Batch) -> str:
    """What to say of circuits whose rates may grow by themselves: it is not known of all."""
    if batch.plasticity.definition.per_presentation:
        return ""
    if batch.dynamics.linear and batch.to_inh is None and batch.tau.ndim == 1:
        return ""
    return (
        "; or the rates grew by themselves, with these equations or connections: use weaker "
        "inhibition, or a smaller dt"
    )


def _too_large(batch: Batch, circuit: int) -> str:
    """What to say of inputs that are larger than the published ones by far."""
    some = np.asarray(batch.inputs.block(0, min(64, batch.inputs.shape[0])))
    some = some if some.ndim == 2 else some[:, circuit]
    square = float(np.mean(some**2))
    if square < 10:
        return ""
    return (
        f", or scale the inputs: their mean square is {square:.3g}, and published learning rates "
        "are for one of 1"
    )


def _label(batch: Batch, outcome: Outcome) -> xr.Dataset:
    state, before = outcome.state, batch.state
    synapse = ("circuit", "neuron", "input")
    measured = ("circuit", "presentation")
    variables: dict[str, Any] = {
        "snr_w": (measured, outcome.snr_w),
        "inverse_snr_w": (measured, outcome.inverse_snr_w),
        "mean_weight_cosine": (measured, outcome.mean_weight_cosine),
        "weights": (synapse, state.weights),
        "momentum": (synapse, state.velocity),
        "w_init": (synapse, batch.w_init),
        "presentations": ((), state.presentations),
        "elapsed": ((), state.elapsed),
        "steps": ((), round(state.elapsed / batch.dt) if batch.dt else 0),
    }
    coordinates: dict[str, Any] = {
        "presentation": before.presentations + batch.record,
    }
    if not batch.plasticity.definition.per_presentation:
        variables["rate"] = (("circuit", "neuron"), state.rate)
        pool = ("circuit", "interneuron")[: state.rate_inh.ndim]
        variables["rate_inh"] = (pool, state.rate_inh)
        if state.past is not None:
            variables["rate_inh_past"] = (("circuit", "past", "interneuron"), state.past)
    if outcome.rate_trace is not None and batch.dt is not None:
        variables["rate_trace"] = (("circuit", "time", "neuron"), outcome.rate_trace)
        traced = ("circuit", "time", "interneuron")[: np.ndim(outcome.rate_inh_trace)]  # type: ignore[arg-type]
        variables["rate_inh_trace"] = (traced, outcome.rate_inh_trace)
        n_steps = outcome.rate_trace.shape[1]
        coordinates["time"] = before.elapsed + batch.dt * np.arange(1, n_steps + 1)
    parameters = {name: getattr(batch, name) for name in (*_CIRCUIT, "gamma")}
    for name, values in parameters.items():
        over = (("circuit",) if name in batch.arrays else ()) + ("neuron",) * (values.ndim - 1)
        coordinates[name] = (over, values if name in batch.arrays else values[0])
    if batch.delay.any():
        assert batch.dt is not None
        parameters["delay"] = late = batch.delay * batch.dt
        several = "delay" in batch.arrays
        coordinates["delay"] = (("circuit",), late) if several else ((), float(late[0]))
    if batch.to_inh is not None:
        coordinates["to_inh"] = (("circuit", "interneuron", "neuron"), batch.to_inh)
        coordinates["from_inh"] = (("circuit", "neuron", "interneuron"), batch.from_inh)
    if not batch.dynamics.raised:
        del coordinates["b_inh"], parameters["b_inh"]
    dataset = xr.Dataset(variables, coordinates)
    for name in map(str, dataset.variables):
        # A unit of "1" would stand in brackets beside every label of xarray's plots.
        unit = {"units": "ms"} if name in ("time", "elapsed", "tau", "tau_inh", "delay") else {}
        dataset[name].attrs = {"long_name": LONG_NAMES[name]} | unit
    dataset.attrs = {
        f"{name}_ms" if name in ("tau", "tau_inh", "delay") else name: float(dataset[name])
        for name in parameters
        if not dataset[name].ndim
    }
    dataset.attrs |= {
        "rule": batch.plasticity.rule,
        "signal": batch.plasticity.definition.signal,
        "excitatory": f"dr/dt = {batch.dynamics.excitatory}",
        "interneuron": f"dr_inh/dt = {batch.dynamics.interneuron}",
        "learning_rate": repr(batch.plasticity.learning_rate),
        "heavy_ball_momentum": batch.plasticity.momentum,
        "presentation_ms": batch.presentation,
        "dt_ms": np.nan if batch.dt is None else batch.dt,
    }
    return dataset
