"""Engines by name."""

from __future__ import annotations

from circuitsim import plugins
from circuitsim.engines.batch import Engine
from circuitsim.engines.brian import BrianEngine, PerSynapseEngine
from circuitsim.engines.propagator import Propagator
from circuitsim.validation import ParameterError, one_of

ENTRY_POINTS = "circuitsim.engines"

ENGINES: dict[str, type[Engine]] = {
    "brian2": BrianEngine,
    "brian2_per_synapse": PerSynapseEngine,
    "propagator": Propagator,
}


def register(name: str, engine: type[Engine]) -> None:
    """Make an engine known by a name in this process; worker processes find entry points only.

    Raises
    ------
    ParameterError
        If another engine has that name.
    """
    if ENGINES.setdefault(name, engine) is not engine:
        raise ParameterError("engine", "is the name of another engine", name)


def find(engine: str, parameter: str = "engine") -> type[Engine]:
    """Return what makes an engine of that name.

    Parameters
    ----------
    engine : str
        Of this package, registered, or an entry point of an installed package (group
        ``circuitsim.engines``).
    parameter : str
        What a message calls it.

    Raises
    ------
    ParameterError
        If there is no such engine.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        one_of(parameter, engine, ENGINES.keys() | plugins.installed(ENTRY_POINTS).keys())
        register(engine, plugins.load(ENTRY_POINTS, engine, parameter))
    return ENGINES[engine]


def get(engine: str, codegen: str = "auto") -> Engine:
    """Return an engine by name, with its way of making code.

    Raises
    ------
    ParameterError
        If there is no such engine, or it cannot make its code in that way.
    """
    return find(engine)(codegen)
