r"""Two clusters on a great circle: when they meet, and where.

Masses a, b and angle phi obey a closed equation in every dimension. With $r = a/b$, $s = r + 1/r$,
$E = e^{\beta(1-\cos\phi)}$:
$\dot\phi = -\sin\phi\,(2+sE)/(1+sE+E^2)$ (SA), $\dot\phi = -(a+b)\,e^{\beta\cos\phi}\sin\phi$ (USA).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from attnflow.theory.errors import (
    Numbers,
    check,
    check_choice,
    check_nonnegative,
    check_positive,
    numbers,
)
from attnflow.theory.panels import log_integral, nodes_and_widths

MODELS = ("sa", "usa")
CLOCKS = ("physical", "rescaled")
DEPTH, STEP = 50.0, 2.0
"""Quadrature resolves the integrand down to e^-DEPTH of its peak, in panels of e^STEP each."""


def merge_time(
    phi0: Numbers,
    phi1: Numbers,
    *,
    beta: Numbers,
    model: str = "sa",
    weights: Numbers = (0.5, 0.5),
    clock: str = "physical",
) -> np.ndarray:
    r"""Time in which the angle between two clusters falls from phi0 to phi1.

    $T_{SA} = \int_{\phi_1}^{\phi_0}\frac{1+sE+E^2}{(2+sE)\sin p}\,dp$,
    $T_{USA} = \frac1{a+b}\int_{\phi_1}^{\phi_0}\frac{e^{-\beta\cos p}}{\sin p}\,dp$.
    Exact for two clusters; with others, if their pull is negligible. Relative error below 1e-12, plus that of
    exponentiation, 1e-16 |log T|.

    Args:
        phi0: Angle at the start, in (0, pi), any shape.
        phi1: Angle at the end, in (0, phi0].
        beta: Inverse temperature, >= 0.
        model: "sa" or "usa".
        weights: Masses of both clusters, > 0, of sum at most 1; other clusters hold the rest. SA sees their
            ratio alone, USA their sum alone.
        clock: Of USA: "physical", or "rescaled", in which times are e^beta longer. Of SA: "physical".

    Returns:
        T, of the broadcast shape; inf beyond 1e308. `log10_merge_time` has no such limit.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Closed equation of the angle, integrated. Geshkovski, Koubbi, Polyanskiy, Rigollet, "Dynamic metastability
        in the self-attention model" (2024), study it for many clusters.
    """
    pair = _pair(phi0, beta, model, weights, clock)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(_log_time(pair, phi1)))


def log10_merge_time(
    phi0: Numbers,
    phi1: Numbers,
    *,
    beta: Numbers,
    model: str = "sa",
    weights: Numbers = (0.5, 0.5),
    clock: str = "physical",
) -> np.ndarray:
    r"""Decimal logarithm of `merge_time`, which neither overflows nor underflows.

    Summed in logarithms over $v = \log\frac{\tan(\phi_0/2)}{\tan(p/2)}$, in which
    $\beta(\cos p-\cos\phi_0) = \beta\sin^2\phi_0\tanh v/(1+\cos\phi_0\tanh v)$ has no cancellation, however close
    phi0 is to pi or phi1 to 0.

    Args:
        phi0: Angle at the start, in (0, pi), any shape.
        phi1: Angle at the end, in (0, phi0].
        beta: Inverse temperature, >= 0.
        model: "sa" or "usa".
        weights: Masses of both clusters, as for `merge_time`.
        clock: Of USA: "physical" or "rescaled".

    Returns:
        log10 T, of the broadcast shape; -inf where phi1 = phi0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `merge_time`.
    """
    return np.asarray(_log_time(_pair(phi0, beta, model, weights, clock), phi1) / np.log(10))


def log10_merge_time_laplace(
    phi0: Numbers,
    *,
    beta: Numbers,
    model: str = "sa",
    weights: Numbers = (0.5, 0.5),
    clock: str = "physical",
) -> np.ndarray:
    r"""Decimal logarithm of the merge time at large beta, when nearly all of it is spent at the first angle.

    $T_{SA}\approx\frac{e^{\beta(1-\cos\phi_0)}}{s\beta\sin^2\phi_0}$,
    $T_{USA}\approx\frac{e^{-\beta\cos\phi_0}}{(a+b)\beta\sin^2\phi_0}$, for any phi1 well below phi0. With
    $k = \beta\sin^2\phi_0$ the true time is $1 + 2\cos\phi_0/k + (2 + 6\cos^2\phi_0)/k^2 + O(k^{-3})$ times that:
    useless near 0 and pi, where k is small.

    Args:
        phi0: Angle at the start, in (0, pi), any shape.
        beta: Inverse temperature, > 0.
        model: "sa" or "usa".
        weights: Masses of both clusters, as for `merge_time`.
        clock: Of USA: "physical" or "rescaled".

    Returns:
        log10 T, of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Laplace's method for `merge_time` at its upper limit.
    """
    check_positive(beta, "beta")
    pair = _pair(phi0, beta, model, weights, clock)
    slope = pair.beta * pair.near * pair.far
    height = pair.beta * pair.near - pair.log_s if model == "sa" else pair.log_unit
    return np.asarray((height - np.log(slope)) / np.log(10))


def merge_angle(
    phi0: Numbers, *, beta: Numbers, model: str = "sa", weights: Numbers = (0.5, 0.5)
) -> np.ndarray:
    r"""Angle by which the first of two clusters moves towards the second until they meet.

    SA: $\int_0^{\phi_0}\frac{1+E/r}{2+sE}\,dp$, the lighter moves more: from $\frac b{a+b}\phi_0$ at beta = 0 to
    $\frac{b^2}{a^2+b^2}\phi_0$ as beta goes to infinity. USA: $\frac b{a+b}\phi_0$, they meet in their mean.
    Error below 1e-14.

    Args:
        phi0: Angle at the start, in [0, pi], any shape.
        beta: Inverse temperature, >= 0, inf included.
        model: "sa" or "usa".
        weights: Masses (a, b) of the first and the second cluster, > 0.

    Returns:
        Angle in [0, phi0], of the broadcast shape. Both meet phi0 minus that from the start of the second.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Velocities of both clusters, one divided by the other.
    """
    check_choice(model, "model", MODELS)
    a, b = _masses(weights)
    phi0, beta = np.broadcast_arrays(_angle(phi0, closed=True), numbers(beta, "beta"))
    check(beta >= 0, "beta", "be >= 0", beta)
    if model == "usa":
        return np.asarray(phi0 * (b / (a + b)))
    r, heat = a / b, beta[..., None]
    count = int((DEPTH + abs(np.log(r))) / STEP) + 1
    finite = np.where(np.isfinite(heat), heat, 1.0)
    with np.errstate(divide="ignore"):
        levels = STEP * np.arange(1, count) / finite
    bends = np.where(levels < 2, 2 * np.arcsin(np.sqrt(np.minimum(levels, 2) / 2)), np.pi)
    even = np.broadcast_to(np.linspace(0, np.pi, 8), (*phi0.shape, 8))
    edges = np.sort(np.minimum(np.concatenate([bends, even], axis=-1), phi0[..., None]), axis=-1)
    p, widths = nodes_and_widths(edges)
    pull = np.exp(-finite[..., None] * 2 * np.sin(p / 2) ** 2)  # 1/E
    share = (pull + 1 / r) / (2 * pull + r + 1 / r)
    share = np.where(np.isfinite(heat)[..., None], share, (1 / r) / (r + 1 / r))
    return np.asarray((share * widths).sum(axis=(-2, -1)))


class _Pair(NamedTuple):
    """Two clusters at their first angle."""

    near: np.ndarray
    """1 - cos phi0."""
    far: np.ndarray
    """1 + cos phi0."""
    tangent: np.ndarray
    """tan(phi0 / 2)."""
    phi0: np.ndarray
    beta: np.ndarray
    model: str
    log_s: float
    """log(a/b + b/a)."""
    log_unit: np.ndarray
    """Logarithm of the time of USA per unit of its integral; 0 for SA."""


def _pair(phi0: Numbers, beta: Numbers, model: str, weights: Numbers, clock: str) -> _Pair:
    """Check and prepare."""
    check_choice(model, "model", MODELS)
    check_choice(clock, "clock", CLOCKS if model == "usa" else CLOCKS[:1])
    a, b = _masses(weights)
    log_ratio = float(np.log(a) - np.log(b))
    phi0, beta = np.broadcast_arrays(_angle(phi0), check_nonnegative(beta, "beta"))
    sine, cosine = np.sin(phi0 / 2), np.cos(phi0 / 2)
    start = 2 * beta * sine**2 if clock == "rescaled" else -beta * np.cos(phi0)
    return _Pair(
        near=2 * sine**2,
        far=2 * cosine**2,
        tangent=sine / cosine,
        phi0=phi0,
        beta=beta,
        model=model,
        log_s=float(np.logaddexp(log_ratio, -log_ratio)),
        log_unit=start - np.log(a + b) if model == "usa" else np.zeros_like(beta),
    )


def _log_time(pair: _Pair, phi1: Numbers) -> np.ndarray:
    """Natural logarithm of the time from phi0 to phi1."""
    phi1, _ = np.broadcast_arrays(_angle(phi1, "phi1"), pair.phi0)
    check(phi1 <= pair.phi0, "phi1", "be at most phi0", phi1)
    fall = np.sin((pair.phi0 - phi1) / 2) / (np.cos(pair.phi0 / 2) * np.sin(phi1 / 2))
    end = np.log1p(fall)[..., None]
    near, far, beta = (
        np.broadcast_to(a, phi1.shape)[..., None] for a in (pair.near, pair.far, pair.beta)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        drops = STEP * np.arange(1, DEPTH / STEP + 1) / beta
        bends = (np.log1p(drops / far) - np.log1p(-drops / near)) / 2
    even = end * np.linspace(0, 1, int(np.ceil(end.max(initial=1))) + 1)
    edges = np.concatenate([even, np.where(drops < near, np.fmin(bends, end), end)], axis=-1)
    near, far, beta = near[..., None], far[..., None], beta[..., None]

    def log_f(v):
        t = np.tanh(v)
        drop = near * far * t / (2 * expit(-2 * v) + far * t)
        if pair.model == "usa":
            return -beta * drop
        log_e = beta * np.maximum(near - drop, 0)
        above = np.logaddexp(np.logaddexp(0, pair.log_s + log_e), 2 * log_e)
        return above - np.logaddexp(np.log(2), pair.log_s + log_e)

    return np.asarray(log_integral(log_f, np.sort(edges, axis=-1)) + pair.log_unit)


def _masses(weights: Numbers) -> tuple[float, float]:
    """Two positive masses of sum at most 1."""
    masses = check_positive(weights, "weights")
    check(masses.shape == (2,), "weights", "be two masses", masses)
    check(masses.sum() <= 1 + 1e-12, "weights", "sum to at most 1", masses)
    return float(masses[0]), float(masses[1])


def _angle(value: Numbers, name: str = "phi0", *, closed: bool = False) -> np.ndarray:
    """Angles in (0, pi), or in [0, pi]."""
    phi = numbers(value, name)
    inside = (phi >= 0) & (phi <= np.pi) if closed else (phi > 0) & (phi < np.pi)
    check(inside, name, f"lie in {'[0, pi]' if closed else '(0, pi)'}", phi)
    return phi
