"""Clustering theorems: what they promise for given tokens, and what these tokens then do."""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import FLOW, array, circle, cone, read, run, uniform
from attnflow.theory import clustering, hemisphere, stationary

ONE_POINT = (
    "already one point", "open hemisphere", "no more tokens than dimensions",
    "sphere, almost every start", "circle, almost every start", "small or large beta",
)  # fmt: skip
RING = "stable ring of three"


def _theorems(model: str, beta: float, x: np.ndarray) -> dict[str, clustering.Theorem]:
    """Theorems that apply, by name."""
    found = clustering.theorems(model, beta, x)
    return {theorem.name: theorem for theorem in found if theorem.applies}


def _promised(model: str, beta: float, x: np.ndarray) -> float:
    """Final order parameter that some theorem promises: 1 for one point, 0 for the ring."""
    names = _theorems(model, beta, x)
    if RING in names:
        return 0.0
    return 1.0 if any(name in names for name in ONE_POINT) else np.nan


def _ring() -> np.ndarray:
    """Three pairs of tokens near 120 degrees."""
    noise = np.random.default_rng(50).uniform(-0.05, 0.05, 6)
    return circle(2 * np.pi * np.repeat(np.arange(3), 2) / 3 + noise)


def _starts() -> list[tuple[str, float, np.ndarray, float]]:
    """Cases (model, beta, tokens, time) that theorems of every kind cover."""
    return [
        ("sa", 1.0, uniform(51, 8, 3), 40.0),
        ("usa", 1.0, uniform(52, 8, 3), 40.0),
        ("sa", 1.0, uniform(53, 8, 2), 80.0),
        ("usa", -0.1, uniform(54, 8, 2), 80.0),
        ("sa", 3.0, uniform(55, 8, 12), 40.0),
        ("usa", 0.0, uniform(56, 8, 2), 40.0),
        ("sa", 4.0, cone(57, 8, 3, alpha=0.1), 40.0),
        ("usa", -0.8, _ring(), 150.0),
    ]


def _outcomes() -> Sides:
    """Order parameters at late times."""
    cases = _starts()
    ends = [run(FLOW[model](beta), x, t)[-1:] for model, beta, x, t in cases]
    predicted = [_promised(model, beta, x) for model, beta, x, _ in cases]
    return predicted, [read(af.observables.order_parameter, end)[0] for end in ends]


def _safe_case() -> Sides:
    """32 tokens in three dimensions at beta = 1, at t = 40."""
    x = uniform(58, 32, 3)
    end = run(FLOW["sa"](1.0), x, 40.0)[-1:]
    return _promised("sa", 1.0, x), read(af.observables.order_parameter, end)[0]


def _hemisphere_rate() -> Sides:
    """Log-slope of the distances from the mean, from a start in a hemisphere."""
    x, window = cone(57, 8, 3, alpha=0.1), (8.0, 12.0)
    first, last = run(FLOW["sa"](4.0), x, window[1], start=window[0], rtol=1e-14)[[1, -1]]
    spread = [np.linalg.norm(end - end.mean(axis=0)) for end in (first, last)]
    predicted = _theorems("sa", 4.0, x)["open hemisphere"].rate
    return predicted, np.log(spread[0] / spread[1]) / (window[1] - window[0])


def _ring_rate() -> Sides:
    """Log-slope of the distances from the perfect ring."""
    x, window = _ring(), (80.0, 100.0)
    first, last = run(FLOW["usa"](-0.8), x, window[1], start=window[0], rtol=1e-14)[[1, -1]]
    spread = [np.linalg.norm(end @ end.T - _ring_gram()) for end in (first, last)]
    predicted = _theorems("usa", -0.8, x)[RING].rate
    return predicted, np.log(spread[0] / spread[1]) / (window[1] - window[0])


def _ring_gram() -> np.ndarray:
    return np.kron(stationary.stationary_grams(3)["polygon"], np.ones((2, 2)))


def _margins() -> Sides:
    """Margin and upper bound of one method, and the best margin of the other."""
    cosines = ((4, 0.0), (5, -0.1), (6, 0.7), (4, -1 / 3))
    starts = [np.asarray(af.sphere.equiangular(n, rho)) for n, rho in cosines]
    predicted, observed = [], []
    for x in starts:
        certificate, best = hemisphere.hemisphere(x), af.sphere.hemisphere_test(array(x)).margin
        predicted.append([certificate.margin, certificate.bound])
        observed.append([best, best])
    return predicted, observed


def _existence() -> Sides:
    """Whether a hemisphere holds each of 60 random starts, six tokens in three dimensions."""
    starts = [uniform(seed, 6, 3) for seed in range(60)]
    predicted = [hemisphere.hemisphere(x).exists for x in starts]
    return predicted, [af.sphere.hemisphere_test(array(x)).inside for x in starts]


def _sandwich() -> Sides:
    """Best margin of each start that has one: not below the other method's certificate."""
    starts = [uniform(seed, 6, 3) for seed in range(60)]
    found = [(hemisphere.hemisphere(x), af.sphere.hemisphere_test(array(x)).margin) for x in starts]
    rows = [(c.margin, best, best, c.bound) for c, best in found if c.exists]
    low, best, again, high = np.array(rows).T
    return [low, again], [best, high]


CLAIMS = (
    Claim(
        name="theorems-and-outcomes",
        statement="Where a theorem promises one point the tokens gather; near the stable ring they never do.",
        source="Rigollet 2025, Sec. 4",
        check=_outcomes,
        oracle=clustering.theorems,
        tolerance=1e-9,
        why="solver: 10 rtol for each of eight tokens; the ring is e^(-.149 t) = 2e-10 from perfect",
    ),
    Claim(
        name="theorem-safe-case",
        statement="32 random tokens in three dimensions at beta = 1 are one point by t = 40 (SA).",
        source="Rigollet 2025, Thm 1",
        check=_safe_case,
        oracle=clustering.theorems,
        tolerance=1e-10,
        why="solver: 10 rtol of a run",
    ),
    Claim(
        name="theorem-hemisphere-rate",
        statement="Tokens in a hemisphere gather at the rate that the theorem states.",
        source="Rigollet 2025, Thm 2",
        check=_hemisphere_rate,
        oracle=clustering.theorems,
        tolerance=5e-7,
        why="next order: squared distances of e^-14 over a span of 4",
    ),
    Claim(
        name="theorem-ring-rate",
        statement="Tokens near the ring of three at beta = -0.8 return to it at the stated rate (USA).",
        source="Polyanskiy+ 2025",
        check=_ring_rate,
        oracle=clustering.theorems,
        tolerance=1e-6,
        why="solver: 20 rtol over the last distance 2e-8 and the span 20; the faster mode, e^-16",
    ),
    Claim(
        name="hemisphere-margin",
        statement="The largest margin of a hemisphere, by linear programming and by the nearest point.",
        source="Farkas' lemma",
        check=_margins,
        oracle=hemisphere.hemisphere,
        tolerance=1e-9,
        why="linear program: feasibility 1e-9; equiangular starts, where both methods agree",
    ),
    Claim(
        name="hemisphere-existence",
        statement="Whether any hemisphere holds the tokens: the two methods agree on random starts.",
        source="Farkas' lemma",
        check=_existence,
        oracle=hemisphere.hemisphere,
        tolerance=0.0,
        why="yes or no",
    ),
    Claim(
        name="hemisphere-certificates",
        statement="The best margin lies between the margin and the bound of the linear program.",
        source="Farkas' lemma",
        check=_sandwich,
        oracle=hemisphere.hemisphere,
        at_least=True,
        tolerance=1e-9,
        why="linear program: feasibility 1e-9",
    ),
)
