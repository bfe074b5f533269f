import mpmath as mp
import numpy as np
import pytest

from attnflow.theory import long_context
from attnflow.theory.long_context.uniform_keys import (
    log_partition,
    near_equiangular,
    output_length,
    participation_ratio,
    random_energy_threshold,
    row_entropy,
    selectivity_scale,
)


def exact(beta, d):
    """log a_0 and r in 60 digits; the entropy's share of them."""
    with mp.workdps(60):
        half, beta = mp.mpf(d) / 2, mp.mpf(beta)
        log_a = mp.log(mp.hyp0f1(half, beta**2 / 4))
        r = mp.besseli(half, beta) / mp.besseli(half - 1, beta)
        return float(log_a), float(r), float(log_a - beta * r)


@pytest.mark.parametrize("d", [2, 3, 8, 50, 10_000])
@pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.5, 4.0, 30.0, 300.0, 1e4])
def test_integrals_in_sixty_digits(d, beta):
    log_a, r, bent = exact(beta, d)
    np.testing.assert_allclose(log_partition(beta, d=d), log_a, rtol=1e-14)
    np.testing.assert_allclose(output_length(beta, d=d), r, rtol=1e-14)
    entropy = row_entropy(beta, n=10, d=d)
    np.testing.assert_allclose(entropy, np.log(10) + bent, rtol=0, atol=1e-14 * (1 + beta))


def test_printed_numbers(printed):
    """At n = 200 000. The entropy 11.1769550 of d = 2 is printed as 11.17696, rounded twice."""
    n, cases = 200_000, [(2, 4.0), (3, 5.0), (8, 6.0)]
    printed([output_length(beta, d=d) for d, beta in cases], ".863523 .800091 .551783")
    printed([row_entropy(beta, n=n, d=d) for d, beta in cases], "11.1769550 10.90299 10.79750")
    printed(participation_ratio(4.0, n=n, d=2), "59749")


def test_closed_forms_in_three_dimensions():
    beta = np.array([0.1, 1.0, 9.0, 50.0])
    np.testing.assert_allclose(log_partition(beta, d=3), np.log(np.sinh(beta) / beta), rtol=1e-13)
    np.testing.assert_allclose(output_length(beta, d=3), 1 / np.tanh(beta) - 1 / beta, rtol=1e-13)


def test_no_heat():
    assert log_partition(0.0, d=3) == 0
    assert output_length(0.0, d=3) == 0
    assert row_entropy(0.0, n=8, d=3) == np.log(8)
    np.testing.assert_allclose(participation_ratio(0.0, n=[8, 2**20], d=3), [8, 2**20], rtol=1e-15)


def test_length_is_the_derivative():
    beta, h = np.array([0.5, 3.0, 40.0]), 1e-5
    slope = (log_partition(beta + h, d=5) - log_partition(beta - h, d=5)) / (2 * h)
    np.testing.assert_allclose(output_length(beta, d=5), slope, rtol=1e-8)


def test_selectivity_scale():
    np.testing.assert_allclose(selectivity_scale(2**12, [2, 3, 5, 13]), [2**24, 2**12, 64, 4])
    assert selectivity_scale(1e300, 2) == np.inf


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.0])
def test_many_dimensions_are_equiangular(gamma):
    """Cosines of the g_i are of size d^-1/2, and enter squared, times (beta (1 - rho))^2 < 160."""
    n, d = 4096, 10**7
    beta = long_context.logit_scale(gamma, n)
    got = near_equiangular(0.5, n=n, beta=beta, d=d)
    np.testing.assert_allclose(got.cosine, long_context.output_cosine(0.5, n=n, beta=beta), atol=160 / d)  # fmt: skip
    own = n ** (gamma / 2) / (n ** (gamma / 2) + n - 1)
    np.testing.assert_allclose(got.self_weight, own, rtol=160 / d)


def test_random_tokens_as_printed():
    """Printed from one sample, n = 4096: weights within a digit, cosines within what samples vary.

    Not compared: cosines at gamma = 3, where the printed .5446 of d = 33 is 1e-3 beside any full sample.
    """
    beta = long_context.logit_scale([1.0, 1.6, 2.0, 2.4, 3.0], 4096)
    weights = {33: [0.012, 0.089, 0.265, 0.554, 0.874], 133: [0.014, 0.138, 0.436, 0.784, 0.973],
               532: [0.015, 0.154, 0.484, 0.828, 0.982]}  # fmt: skip
    cosines = {33: [0.9821, 0.9335, 0.8377, 0.6848], 133: [0.9979, 0.9682, 0.8186, 0.6097],
               532: [0.9995, 0.9737, 0.8052, 0.5915]}  # fmt: skip
    for d, printed in weights.items():
        got = near_equiangular(0.5, n=4096, beta=beta, d=d)
        np.testing.assert_allclose(got.self_weight, printed, rtol=0, atol=1e-3)
        np.testing.assert_allclose(got.cosine[:4], cosines[d], rtol=0, atol=6e-4)


def test_threshold_solves_the_printed_balance():
    """g = Phi(g) at s = s*(g), as printed; where the second moment of the energies exists."""
    density = np.array([0.3, 1.0, 4.0, 16.0, 64.0, 1e4])
    g = random_energy_threshold(density)
    s = (-density + np.sqrt(density**2 + 4 * g**2)) / (2 * g)
    states = 1 + density / 2 * np.log(1 - s**2)
    assert (states >= 0).all()
    np.testing.assert_allclose(states + g * s, g, rtol=1e-11)
    np.testing.assert_allclose(random_energy_threshold(1e12), 1, rtol=1e-11)
    assert random_energy_threshold(1e-4) == np.inf


def test_threshold_is_where_a_long_context_turns():
    """Annealed odds are even at the threshold, to O(1/log n): here 1e-4 at n = 1e80."""
    n, density = 1e80, 4.0
    d = round(density * np.log(n))
    beta = np.log(n) * random_energy_threshold(d / np.log(n))
    scales = np.linspace(0.99, 1.01, 81)
    own = near_equiangular(0.0, n=n, beta=scales * beta, d=d).self_weight
    turn = np.interp(0.0, np.log(own / (1 - own)), scales)
    np.testing.assert_allclose(turn, 1, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_partition(-1.0, d=3), "`beta` must be finite and >= 0, but beta=-1.0"),
        (lambda: log_partition(1.0, d=1), "`d` must be a whole number >= 2, but d=1"),
        (lambda: output_length(np.inf, d=3), "`beta` must be finite"),
        (lambda: row_entropy(1.0, n=1, d=3), "`n` must be a whole number >= 2"),
        (lambda: participation_ratio(np.nan, n=5, d=3), "`beta` must be finite"),
        (lambda: selectivity_scale(5, 1), "`d` must be a whole number >= 2"),
        (lambda: near_equiangular(-0.1, n=5, beta=1.0, d=3), r"`rho` must lie in \[0, 1\]"),
        (lambda: near_equiangular(0.5, n=1, beta=1.0, d=3), "`n` must be"),
        (lambda: random_energy_threshold(0.0), "`density` must be finite and > 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
