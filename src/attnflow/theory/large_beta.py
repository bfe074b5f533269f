r"""Large beta: partial differential equations of the density, and the alignment of tokens by Q, K, V before that.

Attention of inverse temperature beta reaches as far as $\beta^{-1/2}$ on the sphere $S^{d-1}$. By Laplace's method
$\int e^{\beta\langle x,y\rangle}\mu(y)\,dy = \beta c_\beta(\mu(x) + O(1/\beta))$, $\mu$ a density per surface,
$c_\beta = e^\beta(2\pi/\beta)^{(d-1)/2}/\beta$. With Q = K = I and V = v I tokens climb, if v > 0, a gradient:

- (SA) $\dot x = \frac v\beta\nabla\log\mu$, so $\partial_t\mu = -\frac v\beta\Delta\mu$: heat, backward for v > 0;
- (USA) $\dot x = v c_\beta\nabla\mu$, so $\partial_t\mu = -\frac{v c_\beta}2\Delta\mu^2$: porous medium, backward too.

With general Q, K, V tokens first move by themselves, $\dot x = P_xVu$ with $u = K^\top Qx/|K^\top Qx|$.
"""

from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import schur
from scipy.special import gammaln

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
    check_shape,
    check_times,
    check_weights,
    one,
)
from attnflow.theory.hemisphere import check_tokens
from attnflow.theory.stability import CLOCKS, MODELS

RTOL, ATOL = 1e-12, 1e-13
EIGENVALUE_TOL = 1e-8
"""Real parts of eigenvalues closer than this, relative to the matrix, count as equal."""


def porous_constant(beta: Numbers, *, d: int, clock: str = "physical") -> np.ndarray:
    r"""Constant of the porous medium equation of (USA), $c_\beta = e^\beta(2\pi/\beta)^{(d-1)/2}/\beta$.

    Args:
        beta: Inverse temperature, > 0, any shape.
        d: Dimension of the ambient space, >= 2.
        clock: "physical", or "rescaled" by e^(-beta), which stays finite beyond beta = 709.

    Returns:
        c, the shape of `beta`; inf or 0 where it leaves the range of floats.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Laplace's method; Bruno, Pasqualotto, Agazzi, "A multiscale analysis of mean-field transformers in the
        moderate interaction regime" (2025), where the equation misses its minus.
    """
    check_count(d, "d", 2)
    check_choice(clock, "clock", CLOCKS)
    beta = check_positive(beta, "beta")
    log_size = (d - 1) / 2 * np.log(2 * np.pi / beta) - np.log(beta)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(log_size + (beta if clock == "physical" else 0)))


def limit_rates(
    l: Numbers,  # noqa: E741
    *,
    beta: Numbers,
    d: int,
    model: str = "sa",
    value: Number = 1.0,
    clock: str = "physical",
) -> np.ndarray:
    r"""Growth rate of spherical harmonics of degree l on the uniform density, to leading order in 1/beta.

    $v\,l(l+d-2)/\beta$ (SA), and $v\,c_\beta\,l(l+d-2)/|S^{d-1}|$ (USA), $|S^{d-1}| = 2\pi^{d/2}/\Gamma(d/2)$.
    Relative error $l(l+d-2)/2\beta$ for SA and $O(l^2/\beta)$ for USA: `stability.growth_rates` are exact.

    Args:
        l: Degrees, >= 0, any shape.
        beta: Inverse temperature, > 0, any shape that broadcasts with `l`.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".
        value: v, of any sign.
        clock: Of USA, as for `porous_constant`.

    Returns:
        Rates per unit time, of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `porous_constant`; linearised at the uniform density.
    """
    check_choice(model, "model", MODELS)
    check_choice(clock, "clock", CLOCKS)
    check_count(d, "d", 2)
    degree, value = np.asarray(l), check_finite(value, "value")
    check(degree.dtype.kind in "iu", "l", "hold whole numbers", degree)
    check(degree >= 0, "l", "be >= 0", degree)
    beta = check_positive(beta, "beta")
    bend = value * degree * (degree + d - 2.0)
    if model == "sa":
        return np.asarray(bend / beta)
    density = np.exp(gammaln(d / 2) - np.log(2) - d / 2 * np.log(np.pi))
    return np.asarray(porous_constant(beta, d=d, clock=clock) * density * bend)


def limit_velocity(
    density: Numbers,
    gradient: Numbers,
    *,
    beta: Number,
    model: str = "sa",
    value: Number = 1.0,
    clock: str = "physical",
) -> np.ndarray:
    r"""Velocity of tokens in a smooth density, to leading order in 1/beta.

    $\frac v\beta\nabla\log\mu$ (SA), and $vc_\beta\nabla\mu$ (USA). Relative error O(1/beta), with
    the second derivatives of the density.

    Args:
        density: $\mu$ per surface of the sphere, > 0, shape (n,).
        gradient: $\nabla\mu$ along the sphere, as vectors of the ambient space, shape (n, d), d >= 2.
        beta: Inverse temperature, > 0.
        model: "sa" or "usa".
        value: v, of any sign.
        clock: Of USA, as for `porous_constant`.

    Returns:
        Velocities, shape (n, d).

    Raises:
        ValueError: If an argument is out of range, or shapes do not match.

    Source:
        See `porous_constant`.
    """
    check_choice(model, "model", MODELS)
    density, gradient = check_positive(density, "density"), check_finite(gradient, "gradient")
    check_shape(gradient, "gradient", (*density.shape, (gradient.shape or (1,))[-1]))
    value, beta = check_finite(value, "value"), check_positive(beta, "beta")
    if model == "sa":
        check_choice(clock, "clock", CLOCKS)
        return np.asarray(value * gradient / (beta * density[..., None]))
    return value * porous_constant(beta, d=gradient.shape[-1], clock=clock) * gradient


def heat_modes(
    ts: Numbers, modes: Numbers, *, beta: Number, d: int, value: Number = 1.0
) -> np.ndarray:
    r"""Coefficients of a density in spherical harmonics under the limit of (SA), $c_l(t) = c_l(0)e^{vl(l+d-2)t/\beta}$.

    Exact for the heat equation. For v > 0, backward, it keeps to the heat of the tokens only as long as the modes
    beyond $\sqrt\beta$, which grow by at most $e^{2t/e}$ under attention, are negligible.

    Args:
        ts: Times, increasing, shape (t,). ts[0] is the time of `modes`.
        modes: Coefficients of degrees 0, 1, ..., real or complex, shape (l,).
        beta: Inverse temperature, > 0.
        d: Dimension of the ambient space, >= 2.
        value: v, of any sign.

    Returns:
        Coefficients, shape (t, l).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Bruno, Pasqualotto, Agazzi (2025), second phase.
    """
    ts, modes = check_times(ts), np.asarray(modes)
    check(modes.ndim == 1 and np.isfinite(modes).all(), "modes", "be a finite list", modes)
    rates = limit_rates(np.arange(len(modes)), beta=beta, d=d, value=value)
    return modes * np.exp(np.outer(ts - ts[0], rates))


def heat_mixture(
    theta: Numbers,
    t: Number,
    *,
    weights: Numbers,
    means: Numbers,
    variances: Numbers,
    beta: Number,
    value: Number = 1.0,
) -> np.ndarray:
    r"""Mixture of heat kernels on the circle under the limit of (SA): variances go to $s_j - 2vt/\beta$.

    $\mu(\theta,t) = \sum_j\alpha_j\,N(\theta; m_j, s_j - 2vt/\beta)$, N the wrapped normal density. Exact for the heat
    equation. For v > 0, backward, it exists until the first variance is used up, at $t = \beta\min s_j/2v$.

    Args:
        theta: Angles, any shape.
        t: Time since the start, >= 0.
        weights: alpha, > 0, sum 1, shape (k,).
        means: m, angles, shape (k,).
        variances: s at the start, > 0, shape (k,).
        beta: Inverse temperature, > 0.
        value: v, of any sign.

    Returns:
        Density per angle, the shape of `theta`.

    Raises:
        ValueError: If an argument is out of range, or t reaches the end.

    Source:
        Bruno, Pasqualotto, Agazzi (2025), second phase.
    """
    theta, means = check_finite(theta, "theta"), check_finite(means, "means")
    weights, variances = check_positive(weights, "weights"), check_positive(variances, "variances")
    check(means.ndim == 1, "means", "be a list", means)
    for array, name in ((weights, "weights"), (variances, "variances")):
        check_shape(array, name, means.shape)
    check(abs(weights.sum() - 1) <= 1e-9, "weights", "sum to 1", weights, "Divide by their sum.")
    t, value = one(check_nonnegative, t, "t"), one(check_finite, value, "value")
    speed = 2 * value / one(check_positive, beta, "beta")
    if speed * t >= variances.min():
        end = variances.min() / speed
        raise ValueError(
            f"Argument `t` must come before the first variance is used up at t={end:.6g}, but t={t:g}."
        )
    spread = variances - speed * t
    turns = int(np.ceil(10 * np.sqrt(spread.max()) / (2 * np.pi))) + 1
    offset = np.mod(theta[..., None] - means + np.pi, 2 * np.pi) - np.pi
    images = offset[..., None] + 2 * np.pi * np.arange(-turns, turns + 1)
    kernels = np.exp(-(images**2) / (2 * spread[:, None])).sum(axis=-1)
    return np.asarray(kernels / np.sqrt(2 * np.pi * spread) @ weights)


def alignment_velocity(
    x: Numbers, *, query: Numbers = 1.0, key: Numbers = 1.0, value: Numbers = 1.0
) -> np.ndarray:
    r"""Velocity of tokens in any positive density as beta goes to infinity, $P_xVu$, $u = K^\top Qx/|K^\top Qx|$.

    A token sees the point u that maximises $\langle Qx,Ky\rangle$. Relative error O(1/beta); in the uniform density
    the length of what it sees is $I_{d/2}/I_{d/2-1}$ at $\beta|K^\top Qx|$ for 1, exactly.

    Args:
        x: Unit vectors, shape (n, d).
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).

    Returns:
        Velocities, shape (n, d).

    Raises:
        ValueError: If an argument is out of range, shapes do not match, or K^T Q is singular.

    Source:
        Bruno, Pasqualotto, Agazzi (2025), first phase.
    """
    x = check_tokens(x)
    return _align(x, *_alignment(query, key, value, x.shape[1]))


def alignment_path(
    ts: Numbers, x0: Numbers, *, query: Numbers = 1.0, key: Numbers = 1.0, value: Numbers = 1.0
) -> np.ndarray:
    r"""Tokens along $\dot x = P_xVu$: directions of $\dot z = VK^\top Qz$, each in a time of its own.

    Relative error about 1e-11. A good guide to attention at beta for times O(1), while the density at u is not small.

    Args:
        ts: Times, increasing, shape (t,). ts[0] is the time of `x0`.
        x0: Unit vectors, shape (n, d).
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).

    Returns:
        Unit vectors, shape (t, n, d).

    Raises:
        ValueError: If an argument is out of range, shapes do not match, or K^T Q is singular.

    Source:
        See `alignment_velocity`.
    """
    ts, x0 = check_times(ts), check_tokens(x0)
    aim, value = _alignment(query, key, value, x0.shape[1])

    def rhs(t, y):
        x = y.reshape(x0.shape)
        return _align(x / np.linalg.norm(x, axis=1, keepdims=True), aim, value).ravel()

    xs = [x0]
    for start, end in pairwise(ts):
        leg = solve_ivp(rhs, (start, end), xs[-1].ravel(), method="DOP853", rtol=RTOL, atol=ATOL)
        x = leg.y[:, -1].reshape(x0.shape)
        xs.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    return np.array(xs)


def limit_directions(
    *, query: Numbers = 1.0, key: Numbers = 1.0, value: Numbers = 1.0, d: int
) -> np.ndarray:
    r"""Space E_max in which alignment ends: generalised eigenspace of $VK^\top Q$ of the largest real part.

    Almost every token goes to it, at the rate of the gap of real parts in the time of $\dot z = VK^\top Qz$. Real parts
    within 1e-8 of each other, relative to the matrix, count as equal.

    Args:
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).
        d: Dimension, >= 2.

    Returns:
        Orthonormal basis, shape (d, r).

    Raises:
        ValueError: If an argument is out of range, shapes do not match, or K^T Q is singular.

    Source:
        See `alignment_velocity`.
    """
    aim, value = _alignment(query, key, value, check_count(d, "d", 2))
    matrix = (value / (np.abs(value).max() or 1.0)) @ (aim / np.abs(aim).max())
    top = np.linalg.eigvals(matrix).real.max() - EIGENVALUE_TOL * np.linalg.norm(matrix)
    found = schur(matrix, output="real", sort=lambda real, imaginary: real >= top)
    return found[1][:, : found[2]]  # pyright: ignore[reportGeneralTypeIssues]


def _alignment(query, key, value, d: int) -> tuple[np.ndarray, np.ndarray]:
    """K^T Q, and V as a matrix."""
    q, k, v = check_weights(query, key, value, d)
    aim = k.T @ q
    check(
        np.linalg.matrix_rank(aim) == d,
        "query",
        "make K^T Q regular",
        q,
        "Some tokens aim nowhere.",
    )
    return aim, v


def _align(x: np.ndarray, aim: np.ndarray, value: np.ndarray) -> np.ndarray:
    u = x @ aim.T
    seen = u / np.linalg.norm(u, axis=1, keepdims=True) @ value.T
    return seen - (seen * x).sum(axis=1, keepdims=True) * x
