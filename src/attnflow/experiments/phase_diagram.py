"""Phase diagram: share of merged pairs over time and beta, with the equiangular curve on it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TOLERANCES = {"float64": (1e-7, 1e-8), "float32": (1e-5, 1e-6)}
BETAS_PER_CHECKPOINT = 30


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
    batch: int = 16
    """Starts integrated together, with one step size; 16 fit a CPU's cache, a GPU takes all."""
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
        it does not); `curve` (beta), when orthogonal tokens reach the cosine 1 - delta.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    config = resolve(config)
    _check(config)
    ts = np.linspace(0.0, config.t_max, config.time_count)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)
    fractions, steps = _integrate(config, ts, betas, progress, checkpoint)
    mean = fractions.mean(axis=2)
    half_time, half_time_error = _half_times(ts, fractions)
    curve = af.theory.equiangular.phase_curve(betas, n=config.n, delta=config.delta)
    map_axes, line_axes = ("dim", "beta", "time"), ("dim", "beta")
    spread = fractions.std(axis=2, ddof=1) / np.sqrt(config.seeds)
    share = "share of pairs i != j with <x_i, x_j> >= 1 - delta"
    attrs = {name: value for name, value in asdict(config).items() if name != "dtype"}
    return xr.Dataset(
        {
            "fraction": (map_axes, mean, {"long_name": f"{share}, mean over seeds"}),
            "fraction_error": (map_axes, spread, {"long_name": "standard error over seeds"}),
            "half_time": (line_axes, half_time, {"long_name": "time at which fraction = 1/2"}),
            "half_time_error": (line_axes, half_time_error, {"long_name": "jackknife over seeds"}),
            "curve": ("beta", curve, {"long_name": "t_SA(1 - delta; 0, n, beta)", "source": CURVE}),
        },
        {"dim": list(config.dims), "beta": betas, "time": ts},
        attrs={
            "experiment": "phase-diagram",
            "equation": "dx_i/dt = P_{x_i} sum_j softmax_j(beta <x_i, x_j>) x_j, j = i included",
            "units": "dimensionless",
            "steps": steps,
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


def _check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    import jax

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
    if config.dtype == "float64" and not jax.config.jax_enable_x64:
        raise ValueError(
            "Argument `dtype` must be 'float32' while JAX has float64 switched off, but "
            "dtype='float64'. Call `jax.config.update('jax_enable_x64', True)` first."
        )
    systems = config.beta_count * config.seeds
    largest = config.seeds * config.n * max(config.dims) + config.batch * 32 * config.n**2
    kept = len(config.dims) * systems * config.time_count
    check_memory(8 * (2 * kept + 2 * largest), f"A diagram of {systems} systems a panel")


def _integrate(config, ts, betas, progress, checkpoint):
    """Fractions of every system, shape (dim, beta, seed, time), and the number of steps."""
    from tqdm import tqdm

    fractions = np.zeros((len(config.dims), len(betas), config.seeds, len(ts)))
    rows = [(k, i) for k in range(len(config.dims)) for i in range(len(betas))]
    done, steps = 0, 0
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        done, arrays = found
        fractions, steps = arrays["fractions"], int(arrays["steps"])
    integrate = _batch_integrator(config.rtol, config.atol, config.delta)
    bar = tqdm(total=len(rows), initial=done, disable=not progress, unit="beta")
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        while done < len(rows):
            dim = rows[done][0]
            last = min(done + BETAS_PER_CHECKPOINT, (dim + 1) * len(betas))
            bar.set_description(f"d = {config.dims[dim]}")
            x0 = _reduced(starts(config, config.dims[dim]))
            batches = [x0[k : k + config.batch] for k in range(0, config.seeds, config.batch)]
            parts = [
                [pool.submit(integrate, batch, betas[i], ts) for batch in batches]
                for _, i in rows[done:last]
            ]
            for (_, i), part in zip(rows[done:last], parts, strict=True):
                results = [future.result() for future in part]
                fractions[dim, i] = np.concatenate([fraction for fraction, _ in results])
                steps += sum(count for _, count in results)
                bar.update()
            done = last
            if checkpoint is not None and done < len(rows):
                checkpoint.save(done, {"fractions": fractions, "steps": np.asarray(steps)})
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return fractions, steps


def _reduced(x0: np.ndarray) -> np.ndarray:
    """Starts in coordinates of their span where that is smaller, with the same inner products."""
    import jax

    if x0.shape[2] <= x0.shape[1]:
        return x0
    return np.asarray(jax.vmap(lambda x: af.sphere.span(x)[0])(x0))


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
        flow = af.sa(beta)
        traj = af.solve(
            lambda t, x, args: jax.vmap(lambda one: flow(t, one))(x),
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


def _half_times(ts, fractions):
    """When the mean over seeds passes one half, and its jackknife error; shapes (dim, beta)."""
    crossing = af.analysis.plateaus.crossing_time
    seeds = fractions.shape[2]
    total = fractions.sum(axis=2)
    half_time = crossing(ts, total / seeds, 0.5, scale="logit")
    left_out = (total[:, :, None] - fractions) / (seeds - 1)
    each = crossing(ts, left_out.clip(0, 1), 0.5, scale="logit")
    with np.errstate(invalid="ignore"):
        return half_time, np.sqrt(seeds - 1) * each.std(axis=2)
