"""Clusters as streams whose width is their weight and that join when they merge."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import ArrayLike

from attnflow.errors import check_between, check_finite
from attnflow.plot.forest import check_pairs, clusters_at, leaf_order, longest_plateau, parents
from attnflow.plot.log_time import (
    log_time_axis,
    mark_plateau,
    read_log10_times,
    shifted,
    unshifted,
)
from attnflow.plot.shapes import read
from attnflow.plot.style import category_colors, new_axes, style

_SPACE = 0.6  # all space between tokens at the start, as a share of their width
_BEND = 0.05  # share of the axis over which streams turn toward each other
_SHORTEST = 0.01  # share of the axis below which a stream is left out


@style()
def river(
    pairs: ArrayLike,
    log10_times: ArrayLike,
    weights: ArrayLike,
    *,
    plateau: float | int | None = None,
    start: float | int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Streams from left to right, one for each cluster, that flow into each other at merge times.

    Their width is the weight. Streams that merge are neighbours, so that none cross. Up to the
    plateau they have the colour of their cluster there; afterwards the heavier lends its colour.
    Clusters that last for less than a hundredth of the axis are left out: what they are made of
    flows straight into the next.

    Args:
        pairs: Ids of the clusters that merge, shape (m, 2), as in a SciPy linkage: 0 to n-1 are
            tokens, n+k is what merge k made.
        log10_times: log10 of merge times, not decreasing, shape (m,).
        weights: Token weights > 0, shape (n,).
        plateau: log10 of a time on the plateau whose clusters choose the colours. `None` takes the
            longest plateau of two clusters or more.
        start: log10 of the time at which the axis begins. `None` begins just before the first merge.
        ax: Axes to draw on. `None` makes a new figure.

    Returns:
        The axes, with one collection of a polygon for each stream.

    Raises:
        ValueError: If a shape does not fit, an id is no cluster, or times decrease.
    """
    times = read_log10_times("log10_times", log10_times, m=None)
    ids = read("pairs", pairs, m=len(times), two=2)
    weights = read("weights", weights, n=None)
    check_finite(weights, "weights")
    check_between(weights, "weights", 0.0, open_low=True)
    n = len(weights)
    ids = check_pairs(ids, n, "pairs")
    low, high = _ends(times, start)
    partial = len(times) < n - 1
    if plateau is None:
        plateau = unshifted(longest_plateau(np.append(shifted(times), [np.inf] * partial)))
    high = max(high, plateau + 0.03 * (high - low))
    group = clusters_at(ids, times, n, plateau)
    owner, half = group.copy(), np.concatenate([weights / 2, np.zeros(len(ids))])
    for node, (a, b) in enumerate(ids, start=n):
        half[node] = half[a] + half[b]
        if owner[node] < 0:
            owner[node] = owner[a] if half[a] >= half[b] else owner[b]
    born = np.concatenate([np.full(n, low), np.maximum(times, low)])
    shown, streams = _streams(ids, born, half, high)
    ax = ax or new_axes(7.0, 4.2)
    ax.add_collection(
        PolyCollection(
            streams, facecolors=category_colors(owner[shown]), edgecolors="face",
            linewidths=0.3, zorder=2,
        ),
        autolim=False,
    )  # fmt: skip
    total = (1 + _SPACE * (n > 1)) * weights.sum()
    ax.set(ylim=(total * 1.01, -total * 0.01), yticks=[], ylabel="clusters, width = weight")
    ax.spines["left"].set_visible(False)
    log_time_axis(ax, low, high)
    mark_plateau(ax, plateau, int(group.max()) + 1)
    return ax


def _ends(times: np.ndarray, start: float | int | None) -> tuple[float, float]:
    finite = times[np.isfinite(times)]
    first, last = (finite[0], finite[-1]) if len(finite) else (0.0, 0.0)
    span = max(float(last - first), 1.0)
    low = float(first - 0.04 * span) if start is None else float(start)
    return low, max(float(last), low) + 0.06 * span


def _streams(
    pairs: np.ndarray, born: np.ndarray, half: np.ndarray, high: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Nodes that live long enough to be seen, and their outlines."""
    n, low = len(half) - len(pairs), born[0]
    parent = parents(pairs, n)
    into, kept = np.full(len(half), -1), np.ones(len(half), bool)
    for node in range(len(half) - 1, -1, -1):
        up = parent[node]
        if up >= 0:
            into[node] = up if kept[up] else into[up]
            life = born[into[node]] - born[node]
            kept[node] = life > (0 if node < n else _SHORTEST * (high - low))
    before, middle = _places(pairs, half)
    bend = np.full(len(half), _BEND * (high - low))
    joining = np.flatnonzero(kept & (into >= 0))
    np.minimum.at(bend, into[joining], born[into[joining]] - born[joining])
    shown, streams = np.flatnonzero(kept), []
    slot = middle[into] - half[into] + before - before[into] + half
    slot, end = np.where(into < 0, middle, slot), np.where(into < 0, high, born[into])
    for node in shown:
        start, stop = float(born[node]), float(end[node])
        turn = float(bend[into[node]])
        streams.append(_stream(start, stop, middle[node], slot[node], half[node], turn))
    return shown, streams


def _places(pairs: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight above each node, and its middle: that of the outer edges of what it joins."""
    n = len(half) - len(pairs)
    order = leaf_order(pairs, n)
    width = 2 * half[order]
    before, middle = np.zeros(len(half)), np.zeros(len(half))
    before[order] = width.cumsum() - width
    space = _SPACE * width.sum() / max(n - 1, 1)
    middle[order] = before[order] + half[order] + space * np.arange(n)
    for node, (a, b) in enumerate(pairs, start=n):
        before[node] = min(before[a], before[b])
        upper, lower = (a, b) if before[a] < before[b] else (b, a)
        middle[node] = (middle[upper] - half[upper] + middle[lower] + half[lower]) / 2
    return before, middle


def _stream(
    begin: float, end: float, middle: float, slot: float, half: float, bend: float
) -> np.ndarray:
    """Corners of a band that runs straight, then bends into its slot; shape (corners, 2)."""
    share = np.linspace(0, 1, 25)
    x = np.append(begin, end - bend * (1 - share))
    y = np.append(middle, middle + (slot - middle) * share**2 * (3 - 2 * share))
    if slot == middle:
        x, y = np.array([begin, end]), np.array([middle, middle])
    there, back = np.stack([x, y - half], axis=1), np.stack([x, y + half], axis=1)[::-1]
    return np.concatenate([there, back])
