import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from attnflow.analysis.transport import circle_w2, sample_w2


def assignment(a, b):
    gaps = np.abs((a[:, None] - b[None] + np.pi) % (2 * np.pi) - np.pi) ** 2
    rows, columns = linear_sum_assignment(gaps)
    return np.sqrt(gaps[rows, columns].mean())


@pytest.mark.parametrize("n", [1, 2, 5, 40, 150])
def test_circle_equals_the_assignment_problem(n):
    a, b = np.random.default_rng(n).uniform(-9, 9, (2, n))
    exact = assignment(a, b)
    assert circle_w2(a, b) == pytest.approx(exact, rel=1e-13)
    assert circle_w2(a, b, weights=(np.full(n, 1 / n), None)) == pytest.approx(exact, rel=1e-12)
    assert circle_w2(a, np.repeat(b, 3)) == pytest.approx(exact, rel=1e-12)


def test_weights_are_repeated_tokens():
    rng = np.random.default_rng(0)
    a, b, counts = rng.uniform(0, 6, 8), rng.uniform(0, 6, 20), np.array([1, 2, 3, 4, 1, 2, 3, 4])
    exact = assignment(np.repeat(a, counts), b)
    assert circle_w2(a, b, weights=(counts / 20, None)) == pytest.approx(exact, rel=1e-12)


def test_metric():
    rng = np.random.default_rng(1)
    a, b, c = rng.uniform(0, 2 * np.pi, (3, 30))
    assert circle_w2(a, a) == 0
    assert circle_w2(a, b) == pytest.approx(circle_w2(b, a), rel=1e-13)
    assert circle_w2(a, c) <= circle_w2(a, b) + circle_w2(b, c)
    assert circle_w2(a + 0.3, b + 0.3 + 2 * np.pi) == pytest.approx(circle_w2(a, b), rel=1e-12)
    assert circle_w2(a + np.pi, a + np.pi - 1e-9) == pytest.approx(1e-9, rel=1e-6)
    # Antipodes: every plan costs pi.
    assert circle_w2(np.zeros(3), np.full(3, np.pi)) == pytest.approx(np.pi)


def test_uniform_samples_come_near_at_the_root_of_n():
    # Two samples of n on a circle of length 2 pi: E W2^2 = 2 (2 pi)^2 / (12 n), the optimal shift included.
    rng, n = np.random.default_rng(2), 4000
    squares = [circle_w2(*rng.uniform(0, 2 * np.pi, (2, n))) ** 2 for _ in range(200)]
    expected, error = 2 * (2 * np.pi) ** 2 / (12 * n), np.std(squares) / np.sqrt(200)
    assert abs(np.mean(squares) - expected) < 4 * error + expected / np.sqrt(n)


def test_samples_by_pot_equal_the_circle():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 6, 25), rng.uniform(0, 6, 40)
    x, y = (np.stack([np.cos(t), np.sin(t)], 1) for t in (a, b))
    assert sample_w2(x, y) == pytest.approx(circle_w2(a, b), rel=1e-10)


def test_bad_input():
    with pytest.raises(ValueError, match="`theta` must be finite"):
        circle_w2(np.array([np.nan]), np.zeros(1))
    with pytest.raises(ValueError, match="weights"):
        circle_w2(np.zeros(2), np.zeros(1), weights=(np.array([0.5, 0.2]), None))
    with pytest.raises(ValueError, match="`x` must hold unit vectors"):
        sample_w2(np.ones((2, 3)), np.ones((2, 3)))
