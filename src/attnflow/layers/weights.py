"""Random weight matrices: functions (key, (rows, columns), dtype) -> matrix; fan-in is the columns."""

from __future__ import annotations

import math

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

Shape = tuple[int, int]


def kaiming(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Independent N(0, 2/columns): `torch.nn.init.kaiming_normal_` as it comes (fan-in, ReLU).

    Source:
        He, Zhang, Ren, Sun, "Delving deep into rectifiers" (2015), Eq. (10).
    """
    return math.sqrt(2 / shape[1]) * jr.normal(key, shape, dtype)


def gaussian(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Independent N(0, 1/columns): unit vectors keep their length on average."""
    return jr.normal(key, shape, dtype) / math.sqrt(shape[1])


def uniform(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Independent, uniform within 1/sqrt(columns), variance 1/(3 columns): `torch.nn.Linear` as it comes."""
    bound = 1 / math.sqrt(shape[1])
    return jr.uniform(key, shape, dtype, -bound, bound)


def orthogonal(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Haar measure: the shorter of rows and columns are orthonormal; variance 1/max(rows, columns)."""
    return jr.orthogonal(key, shape[0], m=shape[1], dtype=dtype)


def goe(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Gaussian orthogonal ensemble: symmetric, variance 1/d off the diagonal and 2/d on it.

    Eigenvalues fill the semicircle on [-2, 2].

    Raises:
        ValueError: If the matrix is not square.
    """
    if shape[0] != shape[1]:
        raise ValueError(
            f"Argument `shape` must be square for 'goe', but shape={shape}. "
            "Pass another `mlp_weights` for the MLP."
        )
    a = jr.normal(key, shape, dtype)
    return (a + a.T) / math.sqrt(2 * shape[0])


def identity(key: PRNGKeyArray, shape: Shape, dtype=float) -> Float[Array, "rows columns"]:
    """Ones on the diagonal; the key is not used."""
    return jnp.eye(*shape, dtype=dtype)


WEIGHTS = {
    "kaiming": kaiming,
    "gaussian": gaussian,
    "uniform": uniform,
    "orthogonal": orthogonal,
    "goe": goe,
    "identity": identity,
}
