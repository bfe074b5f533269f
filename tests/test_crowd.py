"""The coarse early phase of large clouds beside the fine integration of every token."""

import jax.random as jr
import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

import attnflow as af
from attnflow.coalescence import crowd as crowd_module
from attnflow.coalescence.crowd import condense, merge_distance

N, D, BETA, LEFT = 90, 5, 25.0, 12


@pytest.fixture(scope="module")
def x():
    """Four loose clusters: crowds first, metastable states after."""
    return np.asarray(af.sphere.clusters(jr.key(0), N, D, k=4, spread=0.2))


@pytest.fixture(scope="module")
def crowd(x):
    return condense(x, BETA, left=LEFT)


@pytest.fixture(scope="module")
def tree(x):
    return af.coalesce(af.Attention(BETA), x)


def members(n, pairs):
    """Tokens of every id of a linkage."""
    found = [frozenset([i]) for i in range(n)]
    for i, j in pairs:
        assert not found[i] & found[j]
        found.append(found[i] | found[j])
    return found


def test_what_is_left_are_the_tokens_that_came(crowd):
    groups = members(N, crowd.pairs)
    left = [groups[i] for i in crowd.ids]
    assert len(left) == len(crowd.x) == N - len(crowd.pairs) <= LEFT
    assert sorted(i for group in left for i in group) == list(range(N))
    np.testing.assert_allclose(crowd.weights, [len(g) / N for g in left], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(crowd.x, axis=1), 1, rtol=1e-12)
    assert (np.diff(crowd.times) >= 0).all()
    assert crowd.times[-1] == crowd.t


def test_left_tokens_stand_where_fine_steps_take_them(crowd, tree):
    """The mean of the tokens merged, within a twentieth of the merge distance."""
    groups = members(N, crowd.pairs)
    at = tree.at(crowd.t)
    for x, i in zip(crowd.x, crowd.ids, strict=True):
        there = at.x[at.labels[list(groups[i])]]
        assert np.linalg.norm(there.mean(axis=0) - x) < merge_distance(BETA) / 20


def test_late_merges_come_at_the_same_time(crowd, tree):
    """log T changes with the angle of two clusters by at most beta, and each moved by a twentieth."""
    rest = af.coalesce(af.Attention(BETA), crowd.x, weights=crowd.weights)
    late = rest.log10_times[np.asarray(rest.log10_times) > np.log10(crowd.t)]
    fine = np.asarray(tree.log10_times)[-3:]
    coarse = np.log10(10 ** np.asarray(late[-3:]) + crowd.t)
    assert fine[0] > np.log10(10 * crowd.t)
    atol = 2 * BETA * merge_distance(BETA) / 20 / np.log(10)
    np.testing.assert_allclose(coarse, fine, atol=atol)


def test_single_precision_keeps_the_times(x, crowd):
    narrow = condense(x.astype(np.float32), BETA, left=LEFT)
    assert narrow.x.dtype == np.float32
    np.testing.assert_allclose(narrow.t, crowd.t, rtol=1e-3)


def test_weights_stand_for_repeated_tokens(x):
    """Each token twice, or every token of twice the weight."""
    few = x[:40]
    twice = condense(np.concatenate([few, few]), BETA, left=5)
    once = condense(few, BETA, weights=np.full(40, 1 / 40), left=5)
    np.testing.assert_allclose(np.sort(twice.weights), np.sort(once.weights), rtol=1e-12)
    np.testing.assert_allclose(twice.t, once.t, rtol=0.05)


def test_a_state_that_lasts_is_left_to_coalesce():
    x = np.concatenate([np.eye(3), -np.eye(3)])
    crowd = condense(x, 20.0, left=2)
    assert len(crowd.x) == 6
    assert len(crowd.pairs) == 0


@pytest.mark.parametrize("pairs", [128, 1000, 2**22])
def test_close_pairs_are_the_single_linkage_in_any_blocks(monkeypatch, pairs):
    """A minimum spanning forest has the distances of single linkage; the padding counts for nothing."""
    x = af.sphere.uniform(jr.key(1), 64, 3)
    monkeypatch.setattr(crowd_module, "PAIRS", pairs)
    i, j, distance = crowd_module._close_pairs(x, 50, 0.3)
    kept = np.asarray(x)[:50]
    heights = linkage(kept, "single")[:, 2]
    np.testing.assert_allclose(distance, heights[heights <= 0.3], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(kept[i] - kept[j], axis=1), distance, rtol=1e-12)
