"""Kernel sum of tokens over themselves: every pair is scored once and used for both tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from attnflow.kernels.rows import by_rows

ROWS_PER_BLOCK = 512
BLOCKS_PER_TILE = 8


@partial(jax.jit, static_argnames="block")
def by_pairs(x, v, beta, weights, *, block=None):
    r"""Kernel sum with q = k = x, shapes (n, d), (n, p), (), (n,), at half the scores.

    With $c_i = |\beta| |x_i|^2 / 2$ the pair factor $e^{\beta\langle x_i, x_j\rangle - c_i - c_j}$
    is symmetric and at most 1, so no maximum is needed: it adds v_j to row i and v_i to row j.
    Where it could underflow in a whole row (beta << 0, or very unequal norms or weights)
    `by_rows` takes over; it also gives the derivatives. Under `vmap` systems run one by one.
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
            lambda: _by_tiles(x, v, beta, weights, block),
            lambda: by_rows(x, x, v, beta, weights, block=block),
        )

    @kernel_sum.defjvp
    def tangent(primals, tangents):
        def rows(x, v, beta, weights):
            return by_rows(x, x, v, beta, weights, block=block)

        return kernel_sum(*primals), jax.jvp(rows, primals, tangents)[1]

    return kernel_sum(x, v, beta, weights)


def _exponents(x, beta, weights):
    """Exponents c of the shift and g = c + log w of the payload."""
    c = abs(beta) * jnp.sum(x * x, axis=1) / 2
    return c, c if weights is None else c + jnp.log(weights)


def _by_tiles(x, v, beta, weights, block):
    """Kernel sum over tiles of `size` rows times BLOCKS_PER_TILE * `size` columns.

    The number of blocks is odd, 2 half + 1. Row block I meets blocks I + 1 … I + half, counted
    around a ring, so that each pair of blocks meets once; arrays are doubled to unroll the ring.
    """
    n, p = v.shape
    block = block or ROWS_PER_BLOCK
    tiles = max(1, -(-(n - block) // (2 * BLOCKS_PER_TILE * block)))
    blocks = 2 * BLOCKS_PER_TILE * tiles + 1
    size = -(-n // blocks)
    width = BLOCKS_PER_TILE * size
    ring = blocks * size
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    c, g = _exponents(x, beta, weights)
    columns = [jnp.concatenate([beta * x, -c[:, None], jnp.ones((n, 1), x.dtype)], axis=1)]
    columns += [jnp.concatenate([x, jnp.ones((n, 1), x.dtype), -c[:, None]], axis=1)]
    factor = jnp.exp(g - g.max())[:, None]
    columns += [jnp.concatenate([factor * v, factor], axis=1)]
    left, right, payload = (jnp.pad(a, [(0, ring - n), (0, 0)]) for a in columns)
    flat = payload.T

    def own_block(block):
        left, right, payload = block
        return product(jnp.exp(product(left, right.T)), payload)

    split = [a.reshape(blocks, size, -1) for a in (left, right, payload)]
    rows = jax.lax.map(own_block, split).reshape(ring, p + 1)
    right, payload = (jnp.concatenate([a, a]) for a in (right, payload))
    part = jax.lax.dynamic_slice_in_dim
    put = jax.lax.dynamic_update_slice_in_dim

    def tile(step, sums):
        rows, columns = sums
        i = step // tiles * size
        j = i + size + step % tiles * width
        e = jnp.exp(product(part(left, i, size), part(right, j, width).T))
        to_rows = product(e, part(payload, j, width))
        to_columns = product(part(flat, i, size, axis=1), e)
        rows = put(rows, part(rows, i, size) + to_rows, i, axis=0)
        return rows, put(columns, part(columns, j, width, axis=1) + to_columns, j, axis=1)

    columns = jnp.zeros((p + 1, 2 * ring), x.dtype)
    rows, columns = jax.lax.fori_loop(0, blocks * tiles, tile, (rows, columns))
    sums = (rows + (columns[:, :ring] + columns[:, ring:]).T)[:n]
    z = sums[:, p]
    return sums[:, :p] / z[:, None], jnp.log(z) + c + g.max()
