r"""Metastability: clusters that form in time beta and stay for times exponential in beta.

Bounds of the theorem on separated caps are here; under the same name are the exact times of two clusters
(`two_clusters`), the limit of large beta (`staircase`), and the centers under a causal mask (`renyi`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from attnflow.theory.errors import (
    Numbers,
    check,
    check_between,
    check_count,
    check_nonnegative,
    check_positive,
    numbers,
)
from attnflow.theory.renyi import interaction_peak, renyi_centers, renyi_count
from attnflow.theory.staircase import (
    Staircase,
    check_points,
    greedy_merges,
    pairing_angle,
    pairing_flow,
    plateau_energies,
)
from attnflow.theory.two_clusters import (
    log10_merge_time,
    log10_merge_time_laplace,
    merge_angle,
    merge_time,
)

__all__ = [
    "Staircase",
    "Window",
    "cap_cosine",
    "collapse_bound",
    "collapse_time",
    "greedy_merges",
    "interaction_peak",
    "log10_merge_time",
    "log10_merge_time_laplace",
    "merge_angle",
    "merge_time",
    "metastable_window",
    "pairing_angle",
    "pairing_flow",
    "plateau_energies",
    "propagation_margin",
    "renyi_centers",
    "renyi_count",
]


class Window(NamedTuple):
    """When clusters are tight and in place, and whether the theorem says so."""

    log10_start: np.ndarray
    """Decimal logarithm of an upper bound on T1, by which the tokens of a cap have gathered."""
    log10_end: np.ndarray
    """Decimal logarithm of a lower bound on T2, until which they stay in their caps."""
    separation: np.ndarray
    """Margin gamma of the hypothesis: the tokens are separated if it is positive."""


def cap_cosine(centers: ArrayLike, eps: Numbers) -> np.ndarray:
    r"""Largest inner product of two tokens in different caps $\{x: \langle x, w_q\rangle\ge 1-2\varepsilon\}$.

    $\alpha(\varepsilon) = \cos\big(\max(0, \theta - 2\arccos(1-2\varepsilon))\big)$, theta the smallest angle
    between two centers.

    Args:
        centers: Centers w_q, unit vectors, shape (k, d), or angles, shape (k,); k >= 2.
        eps: Size of the caps of the theorem, in [0, 1]; these are twice as large. Any shape.

    Returns:
        alpha, the shape of `eps`, in [-1, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet, "Dynamic metastability in the self-attention model" (2024).
    """
    points, eps = check_points(centers), check_between(eps, "eps", 0, 1)
    check_count(len(points), "len(centers)", 2)
    cosines = np.clip(points @ points.T, -1, 1)[np.triu_indices(len(points), 1)]
    apart = np.arccos(cosines.max()) - 2 * np.arccos(1 - 2 * eps)
    return np.asarray(np.cos(np.maximum(apart, 0)))


def metastable_window(
    alpha: Numbers, *, n: int, beta: Numbers, eps: Numbers, lam: Numbers
) -> Window:
    r"""Bounds on the times between which separated tokens form tight clusters under (SA).

    $T_1\le 2ne^{8\varepsilon\beta} + en\lambda\frac{\beta^2}{\beta-1}$,
    $T_2\ge\frac\varepsilon n e^{(1-\alpha)\beta}$: on [T1, T2] tokens of one cap satisfy
    $|x_i-x_j|^2\le2e^{-\lambda\beta}$, and none has left its cap of size 2 eps. Needs a start in caps of size eps,
    $\gamma = 1-\alpha-8\varepsilon-\frac1\beta\log\frac{2n^2}\varepsilon > 0$ and
    $0<\lambda<1-\alpha-O(1/\beta)$. T1 is linear in beta only if eps is O(1/beta). Mean-field version: the number
    of caps in place of n.

    Args:
        alpha: Largest inner product between caps, of `cap_cosine`, in [-1, 1].
        n: Number of tokens, >= 1.
        beta: Inverse temperature, > 1.
        eps: Size of the caps, in (0, 1/16).
        lam: Rate of tightness lambda, > 0.

    Returns:
        `Window`, each of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet (2024); Rigollet (2025), Sec. 5.1, omits the condition on eps.
    """
    check_count(n, "n", 1)
    alpha, lam = check_between(alpha, "alpha", -1, 1), check_positive(lam, "lam")
    eps = check_between(eps, "eps", 1e-300, 1 / 16)
    beta = numbers(beta, "beta")
    check(beta > 1, "beta", "be > 1", beta)
    gather = np.logaddexp(
        np.log(2 * n) + 8 * eps * beta, 1 + np.log(n * lam) + 2 * np.log(beta) - np.log(beta - 1)
    )
    stay = np.log(eps / n) + (1 - alpha) * beta
    gamma = 1 - alpha - 8 * eps - np.log(2 * n**2 / eps) / beta
    return Window(*map(np.asarray, (gather / np.log(10), stay / np.log(10), gamma)))


def collapse_time(u0: Numbers, *, beta: Numbers, c: Numbers = 1.0) -> np.ndarray:
    r"""Time in which $\dot u = u(1-u)e^{\beta(u-1)}$ brings 1 - u from $1-u_0$ down to $e^{-c\beta}$.

    The equation compares the smallest inner product u of one cluster. With $u = \frac{1+\cos\phi}2$ it is that
    of two clusters under USA at beta/2, so the time is twice theirs (`merge_time`, rescaled clock).
    Relative error below 1e-12.

    Args:
        u0: Start, in (0, 1), with 1 - u0 >= e^(-c beta); any shape.
        beta: Inverse temperature, >= 0; c beta <= 1000.
        c: Exponent of the end, > 0.

    Returns:
        Time, of the broadcast shape; inf beyond 1e308.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet (2024), lemma on the time until collapse, solved.
    """
    u0, beta = numbers(u0, "u0"), check_nonnegative(beta, "beta")
    check((u0 > 0) & (u0 < 1), "u0", "lie in (0, 1)", u0)
    depth = check_positive(c, "c") * beta
    check(depth <= 1000, "c", "satisfy c beta <= 1000", depth)
    start, end = 2 * np.arctan2(np.sqrt(1 - u0), np.sqrt(u0)), 2 * np.arcsin(np.exp(-depth / 2))
    reached = end <= start
    check(reached, "u0", "satisfy 1 - u0 >= e^(-c beta)", np.broadcast_to(u0, reached.shape))
    return np.asarray(2 * merge_time(start, end, beta=beta / 2, model="usa", clock="rescaled"))


def collapse_bound(u0: Numbers, *, beta: Numbers, c: Numbers = 1.0) -> np.ndarray:
    r"""Upper bound on `collapse_time`: $\frac{e^{\beta(1-u_0)}}{u_0} + ec\frac{\beta^2}{\beta-1}$.

    Args:
        u0: Start, in (0, 1), any shape.
        beta: Inverse temperature, > 1.
        c: Exponent of the end, > 0.

    Returns:
        Time, of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet (2024), lemma on the time until collapse.
    """
    u0, beta = numbers(u0, "u0"), numbers(beta, "beta")
    check((u0 > 0) & (u0 < 1), "u0", "lie in (0, 1)", u0)
    check(beta > 1, "beta", "be > 1", beta)
    with np.errstate(over="ignore"):
        rise = np.exp(beta * (1 - u0)) / u0
    return np.asarray(rise + np.e * check_positive(c, "c") * beta**2 / (beta - 1))


def propagation_margin(delta: Numbers, alpha: Numbers, *, n: int, beta: Numbers) -> np.ndarray:
    r"""Logarithm of the pull inside a cluster over the pull of the others.

    $\log\frac{\frac1n\delta(1-\delta)e^{-\delta\beta}}{n\,e^{-(1-\alpha)\beta}}$: if positive,
    the smallest inner product within each cluster stays >= 1 - delta under (SA) once it is, as
    long as inner products between clusters are <= alpha.

    Args:
        delta: Allowed spread of a cluster, in (0, 1), any shape.
        alpha: Largest inner product between clusters, in [-1, 1].
        n: Number of tokens, >= 1.
        beta: Inverse temperature, >= 0.

    Returns:
        Margin, of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet (2024), propagation lemma.
    """
    check_count(n, "n", 1)
    delta, alpha = numbers(delta, "delta"), check_between(alpha, "alpha", -1, 1)
    check((delta > 0) & (delta < 1), "delta", "lie in (0, 1)", delta)
    pull = np.log(delta) + np.log1p(-delta) - delta * check_nonnegative(beta, "beta")
    return np.asarray(pull + (1 - alpha) * beta - 2 * np.log(n))
