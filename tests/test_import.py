"""Importing the package costs nothing, and every public name is where it is promised."""

import importlib
import json
import subprocess
import sys

import pytest

import attnflow

HEAVY = [
    "jax",
    "diffrax",
    "matplotlib",
    "torch",
    "xarray",
    "sklearn",
    "scipy",
    "zarr",
    "attnflow.cli",
]


def loaded_after(code):
    """Modules of HEAVY that a fresh interpreter has loaded after some code."""
    report = (
        f"import json, sys; {code}; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return set(json.loads(run.stdout))


def test_import_loads_nothing_heavy():
    assert loaded_after("import attnflow; dir(attnflow)") == set()


def test_the_core_loads_no_pictures_tables_or_command_line():
    loaded = loaded_after(
        "import attnflow as af; af.solve, af.observables, af.FLOWS, af.theory.gram"
    )
    assert "jax" in loaded
    assert not loaded & {"matplotlib", "torch", "xarray", "sklearn", "zarr", "attnflow.cli"}


@pytest.mark.parametrize("name", attnflow.__all__)
def test_every_public_name_resolves(name):
    module = importlib.import_module("attnflow")
    assert getattr(module, name) is getattr(module, name)
    assert name in dir(module)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'attnflow' has no attribute 'solv'"):
        _ = attnflow.solv


def test_the_names_of_the_design_exist():
    contract = {
        "sphere": ["uniform", "equiangular", "normalize", "project"],
        "observables": ["energy", "mean_cosine", "order_parameter", "effective_rank"],
        "norms": ["post_ln", "pre_ln", "peri_ln", "sqrt_scaling", "ln_scaling", "ngpt"],
    }
    for module, names in contract.items():
        assert all(callable(getattr(getattr(attnflow, module), name)) for name in names)
