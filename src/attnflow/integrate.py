"""One `solve` integrates every flow; a `Trajectory` holds what it saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from attnflow.errors import (
    check_between,
    check_count,
    check_finite,
    check_functions,
    check_increasing,
    check_memory,
    check_shape,
    check_tokens,
    check_weights,
    concrete,
)
from attnflow.events import Bracket, cap_margin, speed_margin
from attnflow.flows import FisherRaoFlow, Flow, WeightedTokens, settled
from attnflow.kernels.sharded import gathered, mesh_of, on_each
from attnflow.norms import Norm
from attnflow.sphere import normalize, span
from attnflow.trajectory import Trajectory

TOLERANCES = {"float64": (1e-8, 1e-10), "float32": (1e-5, 1e-6)}


class LayerMap(dfx.AbstractSolver):
    """Discrete layers as a solver: one step of size dt is `flow.layer` with eta = dt.

    Post-LN: x <- N(x + eta A(x)); a real layer has eta = 1. It is a map, not an approximation of
    the flow: near consensus a layer contracts by 1/(1 + eta), the flow by e^(-eta).

    Attributes:
        eta: Step; `solve` puts its `dt` here, since t1 - t0 loses digits when t is large.
    """

    eta: Any = None
    term_structure = dfx.AbstractTerm
    interpolation_cls = dfx.LocalLinearInterpolation

    def order(self, terms) -> int:
        """As an approximation of the flow, first order in eta."""
        return 1

    def init(self, terms, t0, t1, y0, args):
        """No state is carried between layers."""
        return None

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One layer."""
        flow = getattr(terms, "term", terms).vector_field
        y1 = flow.layer(t0, y0, t1 - t0 if self.eta is None else self.eta)
        return y1, None, {"y0": y0, "y1": y1}, None, dfx.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """Velocity of the flow."""
        return terms.vf(t0, y0, args)


def log_times(t_max: float, count: int, *, t_min: float = 1e-2) -> Float[Array, " count"]:
    """Save times 0, t_min, ..., t_max, evenly spaced in log t from t_min on."""
    check_count(count, "count", low=3)
    check_memory(8 * count, "A list of save times")
    check_shape(t_min, "t_min", ())
    check_shape(t_max, "t_max", ())
    check_between(t_min, "t_min", low=0.0, open_low=True)
    check_between(t_max, "t_max", low=t_min, open_low=True)
    check_finite(t_max, "t_max")
    return jnp.concatenate([jnp.zeros(1), jnp.geomspace(t_min, t_max, count - 1)])


def solve(
    flow: Callable,
    x0: Float[Array, "n d"] | WeightedTokens | Any,
    ts: Float[Array, " t"] | Any,
    *,
    observe: Mapping[str, Callable] | None = None,
    states: bool = True,
    until: Callable | None = None,
    method: dfx.AbstractSolver | None = None,
    dt: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    reduce: bool = True,
    args: Any = None,
    adjoint: dfx.AbstractAdjoint | None = None,
    max_steps: int = 1_000_000,
    progress: bool = False,
) -> Trajectory:
    r"""Integrate dx/dt = flow(t, x, args) from x0 and save at ts.

    Adaptive by default, every coordinate of every token within `atol + rtol |x|` a step. Flows that
    keep the sphere are saved on it exactly: the field reads directions x/|x| only and leaves |x| alone,
    so that repulsive flows stay on the sphere as well as attractive ones.

    If d > n and the flow commutes with rotations, tokens keep to the span of their start: the run
    then works in n coordinates, exactly, and pays for d at save times only (and for events of your
    own, which see all d coordinates).

    Runs under `jax.jit`, `jax.vmap` (over starts, keys or parameters of the flow) and `jax.grad`.
    Under these, values are checked no more than shapes, and a failure raises diffrax's own error.

    Args:
        flow: Vector field (t, x, args) -> dx/dt, such as `sa(beta)`.
        x0: Unit tokens, shape (n, d); any nonzero tokens for norms that move radii;
            `WeightedTokens` for `FisherRaoFlow`.
        ts: Save times, increasing, shape (t,), t >= 2. The run starts at ts[0].
        observe: Functions of the tokens (and of the weights, where these evolve), evaluated at
            save times; what has `timed = True`, as `observables.SpeedFactor(flow)`, reads t first.
            Functions of a module compile once; a fresh lambda compiles anew.
        states: Whether to keep the tokens at save times.
        until: Event (t, x, velocity) -> float that ends the run where it falls to 0, such as
            `within_cap(0.999)` or `stationary(1e-6)`.
        method: Any diffrax solver, or `LayerMap()` for discrete layers. Tsit5 by default.
        dt: Fixed step; adaptive if not given. For `LayerMap` the step eta of a layer.
        rtol: Relative tolerance; 1e-8 in float64, 1e-5 in float32.
        atol: Absolute tolerance; 1e-10 in float64, 1e-6 in float32.
        reduce: Whether to rotate into the span when d > n. Gradients with respect to x0 then
            need linearly independent tokens.
        args: Passed on to the flow.
        adjoint: How gradients are taken, a diffrax adjoint.
        max_steps: Largest number of steps, accepted or not.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The trajectory.

    Raises:
        ValueError: If an argument is out of its range, before work starts.
        RuntimeError: If the run fails; says which flow, and the time reached.
    """
    _check_flow(flow, x0)
    x = x0.x if isinstance(x0, WeightedTokens) else x0
    on_sphere, isotropic = (getattr(flow, name, False) for name in ("keeps_radius", "isotropic"))
    if hasattr(flow, "keeps_radius"):
        check_tokens(gathered(x), "x0", unit=on_sphere)
    if isinstance(x0, WeightedTokens):
        check_weights(gathered(x0.weights), len(x0.x), "x0.weights")
    check_increasing(ts)
    for value, name in ((dt, "dt"), (rtol, "rtol"), (atol, "atol")):
        if value is not None:
            check_shape(value, name, ())
            check_finite(value, name)
            check_between(value, name, low=0.0, open_low=name != "atol")
    dt = float(dt) if isinstance(dt, int) else dt
    check_count(max_steps, "max_steps")
    check_functions(observe or {}, "observe")
    functions = getattr(flow, "watch", {}) | dict(observe or {})
    until = until or getattr(flow, "until", None)
    method = _check_method(method or getattr(flow, "method", dfx.Tsit5()), flow, ts, dt)
    if hasattr(flow, "check_start"):
        flow.check_start(x0)  # pyright: ignore[reportFunctionMemberAccess]
    state = jax.tree.map(jnp.asarray, x0)
    dtype = jnp.result_type(*jax.tree.leaves(state))
    if isinstance(x0, WeightedTokens):
        state = jax.tree.map(lambda leaf: leaf.astype(dtype), state)
    ts = jnp.asarray(ts, dtype)
    # Under jit even a constant is traced.
    traced = not concrete((flow, x0, ts, args, observe, until, dt, rtol, atol, jnp.zeros(())))
    norm = getattr(flow, "norm", None)
    if not traced:
        check_increasing(ts)
        if isinstance(norm, Norm):
            norm.check_times(ts)
        _check_start(flow, until, ts[0], state, args)
    (flow, kernel_sum), basis = settled(flow, state_tokens(state)), None
    if reduce and isotropic and kernel_sum not in ("fourier", "harmonics") and _wide(state):
        coordinates, basis = span(state_tokens(state))
        state = _with_tokens(state, coordinates)
    asked = zip((rtol, atol), TOLERANCES.get(str(dtype), TOLERANCES["float32"]), strict=True)
    tolerances = [jnp.asarray(low if own is None else own, dtype) for own, low in asked]
    (saved_ts, xs, weights, observed), (t_end, x_end), stats, result = _solve(
        flow, state, ts, basis, {name: as_pytree(f) for name, f in functions.items()},
        as_pytree(until), method, None if dt is None else jnp.asarray(dt, dtype),
        None if dt is not None else tolerances, getattr(norm, "jumps", ()), args,
        adjoint or dfx.RecursiveCheckpointAdjoint(),
        states=states, on_sphere=on_sphere, max_steps=max_steps, progress=progress, throw=traced,
        mesh=mesh_of((flow, state)),
    )  # fmt: skip
    if not traced:
        _check_result(flow, result, t_end, ts)
        if (kept := int(jnp.isfinite(saved_ts).sum())) < len(saved_ts):
            series = (saved_ts, xs, weights, observed)
            saved_ts, xs, weights, observed = jax.tree.map(lambda leaf: leaf[:kept], series)
    axes = getattr(flow, "axes", ("token", "axis"))
    run = Trajectory(saved_ts, xs, weights, observed, t_end, x_end, stats, kernel_sum, axes)
    if hasattr(flow, "check_run") and not traced:
        flow.check_run(run, ts)  # pyright: ignore[reportFunctionMemberAccess]
    return run


@eqx.filter_jit
def _solve(
    flow, state, ts, basis, observe, until, method, dt, tolerances, jumps, args, adjoint,
    *, states, on_sphere, max_steps, progress, throw, mesh=None,
):  # fmt: skip
    def lift(x):
        return x if basis is None else jnp.matmul(x, basis, precision=jax.lax.Precision.HIGHEST)

    def lifted(state):
        x = lift(state_tokens(state))
        return _with_tokens(state, normalize(x) if on_sphere else x)

    def seen(t, state):
        state = lifted(state)
        parts = state if isinstance(state, WeightedTokens) else (state,)
        xs = state_tokens(state) if states else None
        weights = state.weights if isinstance(state, WeightedTokens) else None
        return xs, weights, {name: as_float(read(f, t, parts)) for name, f in observe.items()}

    def read(f, t, parts):
        return f(t, *parts) if getattr(f, "timed", False) else f(*parts)

    def as_float(value):
        # diffrax marks empty slots with inf, which integers lack.
        return value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(float)

    def dtype_of(f):
        like = eqx.filter_eval_shape(lifted, state)
        parts = like if isinstance(like, WeightedTokens) else (like,)
        return eqx.filter_eval_shape(read, f, ts[0], parts).dtype

    def happens(t, y, args, **_):
        x, velocity = state_tokens(y), state_tokens(flow(t, y, args))
        if basis is not None and getattr(until, "func", None) not in (cap_margin, speed_margin):
            x, velocity = lift(x), lift(velocity)
        return jnp.asarray(until(t, x, velocity), float)  # diffrax wants the default dtype

    controller: Any = dfx.ConstantStepSize()
    if tolerances is not None:
        controller = dfx.PIDController(*tolerances, norm=optx.max_norm)
    if jumps and tolerances is not None:
        times = jnp.stack([jnp.asarray(jump, ts.dtype) for jump in jumps])
        controller = dfx.ClipStepSizeController(controller, jump_ts=times)
    solution = dfx.diffeqsolve(
        dfx.ODETerm(flow), method, ts[0], ts[-1], dt, state, args,
        saveat=dfx.SaveAt(subs=[
            dfx.SubSaveAt(ts=ts, fn=lambda t, state, args: on_each(seen, mesh)(t, state)),
            dfx.SubSaveAt(t1=True, fn=lambda t, state, args: on_each(lifted, mesh)(state)),
        ]),
        stepsize_controller=controller, adjoint=adjoint, max_steps=max_steps, throw=throw,
        event=None if until is None else dfx.Event(happens, Bracket()),
        progress_meter=dfx.TqdmProgressMeter() if progress else dfx.NoProgressMeter(),
    )  # fmt: skip
    times, ys = cast(Any, (solution.ts, solution.ys))
    (saved_ts, end_ts), (saved, end) = times, ys
    observed = {name: values.astype(dtype_of(observe[name])) for name, values in saved[2].items()}
    stats = {key: value for key, value in solution.stats.items() if key.startswith("num_")}
    x_end = jax.tree.map(lambda leaf: leaf[0], end)
    return (saved_ts, *saved[:2], observed), (end_ts[0], x_end), stats, solution.result


def state_tokens(state):
    """Tokens of a state: the state itself, unless weights go with it."""
    return state.x if isinstance(state, WeightedTokens) else state


def _wide(state) -> bool:
    """Whether there are fewer tokens than dimensions."""
    return state_tokens(state).shape[1] > state_tokens(state).shape[0]


def _with_tokens(state, x):
    return WeightedTokens(x, state.weights) if isinstance(state, WeightedTokens) else x


def as_pytree(function):
    """`functools.partial` as a pytree, so that its numbers are traced and it compiles once."""
    if not isinstance(function, partial):
        return function
    given = (function.args, function.keywords)
    args, keywords = jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, float) else a, given)
    return eqx.Partial(function.func, *args, **keywords)


def _check_flow(flow, x0) -> None:
    """Refuse what is no vector field, and tokens without the weights they need, or with idle ones."""
    check_functions({"flow": flow})
    weighted = isinstance(x0, WeightedTokens)
    if isinstance(flow, FisherRaoFlow | Flow) and weighted != isinstance(flow, FisherRaoFlow):
        kind = "an array" if weighted else "`WeightedTokens(x, weights)`"
        raise ValueError(
            f"Argument `x0` must be {kind} for {_name(flow)}, but it is of type {type(x0).__name__}. "
            "Weights that evolve go with FisherRaoFlow, fixed ones with `sa(beta, weights=...)`."
        )


def _check_method(method, flow, ts, dt) -> dfx.AbstractSolver:
    """Solver, once it is one and has the step it needs."""
    if not isinstance(method, dfx.AbstractSolver):
        raise ValueError(
            f"Argument `method` must be a solver like `diffrax.Tsit5()`, but method={method!r}."
        )
    if dt is None and not isinstance(method, dfx.AbstractAdaptiveSolver):
        raise ValueError(
            f"Argument `dt` must be a step, as {type(method).__name__} chooses none, but dt=None."
        )
    if isinstance(method, LayerMap):
        _check_layers(flow, ts, dt)
        return LayerMap(dt)
    return method


def _check_layers(flow, ts, dt) -> None:
    if not hasattr(flow, "layer"):
        raise ValueError(
            f"Argument `flow` must have a method `layer` for LayerMap, but flow={flow!r}. "
            "Compose it as `Flow(attention, norm)`."
        )
    if concrete((ts, dt)):
        ts = np.asarray(ts, float)
        layers = (ts - ts[0]) / float(dt)
        off = np.abs(layers - np.round(layers))
        if off[at := int(off.argmax())] > 1e-6:
            whole = f"Argument `ts` must hold whole numbers of layers of dt={float(dt):g}"
            raise ValueError(f"{whole}, but ts[{at}]={float(ts[at]):g}.")


def _check_start(flow, until, t0, state, args) -> None:
    """Refuse a start at which the velocity is not finite, or the event has happened."""
    velocity = eqx.filter_jit(flow)(t0, state, args)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(velocity)):
        raise ValueError(
            f"Argument `flow` must have a finite velocity at `x0`, but that of {_name(flow)} is "
            "not. Where e^beta is beyond the dtype, pass clock='rescaled' to `usa`, or a smaller beta."
        )
    if until is None:
        return
    check_functions({"until": until})
    margin = float(until(t0, state_tokens(state), state_tokens(velocity)))
    if not margin > 0:
        raise ValueError(
            f"Argument `until` must not hold at the start, but its margin at ts[0] is {margin:g}. "
            "Leave it out, or tighten it."
        )


def _check_result(flow, result, t_end, ts) -> None:
    if not bool(dfx.is_okay(result)):
        when = f"t={float(t_end):g} of {float(ts[-1]):g}"
        reason = dfx.RESULTS[result].split("\n")[0]
        raise RuntimeError(f"The run of {_name(flow)} stopped at {when}: {reason}")


def _name(flow) -> str:
    """Short text that names a flow and its beta."""
    attention = getattr(flow, "attention", flow)
    beta = getattr(attention, "beta", None)
    suffix = f", beta={float(beta):g}" if beta is not None and np.ndim(beta) == 0 else ""
    return f"{type(attention).__name__}{suffix}"
