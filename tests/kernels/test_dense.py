"""The exact kernel sum against a direct NumPy reference."""

import jax.numpy as jnp
import numpy as np
import pytest

from attnflow.kernels import causal, dense, exclude_self, window


def reference(q, k, v, beta, weights=None, seen=None):
    scores = beta * (np.asarray(q) @ np.asarray(k).T)
    scores = scores + np.log(np.ones(len(k)) if weights is None else weights)
    scores = np.where(True if seen is None else seen, scores, -np.inf)
    top = scores.max(axis=1, keepdims=True)
    e = np.exp(scores - top)
    return e @ np.asarray(v) / e.sum(axis=1, keepdims=True), np.log(e.sum(axis=1)) + top[:, 0]


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("mask", [None, causal, exclude_self, window(3)])
@pytest.mark.parametrize("beta", [-9.0, 0.0, 50.0, 1000.0])
def test_dense_matches_the_direct_sum(beta, mask, block):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    weights = rng.uniform(0.1, 2, 40)
    seen = None if mask is None else mask(*np.ogrid[:40, :40])
    got = dense(x, x, x, beta, weights=jnp.asarray(weights), mask=mask, block=block)
    want = reference(x, x, x, beta, weights, seen)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
