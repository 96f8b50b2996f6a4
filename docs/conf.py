"""How the site is built: ``bash docs/build.sh``."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.util.nodes import make_refnode

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package of this checkout
os.environ["COLUMNS"] = "88"  # width of the help of commands

import circuitsim

project = "circuitsim"
author = "The circuitsim developers"
project_copyright = author
version = release = circuitsim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas are shown without a network, too
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples/*"]

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3

# In docstrings `name` means a thing of Python's, as numpydoc has it.
default_role = "py:obj"
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_param = napoleon_use_rtype = False  # types are plain words, not links
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say more: shapes and units
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
python_maximum_signature_line_length = 80

nitpicky = True
highlight_language = "none"  # tables and output; programs say what they are

html_theme = "furo"
html_title = "circuitsim"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "capture_repr": (),
}


class CommandHelp(Directive):
    """The ``--help`` of a command, or of one of its own commands, as it prints it."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        parser = importlib.import_module(self.arguments[0]).parser()
        if len(self.arguments) > 1:
            (commands,) = (a.choices for a in parser._actions if isinstance(a.choices, dict))
            parser = commands[self.arguments[1]]
        shown = [parser]
        found: list[nodes.Node] = []
        for each in shown:
            text = each.format_help()
            block = nodes.literal_block(text, text, language="none", classes=["command-help"])
            found += [nodes.paragraph("", "", nodes.literal("", f"{each.prog} --help")), block]
        return found


def write_notebooks() -> None:
    """Write the notebooks of this checkout as pages, with the outputs that they hold."""
    target = Path(__file__).parent / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        (target / f"{path.stem}.md").write_text(_as_page(path, target), encoding="utf-8")


def _as_page(path: Path, target: Path) -> str:
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(\.\./docs/", "](../", source).replace(".ipynb)", ".md)"))
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                image = f"{path.stem}-{number}-{place}.png"
                (target / image).write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![Output]({image})")
            elif "text/plain" in data:
                parts.append("````text\n" + "".join(data["text/plain"]).rstrip() + "\n````")
    return "\n\n".join(parts) + "\n"


write_notebooks()


class RuleTable(Directive):
    """The plasticity rules, from the package's own table."""

    def run(self) -> list[nodes.Node]:
        from circuitsim.rules import RULES

        listed = nodes.definition_list()
        for rule in RULES.values():
            term = nodes.term("", "", nodes.literal("", rule.name))
            signal = nodes.paragraph("", "signal: ", nodes.literal("", rule.signal))
            definition = nodes.definition("", nodes.paragraph("", rule.summary), signal)
            listed += nodes.definition_list_item("", term, definition)
        return [listed]


class ModelEquations(Directive):
    """What `circuitsim.describe` says of a rule: the strings that the network is built from."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        plasticity = circuitsim.Plasticity(self.arguments[0])
        text = str(circuitsim.describe(None, plasticity))
        return [nodes.literal_block(text, text, language="none", classes=["command-help"])]


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Find what a docstring's `name` means as a reader would; None is a broken reference."""
    if node.get("refdomain") != "py":
        return None
    target, domain = node["reftarget"], env.get_domain("py")
    ends = [name for name in domain.objects if name == target or name.endswith(f".{target}")]
    if ends:
        found = domain.objects[min(ends, key=len)]
        return make_refnode(
            app.builder, node["refdoc"], found.docname, found.node_id, content, target
        )
    if node["reftype"] == "class":  # the types in numpydoc's sections are words
        return content
    # Not on this site: at least it must be there.
    module, owner = node.get("py:module"), node.get("py:class")
    places = [f"{module}.{owner}", module, "circuitsim", "circuitsim.vision", "brian2"]
    there = _exists(target) or any(_exists(f"{place}.{target}") for place in places)
    return content if there else None


_NOTES = "__annotations__"


def _exists(name: str) -> bool:
    """Whether a name with dots can be imported."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            annotated = {n for c in getattr(thing, "__mro__", ()) for n in vars(c).get(_NOTES, ())}
            if not hasattr(thing, part) and part not in annotated:
                return False
            thing = getattr(thing, part, None)
        return True
    return False


def _plain_words(app: Any, doctree: Any) -> None:
    """Make no links of words in the types of numpydoc's sections, such as shape."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") == "class" and not node["reftarget"][:1].isupper():
            node.replace_self(node.children)


def _without_aliases(app: Any, what: str, name: str, thing: Any, options: Any, lines: Any) -> None:
    """Leave out what a named tuple says of its fields: nothing."""
    if lines and lines[0].startswith("Alias for field number"):
        lines[:] = []


def setup(app: Any) -> None:
    """Add the directives of this site."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("rule-table", RuleTable)
    app.add_directive("model-equations", ModelEquations)
    app.connect("autodoc-process-docstring", _without_aliases)
    app.connect("doctree-read", _plain_words)
    app.connect("missing-reference", _resolve)
