import numpy as np
import pytest
from scipy.integrate import solve_ivp

from attnflow.theory import equiangular, gram, rates, stationary


def unit(rng, n, d):
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def particles(x, ts, beta, model, mask, weights, value):
    """Gram matrices of the tokens themselves, integrated in R^d."""

    def rhs(t, flat):
        y = flat.reshape(x.shape)
        y = y / np.linalg.norm(y, axis=1, keepdims=True)
        a = mask * weights * np.exp(beta * y @ y.T)
        a = a / a.sum(axis=1, keepdims=True) if model == "sa" else a
        v = value * a @ y
        return (v - (v * y).sum(axis=1, keepdims=True) * y).ravel()

    run = solve_ivp(
        rhs, (ts[0], ts[-1]), x.ravel(), t_eval=ts, method="DOP853", rtol=1e-12, atol=1e-14
    )
    y = run.y.T.reshape(-1, *x.shape)
    y /= np.linalg.norm(y, axis=2, keepdims=True)
    return y @ y.transpose(0, 2, 1)


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("mask", [None, "causal", "band"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("value", [1.0, -1.0, 2.0])
def test_gram_flow_is_the_particle_flow(model, mask, weighted, value):
    """Both are solved to a relative 1e-12 over a time of order 1."""
    rng, n, ts = np.random.default_rng(1), 5, np.array([0, 0.3, 1.5])
    x = unit(rng, n, 4)
    band = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1
    matrix = {None: np.ones((n, n)), "causal": np.tri(n), "band": band}[mask]
    weights = np.array([0.1, 0.3, 0.2, 0.15, 0.25]) if weighted else np.full(n, 1 / n)
    got = gram.gram(
        ts,
        x @ x.T,
        beta=2.0,
        model=model,
        mask=band if mask == "band" else mask,
        weights=weights if weighted else None,
        value=value,
    )
    expected = particles(x, ts, 2.0, model, matrix, weights, value)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("beta", [-2.0, 0.0, 5.0])
def test_equiangular_tokens_stay_equiangular(n, beta):
    ts, start = np.linspace(0, 3, 4), 0.9 * np.eye(n) + 0.1
    for model, cosine in (("sa", equiangular.cosine_sa), ("usa", equiangular.cosine_usa)):
        clock = ts * np.exp(-max(beta, 0)) if model == "usa" else ts
        got = gram.gram(clock, start, beta=beta, model=model)
        rho = cosine(clock, 0.1, n=n, beta=beta)
        off = ~np.eye(n, dtype=bool)
        np.testing.assert_allclose(
            got[:, off], np.tile(rho[:, None], off.sum()), rtol=0, atol=1e-11
        )


def test_repulsive_tokens_stay_on_the_sphere():
    x = unit(np.random.default_rng(2), 6, 3)
    run = gram.gram([0, 5, 50], x @ x.T, beta=20.0, value=-1.0)
    np.testing.assert_array_equal(np.diagonal(run, axis1=1, axis2=2), 1)
    assert np.linalg.eigvalsh(run[-1])[:3].max() < 1e-9  # three dimensions still


def test_repeated_tokens_are_weights():
    """8 copies at one point and 2 at another are two tokens of weights .8 and .2."""
    rho = 0.3
    side = np.repeat([0, 1], [8, 2])
    full = np.where(side[:, None] == side, 1.0, rho)
    pair = np.array([[1, rho], [rho, 1]])
    ts = [0, 1, 4]
    for model in ("sa", "usa"):
        many = gram.gram(ts, full, beta=3.0, model=model)
        two = gram.gram(ts, pair, beta=3.0, model=model, weights=np.array([0.8, 0.2]))
        np.testing.assert_allclose(many[:, 0, 9], two[:, 0, 1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(many[:, 0, 7], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "t", "half_digit"), [("sa", 7.24775, 5e-6), ("usa", 0.327158, 5e-7)]
)
def test_two_clusters_merge_on_time(model, t, half_digit):
    """Weights .8 and .2 at 90 degrees reach cosine .999 at t; the printed t is rounded."""
    run = gram.gram([0, t], np.eye(2), beta=4.0, model=model, weights=np.array([0.8, 0.2]))
    rate = rates.cosine_rate(model, 4.0)
    assert abs(run[1, 0, 1] - 0.999) <= 0.001 * rate * half_digit


def test_causal_rows_decay_at_the_slowest_rate():
    """Token k leaves rate 1/2 through a term e^(-(1 - 1/k - 1/2) t), at most e^-15 here."""
    x = unit(np.random.default_rng(1), 5, 3)
    run = gram.gram_gap([0, 90, 120], 1 - x @ x.T, beta=1.0, mask="causal", atol=1e-80)
    slopes = np.log(run[1, 0, 1:] / run[2, 0, 1:]) / 30
    np.testing.assert_allclose(slopes, rates.cosine_rate("causal", 1.0), rtol=1e-5)


@pytest.mark.parametrize("name", ["consensus", "antipodal", "polygon", "simplex"])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_known_configurations_are_stationary(name, n):
    """Rounding grows at most like e^(c t), c of order 1."""
    start = stationary.stationary_grams(n)[name]
    for model in ("sa", "usa"):
        for value in (1.0, -1.0):
            run = gram.gram([0, 0.5], start, beta=1.5, model=model, value=value)
            np.testing.assert_allclose(run[1], start, rtol=0, atol=1e-14)


def test_smallest_cosine_stays_above_the_cone_bound():
    rng = np.random.default_rng(3)
    x = np.abs(rng.normal(size=(8, 3))) + 0.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    ts = np.linspace(0, 6, 13)
    smallest = gram.gram(ts, x @ x.T, beta=3.0).min(axis=(1, 2))
    bound = rates.cone_bound(ts, smallest[0], n=8, beta=3.0)
    assert (np.diff(smallest) > 0).all()
    assert (smallest[1:] > bound[1:]).all()


def test_discrete_map_is_a_real_layer():
    rng, n = np.random.default_rng(4), 6
    x, weights = unit(rng, n, 9), rng.dirichlet(np.ones(n))
    for model, value in (("sa", 1.0), ("sa", -0.5), ("usa", 1.0)):
        y = x
        for _ in range(3):
            a = np.tri(n) * weights * np.exp(2.0 * y @ y.T)
            a = a / a.sum(axis=1, keepdims=True) if model == "sa" else a
            y = y + 0.3 * value * a @ y
            y /= np.linalg.norm(y, axis=1, keepdims=True)
        got = gram.gram_post_ln(
            x @ x.T, steps=3, eta=0.3, beta=2.0, model=model, mask="causal", weights=weights, value=value
        )  # fmt: skip
        assert got.shape == (4, n, n)
        np.testing.assert_allclose(got[-1], y @ y.T, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": np.nan}, "`beta` must be finite"),
        ({"beta": 800.0, "model": "usa"}, "overflows"),
        ({"model": "sau"}, "must be one of sa, usa"),
        ({"mask": "casual"}, "Did you mean 'causal'"),
        ({"mask": np.ones((2, 2))}, "`mask` must be boolean"),
        ({"mask": np.zeros((3, 3), bool)}, "let every token see one"),
        ({"weights": np.ones(3)}, "sum to 1, but weights=3.0"),
        ({"weights": np.array([1.0, 0, 0])}, "`weights` must be > 0"),
        ({"weights": np.ones(2) / 2}, r"shape \(3,\)"),
        ({"value": np.inf}, "`value` must be finite"),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(ValueError, match=message):
        gram.gram([0, 1], np.eye(3), **({"beta": 1.0} | change))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"shape \(n, n\)"),
        (np.array([[1, 0.2], [0.1, 1]]), "be symmetric"),
        (2 * np.eye(2), r"entries in \[-1, 1\]"),
        (0.5 * np.eye(2), "unit diagonal"),
        (np.full((2, 2), np.nan), "be finite"),
        (1.9 * np.eye(3) - 0.9, "positive semidefinite"),
    ],
)
def test_bad_gram(matrix, message):
    for call in (
        lambda: gram.gram([0, 1], matrix, beta=1.0),
        lambda: gram.gram_post_ln(matrix, steps=1, eta=1.0, beta=1.0),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_gap():
    with pytest.raises(ValueError, match="zero diagonal"):
        gram.gram_gap([0, 1], np.ones((2, 2)), beta=1.0)
    with pytest.raises(ValueError, match=r"entries in \[0, 2\]"):
        gram.gram_gap([0, 1], np.array([[0, 3.0], [3, 0]]), beta=1.0)
