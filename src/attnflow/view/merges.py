"""From a `MergeTree` to a scene: moments along log-time, the tree of merges, the energy staircase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.view.scene import Clock, Dendrogram, Panel, Scene, Series
from attnflow.view.states import count_panel, scene_of_states

if TYPE_CHECKING:
    from attnflow.coalescence import MergeTree

FRAMES, FEWEST = 200, 20
NUMBERS = 2**24
"""Numbers that the frames of one run may hold; a large run has fewer frames."""
CROWD_FRAMES = 3
"""Frames in the crowded phase of a large cloud, each of which is a run from the start."""
AFTER = 1e-3
"""Decades after a merge at which it is seen."""
POINTS = 4000
"""Points of a curve beyond which some are left out."""


def frames_of(tree: MergeTree, most: int = FRAMES) -> dict[str, np.ndarray]:
    """Moments of a coalescing run: `log10_times` (t,), `tokens` (t, n, d) in float32, `labels` (t, n).

    The first is the start, at log10 t = -inf. Of the others half are evenly spaced in log-time up to the end, half
    just after merges, evenly spaced among these. Each is computed, by `tree.along`.
    """
    most = min(max(most, 4), max(FEWEST, NUMBERS // tree.x0.size))
    finite = tree.log10_times[np.isfinite(tree.log10_times)]
    ends = np.append(finite, tree.log10_t_end)
    end = float(ends[np.isfinite(ends)].max(initial=1.0))
    low = float(finite.min(initial=0.0)) - 1
    even = np.linspace(low, end + 0.02 * (end - low), most // 2)
    times = np.unique(np.concatenate([even, _some(finite, most - most // 2 - 1) + AFTER]))
    if crowded := tree.stats.get("crowd_merges", 0):
        over = finite[min(crowded, len(finite)) - 1]
        early = times[times < over]
        times = np.concatenate([_some(early, CROWD_FRAMES), times[times >= over]])
    moments = tree.along(times)
    return {
        "log10_times": np.append(-np.inf, times),
        "tokens": np.stack([tree.x0, *(m.x[m.labels] for m in moments)]).astype(np.float32),
        "labels": np.stack([_same(tree.x0), *(m.labels for m in moments)]).astype(np.int32),
    }


def scene_of_tree(
    tree: MergeTree,
    *,
    names: Sequence[str] | None = None,
    color: Any = None,
    title: str = "",
    max_frames: int = FRAMES,
) -> Scene:
    """Scene of a coalescing run; `scene_of_merges` says what is in it."""
    from attnflow.view.states import color_of

    if names is not None and len(names) != tree.n:
        raise ValueError(
            f"Argument `names` must hold n={tree.n} texts, but len(names)={len(names)}."
        )
    column = () if color is None else (color_of(color, tree.n),)
    return scene_of_merges(
        frames_of(tree, max_frames),
        tree.pairs,
        tree.log10_times,
        tree.energies,
        steps={
            "log10_times": tree.history.log10_times,
            "energies": tree.history.energies,
            "clusters": tree.history.clusters,
        },
        title=title or f"{tree.n} tokens, d = {tree.x0.shape[1]}, beta = {tree.beta:g}, {tree.model}",
        subtitle=f"{tree.status} at t = 10^{tree.log10_t_end:.4g}",
        names=() if names is None else tuple(str(name) for name in names),
        colors=column,
    )  # fmt: skip


def scene_of_merges(
    frames: dict[str, np.ndarray],
    pairs: np.ndarray,
    log10_times: np.ndarray,
    energies: np.ndarray,
    *,
    steps: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray] | None = None,
    **more: Any,
) -> Scene:
    """Scene of a coalescing run: exact moments, the tree in log-time, energy step by step, and merges as marks.

    Args:
        frames: What `frames_of` says.
        pairs: Cluster ids that met, shape (m, 2).
        log10_times: Merge times, shape (m,).
        energies: Energy at the start and after each merge, shape (m + 1,).
        steps: `log10_times`, `energies` and `clusters` of the steps.
        predicted: `log10_times` (k,) and levels `energies` (k + 1,) of the greedy rule.
        more: Title, subtitle and other fields of a `Scene`.
    """
    values = frames["log10_times"].copy()
    values[0] = 2 * values[1] - values[2]
    clock = Clock(values, log=True, zero=True)
    place = lambda log10: np.maximum(log10, values[0])
    thin = _some(np.arange(len(steps["energies"])), POINTS)
    x = place(steps["log10_times"][thin])
    at = place(log10_times)
    curves = [
        Series("energy", x, steps["energies"][thin]),
        Series("merges", at, energies[1:], style="event"),
    ]
    if predicted is not None and len(predicted["log10_times"]):
        times, levels = predicted["log10_times"], predicted["energies"]
        since = log10_times[len(log10_times) - len(times) - 1 :][:1]
        note = "what theory foretells from the first plateau of half a decade on"
        curves.append(
            Series(
                "greedy rule",
                place(np.concatenate([since, times, values[-1:]])),
                np.append(levels, levels[-1]),
                style="theory",
                step=True,
                note=note,
            )
        )
    energy = Panel("energy", "Energy, share of consensus", "energy", tuple(curves))
    counts = count_panel(x, steps["clusters"][thin])
    tree = Dendrogram(pairs, at, np.arange(frames["tokens"].shape[1]), frames["tokens"].shape[1])
    notes = [
        "Every frame is computed, not interpolated; half of them are just after merges. The page glides in between."
    ]
    return scene_of_states(
        clock,
        frames["tokens"],
        labels=frames["labels"],
        panels=(energy, counts),
        dendrogram=tree,
        notes=notes,
        **more,
    )


def _some(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spaced, the first and the last among them."""
    return values[np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)]


def _same(x: np.ndarray) -> np.ndarray:
    """Label of each token at the start: tokens that start as one share it."""
    return np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
