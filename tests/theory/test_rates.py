import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from attnflow.theory import gram, rates


def test_consensus_rates(printed):
    assert rates.consensus_rate("sa", 7.0) == 1
    assert rates.consensus_rate("usa", 2.0, 3.0) == pytest.approx(3 * np.exp(2), rel=1e-15)
    assert rates.consensus_rate("causal", 7.0, 2.0) == 1
    assert rates.consensus_rate("sa", 7.0, -1.0) == -1
    assert rates.consensus_rate("usa", 1e4) == np.inf
    printed(rates.consensus_rate("sa", 2.0, eta=0.1), ".95310180")
    assert rates.cosine_rate("sa", 2.0, eta=0.1) == 2 * rates.consensus_rate("sa", 2.0, eta=0.1)


def cap(n, radius):
    """Gaps of n points near one pole of the sphere, at distances about `radius`."""
    flat = np.random.default_rng(0).normal(size=(n, 2)) * radius
    x = np.column_stack([flat, np.sqrt(1 - (flat**2).sum(axis=1))])
    differences = x[:, None] - x
    return (differences**2).sum(axis=2) / 2


@pytest.mark.parametrize("model", ["sa", "usa", "causal"])
@pytest.mark.parametrize("value", [1.0, 0.5, 2.0])
def test_flows_decay_at_the_cosine_rate(model, value):
    """The slow mode is left alone by e^-15 (causal row 3 against 2); nonlinear terms are (1 + beta) gap."""
    beta, n = 1.5, 3
    rate = rates.cosine_rate(model, beta, value)
    ts = np.array([0, 90, 100]) / rate if model == "causal" else np.array([0, 20, 30]) / rate
    run = gram.gram_gap(
        ts,
        cap(n, 1e-3),
        beta=beta,
        model="usa" if model == "usa" else "sa",
        mask="causal" if model == "causal" else None,
        value=value,
        atol=1e-70,
    )
    off = ~np.eye(n, dtype=bool)
    slopes = np.log(run[1][off] / run[2][off]) / (ts[2] - ts[1])
    tolerance = 1e-5 if model == "causal" else 1e-9
    np.testing.assert_allclose(slopes, rate, rtol=tolerance)


@pytest.mark.parametrize("model", ["sa", "usa", "causal"])
def test_layers_decay_at_the_discrete_rate(model):
    """Nonlinear terms are (1 + beta) gap, about 1e-5 here; rounding is 1e-16 / gap."""
    eta, beta, n = 0.4, 0.7, 4
    start = 1 - cap(n, 3e-3)
    kind = "usa" if model == "usa" else "sa"
    mask = "causal" if model == "causal" else None
    run = 1 - gram.gram_post_ln(start, steps=2, eta=eta, beta=beta, mask=mask, model=kind)[:, 0, 1]
    slope = np.log(run[1] / run[2]) / eta
    np.testing.assert_allclose(slope, rates.cosine_rate(model, beta, eta=eta), rtol=1e-4)


def test_cone_bound(printed):
    printed(rates.cone_bound([0, 6], 0.52318, n=8, beta=3.0)[1], ".62473")


@pytest.mark.parametrize("beta", [0.0, 3.0, 12.0])
def test_cone_bound_solves_its_ode(beta):
    """Time by quadrature of the printed right-hand side."""
    n, ts = 8, [0.0, 1.0, 30.0]
    for alpha0 in (1e-3, 0.5, 0.99):
        alpha = rates.cone_bound(ts, alpha0, n=n, beta=beta)
        for t, a in zip(ts[1:], alpha[1:], strict=True):
            time, _ = quad(
                lambda a: n / 2 / (a * (1 - a)) * np.exp(beta * (1 - a)), alpha0, a, epsrel=1e-12
            )
            np.testing.assert_allclose(time, t, rtol=1e-9)
    np.testing.assert_array_equal(rates.cone_bound(ts, 0.0, n=n, beta=beta), 0)
    np.testing.assert_array_equal(rates.cone_bound(ts, 1.0, n=n, beta=beta), 1)


def test_circle_criterion_numbers(printed):
    got = [rates.circle_criterion(beta) for beta in (0, 1, 4, 20, -0.16)]
    printed(got, ".628 .688 .779 .838 .912")
    printed(brentq(lambda beta: rates.circle_criterion(beta) - 1, -0.3, -0.1), "-.1921")


@pytest.mark.parametrize("beta", [-2.0, -0.3, 0.0, 0.5, 8.0])
def test_circle_criterion_is_the_integral(beta):
    """Positive part of f''' by spectral differentiation on a fine grid; kinks cost 1e-6."""
    m = 4096
    x = 2 * np.pi * np.arange(m) / m
    f = np.exp(beta * np.cos(x)) * np.sin(x)
    k = np.fft.fftfreq(m, 1 / m)
    keep = np.abs(k) < 200
    first, third = (np.fft.ifft((1j * k) ** p * np.fft.fft(f) * keep).real for p in (1, 3))
    tau = np.arccos(float(brentq(lambda c: c - beta * (1 - c**2), -1, 1)))
    ratio = tau * np.maximum(third, 0).mean() * 2 * np.pi / (4 * (1 + tau / 2 / np.pi) * first[0])
    np.testing.assert_allclose(rates.circle_criterion(beta), ratio, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rates.consensus_rate("hardmax", 1.0), "one of sa, usa, causal"),
        (lambda: rates.consensus_rate("sa", np.nan), "`beta` must be finite"),
        (lambda: rates.consensus_rate("sa", 1.0, eta=0.0), "`eta` must be"),
        (lambda: rates.consensus_rate("sa", 1.0, -1.0, eta=1.0), "Take a smaller step"),
        (lambda: rates.cone_bound([0, 1], -0.1, n=4, beta=1.0), r"`alpha0` must lie in \[0, 1\]"),
        (lambda: rates.cone_bound([0, 1], 0.1, n=4, beta=-1.0), "`beta` must be"),
        (lambda: rates.circle_criterion(np.inf), "`beta` must be finite"),
        (lambda: rates.circle_criterion(400.0), r"\|beta\| <= 300"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
