"""Gegenbauer polynomials, quadrature and the kernel e^(beta <x, y>) on the sphere of any dimension."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import eigh_tridiagonal

from attnflow.errors import check_between, check_count

LARGEST_D = 1000
"""Dimension up to which densities are implemented."""
KERNEL_TAIL = 1e-16
"""Size of what `kernel_degree` leaves out of the kernel, relative to its mean."""


def nodes(d: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature for the law of <x, e>, x uniform on S^(d-1): heights t and weights of sum 1.

    Exact for polynomials of degree 2 count - 1. O(count^2) time.

    Args:
        d: Dimension, 2 to 1000.
        count: Number of nodes, >= 1.

    Returns:
        Increasing heights in (-1, 1) and positive weights, both of shape (count,).
    """
    check_dimension(d)
    check_count(count, "count")
    if d == 2:
        t = -np.cos(np.pi * (np.arange(count) + 0.5) / count)
        return t, np.full(count, 1 / count)
    t = np.asarray(eigh_tridiagonal(np.zeros(count), _steps(count - 1, d), eigvals_only=True))
    t = (t - t[::-1]) / 2
    return t, 1 / (basis(t, count - 1, d) ** 2).sum(axis=1)


def basis(t: np.ndarray, degree: int, d: int) -> np.ndarray:
    r"""Orthonormal polynomials $p_l$ for the law of <x, e>, l = 0..degree, shape (len(t), degree + 1).

    $p_l(\langle x,e\rangle)$ is the zonal harmonic of mean square 1; $p_1 = \sqrt d\,t$.
    """
    return _recurrence(np.asarray(t, float), degree, d)[0]


def slopes(t: np.ndarray, degree: int, d: int) -> np.ndarray:
    r"""Length of the gradient of each zonal harmonic, $\sqrt{1-t^2}\,p_l'(t)$, signed, as `basis`."""
    t = np.asarray(t, float)
    return np.sqrt(1 - t**2)[:, None] * _recurrence(t, degree, d)[1]


def multipliers(beta: Float[Array, ""] | float, degree: int, d: int) -> Float[Array, " l"]:
    r"""Eigenvalues of the kernel, $e^{-\beta}a_l(\beta)$, l = 0..degree.

    $\int e^{\beta\langle x,y\rangle}Y_l(y)\,\sigma(dy) = a_l(\beta)Y_l(x)$, $\sigma$ uniform of mass 1.
    """
    mean, rates = kernel(beta, degree, d)
    beta = jnp.asarray(beta, rates.dtype)
    return mean * jnp.concatenate([jnp.ones(1, rates.dtype), beta * rates[1:]])


def kernel(
    beta: Float[Array, ""] | float, degree: int, d: int
) -> tuple[Float[Array, ""], Float[Array, " l"]]:
    r"""Mean of the kernel, $e^{-\beta}a_0$, and $\frac{a_l}{\beta a_0}$ for l = 0 (set to 0), ..., degree.

    Ratios of Bessel functions come from their continued fraction and the mean from Gauss quadrature, all
    terms positive: relative error near rounding, for every beta >= 0 that `degree` resolves (see
    `kernel_degree`). At beta = 0 the ratio is 1/d for l = 1 and 0 beyond. Differentiable in beta.

    Args:
        beta: Inverse temperature, >= 0.
        degree: Highest degree, >= 1.
        d: Dimension, 2 to 1000.

    Returns:
        Mean, and ratios of shape (degree + 1,).
    """
    dtype = jnp.result_type(float)
    beta = jnp.asarray(beta, dtype)
    t, weights = (jnp.asarray(a, dtype) for a in nodes(d, 2 * degree + 20))
    orders = jnp.arange(2 * degree + 20, 0, -1) + (d / 2 - 1)

    def step(q, order):
        q = 1 / (2 * order + beta * (beta * q))
        return q, q

    start = 1 / (orders[0] + 1 + jnp.hypot(orders[0] + 1, beta))
    ratios = jax.lax.scan(step, start, orders)[1][::-1][:degree]
    rates = ratios[0] * jnp.cumprod(jnp.concatenate([jnp.ones(1, dtype), beta * ratios[1:]]))
    return weights @ jnp.exp(beta * (t - 1)), jnp.concatenate([jnp.zeros(1, dtype), rates])


def kernel_degree(beta: float, d: int) -> int:
    """Smallest degree beyond which the kernel is below 1e-16 of its mean, at least 8; O(sqrt(beta))."""
    check_dimension(d)
    check_between(beta, "beta", low=0.0, high=1e6)
    beta, last = float(beta), 40 + int(10 * np.sqrt(float(beta)))
    q = 1 / (last + d / 2 + np.hypot(last + d / 2, beta))
    logs = np.empty(last)
    for k in range(last, 0, -1):
        q = 1 / (2 * (d / 2 - 1 + k) + beta * beta * q)
        logs[k - 1] = np.log(max(beta * q, 1e-300))
    return max(8, int(np.searchsorted(-np.cumsum(logs), -np.log(KERNEL_TAIL))) + 1)


def check_dimension(d: int) -> None:
    """Raise `ValueError` unless densities are implemented in this dimension."""
    check_count(d, "d", low=2)
    check_between(d, "d", high=LARGEST_D, remedy="Beyond, follow tokens with `solve`.")


def _steps(degree: int, d: int) -> np.ndarray:
    """Recurrence t p_l = b_(l+1) p_(l+1) + b_l p_(l-1): b_1, ..., b_degree."""
    l = np.arange(2, degree + 1)  # noqa: E741
    square = l * (l + d - 3) / ((2 * l + d - 2) * (2 * l + d - 4.0)) if degree > 1 else l
    return np.sqrt(np.concatenate([[1 / d], square])[:degree])


def _recurrence(t: np.ndarray, degree: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials and their derivatives by t, both of shape (len(t), degree + 1)."""
    b = np.concatenate([[0.0], _steps(degree, d)])
    p, slope = np.zeros((2, degree + 1, len(t)))
    p[0] = 1
    for l in range(degree):  # noqa: E741
        below = b[l] * (p[l - 1] if l else 0), b[l] * (slope[l - 1] if l else 0)
        p[l + 1] = (t * p[l] - below[0]) / b[l + 1]
        slope[l + 1] = (p[l] + t * slope[l] - below[1]) / b[l + 1]
    return p.T, slope.T
