import numpy as np
import pytest

from attnflow.theory.renyi import interaction_peak, renyi_centers, renyi_count


def test_peak_is_the_maximum():
    """h' = e^(beta (cos x - 1)) (cos x - beta sin^2 x) vanishes, and is of either sign beside it."""
    beta = np.array([0.0, 0.3, 1.0, 9.0, 1e4, 1e12])
    peak = interaction_peak(beta)

    def slope(x):
        return np.cos(x) - beta * np.sin(x) ** 2

    assert np.all(slope(peak * (1 - 1e-9)) > 0) and np.all(slope(peak * (1 + 1e-9)) < 0)
    assert peak[0] == pytest.approx(np.pi / 2) and np.all(peak[1:] < beta[1:] ** -0.5)
    heat = beta[1:5]
    printed = np.arccos((np.sqrt(1 + 4 * heat**2) - 1) / (2 * heat))
    np.testing.assert_allclose(peak[1:5], printed, rtol=1e-8)
    np.testing.assert_allclose(peak[-1], 1e-6, rtol=1e-12)


def by_definition(theta, delta, strong):
    """Centers by arc distance, written out."""
    centers = []
    for k, angle in enumerate(theta):
        earlier = range(k) if strong else centers
        arcs = [abs((angle - theta[j] + np.pi) % (2 * np.pi) - np.pi) for j in earlier]
        if all(arc > delta for arc in arcs):
            centers.append(k)
    return centers


@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize("delta", [0.05, 0.4, 3.0])
def test_centers_are_as_defined(strong, delta):
    theta = np.random.default_rng(0).uniform(-np.pi, np.pi, 60)
    expected = by_definition(theta, delta, strong)
    np.testing.assert_array_equal(renyi_centers(theta, delta, strong=strong), expected)
    points = np.column_stack([np.cos(theta), np.sin(theta)])
    np.testing.assert_array_equal(renyi_centers(points, delta, strong=strong), expected)


def test_strong_centers_are_centers():
    x = np.random.default_rng(1).normal(size=(80, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    strong, plain = renyi_centers(x, 0.4, strong=True), renyi_centers(x, 0.4)
    assert set(strong) <= set(plain) and 1 < len(strong) < len(plain) < 80
    gaps = np.arccos(np.clip(x[plain] @ x[plain].T - 2 * np.eye(len(plain)), -1, 1))
    assert gaps.min() > 0.4


def test_printed_counts(printed):
    printed([renyi_count(delta, n=1500, strong=True) for delta in (0.1, 0.3)], "31.416 10.472")
    printed([renyi_count(delta) for delta in (0.1, 0.3)], "46.97 15.66")
    printed(renyi_count(0.1) * 0.1 / (2 * np.pi), ".7475979")


@pytest.mark.parametrize(
    ("strong", "delta", "measured"),
    [(True, 0.1, 31.35), (False, 0.1, 46.18), (True, 0.3, 10.42), (False, 0.3, 15.47)],
)
def test_counts_of_the_printed_draws(strong, delta, measured):
    """60 draws; a center takes the place of others, so the variance is below the mean."""
    law = renyi_count(delta, n=1500, strong=strong)
    assert abs(measured - law) < 3 * np.sqrt(law / 60)


def test_strong_count_is_the_sum():
    for delta, n in ((0.1, 1), (0.5, 7), (3.0, 40)):
        terms = (1 - delta / np.pi) ** np.arange(n)
        assert renyi_count(delta, n=n, strong=True) == pytest.approx(terms.sum(), rel=1e-13)
    assert renyi_count(0.5, strong=True) == pytest.approx(np.pi / 0.5, rel=1e-14)


def test_plain_count_of_few_tokens():
    """One token is a center; the second is one unless within delta. Stated error delta / 20."""
    delta = 0.3
    assert abs(renyi_count(delta, n=1) - 1) < delta / 20
    assert abs(renyi_count(delta, n=2) - (2 - delta / np.pi)) < delta / 20
    counts = [renyi_count(delta, n=n) for n in (1, 10, 100, 1000, 10**6)]
    assert np.all(np.diff(counts) > 0) and counts[-1] < renyi_count(delta)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interaction_peak(-1.0), "`beta` must be"),
        (lambda: renyi_centers([0.0, 1.0], 0.0), "`delta` must lie"),
        (lambda: renyi_centers([0.0, 1.0], 4.0), "`delta` must lie"),
        (lambda: renyi_centers(np.ones((2, 2)), 0.1), "unit vectors"),
        (lambda: renyi_count(0.0, strong=True), "`delta` must lie"),
        (lambda: renyi_count(2.0), "`delta` must lie"),
        (lambda: renyi_count(0.1, n=0), "`n` must be >= 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
