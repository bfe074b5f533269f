r"""Modes of a kernel density: how many hills the density of the tokens has, expected and counted.

Attention moves tokens up the logarithm of their own kernel density, so its modes are where clusters can form
first. Uniform tokens on the circle have about $1.22\sqrt\beta$; normal tokens on the line $\sqrt{\beta\log\beta}$.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ive

from attnflow.theory.errors import Number, Numbers, check, check_finite, check_positive, one

TAIL = 40.0
"""Tokens whose kernel is below e^-TAIL / n of the nearest one's do not count in error bounds."""
SKEW = np.sqrt(3) / 18
"""Largest third central moment of a variable of range 1."""

Field = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def expected_circle_modes(beta: Numbers) -> np.ndarray:
    r"""Expected number of modes of $\sum_je^{\beta\cos(\theta-\theta_j)}$ for many uniform tokens on the circle.

    $\sqrt{\sum k^4I_k^2\big/\sum k^2I_k^2} = \sqrt{1+\frac{3\beta}2\frac{I_2(2\beta)}{I_1(2\beta)}}$, sums over
    k >= 1. Exact in the limit of many tokens, $n\gg\sqrt\beta$, where the density is a Gaussian field. Close to
    `circle_mode_law`.

    Args:
        beta: Inverse temperature, > 0, any shape.

    Returns:
        Number >= 1, the shape of `beta`.

    Raises:
        ValueError: If beta is not positive.

    Source:
        Kac-Rice formula for a stationary Gaussian process: zeros of f' come at the rate
        $\frac1\pi\sqrt{E f''^2/Ef'^2}$, half of them maxima; sums by Parseval.
    """
    beta = check_positive(beta, "beta")
    x = np.clip(2 * beta, 1e-30, 1e6)  # SciPy's Bessel functions end before floats do
    ratio = np.where(2 * beta > 1e6, 1 - 1.5 / np.maximum(2 * beta, 1), ive(2, x) / ive(1, x))
    return np.asarray(np.sqrt(1 + 1.5 * beta * ratio))


def circle_mode_law(beta: Numbers) -> np.ndarray:
    r"""Large-beta law of `expected_circle_modes`, $\sqrt{3\beta/2}$.

    Relative error $\frac1{24\beta}$ to leading order. The fastest linear mode is $\sqrt{2\beta}$
    (`stability.fastest_mode_law`): the same order, another constant, and no logarithm.

    Args:
        beta: Inverse temperature, > 0, any shape.

    Returns:
        Number, the shape of `beta`.

    Raises:
        ValueError: If beta is not positive.

    Source:
        See `expected_circle_modes`.
    """
    return np.asarray(np.sqrt(1.5 * check_positive(beta, "beta")))


def line_mode_law(beta: Numbers) -> np.ndarray:
    r"""Order of the number of modes of $\sum_je^{-\beta(x-X_j)^2/2}$, X_j standard normal: $\sqrt{\beta\log\beta}$.

    The expected number lies between two constants times that for $n^c\le\beta\le n^{2-c}$. The constants are not
    known; the ratio was near 0.45 wherever it was measured, n from 500 to 8000.

    Args:
        beta: Inverse squared bandwidth, > 1, any shape.

    Returns:
        Number, the shape of `beta`.

    Raises:
        ValueError: If beta is not above 1.

    Source:
        Geshkovski, Rigollet, Sun, "On the number of modes of Gaussian kernel density estimators" (2024).
    """
    beta = check_finite(beta, "beta")
    check(beta > 1, "beta", "be > 1", beta)
    return np.asarray(np.sqrt(beta * np.log(beta)))


def line_mode_band(n: Number, beta: Number) -> tuple[float, float]:
    r"""Distances from 0 between which almost all modes of the density of `line_mode_law` lie.

    $2\log n-3\log\beta\le x^2\le2\log n-\log\beta$: nearer to 0 the density is smooth, farther out tokens are
    alone. The statement is asymptotic: at n = beta = 2000 the band holds 86 % of them.

    Args:
        n: Number of tokens, > 1.
        beta: Inverse squared bandwidth, in (1, n^2).

    Returns:
        Smallest and largest |x|.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski, Rigollet, Sun (2024).
    """
    n, beta = one(check_finite, n, "n"), one(check_finite, beta, "beta")
    check(n > 1, "n", "be > 1", n)
    check(1 < beta < n**2, "beta", "lie in (1, n^2)", beta)
    inner, outer = (2 * np.log(n) - power * np.log(beta) for power in (3, 1))
    return float(np.sqrt(max(inner, 0.0))), float(np.sqrt(outer))


def circle_modes(theta: ArrayLike, beta: Number) -> np.ndarray:
    r"""Modes of the density $\sum_je^{\beta\cos(\theta-\theta_j)}$ of given tokens on the circle.

    The number is certain: the circle is cut into cells in which bounds on the logarithmic derivative and its
    slope leave no root or one. Works in logarithms, so gaps of any depth do not confuse it. Places are
    accurate to 1e-12 unless two modes are about to merge. O(n sqrt(beta)) time: 0.5 s for n = 2000, beta = 200.

    Args:
        theta: Angles of the tokens, shape (n,), n >= 1.
        beta: Inverse temperature, > 0.

    Returns:
        Places of the local maxima, increasing, in [-pi, pi), shape (m,), m >= 1.

    Raises:
        ValueError: If an argument is out of range, or the density is flat to rounding.

    Source:
        Fixed points of the spherical mean shift at which it is stable.
    """
    theta, beta = _sample(theta, "theta"), one(check_positive, beta, "beta")
    theta = np.sort(np.mod(theta, 2 * np.pi))
    around = np.concatenate([theta[-1:] - 2 * np.pi, theta, theta[:1] + 2 * np.pi])
    reach = (TAIL + np.log(len(theta))) / beta

    cosines, sines = np.cos(theta), np.sin(theta)

    def field(at):
        c, s = np.cos(at)[:, None], np.sin(at)[:, None]
        cosine, sine = c * cosines + s * sines, c * sines - s * cosines
        share = _softmax(beta * cosine)
        pull = (share * sine).sum(axis=1)
        spread = (share * (sine - pull[:, None]) ** 2).sum(axis=1)
        return pull, beta * spread - (share * cosine).sum(axis=1)

    def bend(at, radius):
        far = np.minimum(_nearest(around, np.mod(at, 2 * np.pi)) + radius, np.pi)
        width = np.arccos(np.maximum(np.cos(far) - reach, -1))
        across, along = 2 * np.sin(np.minimum(width, np.pi / 2)), 1 - np.cos(width)
        return across / 2 + 0.75 * beta * across * along + SKEW * beta**2 * across**3

    seam = theta[0] + 0.1234  # no place of symmetry
    cells = np.linspace(seam, seam + 2 * np.pi, 65)
    places = _falling_roots(field, bend, cells, beta)
    return np.sort(np.mod(places + np.pi, 2 * np.pi) - np.pi)


def line_modes(x: ArrayLike, beta: Number) -> np.ndarray:
    r"""Modes of the density $\sum_je^{-\beta(x-x_j)^2/2}$ of given points on the line.

    As certain as `circle_modes`, at the same cost per unit of length.

    Args:
        x: Points, shape (n,), n >= 1.
        beta: Inverse squared bandwidth, > 0.

    Returns:
        Places of the local maxima, increasing, shape (m,), m >= 1.

    Raises:
        ValueError: If an argument is out of range, or the density is flat to rounding.

    Source:
        Fixed points of Gaussian mean shift at which it is stable.
    """
    x, beta = np.sort(_sample(x, "x")), one(check_positive, beta, "beta")
    reach, ends = 2 * (TAIL + np.log(len(x))) / beta, np.array([-np.inf, np.inf])
    around = np.concatenate([ends[:1], x, ends[1:]])

    def field(at):
        apart = x - at[:, None]
        share = _softmax(-beta / 2 * apart**2)
        pull = (share * apart).sum(axis=1)
        spread = (share * (apart - pull[:, None]) ** 2).sum(axis=1)
        return pull, beta * spread - 1

    def bend(at, radius):
        far = _nearest(around, at) + radius
        return SKEW * beta**2 * (2 * np.sqrt(far**2 + reach)) ** 3

    margin = 1 / np.sqrt(beta)
    cells = np.linspace(x[0] - margin, x[-1] + margin, 65)
    return _falling_roots(field, bend, cells, beta)


def _falling_roots(
    field: Field, bend: Callable[..., np.ndarray], cells: np.ndarray, beta: float
) -> np.ndarray:
    """Where a field of known slope and bounded second derivative changes from + to -, increasing."""
    left, right = cells[:-1], cells[1:]
    found, flat = [], 0.0
    while len(left):
        middle, radius = (left + right) / 2, (right - left) / 2
        value, slope = _in_blocks(field, middle)
        turn = bend(middle, radius)
        clear = np.abs(value) > radius * np.abs(slope) + radius**2 / 2 * turn
        monotone = np.abs(slope) > radius * turn
        level = (np.abs(value) < 1e-13) & (np.abs(slope) < 1e-10 * (1 + beta))
        level &= radius * np.sqrt(beta) < 1e-3
        level |= radius < 1e-14 * (1 + np.abs(middle))
        flat += 2 * radius[level & ~clear & ~monotone].sum()
        keep = ~clear & ((monotone & (slope < 0)) | (level & ~monotone))
        found.append(np.stack([left[keep], right[keep]]))
        split = ~clear & ~monotone & ~level
        left, right, middle = left[split], right[split], middle[split]
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
    if flat > 1e-3 * (cells[-1] - cells[0]):
        raise ValueError(
            "The density is flat to rounding, so its modes are noise. Take a larger `beta`."
        )
    low, high = np.concatenate(found, axis=1)
    falls = (_in_blocks(field, low)[0] > 0) & (_in_blocks(field, high)[0] <= 0)
    low, high = low[falls], high[falls]
    for _ in range(50):
        middle = (low + high) / 2
        rising = _in_blocks(field, middle)[0] > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.sort((low + high) / 2)


def _in_blocks(field: Field, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Field at many places, in memory for a few."""
    parts = [field(block) for block in np.array_split(at, len(at) // 256 + 1)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _nearest(around: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Distance to the nearest of sorted points."""
    k = np.clip(np.searchsorted(around, at), 1, len(around) - 1)
    return np.minimum(at - around[k - 1], around[k] - at)


def _sample(points: ArrayLike, name: str) -> np.ndarray:
    """Finite numbers, shape (n,), n >= 1."""
    points = check_finite(points, name)  # pyright: ignore[reportArgumentType]
    check(points.ndim == 1 and points.size > 0, name, "be a list of numbers", points)
    return points
