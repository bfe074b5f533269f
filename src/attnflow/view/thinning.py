"""Fewer tokens and frames, where a page would be too large; the page says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attnflow.errors import check_count
from attnflow.view.scene import Clock, Dendrogram, Scene

SEED = 0


def check_sizes(max_tokens: Any, max_frames: Any) -> None:
    """Raise `ValueError` unless a page is to hold some tokens and some frames."""
    check_count(max_tokens, "max_tokens", low=1)
    check_count(max_frames, "max_frames", low=2)


def tokens_shown(n: int, most: int) -> np.ndarray:
    """Which of n tokens are shown: all, or `most` drawn evenly at random, always the same."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, most, replace=False))


def frames_shown(clock: Clock, most: int) -> np.ndarray:
    """Which frames are shown: all, or those nearest to `most` evenly spaced values of the clock."""
    values = clock.values
    if len(values) <= most:
        return np.arange(len(values))
    wanted = np.linspace(values[0], values[-1], most)
    after = np.searchsorted(values, wanted).clip(1, len(values) - 1)
    return np.unique(after - (wanted - values[after - 1] < values[after] - wanted))


def thinned(scene: Scene, max_tokens: int = 20_000, max_frames: int = 200) -> Scene:
    """Scene with at most so many tokens and frames, and a note if some are left out.

    Tokens are drawn evenly at random with a fixed seed, frames evenly along the clock. Panels keep all their
    points, the tree all its merges.
    """
    check_sizes(max_tokens, max_frames)
    t, n = scene.positions.shape[:2]
    some, when = tokens_shown(n, max_tokens), frames_shown(scene.clock, max_frames)
    if len(some) == n and len(when) == t:
        return scene
    notes, clock = list(scene.notes), scene.clock
    index = np.arange(n) if scene.index is None else scene.index
    total = scene.tokens or n
    if len(some) < n:
        notes.append(f"{len(some)} of {total} tokens are shown, drawn evenly at random.")
    if len(when) < t:
        log = " in log-time" if clock.log else ""
        notes.append(f"{len(when)} of {t} frames are shown, spread evenly{log}.")
    pick = lambda a: a[np.ix_(when, some)] if a.ndim == 2 else a[some]
    histogram, tree = scene.histogram, scene.dendrogram
    return replace(
        scene,
        positions=scene.positions[np.ix_(when, some)],
        clock=clock.only(when),
        tokens=total,
        index=index[some],
        mass=None if scene.mass is None else pick(scene.mass),
        names=tuple(scene.names[i] for i in some) if scene.names else (),
        colors=tuple(replace(c, values=pick(np.asarray(c.values))) for c in scene.colors),
        histogram=histogram and replace(histogram, shares=histogram.shares[when]),
        dendrogram=tree and replace(tree, leaf_of=tree.leaf_of[some]),
        notes=tuple(notes),
    )


def top_of(tree: Dendrogram, most: int) -> Dendrogram:
    """Tree of its last merges alone, so that at most so many leaves are drawn: groups of tokens."""
    if tree.n <= most:
        return tree
    cut = min(tree.n - most, len(tree.pairs))
    top = np.arange(tree.n + len(tree.pairs))
    for k in range(cut - 1, -1, -1):
        top[tree.pairs[k]] = top[tree.n + k]
    groups, leaf_of, sizes = np.unique(top[: tree.n], return_inverse=True, return_counts=True)
    new = np.full(len(top), -1)
    new[groups] = np.arange(len(groups))
    new[tree.n + cut :] = len(groups) + np.arange(len(tree.pairs) - cut)
    return Dendrogram(
        new[tree.pairs[cut:]],
        tree.heights[cut:],
        leaf_of[tree.leaf_of],
        len(groups),
        sizes,
        f"{tree.note} The last {len(tree.pairs) - cut} merges of {len(tree.pairs)}; leaves are groups.".strip(),
    )
