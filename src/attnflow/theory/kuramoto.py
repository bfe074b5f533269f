r"""Tokens on the circle: the Bessel series of the kernel, and the solvable case beta = 0 (Kuramoto).

With $x_j = (\cos\theta_j, \sin\theta_j)$, (USA) reads $\dot\theta_i = -\frac1n\sum_j f(\theta_i-\theta_j)$,
$f(t) = e^{\beta\cos t}\sin t$; at beta = 0 it is $\dot\theta_i = R\sin(\psi-\theta_i)$.
"""

import numpy as np
from scipy.special import ive

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_count,
    check_finite,
    check_positive,
    check_times,
    one,
)
from attnflow.theory.panels import log_integral


def kernel_coefficients(beta: Number, modes: int, *, scaled: bool = False) -> np.ndarray:
    r"""Bessel coefficients of the kernel, $e^{\beta\cos t} = I_0(\beta) + 2\sum_{k\ge1} I_k(\beta)\cos kt$.

    Args:
        beta: Inverse temperature, finite, any sign.
        modes: Largest k, >= 0; `mode_count` says how many matter.
        scaled: Multiply by $e^{-|\beta|}$: no overflow at any beta.

    Returns:
        $I_0, \dots, I_{modes}$, shape (modes + 1,).

    Raises:
        ValueError: If beta is not finite or modes < 0.

    Source:
        Jacobi-Anger expansion; Abramowitz and Stegun, 9.6.34.
    """
    beta, modes = one(check_finite, beta, "beta"), check_count(modes, "modes", 0)
    coefficients = ive(np.arange(modes + 1), beta)
    with np.errstate(over="ignore"):
        return coefficients if scaled else coefficients * np.exp(abs(beta))


def force_coefficients(beta: Number, modes: int, *, scaled: bool = False) -> np.ndarray:
    r"""Sine coefficients of the interaction, $e^{\beta\cos t}\sin t = \sum_{k\ge1} b_k\sin kt$.

    $b_k = 2kI_k(\beta)/\beta$, and $b_1 = 1$ alone at beta = 0.

    Args:
        beta: Inverse temperature, finite, any sign.
        modes: Largest k, >= 1.
        scaled: Multiply by $e^{-|\beta|}$: no overflow at any beta.

    Returns:
        $b_1, \dots, b_{modes}$, shape (modes,).

    Raises:
        ValueError: If beta is not finite or modes < 1.

    Source:
        Derivative of the series in `kernel_coefficients`, divided by -beta.
    """
    beta, modes = one(check_finite, beta, "beta"), check_count(modes, "modes", 1)
    order = np.arange(1, modes + 1)
    if beta == 0:
        return (order == 1).astype(float)
    coefficients = 2 * order * ive(order, beta) / beta
    with np.errstate(over="ignore"):
        return coefficients if scaled else coefficients * np.exp(abs(beta))


def mode_count(beta: Number, *, tol: Number = 1e-17) -> int:
    r"""Number of Fourier modes that the kernel has above `tol`: smallest k with $|I_k/I_0| <$ tol.

    About $9\sqrt{\beta}$ at the default tolerance and large beta.

    Args:
        beta: Inverse temperature, finite, any sign.
        tol: Relative size below which a mode is dropped, in [1e-100, 1].

    Returns:
        k, >= 1.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Numerical; $I_k/I_0 \approx e^{-k^2/2\beta}$ for large beta.
    """
    beta = abs(one(check_finite, beta, "beta"))
    tol = one(check_between, tol, "tol", 1e-100, 1)
    order = np.arange(1, int(22 * np.sqrt(beta)) + 120)
    return int(order[np.argmax(ive(order, beta) < tol * ive(0, beta))])


def ott_antonsen(ts: Numbers, r0: Number) -> np.ndarray:
    r"""Order parameter R(t) at beta = 0 of infinitely many tokens with Poisson-kernel density.

    $R^2 = R_0^2e^t/(1-R_0^2+R_0^2e^t)$, from $\dot R = R(1-R^2)/2$; the mean phase is constant.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `r0`.
        r0: Initial order parameter, in [0, 1].

    Returns:
        R(ts), shape (t,), in [0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Ott, Antonsen, "Low dimensional behavior of large systems of globally coupled oscillators" (2008).
    """
    ts, r0 = check_times(ts), check_between(r0, "r0", 0, 1)
    if r0 == 0:
        return np.zeros_like(ts)
    fade = np.exp(ts[0] - ts)
    return r0 / np.sqrt(r0**2 + (1 - r0**2) * fade)


def poisson_angles(n: int, r0: Number) -> np.ndarray:
    r"""Angles of n tokens at the quantile midpoints of the Poisson kernel with mean r0.

    $\theta_j = 2\arctan\left(\frac{1-R_0}{1+R_0}\tan\frac{u_j}{2}\right)$, $u_j$ equispaced midpoints of
    $(-\pi,\pi)$. Their order parameter is r0 up to $r_0^n$.

    Args:
        n: Number of tokens, >= 1.
        r0: Order parameter, in [0, 1).

    Returns:
        Increasing angles in (-pi, pi), shape (n,).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Möbius image of the uniform measure; Marvel, Mirollo, Strogatz, "Identical phase oscillators with
        global sinusoidal coupling evolve by Möbius group action" (2009).
    """
    check_count(n, "n", 1)
    r0 = check_between(r0, "r0", 0, 1)
    check(r0 < 1, "r0", "be < 1", r0)
    u = np.pi * (2 * np.arange(n) + 1 - n) / n
    return 2 * np.arctan((1 - r0) / (1 + r0) * np.tan(u / 2))


def noisy_mean_square(n: int, kappa: Numbers) -> np.ndarray:
    r"""Mean of R^2 of n tokens at beta = 0 under noise, once they have forgotten their start.

    Their law $e^{\kappa nR^2/2}$ is Gaussian in a common field h, of density $h(e^{-\kappa h^2/2}I_0(\kappa h))^n$,
    so that $E[R^2] = E[h^2] - \frac2{n\kappa}$, exact for every n: 1/n as kappa falls to 0, and $r^2$ as n
    grows, r = `noisy.kuramoto_order_parameter(kappa)`. Error below 1e-13 (1 + 1/(n kappa)).

    Args:
        n: Number of tokens, >= 1.
        kappa: Noise $\sqrt{2/\kappa}\,dW$, finite and > 0, any shape.

    Returns:
        Mean of R^2, the shape of `kappa`, in (0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Stationary law of the gradient flow of R^2/2; Hubbard-Stratonovich transformation.
    """
    check_count(n, "n", 1)
    kappa = check_positive(kappa, "kappa")
    return np.vectorize(lambda k: _mean_square(n, float(k)), otypes=[float])(kappa)


def _mean_square(n: int, kappa: float) -> float:
    if n * kappa < 1e-17:  # uniform tokens, to rounding
        return 1 / n
    width = 1 / np.sqrt(n * kappa)
    edges = np.linspace(0, 1 + 14 * width, 2 * int(1 / width) + 40)

    def log_density(h):
        return np.log(h) + n * (np.log(ive(0, kappa * h)) + kappa * (h - h**2 / 2))

    total = log_integral(log_density, edges)
    second = log_integral(lambda h: log_density(h) + 2 * np.log(h), edges)
    return float(np.exp(second - total) - 2 * width**2)


def cross_ratios(theta: np.ndarray) -> np.ndarray:
    r"""Cross ratios of neighbouring quadruples, conserved at beta = 0 for every n.

    $\frac{(z_1-z_3)(z_2-z_4)}{(z_1-z_4)(z_2-z_3)}$ with $z_j = e^{i\theta_j}$: real on the circle, equal to
    $\frac{\sin(\theta_{13}/2)\sin(\theta_{24}/2)}{\sin(\theta_{14}/2)\sin(\theta_{23}/2)}$. Not conserved at
    beta > 0.

    Args:
        theta: Angles of pairwise distinct tokens, shape (..., n), n >= 4.

    Returns:
        Cross ratios of tokens j, ..., j + 3, shape (..., n - 3).

    Raises:
        ValueError: If there are fewer than four angles, or one is not finite.

    Source:
        Watanabe, Strogatz, "Constants of motion for superconducting Josephson arrays" (1994).
    """
    theta = check_finite(theta, "theta")
    if theta.ndim == 0 or theta.shape[-1] < 4:
        raise ValueError(
            f"Argument `theta` must hold at least four angles, but theta.shape={theta.shape}."
        )
    a, b, c, d = (theta[..., k : theta.shape[-1] - 3 + k] for k in range(4))

    def chord(p, q):
        return np.sin((p - q) / 2)

    return chord(a, c) * chord(b, d) / (chord(a, d) * chord(b, c))
