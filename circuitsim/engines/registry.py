"""Engines by name."""

from __future__ import annotations

from circuitsim.engines.batch import Engine
from circuitsim.validation import one_of

ENGINES = ("brian2", "brian2_per_synapse", "propagator")


def get(engine: str, codegen: str = "auto") -> Engine:
    """Return an engine by name, with its way of making code.

    Raises
    ------
    ParameterError
        If there is no such engine, or it cannot make its code in that way.
    """
    one_of("engine", engine, ENGINES)
    if engine == "propagator":
        from circuitsim.engines.propagator import Propagator

        return Propagator(codegen)
    from circuitsim.engines.brian import BrianEngine

    return BrianEngine(codegen, per_synapse=engine == "brian2_per_synapse")
