"""What is imported when, and what modules offer."""

from __future__ import annotations

import importlib
import re
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import circuitsim as cs

ROOT = Path(__file__).parents[2]
DOCUMENTED = sorted(
    set(
        re.findall(
            r"automodule:: (\S+)",
            "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md")),
        )
    )
    | {"circuitsim"}
)

WITHOUT_BRIAN = {
    "what is imported": "import circuitsim, circuitsim.rules, circuitsim.running.runner,"
    "circuitsim.studies.figure4, circuitsim.vision.layers, circuitsim.measures,"
    "circuitsim.theory, circuitsim.engines.simulation, circuitsim.notebook",
    "every public name": "import circuitsim as cs; [getattr(cs, name) for name in cs.__all__]",
    "a study": "import circuitsim as cs; s = cs.studies.Study(engine='brian2', k=3);"
    "s.digest(s.cells[0]); cs.studies.Study.from_json(s.to_json()); repr(s)",
    "parameters and closed forms": "import circuitsim as cs; c, p = cs.Circuit(), cs.Plasticity();"
    "c == c.replace(alpha=3), hash(c), repr(c), p.check_step(1.0), repr(p);"
    "cs.theory.fixed_point([[1.], [2.]], .1)",
    "the propagator": "import numpy as np, circuitsim as cs;"
    "run = cs.simulate(np.eye(3), np.ones((2, 3)), engine='propagator', codegen='numpy')",
}


@pytest.mark.slow
def test_brian2_is_imported_for_none_of_these():
    """One after the other in one new process: the first that imports it is told."""
    steps = [
        f"{code}; 'brian2' not in sys.modules or sys.exit({name!r})"
        for name, code in WITHOUT_BRIAN.items()
    ]
    command = [sys.executable, "-c", "\n".join(["import sys", *steps])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_brian2_is_imported_for_a_quantity():
    code = (
        "import sys, circuitsim as cs; tau = cs.Circuit().tau;"
        "from brian2 import ms; assert tau == 30 * ms;"
        "assert cs.Circuit(tau=30 * ms) == cs.Circuit();"
        "assert cs.InverseSqrtRate(1, 2 * ms).onset == 0 * ms"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_modules_offer_what_is_their_own(name):
    module = importlib.import_module(name)
    offered = dir(module)
    assert offered
    foreign = {"np", "ms", "Any", "annotations", "own", "xr"} & set(offered)
    assert not foreign, "its __dir__ is circuitsim.public.own(__name__)"
    for public in offered:
        thing = getattr(module, public)
        home = getattr(thing, "__module__", name)
        assert home.startswith("circuitsim"), public


def test_completion_offers_the_same():
    completer = rlcompleter.Completer({"cs": cs})
    for module in ("cs.vision", "cs.rules"):
        found = {name.rstrip("(") for name in completer.attr_matches(f"{module}.")}
        there = dir(getattr(cs, module.removeprefix("cs.")))
        assert found == {f"{module}.{name}" for name in there}
    assert "cs.vision.load(" in completer.attr_matches("cs.vision.")


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'circuitsim' has no attribute 'nothing'"):
        cs.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="'circuitsim.vision' has no attribute 'np'"):
        cs.vision.np  # noqa: B018
