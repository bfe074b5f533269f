"""The exact kernel sum against a direct sum in extended precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnflow.kernels import KERNEL_SUMS, causal, dense, exclude_self, window
from attnflow.kernels.fused import exp2
from attnflow.kernels.masks import reach

N, M, D, P = 43, 29, 3, 2
BETAS = [-1000.0, -9.0, 0.0, 1.0, 50.0, 1000.0, 1e6]


def reference(q, k, v, beta, weights=None, seen=None):
    """Mean and log Z, whole score matrix, in long double."""
    q, k, v = (np.asarray(a, np.longdouble) for a in (q, k, v))
    weights = np.ones(len(k)) if weights is None else np.asarray(weights, np.longdouble)
    scores = np.longdouble(beta) * (q @ k.T)
    counts = np.broadcast_to(weights > 0, scores.shape) & (True if seen is None else seen)
    top = np.where(counts, scores, -np.inf).max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    e = np.where(counts, weights * np.exp(np.where(counts, scores - top, 0)), 0)
    z = e.sum(axis=1)
    with np.errstate(divide="ignore"):
        return e @ v / np.where(z > 0, z, 1)[:, None], np.log(z) + top[:, 0]


def assert_matches(got, want, q, k, v, beta):
    """A score is off by (2d + 8) eps |beta| |q| |k| at most, a sum of m terms by m eps."""
    eps, (m, d) = jnp.finfo(got[0].dtype).eps, k.shape
    size = abs(beta) * np.linalg.norm(q, axis=1).max() * np.linalg.norm(k, axis=1).max()
    error = eps * (2 * (2 * d + 8) * size + 2 * m + 10)
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=error * abs(np.asarray(v)).max())
    np.testing.assert_allclose(got[1], want[1], rtol=2 * eps, atol=error)


def tokens(n, d=D, seed=0, dtype="float64"):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)


WEIGHTS = {
    "none": None,
    "some zero": np.where(np.arange(N) % 3 == 0, 0.0, 0.1 + np.arange(N)),
    "very unequal": 3 * 10.0 ** (-0.8 * np.arange(N)),
    "one": np.where(np.arange(N) == 5, 2.0, 0.0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", list(WEIGHTS))
@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("same", [True, False])
def test_dense_matches_the_direct_sum(same, block, weights, dtype):
    x, v = tokens(N, dtype=dtype), tokens(N, P, seed=1, dtype=dtype)
    k = x if same else x + 0
    w = None if WEIGHTS[weights] is None else jnp.asarray(WEIGHTS[weights], dtype)
    for beta in BETAS:
        got = dense(x, k, v, beta, weights=w, block=block)
        assert got[0].dtype == got[1].dtype == dtype
        assert_matches(got, reference(x, k, v, beta, w), x, k, v, beta)


@pytest.mark.parametrize("block", [None, 6])
@pytest.mark.parametrize("radii", [(0.5, 2), (0.01, 30)])
def test_tokens_of_any_norm(radii, block):
    x = tokens(N) * jnp.asarray(np.linspace(*radii, N))[:, None]
    for beta in BETAS:
        got = dense(x, x, x, beta, block=block)
        assert_matches(got, reference(x, x, x, beta), x, x, x, beta)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repulsion_in_a_cap(dtype):
    """All scores are near -|beta|, far from the bound +|beta|: factors of e^(-2 |beta|)."""
    x = tokens(N) * 0.1 + jnp.asarray([[0.0, 0.0, 1.0]])
    x = jnp.asarray(x / jnp.linalg.norm(x, axis=1, keepdims=True), dtype)
    for beta in (-10.0, -30.0, -100.0, -300.0, -1000.0):
        got = dense(x, x, x, beta, block=7)
        assert_matches(got, reference(x, x, x, beta), x, x, x, beta)


@pytest.mark.parametrize("block", [None, 7])
def test_more_queries_than_keys(block):
    q, k, v = tokens(N), tokens(M, seed=1), tokens(M, P, seed=2)
    for beta in BETAS:
        assert_matches(dense(q, k, v, beta, block=block), reference(q, k, v, beta), q, k, v, beta)


MASKS = {
    "causal": causal,
    "exclude self": exclude_self,
    "window": window(2),
    "array": np.random.default_rng(3).random((N, N)) < 0.3,
}


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("weights", ["none", "some zero"])
@pytest.mark.parametrize("mask", list(MASKS))
def test_masks(mask, weights, block):
    x, w, mask = tokens(N), WEIGHTS[weights], MASKS[mask]
    seen = mask(*np.ogrid[:N, :N]) if callable(mask) else mask
    w = None if w is None else jnp.asarray(w)
    for beta in BETAS:
        mask = mask if callable(mask) else jnp.asarray(mask)
        got = dense(x, x, x, beta, weights=w, mask=mask, block=block)
        assert_matches(got, reference(x, x, x, beta, w, seen), x, x, x, beta)


@pytest.mark.parametrize("block", [1, 4, 7])
@pytest.mark.parametrize("mask", ["causal", "window"])
@pytest.mark.parametrize(("n", "m"), [(N, M), (M, N)])
def test_masks_between_other_tokens(n, m, mask, block):
    q, k, v, mask = tokens(n), tokens(m, seed=1), tokens(m, P, seed=2), MASKS[mask]
    got = dense(q, k, v, 9.0, mask=mask, block=block)
    assert_matches(got, reference(q, k, v, 9.0, seen=mask(*np.ogrid[:n, :m])), q, k, v, 9.0)


def test_only_tokens_within_reach_are_scored():
    """Tokens out of reach may even be NaN: no block of rows has touched them."""
    x, late = tokens(N), np.arange(N)[:, None] >= 30
    poisoned = jnp.where(late, jnp.nan, x)
    for mask, below in ((causal, 24), (window(2), 27)):  # the last block of 3 rows below 30, less 2
        got = dense(x, poisoned, poisoned, 4.0, mask=mask, block=3)[0][:below]
        np.testing.assert_array_equal(got, dense(x, x + 0, x, 4.0, mask=mask, block=3)[0][:below])
    assert reach(causal) == (None, 0) and reach(window(2)) == (2, 2)
    assert reach(exclude_self) == reach(None) == (None, None)


def test_masks_say_who_sees_whom():
    i, j = np.ogrid[:4, :4]
    np.testing.assert_array_equal(causal(i, j), np.tri(4, dtype=bool))
    np.testing.assert_array_equal(exclude_self(i, j), ~np.eye(4, dtype=bool))
    np.testing.assert_array_equal(window(1)(i, j), np.tri(4, k=1) - np.tri(4, k=-2) == 1)
    assert window(1) is window(1)


@pytest.mark.parametrize("block", [None, 2])
def test_a_row_that_sees_nothing_is_zero_with_zero_gradient(block):
    x = tokens(5)
    mask = jnp.asarray(np.arange(5) != 2)[:, None] & jnp.ones((5, 5), bool)

    def third(x, weights):
        mean, log_z = dense(x, x, x, 4.0, weights=weights, mask=mask, block=block)
        return mean[2].sum() + jnp.where(jnp.isfinite(log_z), log_z, 0)[2]

    mean, log_z = dense(x, x, x, 4.0, mask=mask, block=block)
    assert not mean[2].any() and log_z[2] == -jnp.inf and jnp.isfinite(log_z).sum() == 4
    for gradient in jax.grad(third, argnums=(0, 1))(x, jnp.ones(5)):
        assert not gradient.any()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_power_of_two_is_right_to_one_unit(dtype, compiled):
    info = np.finfo(dtype)
    s = np.random.default_rng(0).uniform(info.minexp + 1, info.maxexp - 1, 10**5).astype(dtype)
    s = np.concatenate([s, s / 1000, np.arange(info.minexp, info.maxexp, dtype=dtype)])
    power = jax.jit(exp2) if compiled else exp2
    want = np.exp2(s.astype(np.longdouble))
    np.testing.assert_allclose(
        np.asarray(power(s), np.longdouble) / want, 1, rtol=0, atol=float(info.eps)
    )
    special = np.asarray([0, -1, info.minexp - 1, -1e4, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(power(special), np.asarray([1, 0.5, 0, 0, 0, np.nan], dtype))
    np.testing.assert_allclose(jax.grad(power)(dtype_of(3.0, dtype)), 8 * np.log(2), rtol=info.eps)


def dtype_of(value, dtype):
    return jnp.asarray(value, dtype)


def test_power_of_two_of_a_short_type():
    s = jnp.asarray([-1.5, 0.0, 3.0], jnp.bfloat16)
    np.testing.assert_array_equal(exp2(s), jnp.exp2(s.astype(float)).astype(jnp.bfloat16))


@pytest.mark.parametrize("case", ["pairs", "rows", "whole", "mask"])
def test_wide_exponents_cure_float32_at_large_beta(case):
    """Of tokens in a cap, with values of their own: terms are off by 1e-7 beta, or about 1e-7."""
    beta, n = 1000.0, 600
    x = tokens(n, dtype="float32") * 0.05 + jnp.asarray([[0.6, 0.0, 0.8]], "float32")
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    k = x if case == "pairs" else x + 0
    options = {"mask": causal if case == "mask" else None, "block": n if case == "whole" else 64}
    v = tokens(n, P, seed=1, dtype="float32")
    double = x.astype(float)
    want = dense(double, double, v.astype(float), beta, **options)
    plain, wide = (dense(x, k, v, beta, wide=wide, **options) for wide in (False, True))
    assert wide[0].dtype == wide[1].dtype == "float32"
    worst = [float(jnp.abs(got[0] - want[0]).max()) for got in (plain, wide)]
    eps = np.finfo("float32").eps
    assert worst[1] < 4 * eps and worst[1] < worst[0] / 50
    np.testing.assert_allclose(wide[1], want[1], rtol=eps)


def test_wide_exponents_have_derivatives():
    x = tokens(N)
    slopes = [
        jax.grad(lambda x, wide=wide: jnp.sum(jnp.sin(dense(x, x, x, 9.0, wide=wide)[0])))(at)
        for at, wide in ((x, False), (x.astype("float32"), True))
    ]
    np.testing.assert_allclose(*slopes, atol=1e-4)


def test_wide_exponents_need_float64(untyped):
    x = tokens(5, dtype="float32")
    with jax.enable_x64(False), pytest.raises(ValueError, match="`wide` must be False while"):
        dense(x, x, x, 1.0, wide=True)


@pytest.mark.parametrize("n", [1, 2, 3, 32])
@pytest.mark.parametrize("block", [None, 1])
def test_few_tokens(n, block):
    x = tokens(n)
    assert_matches(dense(x, x, x, 9.0, block=block), reference(x, x, x, 9.0), x, x, x, 9.0)


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("p", [1, 3, 4, 7, 8, 17])
def test_any_number_of_values(p, block):
    """They are multiplied in groups; each must come out in its place."""
    x, v = tokens(N), tokens(N, p, seed=1)
    for k in (x, x + 0):
        assert_matches(dense(x, k, v, 9.0, block=block), reference(x, k, v, 9.0), x, k, v, 9.0)


@pytest.mark.parametrize("block", [None, 7])
def test_no_values_give_log_z_only(block):
    x = tokens(N)
    mean, log_z = dense(x, x, x[:, :0], 9.0, block=block)
    assert mean.shape == (N, 0)
    np.testing.assert_allclose(log_z, dense(x, x, x, 9.0)[1], rtol=1e-14)


def test_block_sizes_chosen_for_many_tokens():
    """Default blocks, n divisible by none of them: whole rows of a long-double sum."""
    x = tokens(4099)
    mean, log_z = dense(x, x, x, 20.0)
    some = np.arange(0, 4099, 97)
    want = reference(x[some], x, x, 20.0)
    assert_matches((mean[some], log_z[some]), want, x, x, x, 20.0)
    copied = dense(x, x + 0, x, 20.0)
    assert_matches((copied[0][some], copied[1][some]), want, x, x, x, 20.0)


def test_the_mean_alone_under_jit():
    """Compilers fuse more when log Z is not asked for: the numbers stay."""
    x = tokens(N)
    for beta in BETAS:
        mean = jax.jit(lambda x, beta: dense(x, x, x, beta)[0])(x, beta)
        want = reference(x, x, x, beta)
        assert_matches((mean, jnp.asarray(want[1], float)), want, x, x, x, beta)


def test_a_second_call_compiles_nothing():
    compiled = []
    x = tokens(N)
    dense(x, x, x, 1.0, block=9)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event)
    )
    dense(x, x, x, 2.0, block=9)
    assert not compiled
    dense(x, x, x, 2.0, block=10)
    assert compiled
    jax.monitoring.clear_event_listeners()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": tokens(5, 4)}, "`k` must have shape"),
        ({"v": tokens(6)}, "`v` must have shape"),
        ({"weights": jnp.ones(4)}, "`weights` must have shape"),
        ({"mask": jnp.ones((5, 4), bool)}, "`mask` must have shape"),
        ({"block": 0}, "`block` must be a whole number >= 1"),
    ],
)
def test_shapes_that_disagree_are_named(change, match):
    x = tokens(5)
    with pytest.raises(ValueError, match=match):
        dense(**{"q": x, "k": x, "v": x, "beta": 1.0, **change})


def test_registry():
    assert KERNEL_SUMS["dense"] is dense
