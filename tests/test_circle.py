"""The circle: conserved quantities of the Kuramoto reduction, and spectra of the polygon."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow.observables import order_parameter
from attnflow.theory import kuramoto, stationary

TS = jnp.linspace(0.0, 3.0, 31)
FINE = {"rtol": 1e-12, "atol": 1e-14}
ANGLES = np.array([0.3, 1.1, 1.9, 2.9, 3.6, 4.4, 5.5])


def angles(xs):
    """Unwrapped angles, shape (t, n)."""
    xs = np.asarray(xs)
    return np.unwrap(np.arctan2(xs[..., 1], xs[..., 0]), axis=0)


def run(flow, theta=ANGLES, ts=TS):
    return af.solve(flow, af.sphere.circle(jnp.asarray(theta)), ts, **FINE)


def test_angles_obey_the_kuramoto_form():
    """THEORY 2.1: theta_i' = -(1/n) sum_j e^(beta cos) sin(theta_i - theta_j); SA divides by sum_j e^(..)."""
    x, gap = af.sphere.circle(jnp.asarray(ANGLES)), np.subtract.outer(ANGLES, ANGLES)
    kernel = np.exp(2.0 * np.cos(gap))
    tangent = np.stack([-np.sin(ANGLES), np.cos(ANGLES)], axis=1)
    pull = -(kernel * np.sin(gap)).sum(axis=1)
    for flow, norm in ((af.usa(2.0), len(ANGLES)), (af.sa(2.0), kernel.sum(axis=1))):
        speed = np.sum(np.asarray(flow(0.0, x)) * tangent, axis=1)
        np.testing.assert_allclose(speed, pull / norm, atol=1e-14)


def test_cross_ratios_are_conserved_at_beta_zero_only():
    """Watanabe-Strogatz: Möbius orbits, for every n; kept to 1e-12 up to t = 3."""
    at_zero, at_one = (angles(run(af.usa(beta)).xs) for beta in (0.0, 1.0))
    ratios = np.array([kuramoto.cross_ratios(theta) for theta in at_zero])
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-11)
    moved = [kuramoto.cross_ratios(theta) for theta in at_one[[0, 10]]]
    assert np.abs(moved[1] / moved[0] - 1).max() > 0.01


def test_sum_of_angles_is_conserved_by_usa_only():
    """THEORY 1.4: the torque identity of USA integrates in d = 2; that of SA does not."""
    for flow, conserved in ((af.usa(1.0), True), (af.sa(1.0), False)):
        total = angles(run(flow).xs).sum(axis=1)
        drift = np.abs(total - total[0]).max()
        assert drift < 1e-10 if conserved else drift > 1e-3


def test_poisson_tokens_follow_ott_antonsen():
    """THEORY 2.2: quantiles of the Poisson density, R(2) = 0.649790538 from R0 = .3.

    Midpoints are the trapezoidal rule of a periodic analytic function: exact to R0^n.
    """
    ts = jnp.array([0.0, 1.0, 2.0])
    theta = kuramoto.poisson_angles(400, 0.3)
    x0 = af.sphere.circle(jnp.asarray(theta))
    observed = af.solve(af.kuramoto(), x0, ts, observe={"R": order_parameter}, **FINE).observed["R"]
    np.testing.assert_allclose(observed, kuramoto.ott_antonsen(np.asarray(ts), 0.3), atol=1e-10)
    np.testing.assert_allclose(observed[-1], 0.649790538, atol=1e-9)


@pytest.mark.parametrize(("model", "t", "atol"), [("sa", 5.0, 2e-9), ("usa", 0.5, 2e-8)])
def test_polygon_modes_grow_at_their_rate(model, t, atol):
    """THEORY 2.3: n = 64, m = 3, beta = 4, eps = 1e-6; the next order is eps^2 e^(2 rate t)/t, 4e-10 and 6e-9.

    The direct rates printed there, .66438869 and 7.50886925, carry the error of their solver.
    """
    n, m, eps = 64, 3, 1e-6
    base = 2 * np.pi * np.arange(n) / n
    wave = np.cos(m * base)
    theta = angles(run(af.FLOWS[model](4.0), base + eps * wave, jnp.array([0.0, t])).xs)
    amplitude = (theta - base) @ wave
    measured = np.log(amplitude[1] / amplitude[0]) / t
    np.testing.assert_allclose(
        measured, stationary.polygon_rate(m, n=n, beta=4.0, model=model), atol=atol
    )
    printed = {"sa": 0.66438869, "usa": 7.50886925}[model]
    np.testing.assert_allclose(measured, printed, rtol=2e-7)


@pytest.mark.parametrize(("beta", "rate"), [(-0.5, 0.16050318), (-0.8, -0.14918246)])
def test_the_triangle_is_stable_for_beta_below_minus_two_thirds(beta, rate):
    """THEORY 2.3: mu_1 = e^(-beta/2) (1/2 + 3 beta/4), read off the velocity of a small mode."""
    base, eps = 2 * np.pi * np.arange(3) / 3, 1e-6
    wave = np.cos(base)
    theta = base + eps * wave
    x = af.sphere.circle(jnp.asarray(theta))
    tangent = np.stack([-np.sin(theta), np.cos(theta)], axis=1)
    speed = np.sum(np.asarray(af.usa(beta)(0.0, x)) * tangent, axis=1)
    np.testing.assert_allclose(speed @ wave / (wave @ wave) / eps, rate, atol=3e-6)


@pytest.mark.parametrize(("beta", "synchronises"), [(-0.5, True), (-0.8, False)])
def test_three_tokens_leave_or_return_to_the_triangle(beta, synchronises):
    theta = 2 * np.pi * np.arange(3) / 3 + 0.05 * np.array([1.0, -0.4, 0.2])
    end = run(af.usa(beta), theta, jnp.array([0.0, 100.0])).x_end
    length = float(order_parameter(end))
    assert length > 1 - 1e-6 if synchronises else length < 1e-6


def test_beta_zero_order_parameter_rises_as_predicted():
    """d(R^2)/dt = (2/n) sum |v_i|^2, in any d."""
    x = af.sphere.uniform(jr.key(0), 7, 4)
    v, mean = af.kuramoto()(0.0, x), x.mean(axis=0)
    np.testing.assert_allclose(2 * mean @ v.mean(axis=0), 2 * (v**2).sum() / 7, rtol=1e-13)
