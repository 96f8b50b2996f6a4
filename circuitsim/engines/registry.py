"""Engines by name."""

from __future__ import annotations

from importlib import import_module

from circuitsim.checks import plugins
from circuitsim.checks.validation import ParameterError, one_of
from circuitsim.engines.batch import Batch, Engine
from circuitsim.parameters import Plasticity

ENTRY_POINTS = "circuitsim.engines"
AUTO = "auto"  # what `suited` stands for

# Those that nobody has asked for yet are "module:class".
ENGINES: dict[str, type[Engine] | str] = {
    "brian2": "circuitsim.engines.brian:BrianEngine",
    "brian2_per_synapse": "circuitsim.engines.brian:PerSynapseEngine",
    "propagator": "circuitsim.engines.propagator:Propagator",
    "stepper": "circuitsim.engines.stepper:Stepper",
}


def register(name: str, engine: type[Engine]) -> None:
    """Make an engine known by a name in this process; worker processes find entry points only.

    Raises
    ------
    ParameterError
        If another engine has that name.
    """
    ENGINES.setdefault(name, engine)
    if _known(name) is not engine:
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
        one_of(parameter, engine, {AUTO} | ENGINES.keys() | plugins.installed(ENTRY_POINTS).keys())
        if engine == AUTO:
            raise ParameterError(parameter, "must be named here, as it depends on circuits", engine)
        register(engine, plugins.load(ENTRY_POINTS, engine, parameter))
    return _known(engine)


def get(engine: str, codegen: str = "auto") -> Engine:
    """Return an engine by name, with its way of making code.

    Raises
    ------
    ParameterError
        If there is no such engine, or it cannot make its code in that way.
    """
    return find(engine)(codegen)


def choose(batch: Batch) -> str:
    """Return what ``"auto"`` stands for, see `suited`."""
    solvable = batch.solvable and not (batch.record_rates and batch.dt is None)
    return suited(batch.plasticity, solvable, batch.private)


def suited(plasticity: Plasticity, solvable: bool, private: bool) -> str:
    """Return the exact engine where it applies, else the stepper.

    For bounds, and signals of w or x, the only one that has them.

    Parameters
    ----------
    plasticity : Plasticity
        Of all circuits.
    solvable : bool
        Whether these have closed solutions (`circuitsim.Circuit.solvable`).
    private : bool
        Whether every neuron sees an input of its own.
    """
    if plasticity.per_synapse:
        return "brian2_per_synapse"
    linear = plasticity.definition.linear is not None
    plain = (plasticity.definition.per_presentation or solvable) and not private
    return "propagator" if linear and plain else "stepper"


def stop() -> None:
    """Kill what engines have started outside of this process, before it ends itself."""
    for engine in list(ENGINES.values()):
        if not isinstance(engine, str):
            engine.stop()


def _known(name: str) -> type[Engine]:
    engine = ENGINES[name]
    if isinstance(engine, str):
        module, _, attribute = engine.partition(":")
        engine = ENGINES[name] = getattr(import_module(module), attribute)
    return engine
