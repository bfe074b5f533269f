"""The cheapest exact kernel sum, and sums to a wanted accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from attnflow.errors import check_shape, concrete
from attnflow.kernels import fast, host
from attnflow.kernels.dense import dense
from attnflow.kernels.fourier import fourier
from attnflow.kernels.harmonics import harmonics
from attnflow.kernels.spaces import CIRCLE, SPHERE, Space

SPACES: dict[int, tuple[Space, Callable[..., Any]]] = {2: (CIRCLE, fourier), 3: (SPHERE, harmonics)}
PAIR, PAIR_ON_DEVICE = 4e-10, 1e-11
"""Seconds of a pair of tokens in `dense`, on two cores and on an accelerator."""
CALL, POINT, MODE, MATRIX = 1e-3, {2: 1.2e-7, 3: 2.5e-7}, 5e-8, {2: 0.0, 3: 6e-9}
"""Seconds of a fast sum: as such, for each token, for each mode, and for each entry of its matrices."""
USUAL_BETA = 100.0
"""What beta is taken to be where it is traced."""


def auto(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    v: Float[Array, "m p"],
    beta: float | Float[Array, ""],
    *,
    weights: Float[Array, " m"] | None = None,
    mask: Callable[..., Bool[Array, "..."]] | Bool[Array, "n m"] | None = None,
    block: int | None = None,
    accuracy: float | None = None,
) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
    """The cheapest exact sum: `fourier` or `harmonics` for many tokens at d = 2 or 3, else `dense`.

    By the costs measured in `benchmarks/fast_sums.py`: from about 2000 tokens on the circle, and 6000 on S²
    at beta = 81. Fast sums need unit tokens that are queries and keys at once (q is k), and no mask.

    Args:
        q: Queries, shape (n, d).
        k: Keys, shape (m, d).
        v: Values, shape (m, p).
        beta: Inverse temperature.
        weights: Weight of each token, shape (m,).
        mask: Pairs that count.
        block: As for `dense`.
        accuracy: As for `fourier`; `dense` is exact to rounding and ignores it.

    Returns:
        Means, shape (n, p), and log Z, shape (n,).
    """
    chosen = (
        dense
        if q is not k or mask is not None
        else cheapest(len(q), q.shape[1], beta, accuracy=accuracy)
    )
    if chosen is dense:
        return dense(q, k, v, beta, weights=weights, mask=mask, block=block)
    options: dict[str, Any] = {"weights": weights, "accuracy": accuracy}
    return chosen(q, k, v, beta, **options)


def cheapest(n: int, d: int, beta, *, accuracy: float | None = None) -> Callable[..., Any]:
    """The exact sum that takes least time for n unit tokens over themselves: dense, fourier or harmonics."""
    if d not in SPACES:
        return dense
    check_shape(beta, "beta", ())
    space, chosen = SPACES[d]
    size = abs(float(beta)) if concrete(beta) else USUAL_BETA
    if not math.isfinite(size):
        return dense
    all_pairs = n**2 * (PAIR if jax.default_backend() == "cpu" else PAIR_ON_DEVICE)
    if all_pairs < CALL or (accuracy is not None and accuracy < host.finest(space, size)):
        return dense
    cut = host.grid(space, size, accuracy).cut
    seconds = CALL + n * POINT[d] + MODE * (4 * cut) ** (d - 1) + MATRIX[d] * cut**3
    if all_pairs <= seconds or host.too_large(space, size, accuracy):
        return dense
    if not fast.available():
        fast.tell_missing(n**2)
        return dense
    return chosen


@cache
def to_accuracy(kernel_sum: Callable, accuracy: float) -> Callable:
    """A kernel sum at an accuracy of its own; the same object for the same arguments, so that it compiles once.

    Args:
        kernel_sum: `fourier`, `harmonics` or `auto`.
        accuracy: As for `fourier`.
    """
    return partial(kernel_sum, accuracy=accuracy)
