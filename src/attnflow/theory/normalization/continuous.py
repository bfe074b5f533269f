"""Schemes as flows: the two numbers (gap, radius) in continuous time."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import quad, solve_ivp

from attnflow.theory import logit
from attnflow.theory.errors import Number, Numbers, check_nonnegative, check_times, one
from attnflow.theory.normalization.scheme import (
    Contact,
    Course,
    Rate,
    check_cosine,
    check_gap,
    check_run,
    check_scheme,
    check_switch,
    contact,
    rate,
    seen_beta,
)

RTOL = ATOL = 1e-13
MAX_STEP = 2.0  # in log t, so that no step leaps over the end of a plateau

# (t, radius, contact, alpha) -> (1/s, d log r / dt), where d theta / dt = P A/s for A of unit tokens
_Rates = tuple[Any, Any]
_MOVES: dict[str, Callable[[Any, Any, Contact, Any], _Rates]] = {
    "post": lambda t, r, c, alpha: (1.0, 0.0),
    "pre": lambda t, r, c, alpha: (1 / r, c.along / r),
    "peri": lambda t, r, c, alpha: (1 / (r * c.length), c.along / (r * c.length)),
    "ngpt": lambda t, r, c, alpha: (alpha / c.length, 0.0),
    "sqrt": lambda t, r, c, alpha: (1 / np.sqrt(t + 1), 0.0),
    "ln-scaling": lambda t, r, c, alpha: (
        1 / (r * np.sqrt(t + 1)),
        c.along / (r * np.sqrt(t + 1)),
    ),
    "none": lambda t, r, c, alpha: (1.0, c.along),
}


def speed(
    scheme: str,
    rho: Numbers,
    *,
    n: int,
    beta: Numbers,
    radius: Numbers = 1.0,
    t: Number = 0.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> np.ndarray:
    r"""Rate of change of the common cosine, $\dot\rho = f(\rho)/s$, $f = 2w(1-\rho)(1+(n-1)\rho)$.

    From orthogonal tokens: $2/(e^\beta+n-1)$ for post, mix, sqrt; that over r for pre, ln-scaling;
    $2/(r\sqrt{e^{2\beta}+n-1})$ for peri; $2\alpha_0/\sqrt{e^{2\beta}+n-1}$ for ngpt.

    Args:
        scheme: One of `SCHEMES`.
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign; broadcasts.
        radius: Common length of the tokens, > 0; broadcasts.
        t: Time, >= 0: depth matters to mix, sqrt, ln-scaling and a schedule alpha.
        tau: Time at which mix goes from Post-LN to Pre-LN.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        d rho / dt, the broadcast shape, >= 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 2.
    """
    beta, radius = check_scheme(scheme, n, beta, radius, tau, alpha)
    gap = 1 - check_cosine(rho, "rho", n)
    t = one(check_nonnegative, t, "t")
    at = contact(gap, n, seen_beta(scheme, beta, radius))
    pull = _move(scheme, t, radius, at, tau, alpha)[0]
    return np.asarray(2 * at.other * gap * at.total * pull)


def speed_factor(
    scheme: str,
    rho: Numbers,
    *,
    n: int,
    beta: Numbers,
    radius: Numbers = 1.0,
    t: Number = 0.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> np.ndarray:
    r"""Speed factor s: directions move at $\dot\theta = P_\theta A/s$, A being what the token sees.

    1 (post), r (pre, none), r |A| (peri), |A|/alpha (ngpt), sqrt(t+1) (sqrt), r sqrt(t+1) (ln-scaling); mix is
    post until tau and pre from then on.

    Args:
        scheme: One of `SCHEMES`.
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign; broadcasts.
        radius: Common length of the tokens, > 0; broadcasts.
        t: Time, >= 0.
        tau: Time at which mix goes from Post-LN to Pre-LN.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        s, the broadcast shape, > 0; inf where ngpt stands still.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 1.
    """
    beta, radius = check_scheme(scheme, n, beta, radius, tau, alpha)
    gap = 1 - check_cosine(rho, "rho", n)
    t = one(check_nonnegative, t, "t")
    at = contact(gap, n, seen_beta(scheme, beta, radius))
    pull = _move(scheme, t, radius, at, tau, alpha)[0]
    seen = radius if scheme == "none" else 1.0  # of tokens at radius r the attention is r A
    with np.errstate(divide="ignore"):
        return np.asarray(seen / pull + 0 * at.along)


def cosine(
    scheme: str,
    ts: Numbers,
    rho0: Number,
    *,
    n: int,
    beta: Number,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> np.ndarray:
    """Common cosine of n equiangular tokens under a scheme.

    Args:
        scheme: One of `SCHEMES`.
        ts: Strictly increasing times >= 0, shape (t,). ts[0] is the time of `rho0`.
        rho0: Initial cosine, in [-1/(n-1), 1].
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        radius: Initial length of the tokens, > 0. Mix, post, ngpt and sqrt are meant to start at 1.
        tau: Time at which mix goes from Post-LN to Pre-LN, within the run.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        rho(ts), shape (t,).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `course`.
    """
    check_run(scheme, n, beta, radius, tau, alpha)
    gap0 = 1 - check_cosine(rho0, "rho0", n)
    return course(scheme, ts, gap0, n=n, beta=beta, radius=radius, tau=tau, alpha=alpha).cosine


def course(
    scheme: str,
    ts: Numbers,
    gap0: Number = 1.0,
    *,
    n: int,
    beta: Number,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> Course:
    r"""Gap 1 - rho and radius of n equiangular tokens under a scheme, down to gaps of 1e-300.

    Where radii stay, one quadrature in the clock of the scheme, inverted. Where they grow, $(\log(S/g), \log r)$ is
    integrated over $\log(1+t)$ to 1e-13 a step, so that neither collapse (g to 0) nor algebraically long time
    costs accuracy: relative error about 1e-11 in the gap.

    Args:
        scheme: One of `SCHEMES`.
        ts: Strictly increasing times >= 0, shape (t,). ts[0] is the time of `gap0`.
        gap0: Initial gap 1 - rho, in [0, n/(n-1)]; 1 is orthogonal tokens.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        radius: Initial length of the tokens, > 0.
        tau: Time at which mix goes from Post-LN to Pre-LN, within the run.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Gap and radius at ts.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 1, on equiangular
        tokens; the coordinate y = log(S/g), in which every scheme reads dy/dt = 2 n w/s, is derived here.
    """
    beta, r0 = check_run(scheme, n, beta, radius, tau, alpha)
    g0, ts = one(check_gap, gap0, "gap0", n), check_times(ts)
    check_nonnegative(ts, "ts")
    check_switch(scheme, tau, ts[0], ts[-1])
    parts = [(scheme, ts[-1])]
    if scheme == "mix":
        parts = [("post", float(np.asarray(tau))), ("pre", ts[-1])]
    gaps, radii, start = np.full(len(ts), g0), np.full(len(ts), r0), ts[0]
    for name, end in parts:
        inside = (ts > start) & (ts <= end)
        path = _advance(name, g0, r0, np.array([start, *ts[inside], end]), n, beta, alpha)
        gaps[inside], radii[inside] = (values[1:-1] for values in path)
        g0, r0, start = path.gap[-1], path.radius[-1], end
    return Course(gaps, radii)


def clock(scheme: str, ts: np.ndarray, alpha: Rate) -> np.ndarray:
    r"""Clock in which a scheme that keeps radii is autonomous: t, $2(\sqrt{t+1}-1)$ or $\int_0^t\alpha$."""
    if scheme == "post":
        return ts
    if scheme == "sqrt":
        return np.asarray(2 * ts / (np.sqrt(ts + 1) + 1))
    if not callable(alpha):
        return np.asarray(float(alpha) * ts)
    times, back = np.unique(ts, return_inverse=True)
    pieces = [
        quad(lambda t: rate(alpha, t), a, b, epsabs=0.0, epsrel=1e-12, limit=200)[0]
        for a, b in pairwise(np.append(0.0, times))
    ]
    return np.asarray(np.cumsum(pieces)[back].reshape(ts.shape))


def climb(gap: Number, n: int) -> float:
    """Coordinate y = log(S/g) of a gap: inf at consensus, -inf at the simplex."""
    with np.errstate(divide="ignore"):
        return float(np.log(logit.rise_of_gap(gap, n)) - np.log(gap))


def gap_at(y: Number, n: int) -> np.ndarray:
    """Gap at y = log(S/g), n/(e^y + n - 1)."""
    with np.errstate(over="ignore"):
        return np.asarray(n / (np.exp(y) + n - 1))


def _advance(
    scheme: str, g0: float, r0: float, ts: np.ndarray, n: int, beta: float, alpha: Rate
) -> Course:
    """Gap and radius at nondecreasing ts, from those at ts[0]; not for mix."""
    if scheme in ("post", "sqrt", "ngpt"):
        since = clock(scheme, ts, alpha) - clock(scheme, ts[:1], alpha)
        model, rise = "ngpt" if scheme == "ngpt" else "sa", float(logit.rise_of_gap(g0, n))
        v = logit.advance(since, g0, rise, n=n, beta=beta, model=model)
        return Course(logit.gap_after(v, g0, rise, n), np.full(len(ts), r0))
    y0, fixed = climb(g0, n), not np.isfinite(climb(g0, n))

    def rates(log_t, state):
        r = np.exp(min(state[1], 700.0))
        gap = g0 if fixed else gap_at(state[0], n)
        at = contact(gap, n, seen_beta(scheme, beta, r))
        pull, growth = _MOVES[scheme](ts[0] + np.expm1(log_t), r, at, 1.0)
        lap = np.exp(log_t)  # dt / d log(1 + t - ts[0])
        return [0.0 if fixed else lap * 2 * n * at.other * pull, lap * growth]

    asked, back = np.unique(np.log1p(ts - ts[0]), return_inverse=True)
    path = np.array([[0.0 if fixed else y0], [np.log(r0)]])
    if len(asked) > 1:
        path = solve_ivp(
            rates, (0.0, asked[-1]), path[:, 0], "DOP853", asked,
            rtol=RTOL, atol=ATOL, max_step=MAX_STEP,
        ).y  # fmt: skip
    y, log_r = path[:, back]
    return Course(np.full(len(ts), g0) if fixed else gap_at(y, n), np.exp(log_r))


def _move(scheme: str, t: float, radius: np.ndarray, at: Contact, tau: Any, alpha: Rate) -> _Rates:
    """1/s and d log r/dt of any scheme, mix included."""
    if scheme == "mix":
        scheme = "post" if t < float(tau) else "pre"
    return _MOVES[scheme](t, radius, at, rate(alpha, t) if scheme == "ngpt" else 1.0)
