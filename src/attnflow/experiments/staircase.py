"""The staircase: energy over exponentially long time, as tokens merge into fewer and fewer clusters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

STEPS = 4000
MOMENTS = 5


@dataclass(frozen=True)
class Config:
    """Settings of the staircase."""

    n: int = 64
    """Number of tokens, uniform on the sphere."""
    d: int = 2
    """Dimension."""
    beta: float = 100.0
    """Inverse temperature."""
    model: Literal["sa", "usa"] = "sa"
    """Softmax attention, or unnormalised attention in its rescaled clock."""
    seed: int = 0
    """Seed of the start."""
    merge_tol: float = 1e-8
    """Chord distance at which two tokens become one."""
    rtol: float = 1e-9
    """Relative error allowed in each step."""
    dtype: Literal["float64"] = "float64"
    """Precision; metastable speeds need float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    """Run tokens to one cluster, and keep energy, merges, and some moments.

    The run takes seconds, so `progress` and `checkpoint` are not used.

    Returns:
        `energy` and `clusters` (step), with log10 times; merge times and the linkage (merge); the
        energy after each merge beside the sum of squared weights it tends to for large beta
        (stretch); tokens and labels at the start and on the longest plateaus (moment).

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import jax.random as jr
    import xarray as xr

    from attnflow.errors import check_choice, check_count

    check_count(config.n, "n", low=2)
    check_count(config.d, "d", low=2)
    check_count(config.seed, "seed", low=0)
    check_choice(config.model, "model", ("sa", "usa"))
    rules = {
        "sa": af.Attention(config.beta),
        "usa": af.UnnormalizedAttention(config.beta, clock="rescaled"),
    }
    x0 = np.asarray(af.sphere.uniform(jr.key(config.seed), config.n, config.d), float)
    tree = af.coalesce(rules[config.model], x0, merge_tol=config.merge_tol, rtol=config.rtol)
    thin = np.unique(np.linspace(0, len(tree.history.energies) - 1, STEPS).round().astype(int))
    longest = sorted(tree.plateaus(), key=lambda p: -p.persistence)[: MOMENTS - 1]
    middles = sorted(plateau.log10_middle for plateau in longest)
    moments = [tree.at(log10_t=t) for t in middles]
    labels = np.stack([np.arange(config.n), *(moment.labels for moment in moments)])
    tokens = np.stack([x0, *(moment.x[moment.labels] for moment in moments)])
    return xr.Dataset(
        {
            "energy": ("step", tree.history.energies[thin], {"long_name": "scaled energy"}),
            "clusters": ("step", tree.history.clusters[thin]),
            "step_log10_time": ("step", tree.history.log10_times[thin]),
            "merge_log10_time": ("merge", tree.log10_times),
            "linkage": (("merge", "column"), tree.linkage[: len(tree.pairs)]),
            "energy_after": ("stretch", tree.energies),
            "squared_weights": ("stretch", _squared_weights(tree)),
            "tokens": (("moment", "token", "axis"), tokens),
            "labels": (("moment", "token"), labels),
            "moment_log10_time": ("moment", np.array([-np.inf, *middles])),
        },
        attrs={
            "experiment": "staircase",
            "equation": "energy sum_ij w_i w_j e^(beta (<x_i, x_j> - 1)); merges at a chord of 1e-8",
            "units": "dimensionless",
            "status": tree.status,
            "steps": tree.stats["steps"],
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Energy over log time, tokens on the longest plateaus, and the tree of merges."""
    from attnflow import plot

    moments = [f"m{k}" for k in range(data.sizes["moment"])]
    width = len(moments)
    with plot.style():
        figure, axes = plot.panels(
            [["energy"] * width, moments, ["tree"] * width], width=12.0, height=11.0
        )
        plot.staircase(
            data.step_log10_time.values,
            data.energy.values,
            merges=data.merge_log10_time.values,
            predicted=_levels(data),
            ax=axes["energy"],
        )
        plot.strip(
            list(data.tokens.values),
            data.moment_log10_time.values,
            labels=list(data.labels.values),
            clusters=[len(np.unique(row)) for row in data.labels.values],
            axes=[axes[name] for name in moments],
        )
        plot.dendrogram(data.linkage.values, ax=axes["tree"])
        figure.suptitle(
            f"{data.attrs['n']} tokens, d = {data.attrs['d']}, β = {data.attrs['beta']:g}, "
            f"{data.attrs['model'].upper()}: to one cluster at t = 10^{data.merge_log10_time.values[-1]:.1f}"
        )
    return figure


def summary(data: xr.Dataset) -> str:
    """Table of the last merges, energy after each beside the sum of squared weights."""
    lines = [
        f"{data.attrs['n']} tokens, d = {data.attrs['d']}, beta = {data.attrs['beta']:g}, "
        f"{data.attrs['model']}: {data.attrs['status']} after {data.attrs['steps']} steps",
        "",
        f"{'clusters':>8}  {'log10 t':>10}  {'energy after':>12}  {'sum of w^2':>10}",
    ]
    times = data.merge_log10_time.values
    for k in range(max(0, len(times) - 12), len(times)):
        left = data.attrs["n"] - k - 1
        energy, squares = data.energy_after.values[k + 1], data.squared_weights.values[k + 1]
        lines.append(f"{left:>8}  {times[k]:>10.4f}  {energy:>12.6f}  {squares:>10.6f}")
    return "\n".join([*lines, "", "Times at which a merge leaves so many clusters."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Merge times and energies, as plain JSON values; None for merges at t = 0."""
    times = data.merge_log10_time.values
    return {
        "log10_times": [float(t) if np.isfinite(t) else None for t in times],
        "energy_after": data.energy_after.values.tolist(),
        "squared_weights": data.squared_weights.values.tolist(),
    }


def _squared_weights(tree: af.MergeTree) -> np.ndarray:
    """Sum of squared weights at the start and after each merge."""
    weights = np.concatenate([tree.weights0, tree.merged_weights])
    gains = 2 * weights[tree.pairs[:, 0]] * weights[tree.pairs[:, 1]]
    return (tree.weights0**2).sum() + np.concatenate([[0.0], np.cumsum(gains)])


def _levels(data: xr.Dataset) -> np.ndarray:
    """Levels of the last merges, those that differ enough to be seen."""
    return data.squared_weights.values[-min(8, data.sizes["stretch"]) :]
