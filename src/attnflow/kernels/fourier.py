"""Exact kernel sum on the circle by Fourier modes, O(n + sqrt(beta))."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Bool, Float

from attnflow.kernels.fast import fast_sum
from attnflow.kernels.spaces import CIRCLE


def fourier(
    q: Float[Array, "n 2"],
    k: Float[Array, "m 2"],
    v: Float[Array, "m p"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " m"] | None = None,
    mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
    block: int | None = None,
    accuracy: float | None = None,
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    r"""`dense` on the circle, of unit vectors, in O(n + m + modes) instead of O(n m).

    $e^{\beta\cos\theta} = \sum_k I_k(\beta) e^{ik\theta}$: one transform of the keys to modes |k| <= K, one product,
    one transform back. K is chosen so that what is left out, $2\sum_{k>K}I_k(\beta)e^{-\beta}$, is below the
    accuracy: K = 75 for beta = 81, about $\sqrt{2\beta\log(1/\mathrm{error})}$. For v = k the payload is a shift
    of the index by one.

    The error of log Z_i is at most $(2\,\mathrm{tol} + 10^{-13})\|\mu\|/Z_i$ plus truncation, Z in units of
    $e^\beta$, with $\|\mu\|^2 = \sum_{ij} w_i w_j (1 + \langle v_i, v_j\rangle)e^{\beta(\cos\theta_{ij} - 1)}$. Rows
    for which that exceeds the accuracy, tokens far from a crowd for example, are summed over all pairs, so
    that the accuracy is kept in every row.

    Differentiable in q, k, v, beta and weights, forward and reverse, to any order, as `dense` is, off the
    circle too; under `vmap` systems run one by one. The same bits whatever the number of threads.
    Runs on the host, in double precision, through finufft.

    Args:
        q: Queries, unit vectors, shape (n, 2).
        k: Keys, unit vectors, shape (m, 2).
        v: Values, shape (m, p). With p = 0 only log Z is computed.
        beta: Inverse temperature, finite, of any sign; may be traced.
        weights: Weight of each token, shape (m,), >= 0. One each by default.
        mask: Must be None.
        block: Ignored; `dense` has it.
        accuracy: Largest error of log Z, and of the mean in units of the payload's size, at most 1; at
            least 1e-6 (float32) or about $3\cdot10^{-13}(1 + 2\pi\beta)^{(d-1)/4}$ (float64). By default 1e-9 and
            1e-6, at worst; and a few lonely rows are summed over all pairs where their error would show
            beside the largest speed.

    Returns:
        Means, shape (n, p), and log Z, shape (n,), rounded to the inputs' dtype at the end.

    Raises:
        ValueError: If shapes disagree, a mask is given, or accuracy is beyond the dtype.
        MemoryError: If the modes for this beta do not fit.

    Warns:
        RuntimeWarning: Once, if finufft is missing or fails, or tokens are not unit vectors: all pairs
            are then summed, and the warning names the cost.

    Source:
        Barnett, Magland, af Klinteberg, "A parallel nonuniform fast Fourier transform library based on an
        'exponential of semicircle' kernel" (2019); the use for attention is ours.
    """
    return fast_sum(CIRCLE, q, k, v, beta, weights=weights, mask=mask, accuracy=accuracy)
