r"""Gaussians under attention in R^d, without normalisation: mean and covariance move by their own equations.

What a token x sees in $\mathcal N(m,S)$ is affine, $A(x) = a + Lx$, so the law stays Gaussian:
$\dot m = a + Lm$ and $\dot S = LS + SL^\top$. With $B = \beta Q^\top K$ the four kinds see

- softmax, $e^{x^\top By}$: $A(x) = V(m + SB^\top x)$,
- l2, $e^{-\beta|Qx-Ky|^2/2}$: $A(x) = V(I+SM)^{-1}(m + SB^\top x)$, $M = \beta K^\top K$,
- linear, $\int x^\top By\,Vy\,\mu(dy)$: $A(x) = V(S+mm^\top)B^\top x$,
- sinkhorn, $e^{x^\top By}$ scaled to have both marginals: $A(x) = V(m + \Gamma^\top S^{-1}(x-m))$,
  $\Gamma = (S-\Gamma S^{-1}\Gamma^\top)BS$ the covariance of x and y.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import wrightomega

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_finite,
    check_nonnegative,
    check_positive,
    check_shape,
    check_times,
    check_weights,
    one,
)

RTOL, ATOL = 1e-12, 1e-15
BLOW_UP = 1e9
"""Speed, relative to the state and in units of the time so far, at which `path` speaks of blow-up."""
SYMMETRY_TOL = 1e-10


def attention_map(
    mean: Numbers,
    covariance: Numbers,
    *,
    kind: str = "softmax",
    beta: Number,
    query: Numbers = 1.0,
    key: Numbers = 1.0,
    value: Numbers = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Attention in a Gaussian, the affine map $A(x) = a + Lx$ of the head of this module.

    Exact. With $S = CC^\top$ and $C^\top BC = U\,\mathrm{diag}(D)\,W^\top$, Sinkhorn's covariance is
    $\Gamma = CU\,\mathrm{diag}(g)\,W^\top C^\top$, $g = 2D/(1+\sqrt{1+4D^2})$. O(d^3).

    Args:
        mean: m, shape (d,).
        covariance: S, symmetric positive definite, shape (d, d).
        kind: One of `KINDS`: "softmax", "l2", "linear" or "sinkhorn".
        beta: Inverse temperature, >= 0.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).

    Returns:
        a, shape (d,), and L, shape (d, d).

    Raises:
        ValueError: If an argument is out of range, or shapes do not match.

    Source:
        Castin, Ablin, Carrillo, Peyré, "A unified perspective on the dynamics of deep Transformers" (2025), for
        softmax, l2 and linear; Sander, Ablin, Blondel, Peyré, "Sinkformers" (2022), for the model of the fourth,
        derived here: the inverse covariance of (x, y) has the off-diagonal block -B.
    """
    m, s = _check_gaussian(mean, covariance)
    return _law(kind, len(m), beta, query, key, value)(m, s)


def velocity(
    mean: Numbers,
    covariance: Numbers,
    *,
    kind: str = "softmax",
    beta: Number,
    query: Numbers = 1.0,
    key: Numbers = 1.0,
    value: Numbers = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Velocities of mean and covariance under $\dot x = A(x)$, $\dot m = a + Lm$ and $\dot S = LS + SL^\top$.

    For softmax $\dot m = V(I + SB^\top)m$ and $\dot S = VSB^\top S + SBSV^\top$. Exact. O(d^3).

    Args:
        mean: m, shape (d,).
        covariance: S, symmetric positive definite, shape (d, d).
        kind: One of `KINDS`.
        beta: Inverse temperature, >= 0.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).

    Returns:
        Velocity of m, shape (d,), and of S, shape (d, d).

    Raises:
        ValueError: If an argument is out of range, or shapes do not match.

    Source:
        See `attention_map`.
    """
    m, s = _check_gaussian(mean, covariance)
    return _velocity(_law(kind, len(m), beta, query, key, value), m, s)


def path(
    ts: Numbers,
    mean: Numbers,
    covariance: Numbers,
    *,
    kind: str = "softmax",
    beta: Number,
    query: Numbers = 1.0,
    key: Numbers = 1.0,
    value: Numbers = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and covariance along $\dot x = A(x)$, of any weights.

    Integrates `velocity` to a relative error of about 1e-11. Softmax and linear attention may blow up in finite time.

    Args:
        ts: Times, increasing, shape (t,). ts[0] is the time of `mean` and `covariance`.
        mean: m at ts[0], shape (d,).
        covariance: S at ts[0], symmetric positive definite, shape (d, d).
        kind: One of `KINDS`.
        beta: Inverse temperature, >= 0.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).

    Returns:
        Means, shape (t, d), and covariances, shape (t, d, d).

    Raises:
        ValueError: If an argument is out of range, shapes do not match, or the blow-up comes before ts[-1].

    Source:
        See `attention_map`.
    """
    ts = check_times(ts)
    m, s = _check_gaussian(mean, covariance)
    d, law = len(m), _law(kind, len(m), beta, query, key, value)

    def rhs(t, y):
        dm, ds = _velocity(law, y[:d], y[d:].reshape(d, d))
        return np.append(dm, ds)

    def calm(t, y):
        return BLOW_UP * np.linalg.norm(y) - (t - ts[0]) * np.linalg.norm(rhs(t, y))

    calm.terminal = True  # pyright: ignore[reportFunctionMemberAccess]
    ys = [np.append(m, s)]
    for start, end in pairwise(ts):
        with np.errstate(over="ignore", invalid="ignore"):  # trial steps beyond the blow-up
            leg = solve_ivp(
                rhs, (start, end), ys[-1], method="DOP853", events=calm, rtol=RTOL, atol=ATOL
            )
        if leg.t[-1] < end:
            _check_before(ts, float(leg.t[-1]))
        ys.append(leg.y[:, -1])
    y = np.array(ys)
    s = y[:, d:].reshape(-1, d, d)
    return y[:, :d], (s + np.swapaxes(s, 1, 2)) / 2


def closed_path(
    ts: Numbers,
    mean: Numbers,
    covariance: Numbers,
    *,
    kind: str = "softmax",
    beta: Number,
    value: Number = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and covariance in closed form, for Q = K = I and V = v I.

    Axes of the covariance stay. With $\tau = vt$ a variance s along an axis goes to

    - softmax, and linear with m = 0: $s/(1-2\beta s\tau)$,
    - l2: $1/(\beta\,\omega(z))$, $z = \frac1{\beta s} - \log\beta s - 2\tau$, $\omega + \log\omega = z$,
    - sinkhorn: $\sinh(z)/2\beta$, $z-\coth\frac z2$ being 2 tau more than at $\sinh z = 2\beta s$.

    Means grow by $e^\tau$, under softmax by $e^\tau(1-2\beta s\tau)^{-1/2}$. Relative error about 1e-14, over the
    share of time that is left before blow-up.

    Args:
        ts: Times, increasing, shape (t,). ts[0] is the time of `mean` and `covariance`.
        mean: m at ts[0], shape (d,); zero for "linear".
        covariance: S at ts[0], symmetric positive definite, shape (d, d).
        kind: One of `KINDS`.
        beta: Inverse temperature, > 0.
        value: v, of any sign.

    Returns:
        Means, shape (t, d), and covariances, shape (t, d, d).

    Raises:
        ValueError: If an argument is out of range, or the blow-up comes before ts[-1].

    Source:
        Castin, Ablin, Carrillo, Peyré (2025) for softmax; integrals of `velocity` in one dimension.
    """
    ts = check_times(ts)
    m, s = _check_gaussian(mean, covariance)
    end = ts[0] + blow_up_time(s, kind=kind, beta=beta, value=value)
    beta = one(check_positive, beta, "beta")
    check(kind != "linear" or not m.any(), "mean", "be zero for kind='linear'", m, "Use `path`.")
    if ts[-1] >= end:
        _check_before(ts, end)
    start, axes = np.linalg.eigh(s)
    tau = float(value) * (ts - ts[0])[:, None]
    spread = VARIANCES[kind](tau, start, beta)
    swell = np.exp(tau) * (np.sqrt(spread / start) if kind == "softmax" else 1.0)
    means = (swell * (m @ axes)) @ axes.T
    return means, np.einsum("ij,tj,kj->tik", axes, spread, axes)


def blow_up_time(
    covariance: Numbers, *, kind: str = "softmax", beta: Number, value: Number = 1.0
) -> float:
    r"""Time at which the covariance becomes infinite, $1/(2v\beta\lambda_{\max}(S))$, for Q = K = I and V = v I.

    For softmax, and for linear attention with mean zero, if v > 0. Infinite otherwise: under l2 and Sinkhorn attention
    Gaussians spread no faster than $e^{2vt}$.

    Args:
        covariance: S at time 0, symmetric positive definite, shape (d, d).
        kind: One of `KINDS`.
        beta: Inverse temperature, >= 0.
        value: v, of any sign.

    Returns:
        Time > 0, or inf.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `closed_path`.
    """
    check_choice(kind, "kind", tuple(KINDS))
    top = float(np.linalg.eigvalsh(_check_covariance(covariance))[-1])
    beta, value = check_nonnegative(beta, "beta"), check_finite(value, "value")
    check_shape(value, "value", ())
    speed = 2 * float(value) * float(beta) * top
    return 1 / speed if speed > 0 and kind in ("softmax", "linear") else float("inf")


def _softmax(m: np.ndarray, s: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple:
    return m, s @ b.T


def _l2(m: np.ndarray, s: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple:
    both = np.linalg.solve(np.eye(len(m)) + s @ c, np.column_stack([m, s @ b.T]))
    return both[:, 0], both[:, 1:]


def _linear(m: np.ndarray, s: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple:
    return np.zeros_like(m), (s + np.outer(m, m)) @ b.T


def _sinkhorn(m: np.ndarray, s: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple:
    root = np.linalg.cholesky(s)
    left, scale, right = np.linalg.svd(root.T @ b @ root)
    correlation = left * (2 * scale / (1 + np.hypot(1, 2 * scale))) @ right
    slope = np.linalg.solve(root.T, correlation @ root.T).T
    return m - slope @ m, slope


KINDS: dict[str, Callable[..., tuple]] = {
    "softmax": _softmax,
    "l2": _l2,
    "linear": _linear,
    "sinkhorn": _sinkhorn,
}
"""Attention vectors before V: (m, S, beta Q^T K, beta K^T K) -> offset and slope."""


def _hyperbola(tau: np.ndarray, start: np.ndarray, beta: float) -> np.ndarray:
    return start / (1 - 2 * beta * start * tau)


def _omega(tau: np.ndarray, start: np.ndarray, beta: float) -> np.ndarray:
    scaled = beta * start
    return 1 / (beta * wrightomega(1 / scaled - np.log(scaled) - 2 * tau))


def _sinh(tau: np.ndarray, start: np.ndarray, beta: float) -> np.ndarray:
    """Newton's method from below on a concave rising function: no step overshoots."""
    z = np.arcsinh(2 * beta * start)
    level = 2 * tau + z - 1 / np.tanh(z / 2)
    root = np.hypot(level, np.sqrt(8))
    z = np.where(level > 0, (root + level) / 2, 4 / (root + np.abs(level)))
    for _ in range(20):
        z = z + (level - z + 1 / np.tanh(z / 2)) / (1 + 0.5 / np.sinh(z / 2) ** 2)
    return np.sinh(z) / (2 * beta)


VARIANCES: dict[str, Callable[..., np.ndarray]] = {
    "softmax": _hyperbola,
    "l2": _omega,
    "linear": _hyperbola,
    "sinkhorn": _sinh,
}
"""Variances along the axes: (v t, variances at 0, beta) -> variances, shape (t, d)."""


def _law(kind, d, beta, query, key, value) -> Callable:
    """The map of checked weights, (m, S) -> (a, L)."""
    check_choice(kind, "kind", tuple(KINDS))
    beta = check_nonnegative(beta, "beta")
    check_shape(beta, "beta", ())
    q, k, v = check_weights(query, key, value, d)
    b, c = beta * q.T @ k, beta * k.T @ k

    def law(m, s):
        offset, slope = KINDS[kind](m, s, b, c)
        return v @ offset, v @ slope

    return law


def _velocity(law: Callable, m: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset, slope = law(m, s)
    spread = slope @ s
    return offset + slope @ m, spread + spread.T


def _check_covariance(covariance: Numbers) -> np.ndarray:
    """Covariance as a symmetric positive definite float array of shape (d, d)."""
    s = check_finite(covariance, "covariance")
    check_shape(s, "covariance", (s.shape[0] if s.ndim else 1,) * 2)
    check(np.abs(s - s.T).max() <= SYMMETRY_TOL * np.abs(s).max(), "covariance", "be symmetric", s)
    s = (s + s.T) / 2
    low = np.linalg.eigvalsh(s)[0]
    check(low > 0, "covariance", f"be positive definite (an eigenvalue is {low:.3g})", s)
    return s


def _check_gaussian(mean: Numbers, covariance: Numbers) -> tuple[np.ndarray, np.ndarray]:
    s, m = _check_covariance(covariance), check_finite(mean, "mean")
    check_shape(m, "mean", (len(s),))
    return m, s


def _check_before(ts: np.ndarray, end: float) -> None:
    raise ValueError(
        f"Argument `ts` must end before the Gaussian blows up at t={end:.6g}, but ts[-1]={ts[-1]:g}."
    )
