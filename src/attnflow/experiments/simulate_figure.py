"""Figure and table of a simulation, from its numbers alone."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ROWS = 12
IMAGES = 20
DOTS = 20_000
"""Tokens that are drawn at most."""


def plateau(data: xr.Dataset) -> int:
    """Save index in the middle of the longest stretch of log-time with a constant cluster count.

    Only counts from 2 to n/4 compete; the last save time if there is none.
    """
    from attnflow.analysis.plateaus import plateaus

    ts, counts = data.time.values, data.clusters.values.astype(float)
    most = max(2, data.sizes["token"] // 4)
    level = [p for p in plateaus(ts, counts, tolerance=0.0, ratio=1.01) if 2 <= p.level <= most]
    if not level:
        return len(ts) - 1
    longest = max(level, key=lambda p: p.end / p.start)
    return int(np.abs(ts - np.sqrt(longest.start * longest.end)).argmin())


def first_shown(data: xr.Dataset) -> int:
    """First save index with no more clusters than images fit into the figure."""
    few = np.flatnonzero(data.clusters.values <= IMAGES)
    return int(few[0]) if len(few) else len(data.time) - 1


def nearest_state(data: xr.Dataset, at: int) -> tuple[int, int]:
    """Row of the kept state nearest to a save index, and its save index."""
    if "state_save" not in data:
        return at, at
    kept = data.state_save.values
    row = int(np.abs(kept - at).argmin())
    return row, int(kept[row])


def cluster_images(data: xr.Dataset, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean start image of each cluster at a save time, largest first, and their sizes."""
    labels = data.labels.values[nearest_state(data, at)[0]]
    sizes = np.bincount(labels)
    order = np.argsort(-sizes, kind="stable")
    start = data.start.values
    means = np.stack([start[labels == label].mean(axis=0) for label in order])
    return means.reshape(-1, *data.attrs["image_shape"]), sizes[order]


def figure(data: xr.Dataset) -> Figure:
    """Cosine histograms, clusters and energy, rho against theory, the clusters, the last decay."""
    from attnflow import plot
    from attnflow.experiments.simulate import HISTOGRAM_TOKENS, SAMPLE

    ts = data.time.values
    images = "image_shape" in data.attrs
    at = nearest_state(data, first_shown(data) if images else plateau(data))[1]
    bottom = ["tokens", "tokens", "decay"] if images else ["start", "tokens", "decay"]
    with plot.style():
        fig, axes = plot.panels(
            [["histogram", "clusters", "cosine"], ["energy", "rank", "cosine"], bottom],
            width=13,
            height=11,
        )
        shown = np.unique(np.linspace(0, _settled(data), 6).round().astype(int))
        plot.cosine_histograms(
            data.edges.values, data.histogram.values[shown], ts[shown], ax=axes["histogram"]
        )
        sampled = data.sizes["token"] > HISTOGRAM_TOKENS
        of = f"the pairs of some {SAMPLE} tokens" if sampled else "all pairs"
        axes["histogram"].set_title(f"cosines of {of}")
        plot.cluster_curve(ts, data.clusters.values, ax=axes["clusters"])
        axes["clusters"].set_title(f"clusters (linked at cosine {data.attrs['cosine']:g})")
        axes["clusters"].axvline(ts[at], color="0.6", lw=1, zorder=0)
        known = bool(np.isfinite(data.predicted_cosine.values).all())
        plot.cosine_curve(
            ts,
            data.mean_cosine.values,
            theory=data.predicted_cosine.values if known else None,
            theory_label="equiangular tokens, same start",
            log_time=True,
            ax=axes["cosine"],
        )
        axes["cosine"].set_title("mean cosine")
        if "energy" in data:
            plot.energy_curve(ts, data.energy.values, log_time=True, ax=axes["energy"])
            axes["energy"].set_ylabel(r"energy $E_\beta/E_\beta$(consensus)")
        else:
            plot.cosine_curve(
                ts,
                data.order_parameter.values,
                ylabel="order parameter $R$",
                log_time=True,
                ax=axes["energy"],
            )
        axes["energy"].set_title("energy, as a share of consensus" if "energy" in data else "order")
        plot.cosine_curve(
            ts, data.effective_rank.values, ylabel="effective rank", log_time=True, ax=axes["rank"]
        )
        if (legend := axes["rank"].get_legend()) is not None:
            legend.remove()
        axes["rank"].set_title("effective rank of the tokens")
        _draw_tokens(data, at, axes, plot)
        _draw_decay(data, axes["decay"], plot)
        fig.suptitle(_title(data), fontsize=14)
    return fig


def _title(data: xr.Dataset) -> str:
    a, size = data.attrs, data.sizes
    what = {"digits": "handwritten digits as tokens"}.get(a["tokens"], f"tokens ({a['tokens']})")
    return (
        rf"{size['token']} {what}, $d$ = {size['axis']}, flow {a['flow']}, $\beta$ = {a['beta']:g}"
    )


def _settled(data: xr.Dataset) -> int:
    """First save index with every pair in the last bin, or the last index."""
    merged = np.flatnonzero(data.gap.values < 1e-3)
    return int(merged[0]) if len(merged) else len(data.time) - 1


def _draw_tokens(data, at, axes, plot) -> None:
    when = rf"$t$ = {data.time.values[at]:.3g}"
    if "image_shape" in data.attrs:
        images, sizes = cluster_images(data, at)
        plot.image_grid(images[:IMAGES], counts=sizes[:IMAGES], ax=axes["tokens"])
        most = "" if len(sizes) <= IMAGES else f"{IMAGES} largest of "
        axes["tokens"].set_title(f"mean image of the {most}{len(sizes)} clusters at {when}")
        return
    from attnflow.experiments.simulate import sampled

    n, row = data.sizes["token"], nearest_state(data, at)[0]
    few, size = sampled(n, DOTS), None
    labels = data.labels.values[row][few] % 8
    plot.tokens(data.start.values[few], labels=labels, ax=axes["start"])
    some = "" if len(few) == n else f" ({len(few)} drawn)"
    axes["start"].set_title(f"the start, coloured by cluster{some}")
    if "tokens" not in data:
        axes["tokens"].set_axis_off()
        axes["tokens"].set_title("no states kept")
        return
    xs = data.tokens.values[row][few]
    xs = xs / np.linalg.norm(xs, axis=-1, keepdims=True)
    if some:  # dots as large as if each place had one token
        size = 42.0 * min(1.0, 10 / len(np.unique(xs.round(2), axis=0)) ** 0.5)
    plot.tokens(xs, labels=labels, size=size, ax=axes["tokens"])
    axes["tokens"].set_title(f"{data.clusters.values[at]} clusters at {when}")


def _draw_decay(data, ax, plot) -> None:
    if "observed_rate" not in data.attrs:
        plot.cosine_curve(
            data.time.values[1:], data.gap.values[1:], ylabel=r"$1 - \rho$", log_time=True, ax=ax
        )
        if data.gap.values[1:].max() > 10 * data.gap.values[1:].min() > 0:
            ax.set_yscale("log")
        ax.set_title("distance from consensus")
        return
    plot.decay_curve(
        data.decay_time.values,
        data.decay.values,
        fitted_rate=data.attrs["observed_rate"],
        predicted_rate=data.attrs["predicted_rate"],
        ax=ax,
    )
    ax.set_title(r"the last decay, $1 - \rho$")


def table(data: xr.Dataset) -> str:
    """Clusters over log-time, energy and cosine; theorems that apply; rates."""
    ts = data.time.values
    rows = np.unique(np.linspace(0, len(ts) - 1, ROWS).round().astype(int))
    lines = [
        f"{data.sizes['token']} tokens, d = {data.sizes['axis']}, {data.attrs['equation']}, "
        f"beta = {data.attrs['beta']:g}; {data.attrs['steps']} steps"
        + (f", sum {data.attrs['sum_taken']}" if data.attrs.get("sum_taken") else ""),
        "",
        f"{'t':>9}  {'clusters':>8}  {'rho':>9}  {'energy':>9}  {'rank':>6}  largest clusters",
    ]
    for i in rows:
        sizes = data.largest.values[i]
        sizes, more = sizes[sizes > 0], data.clusters.values[i] > len(sizes)
        energy = f"{data.energy.values[i]:9.3g}" if "energy" in data else f"{'-':>9}"
        lines.append(
            f"{ts[i]:9.3g}  {data.clusters.values[i]:8d}  {data.mean_cosine.values[i]:9.6f}  {energy}  "
            f"{data.effective_rank.values[i]:6.2f}  {' '.join(map(str, sizes))}{' ...' if more else ''}"
        )
    lines += ["", "energy: share of its value at consensus. rank: effective rank."]
    lines += _theorem_lines(data)
    return "\n".join(lines)


def _theorem_lines(data: xr.Dataset) -> list[str]:
    applying = [t for t in json.loads(data.attrs["theorems"]) if t["applies"]]
    lines = ["", "What theory promises for this start:"] if applying else []
    for theorem in applying:
        text = f"{theorem['name']}: {theorem['promise']} [{theorem['source']}; {theorem['status']}]"
        lines += textwrap.wrap(text, 100, initial_indent="  - ", subsequent_indent="    ")
    if "observed_rate" in data.attrs:
        a = data.attrs
        lines += [
            "",
            f"Rate of 1 - rho from t = {data.decay_time.values[0]:.4g} on: "
            f"predicted {a['predicted_rate']:.7g}, observed {a['observed_rate']:.7g}",
        ]
    return lines
