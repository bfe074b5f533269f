r"""The crowded early phase of large clouds: coarse steps, in float32 if the tokens are, until few are left."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import KDTree

from attnflow.kernels import cheapest
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
NEAREST = 4
"""Neighbours of each token that are looked for on the circle and on S^2."""

# Bogacki and Shampine (1989): third order, and the embedded second.
THIRD = (2 / 9, 1 / 3, 4 / 9)
ERROR = (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8)


Edges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Ends i and j, and lengths."""
NONE: Edges = np.zeros(0, int), np.zeros(0, int), np.zeros(0)


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
        merged_weights: Weights made, shape (m,).
        moments: Row of `history` after each merge, shape (m,); its length after the last ones.
        history: Time, scaled energy and number of tokens at the start and before each step, shape
            (1 + s, 3); empty if nothing was to be done.
        energy: Scaled energy of what is left.
    """

    x: np.ndarray
    weights: np.ndarray
    ids: np.ndarray
    t: float
    pairs: np.ndarray
    times: np.ndarray
    merged_x: np.ndarray
    merged_weights: np.ndarray
    moments: np.ndarray
    history: np.ndarray
    energy: float


def condense(
    x: Float[np.ndarray, "n d"],
    beta: float,
    *,
    weights: np.ndarray | None = None,
    left: int = LEFT,
    softmax: bool = True,
    t_max: float = math.inf,
) -> Crowd:
    r"""Run (SA) until at most `left` tokens are left, merging those a small part of a kernel apart.

    Third-order steps err by 2 % of the kernel width $1/\sqrt\beta$; tokens within 3 % of it become one
    at the time of the step, at once if they start so near. For tokens that condense into clusters,
    log10 of later merge times changes by some thousandths: at most 0.005 in 7 runs, n = 90 to 300,
    beta from 25 to 40. Ends before if nothing merges for 300 times the time reached: metastable
    states are for `coalesce`. On the circle and on S^2 O(n log n) a step, else O(n^2 d), O(n block)
    memory, in the precision of `x`.

    Args:
        x: Unit tokens, float32 or float64, shape (n, d).
        beta: Inverse temperature, >= 0.
        weights: Weights > 0, sum 1; equal by default.
        left: Number of tokens to end at.
        softmax: SA if true, else USA in its rescaled clock.
        t_max: Time to end at.
    """
    n, radius = len(x), merge_distance(beta)
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights, float)
    ids, t, last, unit, h = np.arange(n), 0.0, 0.0, 1.0, 0.05
    found = _Found([], [], [], [], [], [])
    near = NONE
    if n > left:
        state, own = _padded(x, w)
        how = cheapest(len(state), state.shape[1], beta), softmax
        found.history.append((t, float(_velocity(*how, state, own, beta)[1]), n))
        near = _near(x, radius, state)
    while True:
        while len(near[0]):
            last = t
            x, w, ids, near = _merge(x, w, ids, near, radius, t, n, found)
        state, own = _padded(x, w)
        how = cheapest(len(state), state.shape[1], beta), softmax
        velocity, energy = _velocity(*how, state, own, beta)
        if not t:
            unit = 1.0 if softmax else 1 / float(energy)
        over = len(x) <= left or t >= t_max or t > STALLED * max(last, unit)
        while not over and not len(near[0]):
            found.history.append((t, float(energy), len(x)))
            accepted, new = False, (state, velocity, energy)
            while not accepted:
                h = min(h, t_max - t)
                *new, error = _step(*how, state, velocity, own, beta, h)
                size = float(error) * _sharpness(beta) / TOLERANCE
                accepted = size <= 1 and math.isfinite(size)
                t += h * accepted
                factor = min(4.0, max(0.2, 0.9 * max(size, 1e-9) ** (-1 / 3)))
                h *= factor if math.isfinite(size) else 0.2
            state, velocity, energy = new
            x = np.asarray(state)[: len(x)]
            near = _near(x, radius, state)
            over = t >= t_max or t > STALLED * max(last, unit)
        if over and not len(near[0]):
            return Crowd(x, w, ids, t, *found.arrays(x.shape[1]), energy=float(energy))


class _Found(NamedTuple):
    """What a crowd has merged so far, and its steps."""

    pairs: list
    times: list
    places: list
    weights: list
    moments: list
    history: list

    def arrays(self, d: int) -> list[np.ndarray]:
        """The same as arrays, in the order of `Crowd`."""
        shapes = ((-1, 2), (-1,), (-1, d), (-1,), (-1,), (-1, 3))
        kinds = (int, float, float, float, int, float)
        parts = zip(self, kinds, shapes, strict=True)
        return [np.asarray(part, kind).reshape(shape) for part, kind, shape in parts]


def merge_distance(beta: float) -> float:
    """Chord distance at which tokens merge: 3 % of the width of the kernel, at most 0.1."""
    return max(WIDTH / _sharpness(beta), 1e-9)


def _sharpness(beta: float) -> float:
    """Inverse of the width of the kernel, which spans the sphere for small beta."""
    return math.sqrt(max(beta, 0.09))


def _padded(x, w):
    """Tokens and weights in few shapes: copies of the first token, of no weight, fill the rest."""
    size = max(SLOTS, 2 ** math.ceil(math.log2(len(x))))
    size = next(
        (part for part in (size * 5 // 8, size * 3 // 4, size * 7 // 8) if part >= len(x)), size
    )
    fill = size - len(x)
    weights = np.concatenate([w, np.zeros(fill)]).astype(x.dtype)
    return jnp.asarray(np.concatenate([x, np.repeat(x[:1], fill, axis=0)])), jnp.asarray(weights)


@partial(jax.jit, static_argnums=(0, 1))
def _velocity(kernel_sum, softmax, x, w, beta):
    """Velocities of the tokens, and their scaled energy."""
    mean, log_z = kernel_sum(x, x, x, beta, weights=w)
    z = jnp.exp(log_z - beta)
    return project(x, mean if softmax else z[:, None] * mean), w @ z


@partial(jax.jit, static_argnums=(0, 1))
def _step(kernel_sum, softmax, x, velocity, w, beta, h):
    """End of a step, velocities and energy there, and the largest error of a token."""
    h = jnp.asarray(h, x.dtype)
    rate = lambda y: _velocity(kernel_sum, softmax, normalize(y), w, beta)[0]
    second = rate(x + h / 2 * velocity)
    third = rate(x + 3 * h / 4 * second)
    new = normalize(
        x + h * sum(b * k for b, k in zip(THIRD, (velocity, second, third), strict=True))
    )
    fourth, energy = _velocity(kernel_sum, softmax, new, w, beta)
    stages = (velocity, second, third, fourth)
    error = h * sum(b * k for b, k in zip(ERROR, stages, strict=True))
    return new, fourth, energy, jnp.linalg.norm(error, axis=1).max()


# ------------------------------------------------------------------------------------------ merging


def _near(x, radius: float, state: Array | None = None) -> Edges:
    """Shortest edges i < j within a radius that link tokens so near: a forest.

    On the circle and on S^2 of edges to the nearest `NEAREST` tokens; merging and looking again
    finds the rest.
    """
    if x.shape[1] <= 3:
        return _nearest(np.asarray(x, float), radius)
    return _close_pairs(_padded(x, np.ones(len(x)))[0] if state is None else state, len(x), radius)


def _nearest(y, radius: float) -> Edges:
    """Forest of edges within a radius to the nearest few tokens; equal tokens form chains."""
    order = np.lexsort(y.T)
    same = (y[order[1:]] == y[order[:-1]]).all(axis=1)
    single = order[np.concatenate([[True], ~same])]
    k = min(NEAREST + 1, len(single))
    distance, other = KDTree(y[single]).query(y[single], k=k, distance_upper_bound=radius)
    i, column = np.nonzero(np.isfinite(distance.reshape(len(single), k)))
    j = other.reshape(len(single), k)[i, column]
    ends = single[np.unique(np.sort([i[i != j], j[i != j]], axis=0), axis=1)]
    i, j = np.concatenate([ends, [order[:-1][same], order[1:][same]]], axis=1)
    return _forest(len(y), i, j, _distances(y, i, j))


def _close_pairs(x, tokens: int, radius: float) -> Edges:
    """Shortest edges i < j, none longer than a radius, that link all of the first tokens so near: a forest.

    Rows go in blocks, and of every block only the forest stays: O(n) edges are held.
    """
    rows, y = max(1, PAIRS // len(x)), np.asarray(x[:tokens], float)
    forest = NONE
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


def _merge(x, w, ids, near: Edges, radius: float, t: float, n: int, found: _Found):
    """Tokens linked by close pairs become one, nearest first, while they are near; what is near then.

    What has merged is where its mean is: a chain does not merge beyond the radius around it, so
    that a dense cloud becomes a thinner one and not a point.
    """
    y, mass, owner, names = x.astype(float), w.copy(), np.arange(len(x)), ids.copy()

    def root(k):
        while owner[k] != k:
            owner[k] = k = owner[owner[k]]
        return k

    for a, b in zip(*(ends.tolist() for ends in near[:2]), strict=True):
        a, b = root(a), root(b)
        gap = y[b] - y[a]
        if gap @ gap > radius**2 * (1 + 1e-12):
            continue
        total = mass[a] + mass[b]
        middle = y[a] + mass[b] / total * gap
        y[a], mass[a], owner[b] = middle / np.sqrt(middle @ middle), total, a
        found.pairs.append(sorted((int(names[a]), int(names[b]))))
        found.times.append(t)
        found.places.append(y[a].copy())
        found.weights.append(total)
        found.moments.append(len(found.history))
        names[a] = n + len(found.pairs) - 1
    kept = owner == np.arange(len(x))
    x = y[kept].astype(x.dtype)
    return x, mass[kept], names[kept], _near(x, radius) if x.shape[1] <= 3 else NONE
