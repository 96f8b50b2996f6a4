"""What the weights of a layer are worth to its network after its pools have slept in the circuit.

The way back of `circuitsim.studies.origins`: a sweep that has begun with a layer of a trained
network has changed weights of all its pools, and they are put back.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitsim.checks.validation import ParameterError
from circuitsim.files import reason
from circuitsim.public import own
from circuitsim.studies import origins, sweep

if TYPE_CHECKING:
    from circuitsim.vision.datasets import Dataset
    from circuitsim.vision.estimator import Classifier

__dir__ = own(__name__)

AWAKE, SHARED = "awake", "exactly shared"


class Learned(NamedTuple):
    """Weights that a sweep has made of those it began with.

    Attributes
    ----------
    study : Study
    points : dict
        From (gamma, alpha) to the pools, as `circuitsim.studies.origins` has them.
    snr_w : xarray.DataArray or None
        Of the pools over presentations, at the first point; an exported file has none.
    """

    study: sweep.Study
    points: dict[tuple[float, float], origins.Pools]
    snr_w: xr.DataArray | None


def learned(path: Path) -> Learned:
    """Read the weights of a sweep's result, or of what was exported from it.

    Raises
    ------
    ParameterError
        If it is neither, or did not begin with weights that were given.
    FileNotFoundError
        If there is no file.
    """
    if path.suffix == ".npz":
        return _exported(path)
    study = sweep.study_in(path)
    _check_origin(study, path)
    (k,) = study.k
    found = {n: sweep.load_weights(path, k, n).isel(neurons=0) for n in study.neurons}
    points = {}
    for gamma, alpha in itertools.product(study.gamma, study.alpha):
        points[gamma, alpha] = {
            n: weights.sel(gamma=gamma, alpha=alpha)
            .transpose("trial", "neuron", "input")
            .to_numpy()[: study.trials_of(n)]
            for n, weights in found.items()
        }
    curves = sweep.load(path)["snr_w"].isel(k=0, gamma=0, alpha=0)
    pools = curves.stack(pool=("neurons", "trial")).dropna("pool").isel(pool=slice(origins.CURVES))
    return Learned(study, points, pools.transpose("presentation", "pool"))


def _exported(path: Path) -> Learned:
    from circuitsim.vision import archives

    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    wanted = ("weights", "gamma", "alpha", "trial", "study")
    try:
        arrays = {name: archives.read_array(path, name) for name in wanted}
        study = sweep.Study.from_json(str(arrays["study"][()]))
    except (archives.BadArchive, OSError, ValueError) as error:
        raise ParameterError(
            "weights", f"must be what circuitsim.export wrote ({reason(error)})", str(path)
        ) from None
    _check_origin(study, path)
    weights, neurons = arrays["weights"], arrays["weights"].shape[1]
    if study.neurons != (neurons,):
        raise ParameterError(
            "weights", "holds pools of one size, and the layer has several; give the sweep's .nc",
            str(path),
        )  # fmt: skip
    points: dict[tuple[float, float], origins.Pools] = {}
    for gamma, alpha in itertools.product(study.gamma, study.alpha):
        here = np.flatnonzero((arrays["gamma"] == gamma) & (arrays["alpha"] == alpha))
        order = here[np.argsort(arrays["trial"][here])]
        if arrays["trial"][order].tolist() == list(range(study.trials)):
            points[gamma, alpha] = {neurons: weights[order]}
    if not points:
        raise ParameterError("weights", "lacks trials: export all of them", str(path))
    return Learned(study, points, None)


def _check_origin(study: sweep.Study, path: Path) -> None:
    if study.initial is None or study.initial.endswith(".npz"):
        raise ParameterError(
            "weights", "must be of a sweep that began with --initial RUN:LAYER", str(path)
        )


def evaluate(
    classifier: Classifier, data: Dataset, found: Learned, layer: str | None = None
) -> xr.Dataset:
    """Test a network with weights of a layer awake, after the circuit's sleep, exactly shared.

    Statistics of batch norm are taken anew each time, from the images to learn from.

    Parameters
    ----------
    classifier : Classifier
        The network from which the sweep began.
    data : Dataset
        Images.
    found : Learned
        Of the sweep.
    layer : str, optional
        Of the network; by default the one that the sweep names.

    Returns
    -------
    xarray.Dataset
        ``loss``, ``top1``, its 95 % interval (Wilson) ``interval``, and the images that are
        classified rightly here and not awake, ``gained``, or the other way round, ``lost``, by
        ``state``: awake, after each point of the sweep's grid, exactly shared. ``kernels`` (stage,
        position, kernel_row, kernel_column, channel, output), those of the largest pool before and
        after the first point's sleep.

    Raises
    ------
    ParameterError
        If the network has other weights than those that the sweep began with.
    """
    from circuitsim.vision import evaluation
    from circuitsim.vision.pools import pools
    from circuitsim.vision.sharing import Sharing

    study, network = found.study, classifier.network_
    named = str(study.initial).rpartition(":")[2]
    if layer not in (None, named):
        raise ParameterError("weights", f"began with {named}, not with", layer)
    inside = network.lc_layers().get(named)
    if inside is None:
        raise ParameterError("weights", "began with a layer that the network lacks", named)
    awake, geometry = inside.weights.copy(), inside.geometry
    before = origins.gathered(awake.astype(np.float64), geometry)
    origin = origins.Origin(geometry.kernel, awake.shape[4], before)
    if origin.digest != study.initial_digest:
        raise ParameterError(
            "weights", "began with other weights than this network has", str(study.initial)
        )
    states: dict[str, NDArray[Any]] = {AWAKE: awake}
    for (gamma, alpha), changed in found.points.items():
        where = f"gamma {gamma:g}" + ("" if study.per_presentation else f", alpha {alpha:g}")
        wide = origins.scattered(changed, awake.astype(np.float64), geometry)
        states[f"asleep, {where}"] = wide.astype(awake.dtype)
    states[SHARED] = Sharing("instant").share(awake, geometry, 0)
    statistics, labels = classifier.run_.statistics, data.test.labels
    scores, right = [], []
    try:
        for weights in states.values():
            inside.weights[...] = weights
            evaluation.renew_statistics(network, data.train.images, *statistics)
            logits = evaluation.logits(network, data.test.images, *statistics)
            scores.append(evaluation.measured(logits, labels)[:2])
            right.append(evaluation.hits(logits, labels)[0])
    finally:
        inside.weights[...] = awake
    loss, top1 = np.array(scores).T
    hits = np.array(right)
    largest = max(pools(geometry), key=lambda pool: pool.size)
    asleep = next(weights for name, weights in states.items() if name != AWAKE)
    kernels = np.stack(
        [w[largest.rows, largest.columns].reshape(largest.size, *w.shape[2:])
         for w in (awake, asleep)]
    ).astype(float)  # fmt: skip
    made = xr.Dataset(
        {
            "loss": ("state", loss, {"long_name": "cross-entropy", "units": "nat"}),
            "top1": ("state", top1, {"long_name": "accuracy", "units": "1"}),
            "interval": (
                ("state", "bound"), evaluation.wilson(hits.sum(axis=1), hits.shape[1]),
                {"long_name": "95 % interval of the accuracy (Wilson)", "units": "1"},
            ),
            "gained": ("state", (hits & ~hits[0]).sum(axis=1),
                       {"long_name": "images right here and wrong awake", "units": "1"}),
            "lost": ("state", (~hits & hits[0]).sum(axis=1),
                     {"long_name": "images wrong here and right awake", "units": "1"}),
            "kernels": (
                ("stage", "position", "kernel_row", "kernel_column", "channel", "output"), kernels,
                {"long_name": "weights of the largest pool", "units": "1"},
            ),
        },
        {"state": list(states), "bound": ["lower", "upper"], "stage": ["before", "after"]},
        {"layer": named, "images": hits.shape[1]},
    )  # fmt: skip
    if found.snr_w is not None:
        curves = found.snr_w.drop_vars([n for n in found.snr_w.coords if n != "presentation"])
        made["snr_w"] = curves
    return made
