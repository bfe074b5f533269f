r"""Normalization schemes on equiangular tokens, exactly: the discrete Post-LN layer with step eta, Q = K = V = I.

One Post-LN layer is $x_i \leftarrow N(x_i + \eta\sum_j A_{ij}x_j)$ with softmax attention A. It is not the flow: near
consensus 1 - rho contracts by $(1+\eta)^{-2}$ per layer, where the flow gives $e^{-2\eta}$.
"""

import numpy as np

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
)


def post_ln_step(rho: Numbers, *, n: int, beta: Numbers, eta: Numbers) -> np.ndarray:
    r"""Common cosine after one Post-LN layer.

    $\rho^+ = (\rho + 2\eta c + \eta^2 p)/(1 + 2\eta a + \eta^2 N_2)$ with $a = \langle\theta_i,A_i\rangle$,
    $c = \langle\theta_j,A_i\rangle$, $p = \langle A_i,A_j\rangle$, $N_2 = |A_i|^2$.

    Args:
        rho: Common cosine, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign; broadcasts.
        eta: Step, >= 0; broadcasts. 1 is a real layer, 0 the identity.

    Returns:
        Cosine after the layer, the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Post-LN, evaluated on
        equiangular tokens.
    """
    check_count(n, "n", 2)
    rho = check_between(rho, "rho", -1 / (n - 1), 1)
    beta, eta = check_finite(beta, "beta"), check_nonnegative(eta, "eta")
    return np.asarray(1 - _gap_step(1 - rho, n, beta, eta))


def cosine_post_ln(rho0: Number, *, steps: int, n: int, beta: Number, eta: Number) -> np.ndarray:
    """Common cosine through a stack of Post-LN layers.

    Args:
        rho0: Cosine before the first layer, in [-1/(n-1), 1].
        steps: Number of layers, >= 0.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign.
        eta: Step, >= 0.

    Returns:
        Cosines, shape (steps + 1,), `rho0` first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `post_ln_step`.
    """
    check_count(n, "n", 2)
    check_count(steps, "steps", 0)
    rho0 = check_between(rho0, "rho0", -1 / (n - 1), 1)
    beta, eta = check_finite(beta, "beta"), check_nonnegative(eta, "eta")
    gaps = [1 - rho0]
    for _ in range(steps):
        gaps.append(_gap_step(gaps[-1], n, beta, eta))
    return 1 - np.array(gaps)


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
        `post_ln_step` iterated from rho = 0.
    """
    check_count(n, "n", 2)
    check_count(max_steps, "max_steps", 1)
    beta, eta = check_nonnegative(beta, "beta"), check_positive(eta, "eta")
    delta = check_finite(delta, "delta")
    check((delta > 0) & (delta < 1), "delta", "lie strictly between 0 and 1", delta)
    gap, layers = np.ones_like(beta), np.full_like(beta, np.inf)
    for layer in range(1, max_steps + 1):
        gap = _gap_step(gap, n, beta, eta)
        layers = np.where((gap <= delta) & np.isinf(layers), layer, layers)
        if np.isfinite(layers).all():
            break
    return np.asarray(eta * layers)


def _gap_step(gap: Number, n: int, beta: Number, eta: Number) -> np.ndarray:
    """1 - rho after one layer, gap (1 + eta contrast)^2 / |x + eta A|^2: exact relative to itself."""
    fade = np.exp(-np.abs(beta * gap))
    attracts = beta * gap >= 0
    own, other = np.where(attracts, 1.0, fade), np.where(attracts, fade, 1.0)
    z = own + (n - 1) * other
    contrast, other = (own - other) / z, other / z  # weight on itself over the others'; on another
    total = 1 + (n - 1) * (1 - gap)
    along = contrast + other * total
    square = contrast**2 + 2 * contrast * other * total + other**2 * n * total
    return np.asarray(gap * (1 + eta * contrast) ** 2 / (1 + 2 * eta * along + eta**2 * square))
