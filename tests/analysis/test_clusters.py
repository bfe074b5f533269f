import tracemalloc

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from attnflow.analysis import cells
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


def random_case(rng, d):
    """Clusters, arcs and lone tokens, and a threshold from the nearest to the farthest pairs."""
    n = int(rng.integers(1, 250))
    centres = unit(rng.normal(size=(int(rng.integers(1, 30)), d)))
    spread = 10 ** rng.uniform(-5, 0)
    x = unit(centres[rng.integers(len(centres), size=n)] + spread * rng.normal(size=(n, d)))
    if rng.random() < 0.3:
        x[:, 2:] = 0
        x = unit(x + 1e-300)
    if rng.random() < 0.5:
        x[rng.integers(n, size=n // 3)] = x[rng.integers(n)]
    return x, 1 - 10 ** rng.uniform(-11, 0.29)


@pytest.mark.parametrize("few", [0, 10, 2**14])
@pytest.mark.parametrize("d", [2, 3])
def test_cells_find_the_components_of_the_full_graph(d, few, monkeypatch):
    """Every way in which two cells are compared; far from all ties at 1e-13."""
    monkeypatch.setattr(cells, "FEW", few)
    monkeypatch.setattr(cells, "PAIRS", 500)
    rng = np.random.default_rng(few + d)
    links = 0
    for _ in range(200):
        x, cosine = random_case(rng, d)
        graph = x @ x.T
        if np.abs(graph - cosine).min() < 1e-15:
            continue
        _, oracle = connected_components(graph >= cosine, directed=False)
        found = cells.components(x, cosine)
        assert found is not None
        assert same_partition(found, oracle)
        links += 1 < oracle.max() + 1 < len(x)
    assert links > 60


@pytest.mark.parametrize("few", [0, 2**14])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("size", [2, 24])
def test_small_groups_about_as_wide_as_a_link(d, few, size, monkeypatch):
    """Pairs 1e-3 within or beyond a link, and groups a few links wide: the oracle is the full graph."""
    monkeypatch.setattr(cells, "FEW", few)
    rng, link = np.random.default_rng(size), 1e-3
    centres = unit(rng.normal(size=(3000 // size, 1, d)))
    steps = rng.normal(size=(3000 // size, size, d))
    steps -= (steps * centres).sum(axis=-1, keepdims=True) * centres
    if size == 2:
        steps[:, 1] = -steps[:, 0]
        steps = unit(steps) * link / 2 * rng.choice([0.999, 1.001], size=(len(steps), 1, 1))
    else:
        steps *= (2 if d == 3 else 6) * link
    x = unit((centres + steps).reshape(-1, d))
    graph = x @ x.T >= 1 - link**2 / 2
    _, oracle = connected_components(graph, directed=False)
    assert same_partition(cells.components(x, 1 - link**2 / 2), oracle)


@pytest.mark.parametrize("few", [0, 2**14])
@pytest.mark.parametrize("d", [2, 3])
def test_a_link_at_the_threshold_itself_counts(d, few, monkeypatch):
    """Cosines that floats hold exactly: 0, 1/2, 3/5; a hair more, and there is no link."""
    monkeypatch.setattr(cells, "FEW", few)
    x = np.zeros((6, d))
    x[:, :2] = [[1, 0], [1, 0], [0, 1], [0.6, 0.8], [-0.8, 0.6], [0.6, -0.8]]
    for cosine in (0.0, 0.6, 0.8, -0.6):
        for threshold in (cosine, np.nextafter(cosine, 2)):
            _, oracle = connected_components(x @ x.T >= threshold, directed=False)
            assert same_partition(cells.components(x, threshold), oracle)


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_a_link_that_is_not_the_first_guess(shift):
    """The tokens nearest to the other group's middle are not linked, two others are, or miss by 0.03."""
    flat = np.array([[-0.3, 0.9], [1.9 + shift, 0.2], [-1.0, 0.0], [1.05, 0.0]])
    x = unit(np.column_stack([1e-3 * flat, np.ones(4)]))
    graph = x @ x.T >= (cosine := 1 - 0.5e-6)
    found = cells._Cells(*[None] * 8, inner=1e-3, outer=1e-3 * (1 + 1e-9))
    assert cells._touch(x[:2], x[2:], found, cosine) == graph[:2, 2:].any() == (shift == 0)


@pytest.mark.parametrize("miss", [-1e-9, -1e-12, 1e-12, 1e-9])
@pytest.mark.parametrize("d", [2, 3])
def test_two_arcs_that_nearly_touch(d, miss, monkeypatch):
    """1200 tokens each, the nearest two of them `miss` beyond the angle of a link."""
    monkeypatch.setattr(cells, "FEW", 100)
    steps = 1e-3 * np.arange(1200)
    angle = np.concatenate([0.3 - steps, 0.3 + np.arccos(0.99) + miss + steps])
    x = np.zeros((2400, d))
    x[:, :2] = on_circle(np.degrees(angle))
    assert cells.components(x, 0.99).max() == (0 if miss < 0 else 1)


@pytest.mark.parametrize(("cosine", "stretch"), [(1.0, 0), (1 - 1e-15, 0), (1 - 1e-6, 9e-6)])
def test_no_cells_where_none_fit(cosine, stretch):
    """Links of rounding size, or norms that differ by more than a link, take the other way."""
    x = np.array([[1.0, 0.0], [1.0 + stretch, 0.0], [0.0, 1.0]])
    assert cells.components(x, cosine) is None
    np.testing.assert_array_equal(cluster_labels(x, cosine=cosine), [0, 0, 1])


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("cosine", [0.99, 1 - 1e-5])
def test_a_hundred_thousand_tokens_list_no_links(d, cosine):
    """Uniform tokens have up to 2.2e9 links at cosine 0.99; a tenth of them are in one tight cluster."""
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(100_000, d)))
    x[::10] = unit(x[0] + 1e-6 * rng.normal(size=(10_000, d)))
    tracemalloc.start()
    labels = cluster_labels(x, cosine=cosine)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cluster_sizes(labels)[0] >= 10_000
    assert (labels.max() == 0) == (cosine == 0.99 or d == 2)
    assert peak < 100e6


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
