"""Convergence to consensus: equiangular closed forms, rates, cones and causal limits, by particles."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import attnflow as af
from attnflow.observables import cosine_gap, mean_cosine, order_parameter

FINE = {"rtol": 1e-12, "atol": 1e-14}


@pytest.mark.parametrize(
    ("flow", "n", "rho0", "t", "rho"),
    [
        (af.sa(2.0), 5, 0.1, 2.0, 0.8398614556),
        (af.sa(4.0), 8, 0.0, 3.0, 0.1798908690),
        (af.usa(4.0), 8, 0.0, 0.5, 0.3696865801),
    ],
    ids=["sa", "sa from orthogonal", "usa"],
)
def test_equiangular_tokens_of_theory_7_1(flow, n, rho0, t, rho):
    """Particles in d = 8 keep one cosine to rounding, and reach the value of the reduced ODE."""
    run = af.solve(flow, af.sphere.equiangular(n, rho0, d=8), jnp.array([0.0, t]), **FINE)
    cosines = np.asarray(run.x_end @ run.x_end.T)[np.triu_indices(n, 1)]
    np.testing.assert_allclose(cosines, rho, atol=1e-9)
    assert np.ptp(cosines) < 1e-13


def test_sa_contracts_at_rate_one():
    """THEORY 3: log-slope of |x - mean| on t in [8, 12] is 1.0000000, off by O(e^(-16)), 4e-9."""
    x0 = af.sphere.normalize(af.sphere.uniform(jr.key(0), 5, 3) + jnp.array([2.0, 0, 0]))
    ts = jnp.array([0.0, 8.0, 12.0])
    run = af.solve(af.sa(3.0), x0, ts, observe={"gap": cosine_gap}, rtol=1e-10, atol=1e-16)
    gap = run.observed["gap"]
    assert abs(float(jnp.log(gap[1] / gap[2])) / 8 - 1) < 1e-7


def test_usa_contracts_at_rate_e_to_the_beta():
    x0 = af.sphere.normalize(af.sphere.uniform(jr.key(0), 5, 3) + jnp.array([2.0, 0, 0]))
    ts = jnp.array([0.0, 8.0, 12.0]) * np.exp(-3.0)
    run = af.solve(af.usa(3.0), x0, ts, observe={"gap": cosine_gap}, rtol=1e-10, atol=1e-16)
    gap = run.observed["gap"]
    assert abs(float(jnp.log(gap[1] / gap[2])) / 8 - 1) < 1e-6


@pytest.fixture(scope="module")
def causal_run():
    """One compiled run for any Q, K: n = 6, d = 3, seen at four times."""
    x0 = af.sphere.uniform(jr.key(1), 6, 3)

    def run(query, key, beta, ts):
        flow = af.causal(beta, query=query, key=key)
        return x0, af.solve(flow, x0, jnp.asarray(ts), rtol=1e-13, atol=1e-16).xs

    return run


def test_causal_tokens_converge_to_the_first(causal_run):
    """THEORY 1.2: V = I and Gaussian Q, K; by t = 400 every token is x_1(0) to rounding.

    The theorem sets no time: of 8 draws of Q, K one is still far at t = 400. This one is not.
    """
    query, key = jr.normal(jr.key(0), (2, 3, 3))
    x0, xs = causal_run(query, key, 1.0, [0.0, 1.0, 100.0, 400.0])
    np.testing.assert_allclose(xs[:, 0], jnp.broadcast_to(x0[0], (4, 3)), atol=1e-15)
    assert jnp.abs(xs[1] - x0[0]).max() > 0.1
    assert jnp.abs(xs[-1] - x0[0]).max() < 1e-12


def test_causal_distances_shrink_at_rate_one_half(causal_run):
    """THEORY 1.2: log-slopes of |x_k - x_1| between t = 20 and 30 near 1/2: row k has rate 1 - 1/k.

    Token 2 is alone with token 1 and has rate 1/2 up to e^(-20); later tokens follow it, with a
    start-dependent rest of order e^(-t/6) from the rate 2/3 of token 3.
    """
    _, xs = causal_run(jnp.eye(3), jnp.eye(3), 1.0, [0.0, 20.0, 30.0, 40.0])
    distance = jnp.linalg.norm(xs - xs[:, :1], axis=-1)[:, 1:]
    slope = np.log(distance[1] / distance[2]) / 10
    np.testing.assert_allclose(slope[0], 0.5, atol=1e-6)
    np.testing.assert_allclose(slope[1:], 0.5, atol=0.03)
    later = np.log(distance[2] / distance[3]) / 10
    assert (np.abs(later - 0.5) < np.abs(slope - 0.5) + 1e-7).all()


def test_smallest_cosine_rises_faster_than_its_bound():
    """THEORY 1.4: alpha' >= (2/n) alpha (1 - alpha) e^(-beta (1 - alpha)), alpha = min_ij <x_i, x_j>."""
    n, beta, ts = 8, 3.0, np.linspace(0, 6, 25)
    x0 = af.sphere.normalize(af.sphere.uniform(jr.key(3), n, 3) + jnp.array([1.5, 0, 0]))
    run = af.solve(af.sa(beta), x0, jnp.asarray(ts))
    alpha = np.asarray(jax.vmap(lambda x: (x @ x.T).min())(run.xs))
    bound = solve_ivp(
        lambda t, a: 2 / n * a * (1 - a) * np.exp(-beta * (1 - a)), (0, 6), alpha[:1], t_eval=ts,
        rtol=1e-9,
    ).y[0]  # fmt: skip
    assert (np.diff(alpha) > 0).all()
    assert (alpha >= bound - 1e-8).all()
    assert alpha[-1] > 0.9999 > 0.8 > bound[-1]


def test_uniform_tokens_synchronise_in_three_dimensions():
    """THEORY 3: d = 3, n = 32, beta = 1, T = 40, a safe case of the almost-everywhere theorem."""
    x0 = af.sphere.uniform(jr.key(4), 32, 3)
    run = af.solve(af.sa(1.0), x0, jnp.array([0.0, 40.0]), observe={"rho": mean_cosine})
    assert run.observed["rho"][0] < 0.1
    assert run.observed["rho"][1] > 1 - 1e-9


def test_unstable_stationary_points_hold_unperturbed_tokens():
    """{u, -u} with masses 2/3 and 1/3: mean 1/3, stationary for every beta."""
    x0 = jnp.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    run = af.solve(af.sa(2.0), x0, jnp.array([0.0, 5.0]))
    np.testing.assert_allclose(order_parameter(run.x_end), 1 / 3, rtol=1e-14)
    np.testing.assert_allclose(run.x_end, x0, atol=1e-15)
