"""Many runs: grids of circuits, their cells on disk, and what is made of them."""

from circuitsim.studies.runner import run
from circuitsim.studies.study import Cell, Study

__all__ = ["Cell", "Study", "run"]
