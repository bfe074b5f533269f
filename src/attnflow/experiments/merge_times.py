"""Merge times: how log time grows with beta, beside the gap 1 - cos that clusters have to cross."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.intervals import half_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

MODELS = ("sa", "usa")
CLOCKS = {"sa": "physical", "usa": "rescaled"}


@dataclass(frozen=True)
class Config:
    """Settings of the merge times."""

    n: int = 6
    """Number of tokens, uniform on the sphere: each is a cluster from the start."""
    d: int = 3
    """Dimension."""
    beta_min: float = 40.0
    """Smallest inverse temperature."""
    beta_max: float = 160.0
    """Largest inverse temperature."""
    beta_count: int = 7
    """Number of inverse temperatures, evenly spaced."""
    seeds: int = 16
    """Number of independent starts; every beta and both models have the same ones."""
    seed: int = 0
    """Seed of the starts."""
    rtol: float = 1e-9
    """Relative error allowed in each step."""
    dtype: Literal["float64"] = "float64"
    """Precision; metastable speeds need float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Run every start to one cluster at every beta, under SA and USA (rescaled clock).

    A pair at angle g waits for $T\approx\frac{e^{\beta(1-\cos g)}}{c\beta\sin^2g}$, so $\log(\beta T)$ is a line
    whose slope is the gap $1-\cos g$. The gap of the k-th merge is the largest of the first k that the
    greedy rule takes at beta = inf.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each start.

    Returns:
        `log10_time` and `predicted_log10_time`, by the greedy rule at this beta (model, start, beta,
        merge); `slope`, by least squares, and `gap` (model, start, merge); `ratio` (model), mean over
        starts of slope / gap of the last merge, with `ratio_error`, half its 95 % interval (Student).

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    check(config)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)
    found = _merge_all(config, betas, progress, checkpoint)
    heights = found["log10_time"] * np.log(10) + np.log(betas)[:, None]
    centered = betas - betas.mean()
    slopes = np.einsum("b,msbk->msk", centered, heights) / (centered @ centered)
    ratios = slopes[..., -1] / found["gap"][..., -1]
    axes, lines = ("model", "start", "beta", "merge"), ("model", "start", "merge")
    return xr.Dataset(
        {
            "log10_time": (axes, found["log10_time"], {"long_name": "log10 of merge times"}),
            "predicted_log10_time": (axes, found["predicted_log10_time"]),
            "gap": (lines, found["gap"], {"long_name": "1 - cos g, largest so far"}),
            "slope": (lines, slopes, {"long_name": "slope of log(beta T) over beta"}),
            "ratio": ("model", ratios.mean(axis=1), {"long_name": "slope / gap, last merge"}),
            "ratio_error": ("model", half_interval(ratios)),
        },
        {"model": list(MODELS), "beta": betas},
        attrs={
            "experiment": "merge-times",
            "equation": "log(beta T) = beta (1 - cos g) + const; T of USA in its rescaled clock",
            "units": "dimensionless",
            "steps": int(found["steps"]),
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Time of the last merge over beta, for both models, and slopes over gaps for all merges."""
    from attnflow import plot

    with plot.style():
        figure, axes = plot.panels([[*MODELS, "slope"]], width=13.0, height=4.6)
        for model in MODELS:
            _draw_times(axes[model], data.sel(model=model))
        _draw_slopes(axes["slope"], data)
        top = 1.05 * float(data.log10_time.max())
        for model in MODELS:
            axes[model].set_ylim(0, top)
        figure.suptitle(
            f"{data.attrs['n']} uniform tokens, d = {data.attrs['d']}: "
            f"time to one cluster, {data.attrs['seeds']} starts"
        )
    return figure


def summary(data: xr.Dataset) -> str:
    """Table of slopes over gaps, then slope and gap of the last merge of each start."""
    lines = [
        f"{data.attrs['n']} tokens, d = {data.attrs['d']}, {data.attrs['seeds']} starts, beta from "
        f"{data.attrs['beta_min']:g} to {data.attrs['beta_max']:g}: {data.attrs['equation']}",
        "",
        "Slope over gap of the last merge, mean over starts with its 95 % interval:",
    ]
    for model in MODELS:
        one = data.sel(model=model)
        lines.append(f"{model:>5}  {float(one.ratio):.4f} ± {float(one.ratio_error):.4f}")
    lines += ["", f"{'start':>5}" + "".join(f"{f'gap, {m}':>12}{'slope':>9}" for m in MODELS)]
    for k in range(data.sizes["start"]):
        last = data.isel(start=k, merge=-1)
        cells = (
            f"{float(last.gap.sel(model=m)):>12.4f}{float(last.slope.sel(model=m)):>9.4f}"
            for m in MODELS
        )
        lines.append(f"{k:>5}" + "".join(cells))
    return "\n".join(lines)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Ratios with their intervals, slopes and gaps, as plain JSON values."""
    return {
        "model": list(MODELS),
        "beta": data.beta.values.tolist(),
        **{name: data[name].values.tolist() for name in ("ratio", "ratio_error", "slope", "gap")},
    }


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_count, check_finite

    for name, low in (("n", 2), ("d", 2), ("beta_count", 2), ("seeds", 2), ("seed", 0)):
        check_count(getattr(config, name), name, low=low)
    for name in ("beta_min", "beta_max"):
        check_finite(getattr(config, name), name)
    check_between(config.beta_min, "beta_min", low=0.0, open_low=True)
    check_between(config.beta_max, "beta_max", low=config.beta_min, open_low=True)
    check_between(config.rtol, "rtol", 1e-12, 1e-3)


def _merge_all(config: Config, betas, progress, checkpoint) -> dict[str, np.ndarray]:
    """Merge times, their predictions, and gaps of every model and start."""
    import jax.random as jr
    from tqdm import tqdm

    shape, merges = (len(MODELS), config.seeds), config.n - 1
    found = {
        name: np.zeros((*shape, len(betas), merges))
        for name in ("log10_time", "predicted_log10_time")
    } | {"gap": np.zeros((*shape, merges)), "steps": np.zeros((), np.int64)}
    done, rows = 0, list(np.ndindex(shape))
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    for row in tqdm(rows[done:], initial=done, total=len(rows), disable=not progress, unit="start"):
        model, key = MODELS[row[0]], jr.fold_in(jr.key(config.seed), row[1])
        x0 = np.asarray(af.sphere.uniform(key, config.n, config.d), float)
        greedy = af.theory.metastability.greedy_merges
        found["gap"][row] = np.maximum.accumulate(1 - np.cos(greedy(x0, model=model).gaps))
        for k, beta in enumerate(betas):
            tree = af.coalesce(_attention(model, float(beta)), x0, rtol=config.rtol)
            steps = greedy(x0, beta=beta, model=model, clock=CLOCKS[model])
            found["log10_time"][row][k] = tree.log10_times
            found["predicted_log10_time"][row][k] = steps.log10_times
            found["steps"] += tree.stats["steps"]
        done += 1
        if checkpoint is not None and done < len(rows):
            checkpoint.save(done, found)
    return found


def _attention(model: str, beta: float) -> af.Attention | af.UnnormalizedAttention:
    if model == "sa":
        return af.Attention(beta)
    return af.UnnormalizedAttention(beta, clock="rescaled")


def _look(model: str) -> tuple[str, str]:
    """Colour and marker of a model."""
    from attnflow import plot

    k = MODELS.index(model)
    return plot.CATEGORICAL[k], "os"[k]


def _draw_times(ax: Any, data: xr.Dataset) -> None:
    """A line of the greedy rule and points of the run for each start."""
    from attnflow import plot

    last, model = data.isel(merge=-1), str(data.model.values)
    color, marker = _look(model)
    theory = ax.plot(data.beta, last.predicted_log10_time.T, color=plot.INK, linewidth=0.8)
    tokens = ax.plot(data.beta, last.log10_time.T, marker, color=color, markersize=3.5)
    ratio, error = float(data.ratio), float(data.ratio_error)
    ax.set(
        title=f"{model.upper()}: slope / gap = {ratio:.3f} ± {error:.3f}",
        xlabel=r"inverse temperature $\beta$",
        ylabel=rf"$\log_{{10}}$ of the last merge time, {CLOCKS[model]} clock",
    )
    ax.legend([tokens[0], theory[0]], ["tokens", "greedy rule"], loc="upper left")


def _draw_slopes(ax: Any, data: xr.Dataset) -> None:
    """Slope over gap of every merge of every start; the last merges stand out."""
    from attnflow import plot

    top = 1.05 * float(data.gap.max())
    ax.plot([0, top], [0, top], "--", color=plot.INK, linewidth=1.2, label="slope = gap", zorder=1)
    for model in MODELS:
        one, (color, marker) = data.sel(model=model), _look(model)
        early, last = one.isel(merge=slice(None, -1)), one.isel(merge=-1)
        ax.plot(
            early.gap.values.ravel(), early.slope.values.ravel(), marker, color=color,
            markersize=3.5, alpha=0.3, markeredgewidth=0, zorder=2,
        )  # fmt: skip
        label = f"{model.upper()}, last merge"
        ax.plot(last.gap, last.slope, marker, color=color, label=label, zorder=3)
    ax.set(
        title="Slopes of all merges",
        xlabel=r"gap $1-\cos\,g$",
        ylabel=r"slope of $\log(\beta T)$ over $\beta$",
        xlim=(0, top),
    )
    ax.legend(loc="upper left")
