"""The report: how many cases of each target ended how, and the findings, one for each place."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from fuzz.judge import Outcome

KINDS = ("answer", "sentence", "finding")


def report(outcomes: list[Outcome], *, seconds: float, seed: int) -> dict[str, Any]:
    """Counts by target, the slowest case, and findings with the shortest call that shows each."""
    counts: dict[str, Counter] = defaultdict(Counter)
    places: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        counts[outcome.target][outcome.kind] += 1
        if outcome.kind == "finding":
            places[outcome.place, outcome.text.split(":")[0]].append(outcome)
    findings = [
        {**asdict(min(same, key=lambda o: len(o.call))), "cases": len(same)}
        for same in places.values()
    ]
    slowest = max(outcomes, key=lambda o: o.seconds)
    return {
        "cases": len(outcomes),
        "seed": seed,
        "seconds": round(seconds, 1),
        "total": {kind: sum(c[kind] for c in counts.values()) for kind in KINDS},
        "targets": {name: {kind: c[kind] for kind in KINDS} for name, c in counts.items()},
        "slowest": {"call": slowest.call, "seconds": round(slowest.seconds, 1)},
        "findings": findings,
    }


def table(result: dict[str, Any]) -> str:
    """The report as text."""
    width = max(map(len, result["targets"]), default=0)
    row = lambda name, c: f"{name:<{width}}" + "".join(f"{c[kind]:>10}" for kind in KINDS)
    lines = [f"{'':<{width}}{'answers':>10}{'sentences':>10}{'findings':>10}"]
    lines += [row(name, c) for name, c in result["targets"].items()]
    lines.append(row("total", result["total"]))
    lines += [
        f"\n{f['cases']} x {f['place']}: {f['text']}\n    {f['call']}" for f in result["findings"]
    ]
    slowest = result["slowest"]
    lines.append(
        f"\n{result['cases']} cases in {result['seconds']:g} s, the slowest {slowest['seconds']:g} s."
    )
    return "\n".join(lines)
