"""What is written is true: options exist, what is shown runs, references lead somewhere.

Of the pages' fenced blocks every command is run and every block of Python is executed, in the order
of the page and in a directory of its own. Long commands are shortened by options that are added to
them (`SHORTER`). What cannot run here (`PARSED`), and commands within a line, are only parsed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from commands import run as run_forked
from conftest import ROOT
from PIL import Image

import circuitsim as cs
from circuitsim.commands import classify

COMMANDS = ("sweep", "status", "export", "figure4", "companions", "layer", "robustness", "classify")
PAGES = [
    *ROOT.glob("*.md"),
    *(p for p in ROOT.glob("docs/**/*.md") if p.parent.name not in ("notebooks", "gallery")),
    *ROOT.glob("figures/README.md"),
    *ROOT.glob("notebooks/*.md"),
    *ROOT.glob("notebooks/*.ipynb"),
]

# Added to what is shown, so that it ends soon. The last of two equal options counts.
SHORTER = {
    "sweep": "--overwrite --engine propagator --codegen numpy --trials 1 --presentations 2",
    "figure4": "--overwrite --codegen numpy --k 3 --gamma 0.1 --trials 1 --presentations 2 "
    "--jobs 1",
    "companions": "--overwrite --codegen numpy --trials 1 --presentations 8 --long 8 --jobs 1",
    "layer": "--overwrite --size 6 --presentations 2 --jobs 1",
    "robustness": "--overwrite --codegen numpy --neurons 5 --k 3 --trials 1 --presentations 2 "
    "--jobs 1",
    "classify train": "--epochs 1 --width 2 --batch-size 64",
}
AS_SHOWN = ("--redraw", "--reproduce")  # these refuse others beside them, and are short
PARSED = ("--scheduler", "cifar10")  # these need a cluster, or 170 MB of images

# Options of other programs, and whose they are.
OTHERS = {
    "--help": "all",
    "--nthreads": "dask worker",
    "--write": "benchmarks/engines.py",
    "--steps": "benchmarks/sharing.py",
    "--times": "benchmarks/faults.py",
    "--no-build-isolation": "pip",
    "--fast": "tests/run.sh",
    "--thorough": "tests/run.sh",
    "--lowest": "tests/run.sh",
}


def text_of(page):
    """Markdown of a page, or of a notebook's pages of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    # Code within a paragraph may be wrapped, and a command may go on after a backslash.
    text = re.sub(r"(?<!`)`[^`\n]*\n[^`\n]*`(?!`)", lambda m: m[0].replace("\n", " "), text)
    return text.replace("\\\n", " ")


def blocks(page):
    """Language and content of each fenced block."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", text_of(page), re.MULTILINE | re.DOTALL)
    return [(language, inspect.cleandoc("\n" + content)) for _, language, content in found]


def commands(text):
    """Names and arguments of all our commands in a text."""
    found = re.findall(r"python -m circuitsim\.([a-z0-9_]+)([^`\n|&;#]*)", text)
    return [(name, shlex.split(rest)) for name, rest in found]


def parser(name):
    return importlib.import_module(f"circuitsim.{name}").parser()


def options(p):
    """All options of a parser, and of the commands that it has."""
    found = set(p._option_string_actions)
    for action in p._actions:
        if isinstance(action.choices, dict):
            found.update(*(options(inner) for inner in action.choices.values()))
    return found


def shown_in(pages):
    return [(page, name, rest) for page in pages for name, rest in commands(text_of(page))]


def title(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_options_exist(page):
    known = set(OTHERS).union(*(options(parser(name)) for name in COMMANDS))
    known |= options(importlib.import_module("circuitsim.commands.main").parser("circuitsim"))
    known |= {"--neurons", "--trials", "--seed"}  # of the study that CONTRIBUTING.md adds
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text_of(page))) <= known


def test_other_programs_options_are_used_somewhere():
    everything = "".join(text_of(page) for page in PAGES)
    assert [o for o in OTHERS if o not in everything] == []
    written = (ROOT / OTHERS["--write"]).read_text(encoding="utf-8")
    assert '"--write"' in written


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_parse(page):
    for name, rest in commands(text_of(page)):
        assert name in COMMANDS
        given = [a for a in rest if a != "--help"]
        if not given or (name == "classify" and given in [[c] for c in classify.COMMANDS]):
            continue  # named in a sentence
        parser(name).parse_args(given)


def test_all_commands_are_shown():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}`" not in readme] == []
    assert {name for _, name, _ in shown_in((ROOT / "docs" / "commands").glob("*.md"))} == set(
        COMMANDS
    )
    there = {
        path.stem for path in (ROOT / "circuitsim").glob("*.py") if "__main__" in path.read_text()
    }
    assert there - {"__main__"} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_extras_exist(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"(?:circuitsim|'\.)\[(\w+)\]", text_of(page))
    assert set(named) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_files_exist(page):
    # The site's own links are checked as it is built.
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target
    for script in re.findall(r"(?:python|bash) ((?:\w+/)+\w+\.(?:py|sh))", text_of(page)):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_what_is_shown_can_be_pasted_into_a_fresh_shell(page):
    """Nothing needs an environment that is active, or programs that are not there."""
    for language, content in blocks(page):
        if language == "bash":
            for word in re.findall(r"(?m)^ *([\w./]+)|[|;&]+ *([\w./]+)", content):
                assert set(word) & {"python", "pip", "jupyter", "circuitsim", "dask"} == set()


@pytest.fixture(scope="module")
def place(once):
    """What pages take to be there: a sweep, an image, the figures, a trained classifier."""

    def make(place):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            assert run("sweep", shlex.split("--k 3 5 --gamma 0.01")) == 0
            assert run("classify", shlex.split("train --output run")) == 0
        digit = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(digit).save(place / "digit.png")
        (place / "figures").mkdir()
        for file in ROOT.glob("figures/*.nc"):
            shutil.copy(file, place / "figures")

    return once("pages", make)[0]


def run(name, rest):
    """Run a command, shortened, in this process."""
    if not set(AS_SHOWN).intersection(rest):
        subcommand = f" {rest[0]}" if name == "classify" else ""
        shorter = SHORTER.get(name + subcommand, "")
        if "--initial" in rest:  # there are as many circuits as pools
            shorter = shorter.replace("--trials 1", "")
        if "--set" in rest:  # the propagator runs the published circuit alone
            shorter = shorter.replace("--engine propagator", "")
        rest = [*rest, *shlex.split(shorter)]
    return importlib.import_module(f"circuitsim.{name}").main(rest)


WEEKLY = ("figures", "commands", "howto")


def runnable():
    kinds = {"bash", "python"}
    # What CONTRIBUTING.md adds is files, which a test of its own makes.
    shown = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
    return [
        # Commands and figures have daily tests of their own.
        pytest.param(page, marks=[pytest.mark.thorough] * (page.parent.name in WEEKLY))
        for page in shown
        if kinds & {k for k, _ in blocks(page)}
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", runnable(), ids=title)
def test_what_is_shown_runs(page, place, tmp_path, monkeypatch):
    there = tmp_path / "there"
    shutil.copytree(place, there, ignore=shutil.ignore_patterns("*.cells"))
    monkeypatch.chdir(there)
    digits = importlib.import_module("circuitsim.vision.datasets").load("digits").test
    names = {"__name__": "shown", "images": digits.images[:20], "labels": digits.labels[:20]}
    for language, content in blocks(page):
        if language == "python":
            exec(compile(ast.parse(content), title(page), "exec"), names)
        elif language == "bash":
            for name, rest in commands(content):
                if not any(word in PARSED or word.startswith("tcp:") for word in rest):
                    if name == "classify" and rest[0] == "train":
                        shutil.rmtree("run", ignore_errors=True)
                    assert run(name, rest) == 0, (name, rest)


def public_things():
    """All public functions and classes of the package, and the classes' methods."""
    for info in pkgutil.walk_packages(cs.__path__, "circuitsim."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        yield info.name, module
        for name, thing in vars(module).items():
            defined_here = getattr(thing, "__module__", None) == info.name
            if name.startswith("_") or not defined_here:
                continue
            if inspect.isfunction(thing) or inspect.isclass(thing):
                yield f"{info.name}.{name}", thing
            if inspect.isclass(thing):
                for method in vars(thing):
                    member = getattr(thing, method, None)  # of a descriptor there may be none
                    if not method.startswith("_") and (
                        inspect.isfunction(member) or isinstance(member, property)
                    ):
                        yield f"{info.name}.{name}.{method}", member


def test_everything_public_has_a_docstring():
    assert [name for name, thing in public_things() if not inspect.getdoc(thing)] == []


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cs.__version__}\n" in citation
    assert cs.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# From the ground up: each room knows only those before it. See "The house" in CONTRIBUTING.md.
ROOMS = (
    {"public", "version", "processwide", "checks"},
    {"files"},
    {"expressions", "rules", "schedules", "inputs", "initial", "measures", "theory", "equations",
     "linear", "dynamics", "parameters", "typesetting", "description", "noise", "_noise_numba"},
    {"engines"},
    {"vision"},
    {"running"},
    {"plots"},
    {"studies"},
    {"notebook"},
    {"commands"},
    {"sweep", "figure4", "companions", "layer", "robustness", "status", "export", "classify",
     "__main__"},
)  # fmt: skip
PACKAGE = ROOT / "circuitsim"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path):
    """Modules of the package that a module imports, when it is loaded or later, or for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("circuitsim"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("circuitsim"))


def test_the_house_plan_is_complete():
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)/?`", plan.partition("## The house")[2].partition("\n## ")[0]))
    there = {info.name for info in pkgutil.iter_modules(cs.__path__)}
    assert there == set().union(*ROOMS)
    assert there - {"__main__"} <= named


def test_rooms_know_only_those_below():
    level = {name: n for n, room in enumerate(ROOMS) for name in room}
    upwards = [
        (module, imported)
        for module, path in MODULES.items()
        for imported in imports(path)
        if "." in module and "." in imported
        and level[imported.split(".")[1]] > level[module.split(".")[1]]
    ]  # fmt: skip
    assert upwards == []


def test_modules_import_in_no_circle():
    known = {module: set(imports(path)) & MODULES.keys() for module, path in MODULES.items()}
    # A package's own file only says where its names are.
    known = {m: {i for i in found if i != "circuitsim"} for m, found in known.items()}
    while free := [module for module, found in known.items() if not found & known.keys()]:
        for module in free:
            del known[module]
    assert sorted(known) == []


def test_what_runs_campaigns_knows_none():
    """Neither circuits nor images, figures or options."""
    foreign = {"argparse", "matplotlib", "brian2"}
    for path in (PACKAGE / "running").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [a.name for a in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
        }  # fmt: skip
        if path.name == "campaign.py":
            found.discard("matplotlib")  # the type of what `draw` returns
        assert not found & foreign, path.name


@pytest.mark.slow
def test_the_study_that_is_added(tmp_path):
    """As CONTRIBUTING.md adds it: two files and lines of a registry, and all commands know it."""
    shutil.copytree(PACKAGE, tmp_path / "circuitsim", ignore=shutil.ignore_patterns("__pycache__"))
    study, plot, lines = (
        content for language, content in blocks(ROOT / "CONTRIBUTING.md") if language == "python"
    )
    assert len([line for line in study.splitlines() if line.strip()]) <= 42
    package = tmp_path / "circuitsim"
    (package / "studies" / "sizes.py").write_text(study)
    (package / "plots" / "sizes.py").write_text(plot)
    with (package / "studies" / "registry.py").open("a") as registry:
        registry.write(lines)
    # Kernels in NumPy: Numba would compile anew what stands in another place.
    (tmp_path / "numba.py").write_text("raise ImportError\n")

    # One process gives all the commands: what a start costs is not paid for each.
    (tmp_path / "all.py").write_text(
        "import json, sys\n"
        "from contextlib import redirect_stderr, redirect_stdout\n"
        "from io import StringIO\n"
        "from circuitsim.commands.main import main\n"
        "def said(arguments):\n"
        "    out, err = StringIO(), StringIO()\n"
        "    with redirect_stdout(out), redirect_stderr(err):\n"
        "        try:\n"
        "            code = main(arguments)\n"
        "        except SystemExit as end:\n"
        "            code = end.code\n"
        "    return code, out.getvalue(), err.getvalue()\n"
        "if __name__ == '__main__':\n"
        "    print(json.dumps([said(each) for each in json.loads(sys.argv[1])]))\n"
    )
    sizes = ["sizes", "--neurons", "3", "5", "--trials", "2", "--output", "out"]
    given = [
        [*sizes, "--cell", "1"],
        ["status", "out/sizes.nc"],
        [*sizes, "--keep"],
        ["sizes", "--reproduce", "out/sizes.nc"],
        ["--help"],
    ]
    done = subprocess.run(
        [sys.executable, "all.py", json.dumps(given)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    part, status, whole, again, help_ = json.loads(done.stdout)
    assert part[0] == 0, part
    assert "finished    1" in status[1], status
    assert whole[0] == 0, whole
    assert "1 of 2 circuits were there already" in whole[2]
    assert {path.suffix for path in (tmp_path / "out").glob("sizes.*")} == {
        ".nc", ".pdf", ".png", ".md", ".cells",
    }  # fmt: skip
    assert "identical" in again[1], again
    assert "draw how alike" in help_[1]


class Links(HTMLParser):
    """Links and anchors of a page of the site."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] for name in ("href", "src") if given.get(name)}


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(ROOT.glob("docs/examples/*.py")), ids=lambda e: e.stem)
def test_examples_run(example):
    runpy.run_path(str(example))
    assert plt.get_fignums()
    plt.close("all")


def built_site(base):
    """Build the site from a copy, so that its gallery is not left in the source."""
    for folder in ("docs", "figures", "circuitsim", "notebooks"):
        ignored = shutil.ignore_patterns("gallery", "__pycache__", "sg_execution_times.rst")
        shutil.copytree(ROOT / folder, base / folder, ignore=ignored)
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
    built = run_forked(*strict, base / "docs", base / "site", program="sphinx")
    assert built.returncode == 0, built.stderr
    return base / "site"


@pytest.mark.slow
@pytest.mark.thorough
def test_site(tmp_path):
    site = built_site(tmp_path)
    check_links(site)
    check_reference(site)


def check_links(site):
    """All links within the site must lead somewhere."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            there = target.exists() and (
                not anchor or target not in pages or anchor in pages[target].anchors
            )
            if not there:
                broken.append((path.name, link))
    assert broken == []


def check_reference(site):
    """All public names must be there."""
    reference = "".join(path.read_text(encoding="utf-8") for path in site.glob("api/*.html"))
    for name in cs.__all__:
        if name != "__version__":
            thing = getattr(cs, name)
            if inspect.ismodule(thing) and callable(thing):  # a command that is a function, too
                places = {f"circuitsim.studies.{name}.{name}"}
            elif inspect.ismodule(thing):
                places = {f"module-{thing.__name__}"}
            else:
                places = {f"circuitsim.{name}", f"{thing.__module__}.{name}"}
            assert any(f'id="{place}"' in reference for place in places), name


@pytest.mark.thorough
def test_a_broken_reference_fails_the_build(tmp_path):
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path)
    text = (tmp_path / "conf.py").read_text(encoding="utf-8")
    for what, instead in (
        ('"sphinx_gallery.gen_gallery",', ""),
        ("Path(__file__).parents[1]", f"Path({str(ROOT)!r})"),
        ('["_static"]', "[]"),
        ("\nwrite_notebooks()\n", "\n"),
    ):
        assert what in text
        text = text.replace(what, instead)
    (tmp_path / "conf.py").write_text(text, encoding="utf-8")
    references = {
        "index": "[x](#title)",
        "thing": "{py:func}`circuitsim.no_such_thing`",
        "page": "[x](no_such_page.md)",
        "place": "[x](#no-such-place)",
    }
    for page, reference in references.items():
        content = f"---\norphan: true\n---\n# Title\n\n{reference}\n"
        (tmp_path / f"{page}.md").write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-n", "-q", ".", "out"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode != 0
    told = set(re.findall(r"/(\w+)\.md:\d+: WARNING", built.stderr))
    assert told == references.keys() - {"index"}
