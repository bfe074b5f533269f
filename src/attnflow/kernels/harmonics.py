"""Exact kernel sum on S² by modes on the double Fourier sphere, O(n + beta^1.5)."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Bool, Float

from attnflow.kernels.fast import fast_sum
from attnflow.kernels.spaces import SPHERE


def harmonics(
    q: Float[Array, "n 3"],
    k: Float[Array, "m 3"],
    v: Float[Array, "m p"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " m"] | None = None,
    mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
    block: int | None = None,
    accuracy: float | None = None,
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    r"""`dense` on S², of unit vectors, in O(n + m + K³) instead of O(n m), with K about $6\sqrt{2\beta}$ modes.

    A meridian continued over the pole is a circle, which makes the sphere a torus (s, phi). There the kernel
    of two colatitudes s, t is a convolution in phi with modes $e^{\beta(\cos(s-t)-1)}e^{-x}I_m(x)$,
    $x = \beta\sin s\sin t$: a matrix in colatitude for each m <= K, in closed form, without Legendre functions
    and without loss at the poles. One two-dimensional transform takes the keys to modes, one takes modes
    back to the queries, two real fields to a complex one; for v = k the payloads are shifts of the indices.
    K = 83 for beta = 81 at full accuracy.

    Truncation is at most $14(2K+1)\cdot 2\sum_{k>K} I_k(\beta)e^{-\beta}$; the rest of the error, what is done for
    tokens far from all others, derivatives, arguments and errors are those of `fourier`. The matrices take
    4 K³ bytes (131 MB for beta = 1000), and are kept for the last two betas.

    Args:
        q: Queries, unit vectors, shape (n, 3).
        k: Keys, unit vectors, shape (m, 3).
        v: Values, shape (m, p). With p = 0 only log Z is computed.
        beta: Inverse temperature, finite, of any sign; may be traced.
        weights: Weight of each token, shape (m,), >= 0. One each by default.
        mask: Must be None.
        block: Ignored; `dense` has it.
        accuracy: As for `fourier`.

    Returns:
        Means, shape (n, p), and log Z, shape (n,), of the inputs' dtype.

    Raises:
        ValueError: If shapes disagree, a mask is given, or accuracy is beyond the dtype.
        MemoryError: If the modes for this beta do not fit.

    Warns:
        RuntimeWarning: As for `fourier`.

    Source:
        Merilees, "The pseudospectral approximation applied to the shallow water equations on a sphere"
        (1973), for the double Fourier sphere; Barnett, Magland, af Klinteberg (2019) for the transforms.
    """
    return fast_sum(SPHERE, q, k, v, beta, weights=weights, mask=mask, accuracy=accuracy)
