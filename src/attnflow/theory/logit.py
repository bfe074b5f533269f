r"""Equiangular flows in the coordinate that makes them explicit, $y = \log(s/g)$.

Here $g = 1-\rho$ is the gap and $s = 1+(n-1)\rho = n-(n-1)g$; $y$ runs from $-\infty$ (regular
simplex, $s = 0$) to $+\infty$ (consensus, $g = 0$), and
$\dot y = 2n/(n-1+e^{\beta g})$ under (SA), $\dot y = 2e^{\beta(1-g)}$ under (USA), and with attention scaled to
length 1 (nGPT) $\dot y = 2n/\sqrt{(e^{\beta g}-1+s)^2 + (n-1)gs}$.
So each time is made of $y$ and of one integral, $J = \int e^{\beta g}\,dy$. A state is a pair (g, s): near
either fixed point one of the two is small, and keeps its own relative accuracy.
"""

import numpy as np
from scipy.special import exp1, expi

from attnflow.theory.errors import Number, Numbers, check

LARGEST_BETA = 1e7
EXP_MAX = 690.0  # e^690 = 1e299: sums of thousands of these stay finite
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # on [0, 1]


def rise_of_cosine(rho: Number, n: int) -> np.ndarray:
    """Rise s = 1 + (n-1) rho, zero at the simplex up to rounding."""
    s = 1 + (n - 1) * rho
    return np.where(np.abs(s) < 4 * np.finfo(float).eps, 0.0, s)


def rise_of_gap(g: Number, n: int) -> np.ndarray:
    """Rise s = n - (n-1) g, zero at the simplex up to rounding."""
    s = 1 - (g - 1) * (n - 1)
    return np.where(np.abs(s) < 4 * n * np.finfo(float).eps, 0.0, s)


def climb(g0: Number, s0: Number, drop: Number, g1: Number, n: int) -> np.ndarray:
    """y1 - y0 >= 0 between two states, with drop = g0 - g1 >= 0 free of cancellation."""
    small = np.minimum(drop / g0, 0.5)
    shrink = np.where(drop < g0 / 2, -np.log1p(-small), np.log(g0) - np.log(g1))
    return np.asarray(shrink + np.log1p((n - 1) * drop / s0))


def exposure(
    g0: np.ndarray,
    s0: np.ndarray,
    drop: np.ndarray,
    g1: np.ndarray,
    s1: np.ndarray,
    *,
    n: int,
    beta: np.ndarray,
) -> np.ndarray:
    r"""$e^{-\beta g_0}\int_{y_0}^{y_1} e^{\beta g}\,dy$ for g1 <= g0 and beta >= 0: no overflow at any beta.

    Closed form by exponential integrals, $[\mathrm{Ei}(\beta g) - e^{\beta n/(n-1)} E_1(\beta s/(n-1))]_{g_1}^{g_0}$;
    20 Gauss nodes where the interval is so short (in y and in beta g) that the difference would cancel.
    """
    length = climb(g0, s0, drop, g1, n)
    fade = np.exp(-beta * drop)
    safe = np.where(beta > 0, beta, 1.0)
    closed = (
        _scaled_ei(safe, g0)
        - fade * _scaled_ei(safe, g1)
        + _scaled_e1(safe, s0 / (n - 1))
        - fade * _scaled_e1(safe, s1 / (n - 1))
    )
    short = (length < 1) & (beta * drop < 1)
    growth = np.expm1(np.where(short, length, 0.0)[..., None] * NODES)
    g0, s0, b = g0[..., None], s0[..., None], beta[..., None]
    fallen = g0 * s0 * growth / (s0 * (1 + growth) + (n - 1) * g0)  # g0 - g at the nodes
    gauss = length * (np.exp(-b * fallen) @ WEIGHTS)
    return np.where(beta > 0, np.where(short, gauss, closed), length)


def time_between(
    g0: Numbers,
    s0: Numbers,
    drop: Numbers,
    g1: Numbers,
    s1: Numbers,
    *,
    n: int,
    beta: Numbers,
    model: str,
    log: bool = False,
) -> np.ndarray:
    """Time (or its log) from state 0 to state 1; negative where drop = g0 - g1 < 0."""
    g0, s0, drop, g1, s1, beta = np.broadcast_arrays(g0, s0, drop, g1, s1, beta)
    back = drop < 0
    g0, g1 = np.where(back, g1, g0), np.where(back, g0, g1)
    s0, s1 = np.where(back, s1, s0), np.where(back, s0, s1)
    drop = np.asarray(np.abs(drop))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = exposure(g0, s0, drop, g1, s1, n=n, beta=beta)
        log_t = np.log(total) + beta * (g0 - 1 if model == "usa" else g0) - np.log(2)
        if model == "sa":
            linear = np.log((n - 1) * climb(g0, s0, drop, g1, n)) - np.log(2)
            log_t = np.logaddexp(log_t, linear) - np.log(n)
        log_t = np.where(drop == 0, -np.inf, np.where((g1 == 0) | (s0 == 0), np.inf, log_t))
        return log_t if log else np.asarray(np.where(back, -1.0, 1.0) * np.exp(log_t))


def advance(ts: np.ndarray, g0: float, s0: float, *, n: int, beta: float, model: str) -> np.ndarray:
    """y(t) - y(0) at times ts >= 0 from the state (g0, s0), any sign of beta.

    Gauss panels carry t(y), Newton's method inverts it inside its panel: the relative error of t is about
    1e-15 (1 + |beta|). Panels end where the flow is linear to double precision. Costs O(|beta| + number of times).
    """
    check(abs(beta) <= LARGEST_BETA, "beta", "lie in [-1e7, 1e7]", beta, "A run costs O(|beta|).")
    if g0 == 0 or s0 == 0:
        return np.zeros_like(ts)
    top = max(np.log(n * max(abs(beta), 1.0)) + 40 - np.log(s0 / g0), 0.0)

    def slowness(v):
        g = n * g0 / (s0 * np.exp(v) + (n - 1) * g0)
        if model == "usa":
            return np.exp(np.clip(beta * (g - 1), -EXP_MAX, EXP_MAX)) / 2
        growth = np.exp(np.minimum(beta * g, EXP_MAX))
        if model == "ngpt":
            s = n * (1 - (n - 1) * g / n)
            return np.hypot(growth - 1 + s, np.sqrt(np.maximum((n - 1) * g * s, 0))) / (2 * n)
        return (n - 1 + growth) / (2 * n)

    def time_across(left, width):
        return width * (slowness(left[:, None] + width[:, None] * NODES) @ WEIGHTS)

    end = slowness(np.array([top + 40.0]))
    if top == 0:
        return _over(ts, end)
    g_top = n * g0 / (s0 * np.exp(top) + (n - 1) * g0)
    gaps = np.linspace(g_top, g0, int(abs(beta) * (g0 - g_top)) + 2)[1:-1]
    by_gap = np.log(n - (n - 1) * gaps) - np.log(gaps) - np.log(s0 / g0)
    edges = np.union1d(np.append(np.arange(0, top, 0.5), top), np.clip(by_gap, 0, top))
    times = np.append(0.0, np.cumsum(time_across(edges[:-1], np.diff(edges))))

    panel = np.clip(np.searchsorted(times, ts, side="right") - 1, 0, len(edges) - 2)
    left, right = edges[panel], edges[panel + 1]
    v = left if beta >= 0 else right  # t(y) is concave or convex: Newton cannot overshoot
    for _ in range(12):
        excess = times[panel] + time_across(left, v - left) - ts
        v = np.clip(v - excess / slowness(v), left, right)
    return np.where(ts > times[-1], top + _over(np.maximum(ts - times[-1], 0), end), v)


def _over(t: np.ndarray, slowness: np.ndarray) -> np.ndarray:
    """Quotient that may overflow: infinitely far is at consensus."""
    with np.errstate(over="ignore"):
        return t / slowness


def gap_after(v: np.ndarray, g0: Number, s0: Number, n: int) -> np.ndarray:
    """1 - rho after a climb of v from (g0, s0), relative accuracy kept down to 1e-300."""
    fade = np.exp(-v)
    return n * g0 * fade / (s0 + (n - 1) * g0 * fade)


def cosine_after(v: np.ndarray, g0: Number, s0: Number, n: int) -> np.ndarray:
    """Rho after a climb of v from (g0, s0)."""
    fade = np.exp(-v)
    return (s0 - g0 * fade) / (s0 + (n - 1) * g0 * fade)


def _scaled_ei(beta: np.ndarray, g: Number) -> np.ndarray:
    """e^-x Ei(x) at x = beta g."""
    x = beta * g
    middle = np.clip(x, 1e-16, 50)
    exact = np.exp(-middle) * expi(middle)
    tiny = np.euler_gamma + np.log(beta) + np.log(g)
    return np.where(x < 1e-16, tiny, np.where(x > 50, _asymptotic(x, 1), exact))


def _scaled_e1(beta: np.ndarray, h: Number) -> np.ndarray:
    """e^x E1(x) at x = beta h."""
    x = beta * h
    middle = np.clip(x, 1e-16, 50)
    exact = np.exp(middle) * exp1(middle)
    tiny = -np.euler_gamma - np.log(beta) - np.log(h)
    return np.where(x < 1e-16, tiny, np.where(x > 50, _asymptotic(x, -1), exact))


def _asymptotic(x: Number, sign: int) -> np.ndarray:
    """Sum of sign^k k!/x^(k+1), k <= 30: 1e-18 at x = 50."""
    x = np.maximum(x, 50)
    total = np.ones_like(x)
    for k in range(30, 0, -1):
        total = 1 + sign * k * total / x
    return np.asarray(total / x)
