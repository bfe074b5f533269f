"""Which token merges with which, and when: a tree along the logarithm of time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from numpy.typing import ArrayLike

from attnflow.plot.forest import check_pairs, clusters_at, leaf_order, longest_plateau, parents
from attnflow.plot.log_time import mark_plateau, shifted, shifted_log_time_axis
from attnflow.plot.shapes import read
from attnflow.plot.style import MUTED, category_colors, new_axes, style

_NAMED = 40  # up to so many leaves have their names written


@style()
def dendrogram(
    linkage: ArrayLike,
    *,
    plateau: float | int | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Merges as a tree, tokens on the left, time to the right, t = 0 included.

    Clusters of the plateau and what they are made of have a colour each, later ones are grey. What
    never merges reaches the right end of the axis. Up to thousands of leaves; chains are no deeper
    than other trees.

    Args:
        linkage: SciPy linkage matrix, shape (n - 1, 4), its heights log10(1 + t), not decreasing,
            inf where clusters never merge.
        plateau: log10 of a time on the plateau whose clusters choose the colours. `None` takes the
            longest plateau of two clusters or more.
        names: Names of the n tokens, written if there are at most 40. `None` writes their numbers.
        ax: Axes to draw on. `None` makes a new figure.

    Returns:
        The axes, with one collection of lines: a stem for each cluster, a joint for each merge.

    Raises:
        ValueError: If `linkage` is no tree, or heights decrease or are negative.
    """
    table = read("linkage", linkage, merges=None, columns=4)
    n, heights = len(table) + 1, table[:, 2]
    pairs = check_pairs(table[:, :2], n, "linkage")
    if np.isnan(heights).any() or (heights < 0).any() or (heights[1:] < heights[:-1]).any():
        raise ValueError(
            "Argument `linkage` must have heights >= 0 that do not decrease, but it does not. "
            "Heights are log10(1 + t)."
        )
    cut = longest_plateau(heights) if plateau is None else float(shifted(float(plateau)))
    if names is not None and len(names) != n:
        raise ValueError(f"Argument `names` must hold n={n} texts, but len(names)={len(names)}.")
    pairs, heights = pairs[np.isfinite(heights)], heights[np.isfinite(heights)]
    high = 1.04 * max(float(heights.max(initial=0.1)), cut)
    order, parent = leaf_order(pairs, n), parents(pairs, n)
    group = clusters_at(pairs, heights, n, cut)

    x, y = np.concatenate([np.zeros(n), heights]), np.zeros(n + len(heights))
    y[order] = np.arange(n)
    for node, pair in enumerate(pairs, start=n):
        y[node] = y[pair].mean()
    ends = np.where(parent < 0, high, x[parent])
    stems = np.stack([np.stack([x, y], axis=1), np.stack([ends, y], axis=1)], axis=1)
    joints = np.stack([np.stack([heights, y[side]], axis=1) for side in pairs.T], axis=1)
    ax = ax or new_axes(6.5, min(7.0, 2.4 + 0.09 * n))
    ax.add_collection(
        LineCollection(
            [*stems, *joints], colors=_branch_colors(np.append(group, group[n:])), linewidths=1.4 if n <= 100 else 0.7,
            capstyle="round", joinstyle="round", zorder=2,
        ),
        autolim=False,
    )  # fmt: skip
    ax.set_ylim(n - 0.5, -0.5)
    shifted_log_time_axis(ax, high)
    mark_plateau(ax, cut, int(group.max()) + 1)
    ax.spines["left"].set_visible(False)
    if n <= _NAMED:
        texts = [str(names[i]) if names else str(i) for i in order]
        ax.set_yticks(range(n), texts)
        ax.tick_params(axis="y", length=0)
        ax.set_ylabel("token")
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{n} tokens")
    return ax


def _branch_colors(group: np.ndarray) -> np.ndarray:
    """RGBA of each branch by its cluster, grey above the plateau; shape (k, 4)."""
    colors = category_colors(np.maximum(group, 0))
    colors[group < 0] = to_rgba(MUTED)
    return colors
