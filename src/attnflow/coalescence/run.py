"""A coalescing run: stretches on the device, book-keeping between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.coalescence.clock import advance
from attnflow.coalescence.state import COLLAPSED, ENDED, STATIONARY, Rules, Tokens

SMALLEST_BUCKET = 4
KICKS = 4
STATS = ("steps", "rejected", "merges", "kicks", "crowd_steps", "crowd_merges")
STATUS = {COLLAPSED: "collapsed", STATIONARY: "stationary", ENDED: "t_max"}


class Snapshot(NamedTuple):
    """Tokens at one moment, on the host; those that have met share an id.

    Attributes:
        x: Positions, shape (k, d).
        log_w: Logarithms of their weights, shape (k,).
        ids: Cluster ids as in SciPy's linkage, shape (k,).
        log_t: Logarithm of the time, in the rescaled clock.
        merges: Number of merges so far.
        h: Step to try.
    """

    x: np.ndarray
    log_w: np.ndarray
    ids: np.ndarray
    log_t: float
    merges: int
    h: float = 1e-2

    def clusters(self) -> Snapshot:
        """The same, with one token per cluster: the weighted mean direction."""
        ids, first, label = np.unique(self.ids, return_index=True, return_inverse=True)
        w = np.exp(self.log_w)
        mass = np.bincount(label, w)
        x = self.x[first]
        np.add.at(x, label, (w / mass[label])[:, None] * (self.x - self.x[first][label]))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return self._replace(x=x, log_w=np.log(mass), ids=ids)


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
    products: bool = False,
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
        "moments": [],
        "history": [],
    }
    snapshots, now, kicks = [start], start, 0
    stats: dict[str, int] = dict.fromkeys(STATS, 0)
    with jax.enable_x64(True):
        numbers = Rules(**{name: jnp.asarray(value) for name, value in rules.items()})
        while True:
            slots = bucket(len(now.x))
            run = advance(_upload(now, slots), numbers, products=products)
            status, records = int(run.status), jax.tree.map(np.asarray, run.records)
            steps = int(records.steps)
            found["moments"].extend(stats["steps"] + records.moments[: int(records.merges)])
            stats["steps"] += steps
            stats["rejected"] += int(records.rejected)
            found["history"].append(records.history[:steps])
            ids = np.full(slots, -1)
            ids[: len(now.x)] = now.ids
            count = int(records.merges)
            for k in range(count):
                i, j = ids[records.slots[k]]
                found["pairs"].append(sorted((int(i), int(j))))
                ids[(ids == i) | (ids == j)] = n + now.merges + k
            found["times"].extend(records.log_times[:count])
            found["x"].extend(records.positions[:count])
            found["log_w"].extend(records.log_weights[:count])
            stats["merges"] += count
            x, log_w = np.asarray(run.tokens.x), np.asarray(run.tokens.log_w)
            alive = np.isfinite(log_w)
            log_t, h = float(run.tokens.log_t), float(run.tokens.h)
            now = Snapshot(x[alive], log_w[alive], ids[alive], log_t, now.merges + count, h)
            if count and n - now.merges <= rules["keep"]:
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
                    f"The run had {n - now.merges} clusters left at log10 t={now.log_t / np.log(10):.3f} "
                    f"after {stats['steps']} steps. Raise `max_steps`."
                )
    d = start.x.shape[1]
    energy = scaled_energy(now.x, np.exp(now.log_w), rules["beta"])
    history = np.concatenate([*found["history"], [[now.log_t, energy, n - now.merges]]])
    return Story(
        np.asarray(found["times"], float),
        np.asarray(found["pairs"], int).reshape(-1, 2),
        np.asarray(found["x"], float).reshape(-1, d),
        np.asarray(found["log_w"], float),
        history[np.asarray(found["moments"], int), 1],
        history,
        snapshots,
        now.clusters(),
        STATUS[status],
        stats,
    )


def scaled_energy(x: np.ndarray, w: np.ndarray, beta: float) -> float:
    r"""$\sum_{ij} w_i w_j e^{-\beta|x_i - x_j|^2/2}$, O(n^2 d) time, O(n d) memory."""
    return float(
        sum(
            a * (w @ np.exp(-beta / 2 * ((x - y) ** 2).sum(axis=1)))
            for y, a in zip(x, w, strict=True)
        )
    )


def _upload(now: Snapshot, slots: int) -> Tokens:
    """Snapshot padded to a number of slots."""
    pad = slots - len(now.x)
    empty = np.zeros((pad, now.x.shape[1]))
    empty[:, :1] = 1.0
    _, first, label = np.unique(now.ids, return_index=True, return_inverse=True)
    return Tokens(
        jnp.asarray(np.concatenate([now.x, empty])),
        jnp.asarray(np.concatenate([now.log_w, np.full(pad, -np.inf)])),
        jnp.asarray(np.concatenate([first[label], np.arange(len(now.x), slots)])),
        jnp.asarray(now.log_t),
        jnp.asarray(now.h),
    )


def _kicked(x: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Tokens displaced by tangent Gaussian vectors."""
    kick = size * rng.standard_normal(x.shape)
    moved = x + kick - (kick * x).sum(axis=1, keepdims=True) * x
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)
