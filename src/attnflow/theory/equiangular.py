r"""Equiangular tokens: one cosine $\rho(t)$ for all pairs, solved exactly.

Symmetry keeps n tokens with equal pairwise cosines equiangular, so (SA) and (USA) reduce to one number in
$[-1/(n-1), 1]$; the regular simplex and consensus are its fixed points. Q = K = V = I throughout.
Discrete layers do the same: see `normalization`.
"""

import numpy as np

from attnflow.theory import logit
from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_times,
    one,
)

MODELS = ("sa", "usa")


def speed(rho: Numbers, *, n: int, beta: Numbers, model: str = "sa") -> np.ndarray:
    r"""Rate of change of the common cosine.

    SA: $\dot\rho = 2e^{\beta\rho}(1-\rho)(1+(n-1)\rho)/(e^\beta+(n-1)e^{\beta\rho})$;
    USA: $\dot\rho = \frac{2}{n}e^{\beta\rho}(1-\rho)(1+(n-1)\rho)$.
    At rho = 0 these are the initial speeds $2/(e^\beta+n-1)$ and $2/n$ of orthogonal tokens.

    Args:
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign; broadcasts against `rho`.
        model: "sa" or "usa".

    Returns:
        d rho / dt, the broadcast shape, >= 0.

    Raises:
        ValueError: If rho, n, beta or model is out of range.

    Source:
        Geshkovski, Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers" (2023), Sec. 6.
    """
    check_count(n, "n", 2)
    rho, beta = _check_cosine(rho, "rho", n), check_finite(beta, "beta")
    check_choice(model, "model", MODELS)
    slope = 2 * (1 - rho) * (1 + (n - 1) * rho)
    if model == "usa":
        return np.asarray(slope * np.exp(beta * rho) / n)
    with np.errstate(over="ignore"):
        return np.asarray(slope / (np.exp(beta * (1 - rho)) + n - 1))


def cosine_sa(ts: Numbers, rho0: Number, *, n: int, beta: Number) -> np.ndarray:
    r"""Common cosine of n equiangular tokens under (SA).

    Solves $\dot\rho = 2 e^{\beta\rho}(1-\rho)((n-1)\rho+1) / (e^\beta + (n-1)e^{\beta\rho})$ by separation of
    variables: t(rho) by Gauss panels, inverted by Newton's method. Exact for every n >= 2.
    Error about $10^{-15}(1+|\beta|)\,t\,\dot\rho$, the conditioning of the problem. Costs O(|beta| + number of times).

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `rho0`.
        rho0: Initial cosine, in [-1/(n-1), 1]; both ends are fixed points.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.

    Returns:
        rho(ts), shape (t,), in [-1/(n-1), 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 6.1, for rho0 >= 0; it holds on all of
        [-1/(n-1), 1].
    """
    return _cosine(ts, rho0, n=n, beta=beta, model="sa")


def cosine_usa(ts: Numbers, rho0: Number, *, n: int, beta: Number) -> np.ndarray:
    r"""Common cosine of n equiangular tokens under (USA).

    Solves $\dot\rho = \frac{2}{n} e^{\beta\rho}(1-\rho)((n-1)\rho+1)$, like `cosine_sa`: the collapse, which
    large beta squeezes into a time $e^{-\beta}$, is resolved.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `rho0`.
        rho0: Initial cosine, in [-1/(n-1), 1]; both ends are fixed points.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.

    Returns:
        rho(ts), shape (t,), in [-1/(n-1), 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers" (2023), Sec. 6.
    """
    return _cosine(ts, rho0, n=n, beta=beta, model="usa")


def gap(ts: Numbers, gap0: Number, *, n: int, beta: Number, model: str = "sa") -> np.ndarray:
    r"""Gap 1 - rho of n equiangular tokens, accurate relative to itself down to 1e-300.

    Same flow as `cosine_sa` and `cosine_usa`, where 1 - rho has long been lost to rounding.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `gap0`.
        gap0: Initial 1 - rho, in [0, n/(n-1)].
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        model: "sa" or "usa".

    Returns:
        1 - rho(ts), shape (t,), in [0, n/(n-1)].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `cosine_sa` and `cosine_usa`.
    """
    ts, beta = _check_run(ts, n, beta, model)
    g0 = one(check_between, gap0, "gap0", 0, n / (n - 1))
    s0 = float(logit.rise_of_gap(np.asarray(g0), n))
    v = logit.advance(ts - ts[0], g0, s0, n=n, beta=beta, model=model)
    return logit.gap_after(v, g0, s0, n)


def cosine_causal_pair(ts: Numbers, rho0: Number, *, beta: Number) -> np.ndarray:
    r"""Cosine of two tokens under causal (SA): the first token is fixed, the second moves.

    Solves $\dot\rho = e^{\beta\rho}(1-\rho^2)/(e^\beta+e^{\beta\rho})$: the full mask at half speed. More tokens
    do not stay equiangular under a causal mask; use `gram.gram`.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `rho0`.
        rho0: Initial cosine, in [-1, 1].
        beta: Inverse temperature, finite, any sign.

    Returns:
        rho(ts), shape (t,), in [-1, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Polyanskiy, Rigollet, "Clustering in causal attention masking" (2024), n = 2, V = I.
    """
    return _cosine(check_times(ts) / 2, rho0, n=2, beta=beta, model="sa")


def cosine_kuramoto(ts: Numbers, rho0: Number, *, n: int) -> np.ndarray:
    r"""Common cosine at beta = 0, where (SA) and (USA) agree, in closed form.

    $\rho(t) = (q-1)/(q+n-1)$ with $q = e^{2t}(1+(n-1)\rho_0)/(1-\rho_0)$.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `rho0`.
        rho0: Initial cosine, in [-1/(n-1), 1]; both ends are fixed points.
        n: Number of tokens, >= 2.

    Returns:
        rho(ts), shape (t,), in [-1/(n-1), 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The ODE of `cosine_sa` at beta = 0, integrated by partial fractions.
    """
    check_count(n, "n", 2)
    ts, rho0 = check_times(ts), one(_check_cosine, rho0, "rho0", n)
    rise = float(logit.rise_of_cosine(np.asarray(rho0), n))
    return logit.cosine_after(2 * (ts - ts[0]), 1 - rho0, rise, n)


def time_sa(rho: Numbers, rho0: Numbers, *, n: int, beta: Numbers) -> np.ndarray:
    r"""Time that n equiangular tokens need from cosine rho0 to rho under (SA), in closed form.

    With $a = 1/(n-1)$:
    $t = \frac{1}{2n}\{\mathrm{Ei}(\beta(1-\rho_0)) - \mathrm{Ei}(\beta(1-\rho))
    + e^{\beta na}[E_1(\beta(\rho_0+a)) - E_1(\beta(\rho+a))]
    + (n-1)\log\frac{(1-\rho_0)(1+(n-1)\rho)}{(1-\rho)(1+(n-1)\rho_0)}\}$.
    Evaluated in scaled form, relative error about 1e-12 at any beta; `inf` where t itself exceeds 1e308.

    Args:
        rho: Cosine reached, in [-1/(n-1), 1], any shape. Below rho0 the time is negative; the ends take +-inf.
        rho0: Initial cosine, strictly between -1/(n-1) and 1; broadcasts.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0; broadcasts.

    Returns:
        t, the broadcast shape. Dimensionless.

    Raises:
        ValueError: If an argument is out of range. For beta < 0 invert `cosine_sa`.

    Source:
        The ODE of `cosine_sa`, integrated by partial fractions.
    """
    return _time(rho, rho0, n=n, beta=beta, model="sa")


def time_usa(rho: Numbers, rho0: Numbers, *, n: int, beta: Numbers) -> np.ndarray:
    r"""Time that n equiangular tokens need from cosine rho0 to rho under (USA), in closed form.

    With $a = 1/(n-1)$: $t = \frac12\{e^{-\beta}[\mathrm{Ei}(\beta(1-\rho_0)) - \mathrm{Ei}(\beta(1-\rho))]
    + e^{\beta a}[E_1(\beta(\rho_0+a)) - E_1(\beta(\rho+a))]\}$, evaluated like `time_sa`.

    Args:
        rho: Cosine reached, in [-1/(n-1), 1], any shape. Below rho0 the time is negative; the ends take +-inf.
        rho0: Initial cosine, strictly between -1/(n-1) and 1; broadcasts.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0; broadcasts.

    Returns:
        t, the broadcast shape. Dimensionless.

    Raises:
        ValueError: If an argument is out of range. For beta < 0 invert `cosine_usa`.

    Source:
        The ODE of `cosine_usa`, integrated by partial fractions.
    """
    return _time(rho, rho0, n=n, beta=beta, model="usa")


def gap_time(
    gap: Numbers, gap0: Numbers, *, n: int, beta: Numbers, model: str = "sa", log: bool = False
) -> np.ndarray:
    r"""Time from gap0 = 1 - rho0 to gap = 1 - rho, for gaps far below rounding and times far above 1e308.

    Args:
        gap: Gap reached, in [0, n/(n-1)], any shape. Above gap0 the time is negative.
        gap0: Initial gap, strictly between 0 and n/(n-1); broadcasts.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0; broadcasts.
        model: "sa" or "usa".
        log: Return log t instead, finite at any beta; needs gap < gap0.

    Returns:
        t (or log t), the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `time_sa` and `time_usa`.
    """
    check_count(n, "n", 2)
    g1, g0 = check_between(gap, "gap", 0, n / (n - 1)), check_finite(gap0, "gap0")
    s1, s0 = logit.rise_of_gap(g1, n), logit.rise_of_gap(g0, n)
    check((g0 > 0) & (s0 > 0), "gap0", f"lie strictly between 0 and {n / (n - 1):.6g}", g0)
    if log:
        check(g1 < g0, "gap", "lie below `gap0` for log=True", g1)
    beta = _check_closed(beta, model)
    return logit.time_between(g0, s0, g0 - g1, g1, s1, n=n, beta=beta, model=model, log=log)


def prefactor(rho0: Numbers, *, n: int, beta: Numbers, model: str = "sa") -> np.ndarray:
    r"""Constant C of the approach to consensus, $1-\rho \sim C e^{-2t}$ (SA) or $C e^{-2e^\beta t}$ (USA).

    $\log C = \lim\,[\log(1-\rho) + \lambda t]$, taken where the remainder is $e^{-60}$. C = n at rho0 = 0 and
    beta = 0; lambda is `rates.cosine_rate`. C grows like $\exp(e^\beta/(\beta n))$ under (SA), and overflows to inf.

    Args:
        rho0: Initial cosine, strictly between -1/(n-1) and 1, any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0; broadcasts.
        model: "sa" or "usa".

    Returns:
        C, the broadcast shape, > 0. Relative error about 1e-14 times log C.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Limit of `time_sa` and `time_usa` at rho -> 1.
    """
    check_count(n, "n", 2)
    rho0, beta = _check_cosine(rho0, "rho0", n), check_nonnegative(beta, "beta")
    near = np.minimum(np.exp(-60) / (1 + n * beta), (1 - rho0) * np.exp(-60))
    with np.errstate(over="ignore"):
        log_t = gap_time(near, 1 - rho0, n=n, beta=beta, model=model, log=True)
        steps = 2 * np.exp(log_t + (beta if model == "usa" else 0))  # terminal rate times t
        return np.asarray(np.exp(np.log(near) + steps))


def phase_curve(
    beta: Numbers, *, n: int, delta: Number = 1e-3, model: str = "sa", log: bool = False
) -> np.ndarray:
    r"""Time at which orthogonal tokens reach cosine 1 - delta: the frontier of the (t, beta) phase diagram.

    $t_\delta(\beta) = t(1-\delta; 0, n, \beta)$; at beta = 0 it is $\frac12\log((n(1-\delta)+\delta)/\delta)$.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        n: Number of tokens, >= 2.
        delta: Distance to consensus that counts as one cluster, in (0, 1).
        model: "sa" or "usa".
        log: Return log t instead, finite at any beta.

    Returns:
        t (or log t), the shape of `beta`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers" (2023), Sec. 6,
        figure of the phase transition. Published simulations use Euler steps of 0.1 and lie 6-8 % later in t
        (`normalization.phase_curve_post_ln` at eta = 0.1).
    """
    delta = check_finite(delta, "delta")
    check((delta > 0) & (delta < 1), "delta", "lie strictly between 0 and 1", delta)
    return gap_time(delta, 1.0, n=n, beta=beta, model=model, log=log)


def attention_entropy(rho: Numbers, *, n: int, beta: Numbers) -> np.ndarray:
    r"""Entropy of one row of the softmax attention matrix of equiangular tokens.

    $H = \log(E+n-1) - u\,\beta(1-\rho)$ with $E = e^{\beta(1-\rho)}$, $u = E/(E+n-1)$, in scaled form.

    Args:
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0; broadcasts.

    Returns:
        H in nats, the broadcast shape, in [0, log n].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Direct sum over one row: weight u on itself, (1-u)/(n-1) on each other token.
    """
    check_count(n, "n", 2)
    rho, beta = _check_cosine(rho, "rho", n), check_nonnegative(beta, "beta")
    gain = beta * (1 - rho)
    others = (n - 1) * np.exp(-gain)
    return np.asarray(gain * others / (1 + others) + np.log1p(others))


def _check_cosine(rho: Numbers, name: str, n: int) -> np.ndarray:
    """Cosine in [-1/(n-1), 1]; the lower end absorbs rounding."""
    low = -1 / (n - 1)
    remedy = f"No {n} vectors have common cosine below -1/(n-1)."
    return np.asarray(np.maximum(check_between(rho, name, low * (1 + 1e-15), 1, remedy), low))


def _check_run(ts: Numbers, n: int, beta: Number, model: str) -> tuple[np.ndarray, float]:
    """Times and beta of a run."""
    check_count(n, "n", 2)
    check_choice(model, "model", MODELS)
    return check_times(ts), one(check_finite, beta, "beta")


def _cosine(ts: Numbers, rho0: Number, *, n: int, beta: Number, model: str) -> np.ndarray:
    """Solution of either flow from rho0."""
    ts, beta = _check_run(ts, n, beta, model)
    rho0 = one(_check_cosine, rho0, "rho0", n)
    g0, s0 = 1 - rho0, float(logit.rise_of_cosine(np.asarray(rho0), n))
    v = logit.advance(ts - ts[0], g0, s0, n=n, beta=beta, model=model)
    return logit.cosine_after(v, g0, s0, n)


def _time(rho: Numbers, rho0: Numbers, *, n: int, beta: Numbers, model: str) -> np.ndarray:
    """Time of either flow from rho0 to rho."""
    check_count(n, "n", 2)
    rho, rho0 = _check_cosine(rho, "rho", n), _check_cosine(rho0, "rho0", n)
    s0, s1 = logit.rise_of_cosine(rho0, n), logit.rise_of_cosine(rho, n)
    check(
        (rho0 < 1) & (s0 > 0),
        "rho0",
        f"lie strictly between {-1 / (n - 1):.6g} and 1",
        rho0,
        "The ends are fixed points.",
    )
    beta = _check_closed(beta, model)
    return logit.time_between(1 - rho0, s0, rho - rho0, 1 - rho, s1, n=n, beta=beta, model=model)


def _check_closed(beta: Numbers, model: str) -> np.ndarray:
    """Beta of a closed form."""
    check_choice(model, "model", MODELS)
    return check_nonnegative(beta, "beta", "For beta < 0 use the solutions of the ODE.")
