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
        return jax.lax.cond(
            _is_safe(x, beta, weights),
            lambda: _by_tiles(x, v, beta, weights, block, wide or x.dtype),
            lambda: by_rows(x, x, v, beta, weights, block=block, wide=wide),
        )

    @kernel_sum.defjvp
    def tangent(primals, tangents):
        def rows(x, v, beta, weights):
            return by_rows(x, x, v, beta, weights, block=block, wide=wide)

        return kernel_sum(*primals), jax.jvp(rows, primals, tangents)[1]

    return kernel_sum(x, v, beta, weights)


def by_shares(own, x, v, beta, weights, *, axis, block=None):
    """Rows `own` of `by_pairs`, shape (ceil(n / devices), d), inside a `shard_map` over the axis.

    Every device scores its share of all pairs, for both of their rows; one sum over devices, of
    n (p + 1) numbers, hands each its own rows. `x` and `v` are whole, `own` this device's rows of
    x, filled up with zeros.
    """

    @jax.custom_jvp
    def kernel_sum(own, x, v, beta, weights):
        return one_by_one(own, x, v, beta, weights)

    @jax.custom_batching.sequential_vmap
    def one_by_one(own, x, v, beta, weights):
        return jax.lax.cond(
            _is_safe(x, beta, weights),
            lambda: _by_tiles(x, v, beta, weights, block, x.dtype, axis),
            lambda: by_rows(own, x, v, beta, weights, block=block),
        )

    @kernel_sum.defjvp
    def tangent(primals, tangents):
        def rows(own, x, v, beta, weights):
            return by_rows(own, x, v, beta, weights, block=block)

        return kernel_sum(*primals), jax.jvp(rows, primals, tangents)[1]

    return kernel_sum(own, x, v, beta, weights)


def _is_safe(x, beta, weights):
    """Whether no whole row can underflow."""
    c, g = _exponents(x, beta, weights)
    own = beta * jnp.sum(x * x, axis=1) - 2 * c + g - g.max()
    return own.min() > jnp.log(jnp.finfo(x.dtype).tiny) / 2


def _exponents(x, beta, weights):
    """Exponents c of the shift and g = c + log w of the payload."""
    c = abs(beta) * jnp.sum(x * x, axis=1) / 2
    return c, c if weights is None else c + jnp.log(weights)


def _by_tiles(x, v, beta, weights, block, wide, axis=None):
    """Kernel sum over tiles of `size` rows times BLOCKS_PER_TILE * `size` columns.

    The number of blocks is odd, 2 half + 1. Row block I meets blocks I + 1 … I + half, counted
    around a ring, so that each pair of blocks meets once; arrays are doubled to unroll the ring.
    With an axis of devices each takes its share of blocks and tiles, and has its own rows in return.
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

    def own_block(step, rows):
        i = step * size
        e = pair_factors(i, size, i, size)
        return put(rows, times(e, [part(columns, i, size) for columns in groups]), i, axis=0)

    def tile(step, sums):
        rows, columns = sums
        i = step // tiles * size
        j = i + size + step % tiles * width
        e = pair_factors(i, size, j, width)
        to_rows = times(e, [part(columns, j, width) for columns in groups])
        to_columns = product(part(flat, i, size, axis=1), e)
        rows = put(rows, part(rows, i, size) + to_rows, i, axis=0)
        return rows, put(columns, part(columns, j, width, axis=1) + to_columns, j, axis=1)

    rows = jnp.zeros((ring, sum(columns.shape[1] for columns in groups)), dtype)
    rows = jax.lax.fori_loop(*_share(blocks, axis), own_block, rows)
    columns = jnp.zeros((p + 1, 2 * ring), dtype)
    rows, columns = jax.lax.fori_loop(*_share(blocks * tiles, axis), tile, (rows, columns))
    sums = (rows[:, : p + 1] + (columns[:, :ring] + columns[:, ring:]).T)[:n]
    if axis is not None:
        spare = -n % jax.lax.axis_size(axis)
        sums = jnp.pad(sums, [(0, spare), (0, 0)], constant_values=1)
        sums = jax.lax.psum_scatter(sums, axis, tiled=True)
        c = part(jnp.pad(c, (0, spare)), jax.lax.axis_index(axis) * len(sums), len(sums))
    z = sums[:, p]
    log_z = jnp.log(z.astype(wide)) + c + g.max()
    return sums[:, :p] / z[:, None], log_z.astype(dtype)


def _share(count, axis):
    """First and last + 1 of `count` pieces of work that this device does."""
    if axis is None:
        return 0, count
    device, devices = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    return device * count // devices, (device + 1) * count // devices
