"""Distribution of pairwise cosines over time: ridges at chosen times, or a map of all times."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import ArrayLike

from attnflow.errors import check_between, check_count
from attnflow.plot.shapes import read, read_times
from attnflow.plot.style import CATEGORICAL, SEQUENTIAL, new_axes, style
from attnflow.plot.times import number, time_axis


@style()
def cosine_histograms(
    edges: ArrayLike, counts: ArrayLike, ts: ArrayLike, *, rows: int = 6, ax: Axes | None = None
) -> Axes:
    """Histograms of pairwise cosines at several times, one above the other, the earliest on top.

    Each ridge is scaled to its own peak: late ones, with all cosines near 1, would dwarf the rest.

    Args:
        edges: Increasing bin edges, shape (b + 1,).
        counts: Pairs per bin (or their density), shape (t, b).
        ts: Increasing times, shape (t,).
        rows: Largest number of ridges, >= 1; that many times, evenly spaced in index, are drawn.
        ax: Axes to draw on. `None` makes a new figure.
    """
    edges, counts, ts = _read(edges, counts, ts)
    check_count(rows, "rows")
    chosen = np.unique(np.linspace(0, len(ts) - 1, min(rows, len(ts))).round().astype(int))
    ax = ax or new_axes(5.6, 0.9 + 0.62 * len(chosen))
    colors = matplotlib.colormaps[SEQUENTIAL](np.linspace(0.05, 0.85, len(chosen)))
    baselines = np.arange(len(chosen))[::-1]
    for row, baseline, color in zip(chosen, baselines, colors, strict=True):
        density = counts[row] / np.diff(edges)
        ridge = baseline + 0.9 * density / max(density.max(), np.finfo(float).tiny)
        ax.axhline(baseline, color="#C5CAD1", linewidth=0.7, zorder=1)
        ax.stairs(ridge, edges, baseline=baseline, fill=True, color=color, zorder=2)
    ax.set_yticks(baselines, [f"$t = {number(float(ts[row]))}$" for row in chosen], va="bottom")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlabel="pairwise cosine", xlim=(edges[0], edges[-1]), ylim=(-0.06, len(chosen)))
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel("density, each row to its own peak", color="#555555", fontsize=9)
    return ax


@style()
def cosine_heatmap(
    edges: ArrayLike,
    counts: ArrayLike,
    ts: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    log_time: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Share of pairs per cosine bin (colour) over time (across) and cosine (up).

    The colour scale is the square root of the share, so that sparse bins show.

    Args:
        edges: Increasing bin edges, shape (b + 1,).
        counts: Pairs per bin, shape (t, b).
        ts: Increasing times, shape (t,), at least two (two positive ones when `log_time`).
        mean: Mean cosine to draw on the map, shape (t,).
        log_time: Logarithmic time axis, from the first positive time.
        ax: Axes to draw on. `None` makes a new figure.
    """
    edges, counts, ts = _read(edges, counts, ts)
    averages = None if mean is None else read("mean", mean, t=len(ts))
    if len(ts) < 2:
        raise ValueError("Argument `ts` must hold at least two times, but it holds one.")
    ax = ax or new_axes(6.4, 3.8)
    time_axis(ax, ts, log=log_time)
    kept = (ts > 0) | (not log_time)
    share = counts[kept] / np.maximum(counts[kept].sum(axis=1, keepdims=True), 1e-300)
    mesh = ax.pcolormesh(
        _cell_edges(ts[kept], log=log_time),
        edges,
        share.T,
        cmap=SEQUENTIAL,
        norm=PowerNorm(0.5, vmin=0, vmax=max(share.max(), 1e-300)),
        rasterized=True,
    )
    bar = ax.figure.colorbar(mesh, ax=ax, label="share of pairs")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    if averages is not None:
        ax.plot(ts, averages, color=CATEGORICAL[1], label="mean cosine")
        ax.legend(loc="upper left", frameon=True, facecolor="#E4E7EB", framealpha=0.92)
    ax.set(ylabel="pairwise cosine", ylim=(edges[0], edges[-1]))
    return ax


def _read(
    edges: ArrayLike, counts: ArrayLike, ts: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ts, edges = read_times(ts), read_times(edges, "edges")
    if len(edges) < 2:
        raise ValueError("Argument `edges` must hold at least two bin edges, but it holds one.")
    counts = read("counts", counts, t=len(ts), b=len(edges) - 1)
    check_between(counts.ravel(), "counts", 0.0)
    return edges, counts, ts


def _cell_edges(ts: np.ndarray, *, log: bool) -> np.ndarray:
    """Edges half-way between neighbouring times on the axis's scale, shape (t + 1,)."""
    clock = np.log(ts) if log else ts
    middle = (clock[1:] + clock[:-1]) / 2
    cells = np.concatenate([clock[:1], middle, clock[-1:]])
    return np.exp(cells) if log else cells
