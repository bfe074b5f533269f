"""Mean shift is attention: its weights, its gradient, its contraction, its climb to the modes."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow import mean_shift, sphere

N, D, BETA = 40, 3, 6.0
EPS = np.finfo(float).eps


@pytest.fixture
def x(key):
    return sphere.uniform(key, N, D)


@pytest.fixture
def weights(key):
    w = jr.uniform(jr.fold_in(key, 1), (N,), minval=0.1)
    return w / w.sum()


def gaussian_softmax(q, x, beta, weights=None):
    """Rows w_j e^(-beta |q - x_j|^2 / 2) over their sum, from the differences themselves."""
    distance = np.asarray(q)[:, None, :] - np.asarray(x)[None, :, :]
    kernel = np.exp(-beta * (distance**2).sum(axis=-1) / 2)
    kernel = kernel if weights is None else kernel * np.asarray(weights)[None, :]
    return kernel / kernel.sum(axis=1, keepdims=True)


def unit(y):
    return y / np.linalg.norm(y, axis=1, keepdims=True)


# ------------------------------------------------------------------------- weights, steps, gradient


def test_gaussian_weights_are_softmax_weights(x):
    """THEORY 6: on the sphere |x - y|^2 = 2 - 2 <x, y>; scores err by beta eps, weights by as much."""
    softmax = np.asarray(jax.nn.softmax(BETA * x @ x.T, axis=1))
    assert np.abs(softmax - gaussian_softmax(x, x, BETA)).max() < 2 * BETA * EPS


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("eta", [math.inf, 0.5])
def test_blur_is_a_weighted_mean_then_a_normalisation(x, weights, weighted, eta):
    w = weights if weighted else None
    mean = gaussian_softmax(x, x, BETA, w) @ np.asarray(x)
    expected = unit(mean if eta == math.inf else x + eta * mean)
    np.testing.assert_allclose(
        mean_shift.blur(x, BETA, weights=w, eta=eta), expected, atol=20 * BETA * EPS
    )


def test_steps_repeat(x):
    once = mean_shift.blur(mean_shift.blur(x, BETA), BETA)
    np.testing.assert_allclose(mean_shift.blur(x, BETA, steps=2), once, atol=4 * EPS)
    np.testing.assert_array_equal(mean_shift.blur(x, BETA, steps=0), x)


def test_a_step_with_residual_is_a_post_ln_layer(x):
    layer = af.sa(BETA).layer(0.0, x, 0.3)
    np.testing.assert_allclose(mean_shift.blur(x, BETA, eta=0.3), layer, atol=10 * EPS)


def test_small_steps_are_the_sa_flow(x):
    """Euler: (blur - x)/eta is the field up to c eta; halving eta twice gives order 1, within 0.05."""
    field = af.sa(BETA)(0.0, x)
    etas = np.array([1e-2, 5e-3, 2.5e-3])
    errors = [
        np.abs((mean_shift.blur(x, BETA, eta=eta) - x) / eta - field).max() for eta in etas.tolist()
    ]
    order = np.polyfit(np.log(etas), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.05
    assert errors[-1] < 0.01


def test_density_gradient_is_beta_times_the_sa_field(x, key):
    """THEORY 6, by central differences along a great circle: error h^2 |f'''| / 6 + eps / h."""
    direction = sphere.normalize(sphere.project(x, jr.normal(jr.fold_in(key, 2), x.shape)))
    h = 1e-5
    ahead, behind = (
        mean_shift.log_density(sphere.exp(x, s * h * direction), x, BETA) for s in (1, -1)
    )
    field = jnp.sum(af.sa(BETA)(0.0, x) * direction, axis=1)
    np.testing.assert_allclose(
        (ahead - behind) / (2 * h), BETA * field, atol=BETA**3 * h**2 + 10 * BETA * EPS / h
    )


def test_log_density_is_the_kernel_sum(x, weights):
    queries = sphere.uniform(jr.key(7), 5, D)
    kernel = np.exp(BETA * (np.asarray(queries @ x.T) - 1))
    np.testing.assert_allclose(
        mean_shift.log_density(queries, x, BETA), np.log(kernel.mean(axis=1)), rtol=1e-13
    )
    np.testing.assert_allclose(
        mean_shift.log_density(queries, x, BETA, weights=weights),
        np.log(kernel @ weights),
        rtol=1e-13,
    )


def test_weights_count_repeated_tokens(x):
    twice = jnp.concatenate([x, x[:10]])
    w = jnp.ones(N).at[:10].set(2.0) / (N + 10)
    np.testing.assert_allclose(
        mean_shift.blur(x, BETA, weights=w), mean_shift.blur(twice, BETA)[:N], atol=100 * EPS
    )


def test_a_token_without_direction_stays():
    """Between two antipodal keys of equal weight the mean vanishes: stationary, not NaN."""
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    end = mean_shift.ascend(jnp.array([[0.0, 1.0]]), x, BETA)
    np.testing.assert_array_equal(end.x, [[0.0, 1.0]])
    assert bool(end.converged[0])


# -------------------------------------------------------------------------------- the fixed density


def test_each_step_raises_the_density(x, weights):
    """The log-density is convex off the sphere: no step lowers it beyond its rounding, beta eps."""
    queries = sphere.uniform(jr.key(3), 30, D)
    heights = [mean_shift.log_density(queries, x, BETA, weights=weights)]
    for _ in range(12):
        queries = mean_shift.ascend(queries, x, BETA, weights=weights, max_steps=1).x
        heights.append(mean_shift.log_density(queries, x, BETA, weights=weights))
    rises = np.diff(np.asarray(heights), axis=0)
    assert rises.min() > -10 * BETA * EPS
    assert rises[0].min() > 1e-6


def test_queries_end_at_modes(x):
    """Within tol/sqrt(beta) of a zero of the gradient, so it is at most that times |Hessian| <= beta^2 + beta."""
    tol = 1e-6
    queries = sphere.uniform(jr.key(3), 30, D)
    end = mean_shift.ascend(queries, x, BETA, tol=tol)
    assert bool(end.converged.all())
    gradient = sphere.project(
        end.x, jax.grad(lambda q: mean_shift.log_density(q, x, BETA).sum())(end.x)
    )
    assert float(jnp.linalg.norm(gradient, axis=1).max()) < (BETA**2 + BETA) * tol / math.sqrt(BETA)
    around = sphere.normalize(end.x[:, None, :] + 0.05 * jr.normal(jr.key(4), (30, 20, D)))
    nearby = mean_shift.log_density(around.reshape(-1, D), x, BETA).reshape(30, 20)
    assert bool((nearby < mean_shift.log_density(end.x, x, BETA)[:, None]).all())


def test_the_distance_left_is_estimated(x):
    """A loose run ends within its tolerance of a tight run's mode, up to a factor 2 of the estimate."""
    queries = sphere.uniform(jr.key(3), 30, D)
    loose, tight = (mean_shift.ascend(queries, x, BETA, tol=tol) for tol in (1e-3, 1e-9))
    assert int(loose.steps.max()) < int(tight.steps.max())
    left = np.linalg.norm(loose.x - tight.x, axis=1)
    assert left.max() < 2 * 1e-3 / math.sqrt(BETA)


def test_queries_are_independent_of_their_block(x):
    """More queries than a block holds: each ends where it ends alone."""
    queries = sphere.uniform(jr.key(5), mean_shift.ROWS_PER_BLOCK + 3, D)
    together = mean_shift.ascend(queries, x, BETA)
    alone = mean_shift.ascend(queries[:1], x, BETA)
    np.testing.assert_array_equal(together.steps[:1], alone.steps)
    np.testing.assert_allclose(together.x[:1], alone.x, atol=1e-13)


def test_too_few_steps_are_reported(x):
    end = mean_shift.ascend(sphere.uniform(jr.key(3), 4, D), x, BETA, max_steps=2)
    assert not bool(end.converged.any())
    np.testing.assert_array_equal(end.steps, 2)


# ---------------------------------------------------------------------------------------------- R^d


def test_gaussian_cloud_contracts_by_its_variance_share():
    """THEORY 6: std shrinks by s^2/(s^2 + h^2), from a grid that integrates Gaussians exactly.

    Cloud times kernel is a Gaussian of width w = s h / sqrt(s^2 + h^2) = 0.37. The trapezoidal rule of
    step 0.2 errs by e^(-2 (pi w / 0.2)^2) = e^(-68) on it, and its ends, 10 w away, by e^(-50).
    """
    s, h = 0.8, 0.42
    line = jnp.arange(-20, 21) * 0.25 * s
    grid = jnp.stack([a.ravel() for a in jnp.meshgrid(line, line)], axis=1)
    w = jnp.exp(-jnp.sum(grid**2, axis=1) / (2 * s**2))
    inner = jnp.sum(grid**2, axis=1) < s**2
    blurred = mean_shift.gaussian_blur(grid, 1 / h**2, weights=w / w.sum())
    np.testing.assert_allclose(blurred[inner], s**2 / (s**2 + h**2) * grid[inner], atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_gaussian_blur_is_l2_attention(key, weights, shift):
    """Also for points far from the origin, whose coordinates keep 1e-10 of absolute accuracy."""
    x = shift + jr.normal(key, (N, D))
    w, beta = weights, 2.0
    mean = gaussian_softmax(x, x, beta, w) @ np.asarray(x - shift) + shift
    tolerance = 100 * EPS * (shift + 10)
    np.testing.assert_allclose(
        mean_shift.gaussian_blur(x, beta, weights=w), mean, rtol=0, atol=tolerance
    )
    relaxed = (np.asarray(x) + 0.5 * mean) / 1.5
    np.testing.assert_allclose(
        mean_shift.gaussian_blur(x, beta, weights=w, eta=0.5), relaxed, rtol=0, atol=tolerance
    )


def test_gaussian_queries_climb_to_modes(key):
    x = jnp.concatenate([jr.normal(key, (N, 2)), 8 + jr.normal(key, (N, 2))])
    beta, queries = 0.5, 10 * jr.uniform(key, (30, 2)) - 1
    heights, q = [mean_shift.gaussian_log_density(queries, x, beta)], queries
    for _ in range(5):
        q = mean_shift.gaussian_ascend(q, x, beta, max_steps=1).x
        heights.append(mean_shift.gaussian_log_density(q, x, beta))
    assert np.diff(np.asarray(heights), axis=0).min() > -1e3 * EPS
    end = mean_shift.gaussian_ascend(queries, x, beta)
    assert bool(end.converged.all())
    assert len(np.unique(np.round(np.asarray(end.x), 4), axis=0)) == 2
    kernel = np.exp(-beta * ((np.asarray(end.x)[:, None] - np.asarray(x)[None]) ** 2).sum(-1) / 2)
    density = mean_shift.gaussian_log_density(end.x, x, beta)
    np.testing.assert_allclose(density, np.log(kernel.mean(axis=1)), atol=1e-12)


def test_one_dimension_is_enough_for_points():
    x = jnp.array([[0.0], [0.1], [5.0]])
    end = mean_shift.gaussian_ascend(x, x, 4.0)
    np.testing.assert_allclose(end.x[:, 0], [0.05, 0.05, 5.0], atol=1e-6)


def test_a_small_cap_of_the_sphere_is_flat_space(key):
    """Tokens within r of the pole: the sphere's mean shift is that of R^2 up to r^2."""
    r = 1e-3
    flat = r * jr.uniform(key, (N, 2), minval=-1.0)
    x = sphere.normalize(jnp.concatenate([flat, jnp.ones((N, 1))], axis=1))
    beta = 4 / r**2
    curved = mean_shift.blur(x, beta)
    np.testing.assert_allclose(
        curved[:, :2] / curved[:, 2:], mean_shift.gaussian_blur(flat, beta), atol=20 * r**3
    )


# --------------------------------------------------------------------------------- dtypes, bad input


def test_float32_works_to_its_own_tolerance(x):
    queries = sphere.uniform(jr.key(3), 30, D)
    end = mean_shift.ascend(queries.astype(jnp.float32), x.astype(jnp.float32), BETA)
    assert end.x.dtype == jnp.float32
    assert bool(end.converged.all())
    tight = mean_shift.ascend(queries, x, BETA)
    assert np.linalg.norm(end.x - tight.x, axis=1).max() < 2 * 1e-3 / math.sqrt(BETA)
    assert mean_shift.blur(x.astype(jnp.float32), BETA).dtype == jnp.float32


def test_float32_stops_in_its_rounding(x):
    """A tolerance below rounding ends all the same, by steps that no longer mean anything."""
    end = mean_shift.ascend(x.astype(jnp.float32), x.astype(jnp.float32), BETA, tol=1e-12)
    assert bool(end.converged.all())


@pytest.mark.parametrize("beta", [1e4, 1e8])
def test_sharp_kernels_do_not_overflow(beta):
    """Tokens 0.15 apart are each alone in a kernel of width 0.01: e^(-115) from the nearest."""
    x = sphere.polygon(N, D)
    end = mean_shift.ascend(x, x, beta)
    np.testing.assert_allclose(end.x, x, atol=1e-12)
    flat = mean_shift.gaussian_ascend(x, x, beta)
    np.testing.assert_allclose(flat.x, x, atol=1e-12)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: mean_shift.blur(2 * x, 1.0), "`x` must hold unit vectors"),
        (lambda x: mean_shift.blur(x, 0.0), "`beta` must satisfy beta > 0"),
        (lambda x: mean_shift.blur(x, math.nan), "`beta` must be finite"),
        (lambda x: mean_shift.blur(x, 1.0, eta=0.0), "`eta` must satisfy eta > 0"),
        (lambda x: mean_shift.blur(x, 1.0, steps=-1), "`steps` must be a whole number >= 0"),
        (lambda x: mean_shift.blur(x, 1.0, weights=np.ones(N)), "`weights` must sum to 1"),
        (lambda x: mean_shift.ascend(x[:, :2], x, 1.0), "`queries` must hold unit vectors"),
        (lambda x: mean_shift.ascend(sphere.polygon(4), x, 1.0), r"`queries` must have shape \(4, 3\)"),
        (lambda x: mean_shift.ascend(x, x, 1.0, tol=0.0), "`tol` must satisfy tol > 0"),
        (lambda x: mean_shift.ascend(x, x, 1.0, max_steps=0), "`max_steps` must be a whole number"),
        (lambda x: mean_shift.gaussian_blur(x[0], 1.0), r"`x` must have shape \(n, d\)"),
        (lambda x: mean_shift.gaussian_blur(math.inf * x, 1.0), "`x` must be finite"),
        (lambda x: mean_shift.gaussian_ascend(x[:, :2], x, 1.0), r"`queries` must have shape \(40, 3\)"),
    ],
)  # fmt: skip
def test_bad_input(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)
