r"""Schemes as layers of step eta: exact maps of (gap, radius).

A layer is $x_i \leftarrow p\,\theta_i + q A_i$, normalised or not; as $A_i = (u-w)\theta_i + w\sum_k\theta_k$,
differences of tokens are multiplied by $P = p + q(u-w)$, and so $g^+ = g P^2/|x|^2$ exactly. A layer is
not the flow: near consensus 1 - rho contracts by $(1+\eta)^{-2}$ a Post-LN layer, where the flow gives $e^{-2\eta}$.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
    one,
)
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

# (t, radius, contact, eta, alpha) -> (p, q); whether the result is normalised
_LAYERS: dict[str, tuple[Callable[[Any, Any, Contact, Any, Any], tuple[Any, Any]], bool]] = {
    "post": (lambda t, r, c, eta, alpha: (1.0, eta), True),
    "pre": (lambda t, r, c, eta, alpha: (r, eta), False),
    "peri": (lambda t, r, c, eta, alpha: (r, eta * _inverse(c.length)), False),
    "ngpt": (lambda t, r, c, eta, alpha: (1 - eta * alpha, eta * alpha * _inverse(c.length)), True),
    "sqrt": (lambda t, r, c, eta, alpha: (1.0, eta / np.sqrt(t + 1)), True),
    "ln-scaling": (lambda t, r, c, eta, alpha: (r, eta / np.sqrt(t + 1)), False),
    "none": (lambda t, r, c, eta, alpha: (r, eta * r), False),
}


def layer_step(
    scheme: str,
    rho: Numbers,
    *,
    n: int,
    beta: Numbers,
    eta: Numbers = 1.0,
    radius: Numbers = 1.0,
    t: Number = 0.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> Course:
    r"""Gap and radius after one layer.

    Post: $\rho^+ = (\rho + 2\eta c + \eta^2 p)/(1 + 2\eta a + \eta^2 N^2)$ with $a = \langle\theta_i,A_i\rangle$,
    $c = \langle\theta_j,A_i\rangle$, $p = \langle A_i,A_j\rangle$, $N = |A_i|$; pre: eta/r for eta; peri: A/|A| for A;
    ngpt: $(1-\eta\alpha)\theta + \eta\alpha A/|A|$, normalised. Evaluated in the gap, exact relative to itself.

    Args:
        scheme: One of `SCHEMES`.
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign; broadcasts.
        eta: Step, >= 0; broadcasts. 1 is a real layer, 0 the identity.
        radius: Common length of the tokens, > 0; broadcasts. Post, ngpt and sqrt read it as 1.
        t: Time of the layer, its index times eta: matters to mix, sqrt, ln-scaling and a schedule alpha.
        tau: Time at which mix goes from Post-LN to Pre-LN.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Gap and radius, each of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 1, evaluated on
        equiangular tokens.
    """
    beta, radius = check_scheme(scheme, n, beta, radius, tau, alpha)
    gap = 1 - check_cosine(rho, "rho", n)
    eta, t = check_nonnegative(eta, "eta"), one(check_nonnegative, t, "t")
    return Course(*pass_layer(scheme, gap, radius, n, beta, eta, t, tau, alpha))


def layer_course(
    scheme: str,
    gap0: Number = 1.0,
    *,
    layers: int,
    n: int,
    beta: Number,
    eta: Number = 1.0,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> Course:
    """Gap and radius through a stack of layers; layer l acts at time l eta.

    Args:
        scheme: One of `SCHEMES`.
        gap0: Gap 1 - rho before the first layer, in [0, n/(n-1)]; 1 is orthogonal tokens.
        layers: Number of layers, >= 1.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        eta: Step, >= 0; 1 is a real layer.
        radius: Length of the tokens before the first layer, > 0.
        tau: Time at which mix goes from Post-LN to Pre-LN, within the stack; k eta makes the first k Post-LN.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Gap and radius, shape (layers + 1,), the start first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `layer_step`.
    """
    check_run(scheme, n, beta, radius, tau, alpha)
    check_count(layers, "layers", 1)
    gap0, eta = one(check_gap, gap0, "gap0", n), one(check_nonnegative, eta, "eta")
    check_switch(scheme, tau, 0.0, layers * eta)
    path = np.empty((2, layers + 1))
    path[:, 0] = gap0, float(np.asarray(radius))
    beta = np.asarray(beta, float)
    for layer in range(layers):
        t = layer * eta
        gap, r = path[:, layer]
        path[:, layer + 1] = pass_layer(scheme, gap, r, n, beta, eta, t, tau, alpha)
    return Course(*path)


def phase_curve_post_ln(
    beta: Numbers,
    *,
    n: int,
    eta: Number,
    delta: Number = 1e-3,
    max_steps: int = 1_000_000,
) -> np.ndarray:
    r"""Nominal time, layers times eta, at which orthogonal tokens first reach cosine 1 - delta.

    The discrete companion of `equiangular.phase_curve`; published simulations use eta = 0.1.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        n: Number of tokens, >= 2.
        eta: Step, > 0.
        delta: Distance to consensus that counts as one cluster, in (0, 1).
        max_steps: Layers after which the search ends.

    Returns:
        eta times the first layer that qualifies, the shape of `beta`; inf where `max_steps` are too few.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `layer_step` of Post-LN, iterated from rho = 0.
    """
    check_count(n, "n", 2)
    check_count(max_steps, "max_steps", 1)
    beta, eta = check_nonnegative(beta, "beta"), check_positive(eta, "eta")
    delta = check_finite(delta, "delta")
    check((delta > 0) & (delta < 1), "delta", "lie strictly between 0 and 1", delta)
    gap, layers = np.ones_like(beta), np.full_like(beta, np.inf)
    for layer in range(1, max_steps + 1):
        gap, _ = pass_layer("post", gap, 1.0, n, beta, eta, 0.0, None, 1.0)
        layers = np.where((gap <= delta) & np.isinf(layers), layer, layers)
        if np.isfinite(layers).all():
            break
    return np.asarray(eta * layers)


def pass_layer(
    scheme: str,
    gap: Numbers,
    radius: Numbers,
    n: int,
    beta: np.ndarray,
    eta: Any,
    t: float,
    tau: Any,
    alpha: Rate,
) -> tuple[np.ndarray, np.ndarray]:
    """Gap and radius after a layer at time t."""
    if scheme == "mix":
        scheme = "post" if t < float(tau) - 1e-6 * np.max(eta) else "pre"  # t counts layers
    p, kept, shared, _ = _move(scheme, gap, radius, n, beta, eta, t, alpha)
    after = np.asarray(gap / (1 + shared))
    if _LAYERS[scheme][1]:
        return after, np.ones_like(after)
    return after, np.asarray((p + kept) * np.sqrt(1 + shared))


def increments(
    scheme: str,
    gap: Number,
    radius: Number,
    n: int,
    beta: Number,
    eta: Number,
    t: float,
    alpha: Rate,
) -> tuple[np.ndarray, np.ndarray]:
    """What one layer adds to y = log(S/g) and to log r, each exact relative to itself; not for mix."""
    p, kept, shared, total = _move(scheme, gap, radius, n, beta, eta, t, alpha)
    climb = np.log1p(shared) + np.log1p((n - 1) * gap * shared / ((1 + shared) * total))
    growth = 0.0 if _LAYERS[scheme][1] else np.log1p(kept / p) + np.log1p(shared) / 2
    return np.asarray(climb), np.asarray(growth)


def _move(scheme, gap, radius, n, beta, eta, t, alpha) -> tuple[Any, Any, Any, Any]:
    """p, q (u-w), |x|^2/P^2 - 1 and S of a layer x = p theta + q A, whose differences scale by P = p + q (u-w)."""
    at = contact(gap, n, seen_beta(scheme, beta, radius))
    move = _LAYERS[scheme][0]
    p, q = move(t, radius, at, eta, rate(alpha, t) if scheme == "ngpt" else 1.0)
    kept = q * at.contrast
    spread = q * at.other / (p + kept)
    return p, kept, (2 * spread + spread**2 * n) * at.total, at.total


def _inverse(length: Number) -> np.ndarray:
    """1/|A|, and 0 where attention cancels."""
    return np.asarray(np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0))
