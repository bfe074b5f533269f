import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import ive

from attnflow.theory import kuramoto


def circle_run(theta, beta, t):
    """Angles under (USA) at time t."""

    def rhs(t, y):
        gaps = y[:, None] - y
        return -(np.exp(beta * np.cos(gaps)) * np.sin(gaps)).mean(axis=1)

    return solve_ivp(rhs, (0, t), theta, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]


@pytest.mark.parametrize("beta", [-3.0, 0.0, 1e-8, 1.0, 9.0, 200.0])
def test_series_sum_to_the_functions(beta):
    """Truncated at 1e-17 of I_0, k times that for the force; scaled by e^-|beta|."""
    t = np.linspace(-3, 3, 41)
    modes = kuramoto.mode_count(beta) + 4
    k = np.arange(1, modes + 1)
    c = kuramoto.kernel_coefficients(beta, modes, scaled=True)
    kernel = np.exp(beta * np.cos(t) - abs(beta))
    got = c[0] + 2 * np.cos(np.outer(t, k)) @ c[1:]
    np.testing.assert_allclose(got, kernel, rtol=0, atol=4e-15)
    force = np.sin(np.outer(t, k)) @ kuramoto.force_coefficients(beta, modes, scaled=True)
    np.testing.assert_allclose(force, kernel * np.sin(t), rtol=0, atol=4e-15)


def test_unscaled_coefficients():
    for series in (kuramoto.kernel_coefficients, kuramoto.force_coefficients):
        scaled = series(-4.0, 9, scaled=True)
        np.testing.assert_allclose(series(-4.0, 9), np.exp(4) * scaled, rtol=1e-15)


def test_mode_count_is_the_cutoff():
    for beta in (0.3, 4.0, 1e4):
        k = kuramoto.mode_count(beta)
        c = kuramoto.kernel_coefficients(beta, k, scaled=True) / kuramoto.kernel_coefficients(
            beta, 0, scaled=True
        )
        assert c[k] < 1e-17 <= c[k - 1]


def test_ott_antonsen(printed):
    printed(kuramoto.ott_antonsen([0, 2], 0.3)[1], ".64979054")
    run = solve_ivp(
        lambda t, r: r * (1 - r**2) / 2, (0, 9), [0.3],
        t_eval=[0, 1, 9], method="DOP853", rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(kuramoto.ott_antonsen([0, 1, 9], 0.3), run.y[0], rtol=1e-10)
    np.testing.assert_array_equal(kuramoto.ott_antonsen([0, 5e3], 0), 0)
    np.testing.assert_array_equal(kuramoto.ott_antonsen([0, 5e3], 1), 1)
    assert kuramoto.ott_antonsen([0, 5e3], 1e-3)[1] == 1


def test_poisson_angles_follow_ott_antonsen():
    """4000 tokens: the mean field is their own mean, so one mode carries the flow."""
    theta = kuramoto.poisson_angles(4000, 0.3)
    assert (np.diff(theta) > 0).all()
    np.testing.assert_allclose(np.exp(1j * theta).mean(), 0.3, atol=1e-14)

    def rhs(t, y):
        z = np.exp(1j * y)
        return (z.mean() * z.conj()).imag

    run = solve_ivp(rhs, (0, 2), theta, method="DOP853", rtol=1e-12, atol=1e-13)
    order = np.abs(np.exp(1j * run.y[:, -1]).mean())
    assert abs(order - 0.649790538) <= 1e-9
    np.testing.assert_allclose(order, kuramoto.ott_antonsen([0, 2], 0.3)[1], rtol=0, atol=1e-11)


def test_cross_ratios_are_the_complex_ones():
    theta = np.random.default_rng(0).uniform(0, 2 * np.pi, (3, 7))
    z = np.exp(1j * theta)
    a, b, c, d = z[:, :-3], z[:, 1:-2], z[:, 2:-1], z[:, 3:]
    ratio = (a - c) * (b - d) / ((a - d) * (b - c))
    np.testing.assert_allclose(kuramoto.cross_ratios(theta), ratio, rtol=1e-11)


def test_cross_ratios_are_conserved_at_beta_zero_only():
    theta = np.random.default_rng(1).uniform(0, 2 * np.pi, 7)
    start = kuramoto.cross_ratios(theta)
    np.testing.assert_allclose(
        kuramoto.cross_ratios(circle_run(theta, 0.0, 3.0)), start, rtol=1e-10
    )
    moved = kuramoto.cross_ratios(circle_run(theta, 1.0, 1.0)) / start - 1
    assert np.abs(moved).max() > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kuramoto.kernel_coefficients(np.nan, 3), "`beta` must be finite"),
        (lambda: kuramoto.force_coefficients(1.0, 0), "`modes` must be"),
        (lambda: kuramoto.mode_count(1.0, tol=0.0), "`tol` must lie"),
        (lambda: kuramoto.ott_antonsen([0, 1], 1.1), r"`r0` must lie in \[0, 1\]"),
        (lambda: kuramoto.poisson_angles(4, 1.0), "`r0` must be < 1"),
        (lambda: kuramoto.poisson_angles(0, 0.5), "`n` must be"),
        (lambda: kuramoto.cross_ratios(np.zeros(3)), "at least four angles"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kappa", [0.5, 3.0, 20.0])
def test_order_of_few_noisy_tokens(kappa):
    """One token has R = 1; two have R^2 = (1 + cos phi)/2 with phi of density e^(kappa/2 cos phi)."""
    assert kuramoto.noisy_mean_square(1, kappa) == pytest.approx(1, rel=1e-13)
    mean = ive(1, kappa / 2) / ive(0, kappa / 2)
    assert kuramoto.noisy_mean_square(2, kappa) == pytest.approx((1 + mean) / 2, rel=1e-13)


def test_order_of_many_noisy_tokens():
    """Below the threshold R^2 = 1/(n (1 - kappa/2)); above it that of the density, up to 1/n."""
    assert kuramoto.noisy_mean_square(10**6, 1.0) == pytest.approx(2e-6, rel=1e-5)
    assert kuramoto.noisy_mean_square(10**7, 3.0) == pytest.approx(0.7241587176**2, abs=1e-6)
    np.testing.assert_allclose(kuramoto.noisy_mean_square(50, [1e-9, 1e-3]), 0.02, rtol=1e-3)


@pytest.mark.parametrize(
    ("n", "kappa", "message"),
    [
        (0, 1.0, "`n` must be a whole number >= 1"),
        (8, 0.0, "`kappa` must be finite and > 0"),
        (8, [1.0, np.inf], "`kappa` must be finite and > 0"),
    ],
)
def test_bad_noise(n, kappa, message):
    with pytest.raises(ValueError, match=message):
        kuramoto.noisy_mean_square(n, kappa)
