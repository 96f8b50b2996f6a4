"""What is simulated: the circuit, its plasticity, and the published protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim import equations, rules
from circuitsim.checks.validation import (
    ParameterError,
    count,
    dimensionless,
    in_range,
    integer,
    milliseconds,
    per_neuron,
    regular,
)
from circuitsim.checks.validation import array as checked_array
from circuitsim.checks.values import (
    Milliseconds,
    PerNeuron,
    TimeField,
    Values,
    frozen_time,
    in_ms,
    is_time,
    ms,
)
from circuitsim.dynamics import Dynamics, dynamics, noisy
from circuitsim.public import own
from circuitsim.schedules import HyperbolicRate, InverseSqrtRate, LearningRate
from circuitsim.typesetting import Section, shown

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__, "DT", "PRESENTATION", "PUBLISHED_RATES")

# The published protocol of Figure 4 (the authors' code), beside the defaults below.
PRESENTATION = 150 * ms
DT = 1 * ms
_LONGEST_DELAY = 1000  # steps: stability is asked of a matrix of as many rows
_MOST_INTERNEURONS = 10_000
PUBLISHED_RATES: dict[bool, LearningRate] = {
    True: HyperbolicRate(0.5, offset=1000),
    False: InverseSqrtRate(3e-4, timescale=2 * ms, onset=50 * ms),
}


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Values):
    """A pool of excitatory rate neurons with one inhibitory interneuron (Eqs. 7-8).

    Parameters
    ----------
    n_neurons : int, optional
        Number of excitatory neurons in the pool, N; >= 2. As many as the weights have by default.
    tau : Quantity, time
        Time constant of all rates; > 0. One, or one for each circuit.
    alpha : float or array, shape (circuit,)
        Strength of inhibition; >= 0.
    b : float or array, shape (circuit,)
        Baseline rate of the excitatory neurons.
    tau_inh : Quantity, time, optional
        Time constant of the interneuron; > 0. `tau` by default.
    sigma : float or array, shape (circuit,)
        Standard deviation of the noise that the rates of the excitatory neurons have by themselves,
        sigma sqrt(2/tau) xi; >= 0.
    transfer : str
        What the excitatory neurons make of u = z - alpha r_inh + b: ``"linear"``, ``"relu"``,
        ``"softplus"``, ``"tanh"`` or an expression of ``u``.
    excitatory, interneuron : str, optional
        Whole equations, ``"dr/dt = ..."`` of r, r_inh, z, b, b_inh, alpha, tau and
        ``"dr_inh/dt = ..."`` of r_inh, r_mean, b, b_inh, tau, tau_inh.
    transfer_inh : str
        As `transfer`, what the interneuron makes of u = r_mean - b + b_inh.
    b_inh : float or array, shape (circuit,)
        Baseline rate of the interneuron, above which it inhibits and below which it disinhibits:
        neurons, and rules, see r_inh - b_inh. So a rectified interneuron can signal both signs.
    delay : Quantity, time, optional
        How much later neurons (and rules) see the interneuron's rate; >= 0, a whole number of
        steps. One, or one for each circuit.
    interneurons : int
        How many there are. A neuron sees the mean of their rates.
    connect_ei, connect_ie : float or array, optional
        Probability of each connection from a neuron to an interneuron, and from an interneuron to
        a neuron; in [0, 1]. An interneuron's r_mean is the mean over neurons that connect to it. A
        connection to a neuron is as strong as if there were as many as are expected: the sum of a
        neuron's connections differs as their number does. Drawn from the seed of `simulate`. Or
        the connections' weights themselves, shape (interneuron, neuron) and (neuron, interneuron),
        or these for each circuit.
    spread_alpha, spread_tau : float
        Standard deviation over neurons of `alpha` and of `tau` (the interneuron's is as it is), as
        a share of their mean; in [0, 1). Drawn from the seed of `simulate`, independent and
        Gaussian, but no alpha below 0 and no tau below a tenth.

    `alpha` and `tau` may differ between neurons too: see `circuitsim.per_neuron`.

    Raises
    ------
    ParameterError
        (a ValueError) If a value is out of its range, or arrays differ in length.
    DimensionMismatchError
        If `tau` is not a time, or another parameter has a unit.

    Examples
    --------
    >>> from brian2 import ms
    >>> Circuit(tau=20 * ms, alpha=3).alpha
    3.0
    """

    n_neurons: int | None = None
    tau: Quantity = TimeField(30 * ms)  # noqa: RUF009
    alpha: ArrayLike = 10.0
    b: ArrayLike = 1.0
    tau_inh: Quantity | None = TimeField(None, optional=True)  # noqa: RUF009
    sigma: ArrayLike = 0.0
    transfer: str = "linear"
    excitatory: str | None = None
    interneuron: str | None = None
    transfer_inh: str = "linear"
    b_inh: ArrayLike = 0.0
    delay: Quantity | None = TimeField(None, optional=True)  # noqa: RUF009
    interneurons: int = 1
    connect_ei: ArrayLike | None = None
    connect_ie: ArrayLike | None = None
    spread_alpha: float = 0.0
    spread_tau: float = 0.0

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        if self.n_neurons is not None:
            set_(self, "n_neurons", count("Circuit.n_neurons", self.n_neurons, minimum=2))
        given = self._given()["tau"]
        tau = milliseconds("Circuit.tau", given, array=True)
        in_range("Circuit.tau", tau, given, above=0, unit="ms")
        set_(self, "_tau_ms", tau)
        if np.ndim(tau):
            set_(self, "tau", frozen_time(given))
        alpha = dimensionless("Circuit.alpha", self.alpha, array=True)
        in_range("Circuit.alpha", alpha, self.alpha, minimum=0)
        set_(self, "alpha", alpha)
        set_(self, "b", dimensionless("Circuit.b", self.b, array=True))
        sigma = dimensionless("Circuit.sigma", self.sigma, array=True)
        in_range("Circuit.sigma", sigma, self.sigma, minimum=0)
        set_(self, "sigma", sigma)
        slower = self._given()["tau_inh"]
        tau_inh = tau
        if slower is not None:
            tau_inh = milliseconds("Circuit.tau_inh", slower, array=True)
            in_range("Circuit.tau_inh", tau_inh, slower, above=0, unit="ms")
        set_(self, "_tau_inh_ms", tau_inh)
        set_(self, "b_inh", dimensionless("Circuit.b_inh", self.b_inh, array=True))
        late = self._given()["delay"]
        delay = 0.0 if late is None else milliseconds("Circuit.delay", late, array=True)
        in_range("Circuit.delay", delay, late, minimum=0, unit="ms")
        set_(self, "_delay_ms", delay)
        common_length(
            "Circuit", tau=tau, alpha=alpha, b=self.b, tau_inh=tau_inh, sigma=sigma,
            b_inh=self.b_inh, delay=delay,
        )  # fmt: skip
        for name in ("b", "sigma", "b_inh"):
            if isinstance(getattr(self, name), PerNeuron):
                raise ParameterError(
                    f"Circuit.{name}", "must be one, or one for each circuit", getattr(self, name)
                )
        for name, times in (("tau_inh", tau_inh), ("delay", delay)):
            if isinstance(times, PerNeuron) and (name == "delay" or slower is not None):
                raise ParameterError(
                    f"Circuit.{name}", "must be one, or one for each circuit", times
                )
        self._check_connections()
        for name, of in (("spread_alpha", alpha), ("spread_tau", tau)):
            spread = dimensionless(f"Circuit.{name}", getattr(self, name))
            in_range(f"Circuit.{name}", spread, spread, minimum=0, below=1)
            set_(self, name, spread)
            if spread and isinstance(of, PerNeuron):
                raise ParameterError(
                    f"Circuit.{name}", "has no effect with one value for each neuron", spread
                )
        equations_ = dynamics(
            self.transfer, self.excitatory, self.interneuron,
            slower is not None or bool(self.spread_tau and self.interneuron is None),
            self.transfer_inh, bool(np.any(self.b_inh)),
            bool(np.any(np.asarray(alpha) != 10.0) or self.spread_alpha),
        )  # fmt: skip
        set_(self, "_dynamics", equations_)
        several = isinstance(tau, PerNeuron) or self.spread_tau
        if slower is None and several and re.search(r"\btau\b", equations_.interneuron):
            raise ParameterError(
                "Circuit.tau_inh", "must be given where tau differs between neurons", None
            )
        if self.excitatory is not None and noisy(self.excitatory) and not np.any(sigma):
            raise ParameterError(
                "Circuit.sigma", "must be > 0 for the noise of the equation", sigma
            )

    def _check_connections(self) -> None:
        set_ = object.__setattr__
        number = count("Circuit.interneurons", self.interneurons, minimum=1)
        if number > _MOST_INTERNEURONS:
            raise ParameterError(
                "Circuit.interneurons", f"must be at most {_MOST_INTERNEURONS}", number
            )
        set_(self, "interneurons", number)
        for name, dims in (
            ("connect_ei", ("interneuron", "neuron")),
            ("connect_ie", ("neuron", "interneuron")),
        ):
            given = getattr(self, name)
            if given is None:
                continue
            if np.ndim(given) == 0:
                value: Any = dimensionless(f"Circuit.{name}", given)
                if not 0 <= value <= 1:
                    raise ParameterError(
                        f"Circuit.{name}", "must be a probability, from 0 to 1, or weights", given
                    )
            else:
                value = checked_array(f"Circuit.{name}", given, dims, ("circuit", *dims))
                shape = dict(zip(dims, value.shape[-2:], strict=True))
                wanted = {"interneuron": number, "neuron": self.n_neurons}
                if any(wanted[dim] not in (None, shape[dim]) for dim in dims):
                    asked = ", ".join(str(wanted[dim] or "neuron") for dim in dims)
                    raise ParameterError(
                        f"Circuit.{name}", f"must have the shape ({asked})", value.shape
                    )
                value = np.array(value)
                value.setflags(write=False)
            set_(self, name, value)

    @property
    def connected(self) -> bool:
        """Whether there are several interneurons, or connections that not all have."""
        given = (self.connect_ei, self.connect_ie)
        return self.interneurons > 1 or any(v is not None for v in given)

    @property
    def delay_ms(self) -> float | NDArray[np.float64]:
        """`delay` in milliseconds, without its unit."""
        return self._delay_ms  # type: ignore[attr-defined]

    @property
    def tau_ms(self) -> float | NDArray[np.float64]:
        """`tau` in milliseconds, without its unit."""
        return self._tau_ms  # type: ignore[attr-defined]

    @property
    def tau_inh_ms(self) -> float | NDArray[np.float64]:
        """`tau_inh` in milliseconds, without its unit."""
        return self._tau_inh_ms  # type: ignore[attr-defined]

    @property
    def dynamics(self) -> Dynamics:
        """The right-hand sides of the equations."""
        return self._dynamics  # type: ignore[attr-defined]

    @property
    def solvable(self) -> bool:
        """Whether it has closed solutions: linear, of neurons alike, without noise or delay.

        Without drive it must rest at its baselines, from where the rules' signals count.
        """
        alike = not any(isinstance(v, PerNeuron) for v in (self.alpha, self.tau_ms))
        alike = alike and not (self.spread_alpha or self.spread_tau or self.connected)
        prompt = not (np.any(self.sigma) or np.any(self.delay_ms))
        constants = {"alpha": self.alpha, "tau": self.tau_ms, "tau_inh": self.tau_inh_ms}
        return alike and prompt and self.dynamics.solvable(self.b, self.b_inh, **constants)

    @property
    def n_circuits(self) -> int | None:
        """Length of the arrays over circuits, None if there are none."""
        return common_length("Circuit", **self.over_circuits())

    def over_circuits(self) -> dict[str, Any]:
        """Return the parameters that may have one value for each circuit, by their names."""
        arrays = {
            "tau": self.tau_ms, "alpha": self.alpha, "b": self.b, "tau_inh": self.tau_inh_ms,
            "sigma": self.sigma, "b_inh": self.b_inh, "delay": self.delay_ms,
        }  # fmt: skip
        for name in ("connect_ei", "connect_ie"):
            if np.ndim(weights := getattr(self, name)) == 3:
                arrays[name] = np.asarray(weights)[:, 0, 0]
        return arrays

    def drawn(
        self, n_neurons: int, seed: int | Sequence[int] = 0, n_circuits: int | None = None
    ) -> Circuit:
        """Return the circuit with all that it leaves to chance: spreads, and connections.

        Parameters
        ----------
        n_neurons : int
            Number of neurons.
        seed : int or sequence of int
            As in `circuitsim.simulate`, which draws the same.
        n_circuits : int, optional
            How many there are; None for one without a dimension of circuits.

        Raises
        ------
        ParameterError
            If there are not as many seeds as circuits.
        """
        values: dict[str, Any] = {"n_neurons": n_neurons}
        seeds = circuit_seeds(seed, n_circuits or 1)
        shape = () if n_circuits is None else (n_circuits,)
        for number, (name, mean, least) in enumerate(
            (("alpha", self.alpha, 0.0), ("tau", self.tau_ms, 0.1))
        ):
            if spread := getattr(self, f"spread_{name}"):
                numbers = np.array([_drawn(s, number).standard_normal(n_neurons) for s in seeds])
                factors = np.maximum(1 + spread * numbers, least).reshape(*shape, n_neurons)
                each = np.asarray(mean)[..., np.newaxis] * factors
                values[f"spread_{name}"] = 0.0
                values[name] = per_neuron(each * ms if name == "tau" else each)
        if self.spread_tau and re.search(r"\btau_inh\b", self.dynamics.interneuron):
            values["tau_inh"] = self.tau_inh_ms * ms
        for place, name in enumerate(("connect_ei", "connect_ie")):
            given = getattr(self, name)
            if given is None or np.ndim(given):
                continue
            dims = (self.interneurons, n_neurons) if place == 0 else (n_neurons, self.interneurons)
            there = np.array([_drawn(seed, 2 + place).random(dims) < given for seed in seeds])
            if name == "connect_ei":
                weights = there / np.maximum(there.sum(axis=-1, keepdims=True), 1)
            else:
                weights = there / max(float(given) * self.interneurons, np.finfo(float).tiny)
            values[name] = weights.reshape(*shape, *dims)
        return self.replace(**values)

    def check_neurons(self, n_neurons: int, circuits: bool) -> None:
        """Raise a `ParameterError` for arrays that do not fit so many neurons, or may be over them.

        Parameters
        ----------
        n_neurons : int
            Of the weights.
        circuits : bool
            Whether it is said that there are circuits, so that arrays can be over them alone.
        """
        for name, values in (("alpha", self.alpha), ("tau", self.tau_ms)):
            if isinstance(values, PerNeuron):
                if values.shape[-1] != n_neurons:
                    raise ParameterError(
                        f"Circuit.{name}",
                        f"must have one value for each of {n_neurons} neurons",
                        values,
                    )
            elif np.shape(values) == (n_neurons,) and not circuits:
                raise ParameterError(
                    f"Circuit.{name}",
                    f"has as many values as there are neurons, {n_neurons}: write "
                    f"{name}=circuitsim.per_neuron(...) if neurons differ in it, or give w_init a "
                    f"first dimension of as many circuits if these do",
                    np.shape(values),
                )

    def check_step(self, dt: float) -> None:
        """Raise a `ParameterError` if forward Euler with steps of ``dt`` ms is unstable.

        As `circuitsim.dynamics.Slopes.euler_bound` says of the equations; for the published ones
        dt must be < 2 tau/(1 + alpha). Transfer functions are taken with a slope of 1, the steepest
        of those that have names; equations given as text are not checked where they are not linear.
        """
        linear = self._linear
        if linear is None:
            return
        parameters = self._of_mean_mode
        bound = np.asarray(linear.slopes(*parameters).euler_bound())
        if np.any(unstable := dt >= bound * (1 - 1e-12)):  # at it, too, whatever rounding says
            worst = (float(values[unstable][0]) for values in (*parameters, bound))
            self._refuse_step(dt, linear, *worst)
        self._check_delay(dt, linear)

    @property
    def _linear(self) -> Dynamics | None:
        """The equations, a transfer function with a slope of 1; None where that is not known."""
        made = self.dynamics
        if made.linear:
            return made
        if self.excitatory is not None or self.interneuron is not None:
            return None
        return dynamics(slower="tau_inh" in made.interneuron)

    @property
    def _of_mean_mode(self) -> list[NDArray[np.float64]]:
        """alpha, tau and tau_inh of the mean: means, and the shortest times, over neurons."""
        every = ((self.alpha, np.mean), (self.tau_ms, np.min), (self.tau_inh_ms, np.min))
        return list(
            np.broadcast_arrays(
                *(reduce(v, axis=-1) if isinstance(v, PerNeuron) else v for v, reduce in every)
            )
        )

    @staticmethod
    def _refuse_step(
        dt: float, linear: Dynamics, alpha: float, tau: float, tau_inh: float, bound: float
    ) -> None:
        if bound == 0:
            raise ParameterError(
                "Circuit",
                f"must have rates that come to rest; with alpha = {alpha:g} they grow without end",
                linear.excitatory,
            )
        remedy = f"dt < {bound:.3g} ms"
        highest = linear.highest_alpha(dt, tau, tau_inh)
        if 0 < highest <= alpha * (1 + 1e-12):
            raise ParameterError(
                "Circuit.alpha",
                f"Euler with dt = {dt:g} ms is unstable from alpha = {highest:.4g} up for "
                f"tau = {tau:g} ms; use a smaller alpha, or {remedy}",
                alpha,
            )
        # No alpha would do.
        if tau_inh != tau:
            rule = f"is unstable for tau = {tau:g} ms and tau_inh = {tau_inh:g} ms; use {remedy}"
            raise ParameterError("dt", f"Euler {rule}", Milliseconds(dt))
        raise ParameterError(
            "Circuit.tau",
            f"must be > {tau * dt / bound:g} ms for alpha = {alpha:g} and dt = {dt:g} ms, or Euler "
            f"is unstable; use {remedy}, unless it was meant in seconds",
            Milliseconds(tau),
        )

    def _check_delay(self, dt: float, linear: Dynamics) -> None:
        """Refuse circuits that late inhibition makes oscillate more and more."""
        if not np.any(self.delay_ms) or not self.dynamics.linear:
            return
        if isinstance(self.tau_ms, PerNeuron):
            return
        every = np.broadcast_arrays(*self._of_mean_mode, self.delay_ms)
        for alpha, tau, tau_inh, delay in zip(*map(np.ravel, every), strict=True):
            late = whole_delay(delay, dt)
            change = linear.slopes(alpha, tau, tau_inh).over(dt)
            step = np.zeros((late + 2, late + 2))  # of r, r_inh, and r_inh before
            step[0, 0], step[0, -1] = 1 + change.rate, change.inhibition
            step[1, :2] = change.received, 1 + change.leak
            step[np.arange(2, late + 2), np.arange(1, late + 1)] = 1
            if np.abs(np.linalg.eigvals(step)).max() >= 1:
                raise ParameterError(
                    "Circuit.delay",
                    f"makes rates oscillate more and more with alpha = {alpha:g}, tau = {tau:g} "
                    "ms; use a smaller delay or alpha",
                    f"{delay:g} ms",
                )

    def near_the_bound(self, dt: float) -> bool:
        """Whether steps of ``dt`` ms are stable, but so long that the mean rings far too much."""
        linear = self._linear
        if linear is None:
            return False
        return bool(np.any(dt > 0.9 * linear.slopes(*self._of_mean_mode).euler_bound()))

    def section(self) -> Section:
        """Equations and parameters, to be shown."""
        values = {"tau": self.tau_ms, "alpha": self.alpha, "b": self.b}
        if "tau_inh" in self.dynamics.interneuron:
            values["tau_inh"] = self.tau_inh_ms
        if self.dynamics.raised:
            values["b_inh"] = self.b_inh
        for name in ("delay_ms", "spread_alpha", "spread_tau", "connect_ei", "connect_ie"):
            if (value := getattr(self, name)) is not None and np.any(value):
                values[name.removesuffix("_ms")] = value
        noise = ""
        if np.any(self.sigma):
            values["sigma"], noise = self.sigma, " + sigma*sqrt(2/tau)*xi"
        parameters = {name: shown(name, value) for name, value in values.items()}
        number = "N"
        if self.n_neurons is not None:
            number = str(self.n_neurons)
            parameters = {"n_neurons": number} | parameters
        inhibitory = "one interneuron" if self.interneurons == 1 else "interneurons"
        if self.interneurons > 1:
            parameters["interneurons"] = str(self.interneurons)
        return Section(
            f"Circuit (Eqs. 7-8): {number} excitatory neurons and {inhibitory}",
            [
                f"dr/dt = {self.dynamics.excitatory}{noise}",
                f"dr_inh/dt = {self.dynamics.interneuron}",
            ],
            "z = w.x, and r_mean is the mean of r over the neurons",
            parameters,
        )

    def _repr_html_(self) -> str:
        return self.section().html()


class StepConstants(NamedTuple):
    """Heavy-ball momentum and learning rate of one step, from those of a step of 1 ms."""

    momentum: float
    rate_factor: float


@dataclass(frozen=True, eq=False, repr=False)
class Plasticity(Values):
    """A plasticity rule with its learning rate: how the feedforward weights change.

    The update of w_i is -(signal_i x + gamma (w_i - w_i^init)), see `circuitsim.rules`, low-pass
    filtered by heavy-ball momentum: m <- momentum m + learning_rate * update, w <- w + m.

    Parameters
    ----------
    rule : str
        ``"circuit"`` (Eq. 9), ``"mean_subtracted"`` (Eq. 4), ``"inhibition_gated"``, or whatever
        else `circuitsim.rules.get` takes; kept with its definition, ``"name = signal"``.
    gamma : float or array, shape (circuit,)
        Strength of the pull towards the initial weights; >= 0.
    momentum : float
        Heavy-ball momentum of a step of 1 ms (or of an update, for a rule that makes one a
        presentation); in [0, 1). It stands for a low-pass filter with the time constant
        1 ms/(1 - momentum), and 0 for no filter at all.
    learning_rate : LearningRate, optional
        `InverseSqrtRate` for rules that learn at every step, `HyperbolicRate` for rules that make
        one update a presentation, `ConstantRate` for either. The published one by default.
    bounds : (float, float), optional
        Between which weights are clipped at every update, such as ``(0, numpy.inf)`` (Dale). Only
        the engine ``brian2_per_synapse`` does that for rules of the circuit.

    Raises
    ------
    ParameterError
        (a ValueError) If a value is out of its range, or the learning rate is not of the kind
        that the rule needs.
    DimensionMismatchError
        If `gamma` or `momentum` has a unit.
    """

    rule: str = "circuit"
    gamma: ArrayLike = 0.01
    momentum: float = 0.95
    learning_rate: LearningRate = None  # type: ignore[assignment]  # depends on the rule
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        if self.bounds is not None:
            set_(self, "bounds", _bounds(self.bounds))
        set_(self, "rule", str(rules.get(self.rule, "Plasticity.rule")))
        gamma = dimensionless("Plasticity.gamma", self.gamma, array=True)
        in_range("Plasticity.gamma", gamma, self.gamma, minimum=0)
        set_(self, "gamma", gamma)
        momentum = dimensionless("Plasticity.momentum", self.momentum)
        in_range("Plasticity.momentum", momentum, self.momentum, minimum=0, below=1)
        set_(self, "momentum", momentum)
        per_presentation = self.definition.per_presentation
        if self.learning_rate is None:
            set_(self, "learning_rate", PUBLISHED_RATES[per_presentation])
        counts, kinds = (
            ("presentations", "HyperbolicRate or ConstantRate")
            if per_presentation
            else ("time", "InverseSqrtRate or ConstantRate")
        )
        if not isinstance(self.learning_rate, LearningRate):
            raise ParameterError(
                "Plasticity.learning_rate", f"must be of {kinds}", self.learning_rate
            )
        if counts not in self.learning_rate.counts:
            how = "makes one update a presentation" if per_presentation else "learns at every step"
            raise ParameterError(
                "Plasticity.learning_rate",
                f"the rule {self.definition.name} {how} and needs a rate in {counts}: {kinds}",
                self.learning_rate,
            )

    @property
    def definition(self) -> rules.Rule:
        """The rule itself: its signal, and what follows from it."""
        return rules.get(self.rule)

    @property
    def per_synapse(self) -> bool:
        """Whether every synapse must be updated at every step: its signal is its own, or bounds."""
        return self.bounds is not None or self.definition.per_synapse

    def per_step(self, dt: float) -> StepConstants:
        """Momentum and learning-rate factor of one step of ``dt`` ms.

        Heavy-ball momentum mu per step is a low-pass filter of the update with the time constant
        tau_m = dt/(1 - mu), so that the learning rate per ms is rate/(dt (1 - mu)). Both are kept
        when dt changes; then learning does not depend on dt, except for Euler's error.

        Raises
        ------
        ParameterError
            If the step is longer than tau_m.
        """
        if self.momentum == 0:
            return StepConstants(0.0, dt)
        time_constant = 1 / (1 - self.momentum)
        if dt > time_constant:
            raise ParameterError(
                "Plasticity.momentum",
                f"stands for a filter of 1 ms/(1 - momentum) = {time_constant:g} ms, which steps "
                f"of dt = {dt:g} ms cannot resolve; use a smaller dt, or momentum = 0",
                self.momentum,
            )
        # 1 - dt/time_constant, written so that dt = 1 ms gives the momentum back to the last bit.
        momentum = self.momentum if dt == 1 else 1 - dt * (1 - self.momentum)
        return StepConstants(momentum, dt**2)

    def check_step(self, dt: float) -> None:
        """Raise a `ParameterError` if steps of ``dt`` ms are too long for the learning.

        With heavy-ball momentum mu the pull towards the initial weights is stable only for
        rate * gamma < 2 (1 + mu).
        """
        if self.definition.per_presentation:
            momentum, highest = self.momentum, float(self.learning_rate.at(0))
        else:
            momentum, factor = self.per_step(dt)
            first = self.learning_rate.first_step(dt) * dt
            highest = factor * float(self.learning_rate.at(first))
        gamma = float(np.asarray(self.gamma).max())
        if highest * gamma >= 2 * (1 + momentum):
            raise ParameterError(
                "Plasticity.gamma",
                f"must be < {2 * (1 + momentum) / highest:.4g} for this learning rate, or the pull "
                "overshoots further and further",
                gamma,
            )

    def section(self) -> Section:
        """Equations and parameters, to be shown."""
        rule, learning_rate = self.definition, self.learning_rate
        update = equations.LEARN.strip().replace("signal_post", f"({rule.signal})")
        statements = [re.sub(r"_(pre|post)\b", "", line) for line in update.splitlines()]
        if self.bounds is not None:
            statements.append("w = clip(w, {:g}, {:g})".format(*self.bounds))
        statements.append(f"rate = {learning_rate.expression}")
        if rule.per_presentation:
            how = (
                "once a presentation; z = w.x, z_mean is its mean over the pool, and presented "
                "counts presentations"
            )
        else:
            how = "at every step, with the new rates; elapsed is the time since the start"
        if rule.average is not None:
            how += f"; averaged over inputs it acts like that of {rule.average}"
        values = {"gamma": self.gamma, "momentum": self.momentum}
        for name, value in learning_rate.constants.items():
            values[name] = float(in_ms(value) if is_time(value) else value)
        return Section(
            f"Plasticity: {rule.name}" + (f", {rule.summary}" if rule.summary else ""),
            statements,
            f"the update is made {how}",
            {name: shown(name, value) for name, value in values.items()},
        )

    def _repr_html_(self) -> str:
        return self.section().html()


def circuit_seeds(seed: int | Sequence[int], n_circuits: int) -> list[np.random.SeedSequence]:
    """Return a seed for each circuit, from one for all or one for each.

    Raises
    ------
    ParameterError
        If there are not as many.
    """
    rule = f"must be one, or one for each of {n_circuits} circuits"
    given = regular("seed", seed, rule)
    if given.ndim == 0:
        root = integer("seed", seed, minimum=0)
        return [np.random.SeedSequence(root, spawn_key=(i,)) for i in range(n_circuits)]
    seeds = [integer("seed", each, minimum=0) for each in given.ravel()]
    if len(seeds) != n_circuits:
        raise ParameterError("seed", rule, seed)
    return [np.random.SeedSequence(each, spawn_key=(0,)) for each in seeds]


def _drawn(seed: np.random.SeedSequence, number: int) -> np.random.Generator:
    """Return the stream of what a circuit is made of: no presentation's, whose keys are shorter."""
    key = (*seed.spawn_key, 0, number)
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key))


def _bounds(given: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        rule = "must be two numbers, the lower first, such as (0, inf)"
        raise ParameterError("Plasticity.bounds", rule, given)
    return low, high


def whole_delay(delay: float, dt: float) -> int:
    """Return how many steps of ``dt`` make a delay, both in ms; raises a `ParameterError`."""
    if not delay / dt <= _LONGEST_DELAY:
        raise ParameterError(
            "Circuit.delay", f"must be at most {_LONGEST_DELAY} steps of dt = {dt:g} ms",
            f"{delay:g} ms",
        )  # fmt: skip
    steps = round(delay / dt)
    if not np.isclose(steps * dt, delay, rtol=1e-9, atol=0):
        raise ParameterError(
            "Circuit.delay", f"must be a whole number of steps of dt = {dt:g} ms", f"{delay:g} ms"
        )
    return steps


def or_published(
    circuit: Circuit | None, plasticity: Plasticity | None
) -> tuple[Circuit, Plasticity]:
    """Return a circuit and plasticity that are given, the published ones in place of None.

    Raises
    ------
    ParameterError
        If one is something else.
    """
    if not isinstance(circuit, Circuit | None):
        raise ParameterError("circuit", "must be a circuitsim.Circuit", circuit)
    if not isinstance(plasticity, Plasticity | None):
        rule = "must be a circuitsim.Plasticity, such as Plasticity('circuit')"
        raise ParameterError("plasticity", rule, plasticity)
    return circuit or Circuit(), plasticity or Plasticity()


def common_length(owner: str, **values: Any) -> int | None:
    """Return the length that the arrays among ``values`` share, or None if there is no array.

    Raises
    ------
    ParameterError
        If they differ.
    """
    lengths = {
        name: len(value)
        for name, value in values.items()
        if np.ndim(value) > isinstance(value, PerNeuron)
    }
    if len(set(lengths.values())) > 1:
        raise ParameterError(owner, "arrays over circuits must have one length", lengths)
    return next(iter(lengths.values()), None)
