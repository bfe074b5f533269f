import numpy as np
import pytest
from scipy.integrate import quad

from attnflow.theory.metastability import (
    cap_cosine,
    collapse_bound,
    collapse_time,
    metastable_window,
    propagation_margin,
)


def test_printed_window(printed):
    beta = np.array([20.0, 40.0, 80.0])
    window = metastable_window(0.2, n=10, beta=beta, eps=1 / (4 * beta), lam=0.3)
    printed(10**window.log10_start, "319.5 482 808")
    printed(10**window.log10_end / 10.0 ** np.array([4, 10, 24]), "1.11 4.9 1.9")


def test_window_is_the_printed_formula():
    alpha, n, beta, eps, lam = 0.1, 7, 60.0, 0.01, 0.4
    window = metastable_window(alpha, n=n, beta=beta, eps=eps, lam=lam)
    start = 2 * n * np.exp(8 * eps * beta) + np.e * n * lam * beta**2 / (beta - 1)
    np.testing.assert_allclose(10**window.log10_start, start, rtol=1e-13)
    np.testing.assert_allclose(10**window.log10_end, eps / n * np.exp(54.0), rtol=1e-12)
    gamma = 1 - alpha - 8 * eps - np.log(2 * n**2 / eps) / beta
    np.testing.assert_allclose(window.separation, gamma, rtol=1e-14)
    assert np.isfinite(metastable_window(0.0, n=9, beta=1e4, eps=0.01, lam=0.4).log10_end)


def test_caps():
    """Two caps at a right angle, and three of which the nearest pair counts."""
    radius = np.arccos(1 - 2 * 0.02)
    np.testing.assert_allclose(cap_cosine(np.eye(3)[:2], 0.02), np.sin(2 * radius), atol=1e-15)
    np.testing.assert_allclose(cap_cosine([0.0, 2.0, 5.5], 0.0), np.cos(2 * np.pi - 5.5))
    np.testing.assert_array_equal(cap_cosine([0.0, 0.1], [0.5, 1.0]), 1.0)
    assert cap_cosine([0.0, 0.0], 0.0) == 1


def test_printed_collapse(printed):
    printed(collapse_time(0.5, beta=5.0), "13.37354013")
    printed(collapse_bound(0.5, beta=5.0), "41.354249")
    beta = np.array([5.0, 10.0, 20.0])
    printed(collapse_time(1 - 1 / beta, beta=beta) / beta, "1.0116 .9197 .9205")


@pytest.mark.parametrize(("u0", "beta", "c"), [(0.1, 3.0, 1.0), (0.7, 12.0, 0.4), (0.5, 0.0, 1.0)])
def test_collapse_time_is_the_quadrature(u0, beta, c):
    """Over v = log(1 - u), in which the end is no singularity."""
    if beta == 0:
        with pytest.raises(ValueError, match="satisfy 1 - u0"):
            collapse_time(u0, beta=beta, c=c)
        return
    time, _ = quad(
        lambda v: np.exp(beta * np.exp(v)) / -np.expm1(v), -c * beta, np.log(1 - u0), epsrel=1e-12
    )  # fmt: skip
    np.testing.assert_allclose(collapse_time(u0, beta=beta, c=c), time, rtol=1e-11)


def test_collapse_is_below_its_bound():
    u0, beta = np.meshgrid(np.linspace(0.05, 0.9, 12), np.linspace(3, 60, 20))
    reached = np.exp(-beta) <= 1 - u0
    assert reached.all()
    assert np.all(collapse_time(u0, beta=beta) <= collapse_bound(u0, beta=beta))


def test_collapse_of_steep_clusters_is_inf_not_an_error():
    assert collapse_time(0.01, beta=900.0) == np.inf
    assert collapse_bound(0.01, beta=900.0) == np.inf


def test_propagation():
    """The logarithm of the printed ratio, and signs on both sides of its root."""
    ratio = (0.1 * 0.9 * np.exp(-0.1 * 30) / 8) / (8 * np.exp(-0.7 * 30))
    margin = propagation_margin(0.1, 0.3, n=8, beta=30.0)
    np.testing.assert_allclose(margin, np.log(ratio), rtol=1e-13)
    assert propagation_margin(0.1, 0.3, n=8, beta=5.0) < 0 < margin


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cap_cosine([0.0], 0.1), r"`len\(centers\)` must be a whole number >= 2"),
        (lambda: cap_cosine([0.0, 1.0], 1.1), "`eps` must lie in"),
        (lambda: cap_cosine(np.ones((2, 3)), 0.1), "unit"),
        (lambda: metastable_window(0, n=0, beta=9.0, eps=0.01, lam=0.1), "`n` must be a whole"),
        (lambda: metastable_window(2, n=2, beta=9.0, eps=0.01, lam=0.1), "`alpha` must lie"),
        (lambda: metastable_window(0, n=2, beta=1.0, eps=0.01, lam=0.1), "`beta` must be > 1"),
        (lambda: metastable_window(0, n=2, beta=9.0, eps=0.1, lam=0.1), "`eps` must lie"),
        (lambda: metastable_window(0, n=2, beta=9.0, eps=0.01, lam=0), "`lam` must be"),
        (lambda: collapse_time(1.0, beta=1.0), r"`u0` must lie in \(0, 1\)"),
        (lambda: collapse_time(0.5, beta=-1.0), "`beta` must be"),
        (lambda: collapse_time(0.5, beta=9.0, c=0.0), "`c` must be"),
        (lambda: collapse_time(0.5, beta=1e4), "c beta <= 1000"),
        (lambda: collapse_time(0.9, beta=1.0), "satisfy 1 - u0"),
        (lambda: collapse_bound(0.5, beta=1.0), "`beta` must be > 1"),
        (lambda: propagation_margin(0.0, 0.1, n=2, beta=1.0), r"`delta` must lie in \(0, 1\)"),
        (lambda: propagation_margin(0.1, 1.1, n=2, beta=1.0), "`alpha` must lie"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
