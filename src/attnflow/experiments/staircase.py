"""The staircase: energy over exponentially long time, as tokens merge into fewer and fewer clusters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from attnflow.view import Scene

STEPS = 4000
MOMENTS = 5
LOG10_2 = float(np.log10(2))
ENDS = {"collapsed": "one cluster", "stationary": "a stationary state"}
FRAME_NAMES = {"log10_times": "log10_time", "tokens": "tokens", "labels": "labels"}
SETTLED = 0.5
"""Decades a plateau must last for the greedy prediction to start from it."""


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
        (stretch); tokens and labels at the start and on the longest plateaus (moment), and for the
        page at up to 200 moments (frame). From the
        first plateau of half a decade on, the greedy rule predicts all that follows from where the
        clusters stand then: `predicted_log10_time` and `predicted_energy` (predicted), beside
        `same_pair`, whether the run merged the same two clusters.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import jax.random as jr
    import xarray as xr

    from attnflow.view.merges import frames_of

    check(config)
    rules = {
        "sa": af.Attention(config.beta),
        "usa": af.UnnormalizedAttention(config.beta, clock="rescaled"),
    }
    x0 = np.asarray(af.sphere.uniform(jr.key(config.seed), config.n, config.d), float)
    tree = af.coalesce(rules[config.model], x0, merge_tol=config.merge_tol, rtol=config.rtol)
    predicted = _greedy(tree)
    thin = np.unique(np.linspace(0, len(tree.history.energies) - 1, STEPS).round().astype(int))
    longest = sorted(tree.plateaus(), key=lambda p: -p.persistence)[: MOMENTS - 1]
    middles = sorted(plateau.log10_middle for plateau in longest)
    moments = [tree.at(log10_t=t) for t in middles]
    labels = np.stack([np.arange(config.n), *(moment.labels for moment in moments)])
    tokens = np.stack([x0, *(moment.x[moment.labels] for moment in moments)])
    frames = frames_of(tree)
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
            "frame_log10_time": ("frame", frames["log10_times"]),
            "frame_tokens": (("frame", "token", "axis"), frames["tokens"]),
            "frame_labels": (("frame", "token"), frames["labels"]),
            **{name: ("predicted", values) for name, values in predicted.items()},
        },
        attrs={
            "experiment": "staircase",
            "equation": "energy sum_ij w_i w_j e^(beta (<x_i, x_j> - 1)); merges at a chord of 1e-8",
            "units": "dimensionless",
            "status": tree.status,
            "log10_t_end": tree.log10_t_end,
            "steps": tree.stats["steps"],
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_choice, check_count

    check_count(config.n, "n", low=2)
    check_count(config.d, "d", low=2)
    check_count(config.seed, "seed", low=0)
    check_choice(config.model, "model", ("sa", "usa"))


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
            predicted_times=data.predicted_log10_time.values,
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
            f"{_title(data)}: to {ENDS[data.attrs['status']]} "
            rf"at $t = 10^{{{data.attrs['log10_t_end']:.1f}}}$"
        )
    return figure


def scene(data: xr.Dataset) -> Scene | None:
    """Tokens along log-time, the tree of merges and the staircase; None for a run that kept no frames."""
    from attnflow.view.merges import scene_of_merges

    if "frame_tokens" not in data:
        return None
    return scene_of_merges(
        {name: data[f"frame_{key}"].values for name, key in FRAME_NAMES.items()},
        data.linkage.values[:, :2].astype(int),
        data.merge_log10_time.values,
        data.energy_after.values,
        steps={
            "log10_times": data.step_log10_time.values,
            "energies": data.energy.values,
            "clusters": data.clusters.values,
        },
        predicted={"log10_times": data.predicted_log10_time.values, "energies": _levels(data)},
        title=f"Staircase: {_title(data)}",
        subtitle=f"to {ENDS[data.attrs['status']]} at t = 10^{data.attrs['log10_t_end']:.1f}",
    )


def summary(data: xr.Dataset) -> str:
    """Table of the last merges, energy after each beside the sum of squared weights."""
    n, times = data.attrs["n"], data.merge_log10_time.values
    lines = [
        f"{n} tokens, d = {data.attrs['d']}, beta = {data.attrs['beta']:g}, "
        f"{data.attrs['model']}: {data.attrs['status']} after {data.attrs['steps']} steps",
        "",
        "Merges, beside what the greedy rule predicts from the first plateau of half a decade on:",
        f"{'clusters':>8}  {'log10 t':>10}  {'predicted':>10}  {'same pair':>9}  "
        f"{'energy after':>12}  {'predicted':>10}",
    ]
    first = len(times) - data.sizes["predicted"]
    for k in range(max(0, len(times) - 12), len(times)):
        line = f"{n - k - 1:>8}  {times[k]:>10.4f}"
        energy = f"{data.energy_after.values[k + 1]:>12.6f}"
        if k < first:
            lines.append(f"{line}  {'':>10}  {'':>9}  {energy}")
            continue
        one = data.isel(predicted=k - first)
        lines.append(
            f"{line}  {float(one.predicted_log10_time):>10.4f}  {'yes' if one.same_pair else 'no':>9}  "
            f"{energy}  {float(one.predicted_energy):>10.6f}"
        )
    return "\n".join([*lines, "", "Times at which a merge leaves so many clusters."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Merge times, energies and the prediction, as plain JSON values; None for merges at t = 0."""
    times = data.merge_log10_time.values
    names = ("predicted_log10_time", "predicted_energy", "same_pair")
    return {
        "log10_times": [float(t) if np.isfinite(t) else None for t in times],
        "energy_after": data.energy_after.values.tolist(),
        "squared_weights": data.squared_weights.values.tolist(),
        **{name: data[name].values.tolist() for name in names},
    }


def _title(data: xr.Dataset) -> str:
    a = data.attrs
    return f"{a['n']} tokens, d = {a['d']}, β = {a['beta']:g}, {a['model'].upper()}"


def _squared_weights(tree: af.MergeTree) -> np.ndarray:
    """Sum of squared weights at the start and after each merge."""
    weights = np.concatenate([tree.weights0, tree.merged_weights])
    gains = 2 * weights[tree.pairs[:, 0]] * weights[tree.pairs[:, 1]]
    return (tree.weights0**2).sum() + np.concatenate([[0.0], np.cumsum(gains)])


def _greedy(tree: af.MergeTree) -> dict[str, np.ndarray]:
    """Times and energies by the greedy rule from the first settled plateau, and whether pairs agree."""
    settled = [p for p in tree.plateaus(SETTLED) if 1 < p.clusters < tree.n]
    names = ("predicted_log10_time", "predicted_energy", "same_pair")
    if not settled:
        return dict(zip(names, (np.zeros(0), np.zeros(0), np.zeros(0, bool)), strict=True))
    moment = tree.at(log10_t=settled[0].log10_middle)
    clock = {"usa": "rescaled", "sa": "physical"}[tree.model]
    greedy = af.theory.staircase.greedy_merges(
        moment.x, beta=tree.beta, model=tree.model, weights=moment.weights, clock=clock
    )
    members = [set(np.flatnonzero(moment.labels == k)) for k in range(len(moment.x))]
    for i, j in greedy.pairs:
        members.append(members[i] | members[j])
    made = [{k} for k in range(tree.n)]
    for i, j in tree.pairs:
        made.append(made[i] | made[j])
    seen = made[tree.n + tree.n - len(moment.x) :]
    promised = members[len(moment.x) :]
    count = min(len(seen), len(promised))
    times, start = greedy.log10_times / LOG10_2, settled[0].log10_middle / LOG10_2
    return {
        "predicted_log10_time": np.logaddexp2(times[:count], start) * LOG10_2,
        "predicted_energy": greedy.energies[1:][:count],
        "same_pair": np.array([a == b for a, b in zip(seen, promised, strict=False)]),
    }


def _levels(data: xr.Dataset) -> np.ndarray:
    """Levels before the first predicted merge, and after each."""
    first = data.sizes["stretch"] - 1 - data.sizes["predicted"]
    return np.concatenate([[data.squared_weights.values[first]], data.predicted_energy.values])
