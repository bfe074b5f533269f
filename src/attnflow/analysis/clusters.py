"""Clusters of tokens: labels, counts, sizes and directions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

BLOCK = 2**22
TREE_DIMENSION = 8


def cluster_labels(
    x: Float[np.ndarray, "*t n d"], *, cosine: float = 0.999
) -> Int[np.ndarray, "*t n"]:
    """Label tokens by connected component of the graph <x_i, x_j> >= cosine.

    Single linkage: a chain of close tokens is one cluster. Label 0 is the largest cluster, ties go
    to the one with the earliest token. O(n^2 d) time and O(n + block) memory; in d <= 8 cells
    and k-d trees need fewer pairs.

    Args:
        x: Unit vectors, shape (..., n, d). Leading axes (time, seed, layer) are mapped.
        cosine: Smallest cosine that links two tokens, in (-1, 1].

    Returns:
        Labels 0, 1, ..., shape (..., n).

    Raises:
        ValueError: If x has fewer than two axes, or cosine is out of range.
    """
    x = np.asarray(x)
    if x.ndim < 2 or x.shape[-2] < 1:
        raise ValueError(
            f"Argument `x` must have shape (..., n, d), n >= 1, but x.shape={x.shape}."
        )
    if not -1 < cosine <= 1:
        raise ValueError(f"Argument `cosine` must satisfy -1 < cosine <= 1, but cosine={cosine}.")
    if x.ndim > 2:
        flat = [cluster_labels(each, cosine=cosine) for each in x.reshape(-1, *x.shape[-2:])]
        return np.reshape(flat, x.shape[:-1]).astype(np.int64)
    labels = _merge(x, cosine)
    sizes = np.bincount(labels)
    first = np.full(len(sizes), len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    rank = np.empty(len(sizes), int)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[labels]


def cluster_count(labels: Int[np.ndarray, "*t n"]) -> Int[np.ndarray, "*t"]:
    """Number of clusters, from labels 0, 1, ... of `cluster_labels`."""
    return np.asarray(labels).max(axis=-1) + 1


def cluster_sizes(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """Number of tokens in each cluster, largest first."""
    return np.bincount(labels)


def cluster_means(
    x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "k d"]:
    """Mean direction of each cluster, unit vectors, in the order of the labels."""
    sums = np.zeros((labels.max() + 1, x.shape[1]))
    np.add.at(sums, labels, x)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _merge(x: np.ndarray, cosine: float) -> np.ndarray:
    """Components of the threshold graph, in any order."""
    n, d = x.shape
    if d <= TREE_DIMENSION:
        radius = np.sqrt(2 - 2 * cosine)
        if radius > 1e-6:
            return _merge_by_cells(x, radius)
    rows = max(1, BLOCK // n)
    labels = np.arange(n)
    for begin in range(0, n, rows):
        i, j = np.nonzero(x[begin : begin + rows] @ x.T >= cosine)
        labels = _join(labels, i + begin, j)
    return labels


def _merge_by_cells(x: np.ndarray, radius: float) -> np.ndarray:
    """Components of the graph |x_i - x_j| <= radius.

    Tokens of one cell, whose diagonal is below the radius, are linked whatever their number. Near
    cells are linked if their first tokens are; only pairs of cells that are then still apart are
    searched, so that collapsed clusters cost no pairs of tokens.
    """
    d = x.shape[1]
    side = 0.99 * radius / np.sqrt(d)
    cells, group = np.unique(np.floor(x / side).astype(np.int64), axis=0, return_inverse=True)
    group = group.ravel()
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group))[:-1])
    a, b = KDTree((cells + 0.5) * side).query_pairs(2 * radius, output_type="ndarray").T
    first = np.array([each[0] for each in members])
    near = np.linalg.norm(x[first[a]] - x[first[b]], axis=1) <= radius
    labels = _join(np.arange(len(cells)), a[near], b[near])
    size = np.bincount(group)
    open_pairs = np.flatnonzero((labels[a] != labels[b]) & (size[a] * size[b] > 1))
    linked = [
        pair
        for pair in open_pairs
        if KDTree(x[members[a[pair]]])
        .query(x[members[b[pair]]], distance_upper_bound=2 * radius)[0]
        .min()
        <= radius
    ]
    return _join(labels, a[linked], b[linked])[group]


def _join(labels: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Labels after linking entries i and j."""
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(len(i), bool), (labels[i], labels[j])), shape=(size, size))
    return connected_components(graph, directed=False)[1][labels]
