"""Observables against closed forms, direct sums, and their limits."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import iv

import attnflow as af
from attnflow import observables
from attnflow.kernels import causal

EPS = np.finfo(float).eps
CONSENSUS = jnp.tile(jnp.array([0.6, 0.8, 0.0]), (5, 1))


@pytest.fixture
def x(key):
    return af.sphere.uniform(key, 9, 3)


def pairs(x):
    """Cosines of pairs i < j."""
    return np.asarray(x @ x.T)[np.triu_indices(len(x), 1)]


# ------------------------------------------------------------------------------------------ energy


@pytest.mark.parametrize("beta", [-2.0, 0.5, 3.0])
def test_energy_is_the_double_sum(x, beta):
    expected = np.exp(beta * np.asarray(x @ x.T)).mean()
    np.testing.assert_allclose(observables.energy(x, beta), expected / (2 * beta), rtol=1e-14)
    np.testing.assert_allclose(observables.log_energy(x, beta), np.log(expected), atol=1e-14)
    scaled = expected * np.exp(-beta)
    np.testing.assert_allclose(observables.scaled_energy(x, beta), scaled, rtol=1e-13)


def test_energy_of_uniform_and_of_consensus():
    """THEORY 1.3, beta = 3, d = 2: a 64-gon is uniform up to I_64(3) = 1e-78."""
    uniform = observables.energy(af.sphere.polygon(64), 3.0)
    np.testing.assert_allclose(uniform, iv(0, 3) / 6, rtol=1e-14)
    np.testing.assert_allclose(uniform, 0.81346543, atol=5e-9)
    np.testing.assert_allclose(observables.energy(CONSENSUS, 3.0), 3.34758949, atol=5e-9)


def test_weights_count_repeated_tokens_in_the_energy(key):
    pair = af.sphere.uniform(key, 2, 3)
    many, w = jnp.repeat(pair, jnp.array([8, 2]), axis=0), jnp.array([0.8, 0.2])
    for beta in (0.0, 2.0):
        weighted = observables.energy(pair, beta, w)
        np.testing.assert_allclose(observables.energy(many, beta), weighted, rtol=1e-14)
    np.testing.assert_allclose(
        observables.scaled_energy(many, 2.0), observables.scaled_energy(pair, 2.0, w), rtol=1e-13
    )


def test_energy_is_continuous_at_beta_zero(x):
    """E - 1/(2 beta) = |m|^2/2 + beta <G^2>/4 + ...; 1/(2 beta) costs eps/(2 beta) of rounding."""
    beta, gram = 1e-4, np.asarray(x @ x.T)
    limit = observables.energy(x, 0.0)
    np.testing.assert_allclose(limit, gram.mean() / 2, rtol=1e-13)
    first_order = beta * (gram**2).mean() / 4
    shifted = observables.energy(x, beta) - 1 / (2 * beta)
    np.testing.assert_allclose(shifted - limit, first_order, atol=beta**2 + EPS / beta)
    gradients = [jax.grad(observables.energy)(x, b) for b in (0.0, 1e-8)]
    np.testing.assert_allclose(*gradients, atol=2e-8)


def test_energy_on_a_plateau_counts_cluster_masses():
    """Scaled energy of clusters of masses .8, .2 at a right angle: .68 + .32 e^(-beta)."""
    x = jnp.eye(3)[jnp.array([0, 0, 0, 0, 1])]
    expected = 0.68 + 0.32 * math.exp(-9)
    np.testing.assert_allclose(observables.scaled_energy(x, 9.0), expected, rtol=1e-14)


def test_log_energy_does_not_overflow():
    np.testing.assert_allclose(observables.log_energy(CONSENSUS, 2000.0), 2000.0, rtol=1e-14)
    np.testing.assert_allclose(observables.scaled_energy(CONSENSUS, 2000.0), 1, rtol=1e-11)


# ---------------------------------------------------------------------------------- means of cosines


def test_order_parameter():
    np.testing.assert_allclose(observables.order_parameter(CONSENSUS), 1, rtol=1e-15)
    np.testing.assert_allclose(observables.order_parameter(af.sphere.polygon(7)), 0, atol=1e-15)
    x = af.sphere.equiangular(6, 0.3)
    np.testing.assert_allclose(observables.order_parameter(x), math.sqrt(2.5 / 6), rtol=1e-14)


def test_mean_cosine_and_its_gap(x):
    np.testing.assert_allclose(observables.mean_cosine(x), pairs(x).mean(), rtol=1e-12)
    np.testing.assert_allclose(observables.cosine_gap(x), 1 - pairs(x).mean(), rtol=1e-13)
    np.testing.assert_allclose(observables.mean_cosine(af.sphere.equiangular(5, -0.25)), -0.25)


@pytest.mark.parametrize("gap", [1e-2, 1e-14, 1e-20, 1e-28])
def test_cosine_gap_keeps_its_relative_accuracy(gap):
    """Tokens at angles eps i: 1 - rho is the mean of 2 sin^2(eps (i - j)/2) over pairs.

    On the axis each coordinate is exact to eps relative to itself; the rounding of the unit
    coordinate adds eps^2. At a generic angle a displacement is known to eps only.
    """
    n = 5
    i, j = np.triu_indices(n, 1)
    step = math.sqrt(gap / ((i - j) ** 2).mean() * 2)
    expected = (2 * np.sin(step * (i - j) / 2) ** 2).mean()
    on_axis = af.sphere.circle(step * jnp.arange(n))
    got = float(observables.cosine_gap(on_axis))
    assert abs(got / expected - 1) < 20 * EPS + 4 * EPS**2 / gap
    rotation = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    got = float(observables.cosine_gap(on_axis @ rotation))
    assert abs(got / expected - 1) < 4 * EPS / math.sqrt(gap) + 20 * EPS


def test_pair_fraction_counts_close_pairs():
    x = jnp.eye(3)[jnp.array([0, 0, 0, 1, 1])]
    assert observables.pair_fraction(x) == pytest.approx(0.4, rel=1e-15)
    assert observables.pair_fraction(CONSENSUS) == 1
    assert observables.pair_fraction(jnp.eye(3)) == 0
    near = af.sphere.circle(jnp.array([0.0, 0.1]))
    at = 1 - math.cos(0.1)
    assert observables.pair_fraction(near, at * 1.01) == 1
    assert observables.pair_fraction(near, at * 0.99) == 0


@pytest.mark.parametrize("bins", [1, 10])
def test_cosine_histogram_is_numpys(key, bins):
    x, edges = af.sphere.uniform(key, 40, 3), jnp.linspace(-1, 1, bins + 1)
    counts = observables.cosine_histogram(x, edges)
    expected = np.histogram(np.clip(pairs(x), -1, 1), np.asarray(edges))[0]
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == 40 * 39 / 2


def test_cosine_histogram_edges():
    """Left edges are closed, the last bin on both sides; what lies outside is not counted."""
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])  # -1, 0 thrice, 1, -1
    counts = observables.cosine_histogram(x, jnp.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(counts, [2, 4])
    np.testing.assert_array_equal(
        observables.cosine_histogram(x, jnp.array([-0.5, 0.5, 0.9])), [3, 0]
    )


def test_nearest_distance(x):
    np.testing.assert_allclose(
        observables.nearest_distance(x), np.arccos(pairs(x).max()), rtol=1e-12
    )
    close = af.sphere.circle(jnp.array([0.0, 1e-9, 2.0]))
    np.testing.assert_allclose(observables.nearest_distance(close), 1e-9, rtol=1e-14)


# ----------------------------------------------------------------------------------- rank and entropy


def test_effective_rank():
    np.testing.assert_allclose(observables.effective_rank(jnp.eye(6)[:4]), 4, rtol=1e-14)
    np.testing.assert_allclose(observables.effective_rank(CONSENSUS), 1, rtol=1e-13)
    unequal = jnp.eye(3)[jnp.array([0, 0, 0, 0, 1])]
    p = np.array([2.0, 1.0]) / 3  # singular values are roots of the counts
    expected = math.exp(-(p * np.log(p)).sum())
    np.testing.assert_allclose(observables.effective_rank(unequal), expected, rtol=1e-14)


def test_attention_entropy():
    """THEORY 7.5: n = 32, beta = 4, rho = .3 gives 2.88906410; consensus gives log n."""
    got = observables.attention_entropy(af.sphere.equiangular(32, 0.3), 4.0)
    np.testing.assert_allclose(got, 2.88906410, atol=5e-9)
    np.testing.assert_allclose(
        observables.attention_entropy(CONSENSUS, 4.0), math.log(5), rtol=1e-14
    )
    masked = observables.attention_entropy(CONSENSUS, 4.0, mask=causal)
    np.testing.assert_allclose(masked, np.log(np.arange(1, 6)), atol=1e-14)


def test_attention_entropy_is_the_direct_sum(x):
    p = np.exp(2 * np.asarray(x @ x.T))
    p /= p.sum(axis=1, keepdims=True)
    expected = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(observables.attention_entropy(x, 2.0), expected, rtol=1e-13)


# ---------------------------------------------------------------------------------------- in general


ALL = observables.OBSERVABLES | {
    "pair_fraction": partial(observables.pair_fraction, delta=0.5),
    "energy": partial(observables.energy, beta=2.0),
    "histogram": partial(observables.cosine_histogram, edges=jnp.linspace(-1, 1, 5)),
}


@pytest.mark.parametrize("name", ALL)
def test_observables_are_invariant_batched_and_narrow(name, x):
    """Rotations and permutations change nothing; float32 stays float32."""
    observe = jax.jit(ALL[name])
    rotation, _ = jnp.linalg.qr(jr.normal(jr.key(1), (3, 3)))
    moved = (x @ rotation)[::-1]
    expected = observe(x)
    np.testing.assert_allclose(observe(moved), expected, rtol=1e-12)
    batch = jax.vmap(ALL[name])(jnp.stack([x, moved]))
    np.testing.assert_allclose(batch[0], expected, rtol=1e-12)
    narrow = ALL[name](x.astype(jnp.float32))
    assert narrow.dtype == (expected.dtype if name == "histogram" else jnp.float32)
    np.testing.assert_allclose(narrow, expected, rtol=1e-5)


def test_observables_of_a_single_token():
    one = jnp.array([[1.0, 0.0]])
    values = {name: float(observe(one)) for name, observe in observables.OBSERVABLES.items()}
    assert values == {
        "mean_cosine": 1, "cosine_gap": 0, "order_parameter": 1, "effective_rank": 1,
        "pair_fraction": 1, "nearest_distance": math.pi, "mean_radius": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(observables.cosine_histogram(one, jnp.array([-1.0, 1.0])), [0])
    # log Z = 3 comes from log2 Z, rounded once at 4.3: one unit in the last place of that.
    np.testing.assert_allclose(observables.attention_entropy(one, 3.0), [0], atol=2**-50)
