"""Exact kernel sum over all pairs of tokens: the public door to both ways of summing."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attnflow.errors import check_count, check_shape
from attnflow.kernels.rows import by_rows
from attnflow.kernels.symmetric import by_pairs

ONE_BLOCK = 2**20


def dense(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    v: Float[Array, "m p"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " m"] | None = None,
    mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
    block: int | None = None,
    wide: bool = False,
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    r"""Softmax mean of v and log-partition of the scores $\beta \langle q_i, k_j\rangle$.

    $Z_i = \sum_j w_j e^{\beta\langle q_i, k_j\rangle}$ and
    mean$_i = Z_i^{-1} \sum_j w_j e^{\beta\langle q_i, k_j\rangle} v_j$.
    Sums are shifted in the exponent, so no beta overflows. A row that sees no token has mean 0
    and log Z = -inf, with zero gradients.
    Exact; O(n m (d + p)) time, O((n + m)(d + p) + block m) memory, also of its derivatives. If `q`
    and `k` are the same object and there is no mask, each pair of tokens is scored once, not twice.
    Of the masks, `causal` saves nearly half the pairs, and `window` all but n (2 width + block).

    Args:
        q: Queries, shape (n, d).
        k: Keys, shape (m, d).
        v: Values, shape (m, p). With p = 0 only log Z is computed.
        beta: Inverse temperature, finite, of any sign; may be traced.
        weights: Weight of each token, shape (m,), >= 0. One each by default.
        mask: Pairs that count: a function (i, j) -> bool of index arrays that broadcast, or an
            array of shape (n, m). Code is compiled once per function object, so reuse it.
        block: Rows summed at a time, >= 1; by default from n and m.
        wide: Whether exponents of float32 tokens are formed in float64. Each term of the sums is
            else off by about 1e-7 |beta|, which a mean of values unrelated to the keys shows (a mean
            of the keys themselves hides most of it). Costs two to three times as much on a CPU.

    Returns:
        Means, shape (n, p), and log Z, shape (n,), of the inputs' dtype.

    Raises:
        ValueError: If shapes disagree, or `block` is no positive whole number, or if `wide` is asked for while
            JAX has float64 switched off.
    """
    n, m = len(q), len(k)
    check_shape(k, "k", (m, q.shape[1]))
    check_shape(v, "v", (m, v.shape[-1]))
    if weights is not None:
        check_shape(weights, "weights", (m,))
    if mask is not None and not callable(mask):
        check_shape(mask, "mask", (n, m))
    if block is not None:
        check_count(block, "block")
    if wide and jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "Argument `wide` must be False while JAX computes in float32, but wide=True. "
            "Set `jax_enable_x64`, and give the tokens the dtype float32."
        )
    exponents = jnp.dtype("float64") if wide else None
    dtype = jnp.result_type(q, k, v, float)
    tokens_on_themselves = q is k and mask is None
    q, k, v, beta = (jnp.asarray(a, dtype) for a in (q, k, v, beta))
    weights = None if weights is None else jnp.asarray(weights, dtype)
    whole = n * m <= ONE_BLOCK if block is None else block >= n
    if tokens_on_themselves and not whole:
        return by_pairs(q, v, beta, weights, block=block, wide=exponents)
    seen, sees = (None, mask) if callable(mask) else (mask, None)
    block = n if whole else block
    return by_rows(q, k, v, beta, weights, seen, sees=sees, block=block, wide=exponents)
