"""Tokens on the circle: Bessel coefficients, Fourier modes, and the solvable case beta = 0."""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    TOL,
    angles,
    angular,
    array,
    change,
    circle,
    read,
    run,
    sa,
    save_times,
    uniform,
    usa,
    velocity,
)
from attnflow.theory import gram, kuramoto

GRID = 2 * np.pi * np.arange(256) / 256


def _kernel_modes(beta: float, modes: int) -> np.ndarray:
    """Fourier modes of the kernel that one token sees, e^(beta cos t), times e^-|beta|."""
    import jax.numpy as jnp

    waves = array(np.cos(np.outer(GRID, np.arange(modes + 1))))
    probe, grid = array(circle(np.zeros(1))), array(circle(GRID))
    mean, log_z = af.kernels.dense(probe, grid, waves, beta)
    return np.asarray(jnp.exp(log_z[0] - np.log(len(GRID)) - abs(beta)) * mean[0])


def _kernel() -> Sides:
    betas = (4.0, -3.0, 50.0)
    predicted = [kuramoto.kernel_coefficients(beta, 20, scaled=True) for beta in betas]
    return predicted, [_kernel_modes(beta, 20) for beta in betas]


def _force(beta: float) -> np.ndarray:
    """Force e^(beta cos t) sin t of one token on another at distance t, over the grid."""
    import jax

    pairs = np.stack([circle(GRID), circle(0 * GRID)], axis=1)
    pulled = jax.vmap(lambda x: usa(beta)(0.0, x)[0])(array(pairs))
    tangents = np.stack([-np.sin(GRID), np.cos(GRID)], axis=1)
    return -2 * (np.asarray(pulled) * tangents).sum(axis=1)


def _force_modes() -> Sides:
    betas, waves = (0.0, 2.0, -1.5), np.sin(np.outer(np.arange(1, 13), GRID))
    predicted = [kuramoto.force_coefficients(beta, 12) for beta in betas]
    return predicted, [2 * (waves * _force(beta)).mean(axis=1) for beta in betas]


def _mode_count() -> Sides:
    """Number of modes above 1e-10 of the first, seen by a token."""
    betas = (0.0, 0.5, 4.0, 50.0)
    modes = np.array([_kernel_modes(beta, 100) for beta in betas])
    predicted = [kuramoto.mode_count(beta, tol=1e-10) for beta in betas]
    return predicted, (modes < 1e-10 * modes[:, :1]).argmax(axis=1)


def _quadratic_modes() -> Sides:
    """Speeds of the Fourier modes of seven tokens under (USA), real and imaginary parts."""
    import jax.numpy as jnp

    beta, k = 3.0, np.arange(1, 5)
    x = uniform(5, 7, 2)
    theta, reach = np.arctan2(x[:, 1], x[:, 0]), kuramoto.mode_count(beta)
    order = np.arange(-reach, reach + 1)
    bessel = kuramoto.kernel_coefficients(beta, reach)[np.abs(order)]

    def mode(index):
        return np.exp(-1j * np.multiply.outer(index, theta)).mean(axis=-1)

    pairs = order * bessel * mode(order) * mode(k[:, None] - order)
    predicted = k / beta * pairs.sum(axis=1)

    def modes(x):
        waves = jnp.outer(jnp.asarray(k), jnp.arctan2(x[:, 1], x[:, 0]))
        return jnp.stack([jnp.cos(waves).mean(axis=1), -jnp.sin(waves).mean(axis=1)])

    return [predicted.real, predicted.imag], change(modes, af.usa(beta), x)


def _ott_antonsen() -> Sides:
    xs = run(usa(0.0), circle(kuramoto.poisson_angles(64, 0.3)), 2.0)
    predicted = kuramoto.ott_antonsen(save_times(2.0), 0.3)
    return predicted[1:], read(af.observables.order_parameter, xs)[1:]


def _poisson_moments() -> Sides:
    """Order parameter, and the mean of higher powers of e^(i theta), of the quantile tokens."""
    r0, power = 0.3, np.arange(1, 6)
    theta = kuramoto.poisson_angles(64, r0)
    tokens = circle(np.multiply.outer(power, theta))
    return r0**power, read(af.observables.order_parameter, tokens)


def _ring(beta: float, t_end: float) -> np.ndarray:
    """Angles along a run of eight spread tokens under (USA)."""
    theta = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    theta += np.random.default_rng(6).uniform(-0.3, 0.3, 8)
    return angles(run(usa(beta), circle(theta), t_end, rtol=1e-13))


def _cross_ratios() -> Sides:
    ratios = kuramoto.cross_ratios(_ring(0.0, 3.0))
    return np.tile(ratios[0], (len(ratios) - 1, 1)), ratios[1:]


def _cross_ratios_move() -> Sides:
    """Sizes of the cross ratios at t = 0 and t = 1, beta = 1, predicted from the Gram flow."""
    theta = _ring(1.0, 1.0)
    gap = 1 - np.cos(theta[0][:, None] - theta[0])
    gaps = gram.gram_gap([0, 1], gap, beta=1.0, model="usa")
    i = np.arange(5)
    near, far = gaps[:, i, i + 2] * gaps[:, i + 1, i + 3], gaps[:, i, i + 3] * gaps[:, i + 1, i + 2]
    return np.sqrt(near / far), np.abs(kuramoto.cross_ratios(theta[[0, -1]]))


def _angle_sum() -> Sides:
    totals = _ring(1.0, 1.0).sum(axis=1)
    return np.full(len(totals) - 1, totals[0]), totals[1:]


def _angle_drift() -> Sides:
    """Sum of angular velocities under (SA), written out and observed."""
    theta = np.random.default_rng(7).uniform(0, 2 * np.pi, 6)
    apart = theta[:, None] - theta
    weights = np.exp(3 * np.cos(apart))
    drift = -(weights * np.sin(apart)).sum(axis=1) / weights.sum(axis=1)
    return drift.sum(), angular(sa(3.0), theta).sum()


def _order_growth() -> Sides:
    """Speed of R^2 at beta = 0, in four dimensions."""
    import jax.numpy as jnp

    x = uniform(8, 7, 4)
    observed = change(lambda x: jnp.sum(x.mean(axis=0) ** 2), af.kuramoto(), x)
    return 2 / 7 * (velocity(af.kuramoto(), x) ** 2).sum(), observed


def _mean_law() -> Sides:
    """Velocity of the mean token at beta = 0, in four dimensions."""
    x = uniform(8, 7, 4)
    mean = x.mean(axis=0)
    return mean - x.T @ x @ mean / 7, velocity(af.kuramoto(), x).mean(axis=0)


BESSEL = "Rigollet 2025, Sec. 3.3"

CLAIMS = (
    Claim(
        name="circle-kernel-modes",
        statement="The kernel e^(beta cos t) that a token on the circle sees has Bessel coefficients.",
        source=BESSEL,
        check=_kernel,
        oracle=kuramoto.kernel_coefficients,
        tolerance=1e-14,
        why="rounding; aliases I_236/I_0 are below 1e-100",
    ),
    Claim(
        name="circle-force-modes",
        statement="The force between two tokens on the circle has sine coefficients 2 k I_k(beta)/beta.",
        source=BESSEL,
        check=_force_modes,
        oracle=kuramoto.force_coefficients,
        tolerance=1e-13,
        why="rounding of forces below e^2",
    ),
    Claim(
        name="circle-mode-count",
        statement="The kernel has a known number of modes above a given size.",
        source=BESSEL,
        check=_mode_count,
        oracle=kuramoto.mode_count,
        tolerance=0.0,
        why="whole numbers",
    ),
    Claim(
        name="circle-modes-are-quadratic",
        statement="Fourier modes under (USA) obey dm_k/dt = k sum_l l I_l/beta m_l m_(k-l).",
        source="Balasubramanian+ 2025",
        check=_quadratic_modes,
        oracle=kuramoto.kernel_coefficients,
        tolerance=1e-12,
        why="rounding of sums of k l I_l, below 200",
    ),
    Claim(
        name="kuramoto-order-parameter",
        statement="At beta = 0 tokens with Poisson density have R^2 = R0^2 e^t/(1-R0^2+R0^2 e^t).",
        source="Ott, Antonsen 2008",
        check=_ott_antonsen,
        oracle=kuramoto.ott_antonsen,
        printed="* * * * * * * .649790538",
        tolerance=TOL,
        why="solver: 10 rtol of a run; 64 tokens are infinitely many up to .65^64 = 1e-12",
    ),
    Claim(
        name="kuramoto-poisson-tokens",
        statement="Tokens at the Poisson quantiles have moments r0, r0^2, r0^3, ...",
        source="Marvel+ 2009",
        check=_poisson_moments,
        oracle=kuramoto.poisson_angles,
        tolerance=1e-14,
        why="rounding; r0^(64 - 5) is 1e-31",
    ),
    Claim(
        name="kuramoto-cross-ratios",
        statement="At beta = 0 every cross ratio of four tokens on the circle is conserved.",
        source="Watanabe, Strogatz 1994",
        check=_cross_ratios,
        oracle=kuramoto.cross_ratios,
        tolerance=1e-10,
        why="solver: 4 x 10 rtol over the smallest chord of the ring, rtol = 1e-13",
        relative=True,
    ),
    Claim(
        name="cross-ratios-move",
        statement="At beta = 1 cross ratios are not conserved: they change as the Gram flow says.",
        source="Watanabe, Strogatz 1994",
        check=_cross_ratios_move,
        oracle=kuramoto.cross_ratios,
        tolerance=1e-10,
        why="solver: 4 x 10 rtol over the smallest chord of the ring, rtol = 1e-13",
    ),
    Claim(
        name="angle-sum-usa",
        statement="The sum of angles on the circle is conserved under (USA).",
        source="derived: torque identity",
        check=_angle_sum,
        tolerance=8e-12,
        why="solver: 10 rtol for each of eight tokens, rtol = 1e-13",
    ),
    Claim(
        name="angle-sum-sa",
        statement="The sum of angles on the circle drifts under (SA).",
        source="derived: torque identity",
        check=_angle_drift,
        tolerance=1e-14,
        why="rounding of velocities below 1",
    ),
    Claim(
        name="order-parameter-grows",
        statement="At beta = 0, in any dimension, dR^2/dt = (2/n) sum |dx_i/dt|^2.",
        source="derived: gradient flow",
        check=_order_growth,
        tolerance=1e-14,
        why="rounding",
    ),
    Claim(
        name="mean-token-law",
        statement="At beta = 0, in any dimension, dm/dt = m - <x x^T> m.",
        source="derived: mean of the flow",
        check=_mean_law,
        tolerance=1e-14,
        why="rounding",
    ),
)
