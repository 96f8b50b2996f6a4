"""Sleep: what makes the kernels of a locally connected layer alike again.

``instant`` replaces each pool's weights by their mean, and ``awake`` shares them without sleep,
while the network learns (`circuitsim.vision.awake`). All other methods are plasticity rules by
their names (`circuitsim.rules`): while the layer's input is a sequence of Gaussian patterns, the
pools of `circuitsim.vision.pools` sleep, each with the dynamics of the paper, from the weights that
it has, which are also those that gamma pulls towards. Any rule will do that is linear in the rates.

The sheet of inputs is larger than an image, so that patterns go on into the padding and border
positions, whose fields reach into it, sleep with their pools. The authors' patterns end where the
image does: with ``border="awake"`` these positions take no part and keep their weights.

All pools of a layer, in all channels and of whatever size, see the same patterns up to a cyclic
shift. So in each pool's own frame one pair of K x K matrices (`circuitsim.transfer`), for a
neuron's K inputs, does to each what simulating it would. Groups of channels see the same pattern.

How long and how fast
---------------------
One pattern tells about one direction of the K that weights have. So what matters is the number of
presentations per input, P/K, and the share of a deviation along the pattern that one presentation
removes: a learning rate in proportion to 1/K gives all layers the same sleep, whatever their
channels. (The published rates were made for K up to 81.) What the default rates leave of deviations
from the mean (root mean square) and of the mean, here for K = 144 and much the same for others:

=============================================  ======  ======  ======
presentations per input                             5      10      20
=============================================  ======  ======  ======
deviations, ``mean_subtracted``                  .084   .0074   .0014
deviations, ``circuit``, ``inhibition_gated``    .112   .0136   .0019
mean, ``circuit``                                 .60     .37     .14
mean, ``inhibition_gated``                        .91     .84     .70
=============================================  ======  ======  ======

(alpha = 10, gamma = 0.001; ``mean_subtracted`` keeps the mean.) The authors' sleep by the ideal
rule, 100 updates each with the mean over 128 patterns at a rate of 0.1, comes down to
``Sharing("mean_subtracted", presentations=12800, learning_rate=0.1/128, gamma=1e-5,
border="awake")``: one pattern at a time, at the same rate for each.

The mean, and batch normalisation
---------------------------------
Under ``circuit`` the mean weights of a pool decay too, 1 + alpha times more slowly than deviations:
after a long sleep gamma (1 + alpha)/(1 + gamma (1 + alpha)) of them is left
(`circuitsim.theory.fixed_point`). Where a layer is followed by batch normalisation this does not
change what the network computes with the statistics of a batch, as far as all weights of a channel
shrink alike. But: running averages of these statistics are those from before the sleep, so that a
network is to be evaluated only after some more training steps (or with fresh statistics); gradients
grow as weights shrink, so that the same learning rate moves their direction more; and border
positions that stay awake gain weight relative to the others. Without batch normalisation the
layer's output shrinks. ``inhibition_gated`` avoids most of this, ``mean_subtracted`` all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim import measures, processwide, rules
from circuitsim.checks import fields as checks
from circuitsim.checks import plugins
from circuitsim.checks.fields import declare
from circuitsim.checks.validation import (
    ParameterError,
    in_range,
    milliseconds,
    one_of,
    whole_steps,
)
from circuitsim.checks.values import Milliseconds, in_ms, is_time, ms, time_text
from circuitsim.engines import registry
from circuitsim.engines.simulation import make_batch
from circuitsim.engines.transfer import Transfer, transfer
from circuitsim.inputs import GaussianInputs
from circuitsim.parameters import DT, PRESENTATION, Circuit, Plasticity
from circuitsim.public import own
from circuitsim.schedules import ConstantRate
from circuitsim.vision import parallel
from circuitsim.vision.awake import RATE
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.kernels import chosen
from circuitsim.vision.pools import Pool, pools

if TYPE_CHECKING:
    from brian2.units import Quantity

__dir__ = own(__name__, "AWAKE", "BORDERS", "INSTANT", "MOMENTS", "TIMES")

INSTANT = "instant"
AWAKE = "awake"
BORDERS = ("asleep", "awake")
MOMENTS = ("own", "shared")
TIMES = ("tau", "dt")  # fields that are numbers of ms in files and options

_MOST = 10_000_000  # presentations, or presentations per input: more would never end
_MOMENTUM = 0.95  # of the circuit; the ideal rule has none

_W = TypeVar("_W", np.float32, np.float64)


class Kept(NamedTuple):
    """Shares of weights that are left after a sleep.

    Attributes
    ----------
    deviation, mean : float
        Of deviations from a pool's mean weights, and of the mean.
    """

    deviation: float
    mean: float


@dataclass(frozen=True, eq=False, repr=False)
class Sharing:
    """How a layer's weights are shared; None, in its place, where they are not.

    Parameters
    ----------
    method : str
        ``"instant"``, the mean of each pool; ``"awake"``, noise while the network learns; or the
        rule by which pools sleep: ``"circuit"``
        (Eq. 9), ``"mean_subtracted"`` (the ideal one, Eq. 4), ``"inhibition_gated"``, or whatever
        else `circuitsim.rules.get` takes, as long as it is linear; kept with its definition,
        ``"name = signal"``.
    presentations : int, optional
        Patterns in a sleep; if None, as many for each input of a neuron as the next says.
    presentations_per_input : float
        > 0; has no effect where ``presentations`` are given.
    gamma : float
        Strength of the pull towards the weights at the start of the sleep; >= 0.
    alpha : float
        Strength of inhibition; >= 0. A rule that makes one update a presentation has none.
    tau : Quantity, time
        Time constant of the rates; > 0. A rule that makes one update a presentation has none.
    dt : Quantity, time
        Step of forward Euler, of which a presentation of 150 ms has a whole number. Inhibition is
        stable below alpha = 2 tau/dt - 1. A rule that makes one update a presentation has none.
    learning_rate : float, optional
        Rate of a step of 1 ms, or of an update for a rule that makes one a presentation; > 0. By
        default, for a signal that grows by 1 with the drive, 1/K for an update, and for a step what
        removes 1 - 1/e of a deviation along the pattern in one presentation of 150 ms, were the
        rates settled: (1 - 0.95)/(150 K) for momentum 0.95. For ``awake`` the share of deviations
        that a batch with noise removes on average, 0.1 by default.
    border : {"asleep", "awake"}
        Whether positions whose fields reach into the padding share weights with the others. In the
        authors' code they do in averaging (``instant``) and do not in sleep by a rule.
    periods : {1, 2}
        1: patterns repeat every k positions, and k x k kernels are left in a channel. 2: a sleep
        has two stages of half its presentations each, patterns repeat every k positions in the
        first and every k + 1 in the second, each with interneurons of its own; over sleeps one
        kernel is left in a channel (docs/sharing.md).
    moments : {"own", "shared"}
        Whether what an optimiser remembers of single weights, such as their velocities, is shared
        as weights are in a sleep, or stays their own, as in the authors' code.
    circuit : Circuit, optional
        What pools sleep in, in place of the published circuit with `alpha` and `tau`: rectified,
        noisy, with few or late interneurons. Its neurons are as many as a pool has; parameters are
        numbers. Every pool of every channel is simulated, step by step, from rates at rest, which
        takes far longer than the matrices of the published circuit.

    Raises
    ------
    ParameterError, DimensionMismatchError
        If a value is out of its range, or has the wrong unit; or if the rule is not linear, or does
        not pull the weights of a pool together.

    Examples
    --------
    >>> geometry = Geometry((7, 7), kernel=2)
    >>> weights = 1 + np.random.default_rng(0).standard_normal((6, 6, 2, 2, 3, 5))
    >>> asleep = Sharing("mean_subtracted", presentations=500).share(weights, geometry, seed=1)
    >>> bool(layer_inverse_snr_w(asleep, geometry) < 1e-3 * layer_inverse_snr_w(weights, geometry))
    True
    >>> print(Sharing("half = r - b - 0.5*r_inh"))
    half = r - b - 0.5 * r_inh, 10 presentations per input, gamma 0.001, alpha 10, tau 30 ms, \
border asleep
    """

    method: str = declare(
        INSTANT,
        "how locally connected layers share weights: none; instant (averaging); awake (by noise "
        "beside images, without sleep); or the rule by which they sleep: circuit, "
        "inhibition_gated, mean_subtracted, or another that is linear, as 'name = signal'",
        "HOW",
    )
    presentations: int | None = declare(
        None, "input patterns shown in a sleep", "P", minimum=1, below=_MOST
    )
    presentations_per_input: float = declare(
        10.0,
        "input patterns shown in a sleep for each input of a neuron, so that layers that differ in "
        "it sleep alike",
        "P",
        above=0,
        below=_MOST,
    )
    gamma: float = declare(1e-3, "pull towards the weights before the sleep, dimensionless", "G")
    alpha: float = declare(10.0, "strength of inhibition, dimensionless", "A")
    tau: Quantity | Milliseconds = field(default_factory=lambda: 30 * ms)
    dt: Quantity | Milliseconds = field(default_factory=lambda: 1 * ms)
    learning_rate: float | None = declare(
        None,
        "learning rate in a sleep, of a step of 1 ms (of an update, for mean_subtracted), "
        "dimensionless; for awake the share of deviations that a batch with noise removes",
        "RATE",
        above=0,
    )
    border: str = declare(
        "asleep",
        "whether positions whose fields reach into the padding share weights too: asleep (the "
        "patterns go on into the padding) or awake (they keep their weights, as in the authors' "
        "sleep by a rule)",
        "HOW",
        choices=lambda: BORDERS,
    )
    periods: int = declare(
        1,
        "1: patterns repeat every k positions, which leaves k x k kernels in a channel; 2: every k "
        "and then every k + 1, which leaves one",
        "1|2",
        minimum=1,
    )
    moments: str = declare(
        "own",
        "what the optimiser remembers of single weights in a sleep: own (stays) or shared (as the "
        "weights are)",
        "HOW",
        choices=lambda: MOMENTS,
    )
    circuit: Circuit | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _checked_method(self.method))
        checks.check(self)
        if self.periods > 2:
            raise ParameterError("Sharing.periods", "must be 1 or 2", self.periods)
        if self.method == AWAKE:
            for name, only in (("periods", 1), ("moments", "own")):
                if getattr(self, name) != only:
                    raise ParameterError(
                        f"Sharing.{name}", f"must be {only} with the method {AWAKE}, which has no "
                        "sleeps", getattr(self, name),
                    )  # fmt: skip
        Plasticity(gamma=self.gamma)
        for name in TIMES:
            given, called = getattr(self, name), f"Sharing.{name}"
            in_range(called, milliseconds(called, given), given, above=0, unit="ms")
        if self.circuit is not None:
            self._check_circuit(self.circuit)
        step = float(in_ms(self.dt))
        try:
            whole_steps(in_ms(PRESENTATION), step)
        except ParameterError as error:
            rule = f"must be a whole part of a presentation of {in_ms(PRESENTATION):g} ms"
            raise ParameterError(
                "Sharing.dt", error.rule if error.parameter == "dt" else rule, self.dt
            ) from None
        self._circuit.check_step(step)

    def _check_circuit(self, circuit: Circuit) -> None:
        if not isinstance(circuit, Circuit):
            raise ParameterError("Sharing.circuit", "must be a circuitsim.Circuit", circuit)
        if self.rule is None or self.rule.per_presentation:
            raise ParameterError(
                "Sharing.circuit",
                f"has no effect with {self.method}, which has no circuit",
                circuit,
            )
        for name, its, default in (("alpha", self.alpha, 10.0), ("tau", in_ms(self.tau), 30.0)):
            if its != default:
                raise ParameterError(
                    f"Sharing.{name}", "has no effect with a circuit, which has its own", its
                )
        given = [v for v in plain(circuit).values() if np.ndim(v)]
        if circuit.n_neurons is not None or given:
            raise ParameterError(
                "Sharing.circuit",
                "must have numbers alone and no n_neurons: pools differ in size; for what differs "
                "between neurons there are spread_alpha, spread_tau, connect_ei and connect_ie",
                circuit,
            )
        if self.moments != "own":
            raise ParameterError(
                "Sharing.moments", "must be own with a circuit that is simulated", self.moments
            )

    def __repr__(self) -> str:
        # Digests of stored trainings are of this text: what came later is in it only where used.
        later = {"periods", "moments", "circuit", "dt"}
        texts = {f.name: _text(getattr(self, f.name)) for f in fields(self)}
        shown = [
            f"{f.name}={texts[f.name]}"
            for f in fields(self)
            if f.name not in later or texts[f.name] != _text(_default(f))
        ]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __str__(self) -> str:
        """All that this does, in one line."""
        parts = [self.method]
        if self.rule is not None:
            number = self.presentations
            per_input = f"{self.presentations_per_input:g} presentations per input"
            parts.append(per_input if number is None else f"{number} presentations")
            parts.append(f"gamma {self.gamma:g}")
            if not self.rule.per_presentation:
                alone = [f"alpha {self.alpha:g}", f"tau {in_ms(self.tau):g} ms"]
                parts += alone if self.circuit is None else [repr(self.circuit)]
                if in_ms(self.dt) != in_ms(DT):
                    parts.append(f"steps of {in_ms(self.dt):g} ms")
            if self.learning_rate is not None:
                parts.append(f"learning rate {self.learning_rate:g}")
        if self.method == AWAKE:
            parts.append(f"rate {self.rate_awake:g}")
        parts.append(f"border {self.border}")
        if self.periods > 1:
            parts.append(f"{self.periods} periods")
        if self.moments != "own":
            parts.append(f"moments {self.moments}")
        return ", ".join(parts)

    @property
    def rule(self) -> rules.Rule | None:
        """The rule by which pools sleep; None where their weights are averaged, or never sleep."""
        return None if self.method in (INSTANT, AWAKE) else rules.get(self.method)

    @property
    def heeded(self) -> frozenset[str]:
        """Names of the fields, and of the training's `sleep_length`, that the method heeds."""
        if self.method == AWAKE:
            return frozenset({"border", "learning_rate", "sleep_length"})
        if self.rule is None:  # neither presentations nor what they depend on
            return frozenset({"border", "periods", "moments"})
        of_circuit = {"alpha", "circuit", *TIMES} if self.rule.per_presentation else set()
        names = {f.name for f in fields(self)} | {"sleep_length"}
        return frozenset(names - {"method"} - of_circuit)

    @property
    def rate_awake(self) -> float:
        """Share of deviations that a batch with noise removes on average, where the method is so.

        Raises
        ------
        ParameterError
            If the method is another.
        """
        if self.method != AWAKE:
            raise ParameterError("Sharing.method", "must be awake to have noise", self.method)
        return RATE if self.learning_rate is None else float(self.learning_rate)

    def pools(self, geometry: Geometry, stage: int = 0) -> list[Pool]:
        """Pools of a layer that share weights, in the first or the second (1) stage of a sleep."""
        return pools(geometry, self.border == "awake", geometry.kernel + stage)

    @property
    def _circuit(self) -> Circuit:
        # At rest to begin with: the baseline b only shifts the rates.
        if self.circuit is not None:
            return self.circuit
        return Circuit(alpha=self.alpha, tau=self.tau, b=0.0)

    def share(
        self,
        weights: NDArray[_W],
        geometry: Geometry,
        seed: Any,
        length: float = 1.0,
        out: NDArray[_W] | None = None,
    ) -> NDArray[_W]:
        """Weights after a sleep.

        Parameters
        ----------
        weights : ndarray, shape (row, column, kernel row, kernel column, channel, output channel)
            Of a locally connected layer, float32 or float64; ``channel`` counts those of one group.
        geometry : Geometry
            Of the layer.
        seed : int, sequence of int, or numpy.random.SeedSequence
            Fixes the patterns. The matrices of the last few seeds are kept: layers with equally
            many inputs that are given the same seed, or sleeps that are, share their cost.
        length : float
            > 0; multiplies the number of presentations, of which there is at least one. ``instant``
            has none.
        out : ndarray, optional
            Where to write them, contiguous, of the same shape and type; may be ``weights``. By
            default a new array.

        Returns
        -------
        ndarray
            ``out``. Positions that do not sleep keep their weights to the last bit.

        Raises
        ------
        ParameterError
            If the shape does not fit the geometry or ``out``, the learning rate is too high, or the
            method has no sleeps.
        """
        shared = self._begun(weights, geometry, out)
        with processwide.one_blas_thread():
            for stage in range(self.periods):
                sleeping = self.pools(geometry, stage)
                if self.rule is None:
                    _pull(shared, sleeping, 0.0)
                elif self.circuit is not None:
                    for number, pool in enumerate(sleeping):
                        self._simulate(shared, pool, (seed, length, stage, number))
                elif sleeping:
                    maps, _ = self._stage(weights.shape[2:5], seed, length, stage)
                    maps = maps.astype(weights.dtype)
                    parallel.over(partial(_sleep, shared, sleeping, maps), len(sleeping))
        return shared

    def share_moments(
        self,
        moments: NDArray[_W],
        geometry: Geometry,
        seed: Any,
        length: float = 1.0,
        out: NDArray[_W] | None = None,
    ) -> NDArray[_W]:
        """What an optimiser remembers of weights, after the sleep that `share` makes with them.

        Deviations from the pool's mean shrink as those of weights do, by the root mean square over
        all directions; the mean stays. So what was positive remains so.

        Parameters, errors and what is returned as of `share`.
        """
        shared = self._begun(moments, geometry, out)
        for stage in range(self.periods):
            left = 0.0
            if self.rule is not None:
                left = self._stage(moments.shape[2:5], seed, length, stage)[1].deviation
            _pull(shared, self.pools(geometry, stage), min(left, 1.0))
        return shared

    def _begun(
        self, weights: NDArray[_W], geometry: Geometry, out: NDArray[_W] | None
    ) -> NDArray[_W]:
        """Return an array of its own, or that which is given, with the weights in it."""
        _check(weights, geometry)
        self._check_sleeps()
        if out is None:
            return weights.copy(order="C")
        alike = out.shape == weights.shape and out.dtype == weights.dtype
        if not (alike and out.flags.c_contiguous):
            raise ParameterError(
                "out", f"must be contiguous, {weights.shape} of {weights.dtype}", out
            )
        if out is not weights:
            out[...] = weights
        return out

    def _simulate(
        self, weights: NDArray[Any], pool: Pool, asked: tuple[Any, float, int, int]
    ) -> None:
        """Let a pool sleep in a circuit that is simulated, in all channels, in place."""
        if pool.size < 2:
            return
        seed, length, stage, number = asked
        kernels = weights[pool.rows, pool.columns]
        field = kernels.shape[2:5]
        root, presentations, rate = self._numbers(field, seed, length)
        patterns: Any
        row, column = pool.phase
        if stage == 0:
            patterns = GaussianInputs(presentations, math.prod(field), root)
        else:
            parts = _Parts(*_parted(presentations, field, root))
            patterns = parts.block(0, presentations)[:, row * (field[0] + 1) + column]
            row = column = 0
        framed = np.roll(kernels, (row, column), axis=(2, 3))
        neurons = framed.reshape(pool.size, -1, framed.shape[-1])
        own = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, 0, stage, number))
        assert self.circuit is not None
        batch, _ = make_batch(
            np.moveaxis(neurons, -1, 0).astype(np.float64),
            patterns,
            self.circuit,
            _plasticity(self.method, (math.prod(field), presentations, float(self.gamma), rate)),
            PRESENTATION,
            self.dt,
            record_rates=False,
            start=None,
            record=presentations,
            seed=int(own.generate_state(1, np.uint32)[0]),
        )
        batch.state.rate[:] = batch.b[:, np.newaxis]
        batch.state.rate_inh[:] = batch.b_inh.reshape(-1, *[1] * (batch.state.rate_inh.ndim - 1))
        if batch.state.past is not None:
            batch.state.past[:] = batch.b_inh[:, np.newaxis, np.newaxis]
        found = registry.get(registry.choose(batch)).run(batch).state.weights
        if not np.abs(found).max() < 1e3 * max(1.0, float(np.abs(neurons).max())):
            raise ParameterError(
                "Sharing.learning_rate",
                f"is too high for {math.prod(field)} inputs, or the circuit unstable: weights grow",
                rate,
            )
        asleep = np.moveaxis(found, 0, -1).astype(weights.dtype).reshape(framed.shape)
        kernels[...] = np.roll(asleep, (-row, -column), axis=(2, 3))

    def _numbers(
        self, field: tuple[int, ...], seed: Any, length: float
    ) -> tuple[np.random.SeedSequence, int, float]:
        """Seed, presentations and learning rate of a stage of a sleep."""
        if not isinstance(seed, np.random.SeedSequence):
            seed = np.random.SeedSequence(seed)
        n_inputs = math.prod(field)
        most = self.presentations or self.presentations_per_input * n_inputs
        presentations = max(1, round(length * most / self.periods))
        return seed, presentations, self.learning_rate or self._default_rate(n_inputs)

    def _check_sleeps(self) -> None:
        if self.method == AWAKE:
            raise ParameterError(
                "Sharing.method",
                "shares while a network learns (circuitsim.vision.awake) and has no sleeps",
                AWAKE,
            )

    def maps(self, n_inputs: int, seed: Any, length: float = 1.0) -> Transfer:
        """What a sleep does to any pool of neurons with ``n_inputs`` inputs; see `share`.

        The first stage, if it has two.

        Raises
        ------
        ParameterError
            If the method has no dynamics, or the learning rate is too high for as many inputs.
        """
        return self._stage((1, 1, n_inputs), seed, length, 0)[0]

    def kept(self, n_inputs: int, seed: Any = 0, length: float = 1.0) -> Kept:
        """What a sleep leaves of a pool's weights, as a root mean square over all directions.

        The first stage, if it has two; the second, of as many presentations, leaves as much.

        Parameters
        ----------
        n_inputs : int
            K, of a neuron.
        seed, length
            As in `share`.

        Raises
        ------
        ParameterError
            If the method has no sleeps, or is simulated step by step, or the learning rate is too
            high for as many inputs.

        Examples
        --------
        >>> short, long = (Sharing("circuit", presentations_per_input=p, alpha=50) for p in (1, 4))
        >>> [round(share, 2) for share in (*short.kept(72), *long.kept(72))]
        [0.64, 0.98, 0.17, 0.91]
        """
        self._check_sleeps()
        if self.rule is None:
            return Kept(0.0, 1.0)
        return self._stage((1, 1, n_inputs), seed, length, 0)[1]

    def _stage(
        self, field: tuple[int, ...], seed: Any, length: float, stage: int
    ) -> tuple[Transfer, Kept]:
        """What a stage of a sleep does to pools with fields of (row, column, channel), and leaves.

        In the first stage to each pool alike, in its own frame. In the second, where patterns are
        larger than fields and pools see different parts of them, one after another by phase.
        """
        if self.rule is None:
            raise ParameterError(
                "Sharing.method", "must be a rule to sleep by; this has no dynamics", self.method
            )
        if self.circuit is not None:
            raise ParameterError(
                "Sharing.circuit", "is simulated, and has no matrices of a sleep", self.circuit
            )
        seed, presentations, rate = self._numbers(field, seed, length)
        entropy = tuple(seed.entropy) if np.ndim(seed.entropy) else seed.entropy
        n_inputs = math.prod(field)
        maps, kept = (_maps if stage == 0 else _maps_by_phase)(
            self.method,
            (n_inputs, presentations, float(self.gamma), rate),
            (self._circuit, float(in_ms(self.dt))),
            (entropy, seed.spawn_key),
            *([] if stage == 0 else [field]),
        )
        if not all(left < 1.01 for left in kept):  # not a number is not
            raise ParameterError(
                "Sharing.learning_rate",
                f"is too high for {n_inputs} inputs: weights would grow; the default is "
                f"{self._default_rate(n_inputs):.3g}",
                rate,
            )
        return maps, kept

    def _default_rate(self, n_inputs: int) -> float:
        assert self.rule is not None
        assert self.rule.linear is not None
        drive = n_inputs * self.rule.linear.rate  # squared and summed over inputs, on average
        if self.rule.per_presentation:
            return 1 / drive
        return (1 - _MOMENTUM) / (in_ms(PRESENTATION) * drive)


def plain(circuit: Circuit) -> dict[str, Any]:
    """Return what a circuit has been given as JSON has it, times in ms; `of_plain` reads it."""
    given, default = (
        {f.name: in_ms(v) if is_time(v := vars(of)[f.name]) else v for f in fields(of)}
        for of in (circuit, Circuit())
    )
    return {n: value for n, value in given.items() if not np.array_equal(value, default[n])}


def of_words(words: Iterable[str]) -> Circuit:
    """Return the circuit that words such as ``sigma=0.1`` and ``transfer=relu`` describe.

    Parameters
    ----------
    words : iterable of str
        ``NAME=VALUE`` for parameters of `circuitsim.Circuit`, times in ms.

    Raises
    ------
    ParameterError
        If a word is none of these, or a value out of its range.
    """
    texts = ("transfer", "transfer_inh", "excitatory", "interneuron")
    names = [field.name for field in fields(Circuit) if field.name != "n_neurons"]
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise ParameterError("circuit", "must be NAME=VALUE, such as sigma=0.1", word)
        one_of("circuit", name, names)
        if name in values:
            raise ParameterError("circuit", f"must not have {name} twice", word)
        try:
            number = int if name == "interneurons" else float
            values[name] = value if name in texts else number(value)
        except ValueError:
            kind = "a whole number" if name == "interneurons" else "a number"
            raise ParameterError("circuit", f"{name} must be {kind}", word) from None
    return of_plain(values)


def of_plain(values: Mapping[str, Any]) -> Circuit:
    """Return the circuit that `plain` has described; raises as `Circuit`."""
    times = {"tau", "tau_inh", "delay"}
    return Circuit(**{name: v * ms if name in times else v for name, v in values.items()})


def former(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Sharing` from those in a file, which may be from before ``border`` was one.

    Then border positions took part in averaging and in no other sleep, and two rules had other
    names.
    """
    if "border" in fields:
        return dict(fields)
    method = fields.get("method")
    names = {"rule": "mean_subtracted", "gated": "inhibition_gated"}
    border = "asleep" if method == INSTANT else "awake"
    return {**fields, "method": names.get(str(method), method), "border": border}


def _text(value: Any) -> str:
    return time_text(value) if is_time(value) else repr(value)


def _default(of: Field[Any]) -> Any:
    return of.default if of.default_factory is MISSING else of.default_factory()


def _checked_method(method: str) -> str:
    """Return the name of a method, or a rule's definition, or raise an error."""
    if isinstance(method, str) and method in (INSTANT, AWAKE):
        return method
    if not isinstance(method, str) or "=" not in method:
        known = {INSTANT, AWAKE, *rules.RULES, *plugins.installed(rules.ENTRY_POINTS)}
        if not isinstance(method, str) or method not in known:
            names = ", ".join(sorted(known))
            raise ParameterError(
                "Sharing.method", f"must be one of {names}, or a rule, 'name = signal'", method
            )
    rule = rules.get(method, "Sharing.method")
    if rule.linear is None:
        raise ParameterError(
            "Sharing.method", "must be linear in the rates for a layer to sleep by it", str(rule)
        )
    if rule.linear.rate <= 0:
        raise ParameterError(
            "Sharing.method",
            "must have a signal that grows with r (or z), or weights do not become alike",
            str(rule),
        )
    return str(rule)


@lru_cache(maxsize=8)
def _maps(
    method: str,
    numbers: tuple[int, int, float, float],
    circuit: tuple[Circuit, float],
    seed: tuple[Any, tuple[int, ...]],
) -> tuple[Transfer, Kept]:
    n_inputs, presentations, *_ = numbers
    patterns = GaussianInputs(
        presentations, n_inputs, np.random.SeedSequence(seed[0], spawn_key=seed[1])
    )
    return _with_kept(patterns, method, numbers, circuit)


@lru_cache(maxsize=4)  # these are as many matrices as there are phases
def _maps_by_phase(
    method: str,
    numbers: tuple[int, int, float, float],
    circuit: tuple[Circuit, float],
    seed: tuple[Any, tuple[int, ...]],
    field: tuple[int, ...],
) -> tuple[Transfer, Kept]:
    root = np.random.SeedSequence(seed[0], spawn_key=seed[1])
    parts = _Parts(*_parted(numbers[1], field, root))
    return _with_kept(parts, method, numbers, circuit)


def _with_kept(
    patterns: Any,
    method: str,
    numbers: tuple[int, int, float, float],
    circuit: tuple[Circuit, float],
) -> tuple[Transfer, Kept]:
    """Maps and what they leave, which every layer asks for."""
    of, dt = circuit
    by = _plasticity(method, numbers)
    maps = transfer(patterns, of, by, dt=dt * ms, threads=parallel.number())
    return maps, Kept(_left(maps.deviation), _left(maps.mean))


def _parted(
    presentations: int, field: tuple[int, ...], seed: np.random.SeedSequence
) -> tuple[GaussianInputs, NDArray[np.int64]]:
    """Patterns of the second stage, and which parts of them pools see, by phase."""
    kernel, _, channels = field
    period = kernel + 1
    pattern: Any = np.arange(period**2 * channels).reshape(period, period, channels)
    parts = [
        np.roll(pattern, (-row, -column), axis=(0, 1))[:kernel, :kernel].ravel()
        for row in range(period)
        for column in range(period)
    ]
    # Other patterns than those of the first stage.
    stage = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, period))
    return GaussianInputs(presentations, pattern.size, stage), np.array(parts)


class _Parts:
    """Parts of the patterns of a source, one for each circuit: (presentation, circuit, input)."""

    def __init__(self, patterns: GaussianInputs, parts: NDArray[np.int64]) -> None:
        self._patterns, self._parts = patterns, parts
        self.shape = (patterns.shape[0], *parts.shape)

    def block(self, start: int, stop: int) -> NDArray[np.float64]:
        return self._patterns.block(start, stop)[:, self._parts]


def _plasticity(method: str, numbers: tuple[int, int, float, float]) -> Plasticity:
    *_, gamma, rate = numbers
    return Plasticity(
        method,
        gamma=gamma,
        momentum=0 if rules.get(method).per_presentation else _MOMENTUM,
        learning_rate=ConstantRate(rate),
    )


def _left(maps: NDArray[np.float64]) -> float:
    """Root mean square of what maps leave of a vector in a random direction; of the worst map."""
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(maps, axis=(-2, -1))
    return float(np.max(norms)) / math.sqrt(maps.shape[-1])


def _pull(weights: NDArray[Any], sleeping: list[Pool], left: float) -> None:
    """Leave a share of deviations from each pool's mean, in place."""
    code, by_position = chosen(), weights.reshape(*weights.shape[:2], -1)

    def pull(n: int) -> None:
        code.pull(by_position, sleeping[n].rows, sleeping[n].columns, left)

    parallel.over(pull, len(sleeping))


def _sleep(weights: NDArray[Any], sleeping: list[Pool], maps: Transfer, n: int) -> None:
    """Let the n-th pool of a layer sleep, in all channels, in place."""
    pool = sleeping[n]
    kernels = weights[pool.rows, pool.columns]
    row, column = pool.phase
    if maps.mean.ndim > 2:  # patterns are larger than fields: the pool sees the part at its phase
        maps = maps[row * (kernels.shape[2] + 1) + column]
        row = column = 0
    # In the frame of the pattern, which is the same for all pools.
    framed = np.roll(kernels, (row, column), axis=(2, 3))
    neurons = framed.reshape(pool.size, -1, framed.shape[-1])
    means = neurons.mean(axis=0, dtype=np.float64).astype(weights.dtype)
    neurons -= means
    asleep = maps.of_weights(neurons, means)
    kernels[...] = np.roll(asleep.reshape(framed.shape), (-row, -column), axis=(2, 3))


def layer_snr_w(weights: NDArray[Any], geometry: Geometry, border: str = "asleep") -> float:
    """SNR of a layer's weights (Eq. 6): the mean over its pools.

    Parameters
    ----------
    weights : ndarray, shape (row, column, kernel row, kernel column, channel, output channel)
        Of a locally connected layer.
    geometry : Geometry
        Of the layer.
    border : {"asleep", "awake"}
        Whether positions whose fields reach into the padding count, or are left out.

    Returns
    -------
    float
        Infinite if the weights of a pool are all the same; NaN if no pool has two positions.

    Raises
    ------
    ParameterError
        If the shape does not fit the geometry.
    """
    return _mean_over_pools(measures.snr_w, weights, geometry, border)


def layer_inverse_snr_w(weights: NDArray[Any], geometry: Geometry, border: str = "asleep") -> float:
    """Inverse SNR of a layer's weights, as `layer_snr_w`."""
    return _mean_over_pools(measures.inverse_snr_w, weights, geometry, border)


def _mean_over_pools(measure: Any, weights: NDArray[Any], geometry: Geometry, border: str) -> float:
    _check(weights, geometry)
    one_of("border", border, BORDERS)
    measured = []
    for pool in pools(geometry, inner=border == "awake"):
        if pool.size > 1:
            kernels = weights[pool.rows, pool.columns]
            neurons = kernels.reshape(pool.size, -1, kernels.shape[-1])
            measured.append(measure(np.moveaxis(neurons, -1, 0)))
    return float(np.mean(measured)) if measured else float("nan")


def _check(weights: NDArray[Any], geometry: Geometry) -> None:
    k = geometry.kernel
    expected = (*geometry.output_shape, k, k)
    shape = np.shape(weights)
    if len(shape) != 6 or shape[:4] != expected or 0 in shape:
        raise ParameterError(
            "weights",
            f"must have the shape ({', '.join(map(str, expected))}, channel, output channel)",
            shape,
        )
    if weights.dtype not in (np.float32, np.float64):
        raise ParameterError("weights", "must be float32 or float64", str(weights.dtype))
