"""Densities as quantiles: what a run becomes when it is too narrow for any grid."""

import jax.numpy as jnp
import numpy as np
import pytest

import attnflow as af
from attnflow.meanfield import Circle, MeanField, circle


def two_bumps(degree):
    theta = Circle(degree).grid
    values = np.exp(2 * np.cos(theta - 1)) + 0.5 * np.exp(3 * np.cos(theta + 1.5))
    modes = Circle(degree).modes(jnp.asarray(values))
    return modes / modes[0, 0]


def test_quantiles_invert_the_mass():
    modes = two_bumps(40)
    u = np.concatenate([[0.0], np.random.default_rng(0).uniform(size=300), [0.5]])
    theta = circle.quantiles(modes, u)
    k, c = np.arange(1, 41), np.asarray(modes)
    mass = [
        t + np.sqrt(2) * ((c[0, 1:] * np.sin(k * t) + c[1, 1:] * (1 - np.cos(k * t))) / k).sum()
        for t in theta
    ]
    assert np.abs(np.array(mass) / (2 * np.pi) - u).max() < 1e-14
    assert theta[0] == 0


def test_tokens_have_the_modes_of_their_density():
    modes = two_bumps(40)
    x = circle.tokens(modes, 800)
    theta = np.arctan2(x[:, 1], x[:, 0])
    # Smooth quantile functions: beyond all powers of 1/n, down to rounding of sums over n.
    assert np.abs(circle.modes_of(theta, 12) - np.asarray(modes)[:, :13]).max() < 1e-13


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_tokens_follow_the_density(model):
    degree, beta, ts = 64, 2.0, np.array([0.0, 0.6])
    modes = two_bumps(degree)
    run = af.solve(
        MeanField(Circle(degree), beta, model, clock="rescaled"), modes, ts, rtol=1e-11, atol=1e-13
    )
    flow = af.sa(beta) if model == "sa" else af.usa(beta, clock="rescaled")
    tokens = af.solve(flow, circle.tokens(modes, 600), ts, rtol=1e-11, atol=1e-13)
    theta = np.arctan2(tokens.x_end[:, 1], tokens.x_end[:, 0])
    seen = circle.modes_of(theta, 16)
    # 1000 rtol for two solvers.
    assert np.abs(seen - np.asarray(run.x_end)[:, :17]).max() < 1e-8


def test_collapse_below_any_grid():
    """A density within a hemisphere collapses at the rate 1 of consensus, to W2 < 1e-8."""
    u = (np.arange(500) + 0.5) / 500
    theta = np.arcsin(2 * u - 1) * 0.7 + 0.2  # density ~ cos, on an arc of 2.2 radians
    x0 = jnp.asarray(np.stack([np.cos(theta), np.sin(theta)], 1))
    ts = np.linspace(0, 24, 25)
    run = af.solve(af.sa(3.0), x0, ts, rtol=1e-11, atol=1e-13)
    w2 = []
    for x in np.asarray(run.xs):
        mean = x.mean(axis=0)
        angles = np.arctan2(x[:, 1] * mean[0] - x[:, 0] * mean[1], x @ mean)
        w2.append(np.sqrt((angles**2).mean()))
    assert w2[-1] < 1e-8
    rates = -np.diff(np.log(w2))
    # W2 ~ e^(-t) (1 + O(e^(-2t))): after t = 8 the correction is below 1e-6; rounding of angles is 1e-16.
    assert np.abs(rates[8:16] - 1).max() < 1e-6


def test_energy_identity_along_the_collapse():
    """E(T) - E(0) is the integral of (1/n) sum Z_i |v_i|^2, to 1e-8."""
    beta, t_max = 2.0, 12.0
    nodes, weights = np.polynomial.legendre.leggauss(60)
    ts = np.concatenate([[0], (nodes + 1) * t_max / 2, [t_max]])
    flow, x0 = af.sa(beta), jnp.asarray(circle.tokens(two_bumps(40), 400))
    run = af.solve(flow, x0, ts, rtol=1e-12, atol=1e-14)

    def loss(x):
        z = jnp.exp(beta * x @ x.T).mean(axis=1)
        return (z * (flow(0.0, x) ** 2).sum(axis=1)).mean()

    losses = np.array([loss(x) for x in run.xs[1:-1]])
    energies = [float(af.observables.energy(run.xs[k], beta)) for k in (0, -1)]
    gain = energies[1] - energies[0]
    assert abs(weights @ losses * t_max / 2 - gain) < 1e-8 * gain


def test_bad_input():
    with pytest.raises(ValueError, match="must be those of a density, but it falls to"):
        circle.quantiles(jnp.zeros((2, 9)).at[0, 0].set(1).at[0, 1].set(2), np.zeros(1))
