"""A coalescing run: stretches on the device, book-keeping between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.coalescence.clock import COLLAPSED, ENDED, STATIONARY, Rules, Tokens, advance

SMALLEST_BUCKET = 4
KICKS = 4
STATUS = {COLLAPSED: "collapsed", STATIONARY: "stationary", ENDED: "t_max"}


class Snapshot(NamedTuple):
    """Clusters at one moment, on the host.

    Attributes:
        x: Positions, shape (k, d).
        log_w: Logarithms of their weights, shape (k,).
        ids: Cluster ids as in SciPy's linkage, shape (k,).
        log_t: Logarithm of the time, in the rescaled clock.
        merges: Number of merges so far.
    """

    x: np.ndarray
    log_w: np.ndarray
    ids: np.ndarray
    log_t: float
    merges: int


class Story(NamedTuple):
    """Everything a run saw, in the rescaled clock."""

    log_times: np.ndarray
    pairs: np.ndarray
    positions: np.ndarray
    log_weights: np.ndarray
    energies: np.ndarray
    history: np.ndarray
    snapshots: list[Snapshot]
    end: Snapshot
    status: str
    stats: dict[str, int]


def bucket(n: int) -> int:
    """Slots for n tokens: the next power of two, so that O(log n) programs are compiled."""
    return max(SMALLEST_BUCKET, 1 << (n - 1).bit_length())


def evolve(
    start: Snapshot,
    rules: dict[str, Any],
    *,
    n: int,
    max_steps: int,
    perturb: float = 0.0,
    seed: int = 0,
) -> Story:
    """Run from a snapshot until one cluster is left, nothing moves, or the time is up."""
    rng = np.random.default_rng(seed)
    found: dict[str, list] = {
        "times": [],
        "pairs": [],
        "x": [],
        "log_w": [],
        "energies": [],
        "history": [],
    }
    snapshots, now, kicks = [start], start, 0
    stats = {"steps": 0, "rejected": 0, "merges": 0, "kicks": 0}
    with jax.enable_x64(True):
        numbers = Rules(**{name: jnp.asarray(value) for name, value in rules.items()})
        while True:
            slots = bucket(len(now.x))
            run = advance(_upload(now, slots), numbers)
            status, records = int(run.status), jax.tree.map(np.asarray, run.records)
            steps = int(records.steps)
            stats["steps"] += steps
            stats["rejected"] += int(records.rejected)
            found["history"].append(records.history[:steps])
            ids = np.full(slots, -1)
            ids[: len(now.x)] = now.ids
            count = int(records.merges)
            for k in range(count):
                i, j = records.slots[k]
                found["pairs"].append(sorted((int(ids[i]), int(ids[j]))))
                ids[i] = n + now.merges + k
            found["times"].extend(records.log_times[:count])
            found["x"].extend(records.positions[:count])
            found["log_w"].extend(records.log_weights[:count])
            found["energies"].extend(records.energies[:count])
            stats["merges"] += count
            x, log_w = np.asarray(run.tokens.x), np.asarray(run.tokens.log_w)
            alive = np.isfinite(log_w)
            now = Snapshot(
                x[alive], log_w[alive], ids[alive], float(run.tokens.log_t), now.merges + count
            )
            if count and len(now.x) <= rules["keep"]:
                snapshots.append(now)
            if status == STATIONARY and perturb > 0 and kicks < KICKS:
                kicks += 1
                stats["kicks"] = kicks
                now = now._replace(x=_kicked(now.x, perturb, rng))
                snapshots.append(now)
                continue
            if status in STATUS:
                break
            if stats["steps"] + stats["rejected"] > max_steps:
                raise RuntimeError(
                    f"The run had {len(now.x)} clusters left at log10 t={now.log_t / np.log(10):.3f} "
                    f"after {stats['steps']} steps. Raise `max_steps`."
                )
    d = start.x.shape[1]
    return Story(
        np.asarray(found["times"], float),
        np.asarray(found["pairs"], int).reshape(-1, 2),
        np.asarray(found["x"], float).reshape(-1, d),
        np.asarray(found["log_w"], float),
        np.asarray(found["energies"], float),
        np.concatenate(found["history"]),
        snapshots,
        now,
        STATUS[status],
        stats,
    )


def _upload(now: Snapshot, slots: int) -> Tokens:
    """Snapshot padded to a number of slots."""
    pad = slots - len(now.x)
    empty = np.zeros((pad, now.x.shape[1]))
    empty[:, :1] = 1.0
    return Tokens(
        jnp.asarray(np.concatenate([now.x, empty])),
        jnp.asarray(np.concatenate([now.log_w, np.full(pad, -np.inf)])),
        jnp.asarray(now.log_t),
        jnp.asarray(1e-2),
    )


def _kicked(x: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Tokens displaced by tangent Gaussian vectors."""
    kick = size * rng.standard_normal(x.shape)
    moved = x + kick - (kick * x).sum(axis=1, keepdims=True) * x
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)
