"""Large clouds: coalescing begins with a crowded phase in coarse steps, and goes on as ever."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import attnflow as af
from attnflow.coalescence.crowd import merge_distance

RULES = {"sa": af.Attention, "usa": lambda beta: af.UnnormalizedAttention(beta, clock="rescaled")}
BETA, N, CROWD = 30.0, 300, 160


@pytest.fixture(
    scope="module", params=[("sa", 2), ("sa", 3), ("usa", 2), ("usa", 3), ("sa", 5)], ids=str
)
def runs(request):
    """The same tokens with a crowded phase and without."""
    model, d = request.param
    x = np.random.default_rng(d).normal(size=(N, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rule = RULES[model](BETA)
    return af.coalesce(rule, x, crowd=CROWD), af.coalesce(rule, x, crowd=None)


def test_every_token_is_in_the_tree(runs):
    coarse, _ = runs
    assert coarse.status == "collapsed"
    assert len(coarse.pairs) == N - 1
    assert coarse.stats["crowd_merges"] >= N - CROWD
    assert (coarse.log10_times[1:] >= coarse.log10_times[:-1]).all()
    assert sorted(coarse.pairs.ravel()) == list(range(2 * N - 2))
    np.testing.assert_allclose(coarse.linkage[-1, 3], N)
    assert (np.diff(coarse.energies) >= -1e-9).all()
    np.testing.assert_allclose(coarse.energies[-1], 1, atol=1e-6)


def test_late_merges_come_at_the_same_time(runs):
    """log T changes with the angle of two clusters by at most beta, and each is moved by at most a merge distance."""
    coarse, fine = runs
    atol = 2 * BETA * merge_distance(BETA) / np.log(10)
    assert atol < 0.15
    assert fine.log10_times[-3] > 4
    np.testing.assert_allclose(coarse.log10_times[-3:], fine.log10_times[-3:], atol=atol)


def test_late_clusters_are_the_same(runs):
    """But for a token or two between basins, while three or more are left: pairs that tie may merge in other order."""
    coarse, fine = runs
    lengths = np.diff(fine.log10_times[-6:-1])
    k = 6 - int(lengths.argmax())
    assert adjusted_rand_score(coarse.labels(k), fine.labels(k)) > 0.98


def test_the_start_can_be_looked_at(runs):
    coarse, _ = runs
    early = coarse.at(1e-3 if coarse.log10_times[0] > -3 else 0.0)
    assert early.labels.min() == 0
    assert early.labels.max() + 1 == len(early.x)
    np.testing.assert_allclose(early.weights.sum(), 1)


def test_the_crowd_can_be_asked_for_one_moment(runs):
    coarse, _ = runs
    middle = float(np.exp(np.log(10) * coarse.log10_times[coarse.stats["crowd_merges"] // 2]))
    clusters = coarse.at(middle)
    np.testing.assert_allclose(np.linalg.norm(clusters.x, axis=1), 1, rtol=1e-12)
    assert 1 < len(clusters.x) <= N
    assert len(np.unique(clusters.labels)) == len(clusters.x)


def test_bad_threshold():
    x = np.asarray(af.sphere.polygon(8))
    with pytest.raises(ValueError, match="Argument `crowd` must be"):
        af.coalesce(af.Attention(3.0), x, crowd=0)


def test_a_million_tokens_fall_into_clusters_that_are_found():
    """Two caps a right angle apart, and uniform tokens, which are one component."""
    rng = np.random.default_rng(0)
    n = 300_000
    noise = rng.normal(size=(n, 3))
    caps = np.where((np.arange(n) % 3 == 0)[:, None], [1.0, 0, 0], [0, 1.0, 0]) + 1e-3 * noise
    for x, count in ((caps, 2), (noise, 1)):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        labels = af.analysis.clusters.cluster_labels(x, cosine=0.99)
        assert labels.max() + 1 == count
    assert jnp.asarray(labels).shape == (n,)
