"""Mean shift, blurring and on a fixed density: attention as a mode seeker, on the sphere and in R^d."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attnflow.errors import (
    check_between,
    check_count,
    check_finite,
    check_shape,
    check_tokens,
    check_weights,
)
from attnflow.kernels import dense

ROWS_PER_BLOCK = 256
SCORES_PER_BLOCK = 2**21
TOLERANCES = {"float64": 1e-6, "float32": 1e-3}


class Ascent(NamedTuple):
    """Where queries end on a fixed density.

    Attributes:
        x: End points, shape (m, d): modes, to the tolerance, where `converged`.
        steps: Mean-shift steps each query took, shape (m,).
        converged: Whether the estimated distance to the mode came below the tolerance, shape (m,).
    """

    x: Float[Array, "m d"]
    steps: Int[Array, " m"]
    converged: Bool[Array, " m"]


# -------------------------------------------------------------------------------------- the sphere


def log_density(
    queries: Float[Array, "m d"],
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, " m"]:
    r"""Kernel density of tokens on the sphere, $\log \sum_j w_j e^{\beta(\langle q, x_j\rangle - 1)}$.

    In [-2 beta, 0]. Its Riemannian gradient is beta times the velocity of (SA) at q; on the sphere
    the kernel is Gaussian in the chord, $e^{-\beta|q - x_j|^2/2}$, of width $1/\sqrt\beta$.
    O(m n d) time, O(n block) memory.

    Args:
        queries: Unit vectors, shape (m, d).
        x: Unit tokens, shape (n, d).
        beta: Inverse squared width of the kernel, > 0.
        weights: Token weights, shape (n,), >= 0, sum 1; equal by default.
    """
    beta = _check(x, beta, weights, queries)
    queries, x = _as_floats(queries, x)
    return _sphere_sum(queries, x, x[:, :0], beta, weights)[1] - beta - _log_count(x, weights)


def blur(
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
    eta: float | Float[Array, ""] = math.inf,
    steps: int = 1,
) -> Float[Array, "n d"]:
    r"""Blurring mean shift on the sphere: all tokens move, $x_i \leftarrow N(x_i + \eta \sum_j A_{ij} x_j)$.

    eta = inf is mean shift proper, $x_i \leftarrow N(\sum_j A_{ij} x_j)$: attention without the
    residual, then normalisation. As eta falls to 0 a step becomes an Euler step eta of (SA).
    A token whose sum vanishes has no direction to go, and stays. O(steps n^2 d) time, O(n block)
    memory.

    Args:
        x: Unit tokens, shape (n, d).
        beta: Inverse temperature, > 0; the kernel has width $1/\sqrt\beta$.
        weights: Token weights, shape (n,), >= 0, sum 1; equal by default.
        eta: Size of the step against the residual, > 0.
        steps: Number of steps.

    Source:
        Cheng, "Mean shift, mode seeking, and clustering" (1995); Geshkovski et al., "A mathematical
        perspective on Transformers" (2025), who call log-density ascent and (SA) the same: they are,
        once time is counted in units of 1/beta.
    """
    beta = _check(x, beta, weights)
    eta = _check_steps(eta, steps)
    (x,) = _as_floats(x)
    return _blur(x, beta, weights, 1 / jnp.asarray(eta, x.dtype), steps, on_sphere=True)


def ascend(
    queries: Float[Array, "m d"],
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
    tol: float | None = None,
    max_steps: int = 10_000,
) -> Ascent:
    r"""Mean shift on a fixed density: queries climb $\sum_j w_j e^{\beta\langle q, x_j\rangle}$ to its modes.

    $q \leftarrow N(\sum_j \mathrm{softmax}_j(\beta\langle q, x_j\rangle) x_j)$ while the tokens stay.
    The log-density is convex in q before normalisation, so that no step lowers it, by more than its
    rounding. A query stops once its distance to the mode, taken as $s\,r/(1 - r)$ from the length s
    of the step and its ratio r to the one before, is below `tol`, or once steps drown in rounding.
    Queries do not know each other. O(steps m n d) time, O(n block) memory.

    Args:
        queries: Unit vectors, shape (m, d).
        x: Unit tokens, shape (n, d).
        beta: Inverse squared width of the kernel, > 0.
        weights: Token weights, shape (n,), >= 0, sum 1; equal by default.
        tol: Largest distance left to the mode, in kernel widths $1/\sqrt\beta$, > 0; 1e-6, or 1e-3
            in float32.
        max_steps: Largest number of steps, >= 1. Steps shorten by a constant factor each.

    Source:
        Kobayashi, Otsu, "Von Mises-Fisher mean shift for clustering on a hypersphere" (2010).
    """
    beta = _check(x, beta, weights, queries)
    return _climb_checked(queries, x, beta, weights, tol, max_steps, on_sphere=True)


# --------------------------------------------------------------------------------------------- R^d


def gaussian_log_density(
    queries: Float[Array, "m d"],
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, " m"]:
    r"""Kernel density of points in R^d, $\log \sum_j w_j e^{-\beta|q - x_j|^2/2}$, at most 0.

    With points of radius R about their mean its absolute error is of order $\beta R^2 \epsilon$.

    Args:
        queries: Points, shape (m, d).
        x: Points, shape (n, d).
        beta: Inverse squared width of the kernel, > 0.
        weights: Weights, shape (n,), >= 0, sum 1; equal by default.
    """
    beta = _check(x, beta, weights, queries, on_sphere=False)
    queries, x = _as_floats(queries, x)
    centre = x.mean(axis=0)
    queries, x = queries - centre[None, :], x - centre[None, :]
    log_z = _gaussian_sum(queries, x, x[:, :0], beta, weights)[1]
    return log_z - beta * jnp.sum(queries**2, axis=1) / 2 - _log_count(x, weights)


def gaussian_blur(
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
    eta: float | Float[Array, ""] = math.inf,
    steps: int = 1,
) -> Float[Array, "n d"]:
    r"""Blurring mean shift in R^d, $x_i \leftarrow \sum_j A_{ij} x_j$, $A_{ij} \propto w_j e^{-\beta|x_i - x_j|^2/2}$.

    One layer of "L2 attention". A Gaussian cloud of variance s^2 keeps its shape and shrinks by
    $s^2/(s^2 + h^2)$ a step, $h^2 = 1/\beta$: cubically once s < h. With finite eta the step is
    $(x_i + \eta\sum_j A_{ij}x_j)/(1 + \eta)$. Exponents carry an error of order $\beta R^2 \epsilon$
    for points of radius R about their mean. O(steps n^2 d) time, O(n block) memory.

    Args:
        x: Points, shape (n, d).
        beta: Inverse squared width of the kernel, > 0.
        weights: Weights, shape (n,), >= 0, sum 1; equal by default.
        eta: Size of the step against the residual, > 0.
        steps: Number of steps.

    Source:
        Cheng, "Mean shift, mode seeking, and clustering" (1995); Carreira-Perpiñán, "Fast
        nonparametric clustering with Gaussian blurring mean-shift" (2006).
    """
    beta = _check(x, beta, weights, on_sphere=False)
    eta = _check_steps(eta, steps)
    (x,) = _as_floats(x)
    return _blur(x, beta, weights, 1 / jnp.asarray(eta, x.dtype), steps, on_sphere=False)


def gaussian_ascend(
    queries: Float[Array, "m d"],
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " n"] | None = None,
    tol: float | None = None,
    max_steps: int = 10_000,
) -> Ascent:
    r"""Gaussian mean shift on a fixed density in R^d: queries climb $\sum_j w_j e^{-\beta|q - x_j|^2/2}$.

    $q \leftarrow \sum_j A_j(q) x_j$, expectation maximisation for the place of one point: no step
    lowers the density. Stops, costs and arguments are those of `ascend`.

    Args:
        queries: Points, shape (m, d).
        x: Points, shape (n, d).
        beta: Inverse squared width of the kernel, > 0.
        weights: Weights, shape (n,), >= 0, sum 1; equal by default.
        tol: Largest distance left to the mode, in kernel widths $1/\sqrt\beta$, > 0.
        max_steps: Largest number of steps, >= 1.

    Source:
        Carreira-Perpiñán, "Gaussian mean-shift is an EM algorithm" (2007).
    """
    beta = _check(x, beta, weights, queries, on_sphere=False)
    return _climb_checked(queries, x, beta, weights, tol, max_steps, on_sphere=False)


# -------------------------------------------------------------------------------------------- sums


def _sphere_sum(q, x, v, beta, weights):
    return dense(q, x, v, beta, weights=weights)


def _gaussian_sum(q, x, v, beta, weights):
    """Sums with scores beta (<q, x> - |x|^2/2), those of the Gaussian but for a term of q alone."""
    keys = jnp.concatenate([x, -jnp.sum(x**2, axis=1, keepdims=True) / 2], axis=1)
    one = jnp.ones((len(q), 1), q.dtype)
    return dense(jnp.concatenate([q, one], axis=1), keys, v, beta, weights=weights)


def _shift(q, x, beta, weights, residual, *, on_sphere):
    """One step, N(residual q + mean) or (residual q + mean) / (residual + 1)."""
    if not on_sphere:
        mean = _gaussian_sum(q, x, x, beta, weights)[0]
        return (residual * q + mean) / (residual + 1)
    moved = residual * q + _sphere_sum(q, x, x, beta, weights)[0]
    length = jnp.linalg.norm(moved, axis=1, keepdims=True)
    lost = length <= 4 * jnp.finfo(q.dtype).eps
    return jnp.where(lost, q, moved / jnp.where(lost, 1, length))


@partial(jax.jit, static_argnames="on_sphere")
def _blur(x, beta, weights, residual, steps, *, on_sphere):
    def step(_, x):
        centre = 0 * x[0] if on_sphere else x.mean(axis=0)
        x = x - centre[None, :]
        return _shift(x, x, beta, weights, residual, on_sphere=on_sphere) + centre[None, :]

    return jax.lax.fori_loop(0, steps, step, x)


def _climb_checked(queries, x, beta, weights, tol, max_steps, *, on_sphere):
    check_count(max_steps, "max_steps")
    if tol is not None:
        check_finite(tol, "tol")
        check_between(tol, "tol", low=0.0, open_low=True)
    queries, x = _as_floats(queries, x)
    tol = TOLERANCES.get(str(x.dtype), TOLERANCES["float32"]) if tol is None else tol
    return _climb(queries, x, beta, weights, tol, max_steps, on_sphere=on_sphere)


@partial(jax.jit, static_argnames="on_sphere")
def _climb(queries, x, beta, weights, tol, max_steps, *, on_sphere):
    """Ascent of blocks of queries, each block until its last query has arrived."""
    m, d = queries.shape
    centre = 0 * x[0] if on_sphere else x.mean(axis=0)
    queries, x = queries - centre[None, :], x - centre[None, :]
    width = 1 / jnp.sqrt(jnp.asarray(beta, x.dtype))
    radius = jnp.sqrt(jnp.sum(x**2, axis=1).max())
    rounding = 8 * jnp.finfo(x.dtype).eps * radius * (1 + radius / width)

    def climb(q):
        def moving(state):
            _, _, left, _, k = state
            return jnp.any(left > tol * width) & (k < max_steps)

        def step(state):
            q, before, left, steps, k = state
            new = _shift(q, x, beta, weights, 0.0, on_sphere=on_sphere)
            length = jnp.linalg.norm(new - q, axis=1)
            ratio = length / before
            ahead = jnp.where(ratio < 1, length * jnp.maximum(1, ratio / (1 - ratio)), jnp.inf)
            ahead = jnp.where(length <= rounding, 0, ahead)
            still = left > tol * width
            q = jnp.where(still[:, None], new, q)
            return q, length, jnp.where(still, ahead, left), steps + still, k + 1

        far = jnp.full(len(q), jnp.inf, q.dtype)
        start = (q, jnp.zeros_like(far), far, jnp.zeros(len(q), jnp.int32), 0)
        q, _, left, steps, _ = jax.lax.while_loop(moving, step, start)
        return q, steps, left <= tol * width

    block = min(m, ROWS_PER_BLOCK, max(1, SCORES_PER_BLOCK // len(x)))
    blocks = -(-m // block)
    padded = jnp.pad(queries, [(0, blocks * block - m), (0, 0)], mode="edge")
    ends, steps, converged = jax.lax.map(climb, padded.reshape(blocks, block, d))
    ends = ends.reshape(-1, d)[:m] + centre[None, :]
    return Ascent(ends, steps.reshape(-1)[:m], converged.reshape(-1)[:m])


# ------------------------------------------------------------------------------------------ checks


def _as_floats(*arrays):
    dtype = jnp.result_type(*arrays, float)
    return tuple(jnp.asarray(a, dtype) for a in arrays)


def _log_count(x, weights):
    return math.log(len(x)) if weights is None else 0.0


def _check(x, beta, weights, queries=None, *, on_sphere=True):
    """Refuse tokens, queries, beta or weights that define no density; beta, a float if it was an integer."""
    given = {"x": x} if queries is None else {"x": x, "queries": queries}
    for name, value in given.items():
        if on_sphere:
            check_tokens(value, name)
        else:
            _check_points(value, name)
    if queries is not None:
        check_shape(queries, "queries", (len(queries), x.shape[1]))
    check_shape(beta, "beta", ())
    check_finite(beta, "beta")
    check_between(beta, "beta", low=0.0, open_low=True)
    if weights is not None:
        check_weights(weights, len(x))
    return float(beta) if isinstance(beta, int) else beta


def _check_points(x, name):
    if jnp.ndim(x) != 2 or 0 in jnp.shape(x):
        raise ValueError(
            f"Argument `{name}` must have shape (n, d) with n >= 1 and d >= 1, "
            f"but {name}.shape={jnp.shape(x)}."
        )
    check_finite(x, name)


def _check_steps(eta, steps):
    check_shape(eta, "eta", ())
    check_between(eta, "eta", low=0.0, open_low=True)
    check_count(steps, "steps", low=0)
    return float(eta) if isinstance(eta, int) else eta
