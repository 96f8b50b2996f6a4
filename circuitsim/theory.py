"""Closed forms: where the rates settle, where the weights end, and when Euler is stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim import rules
from circuitsim.checks.validation import (
    ParameterError,
    array,
    dimensionless,
    fitting,
    flag,
    in_range,
    milliseconds,
    whole_steps,
)
from circuitsim.checks.values import is_time, ms
from circuitsim.dynamics import Dynamics, averaged
from circuitsim.inputs import spectrum
from circuitsim.public import own

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__)


class Rates(NamedTuple):
    """Rates of the excitatory neurons, shape (..., neuron), and of the interneuron, shape (...)."""

    rate: NDArray[np.float64]
    rate_inh: NDArray[np.float64]


def fast_fixed_point(drive: ArrayLike, alpha: ArrayLike = 10.0, b: ArrayLike = 1.0) -> Rates:
    """Rates to which the circuit settles while weights and input stay the same (Eqs. 7-8).

    r_i* = b + z_i - alpha/(1 + alpha) zbar and r_inh* = zbar/(1 + alpha).

    Parameters
    ----------
    drive : array_like, shape (..., neuron)
        Drive of each neuron, z_i = w_i.x.
    alpha, b : array_like, shape (...)
        Strength of inhibition and baseline rate.

    Returns
    -------
    Rates
        ``rate`` of shape (..., neuron) and ``rate_inh`` of shape (...).

    Raises
    ------
    ParameterError
        If one is no array of finite numbers, shapes do not fit, or alpha is not >= 0.
    """
    drive = array("drive", drive, ("...", "neuron"))
    alpha, b = (array(name, v, ("...",)) for name, v in (("alpha", alpha), ("b", b)))
    in_range("alpha", alpha, alpha, minimum=0)
    rule = f"must have a shape that fits drives of {drive.shape}, without the neurons"
    fitting("alpha", alpha, drive.shape[:-1], rule)
    fitting("b", b, np.broadcast_shapes(drive.shape[:-1], alpha.shape), rule)
    mean = drive.mean(axis=-1)
    settled = Dynamics().slopes(alpha, 1.0, 1.0).settled()
    deviations = settled.deviation[..., np.newaxis] * (drive - mean[..., np.newaxis])
    return Rates(deviations + (b + settled.mean * mean)[..., np.newaxis], settled.inhibition * mean)


def fixed_point(
    w_init: ArrayLike,
    gamma: ArrayLike,
    rule: str = "circuit",
    alpha: ArrayLike = 10.0,
    covariance: ArrayLike | None = None,
    tau: Quantity = 30 * ms,
    presentation: Quantity | None = None,
    dt: Quantity | None = None,
    limit: bool = False,
) -> NDArray[np.float64]:
    """Weights at which a rule comes to rest, averaged over inputs (Eq. 5 and its relatives).

    Deviations from the pool's mean end as (g_d C + gamma I)^-1 gamma times their initial values,
    the mean as (g_m C + gamma I)^-1 gamma times its own, with the gains g that `gains` returns.
    For settled rates g_d is 1 for every rule of this package (and its factor of r, `Rule.linear`,
    for another); g_m is 0 for ``mean_subtracted`` (Eq. 5) and ``inhibition_gated``, which keep the
    mean, and 1/(1 + alpha) for ``circuit``, which does not. Directions without input (or a pull)
    keep their initial weights. Those in which a rule lets weights diverge are NaN.

    Parameters
    ----------
    w_init : array_like, shape (..., neuron, input)
        Initial weights.
    gamma : float or array, shape (circuit,)
        Strength of the pull towards them; >= 0.
    alpha : float or array, shape (circuit,)
        As in `gains`, or one for each circuit of ``w_init`` (circuit, neuron, input).
    rule, tau, presentation, dt
        As in `gains`. Without ``presentation`` the rates are taken to be settled at all times. With
        it the transients of each presentation are included, in the limit of small learning rates
        and for independent inputs with zero mean: for ``inhibition_gated`` they make the mean decay
        slowly.
    covariance : array_like, shape (input, input), optional
        Mean over inputs of x x^T; the identity by default.
    limit : bool
        For gamma = 0 alone: whether to return the weights whose SNR a rule tends to. Without a
        pull the circuit lets mean and deviations vanish alike, and only their ratio has a limit;
        then weights with that ratio are returned.

    Returns
    -------
    ndarray, shape (..., neuron, input)

    Raises
    ------
    ParameterError
        If a value is out of its range, or the rule has no closed form.
    DimensionMismatchError
        If a time is given without its unit.

    Examples
    --------
    >>> fixed_point([[0.0], [2.0]], gamma=1.0, rule="mean_subtracted").tolist()
    [[0.5], [1.5]]
    """
    pull = dimensionless("gamma", gamma, array=True)
    alphas = dimensionless("alpha", alpha, array=True)
    limit = flag("limit", limit)
    if np.ndim(pull) or np.ndim(alphas):
        weights = array("w_init", w_init, ("neuron", "input"), ("circuit", "neuron", "input"))
        several = weights if weights.ndim == 3 else weights[np.newaxis]
        lengths = {np.size(v) for v in (pull, alphas) if np.ndim(v)} | {len(several)} - {1}
        if len(lengths) > 1:
            rule_ = "arrays over circuits must have one length"
            raise ParameterError("fixed_point", rule_, sorted(lengths))
        number = lengths.pop() if lengths else 1
        each = zip(
            np.broadcast_to(several, (number, *several.shape[1:])),
            np.broadcast_to(pull, number),
            np.broadcast_to(alphas, number),
            strict=True,
        )
        return np.stack(
            [
                fixed_point(w, float(g), rule, float(a), covariance, tau, presentation, dt, limit)
                for w, g, a in each
            ]
        )
    of_rule = gains(rule, alphas, tau, presentation, dt)
    if limit and pull == 0 and of_rule.mean > 0:
        # Far below any pull of interest, and far above where squares of weights underflow.
        pull = 1e-30
    return _at_rest(w_init, pull, of_rule, covariance)


class Gains(NamedTuple):
    """How strongly a rule's signal, averaged over time, follows the drive z."""

    deviation: float
    mean: float


def gains(
    rule: str = "circuit",
    alpha: float = 10.0,
    tau: Quantity = 30 * ms,
    presentation: Quantity | None = None,
    dt: Quantity | None = None,
) -> Gains:
    """Gains of a rule's signal: of settled rates, or averaged over presentations.

    Settled, it is as `Rule.gain_of_mean` says. Averaged, it includes the transients.

    At the start of a presentation the rates u = r - b and r_inh are what the inputs before have
    made them. Let X be u for a deviation from the mean, or (u, r_inh) for the mean: it obeys
    dX/dt = A X + B z, with the drive z = w.x constant, and after a time t is

        X(t) = e^(A t) X(0) + (1 - e^(A t)) X*,        X* = -A^-1 B.

    The weights move by the signal times x. Averaged over independent inputs with zero mean, the
    first term times x vanishes, since X(0) is linear in inputs before this one. (Through the
    weights it does depend on all of them, but in proportion to the learning rate.) So to first
    order in the learning rate the weights see z times

        1/T integral_0^T (1 - e^(A t)) X* dt = (1 - (A T)^-1 (e^(A T) - 1)) X*,

    where T is the presentation. For a deviation A = -1/tau and X* = 1: the gain is
    1 - tau/T (1 - e^(-T/tau)). For the mean A = ((-1, -alpha), (1, -1))/tau, which rings, and
    X* = (1, 1)/(1 + alpha). For ``inhibition_gated`` what is left is tau/T r_inh(T)/zbar, as the
    mean of its signal is tau dr_inh/dt. With forward Euler weights see the rates after each step:
    1 - (A T)^-1 F (F^n - 1) takes the place of the matrix above, where F = 1 + A dt and n = T/dt.

    Momentum does not appear. It filters the update with a gain of 1 at zero frequency, and so
    carries part of it over to the next presentation; but what it carries over has the same mean,
    and its correlation with the next input is zero to the same order.

    Parameters
    ----------
    rule : str
        Name of a linear rule. Those that make one update a presentation have no transients.
    alpha : float
        Strength of inhibition; >= 0.
    tau : Quantity, time
        Time constant of the rates; > 0.
    presentation : Quantity, time, optional
        How long each input is shown; > 0. For ever by default, so that rates are settled.
    dt : Quantity, time, optional
        Step of forward Euler; continuous time by default. Of no effect on settled rates.

    Returns
    -------
    Gains

    Raises
    ------
    ParameterError
        If a value is out of its range, or the rule is not linear.
    DimensionMismatchError
        If a time is given without its unit.

    Examples
    --------
    >>> averaged = gains("inhibition_gated", presentation=150 * ms)
    >>> round(averaged.deviation, 3), round(averaged.mean, 4)
    (0.801, 0.0183)
    """
    inhibition = dimensionless("alpha", alpha)
    in_range("alpha", inhibition, alpha, minimum=0)
    definition = rules.get(rule)
    settled = float(definition.gain_of_mean(inhibition))
    signal = definition.averaged
    assert signal is not None  # gain_of_mean has refused other rules
    if definition.per_presentation or presentation is None:
        return Gains(signal.rate, settled)

    tau_ms, duration = milliseconds("tau", tau), milliseconds("presentation", presentation)
    in_range("tau", tau_ms, tau, above=0, unit="ms")
    in_range("presentation", duration, presentation, above=0, unit="ms")
    step = None
    if dt is not None:
        step = milliseconds("dt", dt)
        in_range(
            "dt", step, dt, above=0, below=float(stability_bound(tau_ms, inhibition)), unit="ms"
        )
        whole_steps(duration, step)
    slopes = Dynamics().slopes(inhibition, tau_ms, tau_ms)
    rates = slopes.settled()
    of_deviation = averaged(np.array([[slopes.rate]]), np.array([rates.deviation]), duration, step)
    of_mean = averaged(
        np.array([[slopes.rate, slopes.inhibition], [slopes.received, slopes.leak]]),
        np.array([rates.mean, rates.inhibition]),
        duration,
        step,
    )
    return Gains(
        signal.rate * float(of_deviation[0]),
        float(np.dot([signal.rate, signal.common], of_mean)),
    )


def _at_rest(
    w_init: ArrayLike, pull: float, of_rule: Gains, covariance: ArrayLike | None
) -> NDArray[np.float64]:
    """Weights at which gain * C w and gamma (w - w_init) balance, for deviations and mean."""
    weights = array("w_init", w_init, ("...", "neuron", "input"))
    in_range("gamma", pull, pull, minimum=0)
    n_inputs = weights.shape[-1]
    if covariance is None:
        values, vectors = np.ones(n_inputs), np.eye(n_inputs)
    else:
        values, vectors = spectrum(covariance, n_inputs)

    mean = weights.mean(axis=-2, keepdims=True)
    kept_of_deviations = _kept(of_rule.deviation * values, pull)
    kept_of_mean = _kept(of_rule.mean * values, pull)
    deviations = ((weights - mean) @ vectors) * kept_of_deviations @ vectors.T
    return deviations + (mean @ vectors) * kept_of_mean @ vectors.T


def minimum_inverse_snr_w(gamma: ArrayLike) -> NDArray[np.float64]:
    """The paper's "theoretical minimum" of the inverse SNR of the weights.

    That of Eq. 5 for uncorrelated inputs and initial weights whose mean and standard deviation are
    equal, as in w_init = 1 + N(0, 1): deviations shrink by gamma/(1 + gamma), the mean does not.

    Parameters
    ----------
    gamma : array_like
        Strength of the pull towards the initial weights; >= 0.

    Returns
    -------
    ndarray, shape of ``gamma``

    Raises
    ------
    ParameterError
        If gamma is no array of numbers >= 0.

    Examples
    --------
    >>> np.log10(minimum_inverse_snr_w([0.1, 0.01, 0.001])).round(2).tolist()
    [-2.08, -4.01, -6.0]
    """
    gamma = array("gamma", gamma, ("...",))
    in_range("gamma", gamma, gamma, minimum=0)
    return np.square(gamma / (1 + gamma))


def stability_bound(tau: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """Step below which forward Euler is stable, 2 tau/(1 + alpha), in the unit of ``tau``.

    The mean mode of the circuit has the eigenvalues (-1 +- i sqrt(alpha))/tau.

    Raises
    ------
    ParameterError
        If alpha is no array of numbers >= 0, or tau no array of numbers or times.

    Examples
    --------
    >>> float(stability_bound(tau=30.0, alpha=59.0))
    1.0
    """
    alpha = array("alpha", alpha, ("...",))
    in_range("alpha", alpha, alpha, minimum=0)
    if not is_time(tau):
        tau = array("tau", tau, ("...",))
    bound = Dynamics().slopes(alpha, 1.0, 1.0).euler_bound()
    fitting("tau", tau, alpha.shape, f"must have a shape that fits alpha's, {alpha.shape}")
    return tau * bound  # type: ignore[operator, return-value]


def _kept(strength: NDArray[np.float64], pull: float) -> NDArray[np.float64]:
    """Share of a weight that is left: pull/(strength + pull), and 1 where nothing acts at all."""
    total = strength + pull
    idle = np.where((strength == 0) & (total == 0), 1.0, np.nan)  # the others have no rest
    return np.divide(pull, total, out=idle, where=total > 0)
