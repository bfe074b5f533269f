r"""Linear stability of the uniform measure on the sphere: how fast each spherical harmonic grows.

$\mu = \sigma(1+\varepsilon Y_l)$ has $\varepsilon\sim e^{\lambda_lt}$. Every mode l >= 1 is unstable without noise;
the fastest sets the number of clusters that appear first.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import ive

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_choice,
    check_count,
    check_nonnegative,
    numbers,
)

MODELS = ("sa", "usa")
CLOCKS = ("physical", "rescaled")
LARGEST_BETA = 1e10
"""Beyond, the continued fraction of Bessel functions takes seconds and more."""
PEAK_RATE = 2 / np.e
"""Limit of the largest growth rate of (SA) as beta goes to infinity, in every dimension."""


def growth_rates(
    l: Numbers,  # noqa: E741
    *,
    beta: Numbers,
    d: int,
    model: str = "sa",
    kappa: Numbers = np.inf,
    clock: str = "physical",
) -> np.ndarray:
    r"""Growth rate of spherical harmonics of degree l on the uniform measure.

    $\lambda_l = \frac{l(l+d-2)}\beta\,\frac{I_{l+\nu}(\beta)}{I_\nu(\beta)} - \frac{l(l+d-2)}\kappa$ (SA),
    $\nu = d/2-1$; USA: the first term times $a_0(\beta) = \Gamma(d/2)(2/\beta)^\nu I_\nu(\beta)$. At beta = 0,
    $\lambda_1 = \frac{d-1}d$ and all others vanish. Ratios of Bessel functions come from their continued
    fraction, so no beta or d overflows or cancels on the way: relative error below 1e-13 at beta, d <= 1e4.
    O((d + max l + sqrt(beta)) size of beta) time.

    Args:
        l: Degrees, >= 0, any shape. Rate 0 for l = 0: mass is conserved.
        beta: Inverse temperature, >= 0, any shape that broadcasts with `l`.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".
        kappa: Noise $\sqrt{2/\kappa}\,dW$ per unit of the clock, > 0; inf is none.
        clock: Of USA: "physical", or "rescaled" by e^(-beta), which stays finite beyond beta = 709.

    Returns:
        Rates per unit time, of the broadcast shape; of USA inf or 0 where they leave the range of floats.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Bruno, Pasqualotto, Agazzi, "Emergence of meta-stable clustering in mean-field transformer models" (2025).
    """
    check_choice(model, "model", MODELS)
    check_choice(clock, "clock", CLOCKS)
    check_count(d, "d", 2)
    degree = np.asarray(l)
    check(degree.dtype.kind in "iu", "l", "hold whole numbers", degree)
    check(degree >= 0, "l", "be >= 0", degree)
    kappa = numbers(kappa, "kappa")
    check(kappa > 0, "kappa", "be > 0", kappa)
    degree, beta = np.broadcast_arrays(degree, _check_beta(beta))
    heats, place = np.unique(beta, return_inverse=True)
    table = _log_rates(int(degree.max(initial=1)), heats, d)
    if model == "usa":
        table += _log_mean_kernel(heats, d) + (heats if clock == "physical" else 0)
    bend = degree * (degree + d - 2.0)
    with np.errstate(over="ignore"):
        rate = np.exp(table[np.maximum(degree, 1), place.reshape(beta.shape)])
    return np.asarray(np.where(degree == 0, 0.0, rate * bend) - bend / kappa)


def fastest_mode(
    beta: Numbers, *, d: int, model: str = "sa", kappa: Numbers = np.inf
) -> np.ndarray:
    r"""Degree of the harmonic that grows fastest, $l^* = \mathrm{argmax}\,\lambda_l$.

    Without noise the same for SA and USA, between 1 and $1+\sqrt{2\beta}$. Of equal rates the lower degree.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa"; matters with noise only.
        kappa: Noise, as for `growth_rates`, > 0.

    Returns:
        Whole numbers >= 1, the shape of `beta`. With noise all rates may be negative: then the slowest decay.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `growth_rates`.
    """
    check_choice(model, "model", MODELS)
    beta, kappa = _check_beta(beta), numbers(kappa, "kappa")
    if model == "usa" and np.isfinite(kappa).any():  # a multiple of SA with another noise
        with np.errstate(over="ignore"):
            heats = np.atleast_1d(beta).ravel()
            kappa = kappa * np.exp(heats + _log_mean_kernel(heats, d)).reshape(beta.shape)
    degrees = np.arange(1, int(np.sqrt(2 * beta.max(initial=0))) + 4)
    rates = growth_rates(degrees, beta=beta[..., None], d=d, kappa=kappa[..., None])
    return np.asarray(degrees[rates.argmax(axis=-1)])


def fastest_mode_law(beta: Numbers, *, d: int) -> np.ndarray:
    r"""Large-beta law of the fastest mode, real l with $l(l+d-2) = 2\beta$: $\sqrt{2\beta}$ as beta grows.

    $l^*$ is within 1 of $\sqrt{2\beta+\nu^2}-\nu$, $\nu = d/2-1$, once beta is large against d.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        l, real, the shape of `beta`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        $I_{l+\nu}/I_\nu\approx e^{-l(l+d-2)/2\beta}$, so $\lambda\approx\frac x\beta e^{-x/2\beta}$ peaks at
        $x = l(l+d-2) = 2\beta$, with the value 2/e.
    """
    check_count(d, "d", 2)
    nu = d / 2 - 1
    beta = check_nonnegative(beta, "beta")
    return np.asarray(2 * beta / np.maximum(nu + np.hypot(nu, np.sqrt(2 * beta)), 1e-300))


def switch_values(l: Numbers, *, d: int) -> np.ndarray:  # noqa: E741
    r"""Inverse temperatures at which the fastest mode passes from l to l + 1, for SA and USA.

    Root of $\frac{I_{l+1+\nu}}{I_{l+\nu}}(\beta) = \frac{l(l+d-2)}{(l+1)(l+d-1)}$, relative error 1e-12.
    $\frac12(l+\frac12)(l+d-\frac32)+\frac18$ as l grows.

    Args:
        l: Degrees, >= 1, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        beta, the shape of `l`, increasing in l.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Equal rates of `growth_rates`.
    """
    check_count(d, "d", 2)
    degree = np.asarray(l)
    check(degree.dtype.kind in "iu", "l", "hold whole numbers", degree)
    check(degree >= 1, "l", "be >= 1", degree)
    return np.vectorize(lambda k: _switch(int(k), d), otypes=[float])(degree)


def onset_time(n: Numbers, *, beta: Number, d: int, model: str = "sa") -> np.ndarray:
    r"""Time in which the noise of n independent tokens, $n^{-1/2}$, grows to order 1.

    $\log\sqrt n/\max_l\lambda_l$, up to O(1): $0.68\log n$ for SA at large beta in every dimension.

    Args:
        n: Number of tokens, >= 1, any shape.
        beta: Inverse temperature, >= 0.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".

    Returns:
        Time, the shape of `n`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `growth_rates`.
    """
    n = numbers(n, "n")
    check(np.isfinite(n) & (n >= 1), "n", "be >= 1", n)
    fastest = fastest_mode(beta, d=d, model=model)
    return np.asarray(np.log(n) / 2 / growth_rates(fastest, beta=beta, d=d, model=model))


def _bessel_ratios(top: int, offset: float, beta: np.ndarray) -> np.ndarray:
    """I_o / (beta I_{o-1}) at orders o = offset + 1, ..., offset + top, shape (top, beta)."""
    last = top + 20 + int(7 * np.sqrt(beta.max(initial=0)))
    order = offset + last + 1
    q = 1 / (order + np.hypot(order, beta))
    ratios = np.empty((top, len(beta)))
    for k in range(last, 0, -1):
        q = 1 / (2 * (offset + k) + beta * (beta * q))
        if k <= top:
            ratios[k - 1] = q
    return ratios


def _log_rates(top: int, beta: np.ndarray, d: int) -> np.ndarray:
    """Logarithms of SA rates over l(l+d-2), degrees 0 (unused), 1, ..., top, shape (top + 1, beta)."""
    q = _bessel_ratios(top, d / 2 - 1, beta)
    with np.errstate(divide="ignore"):
        steps = np.log(beta * q)
    steps[0] = np.log(q[0])
    return np.concatenate([np.zeros((1, len(beta))), np.cumsum(steps, axis=0)])


def _log_mean_kernel(beta: np.ndarray, d: int) -> np.ndarray:
    """Logarithm of a_0 e^(-beta), from dimension 2 or 3 up in steps of 2, shape (beta,)."""
    offset, steps = (d % 2) / 2, (d - 2) // 2
    orders = offset + np.arange(1, steps + 1)
    rise = np.log(2 * orders[:, None] * _bessel_ratios(steps, offset, beta)).sum(axis=0)
    if d % 2 == 0:
        return rise + np.log(ive(0, beta))
    safe = np.where(beta == 0, 1, beta)
    return rise + np.where(beta == 0, 0, np.log(-np.expm1(-2 * safe) / (2 * safe)))


def _switch(l: int, d: int) -> float:  # noqa: E741
    """Root for one degree, between bounds of Amos on the ratio."""
    order, ratio = l + d / 2, l * (l + d - 2) / ((l + 1) * (l + d - 1))
    high = 2 * order * ratio / (1 - ratio**2)

    def excess(beta):
        heat = np.array([beta])
        return float(beta * _bessel_ratios(1, order - 1, heat)[0, 0] - ratio)

    return float(brentq(excess, high * (order - 0.5) / order, high, xtol=1e-300, rtol=1e-13))  # pyright: ignore


def _check_beta(beta: Numbers) -> np.ndarray:
    """Betas whose Bessel functions are known."""
    return check_between(check_nonnegative(beta, "beta"), "beta", 0, LARGEST_BETA)
