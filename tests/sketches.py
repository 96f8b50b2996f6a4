"""Figures as sketches: most tests want that a command draws one, and few look at it.

Layout, resolution and the fonts of a PDF take two seconds of a figure, more than most commands take
for the rest. Tests marked ``drawn``, and what is made within `drawn`, have the whole figure.
"""

import contextlib

from circuitsim import plots
from circuitsim.files import atomic_write
from circuitsim.plots import style

wanted = True
_whole = plots.save


def save(figure, path):
    """In place of `circuitsim.plots.save`: all artists are drawn, small and where they are."""
    if not wanted:
        _whole(figure, path)
    elif path.suffix == ".pdf":
        with atomic_write(path) as temporary:
            temporary.write_text(f"%PDF-1.4\n% a sketch of {len(figure.axes)} panels\n")
    else:
        figure.set_layout_engine("none")
        with style.paper(), atomic_write(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=30, metadata={"Software": None})


@contextlib.contextmanager
def drawn():
    """Draw whole figures, here and in commands that are started here."""
    global wanted
    before, wanted = wanted, False
    try:
        yield
    finally:
        wanted = before
