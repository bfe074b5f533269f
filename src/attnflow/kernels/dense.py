"""Exact kernel sum over all pairs of tokens, blocked over rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SCORES_PER_BLOCK = 2**19


def dense(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    v: Float[Array, "m p"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " m"] | None = None,
    mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
    block: int | None = None,
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    r"""Softmax mean of v and log-partition of the scores $\beta \langle q_i, k_j\rangle$.

    $Z_i = \sum_j w_j e^{\beta\langle q_i, k_j\rangle}$ and
    mean$_i = Z_i^{-1} \sum_j w_j e^{\beta\langle q_i, k_j\rangle} v_j$.
    Sums are shifted by the largest score of the row, so no beta overflows. A row that sees no token
    has mean 0 and log Z = -inf, with zero gradients.
    Exact; O(n m (d + p)) time, O((n + m)(d + p) + block m) memory, in gradients too.

    Args:
        q: Queries, shape (n, d).
        k: Keys, shape (m, d).
        v: Values, shape (m, p). With p = 0 only log Z is computed.
        beta: Inverse temperature, any finite sign; may be traced.
        weights: Weight of each token, shape (m,), >= 0. One each by default.
        mask: Pairs that count: a function (i, j) -> bool of index arrays that broadcast, or an
            array of shape (n, m). A function is compiled once per object.
        block: Rows summed at a time; by default from n and m.

    Returns:
        Means, shape (n, p), and log Z, shape (n,).
    """
    beta = jnp.asarray(beta, jnp.result_type(q, k))
    if callable(mask):
        return _dense(q, k, v, beta, weights, None, mask, block)
    return _dense(q, k, v, beta, weights, mask, None, block)


@partial(jax.jit, static_argnames=("sees", "block"))
def _dense(q, k, v, beta, weights, seen, sees, block):
    n, m = len(q), len(k)
    block = block or max(1, SCORES_PER_BLOCK // max(m, 1))
    rows = (jnp.arange(n), q) if seen is None else (jnp.arange(n), q, seen)
    if block >= n:
        return _rows(rows, k, v, beta, weights, sees)
    blocks = -(-n // block)
    size = -(-n // blocks)

    def split(a):
        padded = jnp.pad(a, [(0, blocks * size - n)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(blocks, size, *a.shape[1:])

    body = jax.checkpoint(lambda rows: _rows(rows, k, v, beta, weights, sees))
    mean, log_z = jax.lax.map(body, jax.tree.map(split, rows))
    return mean.reshape(blocks * size, v.shape[1])[:n], log_z.reshape(-1)[:n]


def _rows(rows, k, v, beta, weights, sees):
    """Kernel sum of some rows, (indices, queries) or (indices, queries, mask), over all tokens."""
    i, q, *seen = rows
    highest = jax.lax.Precision.HIGHEST
    scores = jnp.matmul(beta * q, k.T, precision=highest)
    if weights is not None:
        positive = weights > 0
        log_w = jnp.where(positive, jnp.log(jnp.where(positive, weights, 1)), -jnp.inf)
        scores += log_w[None, :]
    if sees is not None:
        seen = [sees(i[:, None], jnp.arange(len(k))[None, :])]
    if seen:
        scores = jnp.where(seen[0], scores, -jnp.inf)
    top = jax.lax.stop_gradient(scores.max(axis=1, initial=-jnp.inf))
    shift = jnp.where(jnp.isfinite(top), top, 0)
    e = jnp.exp(scores - shift[:, None])
    z = e.sum(axis=1)
    some = jnp.where(z > 0, z, 1)
    mean = jnp.matmul(e, v, precision=highest) / some[:, None]
    return mean, jnp.where(z > 0, jnp.log(some) + shift, -jnp.inf)
