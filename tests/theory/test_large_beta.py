import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from attnflow.claims import large_beta as claims
from attnflow.claims.runs import uniform
from attnflow.theory import stability
from attnflow.theory.large_beta import (
    alignment_path,
    alignment_velocity,
    heat_mixture,
    heat_modes,
    limit_directions,
    limit_rates,
    limit_velocity,
    porous_constant,
)

WEIGHTS = claims.WEIGHTS
MIXTURE = claims.MIXTURE
GRID = 2 * np.pi * np.arange(256) / 256


def test_printed_ratios(printed):
    degrees = np.array([1, 2, 4])
    for model, text in (("sa", ".9975 .99003 .96069"), ("usa", ".99812 .99065 .96130")):
        options = {"beta": 200.0, "d": 2, "model": model, "clock": "rescaled"}
        printed(stability.growth_rates(degrees, **options) / limit_rates(degrees, **options), text)


@pytest.mark.parametrize("d", [2, 3, 8])
@pytest.mark.parametrize("model", ["sa", "usa"])
def test_exact_rates_go_to_the_limits(model, d):
    """Error of first order in 1/beta; for SA it is l(l + d - 2)/(2 beta)."""
    degrees = np.array([1, 2, 5])

    def error(beta):
        options = {"beta": beta, "d": d, "model": model, "clock": "rescaled"}
        return 1 - stability.growth_rates(degrees, **options) / limit_rates(degrees, **options)

    near, far = error(1e3), error(4e3)
    # the next order is the square of the first, up to (l + d)^4/beta^2: 5 % at beta = 1000
    np.testing.assert_allclose(np.log(near / far) / np.log(4), 1, atol=0.05)
    if model == "sa":
        bend = degrees * (degrees + d - 2)
        np.testing.assert_allclose(far * 2 * 4e3, bend, rtol=0.02)


def test_clocks():
    for of in (porous_constant, lambda *a, **kw: limit_rates(3, beta=a[0], model="usa", **kw)):
        physical, rescaled = of(9.0, d=3), of(9.0, d=3, clock="rescaled")
        assert physical == pytest.approx(np.exp(9) * rescaled, rel=1e-14)
        assert of(1e4, d=3) == np.inf
        assert 0 < of(1e4, d=3, clock="rescaled") < 1
    assert limit_rates(2, beta=5.0, d=3, value=-1.0) == -limit_rates(2, beta=5.0, d=3) == -6 / 5


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_velocity_carries_the_density_at_the_limit_rate(model):
    """d_t mu = -div(mu v) of mu = (1 + eps cos k theta)/2 pi grows by the limit rate, to O(eps)."""
    eps, k, beta = 1e-6, 3, 40.0
    wave = np.cos(k * GRID)
    density = (1 + eps * wave) / (2 * np.pi)
    along = np.stack([-np.sin(GRID), np.cos(GRID)], axis=1)
    gradient = -eps * k * np.sin(k * GRID)[:, None] * along / (2 * np.pi)
    velocity = limit_velocity(density, gradient, beta=beta, model=model, value=-0.7)
    flux = np.fft.fft(density * (velocity * along).sum(axis=1))
    change = -np.fft.ifft(1j * np.fft.fftfreq(256, 1 / 256) * flux).real
    rate = 2 * np.pi * 2 / 256 * change @ wave / eps
    assert rate == pytest.approx(limit_rates(k, beta=beta, d=2, model=model, value=-0.7), rel=1e-5)


def test_forward_heat_of_tokens(printed):
    """n = 400 quantiles of (1 + 0.4 cos)/2 pi at V = -I, beta = 50, T = 20: heat, linear, nonlinear."""
    printed(heat_modes([0, 20], [1, 0.2], beta=50, d=2, value=-1.0)[-1, 1], ".134064")
    rate = stability.growth_rates(1, beta=50.0, d=2)
    printed(0.2 * np.exp(-20 * rate), ".13460409")
    seen = claims.modes(claims.tilted(0.4), 50.0, -1.0, 0.4, 1).real
    printed(seen, ".13461955")
    # what is left is of order height^2 of the mode, and of height^4 = 0.16 of that
    small = claims.modes(claims.tilted(0.04), 50.0, -1.0, 0.4, 1).real
    left = seen[0] / 0.2 - np.exp(-20 * rate), small[0] / 0.02 - np.exp(-20 * rate)
    assert left[0] / left[1] == pytest.approx(100, rel=0.16)


def test_heat_has_a_semigroup():
    ts = np.array([1.0, 2.0, 4.0])
    start = np.array([1, 0.3 - 0.1j, 0.2j])
    path = heat_modes(ts, start, beta=7.0, d=5, value=-1.0)
    np.testing.assert_array_equal(path[0], start)
    np.testing.assert_allclose(
        heat_modes(ts[1:], path[1], beta=7.0, d=5, value=-1.0)[1], path[2], rtol=1e-14
    )
    np.testing.assert_allclose(np.abs(path[:, 1] / start[1]), np.exp(-4 * (ts - 1) / 7), rtol=1e-14)


@pytest.mark.parametrize("value", [1.0, -2.0])
def test_mixture_solves_the_heat_equation(value):
    """Its Fourier modes are those of `heat_modes`; it is a density; both ways in time."""
    modes = [
        np.fft.fft(heat_mixture(GRID, t, beta=20.0, value=value, **MIXTURE)) * 2 * np.pi / 256
        for t in (0.0, 3.0)
    ]
    assert modes[0][0] == pytest.approx(1, rel=1e-14)
    want = heat_modes([0, 3], modes[0][:12], beta=20.0, d=2, value=value)[-1]
    np.testing.assert_allclose(
        modes[1][:12], want, atol=1e-14 * np.exp(121 * 3 * max(value, 0) / 20)
    )


def test_wide_mixture_is_uniform():
    wide = heat_mixture(GRID, 1e4, beta=1.0, value=-1.0, **MIXTURE)
    np.testing.assert_allclose(wide, 1 / (2 * np.pi), rtol=1e-13)


def test_alignment_errors(printed):
    """Attention among 1500 even tokens beside the limit: O(1/beta)."""
    limit = alignment_path([0, 0.5], claims.ring(), **WEIGHTS)[-1]
    errors = [np.abs(claims.aligned(beta) - limit).max() for beta in (20.0, 80.0, 320.0)]
    printed(errors, "5.87e-3 1.59e-3 4.05e-4")


def test_alignment_ends_in_the_eigenspace():
    """Median distance at t = 12, and directions of the linear flow at any time."""
    end = alignment_path([0, 12], claims.ring()[::10], **WEIGHTS)[-1]
    cosine = np.abs(end @ limit_directions(d=2, **WEIGHTS)[:, 0])
    assert np.median(1 - cosine) == pytest.approx(3e-9, rel=0.5 / 3)  # printed to one digit


def test_alignment_is_the_linear_flow_in_another_time():
    x0, rng = uniform(3, 5, 3), np.random.default_rng(4)
    query, key = rng.normal(size=(2, 4, 3))
    value = rng.normal(size=(3, 3))
    aim = key.T @ query

    def linear(s, start):
        z = expm(s * value @ aim) @ start
        return z / np.linalg.norm(z)

    ends = alignment_path([0, 0.6], x0, query=query, key=key, value=value)[-1]
    for end, start in zip(ends, x0, strict=True):

        def pace(t, s, start=start):
            return 1 / np.linalg.norm(aim @ linear(s[0], start))

        s = solve_ivp(pace, (0, 0.6), [0.0], rtol=1e-10, atol=1e-12).y[0, -1]
        np.testing.assert_allclose(end, linear(s, start), atol=1e-8)  # a hundred steps of rtol


def test_velocity_is_the_slope_of_the_path():
    x0, h = claims.ring()[:7], 1e-4
    before, _, after = alignment_path([0, h, 2 * h], x0, **WEIGHTS)
    middle = alignment_path([0, h], x0, **WEIGHTS)[-1]
    # third derivatives are O(1): h^2/6
    np.testing.assert_allclose(
        (after - before) / (2 * h), alignment_velocity(middle, **WEIGHTS), atol=h**2
    )


def test_limit_directions():
    value = np.diag([2.0, 2.0, -1.0])
    basis = limit_directions(value=value, d=3)
    np.testing.assert_allclose(basis @ basis.T, np.diag([1, 1, 0]), atol=1e-14)
    jordan = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    assert limit_directions(value=jordan, d=3).shape == (3, 2)  # generalised eigenspace
    assert limit_directions(d=4).shape == (4, 4)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert limit_directions(query=turn, d=2).shape == (2, 2)  # complex pair


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: porous_constant(0.0, d=2), "`beta` must be finite and > 0"),
        (lambda: porous_constant(1.0, d=1), "`d` must be a whole number >= 2"),
        (lambda: porous_constant(1.0, d=2, clock="slow"), "`clock` must be one of"),
        (lambda: limit_rates(-1, beta=1.0, d=2), "`l` must be >= 0"),
        (lambda: limit_rates(1.5, beta=1.0, d=2), "`l` must hold whole numbers"),
        (lambda: limit_rates(1, beta=1.0, d=2, model="us"), "Did you mean 'usa'"),
        (lambda: limit_velocity([1, 0], np.ones((2, 2)), beta=1.0), "`density` must be"),
        (lambda: limit_velocity([1, 1], np.ones((3, 2)), beta=1.0), "`gradient` must have shape"),
        (lambda: heat_modes([0, 1], [[1.0]], beta=1.0, d=2), "`modes` must be a finite list"),
        (lambda: heat_modes([0, 1], [1.0], beta=-1.0, d=2), "`beta` must be"),
        (lambda: heat_mixture(0, 5.0, beta=20.0, **MIXTURE), "is used up at t=5, but t=5"),
        (lambda: heat_mixture(0, -1.0, beta=1.0, **MIXTURE), "`t` must be finite and >= 0"),
        (lambda: heat_mixture(0, 0, beta=1.0, **MIXTURE | {"weights": [1, 1]}), "must sum to 1"),
        (lambda: heat_mixture(0, 0, beta=1.0, **MIXTURE | {"means": [1]}), "must have shape"),
        (lambda: alignment_velocity([[2.0, 0]]), "`tokens` must hold unit vectors"),
        (lambda: alignment_velocity([[1.0, 0]], query=np.diag([1, 0])), "make K\\^T Q regular"),
        (lambda: alignment_velocity([[1.0, 0]], value=np.eye(3)), "`value` must have shape"),
        (lambda: alignment_path([0, 0], [[1.0, 0]]), "`ts` must increase strictly"),
        (lambda: limit_directions(d=1), "`d` must be a whole number >= 2"),
        (lambda: limit_directions(d=3, key=np.eye(2)), "`key` must have shape"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
