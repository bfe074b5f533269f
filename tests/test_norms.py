"""How a token moves, given what it sees: radii, directions and layers."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af


@pytest.fixture
def tokens(key):
    """Tokens of different radii, their directions, and attention vectors."""
    key_x, key_a = jr.split(key)
    x = jr.normal(key_x, (6, 3))
    return x, af.sphere.normalize(x), jr.normal(key_a, (6, 3))


def directions_moved(x, velocity):
    """Velocity of x/|x|, by forward-mode differentiation."""
    return jax.jvp(af.sphere.normalize, (x,), (velocity,))[1]


def test_post_ln_keeps_radii_and_turns_directions_by_the_projection(tokens):
    x, theta, a = tokens
    velocity = af.norms.post_ln(0.0, x, a)
    np.testing.assert_allclose(jnp.sum(x * velocity, axis=1), 0, atol=1e-14)
    expected = a - jnp.sum(theta * a, axis=1, keepdims=True) * theta
    np.testing.assert_allclose(directions_moved(x, velocity), expected, atol=1e-14)


def test_pre_ln_grows_radii_and_turns_directions_more_slowly(tokens):
    x, theta, a = tokens
    velocity = af.norms.pre_ln(0.0, x, a)
    radius = jnp.linalg.norm(x, axis=1, keepdims=True)
    growth = jax.jvp(lambda x: jnp.linalg.norm(x, axis=1), (x,), (velocity,))[1]
    np.testing.assert_allclose(growth, jnp.sum(theta * a, axis=1), atol=1e-14)
    expected = af.sphere.project(theta, a) / radius
    np.testing.assert_allclose(directions_moved(x, velocity), expected, atol=1e-14)


@pytest.mark.parametrize("name", af.NORMS)
def test_a_short_layer_is_an_euler_step_of_the_flow(name, tokens):
    """The layer map and the flow share their first-order term; central differences err by eta^2."""
    _, x, a = tokens
    norm, eta = af.NORMS[name], 1e-5
    slope = (norm.layer(0.0, x, a, eta) - norm.layer(0.0, x, a, -eta)) / (2 * eta)
    np.testing.assert_allclose(slope, norm(0.0, x, a), atol=20 * (eta**2 + 1e-16 / eta))


def test_layers_of_a_real_transformer(tokens):
    x, theta, a = tokens
    flow = af.Flow(lambda seen: a + 0 * seen, af.norms.pre_ln)
    np.testing.assert_allclose(flow.layer(0.0, x, 1.0), x + a, rtol=1e-14)
    post = af.Flow(lambda seen: a + 0 * seen)
    raw = np.asarray(theta + a)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(post.layer(0.0, theta, 1.0), expected, rtol=1e-14)


def test_attention_reads_directions_only(tokens):
    x, theta, _ = tokens
    seen = lambda flow, x: flow.attention(af.sphere.normalize(x))
    pre = af.sa(2.0, norm=af.norms.pre_ln)
    np.testing.assert_allclose(pre(0.0, x), seen(pre, theta), rtol=1e-13)
    post = af.sa(2.0)
    radius = jnp.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(post(0.0, x), radius * post(0.0, theta), atol=1e-14)


def test_a_plain_function_serves_as_a_norm_but_not_as_a_layer(tokens):
    _, theta, _ = tokens
    drifting = af.Flow(af.Attention(1.0), lambda t, x, a: t * a)
    np.testing.assert_allclose(drifting(2.0, theta), 2 * af.Attention(1.0)(theta), rtol=1e-13)
    assert not drifting.keeps_radius
    assert not drifting.isotropic
    with pytest.raises(ValueError, match="`norm` must be a `Norm` to run as layers"):
        drifting.layer(0.0, theta, 1.0)


def test_flags_of_flows():
    q = jnp.eye(3)
    assert af.sa(1.0).keeps_radius
    assert not af.sa(1.0, norm=af.norms.pre_ln).keeps_radius
    assert af.sa(1.0, norm=af.norms.pre_ln, value=-1.0).isotropic
    assert not af.sa(1.0, query=q).isotropic
    assert af.Flow(af.MultiHead([af.Attention(1.0), af.Attention(2.0)])).isotropic
    assert not af.Flow(
        af.MultiHead([af.Attention(1.0, value=q), af.Attention(1.0, value=2 * q)])
    ).isotropic
    assert not af.Flow(lambda x: x).isotropic
