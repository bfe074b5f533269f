"""One `solve_sde` adds Brownian motion on the sphere to every flow that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from attnflow.attention import Attention, MultiHead, UnnormalizedAttention
from attnflow.errors import (
    check_between,
    check_choice,
    check_finite,
    check_functions,
    check_increasing,
    check_shape,
    check_tokens,
    concrete,
)
from attnflow.flows import FisherRaoFlow, WeightedTokens, settled
from attnflow.integrate import as_pytree
from attnflow.norms import Norm
from attnflow.sphere import exp, normalize, project
from attnflow.trajectory import Trajectory


def solve_sde(
    flow: Callable,
    x0: Float[Array, "n d"] | Any,
    ts: Float[Array, " t"] | Any,
    *,
    kappa: float | Float[Array, ""] | Any,
    dt: float | Float[Array, ""] | Any,
    key: PRNGKeyArray,
    common_kappa: float | Float[Array, ""] | Any = None,
    observe: Mapping[str, Callable] | None = None,
    states: bool = True,
    method: Literal["exponential", "retraction"] = "exponential",
) -> Trajectory:
    r"""Integrate a flow with Brownian motion on the sphere from x0 and save at ts.

    Stratonovich $dX_i = b_i\,dt + \sqrt{2/\kappa}\,P_{X_i}\circ dB_i$, with the $B_i$ independent in R^d; the same in
    Itô's sense is $dX_i = b_i\,dt + \sqrt{2/\kappa}\,P_{X_i}dB_i - \frac{d-1}\kappa X_i\,dt$. Alone the noise has the
    generator $\kappa^{-1}\Delta$: degree l decays at the rate $l(l+d-2)/\kappa$. Common noise adds
    $\sqrt{2/\kappa_0}\,P_{X_i}\circ dB_0$, one B_0 in R^d for all tokens, each of which alone then has the noise
    $1/\kappa + 1/\kappa_0$; it draws tokens together, $E\log(1-\langle X_i, X_j\rangle)$ falling at the rate
    $2(d-1)/\kappa_0$.

    "exponential" is a Strang splitting: half of the drift by the midpoint rule, the noise, the other half;
    halves of neighbouring steps are taken together. Noise moves a token along a great circle, by a tangent
    Gaussian of variance $2\tau/(1 + (d-2)\tau/3)$ a coordinate, $\tau = h/\kappa$: a geodesic step errs by
    $-l(l+d-2)(d-2)\tau^2/3$ at every degree l, and the denominator takes that away. Weak order 2; without drift
    exact on the circle; order 1 for what tokens share under common noise. "retraction" is a Post-LN layer,
    N(x) = x/|x|, in place of the midpoint rule, and $N(x + \sqrt{2\tau}\,P\xi)$ for the noise: half the cost, weak
    order 1, degree 1 alone off by $(d-1)(d+2)\tau^2$ a step. Paths themselves converge with order 1/2.

    Noise of token i at step k depends on the key, i and k only: without drift the first tokens of a larger
    system take the same paths. Memory does not grow with the number of steps. Runs under `jax.jit` and
    `jax.vmap` (over keys, kappas, starts) and with forward derivatives; values are then not checked.

    Args:
        flow: Vector field (t, x, args) -> dx/dt that keeps the sphere, such as `sa(beta)`.
        x0: Unit tokens, shape (n, d).
        ts: Save times, increasing, shape (t,), t >= 2. The run starts at ts[0].
        kappa: Noise, > 0; inf is none.
        dt: Largest step; every save interval is cut into equal steps of at most dt.
        key: PRNG key.
        common_kappa: Noise that all tokens share, > 0; none by default.
        observe: Functions of the tokens, evaluated at save times; what has `timed = True` reads t first.
        states: Whether to keep the tokens at save times.
        method: "exponential" or "retraction".

    Returns:
        The trajectory.

    Raises:
        ValueError: If an argument is out of its range, or dt is above 1 over the largest rate of the
            drift (|V| (1 + beta |Q||K|) for softmax attention, |V| e^(beta |Q||K|) for unnormalised), or a
            step of noise turns tokens by more than 1 radian, $2(d-1)\,dt/\kappa > 1$.

    Source:
        Geodesic random walks: Jørgensen, "The central limit problem for geodesic random walks" (1975);
        splitting: Ninomiya, Victoir, "Weak approximation of stochastic differential equations" (2008).
    """
    _check(flow, x0, ts, kappa, dt, key, common_kappa, observe, method)
    x0 = jnp.asarray(x0)
    flow, kernel_sum = settled(flow, x0)
    number = lambda value: None if value is None else jnp.asarray(value, x0.dtype)
    observe = {name: as_pytree(f) for name, f in (observe or {}).items()}
    ts, (xs, observed), x_end, steps = _solve(
        flow, x0, number(ts), number(kappa), number(common_kappa), number(dt), key, observe,
        states=states, method=method,
    )  # fmt: skip
    return Trajectory(ts, xs, None, observed, ts[-1], x_end, {"num_steps": steps}, kernel_sum)


def _midpoint(flow, t, x, h):
    middle = x + h / 2 * flow(t, x)
    return normalize(x + h * flow(t + h / 2, middle))


def _euler(flow, t, x, h):
    return normalize(x + h * flow(t, x))


def _geodesic(x, xi, heat):
    """Turn by a tangent Gaussian whose variance makes up for the curvature; heat = h/kappa."""
    return exp(x, jax.lax.rsqrt(1 + (x.shape[-1] - 2) * heat / 3) * project(x, xi))


def _retraction(x, xi, heat):
    return normalize(x + project(x, xi))


METHODS = {"exponential": (_midpoint, _geodesic), "retraction": (_euler, _retraction)}


@eqx.filter_jit
def _solve(flow, x0, ts, kappa, common_kappa, dt, key, observe, *, states, method):
    drift, kick = METHODS[method]
    own, common = jr.split(key)
    tokens = jax.vmap(jr.fold_in, (None, 0))(own, jnp.arange(len(x0)))

    def noise(k, h):
        """Noise of step k in R^d, shape (n, d)."""
        draw = lambda key: jr.normal(jr.fold_in(key, k), x0.shape[1:], x0.dtype)
        each = jnp.sqrt(2 * h / kappa) * jax.vmap(draw)(tokens)
        if common_kappa is None:
            return each
        return each + jnp.sqrt(2 * h / common_kappa) * draw(common)

    def between(state, times):
        x, done = state
        gap = times[1] - times[0]
        count = jnp.maximum(jnp.ceil(gap / dt * (1 - 1e-6)), 1).astype(int)
        h = gap / count
        heat = h / kappa + (0.0 if common_kappa is None else h / common_kappa)

        def step(k, x):
            x = kick(x, noise(done + k, h), heat)
            return drift(flow, times[0] + (k + 0.5) * h, x, jnp.where(k + 1 < count, h, h / 2))

        x = jax.lax.fori_loop(0, count, step, drift(flow, times[0], x, h / 2))
        return (x, done + count), seen(times[1], x)

    def seen(t, x):
        read = lambda f: f(t, x) if getattr(f, "timed", False) else f(x)
        return x if states else None, {name: read(f) for name, f in observe.items()}

    start = normalize(x0)
    pairs = jnp.stack([ts[:-1], ts[1:]], axis=1)
    (x_end, steps), later = jax.lax.scan(between, (start, jnp.zeros((), int)), pairs)
    saved = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), seen(ts[0], start), later)
    return ts, saved, x_end, steps


def _check(flow, x0, ts, kappa, dt, key, common_kappa, observe, method) -> None:
    """Refuse what cannot be run, before work starts."""
    check_functions({"flow": flow})
    if not getattr(flow, "keeps_radius", False):
        raise ValueError(
            "Argument `flow` must keep tokens on the sphere, but flow is of type "
            f"{type(flow).__name__} and has no norm that does. Take `post_ln`, `sqrt_scaling` or `ngpt`."
        )
    if isinstance(flow, FisherRaoFlow) or isinstance(x0, WeightedTokens):
        raise ValueError(
            "Argument `x0` must be an array of tokens, as noise moves no weights, but it is of type "
            f"{type(x0).__name__}. Fixed weights go with `usa(beta, weights=...)`."
        )
    check_tokens(x0, "x0")
    check_increasing(ts)
    check_choice(method, "method", METHODS)
    check_functions(observe or {}, "observe")
    if not _is_key(key):
        raise ValueError(
            f"Argument `key` must be one PRNG key, but key={key!r}. "
            "Pass `jax.random.key(0)`, and `jax.vmap` over many."
        )
    check_shape(dt, "dt", ())
    check_finite(dt, "dt")
    check_between(dt, "dt", low=0.0, open_low=True)
    noise = [("kappa", kappa)]
    noise += [] if common_kappa is None else [("common_kappa", common_kappa)]
    for name, value in noise:
        check_shape(value, name, ())
        check_between(value, name, low=0.0, open_low=True, remedy="No noise is kappa=inf.")
    norm = getattr(flow, "norm", None)
    if isinstance(norm, Norm) and concrete(norm):
        norm.check_times(ts)
    if concrete((dt, flow)):
        _check_drift(flow, float(dt))
    if concrete((dt, kappa, common_kappa)):
        heat = 2 * (x0.shape[1] - 1) * sum(1 / float(value) for _, value in noise)
        check_between(
            dt, "dt", high=1 / heat if heat > 0 else np.inf,
            remedy="A step of noise turns tokens by more than 1 radian, 2 (d - 1) dt/kappa > 1.",
        )  # fmt: skip


def _is_key(key) -> bool:
    """Whether this is a single PRNG key, new or old style."""
    dtype, shape = getattr(key, "dtype", None), np.shape(key)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return shape == ()
    return dtype == jnp.uint32 and shape == (2,)


def _check_drift(flow, dt: float) -> None:
    """Refuse a step above 1 over the largest rate of the drift, where that is known."""
    rate = drift_rate(flow)
    check_between(
        dt, "dt", high=1 / rate if rate > 0 else np.inf,
        remedy=f"The drift has rates up to {rate:.3g}. Take a smaller step.",
    )  # fmt: skip


def drift_rate(flow: Callable) -> float:
    r"""Bound on how fast tokens part or meet: Lipschitz constant of a token's drift in its own place.

    $|V|(1 + \beta|Q||K|)$ under (SA), as the keys have a variance of at most 1; $|V|e^{\beta|Q||K|}$ under (USA), the
    largest slope of $e^{\beta\cos\phi}\sin\phi$. 0 where no bound is known.
    """
    rule, heads = getattr(flow, "attention", None), 1
    if isinstance(rule, MultiHead):
        arrays = [leaf for leaf in jax.tree.leaves(rule.heads) if np.ndim(leaf)]
        heads = len(arrays[0]) if rule.combine == "sum" else 1
        rule = rule.heads
    if not isinstance(rule, Attention | UnnormalizedAttention) or getattr(
        getattr(flow, "norm", None), "parameters", ()
    ):
        return 0.0
    heat = float(np.abs(rule.beta).max(initial=0)) * _size(rule.query) * _size(rule.key)
    if isinstance(rule, Attention):
        return heads * _size(rule.value) * (1 + heat)
    cooled = float(np.max(rule.beta, initial=-np.inf)) if rule.clock == "rescaled" else 0.0
    with np.errstate(over="ignore"):
        return heads * _size(rule.value) * float(np.exp(heat - cooled))


def _size(matrix) -> float:
    """Largest singular value, over heads; of numbers the largest."""
    array = np.asarray(matrix, float)
    return float(
        (np.linalg.norm(array, 2, axis=(-2, -1)) if array.ndim > 1 else np.abs(array)).max()
    )
