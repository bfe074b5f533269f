"""Kernel sum over random batches of tokens: approximate, O(n batch d) time, with its standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from attnflow.errors import check_count, check_shape
from attnflow.kernels.fused import product

SCORES_AT_ONCE = 2**20


def random_batch(key: PRNGKeyArray, batch: int = 256, *, fixed: bool = False) -> RandomBatch:
    r"""Kernel sum in which every token meets itself and a random batch of the others.

    $\hat Z_i = w_i e^{\beta\langle q_i, k_i\rangle} +
    \frac1p \sum_{j \in B,\, j \ne i} \frac{w_j}{\pi_j} e^{\beta\langle q_i, k_j\rangle}$
    with p = |B| and $\pi_j$ = 1/n, or $w_j / \sum w$ where there are weights; the sum of
    $w e^{\beta\langle q, k\rangle} v$ alike. **Approximate**: both sums are unbiased, with errors
    of order p^(-1/2); the mean and log Z are functions of them, with a bias of order 1/p. The
    error grows with beta, as ever fewer tokens carry the sum: see `RandomBatch.standard_errors`.
    Where q and k are two objects there is no own term, and every token may be drawn.

    Batches are drawn without replacement, so that p = n is exact, and with replacement where there
    are weights. They are drawn anew for every q: the bits of q are hashed into the key, so that a
    run is reproducible, and its steps are independent. A block of p rows shares a batch (a matrix
    product); blocks have batches of their own, dealt from one shuffle of all tokens. One batch for
    all rows would cost no less, and push all tokens the same wrong way. The velocity is rough in x:
    integrate with fixed steps, for adaptive ones would shrink without end.

    Args:
        key: Source of randomness; not traced.
        batch: Tokens in a batch, >= 1; all of them if there are fewer.
        fixed: Whether every call draws the same tokens, whatever q is.

    Returns:
        A kernel sum with the signature of `dense`, but no mask. Equal arguments give equal objects,
        so that code is compiled once.

    Raises:
        ValueError: If `batch` is no positive whole number.

    Source:
        Jin, Li, Liu, "Random Batch Methods (RBM) for interacting particle systems" (2020),
        Algorithm 1 and, with replacement, Algorithm 2; there without weights and own terms.
    """
    check_count(batch, "batch")
    return RandomBatch(int(jr.bits(key, dtype="uint32")), int(batch), fixed)


@dataclass(frozen=True)
class RandomBatch:
    """The kernel sum of `random_batch`, and its standard errors."""

    seed: int
    """Of the key that the batches are drawn from."""
    batch: int
    """Tokens in a batch."""
    fixed: bool = False
    """Whether every call draws the same tokens."""

    def __call__(
        self,
        q: Float[Array, "n d"],
        k: Float[Array, "m d"],
        v: Float[Array, "m p"],
        beta: float | Float[Array, ""],
        *,
        weights: Float[Array, " m"] | None = None,
        mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
        block: int | None = None,
    ) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
        """Estimates of the softmax mean and the log-partition.

        Args:
            q: Queries, shape (n, d).
            k: Keys, shape (m, d).
            v: Values, shape (m, p).
            beta: Inverse temperature, finite.
            weights: Weight of each token, shape (m,), >= 0; drawn in proportion to it.
            mask: None: a batch may hold no token that a row sees.
            block: Rows that share a batch, >= 1; as many as a batch holds by default.

        Returns:
            Means, shape (n, p), and log Z, shape (n,).

        Raises:
            ValueError: If shapes disagree, or there is a mask.
        """
        return self._estimate(q, k, v, beta, weights, mask, block, errors=False)

    def standard_errors(
        self,
        q: Float[Array, "n d"],
        k: Float[Array, "m d"],
        v: Float[Array, "m p"],
        beta: float | Float[Array, ""],
        *,
        weights: Float[Array, " m"] | None = None,
        block: int | None = None,
    ) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
        r"""Standard errors of what the call with the same arguments returns.

        From the spread of the terms inside a row's batch, to first order in it (delta method):
        of $y_j / \hat Z$ for log Z and of $y_j (v_j - \mathrm{mean}) / \hat Z$ for the mean,
        with $y_j = w_j e^{\beta\langle q, k_j\rangle} / \pi_j$; 0 if a batch holds all tokens, NaN if it
        holds one. Too small where few tokens carry the sum and none of them was drawn.

        Args:
            q: Queries, shape (n, d).
            k: Keys, shape (m, d).
            v: Values, shape (m, p).
            beta: Inverse temperature, finite.
            weights: Weight of each token, shape (m,).
            block: Rows that share a batch.

        Returns:
            Of each entry of the means, shape (n, p), and of log Z, shape (n,); >= 0.
        """
        return self._estimate(q, k, v, beta, weights, None, block, errors=True)

    def _estimate(self, q, k, v, beta, weights, mask, block, *, errors):
        n, m = len(q), len(k)
        check_shape(k, "k", (m, q.shape[1]))
        check_shape(v, "v", (m, v.shape[-1]))
        if weights is not None:
            check_shape(weights, "weights", (m,))
        if block is not None:
            check_count(block, "block")
        if mask is not None:
            name = getattr(mask, "__name__", type(mask).__name__)
            raise ValueError(
                f"Argument `mask` must be None for sums over random batches, but mask={name}. "
                "Use the kernel sum `dense`."
            )
        dtype = jnp.result_type(q, k, v, float)
        own = q is k
        q, k, v, beta = (jnp.asarray(a, dtype) for a in (q, k, v, beta))
        weights = None if weights is None else jnp.asarray(weights, dtype)
        batch = min(self.batch, m)
        block = min(block or batch, max(n, 1))
        static = {"own": own, "batch": batch, "block": block, "fixed": self.fixed, "errors": errors}
        return _estimate(jr.key(self.seed), q, k, v, beta, weights, **static)


@partial(jax.jit, static_argnames=("own", "batch", "block", "fixed", "errors"))
def _estimate(key, q, k, v, beta, weights, *, own, batch, block, fixed, errors):
    """Means and log Z, or the standard errors of both, block by block."""
    n, m = len(q), len(k)
    blocks = -(-n // block)
    drawn = _draw(key if fixed else jr.fold_in(key, _digest(q)), blocks, batch, m, weights)
    w = jnp.ones(m, q.dtype) if weights is None else weights
    chance = jax.lax.stop_gradient(w / w.sum())
    left_out = 1 - batch / m if weights is None else 1.0

    def of_block(block):
        i, q, drawn = block
        keys, values, own_values = k[drawn], v[drawn], v[i] if own else jnp.zeros((), v.dtype)
        scores, own_scores = beta * product(q, keys.T), jnp.full(len(i), -jnp.inf, q.dtype)
        if own:
            scores = jnp.where(drawn[None, :] == i[:, None], -jnp.inf, scores)
            own_scores = beta * jnp.sum(q * k[i], axis=1)
        shift = jax.lax.stop_gradient(jnp.maximum(scores.max(axis=1), own_scores))
        y = (w[drawn] / chance[drawn])[None, :] * jnp.exp(scores - shift[:, None])
        y_own = w[i] * jnp.exp(own_scores - shift) if own else jnp.zeros_like(shift)
        z = y_own + y.mean(axis=1)
        means = (product(y, values) / batch + y_own[:, None] * own_values) / z[:, None]
        if not errors:
            return means, jnp.log(z) + shift
        share = y / z[:, None]
        spread = share[:, :, None] * (values[None] - means[:, None])
        error = lambda a: jnp.sqrt(left_out * a.var(axis=1, ddof=1) / batch)
        return error(spread), error(share)

    def split(a):
        padded = jnp.pad(a, [(0, blocks * block - n)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(blocks, block, *a.shape[1:])

    terms = block * batch * (1 + errors * v.shape[1])
    rows = split(jnp.arange(n)), split(q), drawn
    results = jax.lax.map(of_block, rows, batch_size=max(1, min(SCORES_AT_ONCE // terms, blocks)))
    return tuple(a.reshape(blocks * block, *a.shape[2:])[:n] for a in results)


def _draw(key, blocks, batch, m, weights):
    """Tokens of each block's batch, shape (blocks, batch)."""
    if weights is None:
        places = (jnp.arange(blocks * batch) % m).reshape(blocks, batch)
        return jr.permutation(key, m)[places]
    edges = jnp.cumsum(jax.lax.stop_gradient(weights))
    at = jr.uniform(key, (blocks, batch), edges.dtype) * edges[-1]
    return jnp.clip(jnp.searchsorted(edges, at, side="right"), 0, m - 1)


def _digest(q):
    """Whole number that changes with any bit of q."""
    q = jax.lax.stop_gradient(q).astype(jnp.promote_types(q.dtype, "float32"))
    words = jax.lax.bitcast_convert_type(q, "uint32").ravel()
    odd = 2 * jnp.arange(len(words), dtype="uint32") + 1
    mixed = (words ^ (words >> 16)) * jnp.uint32(0x9E3779B1) * odd
    return jnp.sum(mixed ^ (mixed >> 15), dtype="uint32")
