import numpy as np
import pytest

from attnflow.analysis.rates import fit_rate

TS = np.linspace(0.0, 12.0, 121)


def test_exact_laws_are_recovered_and_preferred():
    exponential = fit_rate(TS, 5 * np.exp(-1.7 * TS))
    np.testing.assert_allclose(exponential.exponential.rate, 1.7, rtol=1e-12)
    np.testing.assert_allclose(exponential.exponential.log_constant, np.log(5), rtol=1e-12)
    assert exponential.preferred == "exponential"
    power = fit_rate(TS, 3 * np.maximum(TS, 1e-3) ** -2)
    np.testing.assert_allclose(power.power.rate, 2, rtol=1e-12)
    assert power.preferred == "power"
    assert power.log_evidence < 0 < exponential.log_evidence


@pytest.mark.parametrize("transient", [-0.5, 0.5, 20.0])
def test_window_skips_the_transient_and_the_rounding_floor(transient):
    """e^(-2t)(1 + a e^(-3t)), rounded at 1e-15.

    Where the misfit is below 1 % over a span of at least 4, the slope is off by less than
    sqrt(12) 0.01 / 4; the floor 1e-13 is reached at t = 15.
    """
    ts = np.linspace(0.0, 30.0, 301)
    noise = 1e-15 * np.random.default_rng(0).normal(size=301)
    fit = fit_rate(ts, np.exp(-2 * ts) * (1 + transient * np.exp(-3 * ts)) + noise)
    assert fit.preferred == "exponential"
    assert abs(fit.exponential.rate - 2) < np.sqrt(12) * 0.01 / 4
    assert 14.5 < fit.window[1] < 15.1
    low, high = fit.exponential.interval
    assert low < 2 < high


def test_pre_ln_decay_is_a_power_law():
    """1 - rho = 1/(1 + t)^2 is a power law late only: the window starts late, and says so."""
    ts = np.linspace(0.0, 2000.0, 2001)
    fit = fit_rate(ts, (1 + ts) ** -2)
    assert fit.preferred == "power"
    # The exponent 2t/(1+t) is below 2 throughout.
    assert 2 - 2 / (1 + fit.window[0]) < fit.power.rate < 2
    assert fit.window[0] > 0


def test_intervals_of_noisy_data_cover_the_rate():
    """Independent errors: at least 95 % of 400 intervals, less 3 standard errors of that share."""
    rng = np.random.default_rng(1)
    fits = [
        fit_rate(
            TS, np.exp(-0.8 * TS + 0.05 * rng.normal(size=121)), window=(0.0, 12.0)
        ).exponential
        for _ in range(400)
    ]
    share = np.mean([fit.interval[0] < 0.8 < fit.interval[1] for fit in fits])
    assert share > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)
    # Least squares: standard deviation = sigma / (spread of t), to 3/sqrt(2 400).
    expected = 0.05 / np.linalg.norm(TS - TS.mean())
    deviation = np.std([fit.rate for fit in fits])
    errors = np.mean([fit.error for fit in fits])
    np.testing.assert_allclose([deviation, errors], expected, rtol=3 / np.sqrt(800))


def test_drift_shows_a_curve_that_is_no_line():
    """log y = -t^2: halves [0, 6] and [6, 12] have slopes 6 and 18, so the drift is 6."""
    fit = fit_rate(TS, np.exp(-(TS**2)), window=(0.0, 12.0))
    np.testing.assert_allclose(fit.exponential.drift, 6, rtol=0.01)
    np.testing.assert_allclose(fit.exponential.rate, 12, rtol=1e-9)


def test_noise_that_hides_the_law_is_undecided():
    rng = np.random.default_rng(3)
    ts = np.linspace(10.0, 11.0, 20)
    fit = fit_rate(ts, np.exp(-0.3 * ts + 0.2 * rng.normal(size=20)), window=(10.0, 11.0))
    assert fit.preferred == "undecided"


def test_evidence_is_that_of_gaussian_residuals():
    """Both laws have as many parameters: log evidence = n log(ratio of residuals)."""
    rng = np.random.default_rng(4)
    y = np.exp(-TS + 0.1 * rng.normal(size=121))
    fit = fit_rate(TS, y, window=(1.0, 5.0))
    ratio = fit.power.residual / fit.exponential.residual
    np.testing.assert_allclose(fit.log_evidence, fit.count * np.log(ratio), rtol=1e-12)


def test_a_window_from_0_has_no_power_law():
    fit = fit_rate(TS, np.exp(-TS), window=(0.0, 5.0))
    assert fit.power is None
    assert fit.preferred == "undecided"
    assert fit.window == (0.0, 5.0)


@pytest.mark.parametrize(
    ("y", "window", "message"),
    [
        (np.exp(-TS), (1.0, 1.1), "must have 4 times in the window, but it has 2"),
        (1 - TS / 6, (0.0, 12.0), "`y` must be positive and finite in the window"),
        (1e-20 * np.exp(-TS), None, "must have 8 times in the window, but it has 0"),
    ],
)
def test_bad_input(y, window, message):
    with pytest.raises(ValueError, match=message):
        fit_rate(TS, y, window=window)
