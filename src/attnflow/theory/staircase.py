r"""Clusters at large beta: the closest pair moves alone, merges, and the energy climbs a step.

Greedy rule: the time for which two clusters at angle g wait is $e^{\beta(1-\cos g)}$ (SA), $e^{-\beta\cos g}$
(USA) to leading order, so as beta goes to infinity merges happen in order of gaps, one at a time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_choice,
    check_finite,
    check_nonnegative,
    check_positive,
    numbers,
    one,
)
from attnflow.theory.hemisphere import check_tokens
from attnflow.theory.two_clusters import CLOCKS, MODELS, log10_merge_time, merge_angle

ANTIPODAL = 1e-12
"""Angle from pi below which a pair counts as antipodal, hence as stationary."""


class Staircase(NamedTuple):
    """Merges in order, and the plateaus between them."""

    pairs: np.ndarray
    """Ids that merge, shape (m, 2): 0..n-1 are the tokens, n + k is what merge k made."""
    gaps: np.ndarray
    """Angle of each pair when both its clusters exist, shape (m,)."""
    merged_x: np.ndarray
    """Where the clusters meet, shape (m, d)."""
    merged_weights: np.ndarray
    """Mass of each new cluster, shape (m,)."""
    energies: np.ndarray
    """Scaled energy of each plateau, shape (m + 1,)."""
    log10_times: np.ndarray
    """Decimal logarithms of the merge times, shape (m,), nondecreasing; nan at beta = inf."""


def greedy_merges(
    x: ArrayLike,
    *,
    beta: Number = np.inf,
    model: str = "sa",
    weights: ArrayLike | tuple | None = None,
    clock: str = "physical",
    phi1: Number = 1e-8,
) -> Staircase:
    r"""Merges by the greedy rule: the closest pair of clusters merges, until one is left.

    Two clusters meet on their geodesic at `merge_angle`: at the mean, weighted by the masses (USA), by their
    squares (SA, beta = inf). Times are those of `log10_merge_time`, counted from when both clusters exist; all
    others are held still. Exact as beta goes to infinity if no two gaps tie; at finite beta the error of log T is
    that of a gap, about beta sin(g) times the angle by which the others moved, and of the order of merges
    wherever two gaps are within O(1/beta) in cosine. An antipodal pair never meets: merging stops there.
    O(n^3) time, O(n^2) memory.

    Args:
        x: Unit vectors, shape (n, d), or angles on the circle, shape (n,).
        beta: Inverse temperature, >= 0; inf is the limit, which has an order but no times.
        model: "sa" or "usa".
        weights: Masses of the tokens, shape (n,), > 0, sum 1; equal by default.
        clock: Of USA: "physical", or "rescaled" by e^beta.
        phi1: Angle at which a pair counts as merged, in (0, 1].

    Returns:
        `Staircase` of m = n - 1 merges, fewer if an antipodal pair is left. Of equal gaps the first counts.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet, "Dynamic metastability in the self-attention model" (2024),
        Sec. 6, for USA on the circle; merge points of SA and the geodesic form are derived.
    """
    check_choice(model, "model", MODELS)
    check_choice(clock, "clock", CLOCKS if model == "usa" else CLOCKS[:1])
    check_between(phi1, "phi1", 1e-300, 1)
    beta = one(numbers, beta, "beta")
    check(beta >= 0, "beta", "be >= 0", beta)
    points = check_points(x)
    masses = _masses(weights, len(points))
    n, energy = len(points), float((masses**2).sum())
    ids, born = np.arange(n), np.full(n, -np.inf)
    gaps = np.array([_angles(point, points) for point in points])
    np.fill_diagonal(gaps, np.inf)
    merges, energies, now = [], [energy], -np.inf
    for step in range(n - 1):
        i, j = sorted(divmod(int(gaps.argmin()), len(gaps)))
        gap, pair = gaps[i, j], (float(masses[i]), float(masses[j]))
        if gap > np.pi - ANTIPODAL:
            break
        wait = _log10_wait(gap, phi1, beta, model, pair, clock)
        now = max(now, _log10_sum(max(born[i], born[j]), wait))
        shift = float(merge_angle(gap, beta=beta, model=model, weights=pair))
        energies.append(energies[-1] + 2 * pair[0] * pair[1])
        points[i], masses[i] = _towards(points[i], points[j], shift), sum(pair)
        merges.append((ids[[i, j]], gap, points[i].copy(), masses[i], now))
        ids[i], born[i] = n + step, now
        points, masses, ids, born = (np.delete(a, j, axis=0) for a in (points, masses, ids, born))
        gaps = np.delete(np.delete(gaps, j, axis=0), j, axis=1)
        gaps[i] = gaps[:, i] = _angles(points[i], points)
        gaps[i, i] = np.inf
    columns = [np.array(column) for column in zip(*merges, strict=True)]
    none = np.zeros(0)
    pairs, widths, places, totals, times = columns or (
        np.zeros((0, 2), int), none, points[:0], none, none,
    )  # fmt: skip
    times = times if np.isfinite(beta) else np.full(len(times), np.nan)
    return Staircase(np.sort(pairs, axis=1), widths, places, totals, np.array(energies), times)


def plateau_energies(pairs: ArrayLike, weights: ArrayLike | tuple) -> np.ndarray:
    r"""Scaled energy of each plateau of a sequence of merges, $\sum_k\alpha_k^2$ over its clusters.

    The energy $\sum_{ij}\alpha_i\alpha_j e^{\beta(\langle x_i,x_j\rangle-1)}$ up to terms $e^{-\beta(1-\cos g)}$ of
    the smallest gap g. Merging i and j adds $2\alpha_i\alpha_j$; the last value is 1 when all have merged.

    Args:
        pairs: Ids that merge, shape (m, 2), as in a SciPy linkage.
        weights: Masses of the tokens, shape (n,), > 0, sum 1.

    Returns:
        Energies, shape (m + 1,), increasing, in (0, 1].

    Raises:
        ValueError: If a mass is not positive, or a pair names a cluster that does not exist.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet (2024), Sec. 6.
    """
    weights = check_positive(weights, "weights")  # pyright: ignore[reportArgumentType]
    masses = list(_masses(weights, np.size(weights)))
    pairs = check_finite(pairs, "pairs")  # pyright: ignore[reportArgumentType]
    whole = pairs.ndim == 2 and pairs.shape[1] == 2 and (pairs == np.floor(pairs)).all()
    check(whole, "pairs", "be pairs of clusters, shape (m, 2)", pairs)
    pairs = np.minimum(pairs, 2.0**53).astype(int)
    known = pairs.max(axis=1, initial=0) < len(masses) + np.arange(len(pairs))
    check(known & (pairs >= 0).all(axis=1), "pairs", "name clusters made before", pairs)
    energies = [sum(mass**2 for mass in masses)]
    for i, j in pairs:
        energies.append(energies[-1] + 2 * masses[i] * masses[j])
        masses.append(masses[i] + masses[j])
    return np.array(energies)


def pairing_angle(
    s: Numbers, phi0: Numbers, *, weights: Numbers = (0.5, 0.5), model: str = "sa"
) -> np.ndarray:
    r"""Angle of the pair that moves, on its own clock, $\tan\frac\phi2 = \tan\frac{\phi_0}2\,e^{-cs}$.

    c = a/b + b/a (SA, clock $dt = e^{\beta(1-\cos\phi)}ds$), c = a + b (USA, clock
    $dt = e^{-\beta\cos\phi}ds$): $\dot\phi = -c\sin\phi$, and the cosine is
    $\tanh(cs + \mathrm{artanh}\cos\phi_0)$. The clock takes the CURRENT angle. They meet only as s goes to
    infinity. Exact at every beta for USA; for SA the error is of order $e^{-\beta(1-\cos\phi)}$, so the law
    holds while the pair is apart.

    Args:
        s: Times of the pair's clock, >= 0, any shape.
        phi0: Angle at s = 0, in [0, pi], any shape.
        weights: Masses (a, b), > 0.
        model: "sa" or "usa".

    Returns:
        Angles in [0, phi0], of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Bruno, Pasqualotto, Agazzi, "A multiscale analysis of mean-field transformers" (2025), Prop. 3.11, for equal
        masses. Rigollet (2025), Thm 5, prints the clock of the initial angle, drops the masses, and lets the pair
        meet in finite time: all three are wrong.
    """
    s, phi0 = check_nonnegative(s, "s"), check_between(phi0, "phi0", 0, np.pi)
    rate, _ = _pairing(weights, model)
    fall = np.exp(-rate * s)
    return np.asarray(2 * np.arctan2(np.sin(phi0 / 2) * fall, np.cos(phi0 / 2)))


def pairing_flow(
    s: Numbers,
    x: ArrayLike,
    y: ArrayLike,
    *,
    weights: Numbers = (0.5, 0.5),
    model: str = "sa",
) -> np.ndarray:
    r"""Positions of the pair that moves, on its own clock; all other clusters stand still.

    $x' = \frac ba P_xy$, $y' = \frac ab P_yx$ (SA), $x' = bP_xy$, $y' = aP_yx$ (USA), solved: both stay on
    their geodesic, at the angle of `pairing_angle`, and x makes the share $b^2/(a^2+b^2)$ (SA), $b/(a+b)$ (USA)
    of the way.

    Args:
        s: Times of the pair's clock, >= 0, shape (t,).
        x: First cluster at s = 0, a unit vector, shape (d,).
        y: Second cluster at s = 0, neither x nor -x.
        weights: Masses (a, b), > 0.
        model: "sa" or "usa".

    Returns:
        Unit vectors, shape (t, 2, d).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `pairing_angle`; masses are derived.
    """
    start, end = check_tokens(_pair(_point(x, "x"), _point(y, "y")))
    phi0 = float(_angles(start, end[None])[0])
    check(0 < phi0 < np.pi - ANTIPODAL, "y", "be neither x nor -x", end)
    _, share = _pairing(weights, model)
    walked = phi0 - pairing_angle(np.atleast_1d(s), phi0, weights=weights, model=model)
    first = _towards(start, end, share * walked[:, None])
    return np.stack([first, _towards(end, start, (1 - share) * walked[:, None])], axis=1)


def _point(x: ArrayLike, name: str) -> np.ndarray:
    """One point, shape (d,)."""
    point = numbers(x, name)
    check(point.ndim == 1, name, "be one unit vector, shape (d,)", point)
    return point


def _pair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two points of one dimension, shape (2, d)."""
    check(x.shape == y.shape, "y", f"have shape {x.shape}, as x has", y)
    return np.stack([x, y])


def check_points(x: ArrayLike) -> np.ndarray:
    """Unit vectors, shape (n, d); angles of shape (n,) become points of the circle."""
    array = check_finite(x, "x")  # pyright: ignore[reportArgumentType]
    if array.ndim == 1:
        array = np.stack([np.cos(array), np.sin(array)], axis=-1)
    return check_tokens(array)


def _pairing(weights: Numbers, model: str) -> tuple[float, float]:
    """Rate of the angle, and share of the way that the first cluster makes."""
    check_choice(model, "model", MODELS)
    masses = check_positive(weights, "weights")
    check(masses.shape == (2,), "weights", "be two masses", masses)
    a, b = (float(mass) for mass in masses)
    return (a / b + b / a, b**2 / (a**2 + b**2)) if model == "sa" else (a + b, b / (a + b))


def _masses(weights: ArrayLike | tuple | None, n: int) -> np.ndarray:
    """Positive masses of sum 1, shape (n,)."""
    if weights is None:
        return np.full(n, 1 / n)
    masses = check_positive(weights, "weights")  # pyright: ignore[reportArgumentType]
    check(masses.shape == (n,), "weights", f"have shape ({n},)", masses)
    check(abs(masses.sum() - 1) < 1e-9, "weights", "sum to 1", masses)
    return masses


def _angles(point: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Angles between a point and points, accurate near 0 and pi."""
    apart = np.linalg.norm(points - point, axis=-1)
    return 2 * np.arctan2(apart, np.linalg.norm(points + point, axis=-1))


def _towards(x: np.ndarray, y: np.ndarray, angle: Number) -> np.ndarray:
    """Point at an angle from x on the way to y."""
    tangent = y - (x @ y) * x
    size = np.linalg.norm(tangent)
    moved = np.cos(angle) * x + np.sin(angle) * tangent / (size if size > 0 else 1.0)
    return moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def _log10_wait(
    gap: float, phi1: Number, beta: Number, model: str, pair: tuple[float, float], clock: str
) -> float:
    """Decimal logarithm of the time a pair needs from its gap."""
    if gap <= phi1 or not np.isfinite(beta):
        return -np.inf
    return float(log10_merge_time(gap, phi1, beta=beta, model=model, weights=pair, clock=clock))


def _log10_sum(a: float, b: float) -> float:
    """Decimal logarithm of 10^a + 10^b."""
    low, high = min(a, b), max(a, b)
    return high + np.log1p(10 ** (low - high)) / np.log(10) if high > -np.inf else high
