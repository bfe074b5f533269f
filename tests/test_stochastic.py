"""Brownian motion on the sphere and noisy flows, against exact laws of their generators."""

from functools import partial
from typing import ClassVar

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.polynomial.legendre import Legendre
from scipy.linalg import expm
from scipy.special import ive
from scipy.stats import chi2

import attnflow as af
from attnflow import sphere
from attnflow.stochastic import METHODS, drift_rate

TOKENS = 2**16


class Still(eqx.Module):
    """No drift at all."""

    keeps_radius: ClassVar[bool] = True

    def __call__(self, t, x, args=None):
        return jnp.zeros_like(x)


def one_point(d):
    return jnp.zeros((TOKENS, d)).at[:, 0].set(1.0)


def pair(d, angle):
    return jnp.zeros((2, d)).at[0, 0].set(1).at[1, 0].set(np.cos(angle)).at[1, 1].set(np.sin(angle))


def harmonics(x, d):
    """Zonal harmonics of degrees 1 and 2, 1 at the first axis."""
    c = np.asarray(x[:, 0])
    return np.stack([c, (d * c**2 - 1) / (d - 1)])


def decays(d, heat):
    return np.exp(-np.array([d - 1, 2 * d]) * heat)


def deviations(samples, expected):
    """Distance of means from what is expected, in standard errors."""
    samples = np.asarray(samples)
    error = samples.std(axis=-1, ddof=1) / np.sqrt(samples.shape[-1])
    return np.abs(samples.mean(axis=-1) - expected) / error


@pytest.mark.parametrize(("d", "dt"), [(2, 0.4), (4, 0.05), (8, 0.02)])
def test_brownian_motion_decays_by_degree(d, dt, key):
    """Exact on the circle; elsewhere the bias is of the size of (d dt/kappa)^2 a unit of heat, below 1e-3."""
    traj = af.solve_sde(
        Still(), one_point(d), jnp.array([0.0, 0.2, 0.4]), kappa=2.0, dt=dt, key=key
    )
    for t, x in zip((0.2, 0.4), traj.xs[1:], strict=True):
        assert np.all(deviations(harmonics(x, d), decays(d, t / 2)) < 4)


def test_a_long_step_is_nearly_exact(key):
    """Turns of half a radian a step, d = 8: without its correction the geodesic step is 13 errors off."""
    traj = af.solve_sde(Still(), one_point(8), jnp.array([0.0, 0.64]), kappa=4.0, dt=0.08, key=key)
    harmonic = harmonics(traj.x_end, 8)
    assert np.all(deviations(harmonic, decays(8, 0.16)) < 4)
    plain = (1 - 7 * 6 * 0.02**2 / 3) ** 8 * decays(8, 0.16)[0]
    assert deviations(harmonic[0], plain) > 8


def retraction_factor(d, tau):
    """E cos of the angle of one retraction, 1/sqrt(1 + 2 tau chi^2) with d - 1 degrees of freedom."""
    law = chi2(d - 1)
    return law.expect(lambda r: 1 / np.sqrt(1 + 2 * tau * r), epsabs=1e-12)


def test_bias_of_the_retraction(key):
    """Exactly known at every dt: (d-1)(d+2) tau^2 a step to second order, tau = dt/kappa."""
    small = retraction_factor(4, 1e-3) - np.exp(-3e-3)
    assert small == pytest.approx(3 * 6 * 1e-6, rel=0.02)
    assert abs(retraction_factor(4, 0.0025) ** 80 - 0.5531) < 0.001  # THEORY, with its own error
    traj = af.solve_sde(
        Still(), one_point(4), jnp.array([0.0, 0.4]), kappa=2.0, dt=0.05, key=key,
        method="retraction",
    )  # fmt: skip
    cosine = np.asarray(traj.x_end[:, 0])
    assert deviations(cosine, retraction_factor(4, 0.025) ** 8) < 4
    assert deviations(cosine, decays(4, 0.2)[0]) > 20


def pair_cosine(start, t, *, d, kappa, beta=0.0, value=1.0, common=0.0, nodes=48):
    """E<X_1, X_2> of two tokens under (USA), by collocation of the generator of their cosine g.

    (2/kappa) ((1-g^2) f'' - (d-1) g f') + V e^(beta g) (1-g^2) f', and for noise 1/kappa_0 = common that
    they share (2/kappa_0) ((1-g)^2 (1+g) f'' + (1-g) (d-2-g) f').
    """
    k = np.arange(nodes)
    g = np.cos(np.pi * k / (nodes - 1))
    c = np.r_[2, np.ones(nodes - 2), 2] * (-1.0) ** k
    slope = np.outer(c, 1 / c) / (g[:, None] - g + np.eye(nodes))
    slope -= np.diag(slope.sum(axis=1))
    bend = 2 / kappa * (1 - g**2) + 2 * common * (1 - g) ** 2 * (1 + g)
    drift = value * np.exp(beta * g) * (1 - g**2)
    drift += 2 * common * (1 - g) * (d - 2 - g) - 2 / kappa * (d - 1) * g
    mean = expm(t * (bend[:, None] * slope @ slope + drift[:, None] * slope)) @ g
    return np.polynomial.chebyshev.chebval(start, np.polynomial.chebyshev.chebfit(g, mean, 47))


def test_the_oracle_of_pairs():
    """Free cosines decay at the rate 2 (d-1)/kappa; at beta = 0 without noise atanh g grows at the rate 1."""
    free = pair_cosine(0.3, 0.5, d=4, kappa=2.0, value=0.0)
    assert free == pytest.approx(0.3 * np.exp(-1.5), rel=1e-10)
    pulled = pair_cosine(0.3, 1.0, d=3, kappa=np.inf)
    assert np.arctanh(pulled) == pytest.approx(np.arctanh(0.3) + 1, rel=1e-6)


@eqx.filter_jit
def pair_runs(key, dt, method):
    """Cosines of many pairs at t = 1, and of pairs with the same noise and no pull."""

    def cosine(key, value):
        traj = af.solve_sde(
            af.usa(2.0, value=value), pair(3, 2.0), jnp.array([0.0, 1.0]), kappa=8.0, dt=dt, key=key,
            method=method, states=False, observe={"g": af.observables.mean_cosine},
        )  # fmt: skip
        return traj.observed["g"][-1]

    keys = jr.split(key, 2**17)
    return tuple(jax.vmap(cosine, (0, None))(keys, value) for value in (1.0, 0.0))


def explained(pulled, free):
    """Cosines less what harmonics of the free pair, of known means, explain of their noise.

    The bias of the free pair itself, of the size of (dt/kappa)^2 = 0.004 of a step's decay, is a tenth of an error.
    """
    parts = np.stack([Legendre.basis(degree)(np.asarray(free)) for degree in (1, 2, 3)], axis=1)
    known = [
        Legendre.basis(degree)(np.cos(2)) * np.exp(-2 * degree * (degree + 1) / 8)
        for degree in (1, 2, 3)
    ]
    pulled, centred = np.asarray(pulled), parts - parts.mean(axis=0)
    factors = np.linalg.lstsq(centred, pulled - pulled.mean())[0]
    return pulled - (parts - known) @ factors


@pytest.mark.parametrize(
    ("method", "steps"),
    [("exponential", (0.5, 0.25, 0.125)), ("retraction", (0.125, 0.0625))],
)
def test_weak_order(method, steps, key):
    """(2) above 1 by four standard errors, and the next halving divides by four; (1) within 0.3 of 1."""
    exact = pair_cosine(np.cos(2.0), 1.0, d=3, kappa=8.0, beta=2.0)
    cosines = np.stack([explained(*pair_runs(key, dt, method)) for dt in steps])
    bias = np.abs(cosines.mean(axis=1) - exact)
    noise = cosines.std(axis=1) / np.sqrt(cosines.shape[1])
    orders = np.log2(bias[:-1] / bias[1:])
    errors = np.hypot(noise[:-1] / bias[:-1], noise[1:] / bias[1:]) / np.log(2)
    if method == "exponential":
        assert orders[0] - 4 * errors[0] > 1
        assert bias[2] < bias[1] / 4 + 4 * noise[2]
    else:
        assert abs(orders[0] - 1) < 0.2 + 4 * errors[0]
        assert errors[0] < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_strong_order(method, key):
    """Paths converge with order 1/2, no more: the fields P_x e_i do not commute. Half a unit tells orders apart."""
    kick, fine, d = METHODS[method][1], 512, 3
    xi = jr.normal(key, (fine, 1024, d)) * np.sqrt(2 / fine / 4)
    start = one_point(d)[:1024]

    def end(steps):
        noise = xi.reshape(steps, -1, 1024, d).sum(axis=1)
        return jax.lax.scan(lambda x, v: (kick(x, v, 1 / steps / 4), None), start, noise)[0]

    steps = np.array([4, 8, 16, 32])
    errors = [jnp.sqrt(((end(int(k)) - end(fine)) ** 2).sum(axis=1).mean()) for k in steps]
    assert abs(-np.polyfit(np.log(steps), np.log(errors), 1)[0] - 0.5) < 0.1


def gibbs_order(n, kappa, d):
    """Mean of R^2 in n noisy tokens at beta = 0, whose law is e^(kappa n R^2/2), exact for every n.

    A Gaussian field h decouples the tokens: R^2 = h^2 - d/(n kappa) on the mean, with h of density
    h^(d-1) (e^(-kappa h^2/2) (kappa h)^-nu I_nu(kappa h))^n.
    """
    h, nu = np.linspace(1e-4, 2, 20_001), d / 2 - 1
    log = np.log(ive(nu, kappa * h)) + kappa * h - nu * np.log(h) - kappa * h**2 / 2
    weight = h ** (d - 1) * np.exp(n * (log - log.max()))
    return (weight * h**2).sum() / weight.sum() - d / (n * kappa)


@pytest.mark.parametrize(("kappa", "d"), [(3.0, 2), (5.0, 3)])
def test_stationary_order_of_noisy_kuramoto(kappa, d, key):
    """Aligned start; after 15 units of time the memory of it is below 1e-4. The bias of a step is dt^2."""
    n, seeds, dt = 64, 64, 0.1

    def square(key):
        observe = {"R": af.observables.order_parameter}
        traj = af.solve_sde(
            af.kuramoto(), one_point(d)[:n], jnp.linspace(0, 40, 81), kappa=kappa, dt=dt, key=key,
            observe=observe, states=False,
        )  # fmt: skip
        return (traj.observed["R"][30:] ** 2).mean()

    squares = np.asarray(jax.vmap(square)(jr.split(key, seeds)))
    error = squares.std(ddof=1) / np.sqrt(seeds)
    assert abs(squares.mean() - gibbs_order(n, kappa, d)) < 4 * error + dt**2 / 10
    assert error < 0.01


@pytest.mark.parametrize("kappa", [np.inf, 6.0])
def test_common_noise(kappa, key):
    """Cosines as their generator says, and each token alone is Brownian. Bias: first order, below an error.

    Without noise of their own, E log(1 - g) falls at 2 (d-1)/kappa_0 whatever g: tokens are drawn together.
    """
    d, t, common = 3, 0.4, 4.0

    def end(key):
        return af.solve_sde(
            Still(), pair(d, 1.5), jnp.array([0.0, t]), kappa=kappa, common_kappa=common, dt=0.0125,
            key=key,
        ).x_end  # fmt: skip

    ends = jax.vmap(end)(jr.split(key, 2**13))
    cosine = np.einsum("kd,kd->k", ends[:, 0], ends[:, 1])
    expected = pair_cosine(np.cos(1.5), t, d=d, kappa=kappa, value=0.0, common=1 / common)
    assert deviations(cosine, expected) < 4
    assert np.all(deviations(harmonics(ends[:, 0], d), decays(d, t / kappa + t / common)) < 4)
    if kappa == np.inf:
        closer = np.log(1 - np.cos(1.5)) - 2 * (d - 1) * t / common
        assert deviations(np.log(1 - cosine), closer) < 4


def test_first_tokens_of_a_larger_system(key):
    """Without drift paths agree bit for bit."""
    x0, ts = sphere.uniform(key, 37, 3), jnp.array([0.0, 0.3, 1.0])
    run = lambda x: af.solve_sde(Still(), x, ts, kappa=2.0, dt=0.1, key=key, common_kappa=5.0).xs
    np.testing.assert_array_equal(run(x0)[:, :5], run(x0[:5]))


def test_causal_tokens_do_not_notice_later_ones(key):
    x0, ts = sphere.uniform(key, 12, 3), jnp.array([0.0, 1.0])
    run = lambda x: af.solve_sde(af.causal(2.0), x, ts, kappa=20.0, dt=0.05, key=key).x_end
    np.testing.assert_allclose(run(x0)[:5], run(x0[:5]), atol=1e-13)


def test_vmap_is_a_loop(key):
    """Over keys, kappas and steps at once; jit too."""
    x0, ts = sphere.uniform(key, 6, 3), jnp.array([0.0, 0.25, 1.0])
    run = lambda key, kappa, dt: af.solve_sde(af.sa(2.0), x0, ts, kappa=kappa, dt=dt, key=key).xs
    keys, kappas = jr.split(key, 3), jnp.array([3.0, 10.0, np.inf])
    dts = jnp.array([0.1, 0.03, 0.05])
    mapped = jax.jit(jax.vmap(run))(keys, kappas, dts)
    for k in range(3):
        np.testing.assert_allclose(mapped[k], run(keys[k], kappas[k], dts[k]), atol=1e-13)


def test_no_noise_is_the_flow(key):
    """kappa = inf: the midpoint rule, second order in dt."""
    x0, ts = sphere.uniform(key, 6, 3), jnp.array([0.0, 0.5, 2.0])
    exact = af.solve(af.sa(2.0), x0, ts, method=dfx.Dopri8(), rtol=1e-12, atol=1e-13).xs
    steps = np.array([0.1, 0.05, 0.025])
    run = partial(af.solve_sde, af.sa(2.0), x0, ts, kappa=np.inf, key=key)
    errors = [jnp.abs(run(dt=dt).xs - exact).max() for dt in steps]
    assert abs(np.polyfit(np.log(steps), np.log(errors), 1)[0] - 2) < 0.2
    assert errors[-1] < 1e-3
    layer = run(dt=0.05, method="retraction").xs
    assert 1e-3 < jnp.abs(layer - exact).max() < 0.05


def test_derivative_in_kappa(key):
    """Forward derivatives of a path, against a difference quotient."""
    x0, ts = sphere.uniform(key, 6, 3), jnp.array([0.0, 1.0])
    end = lambda kappa: af.solve_sde(af.sa(2.0), x0, ts, kappa=kappa, dt=0.1, key=key).x_end
    slope = jax.jacfwd(end)(jnp.asarray(5.0))
    np.testing.assert_allclose(slope, (end(5.001) - end(4.999)) / 0.002, atol=1e-6)


def test_what_is_saved(key):
    """Norms are 1 to rounding; every interval is cut into equal steps; observables read what was asked."""
    x0, ts = sphere.uniform(key, 6, 3), jnp.array([0.0, 0.25, 1.0])
    observe = {"R": af.observables.order_parameter, "s": af.observables.SpeedFactor(af.sa(2.0))}
    traj = af.solve_sde(af.sa(2.0), x0, ts, kappa=9.0, dt=0.1, key=key, observe=observe)
    assert traj.stats == {"num_steps": 3 + 8, "kernel_sum": "dense"}
    np.testing.assert_allclose(jnp.linalg.norm(traj.xs, axis=-1), 1, rtol=4e-16)
    np.testing.assert_array_equal(traj.x_end, traj.xs[-1])
    np.testing.assert_allclose(traj.observed["R"], jax.vmap(observe["R"])(traj.xs), rtol=1e-14)
    np.testing.assert_allclose(traj.observed["s"], 1, rtol=1e-10)
    bare = af.solve_sde(af.sa(2.0), x0, ts, kappa=9.0, dt=0.1, key=key, states=False)
    assert bare.xs is None
    np.testing.assert_allclose(bare.x_end, traj.x_end, atol=1e-14)
    assert traj.to_xarray().tokens.shape == (3, 6, 3)


def test_float32_stays_float32(key):
    x0 = sphere.uniform(key, 6, 3).astype(jnp.float32)
    traj = af.solve_sde(af.sa(2.0), x0, np.array([0.0, 1.0]), kappa=9.0, dt=0.1, key=key)
    assert traj.xs.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(traj.x_end, axis=-1), 1, rtol=3e-7)


def test_drift_rates_bound_velocities():
    """Difference quotients of a token's drift in its own place never exceed the bound, and come near it."""
    two = af.MultiHead([af.Attention(1.0, 2.0, 1.0, 0.5), af.Attention(3.0, 1.0, 1.0, -1.0)])
    assert drift_rate(af.sa(9.0)) == 10
    assert drift_rate(af.usa(2.0, value=-3.0)) == pytest.approx(3 * np.exp(2))
    assert drift_rate(af.usa(800.0, clock="rescaled")) == 1
    assert drift_rate(af.usa(2.0, query=2 * jnp.eye(3))) == pytest.approx(np.exp(4))
    assert drift_rate(af.Flow(two)) >= 0.5 * 3 + 1 * 4
    assert drift_rate(af.hardmax()) == 0
    angle = np.linspace(0, np.pi, 400)
    for beta in (0.0, 1.0, 5.0):
        slope = np.gradient(np.exp(beta * np.cos(angle)) * np.sin(angle), angle)
        assert 0.98 * np.exp(beta) < np.abs(slope).max() <= np.exp(beta)


X0 = np.asarray(sphere.uniform(jr.key(1), 4, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kappa": 0.0}, r"`kappa` must satisfy kappa > 0, but kappa=0.0. No noise is kappa=inf."),
        ({"kappa": np.nan}, "`kappa` must satisfy kappa > 0"),
        ({"kappa": [1.0, 2.0]}, "`kappa` must be one number"),
        ({"common_kappa": -1.0}, "`common_kappa` must satisfy common_kappa > 0"),
        ({"dt": 0.0}, "`dt` must satisfy dt > 0"),
        ({"dt": np.inf}, "`dt` must be finite"),
        ({"dt": 0.5}, r"`dt` must satisfy dt <= 0.25, but dt=0.5. The drift has rates up to 4"),
        (
            {"kappa": 0.1},
            r"dt <= 0.025, but dt=0.1. A step of noise turns tokens by more than 1 rad",
        ),
        ({"common_kappa": 0.1}, "A step of noise turns tokens"),
        ({"flow": af.usa(800.0)}, r"dt <= 0, but dt=0.1. The drift has rates up to inf"),
        ({"flow": af.sa(3.0, norm=af.norms.pre_ln)}, "`flow` must keep tokens on the sphere"),
        ({"flow": lambda t, x, args: x}, "`flow` must keep tokens on the sphere"),
        ({"flow": 3}, "`flow` must be a function"),
        ({"flow": af.FisherRaoFlow(1.0)}, "`x0` must be an array of tokens"),
        ({"x0": 2 * X0}, "`x0` must hold unit vectors"),
        ({"ts": [0.0, 0.0]}, "`ts` must increase strictly"),
        ({"key": 0}, "`key` must be one PRNG key"),
        ({"key": jr.split(jr.key(0), 3)}, "`jax.vmap` over many"),
        ({"method": "milstein"}, "`method` must be one of exponential, retraction"),
        ({"observe": {"R": 1}}, r"`observe\['R'\]` must be a function"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_input(changes, message):
    settings = {
        "flow": af.sa(3.0),
        "x0": X0,
        "ts": [0.0, 1.0],
        "kappa": 10.0,
        "dt": 0.1,
        "key": jr.key(0),
    }
    settings |= changes
    with pytest.raises(ValueError, match=message):
        af.solve_sde(
            settings.pop("flow"), settings.pop("x0"), np.asarray(settings.pop("ts")), **settings
        )
