import tracemalloc

import numpy as np
import pytest

from attnflow.theory import clustering

HEMISPHERE = "open hemisphere"
INDEPENDENT = "no more tokens than dimensions"
SPHERE = "sphere, almost every start"
CIRCLE = "circle, almost every start"
EXTREME = "small or large beta"
CAUSAL = "causal mask, almost every start"
RING = "stable ring of three"
RATE = "rate at consensus"
DENSITY = "mean field with a density"
GATHERED = "already one point"
NAMES = {
    HEMISPHERE, INDEPENDENT, SPHERE, CIRCLE, EXTREME, CAUSAL, RING, RATE, DENSITY, GATHERED
}  # fmt: skip


def uniform(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ring(n):
    t = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(t), np.sin(t)])


def cap(n, d):
    x = np.abs(uniform(n, d)) + 0.3
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def applying(*args, **kwargs):
    return {entry.name for entry in clustering.theorems(*args, **kwargs) if entry.applies}


@pytest.mark.parametrize(
    ("model", "beta", "tokens", "value", "expected"),
    [
        ("sa", 1.0, uniform(40, 3), 1.0, {SPHERE, RATE}),
        ("usa", 90.0, uniform(40, 3), 2.0, {SPHERE, RATE}),
        ("sa", 0.0, uniform(40, 3), 1.0, {SPHERE, EXTREME, RATE}),
        ("sa", 1.0, cap(40, 3), 1.0, {SPHERE, HEMISPHERE, RATE}),
        ("sa", 1.0, uniform(5, 8), 1.0, {SPHERE, HEMISPHERE, INDEPENDENT, RATE}),
        ("sa", 0.0, uniform(5, 8), 1.0, {SPHERE, EXTREME, RATE}),
        ("sa", 1.0, uniform(2, 9), 1.0, {SPHERE, HEMISPHERE, INDEPENDENT, RATE}),
        ("sa", -0.1, uniform(40, 3), 1.0, {RATE}),
        ("sa", 5.0, uniform(40, 2), 1.0, {CIRCLE, RATE}),
        ("usa", -0.16, uniform(40, 2), 1.0, {CIRCLE, RATE}),
        ("usa", -0.17, uniform(40, 2), 1.0, {RATE}),
        ("sa", -0.8, uniform(6, 2), 1.0, {RING, RATE}),
        ("sa", -0.8, uniform(7, 2), 1.0, {RATE}),
        ("sa", -0.6, uniform(6, 2), 1.0, {RATE}),
        ("sa", 1.0, uniform(5, 8), -1.0, set()),
        ("causal", 3.0, uniform(40, 3), 1.0, {CAUSAL, RATE}),
        ("causal", -1.0, uniform(40, 3), 1.0, {RATE}),
        ("hardmax", np.inf, uniform(5, 8), 1.0, set()),
        ("sinkhorn", 1.0, uniform(5, 8), 1.0, set()),
        # one token, and repeated tokens: nothing is left to prove
        ("sa", 1.0, uniform(1, 3), 1.0, {GATHERED, HEMISPHERE, INDEPENDENT}),
        ("sa", 1.0, np.tile(uniform(1, 3), (9, 1)), 1.0, {GATHERED, HEMISPHERE, RATE}),
        # exceptional starts: stationary, whatever beta; or inside a great circle
        ("sa", 60.0, ring(6), 1.0, {RATE}),
        ("sa", 1.0, np.repeat([[1.0, 0, 0], [-1, 0, 0]], 3, axis=0), 1.0, {RATE}),
        ("causal", 1.0, np.array([[1.0, 0], [-1, 0]]), 1.0, {RATE}),
        ("causal", 1.0, ring(6), 1.0, {CAUSAL, RATE}),
        ("sa", 1.0, uniform(3, 8)[[0, 1, 2, 2]], 1.0, {SPHERE, HEMISPHERE, RATE}),
        ("sa", 5.0, np.pad(uniform(40, 2), ((0, 0), (0, 3))), 1.0, {CIRCLE, RATE}),
        ("sa", -0.8, np.pad(uniform(6, 2), ((0, 0), (0, 3))), 1.0, {RING, RATE}),
        ("sa", 5.0, np.pad(uniform(40, 3), ((0, 0), (0, 3))), 1.0, {SPHERE, RATE}),
    ],
)
def test_what_applies(model, beta, tokens, value, expected):
    assert applying(model, beta, tokens, value=value) == expected


def test_large_beta_is_slow_not_stationary():
    """Speeds of e^-500 are still speeds."""
    x = np.array([[1.0, 0, 0], [0, 1, 0], [-0.6, -0.8, 0], [0, 0, 1], [0, 0.6, -0.8]])
    assert SPHERE in applying("sa", 500.0, x)


def test_entries_are_complete_and_sorted():
    entries = clustering.theorems("usa", 1.0, uniform(12, 3))
    assert {entry.name for entry in entries} == NAMES
    assert [entry.applies for entry in entries] == sorted(
        [e.applies for e in entries], reverse=True
    )
    for entry in entries:
        assert entry.reason.startswith("holds: " if entry.applies else "fails: ")
        assert entry.promise.endswith(".")
        assert entry.source
        assert entry.status in ("quoted", "verified")


def test_reasons_carry_numbers():
    by_name = {entry.name: entry for entry in clustering.theorems("sa", 2.5, uniform(12, 3))}
    assert by_name[CIRCLE].reason == "fails: d = 2 (d = 3, the tokens span 3 dimensions)"
    assert "margin = 0, at most" in by_name[HEMISPHERE].reason
    assert "constants not explicit" in by_name[EXTREME].reason
    assert "12 point masses" in by_name[DENSITY].reason
    assert "beta = 2.5" in by_name[SPHERE].reason


def test_rates():
    def rate(name, *args, **kwargs):
        return {entry.name: entry.rate for entry in clustering.theorems(*args, **kwargs)}[name]

    assert rate(HEMISPHERE, "sa", 3.0, cap(9, 3), value=2.0) == 2
    assert rate(INDEPENDENT, "usa", 3.0, uniform(3, 4)) == pytest.approx(np.exp(3), rel=1e-14)
    assert rate(RATE, "causal", 3.0, cap(9, 3)) == 0.5
    assert rate(SPHERE, "sa", 3.0, cap(9, 3)) is None
    assert rate(DENSITY, "usa", 0.1, cap(9, 3)) == 0.01
    # slowest mode of the ring of three: e^(-beta/2) (1/2 + 3 beta / 4) = -.14918247 under USA
    assert rate(RING, "usa", -0.8, uniform(3, 2)) == pytest.approx(0.1 * np.exp(0.4), rel=1e-13)


def test_density_theorem_never_covers_tokens():
    for beta in (0.0, 1e-9, 1.0):
        assert DENSITY not in applying("usa", beta, cap(50, 2))


def test_many_tokens_in_a_second():
    assert applying("sa", 9.0, cap(1797, 64)) == {SPHERE, HEMISPHERE, RATE}


def test_many_tokens_need_little_memory():
    """256 rows of cosines with 300 000 tokens are 0.6 GB, several times over."""
    x = np.random.default_rng(0).normal(size=(300_000, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    tracemalloc.start()
    clustering.theorems("sa", 81.0, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clustering.theorems("saa", 1.0, np.eye(3)), "Did you mean 'sa'"),
        (lambda: clustering.theorems("sa", np.nan, np.eye(3)), "`beta` must be finite"),
        (lambda: clustering.theorems("sa", np.inf, np.eye(3)), "`beta` must be finite"),
        (lambda: clustering.theorems("sa", 1.0, 2 * np.eye(3)), "Divide each row"),
        (lambda: clustering.theorems("sa", 1.0, np.ones((4, 1))), "d >= 2"),
        (lambda: clustering.theorems("sa", 1.0, np.eye(3), value=np.nan), "`value` must be finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_motion_is_found_in_any_row():
    x = np.tile(ring(1), (600, 1))
    x[599] = [np.cos(1), np.sin(1)]
    assert CAUSAL in applying("causal", 1.0, x)
    assert CAUSAL not in applying("causal", 1.0, ring(4)[[0] * 599 + [2]])
