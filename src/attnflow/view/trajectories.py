"""From a `Trajectory` to a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.view.scene import Panel, Scene, Series, clock_of
from attnflow.view.states import color_of, count_panel, rho_panel, scene_of_states
from attnflow.view.thinning import check_sizes, frames_shown, tokens_shown

if TYPE_CHECKING:
    from attnflow.trajectory import Trajectory

TITLES = {"energy": "Energy", "rho": "Mean cosine", "R": "Order parameter"}
"""Titles of panels of well-known observables; the others have their name."""


def scene_of_trajectory(
    traj: Trajectory,
    *,
    color: Any = None,
    names: Sequence[str] | None = None,
    title: str = "",
    max_tokens: int = 20_000,
    max_frames: int = 200,
) -> Scene:
    """Scene of a run of `solve`: tokens, clusters at cosine 0.99, mean cosine, and every scalar it observed.

    Thinned before anything is measured: clusters are those of the tokens shown. There is no theory in it: a
    trajectory does not know its flow.

    Args:
        traj: A run that kept its states, one run, of tokens.
        color: A number or word per token, shape (n,), or per save and token, shape (t, n).
        names: A text per token, shown where the pointer is.
        title: First line of the page.
        max_tokens: Tokens beyond which some are drawn at random.
        max_frames: Frames beyond which some are left out.

    Raises:
        ValueError: If the run kept no states, holds modes or several runs, or an argument does not fit it.
    """
    xs = _check_states(traj)
    check_sizes(max_tokens, max_frames)
    t, n, d = xs.shape
    if names is not None and len(names) != n:
        raise ValueError(f"Argument `names` must hold n={n} texts, but len(names)={len(names)}.")
    column = None if color is None else color_of(color, n)
    clock = clock_of(np.asarray(traj.ts))
    some, when = tokens_shown(n, max_tokens), frames_shown(clock, max_frames)
    panels = _panels(traj, clock, xs)
    notes = []
    if len(some) < n:
        notes.append(f"{len(some)} of {n} tokens are shown, drawn evenly at random.")
    if len(when) < t:
        log = " in log-time" if clock.log else ""
        notes.append(f"{len(when)} of {t} frames are shown, spread evenly{log}.")
    picked = np.ix_(when, some)
    if column is not None:
        values = np.asarray(column.values)
        column = replace(column, values=values[picked] if values.ndim == 2 else values[some])
    scene = scene_of_states(
        clock.only(when),
        xs[picked],
        title=title or f"{n} tokens, d = {d}",
        subtitle="" if traj.kernel_sum is None else f"kernel sum {traj.kernel_sum}",
        colors=() if column is None else (column,),
        names=() if names is None else tuple(str(names[i]) for i in some),
        mass=None if traj.weights is None else np.asarray(traj.weights)[picked] * n,
        tokens=n,
        index=some if len(some) < n else None,
        panels=panels,
        notes=notes,
    )
    counts = np.asarray(scene.colors[0].values)
    count = count_panel(scene.clock.values, np.array([len(np.unique(row)) for row in counts]))
    return replace(scene, panels=(count, *scene.panels))


def _check_states(traj: Trajectory) -> np.ndarray:
    """States of one run of tokens, shape (t, n, d)."""
    if traj.xs is None:
        raise ValueError(
            "Argument `traj` must hold states, but traj.xs is None. Solve again with `states=True`."
        )
    if traj.axes[0] != "token":
        raise ValueError(
            f"Argument `traj` must hold tokens, but its states are {traj.axes[0]}s of a density. "
            "Draw it: `plot.density_river`."
        )
    xs = np.asarray(traj.xs)
    if xs.ndim != 3:
        raise ValueError(
            f"Argument `traj` must be one run, but traj.xs.shape={xs.shape}. Take one: "
            "`jax.tree.map(lambda leaf: leaf[0], traj)`."
        )
    lengths = np.linalg.norm(xs, axis=-1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError(
            "Argument `traj` must hold finite tokens with a direction, but some are NaN, inf or zero. "
            "Stop the run earlier: `until=`."
        )
    return xs


def _panels(traj: Trajectory, clock, xs: np.ndarray) -> list[Panel]:
    """Mean cosine and every scalar observable, over all saves."""
    theta = xs / np.linalg.norm(xs, axis=-1, keepdims=True)
    panels = [rho_panel(clock, theta)]
    for name, values in traj.observed.items():
        values = np.asarray(values)
        if values.ndim == 1 and name not in ("rho", "clusters"):
            series = Series(name, clock.values, values.astype(float))
            panels.append(Panel(name, TITLES.get(name, name), name, (series,)))
    return panels
