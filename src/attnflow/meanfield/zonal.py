"""Axisymmetric densities on the sphere of any dimension, by Gegenbauer modes."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.errors import check_count
from attnflow.meanfield.gegenbauer import basis, check_dimension, nodes, slopes


class Zonal(eqx.Module):
    r"""Densities of <x, e> on S^(d-1) by the degrees 0..degree; a state has shape (degree + 1,).

    Relative to the uniform law of mass 1; $c_l = \int p_l(\langle x,e\rangle)\,d\mu$ with p_l the orthonormal
    Gegenbauer polynomials. d = 2 holds the even densities on the circle.

    Attributes:
        d: Dimension of the space around the sphere, 2 to 1000.
        degree: Highest degree.
    """

    d: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def __check_init__(self):
        check_dimension(self.d)
        check_count(self.degree, "degree")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of a state."""
        return ("degree",)

    @property
    def size(self) -> int:
        """Number of grid points, which integrate degree 4 degree - 1 exactly."""
        return 2 * self.degree

    @property
    def grid(self) -> np.ndarray:
        """Heights <x, e> of the grid, shape (size,), increasing."""
        return nodes(self.d, self.size)[0]

    @property
    def uniform(self) -> Float[Array, " l"]:
        """Modes of the uniform density."""
        return jnp.zeros(self.degree + 1).at[0].set(1)

    @property
    def degrees(self) -> np.ndarray:
        """Degree of each mode."""
        return np.arange(self.degree + 1)

    def values(self, modes: Float[Array, " l"]) -> Float[Array, " size"]:
        """Density on the grid."""
        return jnp.asarray(basis(self.grid, self.degree, self.d)) @ modes

    def modes(self, values: Float[Array, " size"]) -> Float[Array, " l"]:
        """Modes of a function on the grid."""
        t, weights = nodes(self.d, self.size)
        return jnp.asarray(basis(t, self.degree, self.d) * weights[:, None]).T @ values

    def gradients(self, modes: Float[Array, " l"]) -> tuple[Array, ...]:
        """Component of the gradient of a function towards the pole, on the grid."""
        return (jnp.asarray(slopes(self.grid, self.degree, self.d)) @ modes,)

    def against_gradients(self, fields: tuple[Array, ...]) -> Float[Array, " l"]:
        """Mean of <field, gradient of each basis function>."""
        t, weights = nodes(self.d, self.size)
        return jnp.asarray(slopes(t, self.degree, self.d) * weights[:, None]).T @ fields[0]

    def mean(self, values: Float[Array, " size"]) -> Float[Array, ""]:
        """Mean of a function on the grid."""
        return jnp.asarray(nodes(self.d, self.size)[1]) @ values

    def order_parameter(self, modes: Float[Array, " l"]) -> Float[Array, ""]:
        """Length R of the mean token."""
        return jnp.abs(modes[1]) / np.sqrt(self.d)
