"""Densities on S^2 by spherical harmonics."""

from __future__ import annotations

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.errors import check_count
from attnflow.meanfield.circle import moments, series
from attnflow.meanfield.gegenbauer import nodes


class Sphere(eqx.Module):
    r"""Densities on S² by spherical harmonics up to a degree; a state has shape (2, degree + 1, degree + 1).

    Relative to the uniform law of mass 1, in real orthonormal harmonics: entry (0, l, m) belongs to
    $\sqrt2\bar P_{lm}(\cos\vartheta)\cos m\varphi$ (without $\sqrt2$ for m = 0), (1, l, m) to the sine;
    entries with m > l, and sines of m = 0, are 0. (0, l, 0) are the modes of `Zonal(3, degree)`.

    Attributes:
        degree: Highest degree.
    """

    degree: int = eqx.field(static=True)

    def __check_init__(self):
        check_count(self.degree, "degree")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of a state."""
        return ("part", "degree", "order")

    @property
    def d(self) -> int:
        """Dimension of the space around the sphere."""
        return 3

    @property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Heights (2 degree,), Gauss-Legendre, and longitudes (4 degree,), even from 0."""
        size = 4 * self.degree
        return nodes(3, 2 * self.degree)[0], 2 * np.pi * np.arange(size) / size

    @property
    def uniform(self) -> Float[Array, "2 l m"]:
        """Modes of the uniform density."""
        return jnp.zeros((2, self.degree + 1, self.degree + 1)).at[0, 0, 0].set(1)

    @property
    def degrees(self) -> np.ndarray:
        """Degree of each mode, broadcast to a state."""
        return np.arange(self.degree + 1)[:, None]

    def values(self, modes: Float[Array, "2 l m"]) -> Float[Array, "heights longitudes"]:
        """Density on the grid."""
        return self._synthesis(_tables(self.degree)[0], modes)

    def modes(self, values: Float[Array, "heights longitudes"]) -> Float[Array, "2 l m"]:
        """Modes of a function on the grid."""
        return self._analysis(_tables(self.degree)[0], values)

    def gradients(self, modes: Float[Array, "2 l m"]) -> tuple[Array, ...]:
        """Components of the gradient to the south and to the east, on the grid."""
        _, south, east = _tables(self.degree)
        return self._synthesis(south, modes), self._synthesis(east, turned_signs(modes))

    def against_gradients(self, fields: tuple[Array, ...]) -> Float[Array, "2 l m"]:
        """Mean of <field, gradient of each basis function>."""
        _, south, east = _tables(self.degree)
        along, across = self._analysis(south, fields[0]), self._analysis(east, fields[1])
        return along - turned_signs(across)

    def mean(self, values: Float[Array, "heights longitudes"]) -> Float[Array, ""]:
        """Mean of a function on the grid."""
        return jnp.asarray(nodes(3, 2 * self.degree)[1]) @ values.mean(axis=1)

    def order_parameter(self, modes: Float[Array, "2 l m"]) -> Float[Array, ""]:
        """Length R of the mean token."""
        return jnp.sqrt((modes[:, 1, :2] ** 2).sum() / 3)

    def _synthesis(self, table: np.ndarray, modes: Array) -> Array:
        rows = _product("qlm,slm->qsm", jnp.asarray(table), modes)
        return series(rows, 4 * self.degree)

    def _analysis(self, table: np.ndarray, values: Array) -> Array:
        weights = nodes(3, 2 * self.degree)[1][:, None, None]
        return _product("qlm,qsm->slm", jnp.asarray(table * weights), moments(values, self.degree))


def turned_signs(modes: Array) -> Array:
    """Cosines to minus sines and sines to cosines: the longitude derivative without its factor m."""
    return jnp.stack([modes[1], -modes[0]])


def _product(formula: str, a: Array, b: Array) -> Array:
    return jnp.einsum(formula, a, b, precision=jax.lax.Precision.HIGHEST)


@lru_cache(maxsize=8)
def _tables(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""At each height: $\bar P_{lm}$, its derivative by the colatitude, and $m\bar P_{lm}/\sin\vartheta$."""
    t = nodes(3, 2 * degree)[0]
    s, size = np.sqrt(1 - t**2), degree + 1
    p, south, east = np.zeros((3, len(t), size, size))
    l = np.arange(size)[:, None]  # noqa: E741
    m = np.arange(size)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(l > m, np.sqrt((l**2 - m**2) / (4.0 * l**2 - 1)), 0.0)
    diagonal = np.ones_like(t)
    for order in range(size):
        if order:
            diagonal = diagonal * s * np.sqrt((2 * order + 1) / (2 * order))
        p[:, order, order] = diagonal
        for k in range(order + 1, size):
            below = step[k - 1, order] * p[:, k - 2, order] if k > order + 1 else 0
            p[:, k, order] = (t * p[:, k - 1, order] - below) / step[k, order]
    lower = np.concatenate([np.zeros((len(t), 1, size)), p[:, :-1]], axis=1)
    # sin dP/dcolatitude = l t P_l - (2l + 1) step_l P_(l-1)
    south[:] = (l * t[:, None, None] * p - (2 * l + 1) * step * lower) / s[:, None, None]
    east[:] = m * p / s[:, None, None]
    return p, south, east
