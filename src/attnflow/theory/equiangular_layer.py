r"""Equiangular tokens through one layer: the three numbers of attention, and what they make of a configuration.

Token i sees $x_i$ with weight $E/(E+n-1)$ and each other token with $1/(E+n-1)$, where $E = e^\lambda$,
$\lambda = \beta(1-\rho)$. A configuration is a pair (gap, mean): $g = 1-\rho$ and $m = |\bar x|^2 = \rho+(1-\rho)/n$;
near consensus and near the simplex one of the two is small, and keeps its own relative accuracy.
"""

import numpy as np

from attnflow.theory.errors import Number, Numbers, check, check_finite, check_nonnegative, numbers

LIMIT = "No n vectors have common cosine below -1/(n-1)."


def check_size(n: Numbers, name: str = "n") -> np.ndarray:
    """Return a number of tokens as floats: whole numbers >= 2."""
    array = numbers(n, name)
    whole = np.isfinite(array) & (array == np.floor(array))
    check(whole & (array >= 2), name, "be a whole number >= 2", array)
    return array


def check_tokens(rho: Numbers, n: Numbers, name: str = "rho") -> tuple[np.ndarray, ...]:
    """Return gap, mean and n of equiangular tokens; the lower end of the cosine absorbs rounding."""
    n, rho = np.broadcast_arrays(check_size(n), check_finite(rho, name))
    low = -1 / (n - 1)
    inside = (rho >= low * (1 + 1e-15)) & (rho <= 1)
    check(inside, name, "lie in [-1/(n-1), 1]", rho, LIMIT)
    rho = np.maximum(rho, low)
    mean = np.where(rho == low, 0.0, (1 + (n - 1) * rho) / n)
    return np.asarray(1 - rho), np.asarray(np.maximum(mean, 0.0)), n


def check_eta(eta: Numbers | None) -> np.ndarray | None:
    """Return the step of a residual block as floats >= 0; None, which is no residual, stays."""
    return None if eta is None else check_nonnegative(eta, "eta")


def weights(lead: Number, n: Number) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight on itself, on each other token, and their difference, each to its own relative accuracy."""
    small = np.exp(-np.abs(lead))
    up = lead > 0
    total = np.where(up, 1 + (n - 1) * small, small + n - 1)
    own, other = np.where(up, 1, small), np.where(up, small, 1)
    delta = -np.sign(lead) * np.expm1(-np.abs(lead)) / total
    return np.asarray(own / total), np.asarray(other / total), np.asarray(delta)


def factors(delta: Number, eta: Number | None) -> tuple[Number, Number]:
    """How a layer scales each token's distance from the mean, and the mean itself."""
    return (delta, 1.0) if eta is None else (1 + eta * delta, 1 + eta)


def attend(
    gap: np.ndarray,
    mean: np.ndarray,
    n: np.ndarray,
    beta: np.ndarray,
    eta: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Gap and mean of the normalised outputs, and their squared length before.

    $y_i = s(x_i-\bar x)+c\bar x$, so $|y|^2 = s^2g\frac{n-1}n+c^2m$, $1-C = s^2g/|y|^2$: sums of squares only.
    NaN where the outputs vanish.
    """
    with np.errstate(over="ignore"):
        lead = beta * gap
    spread, common = factors(weights(lead, n)[2], eta)
    away, along = spread**2 * gap, common**2 * mean
    square = away * (n - 1) / n + along
    with np.errstate(invalid="ignore"):
        return np.asarray(away / square), np.asarray(along / square), np.asarray(square)
