"""What the studies behind figures share: their files, and how numbers are shown."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from circuitsim.engines import registry
from circuitsim.running.campaign import Campaign, T, shown
from circuitsim.studies.sweep import Study


class FigureCampaign(Campaign[T]):
    """A figure whose groups are each made by a study of circuits."""

    format = ("circuitsim figure", 1)
    counted = ("trials",)

    @property
    @abstractmethod
    def studies(self) -> dict[str, Study]:
        """From the names of groups to the studies that make them."""

    @classmethod
    @abstractmethod
    def from_studies(
        cls, studies: Mapping[str, Study], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Self:
        """Return the figure that a file's studies make; raises as `from_attributes`."""

    def attributes(self) -> dict[str, Any]:
        """Return the studies as text."""
        return {
            "title": f"Numbers of the figure {self.kind}",
            "figure": self.kind,
            "groups": " ".join(self.studies),
            "studies": json.dumps({name: s.to_json() for name, s in self.studies.items()}),
        }

    @classmethod
    def recognises(cls, attributes: Mapping[str, Any]) -> bool:
        """Whether a file is of this figure."""
        return super().recognises(attributes) and attributes.get("figure") == cls.kind

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, Any], of_group: Callable[[str], Mapping[str, Any]]
    ) -> Self:
        """Return the figure that a file describes."""
        texts = json.loads(attributes["studies"])
        studies = {name: Study.from_json(texts[name]) for name in attributes["groups"].split()}
        found = cls.from_studies(studies, of_group)
        if found.studies != studies:
            raise ValueError("it describes no valid studies of this figure")
        return found

    @property
    def quick(self) -> bool:
        """Whether it takes seconds: with an exact engine."""
        return all(registry.find(study.engine).exact for study in self.studies.values())

    def memory(self) -> dict[str, float]:
        """Bytes that its studies take."""
        needed: dict[str, float] = {}
        for study in self.studies.values():
            for name, size in study.memory().items():
                needed[name] = max(size, needed.get(name, 0.0))
        return needed

    def outline(self) -> list[tuple[str, str]]:
        """Say what would be run."""
        lines = []
        for name, study in self.studies.items():
            points = f"k {listed(study.k)}; gamma {listed(study.gamma)}"
            trials = f"{study.trials} trial" + "s" * (study.trials > 1)
            lines.append((name, f"{study.rule}, {study.presentations} presentations"))
            lines.append(("", f"{points}; alpha {listed(study.alpha)}; {trials}"))
        return [*lines, ("engine", f"{study.engine} (codegen {study.codegen})")]


def evenly_spaced(last: int, points: int) -> NDArray[np.int64]:
    """Numbers of presentations at equal distances from 0 to the last; all, if they are fewer."""
    return np.unique(np.linspace(0, last, points).round()).astype(np.int64)


def with_spread(values: NDArray[np.float64], digits: int) -> str:
    """Return the mean of values over trials and, of several, their standard deviation."""
    spread = f" +- {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def listed(values: Any) -> str:
    """Return a value, or several, as text."""
    values = values if isinstance(values, tuple | list) else [values]
    return ", ".join(map(shown, values))
