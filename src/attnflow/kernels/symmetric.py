"""Kernel sum of tokens over themselves: every pair is scored once and used for both tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from attnflow.kernels.fused import LOG2_E, exp2, grouped, product, times
from attnflow.kernels.rows import by_rows

BYTES_PER_COLUMN = 2**11
BLOCKS_PER_TILE = 8


@partial(jax.jit, static_argnames=("block", "wide"))
def by_pairs(x, v, beta, weights, *, block=None, wide=None):
    r"""Kernel sum with q = k = x, shapes (n, d), (n, p), (), (n,), at half the scores.

    With $c_i = |\beta| |x_i|^2 / 2$ the pair factor $e^{\beta\langle x_i, x_j\rangle - c_i - c_j}$
    is symmetric and at most 1, so no maximum is needed: it adds v_j to row i and v_i to row j.
    Where it could underflow in a whole row (beta << 0, or very unequal norms or weights)
    `by_rows` takes over; it also gives the derivatives. Under `vmap` systems run one by one.
    Exponents have dtype `wide`, by default that of x.
    """

    @jax.custom_jvp
    def kernel_sum(x, v, beta, weights):
        return one_by_one(x, v, beta, weights)

    @jax.custom_batching.sequential_vmap
    def one_by_one(x, v, beta, weights):
        c, g = _exponents(x, beta, weights)
        own = beta * jnp.sum(x * x, axis=1) - 2 * c + g - g.max()
        safe = own.min() > jnp.log(jnp.finfo(x.dtype).tiny) / 2
        return jax.lax.cond(
            safe,
            lambda: _by_tiles(x, v, beta, weights, block, wide or x.dtype),
            lambda: by_rows(x, x, v, beta, weights, block=block, wide=wide),
        )

    @kernel_sum.defjvp
    def tangent(primals, tangents):
        def rows(x, v, beta, weights):
            return by_rows(x, x, v, beta, weights, block=block, wide=wide)

        return kernel_sum(*primals), jax.jvp(rows, primals, tangents)[1]

    return kernel_sum(x, v, beta, weights)


def _exponents(x, beta, weights):
    """Exponents c of the shift and g = c + log w of the payload."""
    c = abs(beta) * jnp.sum(x * x, axis=1) / 2
    return c, c if weights is None else c + jnp.log(weights)


def _by_tiles(x, v, beta, weights, block, wide):
    """Kernel sum over tiles of `size` rows times BLOCKS_PER_TILE * `size` columns.

    The number of blocks is odd, 2 half + 1. Row block I meets blocks I + 1 … I + half, counted
    around a ring, so that each pair of blocks meets once; arrays are doubled to unroll the ring.
    """
    dtype, (n, p) = x.dtype, v.shape
    block = block or BYTES_PER_COLUMN // dtype.itemsize
    tiles = max(1, -(-(n - block) // (2 * BLOCKS_PER_TILE * block)))
    blocks = 2 * BLOCKS_PER_TILE * tiles + 1
    size = -(-n // blocks)
    width = BLOCKS_PER_TILE * size
    ring = blocks * size

    def twice(a):
        padded = jnp.pad(a, [(0, ring - n)] + [(0, 0)] * (a.ndim - 1))
        return jnp.concatenate([padded, padded])

    x, beta = x.astype(wide), beta.astype(wide)
    c, g = _exponents(x, beta, weights)
    factor = jnp.exp(g - g.max()).astype(dtype)[:, None]
    payload = jnp.concatenate([factor * v, factor], axis=1)
    shift, one = -LOG2_E * c[:, None], jnp.ones((n, 1), wide)
    idle = jnp.zeros((n, int(x.shape[1] == 2)), wide)  # 5 columns make a faster product than 4
    left = twice(jnp.concatenate([(beta * LOG2_E) * x, shift, one, idle], axis=1))
    right = twice(jnp.concatenate([x, one, shift, idle], axis=1))
    flat, groups = twice(payload).T, tuple(twice(columns) for columns in grouped(payload))
    part = jax.lax.dynamic_slice_in_dim
    put = jax.lax.dynamic_update_slice_in_dim

    def pair_factors(i, rows, j, columns):
        exponents = product(part(left, i, rows), part(right, j, columns).T)
        return exp2(exponents.astype(dtype))

    def own_block(i):
        e = pair_factors(i, size, i, size)
        return times(e, [part(columns, i, size) for columns in groups])

    def tile(step, sums):
        rows, columns = sums
        i = step // tiles * size
        j = i + size + step % tiles * width
        e = pair_factors(i, size, j, width)
        to_rows = times(e, [part(columns, j, width) for columns in groups])
        to_columns = product(part(flat, i, size, axis=1), e)
        rows = put(rows, part(rows, i, size) + to_rows, i, axis=0)
        return rows, put(columns, part(columns, j, width, axis=1) + to_columns, j, axis=1)

    rows = jax.lax.map(own_block, size * jnp.arange(blocks))
    rows = rows.reshape(ring, rows.shape[-1])
    columns = jnp.zeros((p + 1, 2 * ring), dtype)
    rows, columns = jax.lax.fori_loop(0, blocks * tiles, tile, (rows, columns))
    sums = (rows[:, : p + 1] + (columns[:, :ring] + columns[:, ring:]).T)[:n]
    z = sums[:, p]
    log_z = jnp.log(z.astype(wide)) + c + g.max()
    return sums[:, :p] / z[:, None], log_z.astype(dtype)
