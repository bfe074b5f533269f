"""Every public name has one page, links lead somewhere, and theory's tables name what exists."""

import importlib
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import pytest

import attnflow
from attnflow.claims import CLAIMS

pytest.importorskip("sphinx")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "extensions"))
import docstrings  # noqa: E402
import evidence  # noqa: E402

PAGES = sorted((DOCS / "theory").glob("*.md"))
ELSEWHERE = ("tutorials/", "howto/", "auto_gallery/")  # pages that only `make docs` builds


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Reference and theory as HTML: one warning, and the build fails."""
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "trees")]
    run = subprocess.run(
        [*command, "docs", str(out / "html")],
        cwd=ROOT,
        env=os.environ | {"ATTNFLOW_DOCS_FAST": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return out / "html"


@pytest.fixture(scope="module")
def inventory(built):
    """Names of all documented objects."""
    packed = (built / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return [line.split()[0] for line in zlib.decompress(packed).decode().splitlines()]


def test_every_public_module_is_on_the_page_of_the_reference():
    listed = docstrings.documented_modules()
    assert len(listed) == len(set(listed))
    for name in attnflow._MODULES:
        package = importlib.import_module(f"attnflow.{name}")
        inner = [getattr(package, part) for part in getattr(package, "__all__", ())]
        modules = [part.__name__ for part in inner if isinstance(part, ModuleType)]
        assert set(modules or [package.__name__]) <= set(listed), name


@pytest.mark.parametrize("module", docstrings.documented_modules())
def test_every_public_name_has_one_page(module, inventory):
    loaded = importlib.import_module(module)
    for name in docstrings.public_names(loaded):
        obj = getattr(loaded, name)
        home = obj.__module__ if docstrings.at_home_elsewhere(obj, module) else module
        assert inventory.count(f"{home}.{name}") == 1, name
        assert home == module or f"{module}.{name}" not in inventory, name


def test_every_name_of_the_package_has_a_page(inventory):
    for name, home in attnflow._HOME_OF.items():
        assert f"attnflow.{home}.{name}" in inventory


class Links(HTMLParser):
    """What a page refers to, and the places in it that one can refer to."""

    def __init__(self, path):
        super().__init__()
        self.wanted, self.ids = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.wanted.add(value)


def test_no_link_dangles_and_nothing_is_fetched(built):
    pages = {path: Links(path) for path in built.rglob("*.html")}
    dangling = []
    for path, page in pages.items():
        for link in page.wanted:
            address, anchor = urldefrag(link)
            if address.startswith(("mailto:", "data:")) or any(
                part in address for part in ELSEWHERE
            ):
                continue
            assert (
                not re.match(r"https?:|//", address) or "furo" in address or "sphinx" in address
            ), link
            if re.match(r"https?:", address):
                continue
            target = (
                (path.parent / unquote(address).partition("?")[0]).resolve() if address else path
            )
            known = pages[target].ids if target in pages else None
            if not target.exists() or (anchor and known is not None and anchor not in known):
                dangling.append((path.name, link))
    assert not dangling


def test_every_page_shows_formulas_offline(built):
    for path in built.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert ("_static/tex-svg-full.js" in text) or not re.search(r'class="math[ "]', text)
    assert (built / "_static" / "tex-svg-full.js").stat().st_size > 1e6


def rows():
    """Every line of every table of evidence, with its page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r":::\{evidence\}\n(.*?):::", text, re.DOTALL):
            yield from ((page, text, line) for line in block.splitlines() if line.strip())


@pytest.mark.parametrize(
    ("page", "text", "line"), list(rows()), ids=lambda value: getattr(value, "stem", "")
)
def test_a_row_names_an_equation_functions_and_what_checks_them(page, text, line):
    row = evidence.row(line)
    assert text.count(f"$$ ({row.equation})") == 1
    assert not list(evidence.problems(row))
    for test in row.tests:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_every_claim_and_every_equation_is_in_a_table():
    shown = [evidence.row(line) for _, _, line in rows()]
    assert set().union(*(row.claims for row in shown)) == set(CLAIMS)
    labels = {
        label
        for page in PAGES
        for label in re.findall(r"^\$\$ \(([\w-]+)\)", page.read_text(), re.M)
    }
    assert {row.equation for row in shown} == labels


def test_claims_of_an_oracle_and_tests_that_name_it_are_found():
    row = evidence.row("eq-x: theory.equiangular.time_sa; torque")
    assert row.claims == ("equiangular-clock-sa", "torque")
    assert any(test.startswith("tests/theory/test_equiangular.py::") for test in row.tests)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("eq-x: theory.equiangular.cosine_of_nothing; torque", "is not in the reference"),
        ("eq-x: theory.equiangular.cosine_sa; no-such-claim", "there is no claim"),
        ("eq-x: ", "neither a test nor a claim"),
    ],
)
def test_a_row_that_names_nothing_is_a_problem(line, problem):
    assert problem in " ".join(evidence.problems(evidence.row(line)))


def test_the_errata_name_claims_that_exist_and_check_them():
    text = (DOCS / "theory" / "errata.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\(#claim-([\w.-]+)\)", text))
    checked = set(re.search(r"```\{verdicts\}\n(.*?)```", text, re.DOTALL)[1].split())
    assert named <= set(CLAIMS)
    assert checked <= named


@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        (r"the $\frac{a}{b}$th", r"the \ :math:`\frac{a}{b}`\ th"),
        ("over two $a +\n    b$ lines", r"over two \ :math:`a + b`\  lines"),
        ("`solve` runs", r"\ :py:obj:`solve <attnflow.integrate.solve>`\  runs"),
        ("`rtol` is small", r"\ ``rtol``\  is small"),
        ("|x| * beta_ and x_i", r"\|x\| \* beta\_ and x_i"),
        ("Kinds:\n- one\n- two", "Kinds:\n\n- one\n- two"),
    ],
)
def test_markdown_of_docstrings_becomes_markup(markdown, rst):
    assert docstrings.to_rst(markdown, docstrings.Links(attnflow, "here")) == rst


def test_a_table_of_a_docstring_becomes_one():
    rst = docstrings.to_rst("| s | r |\n|---|---|\n| post | 1 |")
    assert ".. list-table::\n   :header-rows: 1\n\n   * - s\n     - r\n   * - post\n     - 1" in rst


def test_a_full_name_that_does_not_exist_is_reported(caplog):
    with caplog.at_level("WARNING"):
        assert docstrings.Links(attnflow, "here")("theory.gibbs.order") is None
    assert "does not exist" in caplog.text


def test_the_first_page_runs_the_code_of_the_readme():
    code = [
        re.search(pattern, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[1]
        for page, pattern in [
            ("README.md", r"```python\n(.*?)```"),
            ("docs/index.md", r"```\{code-cell\} ipython3\n(.*?)```"),
        ]
    ]
    assert code[0] == code[1]
