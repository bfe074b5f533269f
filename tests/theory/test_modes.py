import numpy as np
import pytest
from scipy.special import ive

from attnflow.theory.modes import (
    circle_mode_law,
    circle_modes,
    expected_circle_modes,
    line_mode_band,
    line_mode_law,
    line_modes,
)


def test_printed_expectations(printed):
    printed(expected_circle_modes([10.0, 50.0, 200.0]), "3.8587 8.6532 17.3169")
    printed(circle_mode_law(1.0), "1.2247")


@pytest.mark.parametrize(
    ("beta", "measured", "error"),
    [(10.0, 3.67, 0.10), (50.0, 8.47, 0.12), (200.0, 17.05, 0.20), (200.0, 17.37, 0.21)],
)
def test_measured_counts(beta, measured, error):
    """Printed means of 60 draws with their standard errors."""
    assert abs(measured - expected_circle_modes(beta)) < 3 * error


@pytest.mark.parametrize("beta", [0.01, 1.0, 30.0, 500.0])
def test_expectation_is_the_ratio_of_sums(beta):
    k = np.arange(1.0, 400)
    bessel = ive(k, beta)
    ratio = (k**4 * bessel**2).sum() / (k**2 * bessel**2).sum()
    np.testing.assert_allclose(expected_circle_modes(beta), np.sqrt(ratio), rtol=1e-12)


def test_law_has_the_stated_error():
    beta = np.array([100.0, 10_000.0])
    error = circle_mode_law(beta) / expected_circle_modes(beta) - 1
    np.testing.assert_allclose(error, 1 / (24 * beta), rtol=0.1)


def test_printed_ratios_on_the_line(printed):
    """Modes of one draw beside .45 sqrt(beta log beta); the count of a draw varies by its root."""
    for seed, (n, beta) in enumerate([(500, 500.0), (2000, 200.0)]):
        x = np.random.default_rng(seed).normal(size=n)
        law = 0.44 * line_mode_law(beta)
        assert abs(len(line_modes(x, beta)) - law) < 3 * np.sqrt(law)
    printed(line_mode_law(np.e**2), "3.8442310282")


def test_band():
    low, high = line_mode_band(2000, 2000.0)
    assert low == 0 and high == pytest.approx(np.sqrt(np.log(2000)))
    low, high = line_mode_band(2000, 20.0)
    assert low == pytest.approx(np.sqrt(2 * np.log(2000) - 3 * np.log(20)))
    x = np.random.default_rng(5).normal(size=2000)
    places = np.abs(line_modes(x, 2000.0))
    assert np.mean((places >= 0) & (places <= line_mode_band(2000, 2000.0)[1])) > 0.7


def by_grid(field, grid):
    """Places between which a field falls through 0."""
    value = field(grid)
    return grid[:-1][(value[:-1] > 0) & (value[1:] <= 0)]


@pytest.mark.parametrize(("seed", "n", "beta"), [(0, 3, 5.0), (1, 50, 30.0), (2, 400, 200.0)])
def test_circle_modes_are_on_a_fine_grid(seed, n, beta):
    theta = np.random.default_rng(seed).uniform(-np.pi, np.pi, n)

    def field(at):
        apart = theta - at[:, None]
        return (np.exp(beta * (np.cos(apart) - 1)) * np.sin(apart)).sum(axis=1)

    step = 2 * np.pi / 20_000
    expected = by_grid(field, np.arange(-np.pi, np.pi + step, step))
    found = circle_modes(theta, beta)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=step)
    mass = field(found)
    assert np.abs(mass).max() < 1e-8


@pytest.mark.parametrize(("seed", "n", "beta"), [(0, 3, 5.0), (1, 50, 30.0), (2, 400, 200.0)])
def test_line_modes_are_on_a_fine_grid(seed, n, beta):
    x = np.random.default_rng(seed).normal(size=n)

    def field(at):
        apart = x - at[:, None]
        return (np.exp(-beta / 2 * apart**2) * apart).sum(axis=1)

    step = 4e-4
    expected = by_grid(field, np.arange(x.min() - 0.1, x.max() + 0.1, step))
    found = line_modes(x, beta)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=step)


def test_modes_in_closed_form():
    """One token, two far tokens, two tokens either side of the distance at which modes part."""
    np.testing.assert_allclose(circle_modes([2.5], 3.0), [2.5], atol=1e-12)
    np.testing.assert_allclose(line_modes([-7.0], 3.0), [-7], atol=1e-11)
    np.testing.assert_allclose(line_modes([0.0, 30.0], 40.0), [0, 30], atol=1e-11)
    assert len(line_modes([0.0, 1.99], 1.0)) == 1
    assert len(line_modes([0.0, 2.01], 1.0)) == 2
    apart = np.arccos(
        np.sqrt(1 + 1 / (4 * 9.0)) - 1 / (2 * 3.0)
    )  # beta sin^2 = cos at half the gap
    assert len(circle_modes([-0.0, 1.9 * apart], 3.0)) == 1
    assert len(circle_modes([-0.0, 2.1 * apart], 3.0)) == 2


def test_modes_turn_with_the_tokens():
    theta = np.random.default_rng(3).uniform(-np.pi, np.pi, 30)
    turned = circle_modes(theta + 1.0, 80.0)
    expected = np.sort((circle_modes(theta, 80.0) + 1 + np.pi) % (2 * np.pi) - np.pi)
    np.testing.assert_allclose(turned, expected, atol=1e-11)


def test_deep_gaps_confuse_nobody():
    """Densities of e^-4000 between tokens: one mode each."""
    theta = np.linspace(-3.0, 3.0, 12)
    np.testing.assert_allclose(circle_modes(theta, 1e5), theta, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_circle_modes(0.0), "`beta` must be"),
        (lambda: circle_mode_law(-1.0), "`beta` must be"),
        (lambda: line_mode_law(1.0), "`beta` must be > 1"),
        (lambda: line_mode_band(1, 2.0), "`n` must be > 1"),
        (lambda: line_mode_band(10, 100.0), r"`beta` must lie in \(1, n\^2\)"),
        (lambda: circle_modes([], 1.0), "`theta` must be a list of numbers"),
        (lambda: circle_modes([np.nan], 1.0), "`theta` must be finite"),
        (lambda: circle_modes([1.0], 0.0), "`beta` must be"),
        (lambda: circle_modes(2 * np.pi * np.arange(64) / 64, 1.0), "flat to rounding"),
        (lambda: line_modes([[1.0]], 1.0), "`x` must be a list of numbers"),
        (lambda: line_modes([1.0], np.inf), "`beta` must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
