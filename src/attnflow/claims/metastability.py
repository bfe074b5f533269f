"""When two clusters meet and where; how long separated clusters last."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import FLOW, array, change, circle, run
from attnflow.theory import metastability

NEAR = float(np.arccos(0.999))
"""Angle at which the printed merge times end."""
MET = 1e-8
"""Angle at which a coalescing pair has merged."""
RIGHT, SIXTH, WIDE = np.pi / 2, np.pi / 3, 2 * np.pi / 3
EQUAL, UNEQUAL = (0.5, 0.5), (0.8, 0.2)
TABLE_BETAS = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0)
TABLE = (
    ("sa", RIGHT, EQUAL), ("sa", RIGHT, UNEQUAL), ("sa", SIXTH, EQUAL), ("sa", WIDE, EQUAL),
    ("usa", RIGHT, EQUAL), ("usa", SIXTH, EQUAL), ("usa", WIDE, EQUAL),
)  # fmt: skip
LONG = (
    ("sa", 2.0, (0.9, 0.1), "physical"), ("usa", 0.7, (0.3, 0.7), "physical"),
    ("usa", 2.5, (0.6, 0.4), "rescaled"), ("sa", 3.0, EQUAL, "physical"),
)  # fmt: skip
LONG_BETAS = (1.0, 4.0, 10.0, 20.0, 50.0, 100.0, 300.0)
CAPS = {"n": 8, "beta": 20.0, "eps": 1 / 80, "lam": 0.3}
CAP_ANGLES = np.array([0.0, 1.9])


@cache
def _merger(model: str, phi0: float, weights: tuple, beta: float, clock: str) -> tuple:
    """Decimal logarithm of the merge time of two tokens, and how far the first went."""
    rule = af.Attention(beta) if model == "sa" else af.UnnormalizedAttention(beta, clock=clock)  # pyright: ignore[reportArgumentType]
    tree = af.coalesce(rule, circle(np.array([0.0, phi0])), weights=np.array(weights))
    return float(tree.log10_times[0]), float(np.arctan2(*tree.merged_x[0][::-1]))


def _table() -> Sides:
    """Times to cosine .999: from the start to the merger, less from there to the merger."""
    predicted, observed = [], []
    for beta in TABLE_BETAS:
        for model, phi0, weights in TABLE:
            law = metastability.merge_time(phi0, NEAR, beta=beta, model=model, weights=weights)
            ends = [_merger(model, phi, weights, beta, "physical")[0] for phi in (phi0, NEAR)]
            predicted.append(law)
            observed.append(10 ** ends[0] - 10 ** ends[1])
    return predicted, observed


def _long_times() -> Sides:
    predicted, observed = [], []
    for beta in LONG_BETAS:
        for model, phi0, weights, clock in LONG:
            predicted.append(
                metastability.log10_merge_time(
                    phi0, MET, beta=beta, model=model, weights=weights, clock=clock
                )
            )
            observed.append(_merger(model, phi0, weights, beta, clock)[0])
    return predicted, observed


def _laplace() -> Sides:
    """Two orders of the correction, which Laplace's method leaves out, are added to the law."""
    cases = [("sa", 2.0, (0.9, 0.1)), ("sa", RIGHT, EQUAL), ("usa", 1.1, (0.3, 0.7))]
    predicted, observed = [], []
    for model, phi0, weights in cases:
        law = metastability.log10_merge_time_laplace(phi0, beta=300.0, model=model, weights=weights)
        k, c = 300 * np.sin(phi0) ** 2, np.cos(phi0)
        predicted.append(law + np.log10(1 + 2 * c / k + (2 + 6 * c**2) / k**2))
        observed.append(_merger(model, phi0, weights, 300.0, "physical")[0])
    return predicted, observed


def _noisy_caps() -> Sides:
    """log10 of the last merge of ten tokens, foretold from the angle half way through the wait."""
    predicted, observed = [], []
    for seed in (51, 52, 53):
        noise = 0.05 * np.random.default_rng(seed).normal(size=(10, 3))
        x0 = np.asarray(af.sphere.normalize(array(np.repeat(np.eye(3)[:2], 5, axis=0) + noise)))
        tree = af.coalesce(af.Attention(12.0), x0)
        then = float(tree.log10_times[-2:].mean())
        left = np.asarray(tree.at(log10_t=then).x)
        angle = np.arccos(left[0] @ left[1])
        wait = metastability.merge_time(angle, MET, beta=12.0)
        predicted.append(np.log10(10**then + wait))
        observed.append(tree.log10_times[-1])
    return predicted, observed


def _meeting_points() -> Sides:
    cases = [("sa", beta) for beta in (0.0, 1.0, 4.0, 8.0, 100.0)] + [("usa", 4.0)]
    predicted = [
        metastability.merge_angle(RIGHT, beta=beta, model=model, weights=UNEQUAL)
        for model, beta in cases
    ]
    return predicted, [_merger(model, RIGHT, UNEQUAL, beta, "physical")[1] for model, beta in cases]


def _repeated_tokens() -> Sides:
    """Cosine of 8 tokens and 2 at right angles when theory has them at .999; mean angle of USA."""
    x0 = circle(RIGHT * (np.arange(10) >= 8))
    observed = []
    for model in ("sa", "usa"):
        t = metastability.merge_time(RIGHT, NEAR, beta=4.0, model=model, weights=UNEQUAL)
        end = run(FLOW[model](4.0), x0, float(t))[-1]
        observed.append(end[0] @ end[-1])
    angles = np.arctan2(end[:, 1], end[:, 0])
    mean = metastability.merge_angle(RIGHT, beta=4.0, model="usa", weights=UNEQUAL)
    return [0.999, 0.999, mean], [*observed, angles.mean()]


def _cap_tokens() -> np.ndarray:
    """Four tokens on the rim of each of two caps, shape (8, 3)."""
    rim = np.arccos(1 - CAPS["eps"])
    around = circle(np.pi / 2 * np.arange(4))
    local = np.column_stack([np.full(4, np.cos(rim)), np.sin(rim) * around])
    c, s = np.cos(CAP_ANGLES[1]), np.sin(CAP_ANGLES[1])
    return np.concatenate([local, local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])])


def _cap_cosines() -> Sides:
    """Inner products of the tokens of two caps that are nearest to each other."""
    predicted, observed = [], []
    for eps in (0.0, 1 / 80, 1 / 17):
        centers = array(circle(CAP_ANGLES))
        steps = np.arccos(1 - 2 * eps) * np.asarray(
            af.sphere.normalize(af.sphere.log(centers, centers[::-1]))
        )
        nearest = np.asarray(af.sphere.exp(centers, array(steps)))
        predicted.append(metastability.cap_cosine(CAP_ANGLES, eps))
        observed.append(nearest[0] @ nearest[1])
    return predicted, observed


def _window() -> Any:
    alpha = metastability.cap_cosine(CAP_ANGLES, CAPS["eps"])
    return metastability.metastable_window(alpha, **CAPS)


def _gathering() -> Sides:
    """Minus log10 of the time at which both clusters have become as tight as promised."""
    ts = np.append(0.0, np.geomspace(1.0, 10.0, 8))
    xs = run(FLOW["sa"](CAPS["beta"]), _cap_tokens(), ts)
    spread = [max(_spread(x[:4]), _spread(x[4:])) for x in xs]
    tight = np.array(spread) <= 2 * np.exp(-CAPS["lam"] * CAPS["beta"])
    return -_window().log10_start, -np.log10(ts[int(np.argmax(tight))])


def _spread(x: np.ndarray) -> float:
    return float(((x[:, None] - x) ** 2).sum(axis=-1).max())


def _staying() -> Sides:
    """log10 of the time at which two clusters are left no more, and depth in the caps at T2."""
    tree = af.coalesce(af.Attention(CAPS["beta"]), _cap_tokens())
    window = _window()
    late = tree.at(log10_t=float(window.log10_end))
    centers = circle(CAP_ANGLES) @ np.eye(2, 3)
    inside = (np.asarray(late.x) @ centers.T).max(axis=1).min()
    return [window.log10_end, 1 - 2 * CAPS["eps"]], [tree.log10_times[-1], inside]


def _comparison(u0: float, beta: float, c: float) -> float:
    """Time of infinitely many equiangular tokens under USA, in units of e^-beta / 2.

    The speed of their common cosine is affine in 1/n, so two numbers of tokens give the limit;
    times are quadratures of 1/speed over log(1 - u).
    """
    nodes, shares = np.polynomial.legendre.leggauss(60)
    low, high = -c * beta, np.log(1 - u0)
    gaps = np.exp((high + low) / 2 + (high - low) / 2 * nodes)
    flow = af.usa(beta, clock="rescaled")
    speeds = []
    for n in (4, 8):
        tokens = [np.asarray(af.sphere.equiangular(n, float(1 - gap), d=n)) for gap in gaps]
        speeds.append([change(_first_cosine, flow, x) for x in tokens])
    limit = (2 * np.array(speeds[1]) - speeds[0]) / 2
    return float(((high - low) / 2 * shares * gaps / limit).sum())


def _first_cosine(x):
    return (x[0] * x[1]).sum()


COLLAPSES = ((0.5, 5.0, 1.0), (0.8, 5.0, 1.0), (0.9, 10.0, 0.5), (0.3, 2.0, 2.0))


def _collapse() -> Sides:
    predicted = [metastability.collapse_time(u0, beta=b, c=c) for u0, b, c in COLLAPSES]
    return predicted, [_comparison(*case) for case in COLLAPSES]


def _collapse_bounds() -> Sides:
    predicted = [-metastability.collapse_bound(u0, beta=b, c=c) for u0, b, c in COLLAPSES]
    return predicted, [-_comparison(*case) for case in COLLAPSES]


def _propagation() -> Sides:
    """Speed of the smallest inner product of a pair that is as far apart as the margin lets it."""
    observed, beta, n = [], 20.0, 6
    rng = np.random.default_rng(60)
    for alpha in (-0.5, 0.0, 0.3):
        deltas = np.linspace(0.01, 0.99, 99)
        margins = metastability.propagation_margin(deltas, alpha, n=n, beta=beta)
        delta = deltas[margins > 0].max()
        half, away = np.arccos(1 - delta) / 2, np.arccos(alpha)
        for _ in range(4):
            others = half + away + np.append(0, rng.uniform(0, 0.2, n - 3))
            theta = np.concatenate([[-half, half], others])
            observed.append(change(_first_cosine, FLOW["sa"](beta), circle(theta)))
    return np.zeros(len(observed)), observed


DERIVED = "derived: closed equation"
THEOREM = "Geshkovski+ 2024"

CLAIMS = (
    Claim(
        name="merge-time",
        statement="Two clusters come within cosine .999 in these times, at every angle, mass and temperature.",
        source=DERIVED,
        check=_table,
        oracle=metastability.merge_time,
        printed="""
            3.8002 3.8002 3.2509 4.34951 3.8002 3.2509 4.34951
            4.27107 4.07382 3.41569 5.52605 1.74446 1.31719 2.46575
            5.16326 4.53216 3.63447 9.00984 .883243 .543783 1.85006
            10.8312 7.24775 4.33922 61.3217 .327158 .0994089 2.16663
            39.1626 20.6088 5.72911 793.68 .184729 .0203439 3.92389
            196.716 94.7713 8.63453 12139 .130707 .00470257 8.14293
            1130.15 534.051 14.9913 198020 .102445 .00121362 17.98
            1.1000e5 5.1767e4 94.133 2.44768e8 .0672975 5.65966e-5 149.75
            1.21918e7 5.7373e6 803.312 3.36866e11 .0502582 3.3048e-6 1388.66
        """,
        tolerance=1e-7,
        why="rounding of positions, 1e-15 in all, over the chord 1e-8 that ends a run",
        relative=True,
    ),
    Claim(
        name="merge-time-beyond-floats",
        statement="The same law holds from 1e-60 to 1e258 units of time.",
        source=DERIVED,
        check=_long_times,
        oracle=metastability.log10_merge_time,
        tolerance=1e-7,
        why="rounding of positions, 1e-15 in all, over the chord 1e-8 that ends a run",
    ),
    Claim(
        name="merge-time-laplace",
        statement="At large beta the time is e^(beta(1-cos))/(s beta sin^2), and its error is known.",
        source="derived: Laplace's method",
        check=_laplace,
        oracle=metastability.log10_merge_time_laplace,
        tolerance=1e-6,
        why="next order: 30/k^3 in log T, k = beta sin^2 above 238",
    ),
    Claim(
        name="merge-angle",
        statement="Two clusters meet nearer to the heavier (SA), in their mean (USA).",
        source=DERIVED,
        check=_meeting_points,
        oracle=metastability.merge_angle,
        printed=".31415927 .26632306 .19436764 .16351198 * .31415927",
        tolerance=1e-10,
        why="solver: rtol = 1e-9 a step, most of which cancels in the ratio of speeds",
    ),
    Claim(
        name="merge-time-of-repeated-tokens",
        statement="Eight tokens and two at right angles are clusters of mass .8 and .2.",
        source=DERIVED,
        check=_repeated_tokens,
        oracle=metastability.merge_time,
        printed=".999 .999 .3141592653±1e-10",
        tolerance=1e-10,
        why="solver: 10 rtol",
    ),
    Claim(
        name="merge-time-of-noisy-caps",
        statement="Five tokens about each of two axes become two clusters, and meet when their angle says.",
        source=DERIVED,
        check=_noisy_caps,
        oracle=metastability.merge_time,
        tolerance=1e-7,
        why="solver: 1e-9 a step, some hundred steps, and the tokens between two steps",
    ),
    Claim(
        name="cap-cosine",
        statement="The nearest tokens of two caps have this inner product.",
        source=THEOREM,
        check=_cap_cosines,
        oracle=metastability.cap_cosine,
        tolerance=1e-15,
        why="rounding",
    ),
    Claim(
        name="metastable-gathering",
        statement="Tokens in separated caps have gathered by T1.",
        source=THEOREM,
        check=_gathering,
        oracle=metastability.metastable_window,
        tolerance=0.0,
        why="a bound, met with two decades to spare",
        at_least=True,
    ),
    Claim(
        name="metastable-staying",
        statement="The clusters are inside their caps at T2, and merge later.",
        source=THEOREM,
        check=_staying,
        oracle=metastability.metastable_window,
        tolerance=0.0,
        why="bounds; the clusters sit at the centers of their caps",
        at_least=True,
    ),
    Claim(
        name="time-until-collapse",
        statement="Very many equiangular tokens obey u' = u(1-u) e^(beta(u-1)), whose time is known.",
        source=THEOREM,
        check=_collapse,
        oracle=metastability.collapse_time,
        printed="13.37354013 * * *",
        tolerance=1e-12,
        why="rounding of gaps e^(-c beta)",
        relative=True,
    ),
    Claim(
        name="time-until-collapse-bound",
        statement="That time is below the bound of the lemma.",
        source=THEOREM,
        check=_collapse_bounds,
        oracle=metastability.collapse_bound,
        printed="-41.354249 * * *",
        tolerance=0.0,
        why="a bound, met with a factor of two to spare",
        at_least=True,
    ),
    Claim(
        name="propagation-of-clusters",
        statement="The worst pair of a cluster draws together as long as the margin is positive.",
        source=THEOREM,
        check=_propagation,
        oracle=metastability.propagation_margin,
        tolerance=1e-15,
        why="rounding; the speeds are above 1e-9",
        at_least=True,
    ),
)
