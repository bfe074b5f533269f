"""Clustering as a tool: `AttentionClustering`, a scikit-learn estimator on top of `coalesce`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import root_scalar
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from attnflow.attention import Attention
from attnflow.coalescence import coalesce
from attnflow.coalescence.crowd import condense, merge_distance
from attnflow.errors import (
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_shape,
)
from attnflow.kernels import dense
from attnflow.mean_shift import ascend

if TYPE_CHECKING:
    from attnflow.coalescence import MergeTree

LIFT = 10.0
LOG10_2 = math.log10(2)
RTOL = 1e-4
MERGE_WIDTH = 0.01
SAME = 8  # digits to which two tokens are one
EXTREME_BETA = 1e12


class Plateau(NamedTuple):
    """A stretch of log-time over which the number of large clusters stays the same.

    Attributes:
        start: Its beginning, log10(1 + t).
        end: Its end, log10(1 + t); inf if nothing merges any more.
        clusters: Number of clusters of at least the smallest size.
        merges: Number of merges before it, of large and small clusters alike.
    """

    start: float
    end: float
    clusters: int
    merges: int

    @property
    def persistence(self) -> float:
        """Length in decades of 1 + t."""
        return self.end - self.start if self.start < math.inf else 0.0


class AttentionClustering(ClusterMixin, BaseEstimator):
    r"""Clusters that attention forms: tokens coalesce, and what lasts longest in log-time is kept.

    Rows of X become tokens on the sphere and move by self-attention, the gradient flow of their own
    kernel density, until all have merged. Between merges nothing happens for times of order
    $e^{c\beta}$: these plateaus are the clusterings of the data, and the longest is chosen. Beyond 512
    rows the crowded early phase runs in coarse steps, in the precision of X; the rest in float64.

    A cluster counts once it holds `min_cluster_size` tokens. Without `n_clusters` the longest
    plateau of 2 or more (and fewer than n) such clusters is taken, its length measured in
    log10(1 + t); if there is none, all tokens are one cluster. With `n_clusters` it is the longest of
    that many; if never so many stood at once, the smallest size is halved until they did. Tokens
    of smaller clusters get the label to which they attend most. Nothing is random.

    beta = "auto" lets a token attend to the square root of all tokens: the mean entropy of
    attention is half of its largest, $\log\sqrt n$. That is the k = sqrt(n) of nearest-neighbour
    density estimates, which grows with n but slower, at any dimension. The smallest size is that number
    again: a cluster is at least as large as what one token sees. Neither rule sees labels.

    O(n^2 d) a step, O(n block) memory.

    Args:
        beta: Inverse temperature, > 0: the kernel has width $1/\sqrt\beta$, in chords of the unit sphere
            for metric "cosine", in units of X for "euclidean"; or "auto".
        n_clusters: Number of clusters, at most n; the longest plateau decides if None.
        metric: "cosine": rows are scaled to unit length, not centred; a zero row has no direction,
            and counts as orthogonal to all others, its cosine with them being 0.
            "euclidean": rows are lifted to a sphere so large (10 times the data's radius, by the
            inverse stereographic projection) that it is flat to 1/400, and the flow is that of
            Gaussian blurring mean shift in R^d.
        min_cluster_size: Fewest tokens of a cluster; 1 counts every token, and plateaus are then
            those of `tree_`; "auto" is the square root of n.

    Attributes:
        labels_: Cluster of each token, 0, 1, ..., shape (n,).
        n_clusters_: Number of clusters.
        beta_: Inverse temperature that was used, in the unit of `beta`.
        min_cluster_size_: Smallest size that was used.
        plateaus_: All plateaus of at least one cluster, in time.
        plateau_: The one that was taken.
        cluster_centers_: Where the clusters of that plateau stood at its start, shape (k, d):
            unit vectors for "cosine", points for "euclidean".
        tree_: The `MergeTree`, of the clusters that `coalescence.crowd.condense` left if n > 512.
        linkage_: SciPy linkage matrix of all tokens, heights log10(1 + t), shape (n - 1, 4).

    Example:
        >>> AttentionClustering().fit(X).labels_

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 4 and 5; Cheng, "Mean shift,
        mode seeking, and clustering" (1995); smallest sizes as in Campello, Moulavi, Sander,
        "Density-based clustering based on hierarchical density estimates" (2013).
    """

    def __init__(
        self,
        beta: Any = "auto",
        n_clusters: Any = None,
        metric: Any = "cosine",
        min_cluster_size: Any = "auto",
    ):
        self.beta = beta
        self.n_clusters = n_clusters
        self.metric = metric
        self.min_cluster_size = min_cluster_size

    def fit(self, X: Any, y: Any = None) -> AttentionClustering:  # noqa: N803
        """Let the rows of X coalesce, and choose a plateau.

        Args:
            X: Data, shape (n, d). float32 runs its crowded early phase in float32.
            y: Ignored.

        Raises:
            ValueError: If a parameter is out of its range, or X holds NaN or inf.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])  # noqa: N806
        n = len(X)
        self._check(n)
        with jax.enable_x64(True):
            self._centre, self._radius = X.mean(axis=0), 1.0
            if self.metric == "euclidean":
                self._radius = LIFT * _reach(X - self._centre)
            x = self._tokens = self._to_sphere(X)
            if self.beta == "auto":
                self.beta_ = half_entropy_beta(x) / self._radius**2
            else:
                self.beta_ = float(self.beta)
            beta = self.beta_ * self._radius**2
            self.tree_, self.linkage_, self._places = merge_tree(x, beta)
            least = math.sqrt(n) if self.min_cluster_size == "auto" else self.min_cluster_size
            self.plateau_, self.min_cluster_size_ = self._choose(n, max(1, round(least)))
            self.plateaus_ = plateaus(self.linkage_, self.min_cluster_size_)
            self.labels_, centres = self._cut(x, beta)
        self.n_clusters_ = len(centres)
        self.cluster_centers_ = self._from_sphere(centres)
        return self

    def predict(self, X: Any) -> Int[np.ndarray, " m"]:  # noqa: N803
        """Cluster of new rows: each climbs the fixed density of the training tokens to its mode.

        The mode belongs to the cluster it attends to most. Training tokens moved each other
        instead, so that `predict` of the training data may differ from `labels_`.

        Args:
            X: Data, shape (m, d).
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)  # noqa: N806
        with jax.enable_x64(True):
            queries = self._to_sphere(X).astype(self._tokens.dtype)
            beta = self.beta_ * self._radius**2
            spare = 2 ** math.ceil(math.log2(len(queries))) - len(queries)  # few shapes to compile
            queries = np.pad(queries, [(0, spare), (0, 0)], mode="edge")
            modes = ascend(jnp.asarray(queries), jnp.asarray(self._tokens), beta).x
            return _attended(modes, self._tokens, self.labels_, beta)[: len(X)]

    def _check(self, n: int) -> None:
        check_choice(self.metric, "metric", ("cosine", "euclidean"))
        if self.beta != "auto":
            check_shape(self.beta, "beta", ())
            check_finite(self.beta, "beta")
            check_between(self.beta, "beta", low=0.0, open_low=True)
        if self.min_cluster_size != "auto":
            check_count(self.min_cluster_size, "min_cluster_size")
            check_between(self.min_cluster_size, "min_cluster_size", high=float(n))
        if self.n_clusters is not None:
            check_count(self.n_clusters, "n_clusters")
            check_between(
                self.n_clusters,
                "n_clusters",
                high=float(n),
                remedy=f"There are {n} rows to cluster.",
            )

    def _to_sphere(self, X):  # noqa: N803
        """Rows as unit tokens, of one dimension more."""
        if self.metric == "euclidean":
            y = (X.astype(float) - self._centre) / (2 * self._radius)
            square = (y * y).sum(axis=1, keepdims=True)
            return np.hstack([2 * y, 1 - square]) / (1 + square)
        largest = np.abs(X).max(axis=1, keepdims=True)
        zero = largest == 0
        y = np.hstack([X / np.where(zero, 1, largest), zero])
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    def _from_sphere(self, x):
        """Centres as the user knows them."""
        if self.metric == "cosine":
            return x[:, :-1]
        return self._centre + 2 * self._radius * x[:, :-1] / (1 + x[:, -1:])

    def _choose(self, n: int, least: int) -> tuple[Plateau, int]:
        """The plateau to cut at, and the smallest size for which there is one."""
        wanted = self.n_clusters
        found = plateaus(self.linkage_, least)
        if wanted is None:
            found = [p for p in found if 2 <= p.clusters < n and p.persistence > 0]
            found = found or [Plateau(0.0, math.inf, 1, n - 1)]
        while not (found := [p for p in found if p.clusters == (wanted or p.clusters)]):
            least //= 2
            found = plateaus(self.linkage_, least)
        return max(found, key=lambda p: p.persistence), least

    def _cut(self, x, beta):
        """Labels of tokens at the plateau, and where its large clusters stood at its start."""
        n, merges = len(x), self.plateau_.merges
        top = np.arange(n + merges)
        for k in reversed(range(merges)):
            top[self.linkage_[k, :2].astype(int)] = top[n + k]
        nodes, first, sizes = np.unique(top[:n], return_index=True, return_counts=True)
        large = sizes >= min(self.min_cluster_size_, sizes.max())
        nodes = nodes[large][first[large].argsort()]  # label 0 has the first token
        member = top[:n, None] == nodes[None, :]
        labels, small = member.argmax(axis=1), ~member.any(axis=1)
        if small.any():
            labels[small] = _attended(x[small], x[~small], labels[~small], beta)
        places = zip(nodes, member.T, strict=True)
        return labels, np.stack([self._place(node, x[own]) for node, own in places])

    def _place(self, node, members):
        """Where a cluster stood when it was made; what never merges stands at its mean token."""
        if len(members) > 1 and node < len(self._tokens) + len(self._places):
            return self._places[node - len(self._tokens)]
        mean = members.mean(axis=0)
        length = np.linalg.norm(mean)
        return mean / length if length > 1e-8 else members[0]


def merge_tree(
    x: Float[np.ndarray, "n d"], beta: float
) -> tuple[MergeTree, Float[np.ndarray, "m 4"], Float[np.ndarray, "k d"]]:
    r"""Merge tree, linkage of all tokens, and where they merged: the one place that simulates.

    Coarser than `coalesce` by default, which changes heights, in log10(1 + t), by some 1e-3: steps
    err by 1e-4, and tokens count as met 3 % of a kernel width $1/\sqrt\beta$ apart.

    Args:
        x: Unit tokens, shape (n, d).
        beta: Inverse temperature.
    """
    merge_tol = min(max(MERGE_WIDTH / math.sqrt(beta), 1e-9), MERGE_WIDTH)
    n, crowd = len(x), condense(x, beta)
    tokens = crowd.x.astype(float)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    weights = crowd.weights / crowd.weights.sum()
    tree = coalesce(
        Attention(beta),
        tokens,
        weights=weights,
        merge_tol=merge_tol,
        rtol=RTOL,
        contact=merge_distance(beta),
        crowd=None,
    )
    rows = np.asarray(tree.linkage)
    ids = np.concatenate([crowd.ids, n + len(crowd.pairs) + np.arange(len(rows))])
    early, late = np.log10(1 + crowd.times), rows[:, 2]
    late = np.where(
        np.isinf(late), late, np.logaddexp2(late / LOG10_2, math.log2(1 + crowd.t)) * LOG10_2
    )
    pairs = np.concatenate([crowd.pairs, np.sort(ids[rows[:, :2].astype(int)], axis=1)])
    heights = np.concatenate([early, np.where(len(early) > 0, late, rows[:, 2])])
    sizes = np.ones(2 * n - 1)
    for k, (i, j) in enumerate(pairs):
        sizes[n + k] = sizes[i] + sizes[j]
    linkage = np.column_stack([pairs, heights, sizes[n:]])
    return tree, linkage, np.concatenate([crowd.merged_x, tree.merged_x])


def half_entropy_beta(x: Float[np.ndarray, "n d"]) -> float:
    r"""Inverse temperature at which a token attends to the square root of all tokens.

    The mean entropy of attention falls from $\log n$ at beta = 0 to 0: beta is where it is half of
    that. Tokens that agree to 8 digits count as one of larger weight w, and the largest entropy is
    then that of the weights. Up to 1e12; 1 if all tokens agree. About 12 kernel sums, O(n^2 d) each.

    Args:
        x: Unit tokens, shape (n, d).
    """
    with jax.enable_x64(True):
        _, first, count = np.unique(
            np.round(x, SAME), axis=0, return_index=True, return_counts=True
        )
        order = np.argsort(first)
        tokens, w = jnp.asarray(x[first[order]], float), jnp.asarray(count[order] / len(x))
        log_w = jnp.log(w)
        values = jnp.concatenate([tokens, log_w[:, None]], axis=1)
        half = -float(w @ log_w) / 2

        def excess(log_beta: float) -> float:
            beta = math.exp(log_beta)
            mean, log_z = dense(tokens, tokens, values, beta, weights=w)
            entropy = log_z - beta * jnp.sum(tokens * mean[:, :-1], axis=1) - mean[:, -1]
            return float(w @ entropy) - half

        if len(w) == 1:
            return 1.0
        low, high = 0.0, 0.0
        while excess(low) < 0:
            high, low = low, low - 2.0
        while excess(high) > 0 and high < math.log(EXTREME_BETA):
            low, high = high, high + 2.0
        if high >= math.log(EXTREME_BETA):
            return EXTREME_BETA
        return math.exp(root_scalar(excess, bracket=(low, high), xtol=1e-4).root)


def plateaus(linkage: Float[np.ndarray, "m 4"], min_cluster_size: int = 1) -> list[Plateau]:
    """Stretches between merges of large clusters, and births of new ones, in time.

    A merge with a cluster of fewer than `min_cluster_size` tokens ends nothing.

    Args:
        linkage: SciPy linkage matrix with heights log10(1 + t), shape (n - 1, 4).
        min_cluster_size: Fewest tokens of a cluster that counts, >= 1.

    Returns:
        Plateaus of at least one cluster; those of length 0 lie between merges at one time.
    """
    n = len(linkage) + 1
    sizes = np.concatenate([np.ones(n), linkage[:, 3]])
    large = sizes >= min_cluster_size
    parts = linkage[:, :2].astype(int)
    gained = large[n:].astype(int) - large[parts].sum(axis=1)
    ends = np.flatnonzero(gained)
    starts = np.concatenate([[0], ends + 1])
    counts = large[:n].sum() + np.concatenate([[0], gained[ends].cumsum()])
    heights = np.concatenate([[0.0], linkage[:, 2]])
    closes = np.concatenate([linkage[ends, 2], [math.inf]])
    found = [
        Plateau(float(heights[k]), float(end), int(clusters), int(k))
        for k, end, clusters in zip(starts, closes, counts, strict=True)
    ]
    return [p for p in found if p.clusters > 0]


def _reach(rows) -> float:
    """Largest length of a row, 1 if all are zero."""
    return float(np.linalg.norm(rows, axis=1).max()) or 1.0


def _attended(q, x, labels, beta) -> Int[np.ndarray, " m"]:
    """Label on which the attention of each query, paid to labelled tokens, lies most."""
    shares = jax.nn.one_hot(labels, int(labels.max()) + 1, dtype=x.dtype)
    return np.asarray(dense(jnp.asarray(q), jnp.asarray(x), shares, beta)[0].argmax(axis=1))
