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
    slope = (norm.step(0.0, x, a, eta) - norm.step(0.0, x, a, -eta)) / (2 * eta)
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


# ------------------------------------------------------------------------------------- THEORY 8: schemes

SCHEMES = {
    "post": (af.norms.post_ln, 1.0),
    "pre": (af.norms.pre_ln, 1.7),
    "peri": (af.norms.peri_ln, 1.7),
    "ngpt": (af.norms.ngpt(lambda t: 0.8 / jnp.sqrt(1 + t)), 1.0),
    "sqrt": (af.norms.sqrt_scaling, 1.0),
    "ln-scaling": (af.norms.ln_scaling, 1.7),
}
"""Scheme and initial radius, as in the table of THEORY 8.2."""


@pytest.mark.parametrize(
    ("name", "cosine", "radius"),
    [
        ("post", 0.977715837, 1.0),
        ("pre", 0.298535889, 4.487566175),
        ("peri", 0.394410977, 5.509908826),
        ("ngpt", 0.750754044, 1.0),
        ("sqrt", 0.698000833, 1.0),
        ("ln-scaling", 0.202248714, 3.445528075),
    ],
)
def test_equiangular_tokens_at_t_4(name, cosine, radius):
    """THEORY 8.2, printed to 9 digits; rtol 1e-12 leaves the rest."""
    norm, start = SCHEMES[name]
    x0 = start * af.sphere.equiangular(8, 0.05)
    run = af.solve(af.sa(3.0, norm=norm), x0, jnp.array([0.0, 4.0]), rtol=1e-12, atol=1e-13)
    x = np.asarray(run.x_end)
    radii = np.linalg.norm(x, axis=1)
    theta = x / radii[:, None]
    np.testing.assert_allclose((theta @ theta.T)[~np.eye(8, dtype=bool)], cosine, atol=1e-9)
    np.testing.assert_allclose(radii, radius, atol=1e-9)


@pytest.mark.parametrize(
    ("norm", "start", "cosine", "radius"),
    [
        (af.norms.post_ln, 1.0, 0.283433106795, 1.0),
        (af.norms.pre_ln, 1.4, 0.262052717750, 1.581732916312),
        (af.norms.peri_ln, 1.4, 0.289015626118, 1.675922644342),
        (af.norms.ngpt(0.7), 1.0, 0.306558432759, 1.0),
        (af.norms.sqrt_scaling, 1.0, 0.283433106795, 1.0),
        (af.norms.ln_scaling, 1.4, 0.262052717750, 1.581732916312),
    ],
)
def test_one_layer_of_equiangular_tokens(norm, start, cosine, radius):
    """THEORY 8.4, printed to 12 digits; the scaled schemes start as Post- and Pre-LN do."""
    x = af.sa(2.0, norm=norm).layer(0.0, start * af.sphere.equiangular(6, 0.2), 0.3)
    radii = np.linalg.norm(x, axis=1)
    theta = np.asarray(x) / radii[:, None]
    np.testing.assert_allclose((theta @ theta.T)[~np.eye(6, dtype=bool)], cosine, atol=1e-12)
    np.testing.assert_allclose(radii, radius, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 3.0])
def test_depth_scaling_divides_velocity_and_layer_by_the_root_of_depth(tokens, t):
    _, x, a = tokens
    for scaled, plain in (
        (af.norms.sqrt_scaling, af.norms.post_ln),
        (af.norms.ln_scaling, af.norms.pre_ln),
    ):
        slower = a / np.sqrt(t + 1)
        np.testing.assert_allclose(scaled(t, x, a), plain(t, x, slower), rtol=1e-13, atol=1e-15)
        layer = plain.step(t, x, slower, 0.5)
        np.testing.assert_allclose(scaled.step(t, x, a, 0.5), layer, rtol=1e-13)


@pytest.mark.parametrize("norm", [af.norms.peri_ln, af.norms.ngpt(0.5)])
def test_the_length_of_attention_is_lost_and_zero_moves_nothing(tokens, norm):
    _, x, a = tokens
    np.testing.assert_allclose(norm(0.0, x, 7 * a), norm(0.0, x, a), atol=1e-15)
    seen = a.at[2].set(0.0)
    assert (norm(0.0, x, seen)[2] == 0).all()
    gradient = jax.grad(lambda seen: norm(0.0, x, seen).sum())(seen)
    assert jnp.isfinite(gradient).all()


def test_ngpt_takes_a_number_a_batch_or_a_function_of_time(tokens):
    _, x, a = tokens
    speed = lambda alpha: af.norms.ngpt(alpha)(3.0, x, a)
    np.testing.assert_allclose(speed(0.5), 0.5 * speed(1.0), rtol=1e-14)
    np.testing.assert_allclose(speed(lambda t: 0.1 * t), speed(0.1 * 3.0), rtol=1e-14)
    batch = jax.vmap(speed)(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(batch[1], speed(2.0), rtol=1e-14)
    assert speed(0.5).dtype == x.dtype
    narrow = af.norms.ngpt(0.5)(3.0, x.astype(jnp.float32), a.astype(jnp.float32))
    assert narrow.dtype == jnp.float32
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`alpha`"):
            af.norms.ngpt(bad)


@pytest.mark.parametrize("name", af.NORMS)
def test_every_scheme_goes_with_every_attention(name):
    """Fields stay finite, and those that keep radii are tangent."""
    x = af.sphere.uniform(jr.key(1), 5, 3)
    norm = af.NORMS[name]
    for flow in (af.sa, af.usa, af.causal, af.sinkhorn):
        v = flow(2.0, norm=norm)(0.5, x)
        assert jnp.isfinite(v).all()
        if norm.keeps_radius:
            np.testing.assert_allclose(jnp.sum(v * x, axis=1), 0, atol=1e-14)


# ------------------------------------------------------------------- Mix-LN, No-LN and the speed factor


def test_mix_ln_is_post_ln_and_then_pre_ln(tokens):
    _, x, a = tokens
    mix = af.norms.mix_ln(2.0)
    np.testing.assert_array_equal(mix(1.9, x, a), af.norms.post_ln(1.9, x, a))
    np.testing.assert_array_equal(mix(2.1, x, a), af.norms.pre_ln(2.1, x, a))
    layers = lambda norm, t: norm.step(t, x, a, 0.1)
    for layer in range(40):
        t = np.float64(0.0)
        for _ in range(layer):
            t = t + 0.1  # rounds past 2.0 and below it
        kind = af.norms.post_ln if layer < 20 else af.norms.pre_ln
        np.testing.assert_array_equal(layers(mix, t), layers(kind, t))


def test_mix_ln_at_t_4():
    """THEORY 8.2, printed to 9 digits: the adaptive run steps on the switch."""
    flow = af.sa(3.0, norm=af.norms.mix_ln(1.0))
    x0, ts = af.sphere.equiangular(8, 0.05), jnp.array([0.0, 0.5, 4.0])
    run = af.solve(flow, x0, ts, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(af.observables.mean_cosine(run.x_end), 0.753021700, atol=1e-9)
    np.testing.assert_allclose(af.observables.radii(run.x_end), 3.156066508, atol=1e-9)
    np.testing.assert_allclose(af.observables.radii(run.xs[1]), 1.0, atol=1e-12)


def test_a_batch_of_switches():
    x0 = af.sphere.uniform(jr.key(1), 5, 3)

    def end(tau):
        flow = af.sa(1.0, norm=af.norms.mix_ln(tau))
        return af.solve(flow, x0, jnp.array([0.0, 3.0])).x_end

    batch = jax.vmap(end)(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(batch[1], end(2.0), rtol=1e-7)
    assert np.linalg.norm(batch[0][0]) > np.linalg.norm(batch[1][0])


def test_no_ln_sees_radii():
    """Attention of x itself; THEORY 8 as an ODE in (rho, r) at beta r^2."""
    x0 = 0.8 * af.sphere.equiangular(6, 0.2)
    flow = af.sa(1.5, norm=af.norms.no_ln)
    weights = np.exp(1.5 * np.asarray(x0 @ x0.T))
    expected = weights @ np.asarray(x0) / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(flow(0.0, x0), expected, rtol=1e-13)
    run = af.solve(flow, x0, jnp.array([0.0, 3.0]), rtol=1e-12, atol=1e-13)
    path = af.theory.normalization.course("none", [0, 3], 0.8, n=6, beta=1.5, radius=0.8)
    np.testing.assert_allclose(af.observables.cosine_gap(run.x_end), path.gap[1], atol=1e-10)
    np.testing.assert_allclose(af.observables.radii(run.x_end), path.radius[1], rtol=1e-10)


@pytest.mark.parametrize("name", [*SCHEMES, "mix", "none"])
def test_speed_factors_are_measured_along_a_run(name):
    """From the velocities of a run alone, against the table of THEORY 8.1; gaps stay above 1e-2."""
    norm, start = SCHEMES.get(
        name, (af.norms.mix_ln(0.7) if name == "mix" else af.norms.no_ln, 1.0)
    )
    flow = af.sa(1.0, norm=norm)
    observe = {"s": af.observables.SpeedFactor(flow), "r": af.observables.radii}
    ts = np.array([0.0, 0.5, 1.0, 1.5])
    x0 = start * af.sphere.equiangular(8, 0.05)
    run = af.solve(flow, x0, ts, observe=observe, rtol=1e-10, atol=1e-12)
    for k, t in enumerate(ts):
        rho, r = float(af.observables.mean_cosine(run.xs[k])), float(run.observed["r"][k, 0])
        expected = af.theory.normalization.speed_factor(
            name, rho, n=8, beta=1.0, radius=r, t=t, tau=0.7,
            alpha=lambda t: 0.8 / np.sqrt(1 + t),
        )  # fmt: skip
        np.testing.assert_allclose(run.observed["s"][k], expected, rtol=1e-12)


def test_a_token_that_sees_no_pull_has_no_speed_factor(key):
    flow = af.causal(1.0)
    s = af.observables.SpeedFactor(flow)(0.0, af.sphere.uniform(key, 4, 3))
    assert jnp.isnan(s[0])
    np.testing.assert_allclose(s[1:], 1.0, rtol=1e-12)


@pytest.mark.parametrize("name", af.NORMS)
def test_every_scheme_goes_with_heads_and_matrices(name, key):
    """Two heads with their own Q, K, V: the flow runs, and a short layer is its Euler step."""
    keys = jr.split(key, 7)
    x = af.sphere.uniform(keys[0], 5, 4)
    matrices = [jr.normal(k, (4, 4)) for k in keys[1:]]
    heads = af.MultiHead(
        [af.Attention(1.0, *matrices[:3]), af.Attention(2.0, *matrices[3:], mask=None)]
    )
    flow, eta = af.Flow(heads, af.NORMS[name]), 1e-5
    slope = (flow.layer(0.0, x, eta) - flow.layer(0.0, x, -eta)) / (2 * eta)
    # Central differences: eta^2 and rounding over eta, of vectors of length up to 30.
    np.testing.assert_allclose(slope, flow(0.0, x), atol=1e3 * (eta**2 + 1e-16 / eta))


def test_switch_and_schedule_are_checked_before_the_run():
    x0, ts = af.sphere.equiangular(4, 0.1), jnp.array([0.0, 3.0])
    with pytest.raises(
        ValueError, match=r"`tau` must lie within the run, from 0 to before 3, but tau=5"
    ):
        af.solve(af.sa(1.0, norm=af.norms.mix_ln(5.0)), x0, ts)
    falling = af.norms.ngpt(lambda t: 1 - t)
    with pytest.raises(ValueError, match=r"`alpha\(ts\)` must satisfy .* >= 0"):
        af.solve(af.sa(1.0, norm=falling), x0, ts)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="`tau`"):
            af.norms.mix_ln(bad)
    with pytest.raises(ValueError, match="direction in every row"):
        af.solve(af.sa(1.0, norm=af.norms.pre_ln), 0.0 * x0, ts)
