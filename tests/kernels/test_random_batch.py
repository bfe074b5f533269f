"""Sums over random batches: unbiased, with errors that shrink as told and are told as they are."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from attnflow.flows import sa
from attnflow.kernels import causal, dense
from attnflow.kernels.random_batch import RandomBatch, random_batch

N, D, BETA, DRAWS = 120, 3, 1.0, 800
WEIGHTS = {"equal": None, "unequal": 0.1 + np.arange(N) % 7}


def tokens(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def estimates(batch, k, weights, draws=DRAWS, x=None):
    """Sums and their standard errors of many seeds, with a leading axis."""
    x = tokens(N) if x is None else x
    k = x if k is None else k
    sums = [RandomBatch(seed, batch) for seed in range(draws)]
    both = [
        (f(x, k, k, BETA, weights=weights), f.standard_errors(x, k, k, BETA, weights=weights))
        for f in sums
    ]
    return jax.tree.map(lambda *a: np.stack(a), *both)


def mean_error(samples):
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize("keys", ["own", "others"])
def test_both_sums_are_unbiased(keys, weights):
    """Within 4.5 standard errors each: 1 of 300 sets of 480 would be outside by chance."""
    weights = None if WEIGHTS[weights] is None else jnp.asarray(WEIGHTS[weights])
    x, k = tokens(N), None if keys == "own" else tokens(50, seed=1)
    if k is not None and weights is not None:
        weights = weights[:50]
    (mean, log_z), _ = estimates(7, k, weights)
    z = np.exp(log_z)
    exact_mean, exact_log_z = dense(
        x, x if k is None else k, x if k is None else k, BETA, weights=weights
    )
    for samples, exact in (
        (z, np.exp(exact_log_z)),
        (z[..., None] * mean, np.exp(exact_log_z)[:, None] * exact_mean),
    ):
        assert (abs(samples.mean(axis=0) - exact) < 4.5 * mean_error(samples)).all()


def test_errors_shrink_as_the_root_of_the_batch():
    """So do the reported ones; the factor sqrt(1 - p/n), 0.97 at most, adds -0.014 to the slope."""
    x, batches = tokens(1024), np.array([8, 16, 32, 64])
    exact = dense(x, x, x, BETA)
    errors, told = [], []
    for batch in batches.tolist():
        (mean, log_z), (mean_se, log_z_se) = estimates(batch, None, None, draws=40, x=x)
        errors.append(
            [np.sqrt(((a - b) ** 2).mean()) for a, b in zip((mean, log_z), exact, strict=True)]
        )
        told.append([np.sqrt((a**2).mean()) for a in (mean_se, log_z_se)])
    for sizes in (errors, told):
        slopes = np.polyfit(np.log(batches), np.log(sizes), 1)[0]
        np.testing.assert_allclose(slopes, -0.5, atol=0.05)


@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize("keys", ["own", "others"])
def test_reported_errors_are_calibrated(keys, weights):
    """(estimate - exact) / error has the mean square of Student's law, to order 1/batch.

    That order, 0.025, and 2 standard errors of the mean square, 0.04: 800 draws of 3 blocks, whose
    rows move together. The factor 1 - p/n left out would give 1.5.
    """
    batch, weights = 40, WEIGHTS[weights]
    weights = None if weights is None else jnp.asarray(weights)
    x, k = tokens(N), None if keys == "own" else tokens(N, seed=1)
    got, told = estimates(batch, k, weights)
    exact = dense(x, x if k is None else k, x if k is None else k, BETA, weights=weights)
    for estimate, error, true in zip(got, told, exact, strict=True):
        square = (((estimate - true) / error) ** 2).mean()
        assert abs(square - (batch - 1) / (batch - 3)) < 0.065


def test_all_tokens_are_exact():
    x, k, v = tokens(N), tokens(50, seed=1), tokens(50, seed=2)
    for args in ((x, x, x), (x, k, v)):
        for batch in (len(args[1]), 1000):
            f = random_batch(jr.key(1), batch)
            for got, want in zip(f(*args, 50.0), dense(*args, 50.0), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
            assert not any(error.any() for error in f.standard_errors(*args, 50.0))


@pytest.mark.parametrize("weights", list(WEIGHTS))
def test_the_own_term_is_exact(weights):
    """Tokens far apart (here on a circle) see only themselves, whatever is drawn."""
    weights = None if WEIGHTS[weights] is None else jnp.asarray(WEIGHTS[weights])
    angles = 2 * np.pi * np.arange(N) / N
    x = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    for beta in (1e5, 1e6):
        got = random_batch(jr.key(0), 5)(x, x, x, beta, weights=weights)
        want = dense(x, x, x, beta, weights=weights)
        np.testing.assert_allclose(got[0], want[0], atol=1e-10)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-14)


def test_tokens_without_weight_count_for_nothing():
    x, weights = tokens(N), jnp.asarray(np.arange(N) % 2, float)
    poisoned = jnp.where(weights[:, None] > 0, x, 1e9)
    f = random_batch(jr.key(0), 9)
    clean, got = (f(x, x + 0, v, BETA, weights=weights) for v in (x, poisoned))
    np.testing.assert_array_equal(got[0], clean[0])


def test_batches_are_drawn_anew_for_every_q_and_are_reproducible():
    x, y = tokens(N), tokens(N).at[-1].multiply(1 + 1e-15)
    fresh, fixed = random_batch(jr.key(3), 6), random_batch(jr.key(3), 6, fixed=True)
    assert fresh == random_batch(jr.key(3), 6) and hash(fresh) == hash(random_batch(jr.key(3), 6))
    assert fresh != random_batch(jr.key(4), 6)
    log_z = lambda f, x: f(x, x, x, BETA)[1][:-1]
    np.testing.assert_array_equal(log_z(fresh, x), log_z(fresh, x))
    assert (log_z(fresh, x) != log_z(fresh, y)).mean() > 0.9
    np.testing.assert_allclose(log_z(fixed, x), log_z(fixed, y), rtol=1e-13)
    half = x.astype("float32")
    assert random_batch(jr.key(3), 6)(half, half, half, BETA)[0].dtype == "float32"


def test_blocks_of_rows_have_batches_of_their_own():
    """Equal queries differ between blocks, and agree inside one."""
    q, k = jnp.tile(tokens(1), (12, 1)), tokens(N)
    log_z = random_batch(jr.key(0), 5)(q, k, k, BETA, block=4)[1].reshape(3, 4)
    assert (log_z == log_z[:, :1]).all() and len(np.unique(log_z)) == 3


@pytest.mark.parametrize("weights", list(WEIGHTS))
def test_gradients_are_unbiased(weights):
    x = tokens(20)
    weights = jnp.ones(20) if WEIGHTS[weights] is None else jnp.asarray(1.0 + np.arange(20) % 3)

    def total(kernel_sum, x, weights):
        return jnp.sum(jnp.exp(kernel_sum(x, x, x, BETA, weights=weights)[1]))

    slope = lambda f: jax.grad(partial(total, f), argnums=(0, 1))(x, weights)
    draws = jax.tree.map(lambda *a: np.stack(a), *[slope(RandomBatch(s, 6)) for s in range(500)])
    for samples, exact in zip(draws, slope(dense), strict=True):
        assert (abs(samples.mean(axis=0) - exact) < 4.5 * mean_error(samples)).all()


def test_systems_and_betas_are_mapped():
    xs, betas = jnp.stack([tokens(N), tokens(N, seed=1)]), jnp.asarray([1.0, 9.0])
    f = random_batch(jr.key(0), 8)
    run = lambda x, beta: f(x, x, x, beta)
    mapped = jax.vmap(run)(xs, betas)
    for index in range(2):
        for got, want in zip(mapped, run(xs[index], betas[index]), strict=True):
            np.testing.assert_allclose(got[index], want, rtol=1e-12)


def test_a_flow_sums_over_batches():
    x = tokens(N)
    flow = sa(BETA, kernel_sum=random_batch(jr.key(0), N))
    np.testing.assert_allclose(flow(0.0, x), sa(BETA)(0.0, x), atol=1e-12)


def test_a_second_call_compiles_nothing():
    compiled = []
    x = tokens(31)
    random_batch(jr.key(0), 4)(x, x, x, 1.0)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event)
    )
    random_batch(jr.key(1), 4)(x, x, x, 2.0)
    jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "backend_compile" in event]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch": 0}, "`batch` must be a whole number >= 1, but"),
        ({"batch": 2.5}, "`batch` must be a whole number >= 1, but"),
        ({"mask": causal}, "`mask` must be None .* mask=causal. Use"),
        ({"k": jnp.ones((5, 4))}, "`k` must have shape"),
        ({"weights": jnp.ones(4)}, "`weights` must have shape"),
        ({"block": 0}, "`block` must be a whole number"),
    ],
)
def test_bad_input_is_named(change, match):
    x = tokens(5)
    arguments = {"q": x, "k": x, "v": x, "beta": 1.0, "batch": 4, **change}
    with pytest.raises(ValueError, match=match):
        random_batch(jr.key(0), arguments.pop("batch"))(**arguments)
