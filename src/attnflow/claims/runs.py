"""Runs and readings that claims share; of one shape where possible, so that they compile once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import attnflow as af

RTOL, ATOL = 1e-11, 1e-13
"""Tolerances of the solver for every run, unless a claim says otherwise."""
TOL = 10 * RTOL
"""Error allowed to a cosine at the end of a run."""
SAVES = 9
"""Number of save times of a run."""
WIDTH = 8
"""Dimension up to which tokens are padded with zeros: their dynamics do not notice."""
LANES, TOKENS = 12, 32
"""Shape of the batches of `frontier` and of `layers`: runs side by side, tokens in each."""
LAYERS = 2000
"""Depth of the stacks of `layers`."""
WIDE_DIMENSION, WIDE_BETAS, WIDE_SEEDS = 1024, (1.0, 4.0, 5.0), (0, 1, 2, 3)
"""Starts of `wide_starts`: one lane per inverse temperature and seed."""


def uniform(seed: int, n: int, d: int) -> np.ndarray:
    """Independent uniform tokens, shape (n, d)."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cone(seed: int, n: int, d: int, *, alpha: float) -> np.ndarray:
    """Tokens in a cone whose smallest pairwise cosine is alpha, shape (n, d)."""
    from scipy.optimize import brentq

    direction, spread = np.eye(d)[0], np.random.default_rng(seed).normal(size=(n, d))
    spread[:, 0] = 0

    def tokens(width):
        x = direction + width * spread
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def excess(width):
        return (tokens(width) @ tokens(width).T).min() - alpha

    return tokens(float(brentq(excess, 0, 50, xtol=1e-15)))  # pyright: ignore[reportArgumentType]


def sa(beta: float, value: float = 1.0) -> Any:
    """Self-attention flow with V = value I, compiled once for every value."""
    return _flow(af.sa, beta, value)


def usa(beta: float, value: float = 1.0) -> Any:
    """Unnormalised flow with V = value I, compiled once for every value."""
    return _flow(af.usa, beta, value)


def causal(beta: float, value: float = 1.0) -> Any:
    """Causal flow with V = value I, compiled once for every value."""
    return _flow(af.causal, beta, value)


def _flow(make: Callable, beta: float, value: float) -> Any:
    return make(beta, value=array(value))


FLOW = {"sa": sa, "usa": usa, "causal": causal}


def array(x: Any) -> Any:
    """A JAX array of floats."""
    import jax.numpy as jnp

    return jnp.asarray(x, float)


def run(
    flow: Any, x0: Any, t_end: float | np.ndarray, *, start: float = 0.0, rtol: float = RTOL
) -> np.ndarray:
    """Tokens at `save_times(t_end, start=start)`, or at `SAVES` given times.

    Returns:
        Tokens, shape (SAVES, n, d).
    """
    import diffrax as dfx

    x0, ts = np.asarray(x0, float), save_times(t_end, start=start) if np.ndim(t_end) == 0 else t_end
    padded = array(np.pad(x0, [(0, 0), (0, max(0, WIDTH - x0.shape[1]))]))
    trajectory = af.solve(flow, padded, ts, rtol=rtol, atol=ATOL, adjoint=dfx.ForwardMode())
    return np.asarray(trajectory.xs)[:, :, : x0.shape[1]]


def save_times(t_end: Any, *, start: float = 0.0) -> np.ndarray:
    """Even times from 0 to t_end, or 0 and even times from `start` to t_end, shape (SAVES,)."""
    if start == 0:
        return np.linspace(0, t_end, SAVES)
    return np.append(0.0, np.linspace(start, t_end, SAVES - 1))


@cache
def _compiled() -> dict[str, Callable]:
    """Readings of a flow, compiled once per shape and kind of flow."""
    import equinox as eqx
    import jax

    def change(f, flow, x):
        return jax.jvp(f, (x,), (flow(0.0, x),))[1]

    def response(flow, x, u):
        return jax.jvp(lambda x: flow(0.0, x), (x,), (u,))[1]

    functions = {
        "read": lambda observable, xs: jax.vmap(observable)(xs),
        "velocity": lambda flow, x: flow(0.0, x),
        "change": change,
        "response": response,
    }
    return {name: eqx.filter_jit(function) for name, function in functions.items()}


def read(observable: Callable, xs: Any) -> np.ndarray:
    """Observable of each configuration of a run, shape (SAVES, ...)."""
    return np.asarray(_compiled()["read"](observable, array(xs)))


def velocity(flow: Any, x: Any) -> np.ndarray:
    """Velocities of tokens x, shape (n, d)."""
    return np.asarray(_compiled()["velocity"](flow, array(x)))


def change(f: Callable, flow: Any, x: Any) -> np.ndarray:
    """Time derivative of f(x) along a flow, by forward differentiation: exact to rounding."""
    return np.asarray(_compiled()["change"](f, flow, array(x)))


def response(flow: Any, x: Any, u: Any) -> np.ndarray:
    """Derivative of the velocities at tokens x in the direction u, shape (n, d)."""
    return np.asarray(_compiled()["response"](flow, array(x), array(u)))


def circle(theta: Any) -> np.ndarray:
    """Tokens on the circle at angles theta, shape (n, 2)."""
    return np.stack([np.cos(theta), np.sin(theta)], axis=-1)


def tangent(theta: Any) -> np.ndarray:
    """Unit tangents of the circle at angles theta, shape (n, 2)."""
    return np.stack([-np.sin(theta), np.cos(theta)], axis=-1)


def angular(flow: Any, theta: Any) -> np.ndarray:
    """Angular velocities of tokens on the circle, shape (n,)."""
    return (velocity(flow, circle(theta)) * tangent(theta)).sum(axis=-1)


def gram(x: np.ndarray) -> np.ndarray:
    """Inner products of tokens, shape (..., n, n)."""
    return x @ np.swapaxes(x, -1, -2)


def angles(x: np.ndarray) -> np.ndarray:
    """Angles of tokens on the circle along a run, unwrapped in time, shape (t, n)."""
    return np.unwrap(np.arctan2(x[..., 1], x[..., 0]), axis=0)


def frontier(
    x0: np.ndarray,
    betas: np.ndarray,
    *,
    delta: float = 1e-3,
    rtol: float = 1e-10,
    t_max: float = 400.0,
) -> np.ndarray:
    """Times at which half of the pairs have cosine >= 1 - delta under (SA), one run per lane.

    Args:
        x0: Starts, shape (lanes, n, d).
        betas: Inverse temperatures, shape (lanes,).
        delta: Distance to consensus that counts.
        rtol: Relative tolerance of the solver.
        t_max: Time at which a run ends in any case.

    Returns:
        Times, shape (lanes,).
    """
    import diffrax as dfx
    import equinox as eqx
    import jax

    until = eqx.Partial(_half_missing, array(delta))

    def lane(x0, beta):
        return af.solve(
            af.sa(beta), x0, np.array([0.0, t_max]), until=until, states=False,
            rtol=rtol, atol=ATOL, adjoint=dfx.ForwardMode(),
        ).t_end  # fmt: skip

    return np.asarray(jax.vmap(lane)(array(x0), array(betas)))


def _half_missing(delta, t, x, velocity):
    x, n = af.sphere.normalize(x), len(x)
    near = (x @ x.T >= 1 - delta).sum() - n
    return 0.5 - near / (n * (n - 1))


def layers(x0: np.ndarray, betas: np.ndarray, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaps 1 - rho and shares of pairs with cosine >= .999 through a stack of Post-LN layers.

    Args:
        x0: Starts, shape (lanes, n, d).
        betas: Inverse temperatures, shape (lanes,).
        eta: Step of a layer.

    Returns:
        Both of shape (lanes, LAYERS + 1), the start first.
    """
    import diffrax as dfx
    import jax
    import jax.numpy as jnp

    observe = {"gap": af.observables.cosine_gap, "share": af.observables.pair_fraction}

    def lane(x0, beta):
        observed = af.solve(
            af.sa(beta), x0, eta * jnp.arange(LAYERS + 1), method=af.LayerMap(), dt=eta,
            observe=observe, states=False, adjoint=dfx.ForwardMode(),
        ).observed  # fmt: skip
        return observed["gap"], observed["share"]

    gap, share = jax.vmap(lane)(array(x0), array(betas))
    return np.asarray(gap), np.asarray(share)


@cache
def orthogonal(n: int = TOKENS, lanes: int = LANES) -> np.ndarray:
    """Orthogonal tokens in every lane, shape (lanes, n, n)."""
    return np.tile(np.eye(n), (lanes, 1, 1))


def fill_lanes(betas: tuple[float, ...], lanes: int = LANES) -> np.ndarray:
    """Inverse temperatures, the last one repeated to fill all lanes."""
    return np.array([*betas, *[betas[-1]] * (lanes - len(betas))], float)


@cache
def wide_starts() -> np.ndarray:
    """Uniform tokens in dimension 1024, in coordinates of their span: every seed for every beta."""
    starts = [uniform(seed, TOKENS, WIDE_DIMENSION) for seed in WIDE_SEEDS]
    coordinates = np.array([af.sphere.span(array(x))[0] for x in starts])
    return np.tile(coordinates, (len(WIDE_BETAS), 1, 1))
