"""Plasticity rules: what multiplies the input in the update of a weight.

Every rule moves weight j of neuron i by a learning rate times

    -(signal_i x_j + gamma (w_ij - w_ij^init)),

and they differ in the postsynaptic ``signal``, written as a Brian2 expression. Everything else that
the package knows about a rule (its long-run weights, its exact propagation) follows from that one
string. So a new rule is one line; docs/rules.md shows how to try it and how to share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.checks import plugins
from circuitsim.checks.validation import ParameterError, one_of
from circuitsim.dynamics import Dynamics
from circuitsim.expressions import Expression, read
from circuitsim.public import own

__dir__ = own(
    __name__, "CIRCUIT_VARIABLES", "ENTRY_POINTS", "POOL_VARIABLES", "RULES", "SYNAPSE_VARIABLES"
)

CIRCUIT_VARIABLES = ("r", "r_inh", "b")
POOL_VARIABLES = ("z", "z_mean")
SYNAPSE_VARIABLES = ("w", "x")  # of the synapse itself, for rules of either kind

ENTRY_POINTS = "circuitsim.rules"


@dataclass(frozen=True)
class LinearSignal:
    """A rule's signal as ``rate * (r_i - b) + common * r_inh``, for rules linear in the rates.

    Attributes
    ----------
    rate : float
        Factor of ``r_i - b`` (or of ``z_i`` for a rule without a circuit).
    common : float
        Factor of ``r_inh`` (or of ``zbar``).
    """

    rate: float
    common: float


@dataclass(frozen=True)
class Rule:
    """A plasticity rule. Rules are equal that have the same name, signal and average.

    Parameters
    ----------
    name : str
        How users ask for it: a Python identifier.
    signal : str
        The postsynaptic factor as a Brian2 expression: of ``r``, ``r_inh`` and ``b`` for a rule
        that the circuit performs at every step, or of ``z`` and ``z_mean`` (the drive w.x and its
        mean over the pool) for an ideal rule that makes one update a presentation. Besides these
        it may have the synapse's own weight ``w`` and input ``x``, which only the engine
        ``brian2_per_synapse`` has for the circuit, numbers, arithmetic and
        `circuitsim.expressions.FUNCTIONS`.
    summary : str
        One line: what it is, with its source.
    average : str, optional
        For a signal that is not linear: a linear one that moves the weights in the same way,
        averaged over inputs. Closed forms such as `circuitsim.theory.fixed_point` follow from it;
        without it the rule has none.

    Raises
    ------
    ParameterError
        If the name is no identifier, or an expression is not one of those described.

    Examples
    --------
    By Price's theorem the mean of max(u, 0) x is half that of u x, for Gaussian inputs and rates u
    linear in them:

    >>> rectified = Rule("rectified", "clip(r - b, 0, inf)", "learns from high rates", "(r - b)/2")
    >>> rectified.linear is None
    True
    >>> float(rectified.gain_of_mean(alpha=9.0))
    0.05
    >>> print(rectified)
    rectified = clip(r - b, 0, inf) ~ (r - b) / 2
    """

    name: str
    signal: str
    summary: str = field(default="", compare=False)
    average: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isascii() and self.name.isidentifier()):
            raise ParameterError("Rule.name", "must be a Python identifier", self.name)
        for name in ("signal", "average"):
            given = getattr(self, name)
            if name == "signal" or given is not None:
                object.__setattr__(self, name, _expression(f"Rule.{name}", given).text)
        if self.average is None:
            return
        if self.linear is not None:
            raise ParameterError(
                "Rule.average", "the signal itself is linear; leave this out", self.average
            )
        if self.averaged is None:
            raise ParameterError(
                "Rule.average",
                "must be linear in the same variables as the signal, and vanish at rest",
                self.average,
            )

    def __str__(self) -> str:
        """The whole rule in one line, which `get` reads: ``name = signal`` or just the name.

        The name alone for the rules of this package; ``name = signal ~ average`` with an average.
        """
        if _BUILT_IN.get(self.name) == self:
            return self.name
        average = "" if self.average is None else f" ~ {self.average}"
        return f"{self.name} = {self.signal}{average}"

    @cached_property
    def per_presentation(self) -> bool:
        """Whether the rule makes one update a presentation, with no circuit to run."""
        names = _expression("Rule.signal", self.signal).names
        return names <= {*POOL_VARIABLES, *SYNAPSE_VARIABLES}

    @cached_property
    def per_synapse(self) -> bool:
        """Whether the signal of each synapse is its own."""
        return not _expression("Rule.signal", self.signal).names.isdisjoint(SYNAPSE_VARIABLES)

    @cached_property
    def linear(self) -> LinearSignal | None:
        """The signal's coefficients, or None if it is not linear or does not vanish at rest."""
        return self._coefficients(self.signal)

    @cached_property
    def averaged(self) -> LinearSignal | None:
        """The same of the linear signal that acts like this one on average, where one is known."""
        return self.linear if self.average is None else self._coefficients(self.average)

    def _coefficients(self, expression: str) -> LinearSignal | None:
        form = _expression("Rule.signal", expression).coefficients
        variables = POOL_VARIABLES if self.per_presentation else CIRCUIT_VARIABLES
        if form is None or not form.keys() <= set(variables):  # it may have a constant too
            return None
        rate, common, *offset = [form.get(name, 0.0) for name in variables]
        if offset and not math.isclose(offset[0], -rate, rel_tol=1e-12):
            return None
        return LinearSignal(rate, common)

    def gain_of_mean(self, alpha: ArrayLike) -> NDArray[np.float64]:
        """How strongly the settled signal follows the pool's mean drive zbar.

        At the fast fixed point the signal of a linear rule is
        ``rate * (z_i - zbar) + gain_of_mean * zbar``: with r_i - b = z_i - zbar + zbar/(1 + alpha)
        and r_inh = zbar/(1 + alpha) the gain is ``(rate + common)/(1 + alpha)``.

        Parameters
        ----------
        alpha : array_like
            Strength of inhibition.

        Raises
        ------
        ParameterError
            If the rule is not linear, and has no average that is.
        """
        if self.averaged is None:
            raise ParameterError(
                "Rule.signal",
                "must be linear and vanish at rest for a closed form, or have an average that does",
                self.signal,
            )
        if self.per_presentation:
            return np.full(np.shape(alpha), self.averaged.rate + self.averaged.common)
        settled = Dynamics().slopes(alpha, 1.0, 1.0).settled()
        return self.averaged.rate * settled.mean + self.averaged.common * settled.inhibition


def _expression(parameter: str, text: str) -> Expression:
    """Read a signal; raise a `ParameterError` if it is none."""
    try:
        expression = read(text, (*CIRCUIT_VARIABLES, *POOL_VARIABLES, *SYNAPSE_VARIABLES))
    except ValueError as error:
        raise ParameterError(parameter, str(error), text) from None
    used = expression.names - set(SYNAPSE_VARIABLES)
    if not used or not (used <= set(CIRCUIT_VARIABLES) or used <= set(POOL_VARIABLES)):
        raise ParameterError(
            parameter,
            f"must use {', '.join(CIRCUIT_VARIABLES)} (a rule of the circuit) or "
            f"{', '.join(POOL_VARIABLES)} (one update a presentation)",
            text,
        )
    return expression


_BUILT_IN: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "mean_subtracted",
            "z - z_mean",
            "ideal rule, Eq. 4: descends the variance of the drive over the pool",
        ),
        Rule(
            "circuit",
            "r - b",
            "local rule of the circuit, Eq. 9: anti-Hebbian in the rate above its baseline",
        ),
        Rule(
            "inhibition_gated",
            "r - b - r_inh",
            "not in the paper: the circuit's rule less the interneuron's rate",
        ),
    )
}

RULES: dict[str, Rule] = dict(_BUILT_IN)


def register(rule: Rule) -> Rule:
    """Make a rule known by its name in this process.

    Studies, and what they write, hold the whole rule and not just its name: worker processes and
    other machines need not know it.

    Parameters
    ----------
    rule : Rule
        To add.

    Returns
    -------
    Rule
        The same.

    Raises
    ------
    ParameterError
        If it is no `Rule`, or another rule has its name already.

    Examples
    --------
    >>> import circuitsim as cs
    >>> rule = cs.rules.Rule("half_gated", "r - b - 0.5*r_inh", "less of the interneuron's rate")
    >>> _ = cs.rules.register(rule)
    >>> cs.theory.fixed_point([[0.0], [2.0]], gamma=0.25, rule="half_gated", alpha=1.0).tolist()
    [[0.3], [0.7]]
    >>> cs.studies.Study(rule="half_gated").rule
    'half_gated = r - b - 0.5 * r_inh'
    """
    if not isinstance(rule, Rule):
        raise ParameterError("rule", "must be a circuitsim.rules.Rule", rule)
    known = RULES.get(rule.name, rule)
    if known != rule:
        raise ParameterError(
            "Rule.name", f"is taken by another rule, {known.signal}; choose another name", rule.name
        )
    RULES[rule.name] = rule
    return rule


def get(rule: str, parameter: str = "rule") -> Rule:
    """Return a rule by its name, or from its definition in one line.

    Parameters
    ----------
    rule : str
        Name of a rule of this package, of a registered one, or of an entry point of an installed
        package (group ``circuitsim.rules``); or ``name = signal``, or ``name = signal ~ average``.
    parameter : str
        What a message calls it.

    Returns
    -------
    Rule

    Raises
    ------
    ParameterError
        If there is no such rule, or it gives another meaning to a name of this package.

    Examples
    --------
    >>> get("circuit").signal
    'r - b'
    >>> get("cubic = (r - b)**3").linear is None
    True
    """
    if isinstance(rule, str) and "=" in rule:
        defined = _defined(rule)
        known = RULES.get(defined.name)
        if known == defined:
            return known
        if defined.name in _BUILT_IN:
            raise ParameterError(parameter, "gives a name of the package another meaning", rule)
        return defined
    if isinstance(rule, str) and rule in RULES:
        return RULES[rule]
    name = one_of(parameter, rule, RULES.keys() | plugins.installed(ENTRY_POINTS).keys())
    found = plugins.load(ENTRY_POINTS, name, parameter)
    if not isinstance(found, Rule) or found.name != name:
        raise ParameterError(
            parameter, "the package that lists it has no circuitsim.rules.Rule so named", name
        )
    return register(found)


@lru_cache(maxsize=100)
def _defined(text: str) -> Rule:
    name, _, signal = text.partition("=")
    signal, _, average = signal.partition("~")
    return Rule(name.strip(), signal.strip(), average=average.strip() or None)
