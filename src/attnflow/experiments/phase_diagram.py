"""Phase diagram: share of merged pairs over time and beta, with the equiangular curve on it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TOLERANCES = {"float64": (1e-7, 1e-8), "float32": (1e-5, 1e-6)}
BETAS_PER_CHECKPOINT = 30
FINER = 2


@dataclass(frozen=True)
class Config:
    """Settings of the phase diagram."""

    n: int = 32
    """Number of tokens."""
    dims: tuple[int, ...] = (8, 128, 1024)
    """Dimensions, one panel each."""
    beta_min: float = 0.1
    """Smallest inverse temperature."""
    beta_max: float = 9.0
    """Largest inverse temperature."""
    beta_count: int = 90
    """Number of inverse temperatures, evenly spaced."""
    seeds: int = 64
    """Number of independent uniform starts; every beta has the same ones."""
    t_max: float = 30.0
    """Final time."""
    time_count: int = 200
    """Number of save times, evenly spaced from 0."""
    delta: float = 1e-3
    """A pair is merged once its cosine is at least 1 - delta."""
    rtol: float | None = None
    """Relative tolerance of a step; 1e-7, which keeps tokens within 1e-6, or 1e-5 in float32."""
    atol: float | None = None
    """Absolute tolerance of a step; 1e-8, or 1e-6 in float32."""
    batch: int = 8
    """Starts integrated together, with one step size; 8 fit a CPU's cache, a GPU takes all."""
    seed: int = 0
    """Seed of the starts."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of the run."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: what the name of a run is made of."""
    rtol, atol = TOLERANCES.get(config.dtype, TOLERANCES["float64"])
    return replace(
        config,
        rtol=rtol if config.rtol is None else config.rtol,
        atol=atol if config.atol is None else config.atol,
    )


def starts(config: Config, d: int) -> np.ndarray:
    """Uniform tokens in dimension d, shape (seeds, n, d), the same for every beta."""
    import jax
    import jax.random as jr

    keys = jr.split(jr.fold_in(jr.key(config.seed), d), config.seeds)
    x = jax.vmap(lambda key: af.sphere.uniform(key, config.n, d))(keys)
    return np.asarray(x, dtype=config.dtype)


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    """Simulate every system of the diagram, and set the equiangular curve beside it.

    Tokens of d > n are rotated once into the span of their start, which is exact, so that no panel
    costs more than d = n. A batch ends once all its pairs are merged: the smallest cosine, once
    positive, never falls. Batches run on all cores, a thread each.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`. A
            resumed run ends with the same bits as an uninterrupted one.

    Returns:
        Means over seeds and their standard errors: `fraction` (dim, beta, time), the share of pairs
        i != j with cosine >= 1 - delta; `half_time` (dim, beta), when it passes one half (inf if
        it does not), read off twice as many save times. Beside them `curve` (beta), when
        orthogonal tokens reach the cosine 1 - delta.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    config = resolve(config)
    check(config)
    ts = np.linspace(0.0, config.t_max, config.time_count)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)
    found = _integrate(config, betas, progress, checkpoint)
    curve = af.theory.equiangular.phase_curve(betas, n=config.n, delta=config.delta)
    map_axes, line_axes = ("dim", "beta", "time"), ("dim", "beta")
    share = "share of pairs i != j with <x_i, x_j> >= 1 - delta, mean over seeds"
    error = "standard error over seeds"
    attrs = {name: value for name, value in asdict(config).items() if name != "dtype"}
    return xr.Dataset(
        {
            "fraction": (map_axes, found["fraction"], {"long_name": share}),
            "fraction_error": (map_axes, found["fraction_error"], {"long_name": error}),
            "half_time": (line_axes, found["half_time"], {"long_name": "when fraction is 1/2"}),
            "half_time_error": (line_axes, found["half_time_error"], {"long_name": error}),
            "curve": ("beta", curve, {"long_name": "t_SA(1 - delta; 0, n, beta)", "source": CURVE}),
        },
        {"dim": list(config.dims), "beta": betas, "time": ts},
        attrs={
            "experiment": "phase-diagram",
            "equation": "dx_i/dt = P_{x_i} sum_j softmax_j(beta <x_i, x_j>) x_j, j = i included",
            "units": "dimensionless",
            "steps": int(found["steps"]),
            **attrs,
            "dims": list(config.dims),
        },
    )


CURVE = (
    "common cosine rho of orthogonal tokens, rho' = 2 e^(beta rho) (1 - rho) (1 + (n-1) rho) / "
    "(e^beta + (n-1) e^(beta rho)), rho(0) = 0, rho(t) = 1 - delta"
)


def draw(data: xr.Dataset) -> Figure:
    """A map per dimension, with the simulated half-height and the equiangular curve on it."""
    from attnflow import plot

    dims = [int(d) for d in data.dim.values]
    with plot.style():
        figure, axes = plot.panels([[str(d) for d in dims]], width=1 + 4.2 * len(dims), height=4.4)
        for d in dims:
            ax = plot.phase_map(
                data.time.values,
                data.beta.values,
                data.fraction.sel(dim=d).values,
                curve=data.curve.values,
                curve_label="equiangular tokens, theory",
                fraction_label=f"share of pairs with cosine ≥ 1 − {data.attrs['delta']:g}",
                colorbar=d == dims[-1],
                ax=axes[str(d)],
            )
            ax.set_title(rf"$d$ = {d}")
        figure.suptitle(f"{data.attrs['n']} uniform tokens under self-attention", fontsize=14)
    return figure


def summary(data: xr.Dataset) -> str:
    """Table of half-height times against the equiangular curve."""
    rows = np.unique(np.linspace(0, data.sizes["beta"] - 1, 10).round().astype(int))
    dims = [int(d) for d in data.dim.values]
    half, error = data.half_time.values, data.half_time_error.values
    lines = [
        f"{data.attrs['n']} tokens, {data.attrs['seeds']} starts, {data.attrs['equation']}",
        "",
        "Time at which half of the pairs have merged (± standard error), and the equiangular curve:",
        f"{'beta':>6}  {'curve':>8}" + "".join(f"{f'd = {d}':>18}" for d in dims),
    ]
    for i in rows:
        cells = (
            f"{half[k, i]:.3f} ± {error[k, i]:.3f}" if np.isfinite(half[k, i]) else "never"
            for k in range(len(dims))
        )
        line = f"{data.beta.values[i]:6.2f}  {data.curve.values[i]:8.3f}"
        lines.append(line + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join([*lines, "", f"never: not before t = {data.time.values[-1]:g}."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Half-height times and the curve, as plain JSON values; None where never."""

    def plain(values):
        if values.ndim > 1:
            return [plain(row) for row in values]
        return [float(v) if np.isfinite(v) else None for v in values]

    names = ("beta", "curve", "half_time", "half_time_error")
    return {"dim": data.dim.values.tolist()} | {name: plain(data[name].values) for name in names}


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    import jax.numpy as jnp

    from attnflow.errors import (
        check_between,
        check_choice,
        check_count,
        check_finite,
        check_memory,
    )

    for name, low in (("n", 2), ("beta_count", 2), ("time_count", 2), ("seeds", 2), ("batch", 1)):
        check_count(getattr(config, name), name, low=low)
    check_count(len(config.dims), "len(dims)")
    for d in config.dims:
        check_count(d, "dims", low=2)
    if len(set(config.dims)) < len(config.dims):
        raise ValueError(f"Argument `dims` must not repeat a dimension, but dims={config.dims}.")
    for name in ("beta_min", "beta_max", "t_max", "delta", "rtol", "atol"):
        check_finite(getattr(config, name), name)
    check_between(config.beta_min, "beta_min", low=0.0)
    check_between(config.beta_max, "beta_max", low=config.beta_min, open_low=True)
    check_between(config.t_max, "t_max", low=0.0, open_low=True)
    check_between(config.delta, "delta", 0.0, 1.0, open_low=True, open_high=True)
    check_between(config.rtol, "rtol", low=0.0, open_low=True)
    check_between(config.atol, "atol", low=0.0)
    check_choice(config.dtype, "dtype", TOLERANCES)
    if config.dtype == "float64" and jnp.result_type(float) != "float64":
        raise ValueError(
            "Argument `dtype` must be 'float32' while JAX has float64 switched off, but "
            "dtype='float64'. Call `jax.config.update('jax_enable_x64', True)` first."
        )
    starts_and_states = config.seeds * config.n * (max(config.dims) + 32 * config.n)
    rows = len(config.dims) * config.beta_count + FINER * config.seeds * BETAS_PER_CHECKPOINT
    needed = 8 * (starts_and_states + 4 * rows * config.time_count)
    check_memory(needed, f"A diagram of {config.seeds} starts")


def _integrate(config, betas, progress, checkpoint) -> dict[str, np.ndarray]:
    """What is found of every (dim, beta), and the number of steps."""
    from tqdm import tqdm

    shape = len(config.dims), len(betas)
    maps, lines = ("fraction", "fraction_error"), ("half_time", "half_time_error")
    found = {name: np.zeros((*shape, config.time_count)) for name in maps}
    found |= {name: np.zeros(shape) for name in lines} | {"steps": np.zeros((), np.int64)}
    done, rows = 0, list(np.ndindex(shape))
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    ts = np.linspace(0.0, config.t_max, FINER * (config.time_count - 1) + 1)
    integrate = _batch_integrator(config.rtol, config.atol, config.delta)
    bar = tqdm(total=len(rows), initial=done, disable=not progress, unit="beta")
    pool = ThreadPoolExecutor(_cores())
    try:
        while done < len(rows):
            dim = rows[done][0]
            last = min(done + BETAS_PER_CHECKPOINT, (dim + 1) * len(betas))
            bar.set_description(f"d = {config.dims[dim]}")
            x0 = reduced(starts(config, config.dims[dim]))
            batches = [x0[k : k + config.batch] for k in range(0, config.seeds, config.batch)]
            parts = [
                [pool.submit(integrate, batch, betas[i], ts) for batch in batches]
                for _, i in rows[done:last]
            ]
            for row, part in zip(rows[done:last], parts, strict=True):
                results = [future.result() for future in part]
                fractions = np.concatenate([fraction for fraction, _ in results])
                for name, values in _over_seeds(ts, fractions).items():
                    found[name][row] = values
                found["steps"] += sum(steps for _, steps in results)
                bar.update()
            done = last
            if checkpoint is not None and done < len(rows):
                checkpoint.save(done, found)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return found


def _cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def reduced(x0: np.ndarray) -> np.ndarray:
    """Starts in coordinates of their span where that is smaller, with the same inner products."""
    import jax

    if x0.shape[2] <= x0.shape[1]:
        return x0
    return np.asarray(jax.vmap(lambda x: af.sphere.span(x)[0])(x0))


def batch_velocity(flow, t, x, args=None):
    """Velocity of a batch of systems, shape (batch, n, d), as one vector field."""
    import jax

    return jax.vmap(lambda one: flow(t, one, args))(x)


@cache
def _batch_integrator(rtol: float, atol: float, delta: float):
    """Function (starts, beta, ts) -> (fractions, shape (batch, time), number of steps)."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def merged(x):
        return jax.vmap(lambda one: af.observables.pair_fraction(one, delta))(x)

    def apart(t, x, velocity):
        x = af.sphere.normalize(x)
        return 1 - delta - jnp.einsum("bik,bjk->bij", x, x).min()

    @jax.jit
    def solve(x0, beta, ts):
        traj = af.solve(
            partial(batch_velocity, af.sa(beta)),
            x0,
            ts,
            observe={"fraction": merged},
            states=False,
            until=apart,
            method=diffrax.Dopri8(),
            rtol=rtol,
            atol=atol,
        )
        running = jnp.isfinite(traj.ts)[:, None]
        return jnp.where(running, traj.observed["fraction"], 1.0).T, traj.stats["num_steps"]

    def integrate(x0, beta, ts):
        fraction, steps = solve(x0, beta, ts)
        return np.asarray(fraction), int(steps)

    return integrate


def _over_seeds(ts, fractions) -> dict[str, Any]:
    """Means of (seed, time) fractions and when they pass one half, with standard errors.

    The error of the time is the jackknife's: each seed is left out in turn. NaN if that decides
    whether one half is passed.
    """
    crossing = af.analysis.plateaus.crossing_time
    seeds, total = len(fractions), fractions.sum(axis=0)
    left_out = ((total - fractions) / (seeds - 1)).clip(0, 1)
    times = crossing(ts, left_out, 0.5, scale="logit")
    spread = times.std() if np.isfinite(times).all() else np.nan
    return {
        "fraction": total[::FINER] / seeds,
        "fraction_error": fractions[:, ::FINER].std(axis=0, ddof=1) / np.sqrt(seeds),
        "half_time": crossing(ts, total / seeds, 0.5, scale="logit"),
        "half_time_error": np.sqrt(seeds - 1) * spread,
    }
