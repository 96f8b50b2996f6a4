"""Brian2's runtime: networks whose code is generated and run in this process."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import brian2
import numpy as np
from brian2.units import second

from circuitsim.engines.batch import Progress
from circuitsim.engines.network import BuiltNetwork, build
from circuitsim.engines.spec import NetworkSpec

# The package's attribute of this name is the active device, not the module.
devices: Any = importlib.import_module("brian2.devices.device")

Values = dict[str, Any]

# Networks share the device, its clock and its preferences, and generated code shares names.
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):  # a forked process does not wait for threads that it lacks
    os.register_at_fork(after_in_child=lambda: globals().update(_one_at_a_time=threading.RLock()))


def run(spec: NetworkSpec, values: Values, target: str, report: Progress) -> Values:
    """Run the network of a spec with code generated and run in this process.

    Parameters
    ----------
    spec : NetworkSpec
        What to run.
    values : dict
        What to set first, in SI units, by ``"group.variable"``.
    target : str
        ``"numpy"`` or ``"cython"``.
    report : callable
        Called with the fraction done.

    Returns
    -------
    dict
        The network's results by ``"group.variable"``.
    """
    with one_session(target):
        built = build(spec)
        fill(built, values)
        built.network.run(
            built.duration,
            report=lambda _elapsed, fraction, _start, _duration: report(fraction),
            report_period=0.2 * second,
        )
        return read(built)


def fill(built: BuiltNetwork, values: Values) -> None:
    """Set the variables of a network, in SI units, by ``"group.variable"``."""
    for name, value in values.items():
        group, variable = name.split(".")
        if variable == "values":
            built.groups[group].values[:] = value
        else:
            setattr(built.groups[group], f"{variable}_", value)


def read(built: BuiltNetwork) -> Values:
    """Return the results of a network, by ``"group.variable"``."""
    variables = [name.split(".") for name in built.results]
    return {
        f"{group}.{variable}": np.array(built.groups[group].variables[variable].get_value())
        for group, variable in variables
    }


@contextlib.contextmanager
def one_session(target: str) -> Iterator[None]:
    """Build and run networks alone in this process, with code for ``target``; see `run`."""
    with _one_at_a_time, _own_session(target):
        yield


@contextlib.contextmanager
def _own_session(target: str) -> Iterator[None]:
    """Use Brian2's runtime device and our preferences, and leave no trace of that.

    The device is swapped rather than set: `brian2.set_device` would carry time steps over and
    forget what a user's own device was told.
    """
    preferences = {
        "codegen.target": target,
        "core.default_float_dtype": np.float64,
        # Or an interrupted run would look like a finished one.
        "core.stop_on_keyboard_interrupt": False,
    }
    before = {name: brian2.prefs[name] for name in preferences}
    running = brian2.Network._globally_running
    device = devices.active_device
    devices.active_device = devices.runtime_device
    try:
        for name, value in preferences.items():
            brian2.prefs[name] = value
        yield
    finally:
        for name, value in before.items():
            brian2.prefs[name] = value
        devices.active_device = device
        # After an interrupt Brian2 would believe that it still runs, and let the next one pass.
        brian2.Network._globally_running = running
