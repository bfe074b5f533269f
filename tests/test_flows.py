"""Symmetries, invariants and gradient structure of the flows: theorems as tests."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnflow as af
from attnflow.observables import energy

N, D = 7, 3
WEIGHTS = jnp.arange(1.0, N + 1) / jnp.arange(1.0, N + 1).sum()
seeds = st.integers(0, 2**31 - 1)
betas = st.floats(-2, 8).filter(lambda beta: beta == 0 or abs(beta) > 1e-290)
"""Nearer to 0 than 1e-290, beta times a coordinate is subnormal: the energy's derivative loses digits."""
every_flow = pytest.mark.parametrize("name", af.FLOWS)


def flow_named(name, beta):
    return af.FLOWS[name]() if name in ("kuramoto", "hardmax") else af.FLOWS[name](beta)


@eqx.filter_jit
def velocity(flow, x, weights=WEIGHTS):
    """Velocities of tokens, and of their weights where these evolve."""
    if isinstance(flow, af.FisherRaoFlow):
        return flow(0.0, af.WeightedTokens(x, weights))
    return af.WeightedTokens(flow(0.0, x), 0 * weights)


def draw(seed, beta):
    """Tokens, a second key, and the scale of speeds: usa reaches e^beta."""
    key, other = jr.split(jr.key(seed))
    return af.sphere.uniform(key, N, D), other, np.exp(-max(beta, 0))


# -------------------------------------------------------------------------------------- symmetries


@every_flow
@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=betas)
def test_rotation_equivariance(name, seed, beta):
    x, key, scale = draw(seed, beta)
    rotation, _ = jnp.linalg.qr(jr.normal(key, (D, D)))
    here, there = (velocity(flow_named(name, beta), y) for y in (x, x @ rotation))
    np.testing.assert_allclose(scale * there.x, scale * here.x @ rotation, atol=1e-12)
    np.testing.assert_allclose(scale * there.weights, scale * here.weights, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(af.FLOWS) - {"causal"}))
@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=betas)
def test_permutation_equivariance(name, seed, beta):
    x, key, scale = draw(seed, beta)
    order = jr.permutation(key, N)
    flow = flow_named(name, beta)
    here, there = velocity(flow, x), velocity(flow, x[order], WEIGHTS[order])
    np.testing.assert_allclose(scale * there.x, scale * here.x[order], atol=1e-12)
    np.testing.assert_allclose(scale * there.weights, scale * here.weights[order], atol=1e-12)


def test_a_causal_mask_breaks_permutation_equivariance():
    x, _, _ = draw(0, 1.0)
    flow = af.causal(1.0)
    assert jnp.abs(flow(0.0, x[::-1]) - flow(0.0, x)[::-1]).max() > 0.1


@every_flow
def test_velocities_are_tangent_and_homogeneous(name):
    x, key, _ = draw(0, 2.0)
    radius = jr.uniform(key, (N, 1), minval=0.5, maxval=2.0)
    flow = flow_named(name, 2.0)
    v = velocity(flow, x).x
    np.testing.assert_allclose(jnp.sum(x * v, axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(velocity(flow, radius * x).x, radius * v, atol=1e-14)


@every_flow
def test_a_single_token_stays(name):
    x = af.sphere.uniform(jr.key(0), 1, D)
    v = velocity(flow_named(name, 3.0), x, jnp.ones(1))
    np.testing.assert_allclose(v.x, 0, atol=1e-14)
    np.testing.assert_allclose(v.weights, 0, atol=1e-14)


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_sa_and_usa_agree_at_beta_zero_only(beta):
    x, _, _ = draw(1, beta)
    kuramoto = af.sphere.project(x, x.mean(axis=0)[None])
    np.testing.assert_allclose(af.kuramoto()(0.0, x), kuramoto, atol=1e-15)
    for flow in (af.sa(beta), af.usa(beta)):
        assert np.allclose(flow(0.0, x), kuramoto, atol=1e-14) == (beta == 0)


@pytest.mark.parametrize("name", ["sa", "usa", "causal", "sinkhorn", "fisher-rao"])
def test_equal_tokens_never_part_and_subspaces_are_invariant(name):
    x, _, _ = draw(2, 3.0)
    flow = flow_named(name, 3.0)
    flat = af.sphere.normalize(x.at[:, 2].set(0.0).at[1].set(x[0].at[2].set(0.0)))
    v = velocity(flow, flat).x
    np.testing.assert_array_equal(v[:, 2], 0)
    if name != "causal":
        np.testing.assert_allclose(v[0], v[1], atol=1e-14)


@pytest.mark.parametrize("model", [af.sa, af.usa])
@pytest.mark.parametrize(
    "x",
    [
        af.sphere.equiangular(4, -1 / 3, d=3),
        af.sphere.polygon(5, 3),
        jnp.repeat(af.sphere.polygon(2, 3), jnp.array([3, 1]), axis=0),
        jnp.tile(af.sphere.polygon(1, 3), (4, 1)),
    ],
    ids=["simplex", "polygon", "antipodal", "consensus"],
)
def test_stationary_points(model, x):
    np.testing.assert_allclose(np.exp(-2.0) * model(2.0)(0.0, x), 0, atol=1e-15)


# ------------------------------------------------------------------------------ torque and the cone


def torque(x, v, weights=1.0):
    """Sum_i w_i (x_i ⊗ v_i - v_i ⊗ x_i)."""
    outer = jnp.einsum("ia,ib->ab", weights * x, v)
    return outer - outer.T


@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=betas)
def test_torque_identities(seed, beta):
    """Action and reaction: sums vanish for USA, and for SA once weighted by Z_i, but not without."""
    x, _, scale = draw(seed, beta)
    z = jnp.exp(af.Attention(beta).mean_and_log_z(x)[1])[:, None]
    np.testing.assert_allclose(scale * torque(x, af.usa(beta)(0.0, x)), 0, atol=1e-14)
    np.testing.assert_allclose(scale * torque(x, af.sa(beta)(0.0, x), z), 0, atol=1e-13)


def test_torque_of_sa_without_its_weights_does_not_vanish():
    x, _, _ = draw(0, 3.0)
    assert jnp.abs(torque(x, af.sa(3.0)(0.0, x))).max() > 1e-2


@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=st.floats(0, 8))
def test_the_innermost_token_of_a_cone_moves_inwards(seed, beta):
    """For V = I, any Q, K and any mask, min_i <x_i, w> is nondecreasing once it is >= 0."""
    key_x, key_q, key_k = jr.split(jr.key(seed), 3)
    x = af.sphere.hemisphere(key_x, N, D)
    q, k = jr.normal(key_q, (D, D)), jr.normal(key_k, (D, D))
    last = jnp.argmin(x[:, 0])
    for flow in (af.sa(beta, query=q, key=k), af.usa(beta), af.causal(beta, query=q, key=k)):
        assert velocity(flow, x).x[last, 0] >= -1e-14 * np.exp(beta)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=st.floats(0, 8))
def test_smallest_cosine_grows_at_least_as_fast_as_the_bound(seed, beta):
    r"""$\dot\alpha \ge (2/n) \alpha (1-\alpha) e^{-\beta(1-\alpha)}$ for SA when all cosines are >= 0."""
    x = af.sphere.normalize(1.5 * jnp.eye(D)[0] + af.sphere.uniform(jr.key(seed), N, D))
    gram = x @ x.T
    i, j = jnp.unravel_index(jnp.argmin(gram), gram.shape)
    alpha = float(gram[i, j])
    assert alpha > 0  # all within arcsin(2/3) of the first axis
    v = velocity(af.sa(beta), x).x
    bound = 2 / N * alpha * (1 - alpha) * np.exp(-beta * (1 - alpha))
    assert v[i] @ x[j] + x[i] @ v[j] >= bound - 1e-15


# -------------------------------------------------------------------------------- gradient structure


@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=betas)
def test_usa_is_gradient_ascent_of_the_energy(seed, beta):
    x, _, scale = draw(seed, beta)
    gradient = af.sphere.project(x, jax.grad(energy)(x, beta))
    np.testing.assert_allclose(scale * af.usa(beta)(0.0, x), scale * N * gradient, atol=1e-13)


@pytest.mark.parametrize("beta", [0.0, 2.0, -1.0])
@pytest.mark.parametrize("model", [af.sa, af.usa])
def test_energy_identities(model, beta):
    """dE/dt = (1/n) sum_i s_i |v_i|^2, s_i = 1 for USA and Z_i/n for SA; exactly, and by differences."""
    x, _, _ = draw(3, beta)
    v = model(beta)(0.0, x)
    z = jnp.exp(af.Attention(beta).mean_and_log_z(x)[1]) / N
    weight = z if model is af.sa else jnp.ones(N)
    expected = jnp.mean(weight * jnp.sum(v**2, axis=1))
    of = lambda x: energy(x, beta)
    np.testing.assert_allclose(jax.jvp(of, (x,), (v,))[1], expected, rtol=1e-9)
    # Centred differences along the geodesic: error h^2 E'''/6 + eps E/h, below 1e-9 at h = 1e-5.
    h = 1e-5
    difference = (of(af.sphere.exp(x, h * v)) - of(af.sphere.exp(x, -h * v))) / (2 * h)
    np.testing.assert_allclose(difference, expected, atol=1e-9)


def test_sa_is_the_gradient_of_the_log_density():
    """v_SA(x) = grad (1/beta) log sum_j e^(beta <x, x_j>), the tokens x_j held fixed."""
    x, _, _ = draw(4, 2.0)
    density = lambda y: jax.nn.logsumexp(2.0 * x @ y) / 2.0
    gradient = af.sphere.project(x, jax.vmap(jax.grad(density))(x))
    np.testing.assert_allclose(af.sa(2.0)(0.0, x), gradient, atol=1e-14)


@eqx.filter_jit
def energy_rate(x, b, beta, flow):
    """dE_B/dt along a flow, with E_B = sum_ij e^(beta <x_i, B x_j>)/(2 beta n^2)."""
    score_energy = lambda x: jnp.exp(beta * x @ b @ x.T).mean() / (2 * beta)
    return jax.jvp(score_energy, (x,), (flow(0.0, x),))[1]


def symmetric(key):
    b = jr.normal(key, (3, 3))
    return (b + b.T) / 2


def energy_rates(value_of, count=200):
    """Rates of E_B for SA with K = B random symmetric, Q = I, V = value_of(B)."""

    def rate(key):
        key_x, key_b = jr.split(key)
        x, b = af.sphere.uniform(key_x, 6, 3), symmetric(key_b)
        return energy_rate(x, b, 1.0, af.sa(1.0, key=b, value=value_of(b)))

    return jax.vmap(rate)(jr.split(jr.key(0), count))


@pytest.mark.parametrize("c", [0.5, 1.0, -1.0, -3.0])
def test_energy_is_monotone_for_values_aligned_with_the_scores(c):
    """V = cB: the sign of dE_B/dt is that of c, in each of 200 draws."""
    assert (np.sign(c) * energy_rates(lambda b: c * b) > 0).all()


def test_energy_is_not_monotone_for_other_values():
    """V = I and symmetric B: it falls in a good part of the draws (89 of 200 in THEORY 1.3)."""
    falling = float((energy_rates(lambda b: jnp.eye(3)) < 0).mean())
    assert 0.2 < falling < 0.6


def test_energy_is_not_monotone_under_a_causal_mask():
    """It falls for few uniform starts (3 of 500 in THEORY 1.3), and never without the mask."""
    starts = jax.vmap(lambda key: af.sphere.uniform(key, 6, 3))(jr.split(jr.key(0), 4000))
    rate = lambda flow: jax.vmap(lambda x: energy_rate(x, jnp.eye(3), 2.0, flow))(starts)
    falling = float((rate(af.causal(2.0)) < 0).mean())
    assert 0 < falling < 0.02
    assert (rate(af.sa(2.0)) >= 0).all()


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_unnormalized_heads_ascend_the_sum_of_their_energies(seed):
    """V_h = K_h = B_h symmetric: dE/dt = (1/n) sum |v_i|^2 with E = sum_h E_(B_h), beta = 1."""
    key, *keys = jr.split(jr.key(seed), 4)
    x, scores = af.sphere.uniform(key, 5, 3), jnp.stack([symmetric(key) for key in keys])
    heads = af.UnnormalizedAttention(jnp.ones(3), key=scores, value=scores)
    flow = af.Flow(af.MultiHead(heads))
    rate = sum(energy_rate(x, b, 1.0, flow) for b in scores)
    speed = jnp.mean(jnp.sum(velocity(flow, x).x ** 2, axis=1))
    np.testing.assert_allclose(rate, speed, rtol=1e-9)


# ----------------------------------------------------------------------------------- evolving weights


@settings(max_examples=25, deadline=None)
@given(seed=seeds, beta=betas.filter(lambda beta: abs(beta) > 1e-3), rate=st.floats(0, 3))
def test_fisher_rao_identity_and_conservation(seed, beta, rate):
    """dE/dt = sum_i w_i |v_i|^2 + a Var_w(U) and sum_i w_i stays 1."""
    x, key, scale = draw(seed, beta)
    w = jax.nn.softmax(jr.normal(key, (N,)))
    v = velocity(af.FisherRaoFlow(beta, rate), x, w)
    height = jnp.exp(beta * x @ x.T) @ w / beta
    variance = w @ (height - w @ height) ** 2
    expected = w @ jnp.sum(v.x**2, axis=1) + rate * variance
    of = lambda x, w: energy(x, beta, w)
    got = jax.jvp(of, (x, w), (v.x, v.weights))[1]
    np.testing.assert_allclose(scale**2 * got, scale**2 * expected, atol=1e-9)
    np.testing.assert_allclose(scale * v.weights.sum(), 0, atol=1e-14)


def test_fisher_rao_velocity_is_continuous_at_beta_zero():
    x, _, _ = draw(5, 0.0)
    at = velocity(af.FisherRaoFlow(0.0), x)
    assert jnp.abs(at.weights).max() > 1e-3
    for beta in (1e-6, 1e-7, 1e-12):
        near = velocity(af.FisherRaoFlow(beta), x)
        np.testing.assert_allclose(near.weights, at.weights, atol=beta + 1e-8)
