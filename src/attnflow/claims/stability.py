"""Growth of spherical harmonics on the uniform measure, measured on the attention of a sphere of tokens."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import eval_chebyt, eval_gegenbauer, roots_gegenbauer

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array, circle, run, sa, tangent
from attnflow.theory import stability

BETAS = (1.0, 4.0, 9.0)
DEGREES = tuple(range(1, 6))
HEATS = (0.5, 1.0, 2.0, 4.0, 5.0, 9.0, 10.0, 16.0, 20.0, 25.0, 50.0, 64.0, 100.0)
DIMENSIONS = (2, 3, 8, 64)
POINTS = 96
"""Quadrature points per angle: exact to degree 191, the kernel e^(100 cos) to rounding."""


@cache
def _measure(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The uniform measure on the sphere, seen by tokens of a plane: tokens, their weights and heights.

    A token's two coordinates in the plane are those of a uniform one; a third makes it a unit vector.
    """
    if d == 2:
        theta = 2 * np.pi * np.arange(2 * POINTS) / (2 * POINTS)
        x = np.column_stack([circle(theta), np.zeros(2 * POINTS)])
        return x, np.full(2 * POINTS, 0.5 / POINTS), x[:, 0]
    height, share = roots_gegenbauer(POINTS, d / 2 - 1)
    if d == 3:
        side, part = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS), np.full(POINTS, 1 / POINTS)
    else:
        side, part = roots_gegenbauer(POINTS, (d - 3) / 2)
    z, s = (grid.ravel() for grid in np.meshgrid(height, side, indexing="ij"))
    ring = np.sqrt(1 - z**2)
    x = np.column_stack([z, ring * s, ring * np.sqrt(1 - s**2)])
    weights = np.outer(share / share.sum(), part / part.sum()).ravel()
    return x / np.linalg.norm(x, axis=1, keepdims=True), weights, z


def _zonal(degree: int, d: int, z: np.ndarray) -> np.ndarray:
    """Zonal harmonic of height z, 1 at the pole."""
    if d == 2:
        return eval_chebyt(degree, z)
    return eval_gegenbauer(degree, d / 2 - 1, z) / eval_gegenbauer(degree, d / 2 - 1, 1.0)


def _slope(degree: int, d: int, z: float) -> float:
    """Derivative of the zonal harmonic by height."""
    if d == 2:
        return float(degree * np.sin(degree * np.arccos(z)) / np.sqrt(1 - z**2))
    lifted = eval_gegenbauer(degree - 1, d / 2, z) * (d - 2)
    return float(lifted / eval_gegenbauer(degree, d / 2 - 1, 1.0))


@cache
def attention_growth(degree: int, d: int, beta: float, model: str = "sa") -> float:
    r"""Growth rate of a zonal harmonic Y, from the velocity of one token among sigma(1 + Y/2).

    The velocity is $\frac12 c\nabla Y$, c the same everywhere, and Y grows at l(l+d-2) c. SA divides by
    the partition function of sigma alone.
    """
    x, weights, z = _measure(d)
    at = 0.8 if d < 20 else 0.3  # where the slopes of these degrees do not vanish
    probe = array([[at, np.sqrt(1 - at**2), 0.0]])
    share = weights * (1 + _zonal(degree, d, z) / 2)
    mean, log_z = af.kernels.dense(probe, array(x), array(x), beta, weights=array(share))
    _, log_z0 = af.kernels.dense(probe, array(x), array(x), beta, weights=array(weights))
    up = np.array([np.sqrt(1 - at**2), -at, 0.0])  # towards the pole
    log_unit = np.asarray(log_z - log_z0 if model == "sa" else log_z)[0]
    speed = float(np.asarray(mean)[0] @ up * np.exp(log_unit))
    gradient = _slope(degree, d, at) * np.sqrt(1 - at**2) / 2
    return degree * (degree + d - 2) * speed / gradient


def _rates() -> Sides:
    predicted, observed = [], []
    for model, d in (("sa", 2), ("sa", 3), ("usa", 2), ("usa", 3), ("sa", 8), ("usa", 64)):
        for beta in BETAS:
            predicted.append(stability.growth_rates(DEGREES, beta=beta, d=d, model=model))
            observed.append([attention_growth(k, d, beta, model) for k in DEGREES])
    return predicted, observed


def _fastest(d: int, beta: float) -> int:
    """Degree of the largest measured rate: rates rise, then fall."""
    degree = 1
    while attention_growth(degree + 1, d, beta) > attention_growth(degree, d, beta):
        degree += 1
    return degree


def _modes() -> Sides:
    predicted = [stability.fastest_mode(HEATS, d=d) for d in DIMENSIONS]
    return predicted, [[_fastest(d, beta) for beta in HEATS] for d in DIMENSIONS]


def _mode_law() -> Sides:
    """Every measured mode is within 1 of the law once beta is at least d."""
    cases = [(d, beta) for d in (2, 3, 8) for beta in HEATS if beta >= d]
    predicted = [stability.fastest_mode_law(beta, d=d) for d, beta in cases]
    return predicted, [_fastest(d, beta) for d, beta in cases]


def _switches() -> Sides:
    predicted, observed = [], []
    for d in (2, 3):
        values = stability.switch_values(np.arange(1, 12), d=d)
        predicted.append(values)
        for degree, value in enumerate(values, start=1):

            def lead(beta, degree=degree, d=d):
                return attention_growth(degree + 1, d, beta) - attention_growth(degree, d, beta)

            observed.append(brentq(lead, 0.9 * value, 1.1 * value, xtol=1e-10))
    return predicted, np.reshape(observed, (2, 11))


def _onset() -> Sides:
    """How much later a wave on 64 tokens reaches a height if it starts as the noise of more tokens."""
    theta = 2 * np.pi * np.arange(64) / 64
    beta, counts, times = 4.0, (1e10, 1e12, 1e14), []
    wave = np.cos(int(stability.fastest_mode(beta, d=2)) * theta)
    ts = np.linspace(0, 24, 9)
    for n in counts:
        xs = run(sa(beta), circle(theta + wave / np.sqrt(n)), ts, rtol=1e-13)
        height = np.log([abs((x * tangent(theta)).sum(axis=1) @ wave) / 32 for x in xs])
        times.append(float(np.interp(np.log(1e-3), height, ts)))
    predicted = np.diff(stability.onset_time(counts, beta=beta, d=2))
    return predicted, np.diff(times)


CLAIMS = (
    Claim(
        name="growth-rates",
        statement="Harmonics of degree l on the uniform sphere grow at rates l(l+d-2) a_l/(beta a_0) (SA).",
        source="Bruno+ 2025",
        check=_rates,
        oracle=stability.growth_rates,
        printed="""
            .446390 .428880 .157587 .034591 .005360 .215881 .568239 .664389 .501251 .279114
            .104743 .351339 .591351 .704497 .664173
            .626071 .365365 .102775 .018843 .002552 .375336 .655495 .613276 .396261 .195808
            .197531 .469136 .663923 .703145 .605091
            .565159 .542991 .199516 .043794 .006787 2.439866 6.422189 7.508871 5.665103 3.154527
            114.54608 384.22053 646.69419 770.42975 726.33144
            .735759 .429377 .120781 .022145 .002999 2.560719 4.472101 4.184063 2.703485 1.335897
            88.922733 211.191482 298.879199 316.535607 272.394586
        """
        + 30 * " *",
        tolerance=2e-9,
        why="rounding of e^9, times l(l+d-2) up to 335, over slopes",
    ),
    Claim(
        name="fastest-mode",
        statement="The fastest mode for thirteen temperatures in 2, 3, 8 and 64 dimensions.",
        source="Bruno+ 2025",
        check=_modes,
        oracle=stability.fastest_mode,
        printed="1 1 2 3 3 4 4 6 6 7 10 11 14 1 1 2 2 3 4 4 5 6 7 10 11 14"
        " 1 1 1 1 1 2 2 3 4 5 7 9 11 1 1 1 1 1 1 1 1 1 1 2 2 3",
        tolerance=0.0,
        why="whole numbers",
    ),
    Claim(
        name="fastest-mode-law",
        statement="The fastest mode is within 1 of the root of l(l+d-2) = 2 beta.",
        source="derived: large beta",
        check=_mode_law,
        oracle=stability.fastest_mode_law,
        tolerance=1.0,
        why="a whole number beside a real one",
    ),
    Claim(
        name="fastest-mode-switches",
        statement="The fastest mode passes from l to l+1 at these temperatures.",
        source="derived: equal rates",
        check=_switches,
        oracle=stability.switch_values,
        printed="""
            1.04446 3.16543 6.21130 10.22848 15.23628 21.24045 28.24296 36.24458 45.2457 55.2465 66.2471
            1.81615 4.42529 7.96238 12.47743 17.98489 24.48915 31.99181 40.49359 49.99485 60.49576 71.99645
        """,
        tolerance=1e-8,
        why="rounding 1e-13 of rates, over slopes above 1e-4; root to 1e-10",
    ),
    Claim(
        name="onset-time",
        statement="Noise of n tokens is log(sqrt n) over the largest rate away from order 1.",
        source="derived: linear growth",
        check=_onset,
        oracle=stability.onset_time,
        tolerance=1e-5,
        why="cubic terms, of order beta times the height squared, 1e-6, and rounding over 1e-7",
    ),
)
