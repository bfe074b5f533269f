r"""The crowded early phase of large clouds: coarse steps, in float32 if the tokens are, until few are left."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from attnflow.kernels import dense
from attnflow.sphere import normalize, project

LEFT = 512
"""Tokens left at which `condense` ends."""
TOLERANCE = 0.02
"""Error allowed in each step, in kernel widths."""
WIDTH = 0.03
"""Distance at which tokens merge, in kernel widths."""
STALLED = 300.0
"""Time without a merge, in units of the time reached, after which `condense` gives up."""
PAIRS = 2**22
SLOTS = 256

# Bogacki and Shampine (1989): third order, and the embedded second.
THIRD = (2 / 9, 1 / 3, 4 / 9)
ERROR = (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8)


Edges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Ends i and j, and lengths."""


class Crowd(NamedTuple):
    """What `condense` left and what it merged.

    Attributes:
        x: Unit tokens that are left, shape (k, d).
        weights: Their weights, shape (k,).
        ids: Their ids as in SciPy's linkage, shape (k,).
        t: Time reached.
        pairs: Ids that merged, in order, shape (m, 2).
        times: When, shape (m,).
        merged_x: Where, shape (m, d).
    """

    x: np.ndarray
    weights: np.ndarray
    ids: np.ndarray
    t: float
    pairs: np.ndarray
    times: np.ndarray
    merged_x: np.ndarray


def condense(
    x: Float[np.ndarray, "n d"], beta: float, *, weights: np.ndarray | None = None, left: int = LEFT
) -> Crowd:
    r"""Run (SA) until at most `left` tokens are left, merging those a small part of a kernel apart.

    Third-order steps err by 2 % of the kernel width $1/\sqrt\beta$; tokens within 3 % of it become one
    at the time of the step. For tokens that condense into clusters, log10 of later merge times
    changes by some thousandths: at most 0.005 in 7 runs, n = 90 to 300, beta from 25 to 40. Ends
    before if nothing merges for 300 times the time reached: metastable states are for `coalesce`.
    O(n^2 d) a step, O(n block) memory, in the precision of `x`.

    Args:
        x: Unit tokens, float32 or float64, shape (n, d).
        beta: Inverse temperature, > 0.
        weights: Weights > 0, sum 1; equal by default.
        left: Number of tokens to end at.
    """
    n, merge_tol = len(x), merge_distance(beta)
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights, float)
    ids, t, last, h = np.arange(n), 0.0, 0.0, 0.05
    pairs, times, places = [], [], []
    while len(x) > left and t < STALLED * max(last, 1.0):
        x, velocity = np.asarray(x), None
        padded, own = _padded(x, w)
        state, tokens = jnp.asarray(padded), len(x)
        while True:
            if velocity is None:
                velocity = _velocity(state, own, beta)
            new, new_velocity, error = _step(state, velocity, own, beta, h)
            size = float(error) * math.sqrt(beta) / TOLERANCE
            factor = min(4.0, max(0.2, 0.9 * max(size, 1e-9) ** (-1 / 3)))
            if size <= 1 and math.isfinite(size):
                state, velocity, t = new, new_velocity, t + h
            h *= factor if math.isfinite(size) else 0.2
            if size <= 1:
                forest = _close_pairs(state, tokens, merge_tol)
                if len(forest[0]) or t > STALLED * max(last, 1.0):
                    break
        x = np.asarray(state)[:tokens]
        if len(forest[0]):
            last = t
            merges = _merge(x, w, ids, forest, n + len(pairs))
            x, w, ids = merges[:3]
            pairs.extend(merges[3])
            places.extend(merges[4])
            times.extend([t] * len(merges[3]))
    d = x.shape[1]
    return Crowd(
        np.asarray(x),
        w,
        ids,
        t,
        np.asarray(pairs, int).reshape(-1, 2),
        np.asarray(times),
        np.asarray(places).reshape(-1, d),
    )


def merge_distance(beta: float) -> float:
    """Chord distance at which tokens merge: 3 % of the width of the kernel, at most 0.1."""
    return min(max(WIDTH / math.sqrt(beta), 1e-9), 0.1)


def _padded(x, w):
    """Tokens and weights in few shapes: copies of the first token, of no weight, fill the rest."""
    size = max(SLOTS, 2 ** math.ceil(math.log2(len(x))))
    size = next(
        (part for part in (size * 5 // 8, size * 3 // 4, size * 7 // 8) if part >= len(x)), size
    )
    fill = size - len(x)
    weights = np.concatenate([w, np.zeros(fill)]).astype(x.dtype)
    return np.concatenate([x, np.repeat(x[:1], fill, axis=0)]), jnp.asarray(weights)


@jax.jit
def _velocity(x, w, beta):
    mean, _ = dense(x, x, x, beta, weights=w)
    return project(x, mean)


@jax.jit
def _step(x, velocity, w, beta, h) -> tuple[Array, Array, Array]:
    """End of a step, the velocity there, and the largest error of a token."""
    h = jnp.asarray(h, x.dtype)
    rate = lambda y: _velocity(normalize(y), w, beta)
    second = rate(x + h / 2 * velocity)
    third = rate(x + 3 * h / 4 * second)
    new = normalize(
        x + h * sum(b * k for b, k in zip(THIRD, (velocity, second, third), strict=True))
    )
    fourth = _velocity(new, w, beta)
    stages = (velocity, second, third, fourth)
    error = h * sum(b * k for b, k in zip(ERROR, stages, strict=True))
    return new, fourth, jnp.linalg.norm(error, axis=1).max()


def _close_pairs(x, tokens: int, radius: float) -> Edges:
    """Shortest edges i < j, none longer than a radius, that link all of the first tokens so near: a forest.

    Rows go in blocks, and of every block only the forest stays: O(n) edges are held.
    """
    rows, y = max(1, PAIRS // len(x)), np.asarray(x[:tokens], float)
    forest = np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    for start in range(0, tokens, rows):
        close = _close(x, x[start : start + rows], 1 - radius**2 / 2 - 1e-6)
        i, j = np.nonzero(np.asarray(close)[: tokens - start, :tokens])
        i += start
        i, j = i[i < j], j[i < j]
        distance = _distances(y, i, j)
        near = distance <= radius
        if near.any():
            edges = zip(forest, (i[near], j[near], distance[near]), strict=True)
            forest = _forest(tokens, *(np.concatenate(part) for part in edges))
    return forest


def _distances(y, i, j):
    """Distances of pairs, a block at a time."""
    step = max(1, PAIRS // y.shape[1])
    parts = [slice(k, k + step) for k in range(0, len(i), step)]
    found = [np.linalg.norm(y[i[part]] - y[j[part]], axis=1) for part in parts]
    return np.concatenate([np.zeros(0), *found])


def _forest(n: int, i, j, distance) -> Edges:
    """Minimum spanning forest of weighted edges, shortest first."""
    weights = np.maximum(distance, 1e-300)  # to SciPy a weight of 0 is no edge
    tree = minimum_spanning_tree(coo_array((weights, (i, j)), shape=(n, n)).tocsr()).tocoo()
    order = np.argsort(tree.data, kind="stable")
    return tree.row[order], tree.col[order], tree.data[order]


@jax.jit
def _close(x, part, cosine):
    return part @ x.T >= cosine


def _merge(x, w, ids, forest: Edges, next_id: int):
    """Tokens linked by close pairs become one, nearest first; the new tokens, and the merges."""
    n = len(x)
    y, mass, owner = x.astype(float), w.copy(), np.arange(n)
    names, pairs, places = ids.copy(), [], []

    def root(k):
        while owner[k] != k:
            owner[k] = k = owner[owner[k]]
        return k

    for a, b in zip(*forest[:2], strict=True):
        a, b = root(a), root(b)
        total = mass[a] + mass[b]
        middle = (mass[a] * y[a] + mass[b] * y[b]) / total
        y[a], mass[a], owner[b] = middle / np.linalg.norm(middle), total, a
        pairs.append(sorted((int(names[a]), int(names[b]))))
        places.append(y[a].copy())
        names[a] = next_id + len(pairs) - 1
    kept = owner == np.arange(n)
    return y[kept].astype(x.dtype), mass[kept], names[kept], pairs, places
