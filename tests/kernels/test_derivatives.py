"""Derivatives and batches of the exact kernel sum against one whole score matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attnflow.kernels import causal, dense, exclude_self, window

N, D, BETA = 23, 3, 4.0
WEIGHTS = jnp.asarray(0.2 + np.arange(N) % 4)


def tokens(seed):
    x = np.random.default_rng(seed).normal(size=(N, D))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def whole(q, k, v, beta, *, weights=None, mask=None, block=None):
    scores = beta * q @ k.T
    if weights is not None:
        scores += jnp.log(weights)[None, :]
    if mask is not None:
        scores = jnp.where(mask(*jnp.ogrid[:N, :N]), scores, -jnp.inf)
    return jax.nn.softmax(scores) @ v, jax.nn.logsumexp(scores, axis=1)


def readout(kernel_sum, same, mask=None):
    """A scalar of mean and log Z that no symmetry makes stationary."""
    k, v = tokens(1), tokens(2)

    def scalar(x, beta, weights):
        keys, values = (x, x) if same else (k * beta, v)
        mean, log_z = kernel_sum(x, keys, values, beta, weights=weights, mask=mask, block=5)
        return jnp.sum(jnp.sin(3 * mean)) + jnp.sum(log_z**2)

    return scalar


def assert_close(got, want):
    """Sums of at most 2 N^2 D terms, each read out with slopes below 100."""
    error = 2 * N**2 * D * 100 * jnp.finfo(float).eps
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=error, atol=error)


CASES = pytest.mark.parametrize(
    ("same", "mask", "beta"),
    [
        (True, None, BETA),
        (True, None, -200.0),
        (True, exclude_self, BETA),
        (True, causal, BETA),
        (True, window(3), BETA),
        (False, None, BETA),
    ],
    ids=["pairs", "rows take over", "mask", "causal", "window", "rows"],
)


@CASES
def test_derivatives_match_the_whole_matrix(same, mask, beta):
    at, along = (tokens(0), beta, WEIGHTS), (tokens(3), 1.0, WEIGHTS[::-1])

    def gradient_and_slope(f):
        return jax.jit(lambda *at: (jax.grad(f, argnums=(0, 1, 2))(*at), jax.jvp(f, at, along)))

    ours, plain = (gradient_and_slope(readout(f, same, mask))(*at) for f in (dense, whole))
    assert_close(ours, plain)


def along_gradient(f, at, along):
    return jax.jvp(jax.grad(f), at, along)[1]


def gradient_of_slope(f, at, along):
    return jax.grad(lambda x: jax.jvp(f, (x, *at[1:]), along)[1])(at[0])


def gradient_of_gradient(f, at, along):
    return jax.grad(lambda x, *rest: jnp.vdot(jax.grad(f)(x, *rest), along[0]))(*at)


@pytest.mark.parametrize("second", [along_gradient, gradient_of_slope, gradient_of_gradient])
def test_second_derivatives_in_every_order(second):
    at, along = (tokens(0), BETA, WEIGHTS), (tokens(3), 0.0, 0 * WEIGHTS)
    ours, plain = (readout(f, same=True) for f in (dense, whole))
    got, want = (jax.jit(lambda *at, f=f: second(f, at, along))(*at) for f in (ours, plain))
    assert_close(got, want)


def test_forward_over_reverse_hessian():
    at = (tokens(0)[:7], 2.0, WEIGHTS[:7])
    ours, plain = (readout(f, same=True) for f in (dense, whole))
    assert_close(*(jax.jit(jax.jacfwd(jax.grad(f)))(*at) for f in (ours, plain)))


@pytest.mark.parametrize("same", [True, False])
def test_derivatives_match_finite_differences(same):
    scalar = jax.jit(readout(dense, same))
    check_grads(scalar, (tokens(0), BETA, WEIGHTS), order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("block", [None, 5])
@pytest.mark.parametrize("mask", [None, exclude_self])
def test_a_weight_of_zero_has_the_slope_of_a_small_one(mask, block):
    r"""Its slope is $\partial \log Z_i / \partial w_j = e^{s_{ij}} / Z_i$, not 0."""
    x, weights = tokens(0), WEIGHTS.at[3].set(0.0)
    log_z = lambda w: dense(x, x, x, BETA, weights=w, mask=mask, block=block)[1]
    slope = jax.jacobian(log_z)(weights)[:, 3]
    want = jnp.exp(BETA * x @ x[3] - log_z(weights))
    want = want.at[3].set(want[3] if mask is None else 0.0)
    np.testing.assert_allclose(slope, want, rtol=1e-13)


@pytest.mark.parametrize("block", [None, 5])
@pytest.mark.parametrize("mask", [None, exclude_self])
def test_batches_over_systems_and_betas(mask, block):
    xs, betas = jnp.stack([tokens(seed) for seed in range(3)]), jnp.asarray([-90.0, 0.0, 9.0])

    def ours(x, beta):
        return dense(x, x, x, beta, mask=mask, block=block)

    def plain(x, beta):
        return whole(x, x, x, beta, mask=mask)

    def first_entry(f):
        return lambda x, beta: f(x, beta)[0][0, 0]

    for axes in ((0, 0), (None, 0)):
        at = tuple(a if axis == 0 else a[2] for a, axis in zip((xs, betas), axes, strict=True))
        values = [jax.jit(jax.vmap(f, axes)) for f in (ours, plain)]
        slopes = [jax.jit(jax.vmap(jax.grad(first_entry(f)), axes)) for f in (ours, plain)]
        assert_close(*(f(*at) for f in values))
        assert_close(*(f(*at) for f in slopes))
    grid = [jax.jit(jax.vmap(jax.vmap(f, (None, 0)), (0, None))) for f in (ours, plain)]
    assert_close(*(f(xs, betas) for f in grid))
    through = [
        jax.grad(lambda xs, f=f: jnp.sum(jax.vmap(f)(xs, betas)[0] ** 3)) for f in (ours, plain)
    ]
    assert_close(*(jax.jit(f)(xs) for f in through))
