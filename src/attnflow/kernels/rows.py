"""Kernel sum in blocks of rows, each over the tokens it may see: the general path."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.kernels.fused import LN_2, LOG2_E, exp2, grouped, product, times
from attnflow.kernels.masks import reach

ROWS_PER_BLOCK = 256
SCORES_PER_BLOCK = 2**21
STAIRS = 8


@partial(jax.jit, static_argnames=("sees", "block", "wide"))
def by_rows(q, k, v, beta, weights, seen=None, *, sees=None, block=None, wide=None):
    """Kernel sum, `block` rows at a time, with exponents of dtype `wide` (that of q by default).

    Keys that no row of a block sees, by the `reach` of the mask, are left out: of a window's they
    are cut out block by block, of a causal mask's in STAIRS steps of blocks.
    """
    n, m = len(q), len(k)
    block = block or min(ROWS_PER_BLOCK, max(1, SCORES_PER_BLOCK // m))
    wide = wide or q.dtype
    rows = (jnp.arange(n), q) if seen is None else (jnp.arange(n), q, seen)
    if block >= n:
        return _rows(rows, 0, k, v, beta, weights, sees, wide)
    blocks = -(-n // block)
    back, ahead = reach(sees)

    def split(a):
        padded = jnp.pad(a, [(0, blocks * block - n)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(blocks, block, *a.shape[1:])

    def step(begin, end):
        """Sums of some blocks."""
        top = m if ahead is None else min(m, end * block + ahead)
        length = top if back is None or ahead is None else min(top, back + block + ahead)

        @jax.checkpoint
        def of_block(rows):
            first = 0 if back is None else jnp.clip(rows[0][0] - back, 0, top - length)
            keys = lambda a: None if a is None else jax.lax.dynamic_slice_in_dim(a, first, length)
            return _rows(rows, first, keys(k), keys(v), beta, keys(weights), sees, wide)

        return jax.lax.map(of_block, jax.tree.map(lambda a: a[begin:end], blocked))

    blocked = jax.tree.map(split, rows)
    stairs = min(STAIRS, blocks) if back is None and ahead is not None else 1
    edges = np.linspace(0, blocks, stairs + 1).astype(int).tolist()
    parts = [step(begin, end) for begin, end in pairwise(edges)]
    mean, log_z = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    return mean.reshape(blocks * block, v.shape[1])[:n], log_z.reshape(-1)[:n]


def _rows(rows, first, k, v, beta, weights, sees, wide):
    """Kernel sum of some rows, (indices, queries) or (indices, queries, mask), over keys from `first`."""
    i, q, *seen = rows
    dtype, p = q.dtype, v.shape[1]
    scores = product((LOG2_E * beta.astype(wide)) * q.astype(wide), k.astype(wide).T)
    if sees is not None:
        seen = [sees(i[:, None], first + jnp.arange(len(k))[None, :])]
    if seen:
        scores = jnp.where(seen[0], scores, -jnp.inf)
    heights = scores if weights is None else scores + jnp.log2(weights)[None, :]
    shift = jax.lax.stop_gradient(heights).max(axis=1, initial=-jnp.inf)
    may_be_empty = bool(seen) or weights is not None or not len(k)
    if may_be_empty:
        shift = jnp.where(jnp.isfinite(shift), shift, 0)
    scores = (scores - shift[:, None]).astype(dtype)
    if weights is None:
        weights = jnp.ones(len(k), dtype)
    else:
        ceiling = (jnp.finfo(dtype).maxexp - 1) * jnp.where(weights > 0, 1, 0.5)
        scores = jnp.minimum(scores, ceiling.astype(dtype)[None, :])
    payload = jnp.concatenate([weights[:, None] * v, weights[:, None]], axis=1)
    sums = times(exp2(scores), grouped(payload))
    total, z = sums[:, :p], sums[:, p]
    some = jnp.where(z > 0, z, 1) if may_be_empty else z
    log_z = (jnp.log(some.astype(wide)) + LN_2 * shift).astype(dtype)
    return total / some[:, None], jnp.where(z > 0, log_z, -jnp.inf) if may_be_empty else log_z
