r"""Velocities in difference form: relative to their own size, exact to rounding at any speed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PAIRS = 2**21
"""Pairs held at a time."""


class Pull(NamedTuple):
    r"""What moves each token: its velocity is `direction` times $e^{\text{log\_scale}}$.

    Attributes:
        direction: Tangent vectors of the size of the distances, shape (n, d).
        log_scale: Shape (n,); -inf for a token that nothing pulls.
        log_others: $\log\sum_{j\ne i} w_j e^{-\beta q_{ij}}$, shape (n,).
        tension: Bound on the sum of the sizes of the terms of `direction`, shape (n,).
    """

    direction: Float[Array, "n d"]
    log_scale: Float[Array, " n"]
    log_others: Float[Array, " n"]
    tension: Float[Array, " n"]

    def log_speed(self) -> Float[Array, ""]:
        """Logarithm of the Euclidean norm of all velocities together."""
        logs = self.log_scale + jnp.log(jnp.linalg.norm(self.direction, axis=1))
        top = logs.max()
        shift = jnp.where(jnp.isfinite(top), top, 0.0)
        return shift + 0.5 * jnp.log(jnp.exp(2 * (logs - shift)).sum())


def pull(
    x: Float[Array, "n d"],
    log_w: Float[Array, " n"],
    beta: Float[Array, ""],
    softmax: bool | Bool[Array, ""],
    *,
    products: bool = False,
) -> Pull:
    r"""Pull on every token, $\sum_{j\ne i} a_{ij}(x_j - x_i + q_{ij} x_i)$, $q_{ij} = |x_i - x_j|^2/2$.

    For unit tokens this is $\sum_j a_{ij} P_{x_i} x_j$ without the self term and without the
    cancellation of $y - \langle x, y\rangle x$. Unnormalised weights are
    $a_{ij} = w_j e^{-\beta q_{ij}}$ (the rescaled clock), softmax divides by
    $w_i + \sum_{j\ne i} w_j e^{-\beta q_{ij}}$. O(n^2 d) time, O(n d block) memory.

    Args:
        x: Unit tokens, shape (n, d).
        log_w: Logarithms of the weights, shape (n,); -inf leaves a token out.
        beta: Inverse temperature, >= 0.
        softmax: SA if true, else USA in its rescaled clock.
        products: Sum the products by matrix multiplication and subtract, which is faster for large
            d and errs by rounding over the distance to the nearest token.
    """
    alive = jnp.isfinite(log_w)
    columns, slots = x.T, jnp.arange(len(x))

    def rows(own):
        gaps = columns[:, :, None] - columns[:, None, own]  # nothing is computed if unused
        q = 1 - x @ columns[:, own] if products else (gaps * gaps).sum(axis=0) / 2
        seen = alive[:, None] & (slots[:, None] != own[None, :])
        scores = jnp.where(seen, log_w[:, None] - beta * q, -jnp.inf)
        top = scores.max(axis=0)
        shift = jnp.where(jnp.isfinite(top), top, 0.0)
        e = jnp.exp(scores - shift)
        direction = columns @ e if products else (e[None] * gaps).sum(axis=1)
        total = e.sum(axis=0)
        spread = total if products else 2 * (e * q).sum(axis=0)
        return direction.T, shift, total, jnp.sqrt(total * spread)

    direction, shift, total, tension = _by_rows(rows, len(x))
    direction = direction - x * (direction * x).sum(axis=1, keepdims=True)
    some = alive & (total > 0)
    log_others = jnp.where(some, shift + jnp.log(jnp.where(some, total, 1.0)), -jnp.inf)
    log_z = jnp.logaddexp(jnp.where(alive, log_w, 0.0), log_others)
    log_scale = jnp.where(some, shift - jnp.where(softmax, log_z, 0.0), -jnp.inf)
    return Pull(direction, log_scale, log_others, tension)


def neighbours(
    x: Float[Array, "n d"],
    log_w: Float[Array, " n"],
    group: Int[Array, " n"] | None = None,
    *,
    products: bool = False,
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Chord distance of each token to its nearest, inf if there is none, and which that is.

    With `group`, the nearest of another group.
    """
    alive, columns = jnp.isfinite(log_w), x.T
    label = jnp.arange(len(x)) if group is None else group

    def rows(own):
        if products:
            squares = jnp.maximum(2 - 2 * (x @ columns[:, own]), 0.0)
        else:
            squares = ((columns[:, :, None] - columns[:, None, own]) ** 2).sum(axis=0)
        seen = alive[:, None] & alive[None, own] & (label[:, None] != label[None, own])
        squares = jnp.where(seen, squares, jnp.inf)
        return squares.min(axis=0), squares.argmin(axis=0)

    squares, nearest = _by_rows(rows, len(x))
    if products:
        exact = ((x - x[nearest]) ** 2).sum(axis=1)
        squares = jnp.where(jnp.isfinite(squares), exact, jnp.inf)
    return jnp.sqrt(squares), nearest


def _by_rows(rows, n: int):
    """Function of token numbers, called with blocks of them."""
    block = max(1, min(n, PAIRS // n))
    if n % block:
        block = n
    if block == n:
        return rows(jnp.arange(n))
    parts = jax.lax.map(rows, jnp.arange(n).reshape(-1, block))
    return jax.tree.map(lambda part: part.reshape(n, *part.shape[2:]), parts)
