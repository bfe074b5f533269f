"""Events that end a run, and the root finder that times them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array

from attnflow.errors import check_between, check_finite, check_shape
from attnflow.sphere import normalize


def within_cap(cosine: float) -> eqx.Partial:
    """Event: every token within a cap, <x_i, m/|m|> >= cosine, around the mean token m."""
    check_shape(cosine, "cosine", ())
    check_between(cosine, "cosine", -1.0, 1.0, open_low=True, open_high=True)
    return eqx.Partial(cap_margin, jnp.asarray(cosine))


def stationary(speed: float) -> eqx.Partial:
    """Event: no token moves faster than `speed`, in radians per unit of time."""
    check_shape(speed, "speed", ())
    check_finite(speed, "speed")
    check_between(speed, "speed", low=0.0, open_low=True)
    return eqx.Partial(speed_margin, jnp.asarray(speed))


def cap_margin(cosine, t, x, velocity):
    """Positive until the tokens are within the cap."""
    directions = normalize(x)
    return cosine - (directions @ normalize(directions.mean(axis=0))).min()


def speed_margin(speed, t, x, velocity):
    """Positive until no token is faster."""
    return jnp.linalg.norm(velocity, axis=-1).max() - speed


class _Ends(NamedTuple):
    """Two times around that of an event, the values there, and the number of points tried."""

    low: Array
    high: Array
    at_low: Array
    at_high: Array
    tried: Array


class Bracket(optx.AbstractRootFinder):
    """Illinois false position, every fourth point the middle: about ten evaluations to rounding.

    It stops when the time of an event is known to rounding, whatever the event's scale.
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: ClassVar[Callable[[Any], Any]] = jnp.abs

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        """The ends, and the values there."""
        low, high = (jnp.asarray(options[end], f_struct.dtype) for end in ("lower", "upper"))
        return _Ends(low, high, fn(low, args)[0], fn(high, args)[0], jnp.zeros((), int))

    def step(self, fn, y, args, options, state, tags):
        """One point more."""
        low, high, at_low, at_high, tried = state
        value, aux = fn(y, args)
        after = (value < 0) == (at_low < 0)
        low, high = jnp.where(after, y, low), jnp.where(after, high, y)
        # The end that stays counts half, so that it is passed sooner.
        at_low, at_high = (
            jnp.where(after, value, at_low / 2),
            jnp.where(after, at_high / 2, value),
        )
        width, fall = high - low, at_low - at_high
        share = jnp.where(tried % 4 == 3, 0.5, at_low / jnp.where(fall == 0, 1.0, fall))
        y = low + width * jnp.where((share > 0) & (share < 1), share, 0.5)
        least = jnp.minimum(2 * jnp.finfo(y.dtype).eps * jnp.abs(y), width / 2)
        y = jnp.clip(y, low + least, high - least)
        return y, _Ends(low, high, at_low, at_high, tried + 1), aux

    def terminate(self, fn, y, args, options, state, tags):
        """Whether the ends agree to rounding."""
        width = jnp.abs(state.high - state.low)
        return width <= 4 * jnp.finfo(y.dtype).eps * jnp.abs(y), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        """Nothing more to do."""
        return y, aux, {}
