"""Campaigns by name: what can be run, resumed, told about, repeated and drawn again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign

# Imported when they are asked for: each brings what it needs.
CAMPAIGNS = {
    "sweep": "circuitsim.studies.sweep:Study",
    "figure4": "circuitsim.studies.figure4:Figure4",
    "rates": "circuitsim.studies.rates:Rates",
    "endpoint": "circuitsim.studies.endpoint:Endpoint",
    "layer": "circuitsim.studies.layer:Layer",
    "robustness": "circuitsim.studies.robustness:Robustness",
    "compare": "circuitsim.studies.comparison:Comparison",
    "predictivity": "circuitsim.studies.predictivity:Predictivity",
}
# Those that have no command of their own, with what it says: `circuitsim NAME` draws them.
FIGURES: dict[str, str] = {
    "layer": "draw how a whole layer sleeps: sheet, kernels, SNR of every pool",
    "robustness": "draw how much imperfection of a circuit the sharing of weights tolerates",
}


class _Kinds(Mapping[str, "type[Campaign[Any]]"]):
    def __getitem__(self, name: str) -> type[Campaign[Any]]:
        module, _, attribute = CAMPAIGNS[name].partition(":")
        found: type[Campaign[Any]] = getattr(import_module(module), attribute)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(CAMPAIGNS)

    def __len__(self) -> int:
        return len(CAMPAIGNS)


KINDS: Mapping[str, type[Campaign[Any]]] = _Kinds()
