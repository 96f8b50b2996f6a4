from ..running.runner import run as run
from .sweep import Cell as Cell
from .sweep import Study as Study
