import json
from dataclasses import replace

import numpy as np
import pytest

from attnflow.claims import Claim, evaluate, table, to_json
from attnflow.claims.claim import misfit


def claim(predicted, observed, **fields):
    settings = {
        "name": "sum",
        "statement": "One and one are two.",
        "source": "Principia",
        "tolerance": 1e-3,
        "why": "counting",
    }
    return Claim(check=lambda: (predicted, observed), **(settings | fields))


def test_numbers_within_the_tolerance_agree():
    verdict = evaluate(claim(2, 2.0005))
    assert verdict.passed
    assert verdict.reason == ""
    assert (verdict.predicted, verdict.observed, verdict.entries) == (2, 2.0005, 1)
    assert verdict.error == pytest.approx(5e-4)
    assert verdict.seconds >= 0


def test_worst_entry_is_shown():
    verdict = evaluate(claim([[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0], [3.5, 4.1]])))
    assert not verdict.passed
    assert (verdict.predicted, verdict.observed, verdict.entries) == (3.0, 3.5, 4)


def test_relative_errors():
    assert evaluate(claim(1e6, 1e6 + 500, relative=True)).passed
    assert not evaluate(claim(1e6, 1e6 + 500)).passed
    assert not evaluate(claim(0.0, 1e-9, relative=True)).passed
    assert evaluate(claim(0.0, 0.0, relative=True)).passed


def test_bounds_are_contradicted_from_below_only():
    assert evaluate(claim([1.0, 1.0], [1.0, 5.0], at_least=True)).passed
    assert not evaluate(claim([1.0, 1.0], [5.0, 0.9], at_least=True)).passed


@pytest.mark.parametrize(
    ("predicted", "observed"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, -np.inf)]
)
def test_numbers_that_are_not_finite_disagree(predicted, observed):
    assert not evaluate(claim([1.0, predicted], [1.0, observed])).passed
    assert not evaluate(claim([1.0, predicted], [1.0, observed], at_least=True)).passed


def test_equal_infinities_agree():
    assert evaluate(claim(np.inf, np.inf, relative=True)).passed


@pytest.mark.parametrize(
    ("predicted", "observed"), [([1.0, 2.0], [1.0]), ([1.0], 1.0), ([], []), ("one", 1.0)]
)
def test_what_does_not_compare_fails(predicted, observed):
    verdict = evaluate(claim(predicted, observed))
    assert not verdict.passed
    assert verdict.reason.startswith("ValueError: ")


def test_exception_is_a_failed_verdict():
    def broken():
        raise RuntimeError("the solver\nstopped")

    verdict = evaluate(replace(claim(1, 1), check=broken))
    assert not verdict.passed
    assert verdict.reason == "RuntimeError: the solver stopped"
    assert np.isnan(verdict.error)
    assert "FAIL sum: RuntimeError: the solver stopped" in table([verdict])


@pytest.mark.parametrize(
    ("word", "inside", "outside"),
    [
        ("2.50", [2.495, 2.5, 2.505], [2.4949, 2.5051]),
        ("-.25", [-0.255, -0.245], [-0.2551, 0.25]),
        ("1.9e4", [1.85e4, 1.95e4], [1.84e4, 1.96e4]),
        ("5", [4.5, 5.5], [4.4, 5.6]),
        ("5.295±.043", [5.252, 5.338], [5.251, 5.339]),
        ("0.0±4e-16", [0.0, 4e-16], [5e-16]),
        ("*", [np.pi], []),
    ],
)
def test_printed_numbers_hold_to_half_a_unit(word, inside, outside):
    assert all(misfit(value, word) <= 1 for value in inside)
    assert all(misfit(value, word) > 1 for value in outside)


def test_misprint_fails_and_is_shown():
    verdict = evaluate(claim([1.0, 2.0], [1.0001, 2.0], printed="1.0 2.1"))
    assert not verdict.passed
    assert (verdict.predicted, verdict.printed, verdict.printed_entries) == (2.0, "2.1", 2)
    assert verdict.reason == "2 is predicted but 2.1 is printed"


def test_printed_numbers_must_match_the_entries():
    assert "ValueError" in evaluate(claim([1.0, 2.0], [1.0, 2.0], printed="1.0")).reason


def test_prediction_that_is_not_a_number_is_a_misprint():
    assert not evaluate(claim(np.nan, np.nan, printed="1.0")).passed


def test_table_fits_and_adds_up():
    verdicts = [
        evaluate(claim(1e-300, -1.234567891e-300, name="a-rather-long-name-for-so-small-a-claim")),
        evaluate(claim(2.0, 3.0, relative=True, source="A, B, C and D 2025, Sec. 12, Eq. (3.14)")),
        evaluate(claim([1.0, 2.0], [1.0001, 2.0], printed="* 2.0")),
    ]
    lines = table(verdicts).splitlines()
    assert max(len(line) for line in lines) <= 140
    assert lines[0].split() == [
        "claim", "source", "predicted", "observed", "printed", "error", "tolerance", "verdict",
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines[2:5]] == ["OK", "FAIL", "OK"]
    assert "(1)" in lines[4]
    assert lines[5] == "FAIL sum: error 5.0e-01 exceeds the tolerance 1.0e-03"
    assert lines[6].startswith("3 claims: 2 OK, 1 FAIL, ")
    starts = [lines[0].index(word) for word in ("source", "printed", "verdict")]
    assert all(line[start - 1] == " " for line in lines[2:5] for start in starts)


def test_json_is_plain():
    def broken():
        raise ValueError("no")

    records = to_json(
        [evaluate(claim(1.0, 1.0, oracle=misfit)), evaluate(replace(claim(1, 1), check=broken))]
    )
    first, second = json.loads(json.dumps(records, allow_nan=False))
    assert first["verdict"] == "OK"
    assert first["oracle"] == "attnflow.claims.claim.misfit"
    assert first["reason"] is None
    assert second["verdict"] == "FAIL"
    assert second["predicted"] is None
    assert second["reason"] == "ValueError: no"
