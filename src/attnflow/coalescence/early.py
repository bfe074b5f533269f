"""The crowded phase of a run of `coalesce`: what it hands on, and its merges before those of the rest."""

from __future__ import annotations

import jax
import numpy as np

from attnflow.coalescence.crowd import Crowd, condense
from attnflow.coalescence.run import STATS, STATUS, Snapshot, Story
from attnflow.coalescence.state import ENDED


def crowded(
    x: np.ndarray,
    weights: np.ndarray,
    beta: float,
    *,
    left: int,
    softmax: bool,
    log_t_max: float,
) -> Crowd:
    """`condense` in float64, until a logarithm of time in the rescaled clock."""
    with jax.enable_x64(True), np.errstate(over="ignore"):
        t_max = float(np.exp(log_t_max))
        return condense(x, beta, weights=weights, left=left, softmax=softmax, t_max=t_max)


def snapshot(early: Crowd) -> Snapshot:
    """What is left, to go on from."""
    x = early.x / np.linalg.norm(early.x, axis=1, keepdims=True)
    return Snapshot(x, np.log(early.weights), early.ids, _log(early.t), len(early.pairs))


def ended(early: Crowd) -> Story:
    """Story of a run that ends in the crowded phase: nothing more happens."""
    now = snapshot(early)
    return Story(
        np.zeros(0),
        np.zeros((0, 2), int),
        np.zeros((0, now.x.shape[1])),
        np.zeros(0),
        np.zeros(0),
        np.array([[now.log_t, early.energy, len(now.x)]]),
        [now],
        now,
        STATUS[ENDED],
        dict.fromkeys(STATS, 0),
    )


def prepend(early: Crowd, story: Story) -> Story:
    """The crowded phase and what came after it as one story."""
    times, history = _log(early.times), early.history.copy()
    history[:, 0] = _log(history[:, 0])
    history = np.concatenate([history, story.history])
    steps, merges = len(early.history) - 1, len(early.pairs)
    stats = story.stats | {"crowd_steps": steps, "crowd_merges": merges}
    stats |= {"steps": stats["steps"] + steps, "merges": stats["merges"] + merges}
    return Story(
        np.concatenate([times, np.maximum(story.log_times, _log(early.t))]),
        np.concatenate([early.pairs, story.pairs]),
        np.concatenate([early.merged_x, story.positions]),
        np.concatenate([np.log(early.merged_weights), story.log_weights]),
        np.concatenate([history[early.moments, 1], story.energies]),
        history,
        story.snapshots,
        story.end,
        story.status,
        stats,
    )


def _log(t):
    with np.errstate(divide="ignore"):
        return np.log(t)
