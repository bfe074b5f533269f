"""Kernel sum in blocks of rows, each over all tokens: the general path."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

ROWS_PER_BLOCK = 256
SCORES_PER_BLOCK = 2**21


@partial(jax.jit, static_argnames=("sees", "block"))
def by_rows(q, k, v, beta, weights, seen=None, *, sees=None, block=None):
    """Kernel sum, `block` rows at a time."""
    n, m = len(q), len(k)
    block = block or min(ROWS_PER_BLOCK, max(1, SCORES_PER_BLOCK // m))
    rows = (jnp.arange(n), q) if seen is None else (jnp.arange(n), q, seen)
    if block >= n:
        return _rows(rows, k, v, beta, weights, sees)
    blocks = -(-n // block)

    def split(a):
        padded = jnp.pad(a, [(0, blocks * block - n)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(blocks, block, *a.shape[1:])

    body = jax.checkpoint(lambda rows: _rows(rows, k, v, beta, weights, sees))
    mean, log_z = jax.lax.map(body, jax.tree.map(split, rows))
    return mean.reshape(blocks * block, v.shape[1])[:n], log_z.reshape(-1)[:n]


def _rows(rows, k, v, beta, weights, sees):
    """Kernel sum of some rows, (indices, queries) or (indices, queries, mask), over all tokens."""
    i, q, *seen = rows
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    scores = product(beta * q, k.T)
    if sees is not None:
        seen = [sees(i[:, None], jnp.arange(len(k))[None, :])]
    if seen:
        scores = jnp.where(seen[0], scores, -jnp.inf)
    heights = scores if weights is None else scores + jnp.log(weights)[None, :]
    shift = jax.lax.stop_gradient(heights).max(axis=1, initial=-jnp.inf)
    may_be_empty = bool(seen) or weights is not None or not len(k)
    if may_be_empty:
        shift = jnp.where(jnp.isfinite(shift), shift, 0)
    scores = scores - shift[:, None]
    if weights is None:
        e = jnp.exp(scores)
        z, total = e.sum(axis=1), product(e, v)
    else:
        ceiling = jnp.log(jnp.finfo(scores.dtype).max) * jnp.where(weights > 0, 1, 0.5)
        e = jnp.exp(jnp.minimum(scores, ceiling[None, :]))
        z, total = product(e, weights), product(e, weights[:, None] * v)
    some = jnp.where(z > 0, z, 1) if may_be_empty else z
    log_z = jnp.log(some) + shift
    return total / some[:, None], jnp.where(z > 0, log_z, -jnp.inf) if may_be_empty else log_z
