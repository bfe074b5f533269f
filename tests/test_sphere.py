"""Geometry to rounding, starts against their laws, and certificates that are checked as proofs."""

import itertools
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive

from attnflow import sphere

EPS = np.finfo(float).eps
seeds = st.integers(0, 2**31 - 1)
angles = st.floats(1e-12, math.pi - 1e-12)

# ---------------------------------------------------------------------------------------- geometry


def test_normalize_keeps_directions_and_gives_unit_length(key):
    x = 7.0 * jr.normal(key, (5, 4, 3))
    unit = sphere.normalize(x)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), 1, atol=4 * EPS)
    np.testing.assert_allclose(unit * jnp.linalg.norm(x, axis=-1, keepdims=True), x, rtol=1e-14)


def test_project_removes_the_radial_part_and_nothing_else(key):
    x, v = sphere.uniform(key, 6, 4), jr.normal(key, (6, 4))
    tangent = sphere.project(x, v)
    np.testing.assert_allclose(jnp.sum(x * tangent, axis=1), 0, atol=1e-15 * 4)
    np.testing.assert_allclose(jnp.linalg.matrix_rank(jnp.stack([v - tangent, x])[:, 0]), 1)
    np.testing.assert_allclose(sphere.project(x, tangent), tangent, atol=1e-15 * 4)


@settings(max_examples=50, deadline=None)
@given(seed=seeds, angle=angles)
def test_log_inverts_exp(seed, angle):
    """The angle is read from y, known to eps; the direction is amplified by 1/sin(angle)."""
    key_x, key_v = jr.split(jr.key(seed))
    x = sphere.uniform(key_x, 3, 4)
    v = angle * sphere.normalize(sphere.project(x, jr.normal(key_v, (3, 4))))
    y = sphere.exp(x, v)
    tolerance = 20 * EPS * (1 + angle / math.sin(angle))
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=1), 1, atol=10 * EPS)
    np.testing.assert_allclose(sphere.distance(x, y), angle, atol=20 * EPS)
    np.testing.assert_allclose(sphere.log(x, y), v, atol=tolerance)
    np.testing.assert_allclose(sphere.exp(x, sphere.log(x, y)), y, atol=tolerance)


@pytest.mark.parametrize("angle", [1e-100, 1e-12, 1e-8, 1e-4, 1.0])
def test_distance_is_exact_near_0_and_near_pi(angle):
    """Arccos of the cosine would keep 0 of 16 digits at 1e-8."""
    x = jnp.array([1.0, 0.0, 0.0])
    y = jnp.array([math.cos(angle), math.sin(angle), 0.0])
    assert abs(float(sphere.distance(x, y)) - angle) <= 1e-15 * angle
    assert abs(float(sphere.distance(x, -y)) - (math.pi - angle)) <= 1e-15 * math.pi


def test_distance_and_exp_have_gradients_at_zero_length():
    x = jnp.array([1.0, 0.0])
    np.testing.assert_array_equal(jax.grad(lambda y: sphere.distance(x, y))(x), [0, 0])
    np.testing.assert_allclose(jax.jacfwd(lambda v: sphere.exp(x, v))(0 * x)[1, 1], 1)


def test_log_of_equal_and_of_antipodal_vectors_is_zero():
    x = sphere.polygon(4)
    np.testing.assert_array_equal(sphere.log(x, x), 0)
    np.testing.assert_allclose(jnp.linalg.norm(sphere.log(x, -x), axis=1) % math.pi, 0, atol=1e-15)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_span_is_an_isometry(key, shape):
    x = sphere.uniform(key, *shape)
    coordinates, basis = sphere.span(x)
    assert coordinates.shape == (shape[0], min(shape))
    np.testing.assert_allclose(basis @ basis.T, jnp.eye(min(shape)), atol=1e-14)
    np.testing.assert_allclose(coordinates @ basis, x, atol=1e-14)
    np.testing.assert_allclose(coordinates @ coordinates.T, x @ x.T, atol=1e-14)


# ------------------------------------------------------------------------------------------ starts


@pytest.mark.parametrize("d", [2, 3, 8])
def test_uniform_tokens_have_the_moments_of_the_sphere(key, d):
    """E x = 0 and E x_a^2 = 1/d, within 4 standard errors; Var x_a^2 = 2 (d - 1)/(d^2 (d + 2))."""
    n = 4000
    x = sphere.uniform(key, n, d)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1, atol=4 * EPS)
    assert jnp.abs(x.mean(axis=0)).max() < 4 / math.sqrt(n * d)
    spread = math.sqrt(2 * (d - 1) / (d**2 * (d + 2)) / n)
    assert jnp.abs((x**2).mean(axis=0) - 1 / d).max() < 4 * spread


def test_hemisphere_tokens_see_the_first_axis_and_nothing_else(key):
    """Mean height of the half sphere S^2 is 1/2, variance 1/12."""
    x = sphere.hemisphere(key, 4000, 3)
    assert (x[:, 0] > 0).all()
    assert abs(x[:, 0].mean() - 0.5) < 4 / math.sqrt(12 * 4000)
    assert jnp.abs(x[:, 1:].mean(axis=0)).max() < 4 / math.sqrt(3 * 4000)


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("concentration", [0.0, 1.0, 30.0, 1e6])
def test_vmf_tokens_have_the_moments_of_the_law(key, d, concentration):
    """E t = A = I_(d/2)/I_(d/2-1) and E t^2 = 1 - (d - 1) A/c, from the samples' standard errors."""
    n = 4000
    mean = sphere.normalize(jnp.arange(1.0, d + 1))
    x = sphere.vmf(key, n, d, concentration=concentration, mean=mean)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=1), 1, atol=8 * EPS)
    first = concentration and ive(d / 2, concentration) / ive(d / 2 - 1, concentration)
    second = 1 - (d - 1) * first / concentration if concentration else 1 / d
    height = np.asarray(x @ mean)
    for sample, moment in ((1 - height, 1 - first), (1 - height**2, 1 - second)):
        stderr = sample.std(ddof=1) / math.sqrt(n)
        assert abs(sample.mean() - moment) < 4 * stderr + 8 * EPS
    tangent = np.asarray(sphere.project(mean[None], x)).mean(axis=0)
    assert np.abs(tangent).max() < 4 * math.sqrt((1 - second) / n)


def test_vmf_keeps_its_width_in_float32(key):
    """At c = 1e7, d = 3 the mean of 1 - t^2 = 2/c is 1.7 ulp: it must not come from 1 - t^2."""
    with jax.enable_x64(False):
        x = sphere.vmf(key, 4000, 3, concentration=1e7)
    width = np.asarray(x[:, 1:], float) ** 2
    assert x.dtype == jnp.float32
    assert abs(width.sum(axis=1).mean() * 1e7 / 2 - 1) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.3, 1 / 2, 0.999, 1.0])
def test_equiangular_tokens_have_one_cosine(n, share):
    lowest = -1 / (n - 1)
    rho = lowest + share * (1 - lowest)
    for d in (None, n + 3):
        x = sphere.equiangular(n, rho, d=d)
        gram = np.where(np.eye(n), 1, rho)
        assert x.shape == (n, d or n)
        np.testing.assert_allclose(x @ x.T, gram, atol=4e-15)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_simplex_fits_in_one_dimension_less(n):
    x = sphere.equiangular(n, -1 / (n - 1), d=n - 1)
    assert x.shape == (n, n - 1)
    np.testing.assert_allclose(x @ x.T, np.where(np.eye(n), 1, -1 / (n - 1)), atol=4e-15)


def test_equiangular_accepts_one_token_and_a_traced_cosine():
    assert sphere.equiangular(1, 0.5).shape == (1, 2)
    mean_of_pair = jax.vmap(lambda rho: (sphere.equiangular(2, rho)).sum(axis=0))
    rhos = jnp.array([-0.5, 0.0, 0.9])
    length = jnp.linalg.norm(mean_of_pair(rhos), axis=1)
    np.testing.assert_allclose(length, jnp.sqrt(2 + 2 * rhos), rtol=1e-14)


def test_clusters_have_the_asked_spread(key):
    """Tangent coordinates are N(0, spread^2): |v|^2/spread^2 is chi^2 with d - 1 degrees."""
    n, d, k, spread = 4000, 4, 5, 1e-3
    x = sphere.clusters(key, n, d, k=k, spread=spread)
    centres = sphere.clusters(key, k, d, k=k, spread=0.0)
    angle = np.asarray(sphere.distance(x, centres[jnp.arange(n) % k]))
    stderr = math.sqrt(2 * (d - 1) / n)
    assert abs((angle**2).mean() / spread**2 - (d - 1)) < 4 * stderr
    assert np.asarray(sphere.distance(centres[0], centres[1:])).min() > 0.05


@pytest.mark.parametrize("d", [2, 5])
def test_polygon_is_regular(d):
    x = sphere.polygon(6, d)
    np.testing.assert_allclose(x @ jnp.roll(x, 1, axis=0).T, (x @ x.T) @ jnp.roll(jnp.eye(6), 1, 1),
                               atol=1e-15)  # fmt: skip
    np.testing.assert_allclose(jnp.sum(x * jnp.roll(x, 1, axis=0), axis=1), 0.5, atol=1e-15)
    np.testing.assert_allclose(sphere.circle(jnp.arange(6) * jnp.pi / 3), x[:, :2], atol=4e-16)


# -------------------------------------------------------------------------------------- hemisphere


def check_certificate(x, answer):
    """What the answer claims, proved from its own numbers; an LP would find no better direction."""
    x = np.asarray(x)
    assert (answer.combination >= 0).all()
    np.testing.assert_allclose(answer.combination.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(answer.combination @ x), answer.residual, atol=1e-15)
    if answer.inside:
        np.testing.assert_allclose(np.linalg.norm(answer.direction), 1, rtol=1e-14)
        np.testing.assert_allclose((x @ answer.direction).min(), answer.margin, atol=1e-15)
        # Duality: every w has min <x_i, w> <= <p, w> <= |p|, so margin = |p| is the best.
        np.testing.assert_allclose(answer.margin, answer.residual, atol=1e-12)
    else:
        assert answer.residual < 1e-12
        assert answer.margin == 0
        assert not answer.direction.any()


@pytest.mark.parametrize(("n", "d"), [(1, 2), (6, 2), (6, 3), (12, 6), (40, 20)])
def test_hemisphere_certificate_is_a_proof(n, d):
    answers = []
    for seed in range(20):
        x = sphere.uniform(jr.key(seed), n, d)
        answers.append(answer := sphere.hemisphere_test(x))
        check_certificate(x, answer)
        if answer.inside:
            others = np.asarray(sphere.uniform(jr.key(seed + 100), 200, d))
            assert (np.asarray(x) @ others.T).min(axis=0).max() <= answer.margin + 1e-12
    if n == 2 * d:
        assert {answer.inside for answer in answers} == {True, False}


def test_hemisphere_frequency_follows_wendel():
    """P = 2^(1-n) sum_(k<d) C(n-1, k), a binomial frequency within 4 standard errors."""
    n, d, trials = 7, 3, 600
    starts = np.asarray(
        jax.vmap(lambda key: sphere.uniform(key, n, d))(jr.split(jr.key(1), trials))
    )
    inside = np.mean([sphere.hemisphere_test(x).inside for x in starts])
    expected = 2.0 ** (1 - n) * sum(math.comb(n - 1, k) for k in range(d))
    assert abs(inside - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


def test_hemisphere_boundary_cases():
    antipodal = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    assert not sphere.hemisphere_test(antipodal).inside
    assert not sphere.hemisphere_test(sphere.polygon(5)).inside
    assert not sphere.hemisphere_test(sphere.equiangular(4, -1 / 3)).inside
    close = sphere.hemisphere_test(sphere.circle(jnp.array([0.0, math.pi - 1e-6])))
    assert close.inside
    np.testing.assert_allclose(close.margin, math.sin(5e-7), rtol=1e-8)


@pytest.mark.parametrize("rho", [0.1, 0.9])
def test_hemisphere_margin_of_equiangular_tokens(rho):
    n = 6
    answer = sphere.hemisphere_test(sphere.equiangular(n, rho))
    np.testing.assert_allclose(answer.margin, math.sqrt((1 + (n - 1) * rho) / n), rtol=1e-13)
    np.testing.assert_allclose(answer.combination, 1 / n, rtol=1e-12)


def test_in_cap_is_the_event_of_every_token():
    x, w = sphere.polygon(4), jnp.array([1.0, 0.0])
    for cosine, count in itertools.product([-1.0, -0.1, 0.5], [1, 2, 4]):
        expected = all(float(c) >= cosine for c in x[:count] @ w)
        assert bool(sphere.in_cap(x[:count], w, cosine)) == expected


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: sphere.uniform(key, 3, 1), "`d` must be a whole number >= 2, but d=1"),
        (lambda key: sphere.uniform(key, 0, 3), "`n` must be a whole number >= 1, but n=0"),
        (lambda key: sphere.polygon(4, 1), "`d` must be a whole number >= 2"),
        (lambda key: sphere.equiangular(3, -0.6), "rho >= -0.5 and rho <= 1, but rho=-0.6. No n"),
        (lambda key: sphere.equiangular(3, math.nan), "but rho=nan"),
        (lambda key: sphere.equiangular(4, 0.5, d=3), "`d` must be a whole number >= 4, but d=3"),
        (lambda key: sphere.equiangular(2, -1.0, d=1), "`d` must be a whole number >= 2, but d=1"),
        (lambda key: sphere.vmf(key, 3, 3, concentration=-1.0), "concentration >= 0"),
        (lambda key: sphere.vmf(key, 3, 3, concentration=math.inf), "must be finite"),
        (
            lambda key: sphere.vmf(key, 3, 3, concentration=1.0, mean=jnp.array([1.0, 0.0])),
            r"`mean` must have shape \(3,\), but mean.shape=\(2,\)",
        ),
        (
            lambda key: sphere.vmf(key, 3, 2, concentration=1.0, mean=jnp.array([3.0, 4.0])),
            "`mean` must hold unit vectors",
        ),
        (
            lambda key: sphere.clusters(key, 5, 3, k=0, spread=0.1),
            "`k` must be a whole number >= 1",
        ),
        (
            lambda key: sphere.clusters(key, 5, 3, k=2, spread=-0.1),
            "spread <= 100, but spread=-0.1",
        ),
        (lambda key: sphere.hemisphere_test(2 * sphere.polygon(3)), "Pass `sphere.normalize"),
    ],
)
def test_bad_sizes_and_ranges_are_refused(call, message, key):
    with pytest.raises(ValueError, match=message):
        call(key)
