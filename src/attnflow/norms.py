"""Normalisation schemes: how a token moves, given what it sees."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from attnflow.sphere import normalize, project


class Norm(eqx.Module):
    r"""A scheme as a vector field and as a layer: both read the attention vector a = A(x/|x|).

    Attributes:
        velocity: (t, x, a) -> dx/dt, shapes (n, d).
        layer: (t, x, a, eta) -> x after one layer of step eta; eta = 1 is a real layer.
        keeps_radius: Whether |x| stays as it was, so that tokens on the sphere stay there.
    """

    velocity: Callable = eqx.field(static=True)
    layer: Callable = eqx.field(static=True)
    keeps_radius: bool = eqx.field(static=True)

    def __call__(self, t, x: Float[Array, "n d"], a: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Velocity dx/dt of tokens x that see a."""
        return self.velocity(t, x, a)


def _post_velocity(t, x, a):
    """|x| P a: radii never change, and directions are exact at any radius."""
    radius = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return radius * project(x / radius, a)


def _post_layer(t, x, a, eta):
    return normalize(x + eta * a)


def _pre_velocity(t, x, a):
    """Tokens grow, and so turn more slowly."""
    return a


def _pre_layer(t, x, a, eta):
    return x + eta * a


post_ln = Norm(_post_velocity, _post_layer, keeps_radius=True)
pre_ln = Norm(_pre_velocity, _pre_layer, keeps_radius=False)

NORMS = {"post": post_ln, "pre": pre_ln}
