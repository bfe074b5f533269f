"""The wheel: what it holds, what it says of itself, and that it works where there is no checkout."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import attnflow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
QUICK = ("--n", "6", "--beta", "4", "--d", "2")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with a wheel and an sdist; the wheel is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder in which the wheel alone is unpacked, as pip does, and another one to work in."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site, tmp_path_factory.mktemp("elsewhere")


def python(installed, *words):
    """Run Python on the installed wheel, elsewhere; the checkout, if linked into this environment, comes later."""
    site, elsewhere = installed
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(wheel):
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = ROOT / "src"
    sources = {
        path.relative_to(package).as_posix()
        for path in (package / "attnflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in names(wheel) if not name.startswith("attnflow-")}
    assert held == sources
    assert {"attnflow/py.typed", "attnflow/cli.py", "attnflow/view/assets/viewer.js"} <= held


def test_the_wheel_says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    read = lambda name: archive.read(f"attnflow-{PROJECT['version']}.dist-info/{name}").decode()
    said = Parser().parsestr(read("METADATA"))
    assert said["Version"] == PROJECT["version"]
    assert said["License-Expression"] == PROJECT["license"] == "Apache-2.0"
    assert said["Requires-Python"] == PROJECT["requires-python"]
    assert set(said.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert {"models", "dask", "slurm", "transport", "dev", "docs"} <= set(
        said.get_all("Provides-Extra")
    )
    needed = said.get_all("Requires-Dist")
    core = {re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line}
    assert core == {re.match(r"[\w.-]+", line)[0] for line in PROJECT["dependencies"]}
    assert not core & {"torch", "transformers", "distributed", "submitit"}
    assert "attnflow = attnflow.cli:main" in read("entry_points.txt")
    assert "Apache License" in read("licenses/LICENSE")


def test_the_sdist_can_be_tested_and_holds_no_node_modules(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = archive.getnames()
    root = f"attnflow-{PROJECT['version']}"
    assert {f"{root}/{name}" for name in ("pyproject.toml", "LICENSE", "tests/conftest.py")} <= set(
        held
    )
    assert not [name for name in held if "node_modules" in name or "__pycache__" in name]


def test_one_version_is_stated_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert PROJECT["version"] == attnflow.__version__
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert re.search(r'\ndate-released: "\d{4}-\d\d-\d\d"\n', citation)
    assert f"license: {PROJECT['license']}" in citation
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_package_is_light_and_is_not_the_checkout(installed):
    heavy = ("jax", "matplotlib", "torch", "xarray", "sklearn", "distributed", "tyro")
    code = (
        "import sys, attnflow; print(attnflow.__file__); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    place, loaded = python(installed, "-c", code).splitlines()
    assert Path(place).is_relative_to(installed[0]) and loaded == "[]"


def test_the_installed_package_runs_an_experiment_elsewhere(installed):
    out = python(installed, "-m", "attnflow.cli", "run", "staircase", *QUICK, "--quiet")
    (run,) = (installed[1] / "runs").glob("staircase-*")
    assert f"runs/{run.name}" in out and (run / "figure.png").is_file()
    assert attnflow.__version__ in python(installed, "-m", "attnflow.cli", "--version")
