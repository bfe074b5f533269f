r"""Rényi centers: tokens that come too early to be captured by another, and how many there are.

Under a causal mask a token far from all earlier ones stays for a time exponential in beta and gathers a cluster.
Far is in units of $\beta^{-1/2}$, the distance at which attraction is strongest.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import exp1

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_nonnegative,
    numbers,
    one,
)
from attnflow.theory.staircase import check_points


def interaction_peak(beta: Numbers) -> np.ndarray:
    r"""Angle at which two tokens attract most: the maximum of $h(x) = e^{\beta(\cos x-1)}\sin x$.

    $\cos\tau^* = \beta\sin^2\tau^*$, that is $\tau^* = \arccos\frac{-1+\sqrt{1+4\beta^2}}{2\beta}$, below
    $\beta^{-1/2}$ and close to it for large beta; $\pi/2$ at beta = 0.

    Args:
        beta: Inverse temperature, >= 0, any shape.

    Returns:
        Angles in (0, pi/2], the shape of `beta`.

    Raises:
        ValueError: If beta is negative.

    Source:
        Karagodin, Polyanskiy, Rigollet, "Clustering in causal attention masking" (2024).
    """
    beta = check_nonnegative(beta, "beta")
    square = 2 / (1 + np.hypot(1, 2 * beta))  # sin^2 of the angle
    return np.asarray(np.arctan2(np.sqrt(square), beta * square))


def renyi_centers(x: ArrayLike, delta: Number, *, strong: bool = False) -> np.ndarray:
    """Indices of the Rényi centers of a sequence of tokens.

    A token is a center if it is farther than delta, in angle, from all earlier centers; a strong one if it is
    farther than delta from all earlier tokens. The first always is. O(n times centers) time; strong O(n^2).

    Args:
        x: Angles on the circle, shape (n,), or unit vectors, shape (n, d), in their order.
        delta: Separation in radians, in (0, pi).
        strong: Whether to count strong centers.

    Returns:
        Increasing indices, shape (k,), k >= 1. Strong centers are centers.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Polyanskiy, Rigollet (2024); sequential parking of Rényi (1958).
    """
    points, delta = check_points(x), one(check_between, delta, "delta", 1e-300, np.pi)
    chord, centers = 2 * np.sin(delta / 2), [0]
    for k in range(1, len(points)):
        earlier = points[:k] if strong else points[centers]
        if np.linalg.norm(earlier - points[k], axis=1).min() > chord:
            centers.append(k)
    return np.array(centers)


def renyi_count(delta: Number, *, n: Number = np.inf, strong: bool = False) -> float:
    r"""Expected number of Rényi centers of n independent uniform tokens on the circle.

    Strong: $\sum_{k<n}(1-\delta/\pi)^k = \frac\pi\delta\big(1-(1-\delta/\pi)^n\big)$, exact. Plain, with
    $\tau = n\delta/2\pi$ and $g(v) = \exp\big(-2\int_0^v\frac{1-e^{-y}}y\,dy\big)$:
    $\frac{2\pi}\delta\int_0^\tau g\,dv + (1-e^{-\tau})\,g(\tau)$, up to an error that was below
    $\delta/20$ wherever it was measured; as n goes to infinity $0.7475979\cdot2\pi/\delta$, Rényi's constant.

    Args:
        delta: Separation in radians, in (0, pi); plain centers need delta <= 1.
        n: Number of tokens, >= 1; inf is the limit.
        strong: Whether to count strong centers.

    Returns:
        Expected number, >= 1.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Strong: each token is a center independently of where the others are. Plain: kinetics of random sequential
        adsorption, Rényi (1958); second term: from a Poisson number of tokens to n.
    """
    delta = one(check_between, delta, "delta", 1e-300, np.pi if strong else 1.0)
    n = one(numbers, n, "n")
    check(n >= 1, "n", "be >= 1", n)
    if strong:
        return float(-np.expm1(n * np.log1p(-delta / np.pi)) * np.pi / delta)
    places, end = 2 * np.pi / delta, n * delta / (2 * np.pi)
    parts = [quad(_vacancy, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in _spans(end)]
    return float(places * sum(parts) + -np.expm1(-end) * _vacancy(end))


def _vacancy(v: float) -> float:
    """Share of places still open after v attempts per place, g(v)."""
    if v < 1e-8:
        return 1 - 2 * v
    return float(np.exp(-2 * (np.euler_gamma + exp1(v))) / v**2) if np.isfinite(v) else 0.0


def _spans(end: float) -> list[tuple[float, float]]:
    """Interval (0, end) cut at 5."""
    return [(0.0, end)] if end <= 5 else [(0.0, 5.0), (5.0, end)]
