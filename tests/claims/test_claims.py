import inspect
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest

from attnflow import theory
from attnflow.claims import CLAIMS, evaluate
from attnflow.theory import equiangular


@pytest.mark.parametrize("name", CLAIMS)
def test_claim(name):
    """Every claim holds within its own derived tolerance."""
    verdict = evaluate(CLAIMS[name])
    assert verdict.passed, f"{verdict.reason} ({CLAIMS[name].why})"


def oracles():
    """Public functions of the theory, argument checks excepted."""
    for module_name in theory.__all__:
        module = import_module(f"attnflow.theory.{module_name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = f"{function.__module__}.".startswith(f"{module.__name__}.")
            if own and not name.startswith(("_", "check")):
                yield pytest.param(function, id=f"{module_name}.{name}")


@pytest.mark.parametrize("oracle", list(oracles()))
def test_every_oracle_registers_a_claim(oracle):
    assert any(claim.oracle is oracle for claim in CLAIMS.values())


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_says_what_where_and_why(claim):
    assert CLAIMS[claim.name] is claim
    assert claim.name == claim.name.lower()
    assert claim.statement.endswith(".")
    assert claim.source
    assert claim.why
    assert claim.tolerance >= 0


def test_names_are_unique():
    """A second claim of one name would vanish from the registry."""
    from attnflow import claims

    assert len(CLAIMS) == sum(len(subject.CLAIMS) for subject in claims.SUBJECTS)


def test_wrong_oracle_is_contradicted(monkeypatch):
    """An error of 1e-4 in the prediction is ten tolerances."""
    right = equiangular.gap
    monkeypatch.setattr(equiangular, "gap", lambda *args, **kw: 1.0001 * right(*args, **kw))
    verdict = evaluate(CLAIMS["equiangular-gap"])
    assert not verdict.passed
    assert verdict.error == pytest.approx(1e-4, rel=0.01)
    assert "exceeds the tolerance" in verdict.reason


def test_wrong_flow_is_contradicted(monkeypatch):
    """A step one per mille too long is seen in a single layer."""
    import attnflow as af

    right = af.Flow.layer
    monkeypatch.setattr(af.Flow, "layer", lambda self, t, x, eta: right(self, t, x, 1.001 * eta))
    assert not evaluate(CLAIMS["layer-step"]).passed


def test_misprint_is_contradicted():
    """Theory and simulation agree, but not with what is printed."""
    claim = CLAIMS["equiangular-entropy"]
    wrong = replace(claim, printed=claim.printed.replace("2.88906410", "2.88906411"))
    assert evaluate(claim).passed
    assert not evaluate(wrong).passed
    assert "2.88906411 is printed" in evaluate(wrong).reason


def test_registry_loads_without_jax():
    code = "import sys, attnflow.claims; print('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
