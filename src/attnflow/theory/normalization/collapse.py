r"""How schemes collapse: what they conserve, terminal laws with their constants, and how many layers are left.

Everything comes from one integral, $I(g) = \int_0^g \frac{e^{\beta h}-1}{h\,(n-(n-1)h)}\,dh$: Pre-LN, Peri-LN and
LN-scaling conserve $g\,e^{I(g)}\,r^2$, Post-LN and sqrt-scaling $\frac gS e^{I(g)} e^{2t}$ in their clocks t.
"""

from collections.abc import Callable

import numpy as np
from scipy.integrate import quad, solve_ivp

from attnflow.theory import equiangular, logit
from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
    numbers,
    one,
)
from attnflow.theory.normalization.continuous import climb, clock, gap_at
from attnflow.theory.normalization.discrete import increments, pass_layer
from attnflow.theory.normalization.scheme import (
    Rate,
    check_cosine,
    check_gap,
    check_run,
)

EXPONENTS = {
    "post": -2.0,
    "pre": -2.0,
    "mix": -2.0,
    "peri": -2.0,
    "ngpt": -2.0,
    "sqrt": -4.0,
    "ln-scaling": -1.0,
}
r"""Slope of log(1 - rho) over `terminal_clock` at late times; "none" need not collapse."""

LAST = 1e100  # layers after which no more is asked


def terminal_clock(scheme: str, ts: Numbers, *, alpha: Rate = 1.0) -> np.ndarray:
    r"""Clock in which collapse is a straight line, $1-\rho \sim C e^{\text{exponent}\cdot\text{clock}}$.

    t for post; log t for pre, mix, peri and ln-scaling; $\int_0^t\alpha$ for ngpt; $\sqrt{t+1}-1$ for sqrt.

    Args:
        scheme: One of `EXPONENTS`.
        ts: Times >= 0, any shape.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Clock, the shape of `ts`; -inf for log t at t = 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 2.
    """
    check_choice(scheme, "scheme", tuple(EXPONENTS))
    ts = check_nonnegative(ts, "ts")
    if scheme in ("post", "ngpt", "sqrt"):
        return np.asarray(clock(scheme, ts, alpha) / (2 if scheme == "sqrt" else 1))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(ts))


def terminal_constant(
    scheme: str,
    rho0: Number = 0.0,
    *,
    n: int,
    beta: Number,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
    log: bool = False,
) -> float:
    r"""Constant C of collapse, $1-\rho \sim C e^{\text{exponent}\cdot\text{clock}}$, exactly.

    With $g_0 = 1-\rho_0$, $S_0 = 1+(n-1)\rho_0$ and $K = g_0 e^{I(g_0)}$: $C = nK/S_0$ for post and sqrt,
    $K r_0^2$ for pre and peri, $K r_0^2/4$ for ln-scaling, and for mix that of pre from the gap at tau; ngpt has
    $\frac{n g_0}{S_0}\exp\int_0^{g_0}\frac{\sqrt Q - n}{h(n-(n-1)h)}dh$, $\sqrt Q = |A|/w$. So Post-LN and Pre-LN
    share one constant: $C_{post} = n\,C_{pre}/(S_0 r_0^2)$.

    Args:
        scheme: One of `EXPONENTS`.
        rho0: Cosine at t = 0, strictly between -1/(n-1) and 1.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        radius: Length of the tokens at t = 0, > 0.
        tau: Time at which mix goes from Post-LN to Pre-LN.
        alpha: Unused but for its check; the clock of ngpt holds it.
        log: Return log C instead: C grows like $\exp(e^\beta/(\beta n))$.

    Returns:
        C > 0 (or its logarithm), to a relative error of about 1e-12; inf where it overflows.

    Raises:
        ValueError: If an argument is out of range, or the scheme has no such law.

    Source:
        Derived here from the conserved quantities of the module; orders in Karagodin, Ge, Polyanskiy, Rigollet,
        "Normalization in attention dynamics" (2025), Table 2.
    """
    beta, r0 = check_run(scheme, n, beta, radius, tau, alpha)
    check_choice(scheme, "scheme", tuple(EXPONENTS))
    rho0 = one(check_cosine, rho0, "rho0", n)
    check(-1 / (n - 1) < rho0 < 1, "rho0", "lie strictly between the fixed points", rho0)
    gap = 1 - rho0
    if scheme == "mix":
        gap = float(equiangular.gap([0.0, tau], gap, n=n, beta=beta)[1]) if tau else gap
    total = float(logit.rise_of_gap(gap, n))
    if scheme == "ngpt":
        value = np.log(n * gap / total) + _integral(_ngpt_excess, gap, n, beta)
    else:
        value = np.log(gap) + _integral(_excess, gap, n, beta)
        value += np.log(n / total) if scheme in ("post", "sqrt") else 2 * np.log(r0)
        value -= np.log(4) if scheme == "ln-scaling" else 0.0
    with np.errstate(over="ignore"):
        return float(value if log else np.exp(value))


def terminal_gap(
    scheme: str,
    ts: Numbers,
    rho0: Number = 0.0,
    *,
    n: int,
    beta: Number,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> np.ndarray:
    r"""Terminal law $C e^{\text{exponent}\cdot\text{clock}(t)}$ of the gap 1 - rho.

    $Ce^{-2t}$ (post), $C/t^2$ (pre, mix, peri), $C/t$ (ln-scaling), $Ce^{-2\int\alpha}$ (ngpt),
    $Ce^{-4(\sqrt{1+t}-1)}$ (sqrt). The gap comes to it from where it is; corrections to the power laws are
    O(1/t), as r = t + const.

    Args:
        scheme: One of `EXPONENTS`.
        ts: Times >= 0, any shape.
        rho0: Cosine at t = 0, strictly between -1/(n-1) and 1.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        radius: Length of the tokens at t = 0, > 0.
        tau: Time at which mix goes from Post-LN to Pre-LN.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Gap, the shape of `ts`.

    Raises:
        ValueError: If an argument is out of range, or the scheme has no such law.

    Source:
        See `terminal_constant`.
    """
    constant = terminal_constant(
        scheme, rho0, n=n, beta=beta, radius=radius, tau=tau, alpha=alpha, log=True
    )
    clock = terminal_clock(scheme, ts, alpha=alpha)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(constant + EXPONENTS[scheme] * clock))


def orbit_radius(
    gap: Numbers, gap0: Number = 1.0, *, n: int, beta: Number, radius: Number = 1.0
) -> np.ndarray:
    r"""Radius at which Pre-LN, Peri-LN and LN-scaling all have a given gap: they share one curve in (gap, r).

    $r^2\,g\,e^{I(g)}$ is conserved, so $r = r_0\sqrt{g_0 e^{I(g_0)} / (g\,e^{I(g)})}$; only the clock differs.

    Args:
        gap: Gap 1 - rho reached, in (0, n/(n-1)], any shape.
        gap0: Gap at the start, in (0, n/(n-1)).
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        radius: Length of the tokens at the start, > 0.

    Returns:
        Radius, the shape of `gap`; inf beyond 1e308.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        d rho / d log r = f(rho)/a(rho) for all three (Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in
        attention dynamics" (2025)), integrated here.
    """
    check_count(n, "n", 2)
    beta, r0 = one(check_finite, beta, "beta"), one(check_positive, radius, "radius")
    gap, g0 = check_gap(gap, "gap", n), one(check_gap, gap0, "gap0", n)
    check((gap > 0) & (gap < n / (n - 1)), "gap", "lie strictly between the fixed points", gap)
    check(0 < g0 < n / (n - 1), "gap0", "lie strictly between the fixed points", g0)
    check(beta * max(g0, gap.max(initial=0)) <= 700, "beta", "satisfy beta gap <= 700", beta)
    start = np.log(g0) + _integral(_excess, g0, n, beta)
    now = np.log(gap) + np.array(
        [_integral(_excess, float(g), n, beta) for g in gap.ravel()]
    ).reshape(gap.shape)
    with np.errstate(over="ignore"):
        return np.asarray(r0 * np.exp((start - now) / 2))


def depth_budget(
    scheme: str,
    n: int,
    beta: Number,
    rho_max: Number,
    *,
    rho0: Number = 0.0,
    radius: Number = 1.0,
    eta: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
    max_layers: int = 10_000,
) -> float:
    r"""Number of layers after which equiangular tokens first reach cosine rho_max.

    Exact layer maps up to `max_layers`; beyond these, where a layer adds little, what it adds is integrated as a
    rate: an error of a few layers, so a few in `max_layers` relatively. Costs 0.1 to 2 s.

    Args:
        scheme: One of `SCHEMES`.
        n: Number of tokens, the context length, >= 2.
        beta: Inverse temperature: the logit scale of unit tokens. Finite, any sign.
        rho_max: Cosine that counts as collapsed, in [-1/(n-1), 1).
        rho0: Cosine before the first layer, in [-1/(n-1), 1].
        radius: Length of the tokens before the first layer, > 0.
        eta: Step of a layer, > 0.
        tau: Time at which mix goes from Post-LN to Pre-LN, layers times eta.
        alpha: Rate of ngpt, >= 0, a number or a function of time.
        max_layers: Layers up to which maps are iterated, >= 1; mix goes on to its switch in any case.

    Returns:
        Whole number of layers; 0 if rho0 is there already, inf if never (or after 1e100 layers).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `layer_step`, iterated.
    """
    check_run(scheme, n, beta, radius, tau, alpha)
    check_count(max_layers, "max_layers", 1)
    rho0 = one(check_cosine, rho0, "rho0", n)
    rho_max = one(check_cosine, rho_max, "rho_max", n)
    check(rho_max < 1, "rho_max", "lie below 1, which takes infinitely many layers", rho_max)
    eta, beta = one(check_positive, eta, "eta"), numbers(beta, "beta")
    gap, r, target = 1 - rho0, float(np.asarray(radius)), 1 - rho_max
    if gap <= target:
        return 0.0
    if logit.rise_of_gap(gap, n) == 0:
        return np.inf
    if scheme == "mix":
        max_layers = max(max_layers, int(np.ceil(float(np.asarray(tau)) / eta)))
    for layer in range(max_layers):
        before = gap
        gap, r = (
            float(v) for v in pass_layer(scheme, gap, r, n, beta, eta, layer * eta, tau, alpha)
        )
        if gap <= target:
            return layer + 1.0
        if scheme == "none" and gap == before:
            return np.inf
    return _by_increments(scheme, gap, r, max_layers, target, n, float(beta), eta, alpha)


def _by_increments(scheme, gap, r, layer, target, n, beta, eta, alpha) -> float:
    """Layer at which the target is reached, over y, taking what a layer adds as a rate; inf if never."""
    scheme = "pre" if scheme == "mix" else scheme

    def rates(y, state):
        t = eta * (layer + np.expm1(min(state[0], 300.0)))
        g, r = float(gap_at(y, n)), np.exp(min(state[1], 300.0))
        up, growth = increments(scheme, g, r, n, beta, eta, t, alpha)
        slow = min(1 / up, LAST**1.2)  # still over LAST layers, and its square is finite
        return [np.exp(-state[0]) * slow, growth * slow]

    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        found = solve_ivp(
            rates,
            (climb(gap, n), climb(target, n)),
            [0.0, np.log(r)],
            "DOP853",
            rtol=1e-9,
            atol=1e-9,
        )
    count = layer + np.expm1(found.y[0, -1])
    return float(np.ceil(count)) if found.success and count < LAST else np.inf


def _integral(integrand: Callable, gap: float, n: int, beta: float) -> float:
    """Integral over (0, gap) of integrand/(h S(h)), S = n - (n-1) h."""
    value = lambda h: integrand(h, n, beta) / (h * (n - (n - 1) * h))
    breaks = [gap - 10 / abs(beta)] if abs(beta) * gap > 20 else None
    with np.errstate(over="ignore"):
        return quad(value, 0.0, gap, epsabs=0.0, epsrel=1e-13, limit=400, points=breaks)[0]


def _excess(h: float, n: int, beta: float) -> float:
    return float(np.expm1(beta * h))


def _ngpt_excess(h: float, n: int, beta: float) -> float:
    """|A|/w - n, where |A|^2/w^2 = (E-1+S)^2 + (n-1) h S and E = e^(beta h)."""
    rise, total = float(np.expm1(beta * h)), n - (n - 1) * h
    length = np.hypot(rise + total, np.sqrt((n - 1) * h * total))
    return (rise * (rise + 2 * total) - n * (n - 1) * h) / (length + n)
