"""Docstrings as they are written, in Markdown with formulas, for autodoc; names in backticks become links."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

SPAN = re.compile(r"(``.+?``|`[^`\n]+`|\$\$.+?\$\$|\$[^$]+?\$)", re.DOTALL)
NAME = re.compile(r"^(?:af\.|attnflow\.)?([A-Za-z]\w*(?:\.\w+)*)(?:\(\))?$")
HOMES = (
    "theory",
    "analysis",
    "models",
    "observables",
    "plot",
    "kernels",
    "sphere",
    "layers",
    "meanfield",
)
"""Modules whose names docstrings give in full: `theory.gibbs.free_energy` must exist."""

DATA = {
    "attnflow.claims": ("CLAIMS",),
    "attnflow.flows": ("FLOWS",),
    "attnflow.kernels": ("KERNEL_SUMS",),
    "attnflow.layers": ("ACTIVATIONS", "NORMALIZERS", "PLACEMENTS", "WEIGHTS"),
    "attnflow.norms": (
        "post_ln", "pre_ln", "peri_ln", "sqrt_scaling", "ln_scaling", "no_ln", "NORMS",
    ),
    "attnflow.plot": ("CATEGORICAL", "INK", "SEQUENTIAL"),
    "attnflow.store": ("FORMAT",),
    "attnflow.sweeps": ("EXECUTORS",),
    "attnflow.theory.normalization": ("EXPONENTS", "SCHEMES"),
}  # fmt: skip
"""Public names that are neither functions nor classes: autodoc is told of each."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite every docstring before napoleon reads its sections."""
    app.connect("autodoc-process-docstring", rewrite, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def rewrite(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put reStructuredText in the place of Markdown, in place."""
    module = obj if inspect.ismodule(obj) else inspect.getmodule(obj)
    if what == "data":
        of_type = inspect.cleandoc(type(obj).__doc__ or "").split("\n")[0]
        lines[:] = [] if lines and lines[0] == of_type else lines
        lines += data_lines(obj)
    names = Links(module or importlib.import_module("attnflow"), name)
    lines[:] = to_rst("\n".join(lines), names).split("\n")


def data_lines(value: Any) -> list[str]:
    """What a constant holds: the names in a registry, or a number."""
    if isinstance(value, dict):
        return ["", f"Names: {', '.join(f'`{key}`' for key in value)}."]
    if isinstance(value, tuple) and value and all(isinstance(entry, str) for entry in value):
        return ["", f"Values: {', '.join(f'`{entry}`' for entry in value)}."]
    return ["", f"Value: `{value!r}`."] if isinstance(value, bool | int | float | str) else []


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the getters of named tuples, names of `DATA`, and names with another page."""
    if type(obj).__name__ == "_tuplegetter":
        return True
    page = app.env.docname.rpartition("/")[2]
    if what == "module" and page in documented_modules() and at_home_elsewhere(obj, page):
        return True
    return True if what == "module" and name in DATA.get(page, ()) else None


def at_home_elsewhere(obj: Any, module: str) -> bool:
    """Whether another page documents an object: each name has one."""
    home = getattr(obj, "__module__", None)
    return home != module and home in documented_modules() and not inspect.ismodule(obj)


class Links:
    """Targets of names in backticks, read where the docstring stands."""

    def __init__(self, module: ModuleType, where: str) -> None:
        self.module, self.where = module, where

    def __call__(self, text: str) -> str | None:
        """Full public name that a text in backticks means; None for a parameter or a code."""
        match = NAME.match(text)
        if match is None:
            return None
        dotted = match[1]
        named = dotted.partition(".")[0] in HOMES and "." in dotted
        for root in (self.module, importlib.import_module("attnflow")):
            found = walk(root, dotted)
            if found is not None and (target := public().get(identity(found))):
                return target
        if named and walk(importlib.import_module("attnflow"), dotted) is None:
            logger.warning("docstring of %s names `%s`, which does not exist", self.where, text)
        return None


def walk(root: Any, dotted: str) -> Any:
    """Object at the end of a dotted name, or None."""
    for part in dotted.split("."):
        try:
            root = getattr(root, part)
        except (AttributeError, ImportError):
            return None
    return root


def identity(obj: Any) -> Any:
    """Key under which one object is known, however it was imported."""
    if inspect.ismodule(obj):
        return obj.__name__
    if inspect.isfunction(obj) or inspect.isclass(obj):
        return f"{obj.__module__}:{obj.__qualname__}"
    return None


@cache
def public() -> dict[str, str]:
    """Identity of every function and class of the reference -> the name it is documented under."""
    found: dict[str, str] = {}
    for name in documented_modules():
        module = importlib.import_module(name)
        found[name] = name
        for member in public_names(module):
            obj = getattr(module, member)
            key = identity(obj)
            if key is not None and not at_home_elsewhere(obj, name):
                found.setdefault(key, f"{name}.{member}")
    return found


@cache
def documented_modules() -> list[str]:
    """Modules listed on the page of the reference."""
    from pathlib import Path

    page = Path(__file__).parents[1] / "reference" / "index.md"
    return re.findall(r"^\s+(attnflow[\w.]*)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def public_names(module: ModuleType) -> list[str]:
    """Names a module offers: its `__all__`, else the functions and classes written in it."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, obj in vars(module).items()
        if not name.startswith("_") and getattr(obj, "__module__", None) == module.__name__
        if inspect.isfunction(obj) or inspect.isclass(obj)
    ]


def to_rst(text: str, links: Any = lambda text: None) -> str:
    """Markdown of our docstrings as reStructuredText: formulas, code, links, lists, tables."""
    pieces = SPAN.split(text)
    text = "".join(_span(p, links) if k % 2 else _plain(p) for k, p in enumerate(pieces))
    return _blocks(text)


def _span(span: str, links: Any) -> str:
    if span.startswith("$$"):
        return f"\n\n.. math:: {' '.join(span[2:-2].split())}\n\n"
    if span.startswith("$"):
        return rf"\ :math:`{' '.join(span[1:-1].split())}`\ "
    code = span.strip("`")
    target = links(code)
    if target is not None:
        return rf"\ :py:obj:`{code} <{target}>`\ "
    return rf"\ ``{code}``\ "


def _plain(text: str) -> str:
    """Marks that are markup in reStructuredText and mere signs in our docstrings."""
    text = text.replace("\\", "\\\\")
    text = re.sub(r"(?<!^)([*|])", r"\\\1", text)
    text = re.sub(r"^([*|])", r"\\\1", text)
    return re.sub(r"(\w)_(?=\W|$)", r"\1\\_", text)


def _blocks(text: str) -> str:
    """Lists set off by a blank line, and Markdown tables as list tables."""
    lines: list[str] = []
    given = text.split("\n")
    for k, line in enumerate(given):
        if re.match(r"\s*\\\|(---|\s*:?-+)", line):
            continue
        if re.match(r"\s*\\\|.*\\\|\s*$", line) and _in_table(given, k):
            first = re.match(r"\s*\\\|-", given[k + 1]) if k + 1 < len(given) else None
            if first:
                lines += ["", ".. list-table::", "   :header-rows: 1", ""]
            cells = [cell.strip() for cell in line.strip().strip("\\|").split("\\|")]
            lines += [f"   {'* -' if c == 0 else '  -'} {cell}" for c, cell in enumerate(cells)]
            continue
        before = lines[-1] if lines else ""
        if line.lstrip().startswith("- ") and before.strip() and not _of_list(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _in_table(lines: list[str], k: int) -> bool:
    """Whether line k belongs to rows around a rule of dashes."""
    start = k
    while start > 0 and lines[start - 1].lstrip().startswith("\\|"):
        start -= 1
    return start + 1 < len(lines) and bool(re.match(r"\s*\\\|-", lines[start + 1]))


def _of_list(lines: list[str]) -> bool:
    """Whether the last line is an item, or goes on with one."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if line.lstrip().startswith("- "):
            return True
    return False
