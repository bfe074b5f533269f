"""Normalisation schemes: how a token moves, given what it sees.

At layer t, a real layer being eta = 1 (A is what a token sees, N(x) = x/|x|):

- `post_ln`: dx/dt = P A; layer N(x + eta A).
- `pre_ln`: dx/dt = A; layer x + eta A.
- `mix_ln(tau)`: Post-LN until t = tau, then Pre-LN.
- `peri_ln`: dx/dt = A/|A|; layer x + eta A/|A|.
- `sqrt_scaling`: dx/dt = P A/sqrt(t + 1); layer N(x + eta A/sqrt(t + 1)).
- `ln_scaling`: dx/dt = A/sqrt(t + 1); layer x + eta A/sqrt(t + 1).
- `ngpt(alpha)`: dx/dt = alpha P A/|A|; layer N(x + eta alpha (A/|A| - x)).
- `no_ln`: dx/dt = A, where A is what the token sees of x itself, radii and all; layer x + eta A.

Directions move at dtheta/dt = P A/s, with the speed factor s measured by `observables.SpeedFactor`.

Source:
    Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Tables 1 and 2;
    `ln_scaling` from Sun et al., "The curse of depth in large language models" (2025); `no_ln` from Sander,
    Ablin, Blondel, Peyré, "Sinkformers" (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.errors import check_between, check_finite, concrete
from attnflow.sphere import normalize, project


class Norm(eqx.Module):
    r"""A scheme as a vector field and as a layer: both read the attention vector a = A(x/|x|).

    Attributes:
        velocity: (t, x, a, *parameters) -> dx/dt, shapes (n, d).
        layer: (t, x, a, eta, *parameters) -> x after one layer of step eta; eta = 1 is a real layer.
        keeps_radius: Whether |x| stays as it was, so that tokens on the sphere stay there.
        parameters: Numbers of the scheme, which may be batched over and differentiated.
        sees_radius: Whether attention reads x itself, not x/|x|.
        jumps: Times at which the velocity jumps; `solve` steps on them.
        schedule: Rate as a function of time, which must not be negative; None if there is none.
    """

    velocity: Callable = eqx.field(static=True)
    layer: Callable = eqx.field(static=True)
    keeps_radius: bool = eqx.field(static=True)
    parameters: tuple[Any, ...] = ()
    sees_radius: bool = eqx.field(static=True, default=False, kw_only=True)
    jumps: tuple[Any, ...] = eqx.field(default=(), kw_only=True)
    schedule: Callable | None = eqx.field(static=True, default=None, kw_only=True)

    def __call__(self, t, x: Float[Array, "n d"], a: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Velocity dx/dt of tokens x that see a."""
        return self.velocity(t, x, a, *self.parameters)

    def step(self, t, x: Float[Array, "n d"], a: Float[Array, "n d"], eta) -> Float[Array, "n d"]:
        """Tokens x that see a, one layer later."""
        return self.layer(t, x, a, eta, *self.parameters)

    def check_times(self, ts) -> None:
        """Raise `ValueError` unless jumps lie inside a run over ts, and the schedule is >= 0 on it."""
        for jump in self.jumps:
            if concrete((jump, ts)) and not ts[0] <= jump < ts[-1]:
                raise ValueError(
                    f"Argument `tau` must lie within the run, from {float(ts[0]):g} to before "
                    f"{float(ts[-1]):g}, but tau={float(jump):g}. Run longer, or take `post_ln`."
                )
        if self.schedule is not None and concrete(ts):
            rates = np.array([float(self.schedule(t)) for t in np.asarray(ts)])
            check_finite(rates, "alpha(ts)")
            check_between(rates, "alpha(ts)", low=0.0, remedy="Negative rates repel.")


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


def _mix_velocity(t, x, a, tau):
    return jnp.where(t < tau, _post_velocity(t, x, a), a)


def _mix_layer(t, x, a, eta, tau):
    early = t < tau - 1e-6 * jnp.abs(eta)  # t counts layers, up to rounding
    return jnp.where(early, _post_layer(t, x, a, eta), x + eta * a)


def _peri_velocity(t, x, a):
    """Attention of length 1: early speed does not depend on how much of it cancels."""
    return _direction(a)


def _peri_layer(t, x, a, eta):
    return x + eta * _direction(a)


def _sqrt_velocity(t, x, a):
    return _post_velocity(t, x, a) / jnp.sqrt(t + 1)


def _sqrt_layer(t, x, a, eta):
    return normalize(x + eta * a / jnp.sqrt(t + 1))


def _ln_scaling_velocity(t, x, a):
    return a / jnp.sqrt(t + 1)


def _ln_scaling_layer(t, x, a, eta):
    return x + eta * a / jnp.sqrt(t + 1)


def _ngpt_velocity(t, x, a, alpha):
    return _rate(alpha, t, x) * _post_velocity(t, x, _direction(a))


def _ngpt_layer(t, x, a, eta, alpha):
    return normalize(x + eta * _rate(alpha, t, x) * (_direction(a) - x))


def _rate(alpha, t, x):
    return alpha(t) if callable(alpha) else jnp.asarray(alpha, x.dtype)


def _direction(a):
    """a/|a|, and 0 where attention cancels."""
    square = jnp.sum(a * a, axis=-1, keepdims=True)
    return a / jnp.sqrt(jnp.where(square == 0, 1.0, square))


def ngpt(alpha: Any = 1.0) -> Norm:
    r"""nGPT: tokens step towards the direction they see, $\dot x = \alpha_t P_x A/|A|$.

    A layer is $N(x + \eta\alpha(A/|A| - x))$.

    Args:
        alpha: Rate >= 0, a number or a function of time, alpha(t).

    Raises:
        ValueError: If a number is negative or not finite.

    Source:
        Loshchilov et al., "nGPT" (2024); as a flow, Karagodin, Ge, Polyanskiy, Rigollet,
        "Normalization in attention dynamics" (2025), Table 1.
    """
    if callable(alpha):
        velocity = lambda t, x, a: _ngpt_velocity(t, x, a, alpha)
        layer = lambda t, x, a, eta: _ngpt_layer(t, x, a, eta, alpha)
        return Norm(velocity, layer, keeps_radius=True, schedule=alpha)
    check_between(alpha, "alpha", low=0.0)
    check_finite(alpha, "alpha")
    return Norm(_ngpt_velocity, _ngpt_layer, True, (_as_number(alpha),))


def mix_ln(tau: Any = 1.0) -> Norm:
    r"""Mix-LN: Post-LN while t < tau, then Pre-LN.

    Layers at t = 0, eta, ... below tau are Post-LN, so that tau = k eta makes the first k so.
    Adaptive runs step on tau exactly; with a fixed step the step across tau is of first order.

    Args:
        tau: Time of the switch, >= 0 and before the end of the run.

    Raises:
        ValueError: If tau is negative or not finite; at the start of a run, if it lies outside.

    Source:
        Li, Yin, Liu, "Mix-LN" (2024), where the first quarter of the layers is Post-LN; as a flow,
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 1.
    """
    check_between(tau, "tau", low=0.0)
    check_finite(tau, "tau")
    tau = _as_number(tau)
    return Norm(_mix_velocity, _mix_layer, False, (tau,), jumps=(tau,))


def _as_number(value):
    """A number as an array of floats; no JAX array at import."""
    return value if isinstance(value, jax.Array) else np.asarray(value, float)


post_ln = Norm(_post_velocity, _post_layer, keeps_radius=True)
pre_ln = Norm(_pre_velocity, _pre_layer, keeps_radius=False)
peri_ln = Norm(_peri_velocity, _peri_layer, keeps_radius=False)
sqrt_scaling = Norm(_sqrt_velocity, _sqrt_layer, keeps_radius=True)
ln_scaling = Norm(_ln_scaling_velocity, _ln_scaling_layer, keeps_radius=False)
no_ln = Norm(_pre_velocity, _pre_layer, keeps_radius=False, sees_radius=True)

NORMS = {
    "post": post_ln,
    "pre": pre_ln,
    "mix": mix_ln(),
    "peri": peri_ln,
    "sqrt": sqrt_scaling,
    "ln-scaling": ln_scaling,
    "ngpt": ngpt(),
    "none": no_ln,
}
