import tracemalloc

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from attnflow.analysis.clusters import cluster_count, cluster_labels, cluster_means, cluster_sizes


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def on_circle(degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def same_partition(a, b):
    pairs = np.unique(np.stack([a, b]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


def test_labels_are_ordered_by_size_then_by_first_token():
    x = on_circle(np.array([90.0, 0.0, 200.0, 1.0, 2.0, 201.0, 91.0]))
    labels = cluster_labels(x, cosine=np.cos(np.radians(1.5)))
    np.testing.assert_array_equal(labels, [1, 0, 2, 0, 0, 2, 1])


@pytest.mark.parametrize("turn", [1.9, 2.1])
def test_single_linkage_follows_a_chain(turn):
    """Neighbours `turn` degrees apart, links up to 2 degrees: one cluster, or all alone."""
    x = on_circle(turn * np.arange(150))
    assert cluster_labels(x, cosine=np.cos(np.radians(2))).max() == (0 if turn < 2 else 149)


@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("spread", [1e-3, 0.02, 0.05, 1.0])
def test_labels_are_components_of_the_full_graph(d, spread):
    """1500 tokens in 40 clusters, more stars than are looked for, against the dense graph."""
    rng = np.random.default_rng(d)
    centres = unit(rng.normal(size=(40, d)))
    x = unit(centres[rng.integers(40, size=1500)] + spread * rng.normal(size=(1500, d)))
    _, oracle = connected_components(x @ x.T >= 0.999, directed=False)
    assert same_partition(cluster_labels(x), oracle)


def test_many_tokens_need_little_memory():
    """30 000 tokens in six clusters have 75 million links, 0.9 GB as a boolean matrix."""
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(6, 8)))
    x = unit(centres[rng.integers(6, size=30_000)] + 1e-3 * rng.normal(size=(30_000, 8)))
    tracemalloc.start()
    labels = cluster_labels(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cluster_count(labels) == 6
    assert peak < 100e6


def test_leading_axes_are_mapped():
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(2, 3, 20, 2)))
    labels = cluster_labels(x)
    assert labels.shape == (2, 3, 20)
    np.testing.assert_array_equal(labels[1, 2], cluster_labels(x[1, 2]))
    counts, sizes = cluster_count(labels), cluster_sizes(labels)
    np.testing.assert_array_equal((sizes > 0).sum(axis=-1), counts)
    np.testing.assert_array_equal(sizes.sum(axis=-1), 20)
    means = cluster_means(x, labels)
    np.testing.assert_array_equal(np.isfinite(means).all(axis=-1).sum(axis=-1), counts)


def test_sizes_and_means():
    x = on_circle(np.array([10.0, 100.0, 12.0, 100.0, 8.0]))
    labels = cluster_labels(x, cosine=0.99)
    np.testing.assert_array_equal(cluster_sizes(labels), [3, 2])
    np.testing.assert_allclose(
        cluster_means(x, labels), on_circle(np.array([10.0, 100.0])), atol=1e-15
    )


def test_a_cluster_that_cancels_has_no_direction():
    x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert np.isnan(cluster_means(x, np.array([0, 0]))).all()


@pytest.mark.parametrize(
    ("x", "cosine", "message"),
    [
        (np.array([[3.0, 4.0]]), 0.9, "`x` must hold unit vectors"),
        (np.array([[np.nan, 1.0]]), 0.9, "`x` must be finite"),
        (np.ones((2, 3, 1)), 0.9, "d >= 2"),
        (np.eye(2), -1.0, "`cosine` must satisfy cosine > -1"),
    ],
)
def test_bad_input(x, cosine, message):
    with pytest.raises(ValueError, match=message):
        cluster_labels(x, cosine=cosine)
