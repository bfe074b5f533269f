"""One claim: what theory predicts, what the simulator observes, and the verdict on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Sides = tuple[Any, Any]
"""What is predicted and what is observed: numbers or arrays of one shape."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A statement of theory that a simulation can contradict."""

    name: str
    """Short name, words joined by hyphens."""
    statement: str
    """What is claimed, one sentence."""
    source: str
    """Where it is stated or derived."""
    check: Callable[[], Sides]
    """Computes (predicted, observed)."""
    tolerance: float
    """Largest error that is no contradiction."""
    why: str
    """Where the tolerance comes from."""
    relative: bool = False
    """Whether the error is relative to the prediction."""
    at_least: bool = False
    """Whether the prediction is a lower bound, contradicted only from below."""
    oracle: Callable | None = None
    """The function of `attnflow.theory` that predicts; None where both sides are simulated."""
    printed: str = ""
    """Published values of the predictions, as printed, one word per entry.

    A prediction must agree to half a unit of the last printed digit, or to what follows "±";
    "*" stands for an entry that is printed nowhere.
    """


@dataclass(frozen=True, eq=False)
class Verdict:
    """Outcome of a claim; of an array, its entry of largest error."""

    claim: Claim
    predicted: float
    observed: float
    error: float
    passed: bool
    seconds: float
    printed: str = ""
    """Published value of this entry, if any."""
    entries: int = 0
    """How many numbers were compared with the simulation."""
    printed_entries: int = 0
    """How many of them were compared with a published value."""
    reason: str = ""
    """Why the claim failed; empty if it passed."""


def evaluate(claim: Claim) -> Verdict:
    """Verdict on a claim. An exception inside its check is a failure, never a crash."""
    start = time.perf_counter()
    try:
        predicted, observed = (np.asarray(side, dtype=float) for side in claim.check())
        if predicted.shape != observed.shape or predicted.size == 0:
            raise ValueError(f"shapes {predicted.shape} and {observed.shape} do not compare")
        found = _judge(claim, predicted.ravel(), observed.ravel())
    except Exception as error:
        text = " ".join(str(error).split())
        found = {"reason": f"{type(error).__name__}: {text}", "error": np.nan}
        found |= {"predicted": np.nan, "observed": np.nan}
    passed = not found["reason"]
    return Verdict(claim, passed=passed, seconds=time.perf_counter() - start, **found)


def _judge(claim: Claim, predicted: np.ndarray, observed: np.ndarray) -> dict[str, Any]:
    """Fields of the verdict that depend on the numbers."""
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = predicted - observed
        errors = np.maximum(errors, 0) if claim.at_least else np.abs(errors)
        errors = errors / np.abs(predicted) if claim.relative else errors
    errors = np.where(np.isnan(errors) & (observed != predicted), np.inf, errors)
    errors = np.where(observed == predicted, 0.0, errors)
    words = claim.printed.split() or ["*"] * len(predicted)
    misprints = [misfit(value, word) for value, word in zip(predicted, words, strict=True)]
    at, reason = int(errors.argmax()), ""
    if errors[at] > claim.tolerance:
        reason = f"error {errors[at]:.1e} exceeds the tolerance {claim.tolerance:.1e}"
    elif max(misprints) > 1:
        at = int(np.argmax(misprints))
        reason = f"{predicted[at]:.12g} is predicted but {words[at]} is printed"
    return {
        "predicted": float(predicted[at]),
        "observed": float(observed[at]),
        "error": float(errors[at]),
        "printed": "" if words[at] == "*" else words[at],
        "entries": len(predicted),
        "printed_entries": sum(word != "*" for word in words),
        "reason": reason,
    }


def misfit(value: float | np.floating, word: str) -> float:
    """Distance of a value from a printed number, in half units of its last digit; 0 for "*"."""
    if word == "*":
        return 0.0
    number, _, spread = word.partition("±")
    if spread:
        half = float(spread)
    else:
        mantissa, _, exponent = number.partition("e")
        half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(value) - float(number)) / half * (1 - 1e-9)


COLUMNS = (
    ("claim", 31), ("source", 25), ("predicted", 15), ("observed", 15), ("printed", 14),
    ("error", 7), ("tolerance", 11), ("verdict", 7),
)  # fmt: skip


def table(verdicts: Iterable[Verdict]) -> str:
    """Fixed-width table, one line per verdict, then the reasons of failures, then totals.

    Of an array, the entry of largest error is shown; "(3)" under "printed" says that three other
    entries were compared with published values.
    """
    verdicts = list(verdicts)
    lines = [_line([name for name, _ in COLUMNS]), _line(["-" * width for _, width in COLUMNS])]
    lines += [_row(verdict) for verdict in verdicts]
    failed = [verdict for verdict in verdicts if not verdict.passed]
    lines += [f"FAIL {verdict.claim.name}: {verdict.reason}" for verdict in failed]
    seconds = sum(verdict.seconds for verdict in verdicts)
    passed = len(verdicts) - len(failed)
    lines.append(f"{len(verdicts)} claims: {passed} OK, {len(failed)} FAIL, {seconds:.1f} s")
    return "\n".join(lines)


def _row(verdict: Verdict) -> str:
    claim = verdict.claim
    return _line(
        [
            claim.name,
            claim.source,
            f"{verdict.predicted:.9g}",
            f"{verdict.observed:.9g}",
            verdict.printed or (f"({verdict.printed_entries})" if verdict.printed_entries else ""),
            f"{verdict.error:.1e}",
            f"{claim.tolerance:.1e}" + (" rel" if claim.relative else ""),
            "OK" if verdict.passed else "FAIL",
        ]
    )


def _line(cells: list[str]) -> str:
    fitted = (
        cell if len(cell) <= width else f"{cell[: width - 1]}…"
        for cell, (_, width) in zip(cells, COLUMNS, strict=True)
    )
    padded = (cell.ljust(width) for cell, (_, width) in zip(fitted, COLUMNS, strict=True))
    return "  ".join(padded).rstrip()


def to_json(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """One dictionary of plain values per verdict; numbers that are not finite are None."""
    return [_record(verdict) for verdict in verdicts]


def _record(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    oracle = claim.oracle and f"{claim.oracle.__module__}.{claim.oracle.__qualname__}"
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "oracle": oracle,
        "predicted": _finite(verdict.predicted),
        "observed": _finite(verdict.observed),
        "printed": verdict.printed or None,
        "error": _finite(verdict.error),
        "tolerance": claim.tolerance,
        "relative": claim.relative,
        "at_least": claim.at_least,
        "why": claim.why,
        "entries": verdict.entries,
        "printed_entries": verdict.printed_entries,
        "verdict": "OK" if verdict.passed else "FAIL",
        "reason": verdict.reason or None,
        "seconds": round(verdict.seconds, 3),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
