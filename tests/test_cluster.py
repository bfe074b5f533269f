"""The estimator: scikit-learn's contract, its rules for beta and size, and what it finds."""

import math

import jax
import jax.random as jr
import numpy as np
import pytest
from scipy.cluster.hierarchy import is_valid_linkage
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from attnflow import sphere
from attnflow.cluster import AttentionClustering, half_entropy_beta, plateaus
from attnflow.mean_shift import ascend

N, K = 60, 4


def mean_entropy(scores):
    """Mean entropy of softmax rows, in nats."""
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1).mean()


def same_clusters(a, b):
    return adjusted_rand_score(a, b) == 1


@pytest.fixture(scope="module")
def caps():
    """Sixty tokens in four orthogonal caps of about 0.1 rad in R^5, and their caps."""
    cap = np.arange(N) % K
    x = np.eye(5)[cap] + 0.05 * np.random.default_rng(1).normal(size=(N, 5))
    return x / np.linalg.norm(x, axis=1, keepdims=True), cap


@pytest.fixture(scope="module")
def fitted(caps):
    return AttentionClustering().fit(caps[0])


@pytest.fixture(scope="module")
def blobs():
    """Ninety points in three blobs of the plane, sizes 50, 30 and 10, and one far from all."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]])
    label = np.repeat([0, 1, 2], [50, 30, 10])
    points = centres[label] + rng.normal(scale=0.5, size=(90, 2))
    return np.vstack([points, [[30.0, 1.0]]]), np.append(label, 1)


# ----------------------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_check_estimator(metric):
    check_estimator(AttentionClustering(metric=metric), on_skip=None)


# ------------------------------------------------------------------------------------------- rules


def test_beta_halves_the_entropy(caps):
    """Mean perplexity sqrt(n), with entropies of a softmax; log beta is known to 1e-4, and
    |dH / d log beta| <= beta^2 Var(scores) < 10 here."""
    x = caps[0]
    beta = half_entropy_beta(x)
    assert abs(mean_entropy(beta * x @ x.T) - math.log(N) / 2) < 1e-3


@pytest.mark.parametrize("copies", [3, 7])
def test_repeated_tokens_count_as_weight(caps, copies):
    """Equal multiplicities are equal weights: the same beta, to its 1e-4."""
    x = caps[0]
    assert half_entropy_beta(np.repeat(x, copies, axis=0)) == pytest.approx(
        half_entropy_beta(x), rel=1e-4
    )


def test_unequal_weights_have_less_entropy():
    """Two orthogonal tokens, one 9 times: H of p = w softmax is half of H(w) at this beta."""
    x = np.repeat(np.eye(2), [9, 1], axis=0)
    beta, w = half_entropy_beta(x), np.array([0.9, 0.1])
    p = w[None, :] * np.exp(beta * np.eye(2))
    p /= p.sum(axis=1, keepdims=True)
    assert w @ -(p * np.log(p)).sum(axis=1) == pytest.approx(-(w @ np.log(w)) / 2, abs=1e-3)


def test_tokens_that_all_agree_need_no_beta():
    assert half_entropy_beta(np.tile([[0.6, 0.8]], (5, 1))) == 1.0


LINKAGE = np.array(
    [  # tokens 0..5: a triple, a pair and a single
        [0, 1, 1.0, 2],
        [3, 4, 1.5, 2],
        [2, 6, 2.0, 3],
        [7, 8, 5.0, 5],
        [5, 9, 7.0, 6],
    ]
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [(0, 1, 6), (1, 1.5, 5), (1.5, 2, 4), (2, 5, 3), (5, 7, 2), (7, math.inf, 1)]),
        (2, [(1, 1.5, 1), (1.5, 5, 2), (5, math.inf, 1)]),
        (3, [(2, math.inf, 1)]),
        (7, []),
    ],
)
def test_plateaus_of_a_tree_read_by_hand(size, expected):
    found = plateaus(LINKAGE, size)
    assert [(p.start, p.end, p.clusters) for p in found] == expected
    assert all(LINKAGE[: p.merges, 2].max(initial=0.0) == p.start for p in found)


def test_plateaus_of_single_tokens_are_those_of_the_tree(fitted):
    found = [p for p in plateaus(fitted.linkage_) if p.persistence > 0]
    raw = [p for p in fitted.tree_.plateaus() if p.persistence > 0]
    longest = sorted(found, key=lambda p: -p.persistence)[1:6]  # the first is the end, for ever
    expected = sorted(raw, key=lambda p: -p.persistence)
    expected = [p for p in expected if p.clusters > 1][:5]
    assert [p.clusters for p in longest] == [p.clusters for p in expected]
    np.testing.assert_allclose(
        [p.persistence for p in longest], [p.persistence for p in expected], rtol=1e-9
    )


# --------------------------------------------------------------------------------------- finding


def test_separated_caps_are_found(caps, fitted):
    _, cap = caps
    assert fitted.n_clusters_ == K
    assert same_clusters(fitted.labels_, cap)
    assert fitted.labels_[0] == 0  # labels are named in the order of their first tokens
    assert list(np.unique(fitted.labels_, return_index=True)[1].argsort()) == list(range(K))
    assert is_valid_linkage(fitted.linkage_)
    assert fitted.linkage_.shape == (N - 1, 4)
    assert fitted.min_cluster_size_ == 8  # sqrt(60) = 7.7


def test_centres_stand_in_their_caps(caps, fitted):
    """Within 0.05 of the mean token: a third of the cap's radius."""
    x, _ = caps
    means = np.stack([x[fitted.labels_ == k].mean(axis=0) for k in range(K)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert fitted.cluster_centers_.shape == (K, 5)
    np.testing.assert_allclose(np.linalg.norm(fitted.cluster_centers_, axis=1), 1, rtol=1e-12)
    assert np.linalg.norm(fitted.cluster_centers_ - means, axis=1).max() < 0.05


def test_the_plateau_is_the_longest(fitted):
    others = [p for p in fitted.plateaus_ if 2 <= p.clusters < N]
    assert fitted.plateau_ == max(others, key=lambda p: p.persistence)
    assert fitted.plateau_.clusters == K


def test_lengths_of_rows_do_not_matter(caps, fitted):
    scale = np.geomspace(1e-3, 1e3, N)[:, None]
    assert same_clusters(AttentionClustering().fit_predict(scale * caps[0]), fitted.labels_)


def test_order_of_rows_does_not_matter(caps, fitted):
    order = np.random.default_rng(0).permutation(N)
    again = AttentionClustering().fit(caps[0][order])
    assert again.beta_ == pytest.approx(fitted.beta_, rel=1e-9)
    assert same_clusters(again.labels_, fitted.labels_[order])


@pytest.mark.parametrize("k", [1, 2, 3, 10, 30, N])
def test_as_many_clusters_as_asked_for(caps, k):
    found = AttentionClustering(n_clusters=k).fit(caps[0])
    assert found.n_clusters_ == k
    np.testing.assert_array_equal(np.unique(found.labels_), np.arange(k))
    assert found.cluster_centers_.shape == (k, 5)
    assert found.min_cluster_size_ in (8, 4, 2, 1)


def test_every_token_its_own_cluster_stands_where_it_was(blobs):
    """The way to the sphere and back, to rounding of the lift."""
    x, _ = blobs
    found = AttentionClustering(n_clusters=len(x), metric="euclidean").fit(x)
    np.testing.assert_allclose(found.cluster_centers_, x, atol=1e-12 * 300)


def test_an_outlier_is_no_cluster_unless_asked_for(blobs):
    x, label = blobs
    found = AttentionClustering(metric="euclidean", min_cluster_size=5).fit(x)
    assert found.n_clusters_ == 3
    assert same_clusters(found.labels_[:-1], label[:-1])
    alone = AttentionClustering(metric="euclidean", min_cluster_size=1).fit(x)
    assert (alone.labels_ == alone.labels_[-1]).sum() == 1


def test_euclidean_knows_no_origin_and_no_unit(blobs):
    x, _ = blobs
    one, other = (
        AttentionClustering(metric="euclidean", min_cluster_size=5).fit(y) for y in (x, 3 * x + 50)
    )
    assert same_clusters(one.labels_, other.labels_)
    assert other.beta_ == pytest.approx(one.beta_ / 9, rel=1e-6)
    np.testing.assert_allclose(other.cluster_centers_, 3 * one.cluster_centers_ + 50, atol=1e-3)


def test_euclidean_beta_is_that_of_a_gaussian(blobs):
    """Squared distances on the lifted sphere err by 2/400, and |dH / d log beta| < 2 here."""
    x, _ = blobs
    beta = AttentionClustering(metric="euclidean").fit(x).beta_
    square = ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)
    assert abs(mean_entropy(-beta * square / 2) - math.log(len(x)) / 2) < 2 * 2 / 400


def test_beta_can_be_given(caps):
    found = AttentionClustering(beta=40.0).fit(caps[0])
    assert found.beta_ == 40.0
    assert found.tree_.beta == 40.0
    assert same_clusters(found.labels_, caps[1])


def test_float32_and_float64_agree_without_x64(caps, fitted):
    """In a plain session JAX has float64 switched off; the estimator switches it on for itself."""
    with jax.enable_x64(False):
        single = AttentionClustering().fit(caps[0].astype(np.float32))
        double = AttentionClustering().fit(caps[0])
        assert same_clusters(single.predict(caps[0].astype(np.float32)), fitted.labels_)
    assert same_clusters(single.labels_, fitted.labels_)
    assert double.beta_ == fitted.beta_
    np.testing.assert_array_equal(double.labels_, fitted.labels_)


# ----------------------------------------------------------------------------------------- predict


def test_new_rows_go_to_the_cap_they_come_from(caps, fitted):
    x, _ = caps
    near = sphere.normalize(x + 0.03 * jr.normal(jr.key(9), x.shape))
    np.testing.assert_array_equal(fitted.predict(np.asarray(near)), fitted.labels_)


def test_prediction_follows_the_field_to_the_mode():
    """The label is that of the kernel's mass at the mode, which is not that at the query itself."""
    x, queries = (sphere.uniform(jr.key(k), 80, 3) for k in (2, 3))
    beta = 8.0
    found = AttentionClustering(beta=beta, n_clusters=6, min_cluster_size=1).fit(np.asarray(x))
    one_hot = np.eye(6)[found.labels_]
    here, mode = (
        np.asarray(np.exp(beta * (q @ x.T - 1)) @ one_hot).argmax(axis=1)
        for q in (queries, ascend(queries, x, beta).x)
    )
    np.testing.assert_array_equal(found.predict(np.asarray(queries)), mode)
    assert (here != mode).any()


def test_predictions_do_not_depend_on_their_batch(fitted):
    queries = np.asarray(sphere.uniform(jr.key(4), 37, 5))
    together = fitted.predict(queries)
    np.testing.assert_array_equal(together[:5], fitted.predict(queries[:5]))


# --------------------------------------------------------------------------------------- odd inputs


def test_zero_rows_are_orthogonal_to_all(caps):
    x, cap = caps
    found = AttentionClustering().fit(np.vstack([x, np.zeros((15, 5))]))
    assert same_clusters(found.labels_, np.append(cap, np.full(15, K)))
    np.testing.assert_allclose(found.cluster_centers_[found.labels_[-1]], 0, atol=1e-6)
    assert found.predict(np.zeros((1, 5)))[0] == found.labels_[-1]


def test_one_row():
    found = AttentionClustering().fit([[3.0, 4.0]])
    assert found.labels_.tolist() == [0]
    assert found.linkage_.shape == (0, 4)
    np.testing.assert_allclose(found.cluster_centers_, [[0.6, 0.8]])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_rows_are_one_cluster(metric):
    found = AttentionClustering(metric=metric).fit(np.ones((9, 3)))
    assert found.n_clusters_ == 1


def test_signs_are_the_directions_of_one_feature():
    x = np.array([[1.0], [-2.0], [3.0], [-0.5], [2.0]])
    found = AttentionClustering(min_cluster_size=2).fit(x)
    assert same_clusters(found.labels_, x[:, 0] > 0)


def test_plain_data_end_to_end():
    """Iris without a scale, a number of clusters or a beta: setosa apart from the other two."""
    x, species = load_iris(return_X_y=True)
    found = AttentionClustering(metric="euclidean").fit(x)
    assert found.n_clusters_ == 2
    assert same_clusters(found.labels_, species > 0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"beta": 0.0}, "`beta` must satisfy beta > 0"),
        ({"beta": "automatic"}, "`beta` must be a number"),
        ({"n_clusters": 0}, "`n_clusters` must be a whole number >= 1"),
        ({"n_clusters": 2.5}, "`n_clusters` must be a whole number"),
        ({"n_clusters": N + 1}, "There are 60 rows to cluster"),
        ({"metric": "manhattan"}, "`metric` must be one of cosine, euclidean"),
        ({"min_cluster_size": 0}, "`min_cluster_size` must be a whole number >= 1"),
        ({"min_cluster_size": N + 1}, "`min_cluster_size` must satisfy min_cluster_size <= 60"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_parameters(caps, parameters, message):
    with pytest.raises(ValueError, match=message):
        AttentionClustering(**parameters).fit(caps[0])
