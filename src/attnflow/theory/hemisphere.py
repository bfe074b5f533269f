"""Whether tokens lie in one open hemisphere, with a certificate either way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from attnflow.theory.errors import Number, check, check_finite

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """Certificate: `direction` proves the margin, the bound proves that none is larger."""

    direction: np.ndarray
    """Unit vector w, shape (d,); zero if none was found."""
    margin: float
    """min_i <x_i, w>, computed from the tokens."""
    bound: float
    """No unit vector has a larger margin: |sum_i c_i x_i| for some convex weights c."""

    @property
    def exists(self) -> bool:
        """Whether the tokens lie in an open hemisphere, up to rounding."""
        return self.margin > ROUNDING


def check_tokens(tokens: ArrayLike) -> np.ndarray:
    """Return (n, d) unit vectors as floats, d >= 2, renormalized to the last bit."""
    tokens = check_finite(tokens, "tokens")  # pyright: ignore[reportArgumentType]
    if tokens.ndim != 2 or len(tokens) < 1 or tokens.shape[1] < 2:
        raise ValueError(
            "Argument `tokens` must have shape (n, d) with n >= 1 and d >= 2, "
            f"but tokens.shape={tokens.shape}."
        )
    radius = np.linalg.norm(tokens, axis=1)
    remedy = "Divide each row by its norm."
    check(np.abs(radius - 1) <= 1e-5, "tokens", "hold unit vectors (norms 1)", radius, remedy)
    return tokens / radius[:, None]


def hemisphere(tokens: ArrayLike, *, time_limit: Number = 10.0) -> Hemisphere:
    r"""Open hemisphere that holds all tokens, if there is one.

    Tries the least-squares solution of $\langle x_i, w\rangle = 1$, which settles independent tokens and most
    caps. Else maximizes m subject to $\langle x_i, w\rangle \ge m$ and $|w|_\infty \le 1$, a linear program; its
    multipliers c bound every margin by $|\sum_i c_ix_i|$. Margins below 1e-7 are beneath the solver's tolerance.
    A tenth of a second for n = 1797, d = 64; half a minute for d = 1024 if n is near 2d, the hardest case.

    Args:
        tokens: Unit vectors, shape (n, d), d >= 2.
        time_limit: Seconds after which the linear program gives up: then `margin` <= 0 and `bound` > 0.

    Returns:
        `Hemisphere`, whose margin is recomputed from the tokens.

    Raises:
        ValueError: If the tokens are not unit vectors.
        RuntimeError: If the linear program fails.

    Source:
        Farkas' lemma: either such a w exists, or 0 is in the convex hull of the tokens.
    """
    x = check_tokens(tokens)
    n, d = x.shape
    guess = _certificate(x, np.linalg.lstsq(x, np.ones(n))[0], np.ones(n))
    if guess.exists:
        return guess
    program = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.hstack([-x, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[(-1, 1)] * d + [(0, None)],
        options={"time_limit": float(time_limit)},
    )
    if program.status == 1:
        return guess
    if program.status != 0:
        raise RuntimeError(f"The hemisphere program stopped: {program.message}")
    return _certificate(x, program.x[:-1], np.maximum(-program.ineqlin.marginals, 0))


def _certificate(x: np.ndarray, w: np.ndarray, multipliers: np.ndarray) -> Hemisphere:
    """Margin of the direction of w, and the bound of nonnegative multipliers."""
    norm, total = np.linalg.norm(w), multipliers.sum()
    w = w / norm if norm > 0 else w
    bound = float(np.linalg.norm(multipliers @ x) / total) if total > 0 else 1.0
    return Hemisphere(w, float((x @ w).min()), bound)
