r"""Stationary configurations, and the exact spectra of regular polygons on the circle.

Energies are $E_\beta(\mu) = \frac{1}{2\beta}\iint e^{\beta\langle x,y\rangle}\mu\mu$; both flows climb it, from the
uniform measure (minimum) to a point (maximum).
"""

import numpy as np
from scipy.special import gammaln, ive

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_finite,
    check_positive,
    one,
)

MODELS = ("sa", "usa")
TRIANGLE_THRESHOLD = -2 / 3
"""Inverse temperature below which the ring of three tokens is stable."""


def polygon_rate(m: int, *, n: int, beta: Numbers, model: str = "sa") -> np.ndarray:
    r"""Growth rate of the perturbation $e^{2\pi i jm/n}$ of n equispaced tokens on the circle.

    $\mu_m^{USA} = \frac1n\sum_j f'(\frac{2\pi j}n)(\cos\frac{2\pi jm}n - 1)$,
    $f'(t) = e^{\beta\cos t}(\cos t-\beta\sin^2 t)$;
    $\mu_m^{SA} = \mu_m^{USA}\big/\frac1n\sum_j e^{\beta\cos(2\pi j/n)}$.
    Exact for finite n. Rounding is 1e-16 of the largest term: take `polygon_rate_bessel` for the tiny rates of
    high modes at small beta.

    Args:
        m: Mode, any integer; m and n - m agree, m = 0 is a rotation (rate 0).
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign, any shape.
        model: "sa" or "usa".

    Returns:
        Rate per unit time, the shape of `beta`; positive is unstable. USA overflows to inf beyond beta = 709.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Linearization of (SA) and (USA) at the regular n-gon: the matrix is circulant.
    """
    n, beta = _check_polygon(m, n, beta, model)
    t = 2 * np.pi * np.arange(n) / n
    cosine, bend = np.cos(t), np.cos(t * (m % n)) - 1
    kernel = np.exp(beta[..., None] * cosine - np.abs(beta)[..., None])
    rate = (kernel * (cosine - beta[..., None] * np.sin(t) ** 2) * bend).mean(axis=-1)
    return _normalized(rate, kernel.mean(axis=-1), beta, model)


def polygon_rate_bessel(m: int, *, n: int, beta: Numbers, model: str = "sa") -> np.ndarray:
    r"""Same rate as `polygon_rate`, as a series of Bessel functions and their aliases.

    $\mu_m^{USA} = \frac1\beta\big[\sum_{k\equiv m} k^2I_k + \sum_{k\equiv -m} k^2I_k - 2\sum_{k\equiv 0} k^2I_k\big]$,
    k >= 1 modulo n: a mode that is both m and -m counts twice. The SA normalizer is
    $I_0 + 2\sum_{k\equiv0}I_k$. As n grows the aliases vanish faster than any exponential, which leaves the
    mean-field rate $k^2I_k/\beta$ (USA), $k^2I_k/(\beta I_0)$ (SA). Terms below 1e-30 of the largest are dropped.
    The sums cancel once beta is large for n: take `polygon_rate` when n is below $6\sqrt\beta$.

    Args:
        m: Mode, any integer.
        n: Number of tokens, >= 2.
        beta: Inverse temperature, finite, any sign, any shape.
        model: "sa" or "usa".

    Returns:
        Rate per unit time, the shape of `beta`; positive is unstable. USA overflows to inf beyond beta = 709.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Poisson summation of `polygon_rate` with the series of `kuramoto.kernel_coefficients`.
    """
    n, beta = _check_polygon(m, n, beta, model)
    check(np.abs(beta) <= 1e10, "beta", "lie in [-1e10, 1e10]", beta, "Take `polygon_rate`.")
    k = np.arange(1, 2 * n + int(12 * np.sqrt(np.abs(beta).max(initial=0))) + 60)
    count = 1.0 * (k % n == m % n) + (k % n == -m % n) - 2.0 * (k % n == 0)
    b = beta[..., None]
    sine = np.where(b == 0, 0.5 * (k == 1), k * ive(k, b) / np.where(b == 0, 1, b))  # k I_k / beta
    mean = ive(0, beta) + 2 * (ive(k, b) * (k % n == 0)).sum(axis=-1)
    return _normalized((count * k * sine).sum(axis=-1), mean, beta, model)


def triangle_rate(beta: Numbers) -> np.ndarray:
    r"""Growth rate of the ring of three tokens under (USA), $e^{-\beta/2}(\frac12+\frac34\beta)$.

    Negative below beta = -2/3: three tokens at 120 degrees are then stable, and not all starts synchronize.

    Args:
        beta: Inverse temperature, finite, any shape.

    Returns:
        Rate per unit time, the shape of `beta`.

    Raises:
        ValueError: If beta is not finite.

    Source:
        `polygon_rate` at n = 3, m = 1.
    """
    beta = check_finite(beta, "beta")
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-beta / 2) * (0.5 + 0.75 * beta))


def triangle_group_rates(beta: Number, *, model: str = "sa") -> tuple[float, float]:
    r"""Growth rates of three equal groups of tokens at 120 degrees: between groups, and inside a group.

    Between: mode 1 of `polygon_rate` at n = 3. Inside (USA): $-\frac13\big(e^\beta + 2f'(\frac{2\pi}3)\big)$ with
    $f'(\frac{2\pi}3) = -e^{-\beta/2}(\frac12+\frac34\beta)$; SA divides both by $\frac13(e^\beta+2e^{-\beta/2})$.
    Below beta = -2/3 both are negative: the ring attracts.

    Args:
        beta: Inverse temperature, finite.
        model: "sa" or "usa".

    Returns:
        Rates (between, inside) per unit time.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Linearization of (SA) and (USA); the inside rate is that of one token against the frozen others.
    """
    check_choice(model, "model", MODELS)
    beta = one(check_finite, beta, "beta")
    largest = max(beta, -beta / 2)
    own, other = np.exp(beta - largest), np.exp(-beta / 2 - largest)
    between = other * (0.5 + 0.75 * beta)
    inside = -(own - 2 * between) / 3
    if model == "sa":
        z = (own + 2 * other) / 3
        return float(between / z), float(inside / z)
    with np.errstate(over="ignore"):
        return float(triangle_rate(beta)), float(inside * np.exp(largest))


def stationary_grams(n: int) -> dict[str, np.ndarray]:
    """Gram matrices of known stationary configurations of n tokens, for every beta, SA and USA, V = +-I.

    Args:
        n: Number of tokens, >= 2.

    Returns:
        Gram matrices of shape (n, n) by name: "consensus" (one point), "antipodal" (n // 2 tokens at u, the
        others at -u), "polygon" (regular, on a great circle), "simplex" (equal cosines -1/(n-1)).

    Raises:
        ValueError: If n < 2.

    Source:
        Symmetry: each token's attention vector is parallel to the token.
    """
    check_count(n, "n", 2)
    sign = np.where(np.arange(n) < n // 2, 1.0, -1.0)
    t = 2 * np.pi * np.arange(n) / n
    return {
        "consensus": np.ones((n, n)),
        "antipodal": np.outer(sign, sign),
        "polygon": np.cos(t[:, None] - t),
        "simplex": (n * np.eye(n) - 1) / (n - 1),
    }


def gegenbauer_coefficient(degree: int, *, d: int, beta: Numbers) -> np.ndarray:
    r"""Funk-Hecke eigenvalue of the kernel, $\int e^{\beta\langle x,y\rangle}Y_l(y)\,\sigma(dy) = a_l(\beta)Y_l(x)$.

    $a_l(\beta) = \Gamma(d/2)(2/\beta)^\nu I_{l+\nu}(\beta)$, $\nu = d/2-1$, sigma the uniform probability measure.

    Args:
        degree: l, >= 0.
        d: Dimension of the ambient space, >= 2.
        beta: Inverse temperature, > 0, any shape.

    Returns:
        a_l, the shape of `beta`, > 0, decreasing in l.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Funk-Hecke formula.
    """
    check_count(degree, "degree", 0)
    check_count(d, "d", 2)
    beta, nu = check_positive(beta, "beta"), d / 2 - 1
    with np.errstate(over="ignore"):
        scale = np.exp(gammaln(d / 2) + nu * np.log(2 / beta) + beta)
        return np.asarray(scale * ive(degree + nu, np.minimum(beta, 1e8)))  # inf beyond 709


def uniform_energy(beta: Numbers, *, d: int) -> np.ndarray:
    r"""Energy of the uniform measure, $a_0(\beta)/(2\beta)$: the minimum.

    Args:
        beta: Inverse temperature, > 0, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        E, the shape of `beta`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 3.2.
    """
    return np.asarray(gegenbauer_coefficient(0, d=d, beta=beta) / (2 * np.asarray(beta, float)))


def consensus_energy(beta: Numbers) -> np.ndarray:
    r"""Energy of a single point, $e^\beta/(2\beta)$: the maximum.

    Args:
        beta: Inverse temperature, > 0, any shape.

    Returns:
        E, the shape of `beta`.

    Raises:
        ValueError: If beta is not positive.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 3.2.
    """
    beta = check_positive(beta, "beta")
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(beta) / (2 * beta))


def _check_polygon(m: int, n: int, beta: Numbers, model: str) -> tuple[int, np.ndarray]:
    """Arguments of a spectrum."""
    check_choice(model, "model", MODELS)
    check(isinstance(m, int | np.integer), "m", "be a whole number", m)
    return check_count(n, "n", 2), check_finite(beta, "beta")


def _normalized(rate: Number, mean: Number, beta: np.ndarray, model: str) -> np.ndarray:
    """Rate of the model from the USA rate and the partition function, both times e^-|beta|."""
    with np.errstate(over="ignore"):
        return np.asarray(rate / mean if model == "sa" else rate * np.exp(np.abs(beta)))
