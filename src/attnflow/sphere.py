"""The unit sphere S^(d-1): its geometry, and tokens to start from."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.linalg import helmert
from scipy.optimize import nnls

from attnflow.errors import (
    check_between,
    check_count,
    check_finite,
    check_memory,
    check_shape,
    check_tokens,
    concrete,
)

# ---------------------------------------------------------------------------------------- geometry


def normalize(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Unit vectors x / |x| along the last axis."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def project(x: Float[Array, "... d"], v: Float[Array, "... d"]) -> Float[Array, "... d"]:
    r"""Tangential part $P_x v = v - \langle x, v\rangle x$ at unit vectors x."""
    return v - jnp.sum(x * v, axis=-1, keepdims=True) * x


def distance(x: Float[Array, "... d"], y: Float[Array, "... d"]) -> Float[Array, "..."]:
    r"""Geodesic distance, the angle in [0, pi] between unit vectors, in radians.

    $2\arctan(|x - y| / |x + y|)$: exact to rounding for near and for antipodal vectors, where
    arccos loses half of the digits.
    """
    return 2 * jnp.arctan2(_norm(x - y), _norm(x + y))


def exp(x: Float[Array, "... d"], v: Float[Array, "... d"]) -> Float[Array, "... d"]:
    r"""Point $\cos|v|\,x + \sin|v|\,v/|v|$ reached from x along the tangent vector v."""
    angle = _norm(v)[..., None]
    return jnp.cos(angle) * x + jnp.sinc(angle / jnp.pi) * v


def log(x: Float[Array, "... d"], y: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Tangent vector at x that `exp` takes to y; its length is `distance(x, y)`.

    Antipodal vectors have no unique direction: the result is then 0.
    """
    tangent = project(x, y - x)
    length = _norm(tangent)[..., None]
    scale = jnp.where(length > 0, distance(x, y)[..., None] / jnp.where(length > 0, length, 1), 0)
    return scale * tangent


def _norm(x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Euclidean length with gradient 0 at 0."""
    square = jnp.sum(x * x, axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def span(x: Float[Array, "n d"]) -> tuple[Float[Array, "n r"], Float[Array, "r d"]]:
    """Coordinates of n tokens in an orthonormal basis of a subspace that holds them.

    r = min(n, d); `coordinates @ basis` is x, and coordinates have the inner products of x to
    rounding. Cost O(n^2 d). Differentiable where the tokens are linearly independent.
    """
    basis, upper = jnp.linalg.qr(x.T)
    return upper.T, basis.T


# ------------------------------------------------------------------------------------------ starts


def uniform(key: PRNGKeyArray, n: int, d: int) -> Float[Array, "n d"]:
    """Independent uniform tokens on the sphere S^(d-1)."""
    _check_size(n, d)
    return normalize(jr.normal(key, (n, d)))


def hemisphere(key: PRNGKeyArray, n: int, d: int) -> Float[Array, "n d"]:
    """Independent uniform tokens on the open hemisphere x[0] > 0."""
    x = uniform(key, n, d)
    return x.at[:, 0].set(jnp.maximum(jnp.abs(x[:, 0]), jnp.finfo(x.dtype).tiny))


def vmf(
    key: PRNGKeyArray,
    n: int,
    d: int,
    *,
    concentration: float,
    mean: Float[Array, " d"] | None = None,
) -> Float[Array, "n d"]:
    r"""Independent von Mises-Fisher tokens, density $\propto e^{c\langle x, \text{mean}\rangle}$.

    Exact, by rejection; expected number of trials below 2 for every d and concentration.

    Args:
        key: PRNG key.
        n: Number of tokens.
        d: Dimension, >= 2.
        concentration: c >= 0; 0 is uniform.
        mean: Mean direction, unit vector, shape (d,). First axis by default.

    Source:
        Wood, "Simulation of the von Mises Fisher distribution" (1994), algorithm VM.
    """
    _check_size(n, d)
    check_shape(concentration, "concentration", ())
    check_finite(concentration, "concentration")
    check_between(concentration, "concentration", low=0.0)
    key_height, key_tangent = jr.split(key)
    height, width = _vmf_heights(key_height, n, d, jnp.asarray(concentration, float))
    tangent = normalize(jr.normal(key_tangent, (n, d - 1)))
    x = jnp.concatenate([height[:, None], width[:, None] * tangent], axis=1)
    if mean is None:
        return x
    check_shape(mean, "mean", (d,))
    check_tokens(mean[None], "mean")
    # Householder reflection that swaps the first axis and the mean.
    axis = mean.at[0].add(-1.0)
    square = axis @ axis
    factor = jnp.where(square > 0, 2 / jnp.where(square > 0, square, 1), 0)
    return normalize(x - factor * jnp.outer(x @ axis, axis))


@partial(jax.jit, static_argnames=("n", "d"))
def _vmf_heights(
    key, n: int, d: int, c: Float[Array, ""]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    r"""Draw $t = \langle x, \text{mean}\rangle$, density $e^{ct} (1 - t^2)^{(d-3)/2}$; and $\sqrt{1 - t^2}$.

    The proposal z is Beta((d - 1)/2, (d - 1)/2), as (1 + u)/2 for a coordinate u of a uniform
    token. With $D = (1-z) + bz$, $1 - t = 2bz/D$ and $1 + t = 2(1-z)/D$: every
    difference is written out, so that digits survive $c \gg 1$ in float32.
    """
    b = (d - 1) / (2 * c + jnp.sqrt(4 * c**2 + (d - 1) ** 2))

    def propose(state):
        key, z, done = state
        key, key_token, key_accept = jr.split(key, 3)
        new = (1 + uniform(key_token, n, d)[:, 0]) / 2
        denominator = (1 - new) + b * new
        log_ratio = 2 * b * c * (1 - 2 * new) / ((1 + b) * denominator)
        log_ratio += (d - 1) * jnp.log((1 + b) / (2 * denominator))
        accept = jnp.log(jr.uniform(key_accept, (n,))) <= log_ratio
        return key, jnp.where(done, z, new), done | accept

    start = (key, jnp.zeros(n), jnp.zeros(n, bool))
    z = jax.lax.while_loop(lambda state: ~state[2].all(), propose, start)[1]
    denominator = (1 - z) + b * z
    return 1 - 2 * b * z / denominator, 2 * jnp.sqrt(b * z * (1 - z)) / denominator


def equiangular(
    n: int, rho: float | Float[Array, ""], *, d: int | None = None
) -> Float[Array, "n d"]:
    r"""N unit vectors with one common cosine rho: the symmetric root of $(1-\rho)I + \rho 11^T$.

    Args:
        n: Number of tokens.
        rho: Common cosine in [-1/(n-1), 1]; -1/(n-1) is the regular simplex. May be traced.
        d: Dimension, >= n (>= n - 1 for the simplex); n by default, zeros appended beyond.
    """
    check_count(n, "n")
    _check_room(n, n)
    lowest = -1 / (n - 1) if n > 1 else -1.0
    check_shape(rho, "rho", ())
    check_between(
        rho, "rho", lowest * (1 + 1e-12), 1.0, remedy="No n vectors have that common cosine."
    )
    rho = jnp.asarray(rho, float)
    common = jnp.sqrt(jnp.maximum(1 + (n - 1) * rho, 0))
    apart = jnp.sqrt(1 - rho)
    x = apart * jnp.eye(n) + (common - apart) / n
    if d is None:
        d = max(n, 2)
    if d == n - 1 and d > 1 and concrete(rho) and rho <= lowest * (1 - 1e-12):
        return normalize(x @ jnp.asarray(helmert(n)).T)
    check_count(d, "d", low=max(n, 2))
    _check_room(n, d)
    return normalize(jnp.pad(x, [(0, 0), (0, d - n)]))


def clusters(key: PRNGKeyArray, n: int, d: int, *, k: int, spread: float) -> Float[Array, "n d"]:
    """Tokens in k clusters: token i sits near centre i mod k.

    Centres are uniform; a token is the exponential map of a tangent Gaussian at its centre.

    Args:
        key: PRNG key.
        n: Number of tokens.
        d: Dimension, >= 2.
        k: Number of clusters, 1 <= k.
        spread: Standard deviation of each tangent coordinate, in radians, in [0, 100].
    """
    _check_size(n, d)
    check_count(k, "k")
    check_shape(spread, "spread", ())
    check_finite(spread, "spread")
    check_between(spread, "spread", 0.0, 100.0)
    key_centre, key_token = jr.split(key)
    centre = uniform(key_centre, k, d)[jnp.arange(n) % k]
    return exp(centre, spread * project(centre, jr.normal(key_token, (n, d))))


def polygon(n: int, d: int = 2) -> Float[Array, "n d"]:
    """Regular n-gon on the great circle of the first two axes: stationary for SA and USA."""
    _check_size(n, d)
    angle = 2 * jnp.pi * jnp.arange(n) / n
    x = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return jnp.pad(x, [(0, 0), (0, d - 2)])


def circle(angles: Float[Array, " n"]) -> Float[Array, "n 2"]:
    """Tokens on the circle at the given angles, in radians."""
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def _check_size(n: int, d: int) -> None:
    check_count(n, "n")
    check_count(d, "d", low=2)
    _check_room(n, d)


def _check_room(n: int, d: int) -> None:
    check_memory(32 * n * d, f"Drawing {n} tokens in {d} dimensions")


# -------------------------------------------------------------------------------------- hemisphere


class Hemisphere(NamedTuple):
    """Answer of `hemisphere_test`, with the numbers that prove it.

    Attributes:
        inside: Whether some w has <x_i, w> > 0 for every token.
        direction: The unit vector w of largest margin, shape (d,); zeros if there is none.
        margin: min_i <x_i, w>, the largest possible; 0 if there is none.
        combination: Convex weights lambda, shape (n,), whose sum p = sum_i lambda_i x_i is the
            point of the convex hull nearest to the origin. If `inside` is false, p = 0 (to
            `residual`) proves that no w exists: <p, w> would be positive.
        residual: |p|. No direction can have a margin above it.
    """

    inside: bool
    direction: Float[np.ndarray, " d"]
    margin: float
    combination: Float[np.ndarray, " n"]
    residual: float


def hemisphere_test(x: Float[Array, "n d"] | Float[np.ndarray, "n d"]) -> Hemisphere:
    r"""Whether all tokens lie in an open hemisphere, with an exact certificate either way.

    Finds the point $p$ of least norm of the convex hull of the tokens. If $p \ne 0$ then
    $w = p/|p|$ has $\min_i \langle x_i, w\rangle = |p|$, and no direction does better; if $p = 0$
    the tokens balance and no hemisphere holds them. Margins below 1e-12 count as 0.
    Solved by non-negative least squares of $\sum \lambda_i x_i = 0, \sum \lambda_i = 1$, whose
    solution is proportional to the wanted $\lambda$. Active set: typically O(n d^2).

    Args:
        x: Unit vectors, shape (n, d).

    Source:
        Wolfe, "Finding the nearest point in a polytope" (1976); hypothesis of Geshkovski,
        Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers" (2025), Sec. 6.
    """
    check_tokens(x)
    tokens = np.asarray(x, dtype=float)
    system = np.vstack([tokens.T, np.ones(len(tokens))])
    target = np.append(np.zeros(tokens.shape[1]), 1.0)
    combination, _ = nnls(system, target, maxiter=10 * len(tokens) + 1000)
    active = combination > 0
    exact = np.linalg.lstsq(system[:, active], target)[0]  # nnls squares the condition number
    if (exact >= 0).all():
        combination[active] = exact
    combination /= combination.sum()
    point = combination @ tokens
    residual = float(np.linalg.norm(point))
    # All active tokens have one cosine with p: the same direction without the cancellation in p.
    level = np.linalg.lstsq(tokens[active], np.ones(active.sum()))[0]
    direction = max(map(_unit, (point, level)), key=lambda w: np.min(tokens @ w))
    margin = float(np.min(tokens @ direction))
    if margin > 1e-12:
        return Hemisphere(True, direction, margin, combination, residual)
    return Hemisphere(False, np.zeros(tokens.shape[1]), 0.0, combination, residual)


def _unit(w: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    length = np.linalg.norm(w)
    return w / length if length > 0 else w


def in_cap(x: Float[Array, "n d"], w: Float[Array, " d"], cosine: float) -> Bool[Array, ""]:
    """Whether all tokens lie in the cap <x_i, w> >= cosine."""
    return jnp.all(x @ w >= cosine)
