import mpmath as mp
import numpy as np
import pytest

from attnflow.theory import stability
from attnflow.theory.stability import (
    fastest_mode,
    fastest_mode_law,
    growth_rates,
    onset_time,
    switch_values,
)

HEATS = [0.5, 1, 2, 4, 5, 9, 10, 16, 20, 25, 50, 64, 100, 200, 400, 1000]
FASTEST = {
    2: "1 1 2 3 3 4 4 6 6 7 10 11 14 20 28 45",
    3: "1 1 2 2 3 4 4 5 6 7 10 11 14 20 28 44",
    8: "1 1 1 1 1 2 2 3 4 5 7 9 11 17 25 42",
    64: "1 1 1 1 1 1 1 1 1 1 2 2 3 6 11 23",
}


def exact_rate(l, beta, d, model):  # noqa: E741
    """Printed formula in 40 digits."""
    with mp.workdps(40):
        nu, beta = mp.mpf(d) / 2 - 1, mp.mpf(beta)
        rate = l * (l + d - 2) / beta * mp.besseli(l + nu, beta)
        if model == "sa":
            return rate / mp.besseli(nu, beta)
        return rate * mp.gamma(nu + 1) * (2 / beta) ** nu


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("d", [2, 3, 8, 65])
def test_rates_are_the_printed_formula(model, d):
    degrees = np.array([1, 2, 7, 30])
    for beta in (1e-3, 1.0, 9.0, 300.0):
        exact = [float(exact_rate(int(k), beta, d, model)) for k in degrees]
        got = growth_rates(degrees, beta=beta, d=d, model=model)
        # e^beta turns the rounding of beta into a relative 1e-16 beta
        np.testing.assert_allclose(got, exact, rtol=2e-13)


def test_rates_far_out():
    """beta, d and l of 1e4, where every Bessel function is out of range."""
    exact = float(exact_rate(100, 1e4, 10_000, "sa"))
    np.testing.assert_allclose(growth_rates(100, beta=1e4, d=10_000), exact, rtol=1e-12)
    assert growth_rates(2, beta=1e4, d=2, model="usa") == np.inf
    rescaled = growth_rates(2, beta=1e4, d=2, model="usa", clock="rescaled")
    exact = exact_rate(2, 1e4, 2, "usa") * mp.exp(-10_000)
    np.testing.assert_allclose(rescaled, float(exact), rtol=1e-12)


def test_rates_at_beta_zero():
    """lambda_1 = (d - 1)/d, all others vanish; the limit is continuous."""
    for d in (2, 3, 10):
        for model in ("sa", "usa"):
            got = growth_rates(np.arange(4), beta=0.0, d=d, model=model)
            np.testing.assert_allclose(got, [0, (d - 1) / d, 0, 0], atol=1e-15)
            near = growth_rates(np.arange(4), beta=1e-9, d=d, model=model)
            np.testing.assert_allclose(near, got, atol=1e-8)


def test_noise_damps():
    degrees = np.arange(6)
    plain = growth_rates(degrees, beta=9.0, d=3)
    noisy = growth_rates(degrees, beta=9.0, d=3, kappa=40.0)
    np.testing.assert_allclose(noisy, plain - degrees * (degrees + 1) / 40, rtol=1e-13)
    assert np.all(growth_rates(degrees[1:], beta=9.0, d=3, kappa=1.0) < 0)


def test_ring_of_tokens_aliases_to_the_mean_field(printed):
    """n = 16 tokens at beta = 4: mode 5 hears modes 11, 21, ... and the mean hears mode 16."""
    printed(growth_rates(5, beta=4.0, d=2), ".279114232324")


def test_largest_rates(printed):
    beta = np.array([9.0, 1000.0])
    top = growth_rates(fastest_mode(beta, d=2), beta=beta, d=2)
    printed(top, ".70450 .73546")
    printed(stability.PEAK_RATE, ".735759")
    for d in (2, 3, 20):
        mode = fastest_mode(1e6, d=d)
        assert abs(growth_rates(mode, beta=1e6, d=d) - 2 / np.e) < 1e-5


@pytest.mark.parametrize("d", FASTEST)
def test_fastest_modes(d, printed):
    printed(fastest_mode(HEATS, d=d), FASTEST[d])
    printed(fastest_mode(HEATS, d=d, model="usa"), FASTEST[d])


def test_fastest_mode_is_the_largest_rate():
    """Of many more degrees than it looks at, also with noise in either model."""
    degrees = np.arange(1, 200)
    for d in (2, 5):
        for kappa in (np.inf, 30.0, 0.5):
            for model in ("sa", "usa"):
                for beta in (0.0, 0.7, 12.0, 500.0):
                    rates = growth_rates(degrees, beta=beta, d=d, kappa=kappa, model=model)
                    found = fastest_mode(beta, d=d, kappa=kappa, model=model)
                    assert found == degrees[rates.argmax()], (d, kappa, model, beta)


def test_law_of_the_fastest_mode():
    """Within one of l(l + d - 2) = 2 beta, and sqrt(2 beta) in the end."""
    for d in (2, 3, 8, 64):
        beta = np.geomspace(max(4, d**2), 1e5, 40)
        law = fastest_mode_law(beta, d=d)
        np.testing.assert_allclose(law * (law + d - 2), 2 * beta, rtol=1e-12)
        assert np.all(np.abs(fastest_mode(beta, d=d) - law) <= 1)
    np.testing.assert_allclose(fastest_mode_law(1e12, d=64), np.sqrt(2e12), rtol=1e-4)
    assert fastest_mode_law(0.0, d=2) == 0 and fastest_mode_law(0.0, d=9) == 0


def test_switches(printed):
    printed(
        switch_values(np.arange(1, 12), d=2),
        "1.04446 3.16543 6.21130 10.22848 15.23628 21.24045 28.24296 36.24458"
        " 45.2457 55.2465 66.2471",
    )
    printed(
        switch_values(np.arange(1, 12), d=3),
        "1.81615 4.42529 7.96238 12.47743 17.98489 24.48915 31.99181 40.49359"
        " 49.99485 60.49576 71.99645",
    )


@pytest.mark.parametrize("d", [2, 3, 10, 300])
def test_both_degrees_are_equally_fast_at_a_switch(d):
    degrees = np.array([1, 2, 9, 60])
    beta = switch_values(degrees, d=d)
    low, high = (growth_rates(k, beta=beta, d=d) for k in (degrees, degrees + 1))
    np.testing.assert_allclose(low, high, rtol=1e-11)
    assert np.all(fastest_mode(beta * (1 - 1e-6), d=d) == degrees)
    assert np.all(fastest_mode(beta * (1 + 1e-6), d=d) == degrees + 1)


def test_switches_grow_as_stated():
    degree = np.array([300, 3000])
    for d in (2, 3, 6):
        law = (degree + 0.5) * (degree + d - 1.5) / 2 + 0.125
        np.testing.assert_allclose(switch_values(degree, d=d), law, rtol=1e-5)


def test_onset(printed):
    printed(onset_time(np.exp(1), beta=1e6, d=3), ".68")
    rate = growth_rates(3, beta=4.0, d=2, model="usa")
    got = onset_time([1, 100], beta=4.0, d=2, model="usa")
    np.testing.assert_allclose(got, [0, np.log(10) / rate], rtol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: growth_rates(1.5, beta=1.0, d=2), "`l` must hold whole numbers"),
        (lambda: growth_rates(-1, beta=1.0, d=2), "`l` must be >= 0"),
        (lambda: growth_rates(1, beta=-1.0, d=2), "`beta` must be"),
        (lambda: growth_rates(1, beta=1.0, d=1), "`d` must be a whole number >= 2"),
        (lambda: growth_rates(1, beta=1.0, d=2, kappa=0.0), "`kappa` must be > 0"),
        (lambda: growth_rates(1, beta=1.0, d=2, model="causal"), "one of sa, usa"),
        (lambda: growth_rates(1, beta=1.0, d=2, clock="fast"), "`clock` must be one of"),
        (lambda: fastest_mode(np.nan, d=2), "`beta` must be"),
        (lambda: fastest_mode(1.0, d=2, model="us"), "Did you mean 'usa'"),
        (lambda: fastest_mode_law(-1.0, d=2), "`beta` must be"),
        (lambda: switch_values(0, d=2), "`l` must be >= 1"),
        (lambda: switch_values(1, d=1), "`d` must be a whole number >= 2"),
        (lambda: onset_time(0, beta=1.0, d=2), "`n` must be >= 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
