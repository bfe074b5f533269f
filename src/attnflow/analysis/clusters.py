"""Clusters of tokens: labels, counts, sizes and directions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from attnflow.analysis.cells import components, join
from attnflow.errors import check_between, check_shape, check_tokens

Numbers = np.ndarray | Array
BLOCK = 2**22
STARS = 256


def cluster_labels(
    x: Float[Numbers, "*t n d"], *, cosine: float = 0.999
) -> Int[np.ndarray, "*t n"]:
    """Label tokens by connected component of the graph <x_i, x_j> >= cosine.

    Single linkage: a chain of close tokens is one cluster. Label 0 is the largest cluster; of equal
    ones the one with the earliest token comes first. Exact.

    On the circle and on S^2 O(n log n) time: a million tokens take 0.2 s at cosine 0.99, uniform or
    in tight clusters, at most 4 s at any cosine, and 12 s where two dense clusters miss each other
    by 1e-13. For d > 3, and where `cosine` is within 1e-14 of 1 or norms differ by as much as a
    link, O(n^2 d) time at worst, O(k n d) for k tight clusters far apart. O(n d + block) memory.

    Args:
        x: Unit vectors, shape (..., n, d). Leading axes (time, seed, layer) are mapped.
        cosine: Smallest cosine that links two tokens, in (-1, 1].

    Returns:
        Labels 0, 1, ..., shape (..., n).

    Raises:
        ValueError: If rows are not finite unit vectors, or cosine is out of range.
    """
    x = np.asarray(x)
    check_tokens(x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x)
    check_shape(cosine, "cosine", ())
    check_between(cosine, "cosine", -1.0, 1.0, open_low=True)
    if x.ndim > 2:
        each = [_by_size(_components(one, cosine)) for one in x.reshape(-1, *x.shape[-2:])]
        return np.reshape(each, x.shape[:-1])
    return _by_size(_components(x, cosine))


def cluster_count(labels: Int[Numbers, "*t n"]) -> Int[np.ndarray, "*t"]:
    """Number of clusters, from the labels of `cluster_labels`."""
    return np.asarray(np.max(labels, axis=-1) + 1)


def cluster_sizes(labels: Int[Numbers, "*t n"]) -> Int[np.ndarray, "*t k"]:
    """Number of tokens in each cluster, largest first; k is the largest count, 0 where fewer."""
    k = int(labels.max()) + 1
    flat = [np.bincount(one, minlength=k) for one in labels.reshape(-1, labels.shape[-1])]
    return np.reshape(flat, (*labels.shape[:-1], k))


def cluster_means(
    x: Float[np.ndarray, "*t n d"], labels: Int[np.ndarray, "*t n"]
) -> Float[np.ndarray, "*t k d"]:
    """Mean direction of each cluster, unit vectors, in the order of the labels.

    k is the largest count; rows are NaN where a configuration has fewer clusters, and where tokens
    of a cluster cancel, so that it has no direction.
    """
    n, d = x.shape[-2:]
    k = int(labels.max()) + 1
    sums = np.zeros((labels.size // n, k, d))
    runs = np.arange(len(sums))[:, None]
    np.add.at(sums, (runs, labels.reshape(-1, n)), x.reshape(-1, n, d))
    lengths = np.linalg.norm(sums, axis=-1, keepdims=True)
    means = np.divide(sums, lengths, where=lengths > 0, out=np.full_like(sums, np.nan))
    return means.reshape(*labels.shape[:-1], k, d)


def _components(x: np.ndarray, cosine: float) -> np.ndarray:
    """Components of the threshold graph, in any order."""
    found = components(x, cosine) if x.shape[1] <= 3 else None
    return _by_stars(x, cosine) if found is None else found


def _by_stars(x: np.ndarray, cosine: float) -> np.ndarray:
    """Components in any dimension.

    Stars are found first. Then blocks of rows are compared with later tokens of other components,
    those whose star is near enough: links inside a component, up to n^2 of them, are never listed.
    """
    n = len(x)
    star = _stars(x, cosine)
    order = np.argsort(star, kind="stable")
    x, star = x[order], star[order]
    centre = x[np.unique(star, return_index=True)[1]]
    angle = min(3 * np.arccos(min(cosine, 1.0)) + 1e-3, np.pi)
    labels = star
    for begin, end in _blocks(star, max(1, BLOCK // n)):
        if labels.min() == labels.max():
            break
        others = begin + np.arange(n - begin)
        if star[begin] == star[end - 1]:
            near_star = centre @ centre[star[begin]] >= np.cos(angle)
            others = others[near_star[star[begin:]] & (labels[begin:] != labels[begin])]
        near = x[begin:end] @ x[others].T >= cosine
        near &= labels[begin:end, None] != labels[others]
        i, j = np.nonzero(near)
        if len(i):
            labels = join(labels, labels[begin + i], labels[others[j]])
    found = np.empty(n, np.int64)
    found[order] = labels
    return found


def _stars(x: np.ndarray, cosine: float) -> np.ndarray:
    """Star of each token: a first token and those linked to it; single tokens once stars are many."""
    star = np.zeros(len(x), np.int64)
    free = np.arange(len(x))
    for k in range(STARS):
        if not len(free):
            break
        near = x[free] @ x[free[0]] >= cosine
        near[0] = True
        star[free[near]] = k
        free = free[~near]
    star[free] = STARS + np.arange(len(free))
    return np.unique(star, return_inverse=True)[1]


def _blocks(star: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Ranges of at most `rows` sorted tokens: of one star, or of single tokens."""
    edges = np.unique(np.searchsorted(star, [*range(min(STARS, star[-1] + 1)), star[-1] + 1]))
    return [
        (begin, min(begin + rows, end))
        for first, end in pairwise(edges.tolist())
        for begin in range(first, end, rows)
    ]


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered by decreasing size, then by first token."""
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[inverse]
