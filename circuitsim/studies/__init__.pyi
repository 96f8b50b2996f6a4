from .runner import run as run
from .study import Cell as Cell
from .study import Study as Study
