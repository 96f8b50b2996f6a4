"""A picture of whatever was computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr
from numpy.typing import ArrayLike

from circuitsim.checks.validation import ParameterError
from circuitsim.public import own

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__dir__ = own(__name__)


def plot(
    result: xr.Dataset | str | os.PathLike[str], covariance: ArrayLike | None = None
) -> Figure:
    """Draw a result.

    Parameters
    ----------
    result : xarray.Dataset or path
        What `circuitsim.simulate`, `circuitsim.sweep` or `circuitsim.load` returned; or a netCDF
        file that one of the commands wrote, whose figure is drawn again.
    covariance : array_like, shape (input, input), optional
        Of the inputs of a run: mean of x x^T, for its end points; by default the identity, that of
        independent inputs N(0, 1).

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it as the last line of a cell; ``figure.savefig("name.pdf")`` keeps it.

    Raises
    ------
    ParameterError
        If it is no such result.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np, circuitsim as cs
    >>> rng = np.random.default_rng(0)
    >>> w_init, inputs = 1 + rng.standard_normal((20, 9)), rng.standard_normal((50, 9))
    >>> figure = cs.plot(cs.simulate(w_init, inputs, engine="propagator"))
    """
    from circuitsim import plots

    if isinstance(result, str | os.PathLike):
        from circuitsim.running import results
        from circuitsim.studies.registry import KINDS

        campaign, groups, _ = results.load(Path(result), KINDS.values())
        return campaign.draw(groups)
    if not isinstance(result, xr.Dataset):
        what = "must be a result of circuitsim.simulate, sweep or load, or the name of a file"
        raise ParameterError("result", what, type(result).__name__)
    if "trial" in result.dims:
        return plots.sweep(result)
    return plots.run(result, covariance)
