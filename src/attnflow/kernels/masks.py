"""Masks: which token j a token i may see, as functions of index arrays that broadcast."""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Array, Bool, Int

Index = Int[Array | np.ndarray, "..."]
Seen = Bool[Array | np.ndarray, "..."]


def causal(i: Index, j: Index) -> Seen:
    """Token i sees itself and the tokens before it, j <= i."""
    return j <= i


def exclude_self(i: Index, j: Index) -> Seen:
    """Token i sees every token but itself, j != i."""
    return j != i


@cache
def window(width: int) -> Callable[[Index, Index], Seen]:
    """Token i sees the tokens at most `width` away, |i - j| <= width.

    Equal widths give the same function, so that compiled code is reused.
    """

    def near(i: Index, j: Index) -> Seen:
        return abs(i - j) <= width

    return near
