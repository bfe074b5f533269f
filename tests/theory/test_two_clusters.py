import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad

from attnflow.theory.two_clusters import (
    log10_merge_time,
    log10_merge_time_laplace,
    merge_angle,
    merge_time,
)

NEAR = np.arccos(0.999)
CASES = [
    ("sa", (0.5, 0.5)), ("sa", (0.8, 0.2)), ("sa", (0.001, 0.9)),
    ("usa", (0.5, 0.5)), ("usa", (0.3, 0.2)),
]  # fmt: skip


def exact_log10_time(phi0, phi1, beta, model, weights):
    """The printed integral in 30 digits, over log tan(p/2), panels finer towards its peak."""
    with mp.workdps(30):
        a, b = map(mp.mpf, weights)
        s = a / b + b / a

        def share(v):
            cosine = -mp.tanh(v)
            if model == "usa":
                return mp.exp(-beta * cosine) / (a + b)
            e = mp.exp(beta * (1 - cosine))
            return (1 + s * e + e**2) / (2 + s * e)

        low, high = (mp.log(mp.tan(mp.mpf(phi) / 2)) for phi in (phi1, phi0))
        pace = 1 + beta * mp.sin(phi0) ** 2
        cuts = [high - 2**k / pace for k in np.arange(-2, 10, 0.6) if high - 2**k / pace > low]
        panels = {*mp.linspace(low, high, 24), *cuts}
        return float(mp.log10(mp.quad(share, sorted(panels))))


@pytest.mark.parametrize(("model", "weights"), CASES)
@pytest.mark.parametrize("beta", [0.0, 30.0, 300.0])
def test_times_are_the_integral(model, weights, beta):
    """1e-12 of the time is 5e-13 in log10; logarithms up to 600 round to 1e-13."""
    for phi0, phi1 in ((2.5, NEAR), (1.0, 1e-8), (0.2, 0.199)):
        got = log10_merge_time(phi0, phi1, beta=beta, model=model, weights=weights)
        exact = exact_log10_time(phi0, phi1, beta, model, weights)
        assert abs(got - exact) < 1e-12, (phi0, phi1)


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_stretches_add_up(model):
    """From close to pi to close to 0, where cosines are 1 to rounding."""
    cuts = np.array([np.pi - 1e-7, 3.0, 1.2, 1e-4, 1e-12])
    parts = merge_time(cuts[:-1], cuts[1:], beta=3.0, model=model)
    np.testing.assert_allclose(parts.sum(), merge_time(cuts[0], cuts[-1], beta=3.0, model=model))


def test_times_near_both_poles_are_logarithms():
    """Near 0 SA contracts at rate 1, near pi it expands at (2 + s e^2b)/(1 + s e^2b + e^4b)."""
    beta, e = 1.5, np.exp(3.0)
    near = merge_time(1e-6, 1e-9, beta=beta)
    far = merge_time(np.pi - 1e-7, np.pi - 1e-5, beta=beta)
    rate = (2 + 2 * e) / (1 + 2 * e + e**2)
    np.testing.assert_allclose(near, np.log(1e3), rtol=1e-11)  # next order phi^2 = 1e-12
    np.testing.assert_allclose(far, np.log(1e2) / rate, rtol=1e-8)  # pi - 1e-7 rounds to 4e-9 of it


def test_printed_rescalings(printed):
    """Times in units of e^(beta (1 - cos)) vanish: the clock of the first angle is the wrong one."""
    got = merge_time(np.pi / 2, NEAR, beta=[10.0, 20.0]) * np.exp([-10.0, -20.0])
    printed(got, ".0513 .0251")
    printed(merge_time(1.59588, NEAR, beta=12.0), "9.3e3")


def test_who_counts():
    """SA sees the ratio of masses alone and is symmetric in them, USA their sum alone."""

    def time(model, *weights):
        return float(merge_time(2.0, 0.1, beta=5.0, model=model, weights=weights))

    assert time("sa", 0.2, 0.1) == pytest.approx(time("sa", 2 / 3, 1 / 3), rel=1e-14)
    assert time("sa", 0.2, 0.1) == pytest.approx(time("sa", 0.1, 0.2), rel=1e-14)
    assert time("sa", 0.2, 0.1) < time("sa", 0.5, 0.5)
    assert time("usa", 0.3, 0.2) == pytest.approx(2 * time("usa", 0.5, 0.5), rel=1e-14)
    assert time("usa", 0.4, 0.1) == pytest.approx(time("usa", 0.25, 0.25), rel=1e-14)


def test_clocks():
    ends = {"beta": np.array([0.0, 3.0, 500.0]), "model": "usa"}
    physical = log10_merge_time(2.0, 0.1, **ends)
    rescaled = log10_merge_time(2.0, 0.1, **ends, clock="rescaled")
    np.testing.assert_allclose(rescaled - physical, ends["beta"] / np.log(10), atol=1e-12)


def test_beyond_floats():
    assert merge_time(2.5, 0.1, beta=1000.0) == np.inf
    assert log10_merge_time(2.5, 0.1, beta=1000.0) > 700
    assert merge_time(0.3, 0.1, beta=1000.0, model="usa") == 0
    assert log10_merge_time(0.3, 0.1, beta=1000.0, model="usa") < -400
    assert merge_time(1.0, 1.0, beta=2.0) == 0
    assert log10_merge_time(1.0, 1.0, beta=2.0) == -np.inf


def test_shapes():
    assert merge_time(np.ones((3, 1)), 0.5, beta=np.ones(4)).shape == (3, 4)
    assert log10_merge_time_laplace([1.0, 2.0], beta=9.0).shape == (2,)
    assert merge_angle(1.0, beta=[0.0, np.inf]).shape == (2,)


@pytest.mark.parametrize(("model", "weights"), CASES[:2] + CASES[4:])
@pytest.mark.parametrize("phi0", [0.8, 1.5, 2.4])
def test_laplace_law_has_the_stated_error(model, weights, phi0):
    """Next term of the expansion: below 30 / k^3 relative, so below 13 / k^3 in log10."""
    for beta in (200.0, 2000.0):
        k, c = beta * np.sin(phi0) ** 2, np.cos(phi0)
        law = log10_merge_time_laplace(phi0, beta=beta, model=model, weights=weights)
        time = log10_merge_time(phi0, 1e-3, beta=beta, model=model, weights=weights)
        error = time - law - np.log10(1 + 2 * c / k + (2 + 6 * c**2) / k**2)
        assert abs(error) < 13 / k**3 + 1e-12


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.8, 0.2), (0.05, 0.3)])
@pytest.mark.parametrize("beta", [0.0, 2.0, 40.0, 3000.0])
def test_merge_angle_is_the_integral(weights, beta):
    a, b = weights

    def share(p):
        pull = np.exp(-beta * (1 - np.cos(p)))
        ratio = (pull + b / a) / (pull + a / b)  # of the speeds 1 / (1 + E a/b), 1 / (1 + E b/a)
        return ratio / (1 + ratio)

    for phi0 in (0.5, 2.0, np.pi):
        edge = min(phi0, 12 / np.sqrt(1 + beta))
        parts = [
            quad(share, *ends, epsabs=1e-13, epsrel=1e-13)[0] for ends in ((0, edge), (edge, phi0))
        ]
        got = merge_angle(phi0, beta=beta, weights=weights)
        # quad promises 1e-13 a part; 1 - cos loses 1e-16 beta of the exponent
        assert abs(got - sum(parts)) < 2e-13 + 1e-16 * beta
        assert got + merge_angle(phi0, beta=beta, weights=(b, a)) == pytest.approx(phi0, abs=1e-14)


def test_merge_angle_limits():
    a, b = 0.8, 0.2
    for beta, share in ((0.0, b / (a + b)), (np.inf, b**2 / (a**2 + b**2))):
        assert merge_angle(2.0, beta=beta, weights=(a, b)) == pytest.approx(2 * share, rel=1e-14)
    assert merge_angle(2.0, beta=np.inf, model="usa", weights=(a, b)) == pytest.approx(0.4)
    assert merge_angle(0.0, beta=1.0) == 0
    # Shares differ within some beta^-1/2 of the end only
    late = merge_angle(2.0, beta=1e8, weights=(a, b))
    assert abs(late - 2 * b**2 / (a**2 + b**2)) < 3e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: merge_time(0.0, 0.0, beta=1.0), r"`phi0` must lie in \(0, pi\)"),
        (lambda: merge_time(np.pi, 1.0, beta=1.0), r"`phi0` must lie in \(0, pi\)"),
        (lambda: merge_time(1.0, 0.0, beta=1.0), r"`phi1` must lie in \(0, pi\)"),
        (lambda: merge_time(1.0, 1.1, beta=1.0), "`phi1` must be at most phi0"),
        (lambda: merge_time(1.0, 0.1, beta=-1.0), "`beta` must be finite and >= 0"),
        (lambda: merge_time(1.0, 0.1, beta=1.0, model="causal"), "one of sa, usa"),
        (lambda: merge_time(1.0, 0.1, beta=1.0, clock="rescaled"), "`clock` must be one of"),
        (lambda: merge_time(1.0, 0.1, beta=1.0, weights=(1.0,)), "`weights` must be two masses"),
        (lambda: merge_time(1.0, 0.1, beta=1.0, weights=(0.9, 0.2)), "sum to at most 1"),
        (lambda: merge_time(1.0, 0.1, beta=1.0, weights=(1.0, 0.0)), "`weights` must be"),
        (lambda: log10_merge_time_laplace(1.0, beta=0.0), "`beta` must be finite and > 0"),
        (lambda: merge_angle(4.0, beta=1.0), r"`phi0` must lie in \[0, pi\]"),
        (lambda: merge_angle(1.0, beta=np.nan), "`beta` must be >= 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
