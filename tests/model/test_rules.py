"""Rules and engines from outside: read from one line, and the same wherever they are run."""

from __future__ import annotations

import pickle
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from commands import assert_same_data, run
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim import sweep
from circuitsim.checks import plugins
from circuitsim.engines import registry
from circuitsim.engines.propagator import Propagator
from circuitsim.expressions import FUNCTIONS, read
from circuitsim.rules import Rule
from circuitsim.running.store import Store
from circuitsim.studies import Study
from circuitsim.studies.sweep import study_in

GATED = "half_gated = r - b - 0.5 * r_inh"
RECTIFIED = Rule("rectified", "clip(r - b, 0, inf)", "", average="(r - b)/2")
OPTIONS = ["--k", 2, "--gamma", 0.1, "--trials", 2, "--presentations", 5, "--neurons", 6]
QUICK = ["--engine", "propagator", "--codegen", "numpy"]


def in_process(*arguments):
    return sweep.main(list(map(str, arguments)))


# -- expressions ----------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["2", "0.5", "1e-1", "3"])
TREES = st.recursive(
    NUMBERS | st.sampled_from(["r", "b", "r_inh"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inner, NUMBERS).map("({0[0]}/{0[1]})".format),
        inner.map("-({})".format),
        st.tuples(st.sampled_from(["tanh", "abs"]), inner).map("{0[0]}({0[1]})".format),
    ),
    max_leaves=6,
)


@given(TREES)
def test_what_is_called_linear_is(text):
    """Coefficients against the values that Python's own arithmetic gives."""
    expression = read(text, ("r", "b", "r_inh"))
    again = read(expression.text, ("r", "b", "r_inh"))
    assert again == expression
    rng = np.random.default_rng(0)
    points = [dict(zip(("r", "b", "r_inh"), rng.standard_normal(3), strict=True)) for _ in range(5)]
    values = [eval(text, FUNCTIONS | point) for point in points]
    assert [eval(expression.text, FUNCTIONS | point) for point in points] == values
    if expression.coefficients is not None:
        constant = expression.coefficients.get("", 0.0)
        linear = [
            constant + sum(expression.coefficients.get(name, 0.0) * point[name] for name in point)
            for point in points
        ]
        assert values == pytest.approx(linear, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "signal, rate, of_common",
    [("r - b - 0.5*r_inh", 1, -0.5), ("2*(r - b)/4 + exp(0)*r_inh", 0.5, 1),
     ("(r - b)**1", 1, 0), ("-(-r) + -b", 1, 0), ("z - z_mean/4", 1, -0.25)],
)  # fmt: skip
def test_linear_signals(signal, rate, of_common):
    linear = Rule("a", signal).linear
    assert (linear.rate, linear.common) == (rate, of_common)


@pytest.mark.parametrize(
    "signal, message",
    [
        ("__import__('os').system('touch escaped')", "must consist of"),
        ("__import__(r)", "may call only abs, "),
        ("rand()*r", "may call only abs, "),
        ("(lambda: r)()", "must consist of"),
        ("r.real", "must consist of"),
        ("[r for r in b]", "must consist of"),
        ("f'{r}'", "must consist of"),
        ("r if r > b else b", "must consist of"),
        ("(r := b)", "must consist of"),
        ("r % b", "must consist of"),
        ("1j*r", "must consist of"),
        ("True*r", "must consist of"),
        ("clip(r, 0)", "as many values as it takes"),
        ("clip(r, *b)", "as many values as it takes"),
        ("r**b", "powers must be plain numbers up to 9"),
        ("9**9**9**9*r", "powers must be plain numbers up to 9"),
        ("((9**9)**9)**9*r", "powers must be plain numbers up to 9"),
        ("r/(b - b)", "must have numbers that are finite"),
        ("1e400*r", "must have numbers that are finite"),
        ("log(0)*r", "must have numbers that are finite"),
        ("(-8)**0.5*r", "must have numbers that are finite"),
        ("r +", "must be an expression such as"),
        ("r\0", "must be an expression such as"),
        ("(" * 150 + "r", "must be an expression such as"),
        ("r" + "+r" * 100, "at most 200 characters"),
        (3, "at most 200 characters"),
        ("r - foo", "must use r, r_inh, b"),
        ("r - z", "must use r, r_inh, b"),
        ("1", "must use r, r_inh, b"),
    ],
)
def test_what_is_no_signal_is_refused(signal, message):
    with pytest.raises(cs.ParameterError, match=r"Rule\.signal: .*") as error:
        Rule("a", signal)
    assert message in str(error.value)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.text(max_size=30) | st.text("rbzinhx_ =~+-*/()0123456789.e,'\\", max_size=60))
def test_any_text_is_a_rule_or_refused(text):
    for definition in (text, f"a={text}", f"a = tanh(r) ~ {text}"):
        try:
            rule = cs.rules.get(definition)
        except cs.ParameterError:
            continue
        assert cs.rules.get(str(rule)) == rule


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rule("half gated", "r - b"), "Rule.name: must be a Python identifier"),
        (lambda: Rule("5a", "r - b"), "Rule.name: must be a Python identifier"),
        (lambda: Rule("é", "r - b"), "Rule.name: must be a Python identifier"),
        (lambda: Rule(None, "r - b"), "Rule.name: must be a Python identifier"),
        (lambda: Rule("a", "r - b", "", "r - b"), "Rule.average: the signal itself is linear"),
        (lambda: Rule("a", "tanh(r)", "", "tanh(r)"), "Rule.average: must be linear"),
        (lambda: Rule("a", "tanh(r)", "", "z"), "Rule.average: must be linear"),
        (lambda: Rule("a", "tanh(r)", "", "r"), "Rule.average: must be linear"),
        (lambda: cs.rules.register("r - b"), "rule: must be a circuitsim.rules.Rule"),
        (lambda: cs.rules.register(Rule("circuit", "r")), "Rule.name: is taken by another rule"),
        (lambda: cs.rules.get("circuit = r"), "gives a name of the package another meaning"),
        (lambda: cs.rules.get("unheard_of"), "must be one of circuit, "),
        (lambda: cs.rules.get(["circuit"]), "must be one of circuit, "),
        (lambda: cs.Plasticity("a = r +"), "Rule.signal: must be an expression such as"),
        (lambda: cs.theory.fixed_point(np.eye(2), 0.1, "a = tanh(r)"), "must be linear and vanish"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(cs.ParameterError) as error:
        make()
    assert message in str(error.value)


def test_a_registered_rule_is_one_like_others():
    cs.rules.register(Rule("half_gated", "r - b - 0.5 * r_inh"))
    rule = cs.rules.register(Rule("half_gated", "r-b-0.5*r_inh", "a summary"))  # the same
    assert str(rule) == GATED
    assert cs.rules.get("half_gated") is rule
    plasticity = cs.Plasticity("half_gated")
    assert plasticity.rule == GATED
    assert plasticity == cs.Plasticity(GATED)
    assert "Plasticity: half_gated, a summary\n" in str(cs.describe(None, plasticity))
    assert "(r - b - 0.5 * r_inh)*x" in str(cs.describe(None, plasticity))
    assert cs.Plasticity("circuit = r - b") == cs.Plasticity("circuit")
    with pytest.raises(cs.ParameterError, match="is taken by another rule, r - b - 0.5"):
        cs.rules.register(Rule("half_gated", "r - b - 0.6*r_inh"))


def test_average_is_shown():
    shown = cs.describe(None, cs.Plasticity(str(RECTIFIED)))
    assert "averaged over inputs it acts like that of (r - b) / 2" in str(shown)
    assert r"\operatorname{clip}" in shown.latex


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_weights_come_to_rest_where_the_average_says(alpha):
    """The mean update of the nonlinear signal itself vanishes there, for Gaussian inputs."""
    rng = np.random.default_rng(2)
    w_init = 1 + rng.standard_normal((5, 3))
    w = cs.theory.fixed_point(w_init, 0.3, str(RECTIFIED), alpha)
    x = rng.standard_normal((400_000, 3))
    rates = cs.theory.fast_fixed_point(x @ w.T, np.full(len(x), alpha), np.ones(len(x)))
    signal = np.clip(rates.rate - 1.0, 0, np.inf)
    update = signal.T @ x / len(x) + 0.3 * (w - w_init)
    assert np.abs(update).max() < 0.02
    assert np.abs(w - w_init).max() > 0.5


def test_a_rule_that_lets_weights_grow_has_no_rest():
    w_init = 1 + np.eye(3)
    assert np.isnan(cs.theory.fixed_point(w_init, 0.1, "hebb = b - r")).all()
    # A pull that is strong enough holds them.
    held = cs.theory.fixed_point(w_init, 2.0, "hebb = b - r", alpha=0.0)
    assert held == pytest.approx(2 * w_init)


# -- studies --------------------------------------------------------------------------------------


def study(rule, **options):
    return Study(k=(2,), gamma=(0.1,), trials=1, presentations=3, neurons=(4,), rule=rule,
                 **options)  # fmt: skip


def test_a_study_holds_the_definition():
    cs.rules.register(Rule("half_gated", "r - b - 0.5*r_inh"))
    named = study("half_gated")
    assert named == study(GATED)
    del cs.rules.RULES["half_gated"]  # as in another process
    for other in (Study.from_json(named.to_json()), pickle.loads(pickle.dumps(named))):
        assert other == named
        assert other.definition.signal == "r - b - 0.5 * r_inh"
        assert other.plasticity(0.1).definition == other.definition
    with pytest.raises(cs.ParameterError, match=r"Study\.rule: must be one of circuit"):
        study("half_gated")


def test_digests_know_the_definition():
    def digest(rule):
        s = study(rule)
        return s.digest(s.cells[0])

    different = ["circuit", GATED, "half_gated = r - b - 0.6*r_inh", "gated = r - b - 0.5*r_inh",
                 "rectified = clip(r - b, 0, inf)", str(RECTIFIED)]  # fmt: skip
    assert len({digest(rule) for rule in different}) == len(different)
    assert digest("half_gated=r-b-.5*r_inh") == digest(GATED)
    # Finished circuits that users have must stay theirs.
    assert digest("circuit") == digest("circuit = r - b") == "94403d25ef8fe1e6b053471b46fe5713"


def test_an_engine_that_cannot_run_a_rule_says_so_first(tmp_path, capsys):
    output = tmp_path / "out.nc"
    rule = "cubed = (r - b)**3"
    assert in_process(*OPTIONS, *QUICK, "--rule", rule, "--output", output) == 2
    said = capsys.readouterr().err
    assert "cubed is not linear in the rates" in said
    assert "use --engine stepper" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="describes no valid study"):
        Study.from_json(study("circuit", engine="propagator").to_json().replace("circuit", rule))


def write_rules(directory, factor=0.5):
    file = directory / "mine.py"
    file.write_text(
        f"import circuitsim as cs\n"
        f"cs.rules.register(cs.rules.Rule('half_gated', 'r - b - {factor}*r_inh'))\n"
    )
    return file


@pytest.mark.slow
@pytest.mark.thorough
def test_a_file_of_rules_in_every_process(tmp_path, capsys):
    """Workers, parts and --reproduce know the rule without the file."""
    output, file = tmp_path / "out.nc", write_rules(tmp_path)
    options = [*OPTIONS, *QUICK, "--rule", "half_gated", "--rules-from", file]
    done = run(*options, "--jobs", 2, "--output", output)
    assert done.returncode == 0, done.stderr
    assert study_in(output).rule == GATED
    assert cs.load(output).attrs["rule"] == GATED
    file.unlink()
    assert in_process("--reproduce", output, "--jobs", 1) == 0
    assert "identical to the last bit" in capsys.readouterr().out

    in_place = [*OPTIONS, *QUICK, "--rule", GATED, "--output", tmp_path / "parts.nc"]
    assert in_process(*in_place, "--cell", 0) == 0
    assert in_process(*in_place, "--merge") == 0
    assert_same_data(output, tmp_path / "parts.nc", groups=("/", "weights/k2"))


def test_another_rule_of_that_name_is_another_sweep(tmp_path, capsys):
    output = tmp_path / "out.nc"
    options = [*OPTIONS, *QUICK, "--output", output, "--cell", 0]
    assert in_process(*options, "--rule", GATED) == 0
    other = GATED.replace("0.5", "0.6")
    assert in_process(*options, "--rule", other) == 2
    assert f"rule {GATED}, not {other}" in capsys.readouterr().err
    assert in_process(*options, "--rule", other, "--overwrite") == 0
    assert len(Store(tmp_path / "out.cells").digests()) == 4


@pytest.mark.slow
def test_a_rule_without_an_end_point(tmp_path, capsys):
    output = tmp_path / "out.nc"
    options = [*OPTIONS, "--trials", 1, "--codegen", "numpy", "--jobs", 1, "--output", output]
    assert in_process(*options, "--rule", "saturating = tanh(r - b)") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[4].split()[-3] == "-"
    assert "nan" not in said.out + said.err
    dataset = cs.load(output)
    assert dataset.fixed_point_snr_w.isnull().all()
    assert dataset.theory_snr_w.notnull().all()
    assert in_process("--reproduce", output, "--jobs", 1) == 0
    assert "identical to the last bit" in capsys.readouterr().out
    (legend,) = cs.plots.sweep(dataset).legends
    assert not any("own end point" in text.get_text() for text in legend.get_texts())


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no such file"),
        ("x = (", "SyntaxError"),
        ("\n\n1/0", "line 3: ZeroDivisionError"),
        ("import circuitsim as cs\ncs.rules.Rule('a', 'foo')", "line 2: ParameterError: Rule.sig"),
    ],
)
def test_files_that_fail(content, message, tmp_path, capsys):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    output = tmp_path / "out.nc"
    assert in_process(*OPTIONS, "--rules-from", file, "--output", output) == 2
    said = capsys.readouterr().err
    assert f"--rules-from {file}: {message}" in said
    assert len(said.splitlines()) == 1
    assert in_process("--reproduce", output, "--rules-from", file) == 2
    assert "--rules-from has no effect with --reproduce" in capsys.readouterr().err


# -- installed packages ---------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with entry points, as pip would install it."""
    site = tmp_path / "site"
    package = site / "their_package-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [circuitsim.rules]
            theirs = their_package:theirs
            misnamed = their_package:theirs
            broken = their_package:nothing
            circuit = their_package:theirs
            [circuitsim.engines]
            their_engine = their_package:Engine
            no_engine = no_module:Engine
            """)
    )
    (site / "their_package.py").write_text(
        textwrap.dedent("""\
            from circuitsim.engines.propagator import Propagator
            from circuitsim.rules import Rule
            theirs = Rule("theirs", "r - b - 0.9*r_inh", "of another package")
            class Engine(Propagator):
                codegens = ("auto", "numpy")
                def __init__(self, codegen="auto"):
                    super().__init__("numpy")
            """)
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    plugins.installed.cache_clear()
    yield site
    sys.modules.pop("their_package", None)


def test_rules_of_installed_packages(installed):
    assert cs.Plasticity("theirs").definition.summary == "of another package"
    assert cs.rules.get("circuit").signal == "r - b"
    for name, message in (
        ("misnamed", "has no circuitsim.rules.Rule so named"),
        ("broken", "their_package:nothing of an installed package cannot be imported"),
        ("unheard_of", "must be one of broken, circuit, inhibition_gated, mean_subtracted, mis"),
    ):
        with pytest.raises(cs.ParameterError, match=message):
            cs.rules.get(name)


def test_engines_of_installed_packages(installed, rng):
    w_init, inputs = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    theirs = cs.simulate(w_init, inputs, engine="their_engine")
    ours = cs.simulate(w_init, inputs, engine="propagator", codegen="numpy")
    assert theirs.equals(ours)
    with pytest.raises(cs.ParameterError, match="their_engine"):
        cs.simulate(w_init, inputs, engine="unheard_of")
    with pytest.raises(cs.ParameterError, match=r"no_module:Engine .* \(ModuleNotFoundError"):
        cs.simulate(w_init, inputs, engine="no_engine")


@pytest.mark.slow
def test_a_sweep_with_both(installed, tmp_path):
    """Worker processes find them too."""
    output = tmp_path / "out.nc"
    done = run(*OPTIONS, "--rule", "theirs", "--engine", "their_engine", "--output", output)
    assert done.returncode == 0, done.stderr
    assert cs.load(output).attrs["rule"] == "theirs = r - b - 0.9 * r_inh"
    assert study_in(output).engine == "their_engine"


def test_engines_are_registered_once():
    registry.register("mine", Propagator)
    registry.register("mine", Propagator)
    assert isinstance(registry.get("mine", "numpy"), Propagator)
    with pytest.raises(cs.ParameterError, match="is the name of another engine"):
        registry.register("brian2", Propagator)
    assert replace(study("circuit"), engine="mine").engine == "mine"


def test_engines_say_what_they_are():
    assert {name for name in registry.ENGINES if registry.find(name).exact} == {"propagator"}
    in_threads = {name for name in registry.ENGINES if registry.find(name).threads}
    assert in_threads == {"propagator", "stepper"}
    assert not registry.get("propagator", "numpy").threads
    registry.stop()  # nothing runs


def test_an_engine_stops_what_it_has_started(monkeypatch):
    stopped = []

    class Engine(Propagator):
        @classmethod
        def stop(cls):
            stopped.append(cls)

    registry.register("mine", Engine)
    registry.stop()
    assert stopped == [Engine]
