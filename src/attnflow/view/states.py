"""From the states of a run to a scene: directions or principal axes, clusters with lasting numbers, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnflow.view.scene import Clock, Color, Histogram, Panel, Scene, Series

AXES = 3
AXIS_ROWS = 100_000
"""States from which principal axes are taken, drawn at random if there are more."""
PAIR_TOKENS = 512
"""Tokens whose cosines make the histogram, drawn at random if there are more."""
BINS = 80
CATEGORIES = 12
"""Different whole numbers up to which a column counts as categories."""


def scene_of_states(
    clock: Clock,
    xs: np.ndarray,
    *,
    title: str,
    subtitle: str = "",
    labels: np.ndarray | None = None,
    cosine: float = 0.99,
    histogram: Histogram | None = None,
    panels: Sequence[Panel] = (),
    notes: Sequence[str] = (),
    **more: Any,
) -> Scene:
    """Scene of tokens xs, shape (t, n, d): on the circle, the sphere, or for d > 3 on three principal axes.

    Shown are directions x/|x|. Principal axes are those of all frames pooled, one projection for the run, not
    centred: the origin stays, and a token's distance from it is the cosine between it and the axes' space.

    Args:
        clock: Moments of the frames, t of them.
        xs: Tokens, no row zero.
        title: First line of the page.
        subtitle: Second line.
        labels: Clusters, shape (t, n); by default those of `analysis.clusters` at `cosine`.
        cosine: Smallest cosine that links two tokens to one cluster.
        histogram: Cosines; by default of all pairs of up to 512 tokens.
        panels: Curves; the count of the clusters shown and the mean cosine if none are given.
        notes: Lines for the page.
        more: Other fields of a `Scene`.
    """
    from attnflow.analysis.clusters import cluster_labels

    xs = np.asarray(xs)
    lengths = np.linalg.norm(xs, axis=-1, keepdims=True)
    theta = xs / lengths
    notes = list(notes)
    if np.ptp(lengths) > 1e-3:
        low, high = float(lengths.min()), float(lengths.max())
        notes.append(f"Shown are directions x/|x|; lengths go from {low:.3g} to {high:.3g}.")
    if labels is None:
        exact = theta.astype(float)
        exact /= np.linalg.norm(exact, axis=-1, keepdims=True)
        labels = np.stack([cluster_labels(frame, cosine=cosine) for frame in exact])
        of = " of the tokens shown" if more.get("tokens", 0) > xs.shape[1] else ""
        notes.append(f"Clusters{of}: chains of tokens with cosines of {cosine:g} and more.")
    if histogram is None:
        histogram = cosine_shares(theta)
    if not panels:
        panels = (count_panel(clock.values, labels.max(axis=1) + 1), rho_panel(clock, theta))
    colors = (Color("cluster", lasting(labels)), *more.pop("colors", ()))
    positions, space = place(theta)
    return Scene(
        title=title,
        subtitle=subtitle,
        positions=positions,
        clock=clock,
        colors=colors,
        histogram=histogram,
        panels=tuple(panels),
        notes=tuple(notes),
        **(space | more),
    )


def place(theta: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Positions to show, shape (t, n, 2 or 3), and the fields of a `Scene` that say what they are."""
    d = theta.shape[-1]
    if d <= AXES:
        return theta, {"kind": ("circle", "sphere")[d - 2]}
    axes, shares = principal_axes(theta)
    note = (
        f"Principal axes 1 to {AXES} of {d}, of all frames pooled and not centred; they hold {shares.sum():.1%} of the "
        "squared length. Points lie inside the unit ball: what is missing to length 1 is on other axes."
    )
    fields = {"kind": "axes", "shares": tuple(shares.tolist()), "space_note": note}
    return theta @ axes, fields


def principal_axes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Three leading principal axes (d, 3) of rows (..., d), not centred, and their shares of squared length.

    The mean has no negative coordinate. O(rows d^2), of at most 10^5 rows.
    """
    rows = theta.reshape(-1, theta.shape[-1])
    if len(rows) > AXIS_ROWS:
        rows = rows[np.random.default_rng(0).choice(len(rows), AXIS_ROWS, replace=False)]
    rows = rows.astype(float)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    axes = vectors[:, : -AXES - 1 : -1]
    axes = axes * np.where(rows.mean(axis=0) @ axes < 0, -1, 1)
    return axes, values[: -AXES - 1 : -1].clip(0) / values.sum()


def lasting(labels: np.ndarray) -> np.ndarray:
    """Clusters numbered so that a number lasts, shape (t, n), from labels of each frame alone.

    In the last frame 0 is the largest. Backwards in time, a cluster takes the number of the one it becomes if
    it is the largest part of it; the others take the smallest free numbers, larger clusters first.
    """
    found = np.empty(labels.shape, np.int64)
    later = None
    for k in range(len(labels) - 1, -1, -1):
        _, own, sizes = np.unique(labels[k], return_inverse=True, return_counts=True)
        number = np.full(len(sizes), -1)
        if later is not None:
            width = int(later.max()) + 1
            pairs, shared = np.unique(own * width + later, return_counts=True)
            pairs = pairs[np.argsort(-shared, kind="stable")]
            mine, theirs = pairs // width, pairs % width
            first_mine = np.unique(mine, return_index=True)[1]
            first_theirs = np.unique(theirs, return_index=True)[1]
            both = np.intersect1d(first_mine, first_theirs)
            number[mine[both]] = theirs[both]
        new = np.flatnonzero(number < 0)
        new = new[np.argsort(-sizes[new], kind="stable")]
        free = np.setdiff1d(np.arange(len(sizes)), number)
        if len(free) < len(new):
            free = np.setdiff1d(np.arange(len(sizes) + int(number.max()) + 1), number)
        number[new] = free[: len(new)]
        later = found[k] = number[own]
    return found


def cosine_shares(theta: np.ndarray) -> Histogram:
    """Shares of pairs i < j per bin of their cosine, in each frame, of at most 512 tokens."""
    n = theta.shape[1]
    few = theta
    if n > PAIR_TOKENS:
        few = theta[:, np.sort(np.random.default_rng(1).choice(n, PAIR_TOKENS, replace=False))]
    edges = np.linspace(-1, 1, BINS + 1)
    upper = np.triu_indices(few.shape[1], 1)
    rows = []
    for frame in few.astype(float):
        cosines = (frame @ frame.T)[upper]
        bins = ((cosines + 1) * BINS / 2).astype(int).clip(0, BINS - 1)
        rows.append(np.bincount(bins, minlength=BINS) / max(len(bins), 1))
    of = f"all pairs of {few.shape[1]} of {n} tokens" if n > PAIR_TOKENS else "all pairs"
    return Histogram(edges, np.stack(rows), note=of)


def count_panel(x: np.ndarray, counts: np.ndarray) -> Panel:
    """Panel of the number of clusters."""
    series = Series("clusters", np.asarray(x), np.asarray(counts, float), step=True)
    return Panel("clusters", "Clusters", "clusters", (series,), y_log=bool(np.max(counts) > 20))


def rho_panel(clock: Clock, theta: np.ndarray) -> Panel:
    """Panel of the mean cosine of pairs i != j."""
    n = theta.shape[1]
    total = (theta.astype(float).sum(axis=1) ** 2).sum(axis=1)
    rho = (total - n) / (n * (n - 1)) if n > 1 else np.ones(len(theta))
    return Panel("rho", "Mean cosine", "rho", (Series("rho", clock.values, rho),))


def color_of(values: Any, n: int, name: str = "color") -> Color:
    """Colour from a user's column: words and few whole numbers are categories, other numbers quantities.

    Args:
        values: One entry per token, shape (n,), or per frame and token, shape (t, n).
        n: Number of tokens.
        name: What the page calls it.

    Raises:
        ValueError: If there is not one entry per token.
    """
    try:
        column = np.asarray(values)
    except ValueError:
        column = np.asarray(None)
    if column.ndim not in (1, 2) or column.shape[-1] != n:
        raise ValueError(
            f"Argument `color` must hold one value per token, n={n}, but color.shape={column.shape}."
        )
    if column.dtype.kind == "O":
        column = column.astype(str)
    if column.dtype.kind not in "biufUST":
        raise ValueError(
            f"Argument `color` must hold numbers or words, but color.dtype={column.dtype}."
        )
    found, codes = np.unique(column, return_inverse=True)
    if column.dtype.kind in "UST" or (column.dtype.kind in "biu" and len(found) <= CATEGORIES):
        return Color(name, codes.reshape(column.shape), tuple(str(word) for word in found))
    return Color(name, column.astype(float))
