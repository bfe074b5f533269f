r"""Components of the graph $\langle x_i, x_j\rangle \ge c$ in two or three coordinates, by cells of space."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

PAIRS = 2**22
"""Pairs of tokens compared at a time."""
FEW = 2**14
"""Pairs of tokens between two cells up to which they are all compared."""
REACH = 3
"""Most cells that a link may span along an axis."""
ALIKE = 1e-14
"""Links between tokens whose cosine is nearer to 1 than this are left to other ways."""


class _Cells(NamedTuple):
    """Occupied cells, sorted, and their tokens.

    Attributes:
        x: Tokens, those of a cell side by side, shape (n, d).
        begin: First token of each cell, shape (k,).
        size: Number of tokens of each cell, shape (k,).
        columns: Packed first two indices of the occupied columns of cells, shape (c,).
        column: Column of each cell, shape (k,).
        height: Third index of each cell, shape (k,); 0 on the circle.
        width: Number of second indices, with room for neighbours on both sides.
        room: Number of third indices, likewise.
        inner: Chord within which two tokens are surely linked.
        outer: Chord beyond which no two tokens are linked.
    """

    x: np.ndarray
    begin: np.ndarray
    size: np.ndarray
    columns: np.ndarray
    column: np.ndarray
    height: np.ndarray
    width: int
    room: int
    inner: float
    outer: float

    def tokens(self, cell: int) -> np.ndarray:
        """Tokens of one cell."""
        return self.x[self.begin[cell] : self.begin[cell] + self.size[cell]]


def components(x: np.ndarray, cosine: float) -> np.ndarray | None:
    r"""Component of each token, in any order; None where norms or `cosine` leave no room for cells.

    Exact. Cells have a diagonal of the chord that a link spans, so that all tokens of a cell are
    linked. Two cells nearby are compared only while they are in different components: by one token
    of each, then by all pairs if these are few, else by bounding boxes and a k-d tree.
    O(n log n) time for uniform tokens and for clusters of any size, O(n d) memory.

    Args:
        x: Unit tokens, shape (n, d), d = 2 or 3.
        cosine: Smallest cosine of a link, in (-1, 1].
    """
    x = np.asarray(x, float)
    squares = np.einsum("ij,ij->i", x, x)
    inner, outer = (max(2 * (s - cosine), 0.0) ** 0.5 for s in (squares.min(), squares.max()))
    d = x.shape[1]
    edge = inner / d**0.5 * (1 - 1e-6)
    outer = outer * (1 + 1e-9) + 1e-15
    if inner**2 < 2 * ALIKE or outer >= REACH * edge:
        return None
    order, cells = _sort(x, edge, inner, outer)
    labels = np.arange(len(cells.begin))
    for offset in _offsets(d, edge, outer):
        p, q = _neighbours(cells, offset)
        apart = labels[p] != labels[q]
        labels = _link(cells, labels, p[apart], q[apart], cosine)
        if labels.max() == 0:
            break
    found = np.empty(len(x), np.int64)
    found[order] = np.repeat(labels, cells.size)
    return found


def join(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels after linking labels a and b, renumbered."""
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(size, size))
    return connected_components(graph, directed=False)[1][labels]


def _sort(x: np.ndarray, edge: float, inner: float, outer: float) -> tuple[np.ndarray, _Cells]:
    """Order of the tokens by cell, and the cells."""
    places = np.floor(x / edge).astype(np.int64)
    places -= places.min(axis=0) - REACH
    height = places[:, 2] if x.shape[1] == 3 else np.full(len(x), REACH)
    width, room = int(places[:, 1].max()) + REACH + 1, int(height.max()) + REACH + 1
    columns, column = np.unique(places[:, 0] * width + places[:, 1], return_inverse=True)
    key = column * room + height
    order = np.argsort(key, kind="stable")
    _, begin, count = np.unique(key[order], return_index=True, return_counts=True)
    first = order[begin]
    here = column[first], height[first]
    return order, _Cells(x[order], begin, count, columns, *here, width, room, inner, outer)


def _offsets(d: int, edge: float, outer: float) -> list[tuple[int, ...]]:
    """Offsets to cells that a link may reach, one of each pair of opposite ones, near ones first."""
    steps = range(-REACH, REACH + 1)
    gaps = lambda offset: sum((max(abs(k) - 1, 0) * edge) ** 2 for k in offset)
    ahead = [k for k in product(steps, repeat=d) if k > (0,) * d and gaps(k) <= outer**2]
    return sorted(ahead, key=lambda offset: sum(k * k for k in offset))


def _neighbours(cells: _Cells, offset: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of occupied cells at an offset."""
    away = offset[0] * cells.width + offset[1]
    up = offset[2] if len(offset) == 3 else 0
    column = _find(cells.columns, cells.columns + away)[cells.column]
    own = cells.column * cells.room + cells.height
    target = _find(own, np.where(column >= 0, column * cells.room + cells.height + up, -1))
    p = np.flatnonzero(target >= 0)
    return p, target[p]


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each key is, or -1."""
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == keys, at, -1)


def _link(cells: _Cells, labels, p, q, cosine: float) -> np.ndarray:
    """Labels of the cells after linking those of the pairs (p, q) that hold a link."""
    x, begin, count = cells.x, cells.begin, cells.size
    near = np.einsum("ij,ij->i", x[begin[p]], x[begin[q]]) >= cosine
    if near.any():
        labels = join(labels, labels[p[near]], labels[q[near]])
        apart = labels[p] != labels[q]
        p, q = p[apart], q[apart]
    pairs = count[p] * count[q]
    small = (pairs > 1) & (pairs <= FEW)
    linked = _any_pair(cells, p[small], q[small], cosine)
    if linked.any():
        labels = join(labels, labels[p[small][linked]], labels[q[small][linked]])
    owner: dict[int, int] = {}
    met = []
    for i, j in zip(p[pairs > FEW].tolist(), q[pairs > FEW].tolist(), strict=True):
        a, b = _root(owner, int(labels[i])), _root(owner, int(labels[j]))
        if a != b and _touch(cells.tokens(i), cells.tokens(j), cells, cosine):
            owner[a] = b
            met.append((a, b))
    return join(labels, *np.array(met).T) if met else labels


def _root(owner: dict[int, int], k: int) -> int:
    while k in owner:
        k = owner[k]
    return k


def _any_pair(cells: _Cells, p, q, cosine: float) -> np.ndarray:
    """Whether any pair of tokens of cells p and q is linked, all pairs compared, a block at a time."""
    x, begin, count = cells.x, cells.begin, cells.size
    pairs = count[p] * count[q]
    ends = np.cumsum(pairs)
    linked = np.zeros(len(p), bool)
    start = 0
    while start < len(p):
        base = ends[start] - pairs[start]
        stop = max(start + 1, int(np.searchsorted(ends, base + PAIRS, side="right")))
        block = slice(start, stop)
        which = np.repeat(np.arange(start, stop), pairs[block])
        k = np.arange(len(which)) - np.repeat(ends[block] - pairs[block] - base, pairs[block])
        i = begin[p[which]] + k // count[q[which]]
        j = begin[q[which]] + k % count[q[which]]
        linked[which[np.einsum("ij,ij->i", x[i], x[j]) >= cosine]] = True
        start = stop
    return linked


def _touch(a: np.ndarray, b: np.ndarray, cells: _Cells, cosine: float) -> bool:
    """Whether any token of a is linked to any of b: a lucky pair, bounding boxes, then a k-d tree."""
    one = a[np.argmax(a @ b.mean(axis=0))]
    other = b[np.argmax(b @ one)]
    if np.max(a @ other) >= cosine:
        return True
    a = a[_to_box(a, b) <= cells.outer]
    b = b[_to_box(b, a) <= cells.outer] if len(a) else b[:0]
    if not len(a) or not len(b):
        return False
    if len(a) > len(b):
        a, b = b, a
    distance, _ = KDTree(b).query(a, distance_upper_bound=cells.outer * (1 + 1e-9))
    if distance.min() < cells.inner * (1 - 1e-9):
        return True
    a = a[np.isfinite(distance)]  # within rounding of a link: ask the cosines themselves
    rows = max(1, PAIRS // len(b))
    return any((a[k : k + rows] @ b.T >= cosine).any() for k in range(0, len(a), rows))


def _to_box(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each token to the bounding box of others."""
    low, high = others.min(axis=0), others.max(axis=0)
    return np.linalg.norm(np.maximum(np.maximum(low - x, x - high), 0.0), axis=1)
