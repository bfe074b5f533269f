r"""Velocities in difference form: relative to their own size, exact to rounding at any speed."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Pull(NamedTuple):
    r"""What moves each token: its velocity is `direction` times $e^{\text{log\_scale}}$.

    Attributes:
        direction: Tangent vectors of the size of the distances, shape (n, d).
        log_scale: Shape (n,); -inf for a token that nothing pulls.
        log_others: $\log\sum_{j\ne i} w_j e^{-\beta q_{ij}}$, shape (n,).
        tension: Sum of the sizes of the terms of `direction`, shape (n,).
        near: Chord distance to the nearest other token, shape (n,); inf if there is none.
        nearest: Which token that is, shape (n,).
    """

    direction: Float[Array, "n d"]
    log_scale: Float[Array, " n"]
    log_others: Float[Array, " n"]
    tension: Float[Array, " n"]
    near: Float[Array, " n"]
    nearest: Int[Array, " n"]

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
) -> Pull:
    r"""Pull on every token, $\sum_{j\ne i} a_{ij}(x_j - x_i + q_{ij} x_i)$, $q_{ij} = |x_i - x_j|^2/2$.

    For unit tokens this is $\sum_j a_{ij} P_{x_i} x_j$ without the self term and without the
    cancellation of $y - \langle x, y\rangle x$. Unnormalised weights are
    $a_{ij} = w_j e^{-\beta q_{ij}}$ (the rescaled clock), softmax divides by
    $w_i + \sum_{j\ne i} w_j e^{-\beta q_{ij}}$. O(n^2 d) time and memory.

    Args:
        x: Unit tokens, shape (n, d).
        log_w: Logarithms of the weights, shape (n,); -inf leaves a token out.
        beta: Inverse temperature, >= 0.
        softmax: SA if true, else USA in its rescaled clock.
    """
    columns = x.T
    differences = columns[:, None, :] - columns[:, :, None]
    squares = (differences * differences).sum(axis=0)
    alive = jnp.isfinite(log_w)
    seen = alive[None, :] & alive[:, None] & ~jnp.eye(len(x), dtype=bool)
    q = jnp.where(seen, squares / 2, jnp.inf)
    nearest = q.argmin(axis=1)
    scores = jnp.where(seen, log_w[None, :] - beta * squares / 2, -jnp.inf)
    top = scores.max(axis=1)
    some = jnp.isfinite(top)
    shift = jnp.where(some, top, 0.0)
    e = jnp.exp(scores - shift[:, None])
    direction = (e[None, :, :] * differences).sum(axis=2).T
    direction = direction - x * (direction * x).sum(axis=1, keepdims=True)
    log_others = jnp.where(some, shift + jnp.log(e.sum(axis=1)), -jnp.inf)
    log_z = jnp.logaddexp(jnp.where(alive, log_w, 0.0), log_others)
    log_scale = jnp.where(some, shift - jnp.where(softmax, log_z, 0.0), -jnp.inf)
    tension = (e * jnp.sqrt(squares)).sum(axis=1)
    near = jnp.sqrt(2 * q.min(axis=1))
    return Pull(direction, log_scale, log_others, tension, near, nearest)
