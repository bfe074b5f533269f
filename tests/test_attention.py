"""Attention rules against direct NumPy sums, their limits, and the ways they combine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.spatial import ConvexHull

import attnflow as af
from attnflow.kernels import causal, exclude_self, window

N, D = 7, 3
RULES = {
    "softmax": af.Attention,
    "unnormalized": af.UnnormalizedAttention,
    "sinkhorn": af.SinkhornAttention,
}


@pytest.fixture
def x(key):
    return af.sphere.uniform(key, N, D)


@pytest.fixture
def matrices(key):
    """Generic Q, K of height 2 and V, in order."""
    key_q, key_k, key_v = jr.split(key, 3)
    q, k, v = jr.normal(key_q, (2, D)), jr.normal(key_k, (2, D)), jr.normal(key_v, (D, D))
    return q, k, v


def softmax_matrix(x, beta, query=None, key=None, weights=None, seen=True):
    x = np.asarray(x)
    q, k = (x if m is None else x @ np.asarray(m).T for m in (query, key))
    kernel = np.exp(beta * q @ k.T) * seen * (1 if weights is None else np.asarray(weights))
    return kernel / kernel.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mask", [None, causal, exclude_self, window(2)])
def test_softmax_attention_is_the_direct_sum(x, matrices, mask):
    q, k, v = matrices
    seen = True if mask is None else mask(*np.ogrid[:N, :N])
    expected = softmax_matrix(x, 1.5, q, k, seen=seen) @ np.asarray(x @ v.T)
    np.testing.assert_allclose(af.QKVAttention(1.5, q, k, v, mask=mask)(x), expected, atol=1e-14)


def test_unnormalized_attention_is_the_direct_sum(x, matrices):
    q, k, v = map(np.asarray, matrices)
    kernel = np.exp(1.5 * (x @ q.T) @ (x @ k.T).T)
    physical = af.UnnormalizedAttention(1.5, *matrices)(x)
    np.testing.assert_allclose(physical, kernel @ (x @ v.T) / N, rtol=1e-12)
    rescaled = af.UnnormalizedAttention(1.5, *matrices, clock="rescaled")(x)
    np.testing.assert_allclose(rescaled, np.exp(-1.5) * physical, rtol=1e-14)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_number_is_that_multiple_of_the_identity(rule, x):
    """Symmetric and alternating Sinkhorn iterations are compared on the way."""
    eye = jnp.eye(D)
    by_number = rule(0.9, 1.3, 0.8, -2.0)(x)
    by_matrix = rule(0.9, 1.3 * eye, 0.8 * eye, -2.0 * eye)(x)
    np.testing.assert_allclose(by_number, by_matrix, rtol=1e-12)


@pytest.mark.parametrize("rule", [af.Attention, af.UnnormalizedAttention])
def test_weights_count_repeated_tokens(rule, key):
    """8 copies at u and 2 at v are the weights (.8, .2)."""
    pair = af.sphere.uniform(key, 2, D)
    many = jnp.repeat(pair, jnp.array([8, 2]), axis=0)
    weighted = rule(3.0, weights=jnp.array([0.8, 0.2]))(pair)
    np.testing.assert_allclose(rule(3.0)(many)[jnp.array([0, 9])], weighted, rtol=1e-13)


def test_a_mask_may_be_an_array(x):
    seen = causal(*np.ogrid[:N, :N])
    by_array = af.Attention(2.0, mask=jnp.asarray(seen))(x)
    np.testing.assert_array_equal(by_array, af.Attention(2.0, mask=causal)(x))
    np.testing.assert_allclose(by_array[0], x[0], atol=1e-15)


def test_log_z_is_the_log_partition(x):
    _, log_z = af.Attention(2.0).mean_and_log_z(x)
    np.testing.assert_allclose(log_z, np.log(np.exp(2 * x @ x.T).sum(axis=1)), rtol=1e-14)


@pytest.mark.parametrize("beta", [-1000.0, 1000.0])
def test_no_beta_overflows(x, beta):
    assert jnp.isfinite(af.Attention(beta)(x)).all()
    assert jnp.isfinite(af.UnnormalizedAttention(abs(beta), clock="rescaled")(x)).all()
    _, log_z = af.Attention(beta).mean_and_log_z(x)
    assert jnp.isfinite(log_z).all()


# --------------------------------------------------------------------------------------- many heads


def test_heads_add_or_average(x, matrices):
    q, k, v = matrices
    heads = [af.Attention(1.0, q, k, v), af.Attention(2.0, k, q, -v)]
    total = heads[0](x) + heads[1](x)
    np.testing.assert_allclose(af.MultiHead(heads)(x), total, rtol=1e-12)
    np.testing.assert_allclose(af.MultiHead(heads, "mean")(x), total / 2, rtol=1e-12)
    stacked = af.Attention(
        jnp.array([1.0, 2.0]), jnp.stack([q, k]), jnp.stack([k, q]), jnp.stack([v, -v])
    )
    np.testing.assert_allclose(af.MultiHead(stacked)(x), total, rtol=1e-12)


def test_numbers_are_shared_by_stacked_heads(x, matrices):
    v = jnp.stack([matrices[2], matrices[2].T])
    shared = af.MultiHead(af.Attention(2.0, value=v))(x)
    np.testing.assert_allclose(shared, sum(af.Attention(2.0, value=m)(x) for m in v), rtol=1e-12)


def test_heads_keep_their_own_weights_and_array_masks(x):
    first, last = np.eye(N)[0], np.eye(N)[-1]
    masks = [jnp.asarray(np.tri(N, dtype=bool)), jnp.asarray(np.tri(N, dtype=bool).T)]
    heads = [
        af.Attention(1.0, weights=jnp.asarray((w + 1 / N) / 2), mask=m)
        for w, m in zip((first, last), masks, strict=True)
    ]
    np.testing.assert_allclose(af.MultiHead(heads)(x), heads[0](x) + heads[1](x), rtol=1e-12)


def test_hardmax_heads_stack_too(x):
    heads = [af.HardmaxAttention(value=2.0), af.HardmaxAttention(value=-1.0)]
    np.testing.assert_allclose(af.MultiHead(heads)(x), af.HardmaxAttention()(x), rtol=1e-14)


def test_heads_of_different_kinds_are_refused():
    mixed = [
        [af.Attention(1.0), af.UnnormalizedAttention(1.0)],
        [af.Attention(1.0), af.Attention(1.0, mask=causal)],
        [af.Attention(1.0), af.Attention(1.0, value=jnp.eye(D))],
        [af.HardmaxAttention(), af.HardmaxAttention(include_self=True)],
    ]
    for heads in mixed:
        with pytest.raises(ValueError, match="`heads` must hold modules of one kind"):
            af.MultiHead(heads)
    with pytest.raises(ValueError, match=r"one leading axis.* lengths are \[2, 3\]"):
        af.MultiHead(af.Attention(jnp.ones(2), value=jnp.ones(3)))
    with pytest.raises(ValueError, match=r"lengths are \[\]. Pass a list"):
        af.MultiHead(af.Attention(1.0))


# ----------------------------------------------------------------------------------------- hardmax


def test_hardmax_sees_the_nearest_other_token(x):
    gram = np.asarray(x @ x.T) - 3 * np.eye(N)
    np.testing.assert_array_equal(af.HardmaxAttention()(x), x[gram.argmax(axis=1)])
    np.testing.assert_array_equal(
        af.HardmaxAttention(-1.0)(x), x[np.asarray(x @ x.T).argmin(axis=1)]
    )
    np.testing.assert_array_equal(af.HardmaxAttention(include_self=True)(x), x)


def test_hardmax_is_the_limit_of_softmax_without_self(x):
    """The weight of all other tokens is below n e^(-beta gap), gap between best and second."""
    scores = np.sort(np.asarray(x @ x.T) - 3 * np.eye(N), axis=1)
    gap = (scores[:, -1] - scores[:, -2]).min()
    beta = 40 / gap
    softmax = af.Attention(beta, mask=exclude_self)(x)
    np.testing.assert_allclose(softmax, af.HardmaxAttention()(x), atol=2 * N * np.exp(-beta * gap))


def test_hardmax_uses_queries_keys_and_values(x, matrices):
    q, k, v = matrices
    scores = np.asarray((x @ q.T) @ (x @ k.T).T) - 1e3 * np.eye(N)
    np.testing.assert_allclose(
        af.HardmaxAttention(q, k, v)(x), (x @ v.T)[scores.argmax(axis=1)], rtol=1e-14
    )


def test_frank_wolfe_leaves_the_self_maximising_hull_vertices():
    """THEORY 1.5: 15 Gaussian points whose 5 hull vertices attend to themselves end on those 5."""
    key = next(key for key in map(jr.key, range(1000)) if self_maximising_hull(key) == 5)
    start = points = jr.normal(key, (15, 2))
    attention = eqx.filter_jit(af.HardmaxAttention(include_self=True))
    for _ in range(200):
        points += 0.3 * (attention(points) - points)
    # (1 - gamma)^200 = 1e-31: what is left is rounding.
    assert len(np.unique(np.round(points, 12), axis=0)) == 5
    for vertex in ConvexHull(np.asarray(start)).vertices:
        np.testing.assert_array_equal(points[vertex], start[vertex])


def self_maximising_hull(key):
    """Number of hull vertices of 15 Gaussian points, or 0 if one attends to another token."""
    points = np.asarray(jr.normal(key, (15, 2)))
    vertices = ConvexHull(points).vertices
    chosen = (points @ points.T).argmax(axis=1)
    return len(vertices) if (chosen[vertices] == vertices).all() else 0


# ---------------------------------------------------------------------------------------- sinkhorn


@pytest.mark.parametrize("symmetric", [True, False])
def test_sinkhorn_rows_and_columns_sum_to_one(symmetric, key):
    """The matrix P is recovered from A = P X with X invertible, at the cost of its condition."""
    x = af.sphere.normalize(jnp.eye(5) + 0.1 * jr.normal(key, (5, 5)))
    query, key = (1.0, 1.0) if symmetric else 0.4 * jr.normal(key, (2, 5, 5))
    attention = af.SinkhornAttention(2.0, query, key, iterations=64 if symmetric else 200)
    plan = np.asarray(jnp.linalg.solve(x.T, attention(x).T).T)
    assert (plan > 0).all()
    np.testing.assert_allclose(plan.sum(axis=1), 1, atol=1e-13)
    np.testing.assert_allclose(plan.sum(axis=0), 1, atol=1e-13)
    if symmetric:
        np.testing.assert_allclose(plan, plan.T, atol=1e-13)
    # Scaling of rows and columns leaves the interactions log P_ij P_kl / (P_il P_kj) alone.
    scores = 2.0 * np.asarray((x if symmetric else x @ query.T) @ (x if symmetric else x @ key.T).T)
    doubly = lambda m: m - m.mean(axis=0) - m.mean(axis=1, keepdims=True) + m.mean()
    np.testing.assert_allclose(doubly(np.log(plan)), doubly(scores), atol=1e-11)


# ---------------------------------------------------------------------------------- dtypes, shapes


WIDE = {
    "softmax": lambda wide: af.Attention(wide, wide, wide, wide * jnp.eye(D)),
    "matrices": lambda wide: af.Attention(wide, wide * jnp.eye(D), wide * jnp.eye(D)),
    "weights": lambda wide: af.Attention(wide, weights=jnp.full(N, 1 / N)),
    "rescaled": lambda wide: af.UnnormalizedAttention(wide, clock="rescaled"),
    "weighted": lambda wide: af.UnnormalizedAttention(wide, weights=jnp.full(N, 1 / N)),
    "sinkhorn": lambda wide: af.SinkhornAttention(wide, value=wide),
    "heads": lambda wide: af.MultiHead([af.Attention(wide), af.Attention(2 * wide)]),
    "hardmax": lambda wide: af.HardmaxAttention(wide, value=wide * jnp.eye(D)),
}


@pytest.mark.parametrize("make", WIDE.values(), ids=WIDE)
def test_double_precision_parameters_do_not_widen_single_precision_tokens(make, x):
    wide = jnp.asarray(np.float64(1.5))
    assert not wide.weak_type
    assert make(wide)(x.astype(jnp.float32)).dtype == jnp.float32


def test_whole_numbers_are_accepted_as_beta(x):
    np.testing.assert_array_equal(af.Attention(2)(x), af.Attention(2.0)(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"value": jnp.eye(4)},
            r"`value` must be one number or have shape \(3, 3\), but value.shape",
        ),
        ({"query": jnp.ones((2, 3))}, r"`query` must .* shape \(3, 3\), but query.shape=\(2, 3\)"),
        ({"query": jnp.ones((2, 3)), "key": jnp.ones((4, 3))}, r"`query` must .* shape \(4, 3\)"),
        (
            {"weights": jnp.ones(4) / 4},
            r"`weights` must have shape \(7,\), but weights.shape=\(4,\)",
        ),
        ({"mask": jnp.ones((4, 4), bool)}, r"`mask` must have shape \(7, 7\)"),
    ],
)
def test_parameters_that_do_not_fit_the_tokens_are_refused(options, message, x):
    with pytest.raises(ValueError, match=message):
        af.Attention(1.0, **options)(x)


def test_beta_is_one_number_unless_mapped(x):
    betas = jnp.array([0.5, 2.0])
    with pytest.raises(ValueError, match=r"`beta` must be one number, but beta.shape=\(2,\)"):
        af.Attention(betas)(x)
    mapped = jax.vmap(lambda beta: af.Attention(beta)(x))(betas)
    np.testing.assert_allclose(mapped[1], af.Attention(2.0)(x), rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: af.Attention(np.nan), "`beta` must be finite, but beta=nan"),
        (lambda: af.UnnormalizedAttention(np.inf), "`beta` must be finite, but beta=inf"),
        (lambda: af.Attention(1.0, np.nan), "`query` must be finite"),
        (lambda: af.HardmaxAttention(value=np.nan), "`value` must be finite"),
        (lambda: af.Attention(1.0, weights=jnp.array([1.5, -0.5])), "weights >= 0"),
        (
            lambda: af.Attention(1.0, weights=jnp.array([1.0, 1.0])),
            "sum to 1, but its sum is 2. Pass",
        ),
        (
            lambda: af.SinkhornAttention(1.0, iterations=0),
            "`iterations` must be a whole number >= 1",
        ),
        (
            lambda: af.UnnormalizedAttention(1.0, clock="rescale"),
            "`clock` must be one of physical, rescaled, but clock='rescale'. Did you mean 'rescaled'",
        ),
        (lambda: af.MultiHead([af.Attention(1.0)], "maen"), "Did you mean 'mean'"),
        (lambda: af.MultiHead([]), r"`len\(heads\)` must be a whole number >= 1"),
    ],
)
def test_bad_parameters_are_refused(make, message, untyped):
    with pytest.raises(ValueError, match=message):
        make()
