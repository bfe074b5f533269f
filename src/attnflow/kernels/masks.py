"""Masks: which token j a token i may see, as functions of index arrays that broadcast."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

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


@dataclass(frozen=True)
class Window:
    """Token i sees the tokens at most `width` away, |i - j| <= width."""

    width: int

    def __call__(self, i: Index, j: Index) -> Seen:
        """Whether token i sees token j."""
        return abs(i - j) <= self.width


@cache
def window(width: int) -> Callable[[Index, Index], Seen]:
    """Token i sees the tokens at most `width` away, |i - j| <= width.

    Equal widths give the same function, so that compiled code is reused.
    """
    return Window(width)


def reach(mask: Any) -> tuple[int | None, int | None]:
    """How many tokens back and ahead of itself a token sees at most; None where nothing is known."""
    if mask is causal:
        return None, 0
    return (mask.width, mask.width) if isinstance(mask, Window) else (None, None)
