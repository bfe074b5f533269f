"""What the schemes share: attention on equiangular tokens, states (gap, radius), and the checks of arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from attnflow.theory.equiangular_layer import weights
from attnflow.theory.errors import (
    Number,
    Numbers,
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
    one,
)

SCHEMES = ("post", "pre", "mix", "peri", "ngpt", "sqrt", "ln-scaling", "none")
Rate = Number | Callable[[float], Any]
"""A number, or a function of time."""


class Course(NamedTuple):
    """Equiangular tokens along a run.

    Attributes:
        gap: 1 - rho, shape (t,), accurate relative to itself.
        radius: Common length of the tokens, shape (t,).
    """

    gap: np.ndarray
    radius: np.ndarray

    @property
    def cosine(self) -> np.ndarray:
        """Common cosine rho, shape (t,)."""
        return np.asarray(1 - self.gap)


class Contact(NamedTuple):
    r"""Attention of equiangular unit tokens, $A_i = \text{contrast}\,\theta_i + \text{other}\sum_k\theta_k$."""

    contrast: Number
    """Weight on itself less the weight on another token, u - w."""
    other: Number
    """Weight on each other token, w."""
    total: Number
    """S = 1 + (n-1) rho."""
    along: Number
    """a = <theta_i, A_i>."""
    length: Number
    """|A_i|."""


def contact(gap: Numbers, n: int, beta: Numbers) -> Contact:
    """Attention at a gap, for beta of any sign, without overflow."""
    gap, beta = np.asarray(gap, float), np.asarray(beta, float)
    _, other, contrast = weights(beta * gap, n)
    total = np.maximum(n - (n - 1) * gap, 0.0)
    along = contrast + other * total
    across = other * np.sqrt((n - 1) * gap * total)
    return Contact(contrast, other, total, along, np.hypot(along, across))


def seen_beta(scheme: str, beta: Numbers, radius: Numbers) -> np.ndarray:
    """Inverse temperature that unit tokens would need: beta r^2 where attention sees radii."""
    beta, radius = np.asarray(beta, float), np.asarray(radius, float)
    return np.asarray(beta * np.minimum(radius, 1e150) ** 2 if scheme == "none" else beta)


def check_scheme(
    scheme: str, n: int, beta: Numbers, radius: Numbers, tau: Any, alpha: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Beta and radius as floats, once scheme, n, tau and alpha make sense."""
    check_choice(scheme, "scheme", SCHEMES)
    check_count(n, "n", 2)
    one(check_nonnegative, tau, "tau")
    if not callable(alpha):
        one(check_nonnegative, alpha, "alpha", "Negative rates repel.")
    return check_finite(beta, "beta"), check_positive(radius, "radius")


def check_run(
    scheme: str, n: int, beta: Number, radius: Number, tau: Any, alpha: Any
) -> tuple[float, float]:
    """Beta and radius of one run, as `check_scheme` has them."""
    check_scheme(scheme, n, beta, radius, tau, alpha)
    return one(check_finite, beta, "beta"), one(check_positive, radius, "radius")


def check_cosine(rho: Numbers, name: str, n: int) -> np.ndarray:
    """Cosine in [-1/(n-1), 1]; the lower end absorbs rounding."""
    low = -1 / (n - 1)
    remedy = f"No {n} vectors have common cosine below -1/(n-1)."
    return np.asarray(np.maximum(check_between(rho, name, low * (1 + 1e-15), 1, remedy), low))


def check_gap(gap: Numbers, name: str, n: int) -> np.ndarray:
    """Gap in [0, n/(n-1)]; the upper end absorbs rounding."""
    high = n / (n - 1)
    return np.asarray(np.minimum(check_between(gap, name, 0, high * (1 + 1e-15)), high))


def check_switch(scheme: str, tau: Any, start: float, end: float) -> None:
    """Raise `ValueError` if mix would not switch before the end of a run."""
    if scheme == "mix" and not start <= float(tau) < end:
        raise ValueError(
            f"Argument `tau` must lie within the run, from {start:g} to before {end:g}, "
            f"but tau={float(tau):g}. Run longer, or take the scheme 'post'."
        )


def rate(alpha: Rate, t: float) -> float:
    """Rate of nGPT at time t."""
    if not callable(alpha):
        return float(alpha)
    return one(check_nonnegative, alpha(t), f"alpha({t:g})", "Negative rates repel.")
