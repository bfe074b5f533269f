"""Gallery, tutorials, how-to pages: none is missing, and every name they use exists. `make docs` runs them."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import attnflow
from attnflow.experiments import EXPERIMENTS, load

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("plot_*.py"))
PAGES = sorted(page for part in ("tutorials", "howto") for page in (DOCS / part).glob("*.md"))
CELL = re.compile(r"```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)```", re.DOTALL)


def cells(page):
    """Code cells of a page, without lines for the notebook alone."""
    for _, code in CELL.findall(page.read_text(encoding="utf-8")):
        yield "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!")))


def code_of(page):
    return page.read_text(encoding="utf-8") if page.suffix == ".py" else "\n".join(cells(page))


def test_every_experiment_has_a_gallery_script():
    names = [script.stem.removeprefix("plot_") for script in SCRIPTS]
    assert names == sorted(name.replace("-", "_") for name in EXPERIMENTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs_draws_and_prints_its_experiment_at_settings_that_exist(script):
    name = script.stem.removeprefix("plot_")
    calls = {ast.unparse(node.func): node for node in ast.walk(ast.parse(code_of(script)))
             if isinstance(node, ast.Call)}  # fmt: skip
    assert {"print"} | {f"{name}.{part}" for part in ("run", "draw", "summary")} <= set(calls)
    config = compile(ast.Expression(calls[f"{name}.Config"]), script.name, "eval")
    experiment = load(name)
    experiment.resolve(eval(config, {name: experiment}))


def test_every_page_is_in_the_contents():
    for part in ("tutorials", "howto"):
        listed = re.findall(r"^\w+$", (DOCS / part / "index.md").read_text(), re.MULTILINE)
        assert sorted(listed) == sorted(
            p.stem for p in PAGES if p.parent.name == part and p.stem != "index"
        )


def known_names(tree):
    """Names that a page binds to attnflow or a part of it."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "attnflow":
                    names[alias.asname or "attnflow"] = import_module(
                        alias.name if alias.asname else "attnflow"
                    )
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "attnflow":
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or import_module(
                    f"{node.module}.{alias.name}"
                ), alias.name
                names[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):  # long = theory.long_context
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
            several = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = (
                zip(node.targets[0].elts, node.value.elts, strict=True)
                if several
                else [(node.targets[0], node.value)]
            )
            for target, value in pairs:
                found = resolve(value, names)
                if isinstance(target, ast.Name) and isinstance(found, ModuleType):
                    names[target.id] = found
    return names


def resolve(node, names):
    """What a dotted name stands for; None if attnflow is not at its root, or beyond an object of its own."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolve(node.value, names)
    if not isinstance(owner, ModuleType):
        return None
    assert hasattr(owner, node.attr), f"line {node.lineno}: {owner.__name__} has no {node.attr}"
    return getattr(owner, node.attr)


def check_keywords(node, function):
    """Every keyword of a call is one of the function's."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = {k.arg for k in node.keywords if k.arg} - set(parameters)
    assert not unknown, (
        f"line {node.lineno}: {ast.unparse(node.func)} takes no {', '.join(unknown)}"
    )


@pytest.mark.parametrize(
    "page", [*PAGES, *SCRIPTS], ids=lambda page: f"{page.parent.name}/{page.stem}"
)
def test_no_stale_names(page):
    tree = ast.parse(code_of(page))
    names = known_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            resolve(node, names)
        if isinstance(node, ast.Call) and (function := resolve(node.func, names)) is not None:
            check_keywords(node, function)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_no_stale_names_in_the_text(page):
    """Dotted names in backticks, such as `theory.two_clusters.merge_angle`."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = "|".join(("af", *attnflow._MODULES))
    for span in re.findall(r"`([^`]+)`", prose):
        for dotted in re.findall(rf"(?<![\w./])(?:{parts})(?:\.[A-Za-z]\w*)+", span):
            resolve(
                ast.parse(dotted, mode="eval").body,
                {"af": attnflow} | {name: getattr(attnflow, name) for name in attnflow._MODULES},
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_links_to_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([\w./-]+\.md)", text):
        assert (page.parent / target).is_file(), target
    for name in re.findall(r"auto_gallery/(plot_\w+)", text):
        assert (DOCS / "gallery" / f"{name}.py").is_file(), name
