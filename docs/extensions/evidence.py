"""Tables equation -> function -> test -> claim, read from `attnflow.claims` and from the tests at build time.

In a page of theory::

    :::{evidence}
    eq-energy: observables.energy; energy-climb-usa, energy-climb-sa
    :::

names an equation of the page, the functions that compute it, and claims whose two sides are simulated;
claims that have one of the functions as their oracle are found. `{claims}` writes every claim out,
`{verdicts}` checks those it names.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docstrings import identity, public, walk
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

TESTS = Path(__file__).parents[2] / "tests"
SHOWN = 4
"""How many tests of one equation are named."""


@dataclass(frozen=True)
class Row:
    """One line of a table: where an equation is computed and what would contradict it."""

    equation: str
    functions: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]


def setup(app: Sphinx) -> dict[str, Any]:
    """The directives, and the check that no claim was left out."""
    app.add_directive("evidence", Evidence)
    app.add_directive("claims", Claims)
    app.add_directive("verdicts", Verdicts)
    app.add_config_value("evidence_run", True, "env", bool)
    app.connect("env-check-consistency", check_claims)
    app.connect("env-purge-doc", lambda app, env, name: _shown(env).pop(name, None))
    return {"parallel_read_safe": False}


class Evidence(SphinxDirective):
    """Table of the equations of a page."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Markdown of the table, parsed as part of the page."""
        rows = [row(line) for line in self.content if line.strip()]
        for one in rows:
            for problem in problems(one):
                logger.warning("%s: %s", one.equation, problem, location=self.get_location())
        _shown(self.env)[self.env.docname] = {name for one in rows for name in one.claims}
        lines = ["| equation | function | tests that name it | claims |", "|---|---|---|---|"]
        return _table(self, lines + [_markdown(one) for one in rows])


class Verdicts(SphinxDirective):
    """Claims, checked while the page is built: what is predicted and what was observed."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Markdown of the table; a claim that fails is a warning."""
        import jax

        from attnflow.claims import CLAIMS, evaluate

        jax.config.update("jax_enable_x64", True)
        lines = ["| claim | predicted | observed | error | tolerance |", "|---|---|---|---|---|"]
        for name in " ".join(self.content).split():
            cells = ["–"] * 3
            if self.config.evidence_run:
                verdict = evaluate(CLAIMS[name])
                if not verdict.passed:
                    logger.warning(
                        "claim `%s` fails: %s", name, verdict.reason, location=self.get_location()
                    )
                cells = [
                    f"{verdict.predicted:.8g}",
                    f"{verdict.observed:.8g}",
                    f"{verdict.error:.1e}",
                ]
            cells.append(f"{CLAIMS[name].tolerance:.1e}")
            lines.append(f"| [{name}](#claim-{name}) | {' | '.join(cells)} |")
        return _table(self, lines)


class Claims(SphinxDirective):
    """Every claim: what is said, by whom, how it is checked and how far it may be off."""

    def run(self) -> list[nodes.Node]:
        """Markdown of all subjects, parsed as part of the page."""
        from attnflow.claims import SUBJECTS

        text = "\n".join(line for subject in SUBJECTS for line in _subject(subject))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def row(line: str) -> Row:
    """A line `equation: function, function; claim, claim` with what was found for it."""
    from attnflow.claims import CLAIMS

    equation, _, rest = line.partition(":")
    given, _, named = rest.partition(";")
    functions = tuple(name.strip() for name in given.split(",") if name.strip())
    keys = {identity(walk(importlib.import_module("attnflow"), name)) for name in functions}
    found = [
        name for name, claim in CLAIMS.items() if claim.oracle and identity(claim.oracle) in keys
    ]
    found += [name.strip() for name in named.split(",") if name.strip()]
    tests = sorted({test for key in keys for test in named_by_tests().get(key, ())}, key=_rank)
    return Row(equation.strip(), functions, tuple(dict.fromkeys(found)), tuple(tests))


def _rank(test: str) -> tuple[bool, bool, str]:
    """Tests of theory first, tests of bad input last."""
    return "bad" in test or "refused" in test, "/theory/" not in test, test


def problems(one: Row) -> Iterator[str]:
    """What is missing in a row: a function, its page, a claim, or anything that checks it."""
    from attnflow.claims import CLAIMS

    for name in one.functions:
        if identity(walk(importlib.import_module("attnflow"), name)) not in public():
            yield f"`{name}` is not in the reference"
    for name in one.claims:
        if name not in CLAIMS:
            yield f"there is no claim `{name}`"
    if not one.tests and not one.claims:
        yield "neither a test nor a claim checks it"


def check_claims(app: Any, env: Any) -> None:
    """Warn of claims that no page of theory shows."""
    from attnflow.claims import CLAIMS

    shown = set().union(*_shown(env).values())
    for name in sorted(set(CLAIMS) - shown) if shown else ():
        logger.warning("claim `%s` is on no page of theory", name)


def _table(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """Markdown of a table, parsed as part of the page."""
    parsed = directive.parse_text_to_nodes("\n".join(lines))
    for table in (table for node in parsed for table in node.findall(nodes.table)):
        table["classes"].append("evidence")
    return parsed


def _shown(env: Any) -> dict[str, set[str]]:
    if not hasattr(env, "attnflow_claims"):
        env.attnflow_claims = {}
    return env.attnflow_claims


def _markdown(one: Row) -> str:
    functions = [
        f"{{py:obj}}`{name.removeprefix('theory.')} <{_home(name)}>`" for name in one.functions
    ]
    claims = [f"[{name}](#claim-{name})" for name in one.claims]
    tests = [
        f"{{download}}`{_short(test)} <../../{test.partition('::')[0]}>`" for test in one.tests
    ]
    more = len(tests) - SHOWN
    tests = tests[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    cells = (", ".join(cell) or "–" for cell in (functions, tests, claims))
    return f"| {{eq}}`{one.equation}` | " + " | ".join(cells) + " |"


def _home(name: str) -> str:
    found = walk(importlib.import_module("attnflow"), name)
    return public().get(identity(found), f"attnflow.{name}")


def _short(test: str) -> str:
    path, _, name = test.partition("::")
    return (
        f"{Path(path).stem.removeprefix('test_')}: {name.removeprefix('test_').replace('_', ' ')}"
    )


def _subject(subject: Any) -> Iterator[str]:
    """Markdown of the claims of one module."""
    title = (subject.__doc__ or "").split("\n")[0].rstrip(".")
    yield f"\n## {subject.__name__.rpartition('.')[2].replace('_', ' ').capitalize()}\n\n{plain(title)}.\n"
    for claim in subject.CLAIMS:
        size = f"{claim.tolerance:.2g}" + (", relative" if claim.relative else "")
        kind = "lower bound, by at most " if claim.at_least else "tolerance "
        yield f"\n(claim-{claim.name})=\n**{claim.name}** · {plain(claim.statement)}\n"
        oracle = claim.oracle and public().get(identity(claim.oracle))
        told = (
            f" Predicted by {{py:obj}}`{oracle.removeprefix('attnflow.')} <{oracle}>`."
            if oracle
            else ""
        )
        yield f": {plain(claim.source)}; {kind}{size} ({plain(claim.why.rstrip('.'))}).{told}\n"


def plain(text: str) -> str:
    """Text in which no sign is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|$^~:])", r"\\\1", " ".join(text.split()))


@cache
def named_by_tests() -> dict[Any, set[str]]:
    """Identity of a function -> the tests that name it, as path::test; a path alone for the rest of a file."""
    found: dict[Any, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = dict(_aliases(tree))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                where = f"{path.relative_to(TESTS.parent).as_posix()}::{node.name}"
                for dotted in _dotted(node, aliases):
                    key = identity(walk(importlib.import_module("attnflow"), dotted))
                    if key is not None:
                        found[key].add(where)
    return found


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names a file imports from attnflow, with where they come from; "" is the package itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "attnflow":
                    yield alias.asname or "attnflow", ""
                elif alias.name.startswith("attnflow.") and alias.asname:
                    yield alias.asname, alias.name.removeprefix("attnflow.")
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "attnflow"
        ):
            home = (node.module or "").partition(".")[2]
            for alias in node.names:
                yield alias.asname or alias.name, f"{home}.{alias.name}".lstrip(".")


def _dotted(function: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    """Dotted names within attnflow that occur in a function or its decorators."""
    for node in ast.walk(function):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in aliases:
            for k in range(len(parts) + 1):
                dotted = ".".join(filter(None, [aliases[node.id], *parts[::-1][: len(parts) - k]]))
                if dotted:
                    yield dotted
