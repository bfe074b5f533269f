import numpy as np
import pytest

from attnflow.theory.hemisphere import hemisphere


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("d", [2, 3, 16])
def test_certificate_of_a_cap(n, d):
    """Tokens with <x, u> >= 1/4 for a random u: the direction found proves a margin."""
    rng = np.random.default_rng(n + d)
    u = unit(rng.normal(size=(1, d)))[0]
    sides = rng.normal(size=(n, d))
    sides -= np.outer(sides @ u, u)
    x = unit(u + unit(sides) * rng.uniform(0, 3, (n, 1)))
    found = hemisphere(x)
    assert found.exists
    np.testing.assert_allclose(np.linalg.norm(found.direction), 1, rtol=1e-14)
    np.testing.assert_allclose(found.margin, (x @ found.direction).min(), atol=1e-14)
    assert found.bound >= min((x @ u).min(), 1) - 1e-12


def test_certificate_of_none():
    """Balanced tokens have 0 in their convex hull: no margin above rounding."""
    t = 2 * np.pi * np.arange(5) / 5
    for x in (
        np.column_stack([np.cos(t), np.sin(t)]),
        np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]]),
        unit(np.random.default_rng(0).normal(size=(200, 3))),
    ):
        found = hemisphere(x)
        assert not found.exists
        assert found.bound < 1e-12


def test_closed_hemisphere_is_not_enough():
    """Points on a half circle with both ends: <x, w> >= 0 is possible, > 0 is not."""
    t = np.linspace(0, np.pi, 7)
    assert not hemisphere(np.column_stack([np.cos(t), np.sin(t)])).exists
    assert hemisphere(np.column_stack([np.cos(t[:-1]), np.sin(t[:-1])])).exists


def test_bound_is_tight_for_two_tokens():
    """At 120 degrees the best margin is cos 60 = 1/2, and the multipliers prove it."""
    x = np.array([[1.0, 0], [-0.5, np.sqrt(3) / 2]])
    found = hemisphere(x)
    assert 0 < found.margin <= 0.5 + 1e-12 <= found.bound + 1e-11


def test_linear_program_finds_what_least_squares_misses():
    """30 random tokens in dimension 20: Wendel's probability of a hemisphere is 0.969."""
    guessed = 0
    for seed in range(20):
        x = unit(np.random.default_rng(seed).normal(size=(30, 20)))
        found = hemisphere(x)
        assert found.exists == (found.bound > 1e-12)
        guessed += (x @ np.linalg.lstsq(x, np.ones(30))[0]).min() > 0
    assert guessed < 15


def test_undecided_is_not_a_proof():
    x = unit(np.random.default_rng(0).normal(size=(60, 40)))
    found = hemisphere(x, time_limit=0.0)
    assert not found.exists
    assert found.bound > 0
    assert hemisphere(x).exists


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones((3, 1)), "d >= 2"),
        (np.ones(3), "d >= 2"),
        (np.ones((0, 3)), "n >= 1"),
        (np.ones((2, 2)), "Divide each row by its norm"),
        (np.array([[1.0, np.nan]]), "be finite"),
    ],
)
def test_bad_input(tokens, message):
    with pytest.raises(ValueError, match=message):
        hemisphere(tokens)
