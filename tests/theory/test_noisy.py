"""Thresholds, normal forms, Gibbs densities and the first-order transition, against independent numbers."""

import mpmath as mp
import numpy as np
import pytest
from scipy.special import i0, i1, iv

from attnflow.theory import gibbs
from attnflow.theory.gibbs import first_order, free_energy, order_parameter
from attnflow.theory.noisy import (
    critical_kappa,
    kuramoto_order_parameter,
    normal_form,
    threshold_order_parameter,
    tricritical_beta,
)

SHEET = np.array([0, 0.5, 1, 2, 3, 4, 6, 9])
THRESHOLDS = {
    ("usa", 2): "2 1.938779 1.769413 1.257358 .758846 .409859 .097812 .008730",
    ("usa", 3): "3 2.926189 2.718282 2.052582 1.337620 .781031 .214162 .022491",
    ("usa", 4): "4 3.917740 3.683304 2.902975 2.004265 1.245681 .384721 .046848",
    ("usa", 8): "8 7.900725 7.611406 6.570919 5.181066 3.765745 1.622932 .315408",
    ("usa", 64): "64 63.878906 63.517037 62.090534 59.785876 56.706341 48.776002 34.836259",
    ("sa", 2): "2 2.061859 2.240194 2.866255 3.703771 4.632189 6.576356 9.547148",
    ("sa", 3): "3 3.049647 3.194528 3.722213 4.466702 5.328565 7.199894 10.125000",
    ("sa", 8): "8 8.024948 8.099178 8.387382 8.840083 9.425497 10.873841 13.430306",
}


@pytest.mark.parametrize(("model", "d"), THRESHOLDS)
def test_thresholds(model, d, printed):
    printed(critical_kappa(SHEET, d=d, model=model), THRESHOLDS[model, d])


def test_thresholds_are_bessel_functions():
    """beta/a_l and beta a_0/a_l, in 40 digits, at d and beta where every Bessel function is out of range."""
    for d, beta, l in ((2, 4.0, 2), (8, 9.0, 3), (10_000, 1e4, 2)):  # noqa: E741
        with mp.workdps(40):
            nu = mp.mpf(d) / 2 - 1
            a = [
                mp.gamma(nu + 1) * (2 / mp.mpf(beta)) ** nu * mp.besseli(k + nu, beta)
                for k in (0, l)
            ]
            sa, usa = float(beta * a[0] / a[1]), float(beta / a[1] * mp.exp(beta))
        # kappa of USA holds e^beta: the rounding of beta itself is a relative 1e-16 beta
        np.testing.assert_allclose(critical_kappa(beta, d=d, l=l), sa, rtol=1e-12)
        got = critical_kappa(beta, d=d, model="usa", l=l, clock="rescaled")
        np.testing.assert_allclose(got, usa, rtol=1e-12)


def test_thresholds_at_the_ends():
    """The mean is first; at beta = 0 no other harmonic ever grows; far out USA has no noise to lose."""
    for model in ("sa", "usa"):
        values = [critical_kappa(3.0, d=5, model=model, l=l) for l in range(1, 6)]  # noqa: E741
        assert np.all(np.diff(values) > 0)
        assert critical_kappa(0.0, d=5, model=model, l=2) == np.inf
    assert critical_kappa(1e4, d=3, model="usa") == 0


def test_tricritical(printed):
    text = "2.446918 1.816155 1.575257 1.445485 1.266553 1.128972 1.031494"
    printed([tricritical_beta(d) for d in (2, 3, 4, 5, 8, 16, 64)], text)
    with mp.workdps(30):
        beta = mp.mpf(tricritical_beta(10_000))
        ratio = mp.besseli(5001, beta) / mp.besseli(5000, beta)
    assert abs(float(ratio) * 10_000 - 1) < 1e-12


def test_normal_form_on_the_circle():
    """Two published forms: B = -1/2 + r/(2(1-r)) (USA), ((1-k)/2)(r(1-k)/(1-r) - (1+2k)) (SA)."""
    beta = np.array([0.3, 1, 4, 9])
    r, k = iv(2, beta) / i1(beta), i1(beta) / i0(beta)
    np.testing.assert_allclose(normal_form(beta, model="usa"), -0.5 + r / (2 * (1 - r)), rtol=1e-11)
    sa = (1 - k) / 2 * (r * (1 - k) / (1 - r) - (1 + 2 * k))
    np.testing.assert_allclose(normal_form(beta), sa, rtol=1e-11)


@pytest.mark.parametrize("d", [2, 3, 8, 64, 5000])
def test_normal_form_changes_sign_at_the_tricritical_point(d):
    """Rounding of beta_*, 1e-12, times a slope of order d."""
    assert abs(normal_form(tricritical_beta(d), d=d, model="usa")) < 1e-11 * d
    beta = np.geomspace(0.01, 200, 60)
    assert np.all(normal_form(beta, d=d) < 0)  # softmax: continuous at every beta
    assert normal_form(0.0, d=d) == pytest.approx(-d / (d + 2), rel=1e-14)


def test_onset(printed):
    for model, cases in {
        "usa": ((0.5, ".068246", ".068127"), (1, ".076479", ".076316"), (2, ".130207", ".127968")),
        "sa": ((1, ".064855", ".064721"), (4, ".109054", ".108120"), (9, ".164233", ".160904")),
    }.items():
        for beta, predicted, exact in cases:
            kappa = 1.002 * critical_kappa(beta, d=2, model=model)
            printed(threshold_order_parameter(beta, kappa, model=model), predicted)
            printed(order_parameter(beta, float(kappa), model=model), exact)


@pytest.mark.parametrize(("model", "d", "beta"), [("usa", 3, 1.0), ("sa", 8, 4.0)])
def test_onset_is_of_second_order(model, d, beta):
    """Its relative error is proportional to kappa/kappa_c - 1: order 1, between 0.9 and 1.1."""
    excess = np.array([4e-3, 2e-3, 1e-3])
    kappas = critical_kappa(beta, d=d, model=model) * (1 + excess)
    exact = np.array([order_parameter(beta, k, d=d, model=model) for k in kappas])
    errors = np.abs(threshold_order_parameter(beta, kappas, d=d, model=model) / exact - 1)
    assert abs(np.polyfit(np.log(excess), np.log(errors), 1)[0] - 1) < 0.1
    assert threshold_order_parameter(beta, kappas[0] / 2, d=d, model=model) == 0


def test_kuramoto(printed):
    printed(kuramoto_order_parameter(3.0), ".7241587176")
    for d, kappa in ((2, 5.0), (3, 3.1), (64, 200.0), (10_000, 12_000.0)):
        r = float(kuramoto_order_parameter(kappa, d=d))
        with mp.workdps(30):
            z, nu = mp.mpf(kappa) * r, mp.mpf(d) / 2
            ratio = float(mp.besseli(nu, z) / mp.besseli(nu - 1, z))
        assert 0 < r < 1
        assert ratio == pytest.approx(r, rel=1e-11)
    assert np.all(kuramoto_order_parameter([0.1, 2.0]) == 0)


GIBBS = {
    ("usa", 1.0): {2: ".543821", 1.7: "0", 1.8: ".220786", 2.5: ".7815843"},
    ("usa", 2.0): {1.5: ".7596071", 1.2: "0"},
    ("usa", 4.0): {0.4: ".739920", 0.5: ".928532", 0.3: "0"},
    ("sa", 1.0): {2: "0", 2.5: ".443448"},
    ("sa", 2.0): {4: ".7174175"},
    ("sa", 4.0): {4.5: "0", 4.7: ".278050", 5: ".535115", 6: ".751905"},
}


@pytest.mark.parametrize(("model", "beta"), GIBBS)
def test_order_parameters(model, beta, printed):
    for kappa, text in GIBBS[model, beta].items():
        got = order_parameter(beta, kappa, model=model)
        if text == "0":
            assert got == 0
        else:
            printed(got, text)


def iterated(beta, kappa, model, count=400):
    """Density on the circle by plain iteration on an even grid, and its R and free energy."""
    theta = 2 * np.pi * np.arange(256) / 256
    kernel = np.exp(beta * np.cos(theta[:, None] - theta)) / 256
    f = np.exp(5 * np.cos(theta))
    for _ in range(count):
        smooth = kernel @ (f / f.mean())
        f = np.exp(kappa / beta * smooth) if model == "usa" else smooth ** (kappa / beta)
    f = f / f.mean()
    energy = (f @ kernel @ f / 256 - i0(beta)) / (2 * beta)
    return abs((f * np.cos(theta)).mean()), (f * np.log(f)).mean() / kappa - energy


@pytest.mark.parametrize(("model", "beta", "kappa"), [("usa", 2.0, 1.6), ("sa", 3.0, 5.0)])
def test_densities_are_those_of_plain_iteration(model, beta, kappa):
    order, free = iterated(beta, kappa, model)
    assert order_parameter(beta, kappa, model=model) == pytest.approx(order, abs=1e-12)
    if model == "usa":
        assert free_energy(beta, kappa) == pytest.approx(free, abs=1e-12)


def test_second_mode(printed):
    """m_2 at beta = 2, kappa = 1.5, from the field of the density: kappa I_1 m_1/beta : kappa I_2 m_2/beta."""
    state = gibbs._most_ordered(gibbs._check_kernel(2.0, 2, "usa"), 1.5)
    grid = gibbs._grid(gibbs._check_kernel(2.0, 2, "usa"), 1.5)
    q = gibbs._tilt(grid, state.field, 1.5 * np.exp(2.0))[0]
    printed(q @ (2 * grid.t**2 - 1), ".4900268")


def test_small_beta_is_kuramoto():
    for d in (2, 3, 20):
        kappa, exact = 1.4 * d, kuramoto_order_parameter(1.4 * d, d=d)
        for model in ("sa", "usa"):
            assert order_parameter(0.0, kappa, d=d, model=model) == pytest.approx(exact, rel=1e-12)
            near = order_parameter(1e-7, kappa, d=d, model=model)
            assert near == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("model", "d"), [("usa", 2), ("usa", 3), ("sa", 8)])
def test_order_grows_with_kappa_from_the_threshold(model, d):
    kappa_c = float(critical_kappa(1.0, d=d, model=model))
    orders = [order_parameter(1.0, kappa_c * x, d=d, model=model) for x in (1, 1.0001, 1.1, 2, 20)]
    assert orders[0] == 0
    assert np.all(np.diff(orders) > 0)
    assert orders[-1] < 1


@pytest.mark.parametrize(
    ("beta", "text"),
    [
        (2.6, ".943607 .942830 .280"),
        (3.0, ".758846 .752188 .4815"),
        (4.0, ".409859 .391475 .6688"),
        (6.0, ".097812 .0858285 .7930"),
        (9.0, ".008730 .00687789 .8588"),
    ],
)
def test_first_order(beta, text, printed):
    found = first_order(beta)
    printed([found.kappa_c, found.kappa_t, found.jump], text)
    assert found.kappa_sn < found.kappa_t < found.kappa_c
    assert found.fold < found.jump


def test_folds(printed):
    """The sheet prints .00659 at beta = 9, the first value of a scan; .006585 has no ordered density below."""
    printed([first_order(beta).kappa_sn for beta in (3.0, 4.0, 6.0)], ".7503 .3871 .0835")
    fold = first_order(9.0).kappa_sn
    assert order_parameter(9.0, fold * (1 - 1e-6), model="usa") == 0
    assert order_parameter(9.0, 0.00659, model="usa") > 0.7


@pytest.mark.parametrize(("beta", "d"), [(20.0, 2), (9.0, 3)])
def test_first_order_far_from_the_tricritical_point(beta, d):
    """A wide loop: nothing ordered below the fold, and free energies that cross at kappa_t."""
    found = first_order(beta, d=d)
    assert order_parameter(beta, found.kappa_sn * (1 - 1e-7), d=d, model="usa") == 0
    near = order_parameter(beta, found.kappa_sn * (1 + 1e-7), d=d, model="usa")
    assert near == pytest.approx(found.fold, rel=1e-2)
    sides = [free_energy(beta, found.kappa_t * x, d=d) for x in (1 - 1e-7, 1 + 1e-7)]
    assert sides[0] > 0 > sides[1]


def test_free_energy_falls_through_zero_at_the_transition():
    found = first_order(4.0, d=3)
    energies = [free_energy(4.0, found.kappa_t * x, d=3) for x in (0.999, 1, 1.001)]
    assert energies[0] > 0 > energies[2]
    assert abs(energies[1]) < 1e-9
    assert order_parameter(4.0, found.kappa_t, d=3, model="usa") == pytest.approx(
        found.jump, rel=1e-8
    )


def test_loop_opens_at_the_tricritical_point():
    """Close to beta_* its width is quadratic in the distance: order 2, between 1.9 and 2.1."""
    start = tricritical_beta(2)
    distance = start * np.array([4e-3, 2e-3, 1e-3])
    found = [first_order(start + x) for x in distance]
    width = np.array([1 - f.kappa_sn / f.kappa_c for f in found])
    assert abs(np.polyfit(np.log(distance), np.log(width), 1)[0] - 2) < 0.1
    # of a sextic free energy R_sn : R_t = 1/sqrt 2 : sqrt 3/2
    assert found[-1].fold / found[-1].jump == pytest.approx(np.sqrt(2 / 3), rel=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_kappa(-1.0, d=2), "`beta` must be"),
        (lambda: critical_kappa(1.0, d=2, l=0), "`l` must be a whole number >= 1"),
        (lambda: critical_kappa(1.0, d=2, model="asu"), "`model` must be one of sa, usa"),
        (lambda: tricritical_beta(1), "`d` must be a whole number >= 2"),
        (lambda: normal_form(np.nan), "`beta` must be"),
        (
            lambda: threshold_order_parameter(4.0, 1.0, model="usa"),
            "discontinuous: see `gibbs.first_order`",
        ),
        (lambda: threshold_order_parameter(1.0, -1.0), "`kappa` must be finite and > 0"),
        (lambda: kuramoto_order_parameter(0.0), "`kappa` must be finite and > 0"),
        (lambda: kuramoto_order_parameter(1.0, d=1), "`d` must be a whole number >= 2"),
        (lambda: order_parameter(1.0, 0.0), "`kappa` must be finite and > 0"),
        (lambda: order_parameter(101.0, 1.0), "`beta` must lie in"),
        (lambda: order_parameter(1.0, 1.0, d=1001), "`d` must lie in"),
        (lambda: order_parameter(1.0, 1.0, model="us"), "Did you mean 'usa'"),
        (lambda: order_parameter(9.0, 10.0, model="usa"), "leave the density wide enough"),
        (lambda: free_energy(1.0, np.inf), "`kappa` must be finite and > 0"),
        (lambda: first_order(2.0), "continuous"),
        (lambda: first_order(np.nan), "`beta` must lie in"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
