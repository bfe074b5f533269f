"""Trees of merges: which order keeps their branches apart, and which clusters they had when."""

import numpy as np


def check_pairs(pairs: np.ndarray, n: int, name: str) -> np.ndarray:
    """Ids (m, 2) as integers, if each merge joins two clusters that exist and were not joined yet.

    Ids are those of SciPy: 0 to n-1 are tokens, n+k is what merge k made.
    """
    ids = pairs.ravel()
    exists = (ids >= 0) & (ids < n + np.arange(len(ids)) // 2) & (ids == np.round(ids))
    if not exists.all() or len(np.unique(ids)) < len(ids):
        raise ValueError(
            f"Argument `{name}` must join two clusters that exist, each once, but one of "
            f"{len(pairs)} merges of n={n} tokens does not. Ids are 0 to n-1 for tokens and n+k for "
            "what merge k made."
        )
    return pairs.astype(int)


def leaf_order(pairs: np.ndarray, n: int) -> np.ndarray:
    """Tokens in an order in which every cluster is contiguous; earlier tokens first, where free."""
    members = [[i] for i in range(n)] + [[] for _ in pairs]
    for k, pair in enumerate(pairs):
        first, second = sorted(pair, key=lambda node: min(members[node]))
        members[n + k] = members[first] + members[second]
        members[first] = members[second] = []
    return np.concatenate(sorted((m for m in members if m), key=min))


def parents(pairs: np.ndarray, n: int) -> np.ndarray:
    """Node each node merges into, -1 for a root; shape (n + m,)."""
    parent = np.full(n + len(pairs), -1)
    parent[pairs.ravel()] = n + np.arange(len(pairs)).repeat(2)
    return parent


def clusters_at(pairs: np.ndarray, heights: np.ndarray, n: int, cut: float) -> np.ndarray:
    """Cluster at a height, of each node below it, and -1 of those above; shape (n + m,).

    Numbered in the order of the leaves.
    """
    parent = parents(pairs, n)
    top = np.concatenate([np.zeros(n), heights])
    label = np.full(len(parent), -1)
    for node in range(len(parent) - 1, -1, -1):
        if node < n or top[node] <= cut:
            up = parent[node]
            label[node] = node if up < 0 or top[up] > cut else label[up]
    names = label[leaf_order(pairs, n)]
    number = {int(name): i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number.get(int(name), -1) for name in label])


def longest_plateau(heights: np.ndarray) -> float:
    """Middle of the widest gap between 0 and the heights; 6 % past the last if some are inf."""
    finite = np.sort(heights[np.isfinite(heights)])
    if len(finite) < len(heights):
        return 1.06 * float(finite.max(initial=0.1))
    edges = np.append(0, finite)
    widest = int(np.diff(edges).argmax())
    return float(edges[widest] + edges[widest + 1]) / 2
