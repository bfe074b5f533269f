"""Densities on the circle, by Fourier modes; their quantiles, and what follows a collapse."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.errors import check_count


class Circle(eqx.Module):
    r"""Densities on the circle by the Fourier modes k = 0..degree; a state has shape (2, degree + 1).

    Relative to the uniform law of mass 1, in the orthonormal basis $1, \sqrt2\cos k\theta, \sqrt2\sin k\theta$:
    row 0 holds means of cosines, row 1 of sines, and $\int e^{-ik\theta}d\mu = (c_{0k} - ic_{1k})/\sqrt2$.

    Attributes:
        degree: Highest mode.
    """

    degree: int = eqx.field(static=True)

    def __check_init__(self):
        check_count(self.degree, "degree")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of a state."""
        return ("part", "degree")

    @property
    def d(self) -> int:
        """Dimension of the space around the sphere."""
        return 2

    @property
    def size(self) -> int:
        """Number of grid points, which integrate degree 4 degree - 1 exactly."""
        return 4 * self.degree

    @property
    def grid(self) -> np.ndarray:
        """Angles of the grid, shape (size,)."""
        return 2 * np.pi * np.arange(self.size) / self.size

    @property
    def uniform(self) -> Float[Array, "2 k"]:
        """Modes of the uniform density."""
        return jnp.zeros((2, self.degree + 1)).at[0, 0].set(1)

    @property
    def degrees(self) -> np.ndarray:
        """Degree of each mode, in the shape of a state or broadcast to it."""
        return np.arange(self.degree + 1)

    def values(self, modes: Float[Array, "2 k"]) -> Float[Array, " size"]:
        """Density on the grid."""
        return series(modes, self.size)

    def modes(self, values: Float[Array, " size"]) -> Float[Array, "2 k"]:
        """Modes of a function on the grid."""
        return moments(values, self.degree)

    def gradients(self, modes: Float[Array, "2 k"]) -> tuple[Array, ...]:
        """Components of the gradient of a function, on the grid."""
        return (series(turned(modes), self.size),)

    def against_gradients(self, fields: tuple[Array, ...]) -> Float[Array, "2 k"]:
        """Mean of <field, gradient of each basis function>."""
        return -turned(moments(fields[0], self.degree))

    def mean(self, values: Float[Array, " size"]) -> Float[Array, ""]:
        """Mean of a function on the grid."""
        return values.mean()

    def order_parameter(self, modes: Float[Array, "2 k"]) -> Float[Array, ""]:
        """Length R of the mean token."""
        return jnp.sqrt((modes[:, 1] ** 2).sum() / 2)


def series(modes: Float[Array, "*b 2 k"], size: int) -> Float[Array, "*b size"]:
    """Fourier series with given orthonormal modes at `size` even angles from 0."""
    spectrum = (modes[..., 0, :] - 1j * modes[..., 1, :]) / np.sqrt(2)
    spectrum = spectrum.at[..., 0].set(modes[..., 0, 0])
    return jnp.fft.irfft(size * spectrum, size)


def moments(values: Float[Array, "*b size"], degree: int) -> Float[Array, "*b 2 k"]:
    """Orthonormal modes up to `degree` of values at even angles from 0."""
    spectrum = jnp.fft.rfft(values)[..., : degree + 1] / values.shape[-1]
    modes = np.sqrt(2) * jnp.stack([spectrum.real, -spectrum.imag], axis=-2)
    return modes.at[..., 0].set(jnp.stack([spectrum[..., 0].real, 0 * spectrum[..., 0].real], -1))


def turned(modes: Float[Array, "*b 2 k"]) -> Float[Array, "*b 2 k"]:
    """Modes of the derivative by the angle."""
    k = jnp.arange(modes.shape[-1])
    return jnp.stack([k * modes[..., 1, :], -k * modes[..., 0, :]], axis=-2)


def modes_of(theta: np.ndarray, degree: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Modes of tokens at angles theta, shape (n,), as a state of `Circle(degree)`; O(n degree)."""
    theta = np.asarray(theta, float)
    weights = np.full(len(theta), 1 / len(theta)) if weights is None else np.asarray(weights, float)
    turn, power = np.exp(1j * theta), weights.astype(complex)
    modes = np.empty((2, degree + 1))
    for k in range(degree + 1):
        total = complex(power.sum())
        modes[:, k] = total.real, total.imag
        power = power * turn
    modes[:, 1:] *= np.sqrt(2)
    return modes


def quantiles(modes: Float[Array, "2 k"] | np.ndarray, u: np.ndarray) -> np.ndarray:
    r"""Angles theta in [0, 2 pi) with $\mu([0,\theta]) = u$, shape of u in [0, 1); exact to rounding.

    Newton's method on the integrated Fourier series, from a fine grid, inside its cell.

    Raises:
        ValueError: If the density is negative somewhere.
    """
    table, u = np.asarray(modes, float), np.asarray(u, float)
    size = 16 * table.shape[1]
    fine = np.asarray(series(jnp.asarray(table), size))
    if fine.min() < 0:
        raise ValueError(
            f"Argument `modes` must be those of a density, but it falls to {fine.min():.3g}."
        )
    k = np.arange(1, table.shape[1])
    wave = np.sqrt(2) * (table[0, 1:] - 1j * table[1, 1:])

    def mass(theta):
        turns = np.exp(1j * np.multiply.outer(theta, k))
        return (theta + ((turns - 1) @ (wave / (1j * k))).real) / (2 * np.pi)

    def density(theta):
        return (1 + (np.exp(1j * np.multiply.outer(theta, k)) @ wave).real) / (2 * np.pi)

    edges = 2 * np.pi * np.arange(size + 1) / size
    heights = mass(edges)
    cell = np.clip(np.searchsorted(heights, u, side="right") - 1, 0, size - 1)
    low, high = edges[cell], edges[cell + 1]
    rise = heights[cell + 1] - heights[cell]
    theta = low + (high - low) * (u - heights[cell]) / np.where(rise > 0, rise, 1)
    for rows in np.array_split(np.arange(u.size), max(1, u.size * len(k) // 2**22)):
        for _ in range(4):
            slope = np.maximum(density(theta[rows]), 1e-300)
            step = (mass(theta[rows]) - u[rows]) / slope
            theta[rows] = np.clip(theta[rows] - step, low[rows], high[rows])
    return theta


def tokens(modes: Float[Array, "2 k"] | np.ndarray, n: int) -> np.ndarray:
    """Quantiles (i + 1/2)/n of a density as n tokens of equal weight, shape (n, 2).

    What they do under `sa(beta)` or `usa(beta)` is what the density does, however narrow it gets:
    while its quantile function is smooth, sums over them are exact beyond all powers of 1/n.
    """
    check_count(n, "n")
    theta = quantiles(modes, (np.arange(n) + 0.5) / n)
    return np.stack([np.cos(theta), np.sin(theta)], axis=1)
