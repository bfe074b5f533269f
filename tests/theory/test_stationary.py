import numpy as np
import pytest
from scipy.integrate import solve_ivp

from attnflow.theory import stationary

RATES = [stationary.polygon_rate, stationary.polygon_rate_bessel]


def circle_flow(theta, beta, model):
    """Velocities of the angles, as printed."""
    gaps = theta[:, None] - theta
    kernel = np.exp(beta * np.cos(gaps))
    force = -(kernel * np.sin(gaps)).mean(axis=1)
    return force / kernel.mean(axis=1) if model == "sa" else force


def jacobian(theta, beta, model, step=1e-6):
    """Central differences, error about step^2 = 1e-12 and rounding 1e-16 / step = 1e-10."""
    columns = [
        circle_flow(theta + step * e, beta, model) - circle_flow(theta - step * e, beta, model)
        for e in np.eye(len(theta))
    ]
    return np.array(columns).T / (2 * step)


@pytest.mark.parametrize("rate", RATES)
def test_polygon_numbers(printed, rate):
    printed(rate(3, n=64, beta=4), ".664388812208")
    printed(rate(5, n=16, beta=4), ".279305046344")
    printed(rate(3, n=64, beta=4, model="usa"), "7.50887050")
    printed(rate(1, n=3, beta=[-0.5, -0.8], model="usa"), ".16050318 -.14918247")


def test_many_tokens_approach_the_mean_field(printed):
    """The aliases are gone at n = 64, and not at n = 16."""
    printed(stationary.polygon_rate_bessel(5, n=64, beta=4), ".279114232324")


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("beta", [-5.0, -0.3, 0.0, 1e-4, 1.0, 4.0, 9.0])
@pytest.mark.parametrize("n", [2, 3, 6, 16])
def test_both_forms_agree(model, beta, n):
    """Rounding is 1e-16 of the largest term, e^|beta| for USA."""
    scale = np.exp(abs(beta)) * (1 + abs(beta))
    for m in range(-1, n + 2):
        by_sum, by_bessel = (rate(m, n=n, beta=beta, model=model) for rate in RATES)
        assert abs(by_sum - by_bessel) <= 4e-15 * scale


def test_both_forms_agree_where_aliases_dominate():
    """Hundreds of Bessel terms of order 1 cancel: the exact rate is below 1e-18."""
    for rate in RATES:
        assert abs(rate(5, n=64, beta=1e4)) < 1e-13


@pytest.mark.parametrize("rate", RATES)
def test_kuramoto_limit(rate):
    """At beta = 0 only modes 1 and n - 1 grow, at rate 1/2."""
    got = [rate(m, n=6, beta=0.0) for m in range(6)]
    np.testing.assert_allclose(got, [0, 0.5, 0, 0, 0, 0.5], atol=1e-15)


def test_no_overflow_and_no_underflow():
    assert np.isfinite(stationary.polygon_rate(3, n=64, beta=[1e5, -1e5])).all()
    tiny = stationary.polygon_rate_bessel(30, n=64, beta=1.0)
    assert 1e-40 < tiny < 1e-35  # lost to rounding in the other form


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("beta", [-1.0, 0.5, 4.0])
def test_spectrum_is_that_of_the_jacobian(model, beta):
    n = 7
    theta = 2 * np.pi * np.arange(n) / n
    matrix = jacobian(theta, beta, model)
    expected = np.sort(np.linalg.eigvals(matrix).real)
    got = np.sort([stationary.polygon_rate(m, n=n, beta=beta, model=model) for m in range(n)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("model", "t"), [("sa", 5), ("usa", 0.5)])
def test_growth_in_a_run(model, t):
    """Growth of 1e-6 cos(3 theta); cubic terms change it by about (beta amplitude)^2."""
    n, eps, beta = 64, 1e-6, 4.0
    theta = 2 * np.pi * np.arange(n) / n
    mode = np.cos(3 * theta)
    run = solve_ivp(
        lambda t, y: circle_flow(y, beta, model),
        (0, t), theta + eps * mode, method="DOP853", rtol=1e-13, atol=1e-15,
    )  # fmt: skip
    amplitude = 2 / n * mode @ (run.y[:, -1] - theta)
    rate = stationary.polygon_rate(3, n=n, beta=beta, model=model)
    assert abs(np.log(amplitude / eps) / t - rate) <= (beta * amplitude) ** 2 / t


def test_ring_of_three(printed):
    printed(stationary.triangle_rate([-0.5, -0.8]), ".16050318 -.14918247")
    assert abs(stationary.triangle_rate(stationary.TRIANGLE_THRESHOLD)) < 4e-16
    beta = np.array([-3.0, -0.7, 0.0, 2.0])
    np.testing.assert_allclose(
        stationary.triangle_rate(beta),
        stationary.polygon_rate(1, n=3, beta=beta, model="usa"),
        rtol=1e-13,
    )


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("beta", [-2.0, -0.8, 1.0])
def test_three_groups(model, beta):
    """Eigenvalues of 2 + 2 + 2 tokens: rotation, between (twice), inside (three times)."""
    theta = np.repeat([0, 2 * np.pi / 3, 4 * np.pi / 3], 2)
    between, inside = stationary.triangle_group_rates(beta, model=model)
    expected = np.sort([0, between, between, inside, inside, inside])
    got = np.sort(np.linalg.eigvals(jacobian(theta, beta, model)).real)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7)
    assert (max(between, inside) < 0) == (beta < stationary.TRIANGLE_THRESHOLD)


def test_stationary_grams_are_grams():
    for n in (2, 5, 6):
        for matrix in stationary.stationary_grams(n).values():
            np.testing.assert_allclose(np.diag(matrix), 1, rtol=1e-15)
            assert np.linalg.eigvalsh(matrix)[0] > -1e-14


@pytest.mark.parametrize("beta", [1.0, 4.0, 9.0])
def test_gegenbauer_coefficient_is_the_integral(beta):
    """d = 3: a_l = (1/2) int e^(beta t) P_l(t) dt; d = 2: the Bessel function, as (1/2 pi) int."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for degree in range(4):
        legendre = np.polynomial.legendre.Legendre.basis(degree)(nodes)
        integral = (weights * np.exp(beta * nodes) * legendre).sum() / 2
        got = stationary.gegenbauer_coefficient(degree, d=3, beta=beta)
        np.testing.assert_allclose(got, integral, rtol=1e-12)
        t = 2 * np.pi * np.arange(64) / 64
        periodic = (np.exp(beta * np.cos(t)) * np.cos(degree * t)).mean()
        got = stationary.gegenbauer_coefficient(degree, d=2, beta=beta)
        np.testing.assert_allclose(got, periodic, rtol=1e-12)


def test_gegenbauer_limits():
    """a_0 = sinh(beta) / beta at d = 3; a_1 / beta -> 1 / d; decreasing in l."""
    sinh = stationary.gegenbauer_coefficient(0, d=3, beta=2.5)
    np.testing.assert_allclose(sinh, np.sinh(2.5) / 2.5, rtol=1e-14)
    for d in (2, 3, 8, 64):
        slope = stationary.gegenbauer_coefficient(1, d=d, beta=1e-6) / 1e-6
        np.testing.assert_allclose(slope, 1 / d, rtol=1e-10)
        levels = [stationary.gegenbauer_coefficient(k, d=d, beta=3.0) for k in range(6)]
        assert (np.diff(levels) < 0).all()


def test_energies(printed):
    printed(stationary.uniform_energy(3, d=2), ".81346543")
    printed(stationary.consensus_energy(3), "3.34758949")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stationary.polygon_rate(1, n=1, beta=1.0), "`n` must be"),
        (lambda: stationary.polygon_rate(1, n=3, beta=np.inf), "`beta` must be finite"),
        (lambda: stationary.polygon_rate_bessel(1, n=3, beta=1.0, model="x"), "one of sa, usa"),
        (lambda: stationary.triangle_rate(np.nan), "`beta` must be finite"),
        (lambda: stationary.stationary_grams(1), "`n` must be"),
        (lambda: stationary.uniform_energy(0.0, d=2), "`beta` must be finite and > 0"),
        (lambda: stationary.consensus_energy(-1.0), "`beta` must be finite and > 0"),
        (lambda: stationary.gegenbauer_coefficient(0, d=1, beta=1.0), "`d` must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
