"""Phase transitions of noisy transformers: thresholds from attention, densities from their branches."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import brentq

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array
from attnflow.claims.stability import attention_growth
from attnflow.theory import gibbs, noisy

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0)
TABLE = (
    ("usa", 2),
    ("usa", 3),
    ("usa", 4),
    ("usa", 8),
    ("usa", 64),
    ("sa", 2),
    ("sa", 3),
    ("sa", 8),
)
FORMS = (
    ("usa", 2, 0.5), ("usa", 2, 1.0), ("usa", 2, 2.0), ("usa", 2, 4.0), ("usa", 8, 1.0), ("usa", 8, 3.0),
    ("sa", 2, 1.0), ("sa", 2, 4.0), ("sa", 2, 9.0), ("sa", 3, 4.0), ("sa", 8, 2.0),
)  # fmt: skip
ORDERED = (
    ("usa", 1.0, 2.0), ("usa", 1.0, 1.7), ("usa", 1.0, 1.8), ("usa", 1.0, 2.5), ("usa", 2.0, 1.5),
    ("usa", 2.0, 1.2), ("usa", 4.0, 0.4), ("usa", 4.0, 0.5), ("usa", 4.0, 0.3), ("sa", 1.0, 2.0),
    ("sa", 1.0, 2.5), ("sa", 2.0, 4.0), ("sa", 4.0, 4.5), ("sa", 4.0, 4.7), ("sa", 4.0, 5.0), ("sa", 4.0, 6.0),
)  # fmt: skip
"""Model, beta and kappa on the circle."""
ELSEWHERE = (("usa", 3, 4.0, 0.7), ("usa", 8, 4.0, 1.7), ("sa", 3, 1.0, 4.0), ("sa", 8, 9.0, 15.0))
FIRST_ORDER = (2.6, 3.0, 4.0, 6.0, 9.0)
DEGREE = 96
"""Degree of the densities that a mean-field flow is shown, enough for all: one shape compiles once."""
FIELDS = ("kappa_c", "kappa_t", "jump", "kappa_sn", "fold")


def _thresholds() -> Sides:
    """Growth 1/kappa is lost to noise at kappa = l(l+d-2) over the growth without it."""
    predicted, observed = [], []
    for model, d in TABLE:
        predicted.append(noisy.critical_kappa(BETAS, d=d, model=model))
        observed.append([(d - 1) / attention_growth(1, d, beta, model) for beta in BETAS])
    return predicted, observed


def _higher_thresholds() -> Sides:
    cases = [(l, d, m) for l in (2, 3) for d in (2, 3, 8) for m in ("sa", "usa")]  # noqa: E741
    predicted = [noisy.critical_kappa(4.0, d=d, model=m, l=l) for l, d, m in cases]  # noqa: E741
    return predicted, [l * (l + d - 2) / attention_growth(l, d, 4.0, m) for l, d, m in cases]  # noqa: E741


@cache
def _bend(model: str, d: int, beta: float) -> float:
    """Coefficient of R^2 in 1 - kappa/kappa_c along the branch, from its start up to R = 0.06."""
    kappa_c = af.analysis.branches.threshold(beta, d, model)
    curve = af.analysis.branches.branch(beta, (0.98 * kappa_c, 1.05 * kappa_c), d, model)
    near = (curve.R < 0.06) & (np.arange(len(curve.R)) > 0)
    square = curve.R[near] ** 2
    powers = square[:, None] ** np.arange(3)
    return float(np.linalg.lstsq(powers, (1 - curve.kappa[near] / kappa_c) / square)[0][0])


def _normal_forms() -> Sides:
    predicted = [noisy.normal_form(beta, d=d, model=model) for model, d, beta in FORMS]
    return predicted, [_bend(*case) for case in FORMS]


def _tricritical() -> Sides:
    dimensions = (2, 3, 4, 5, 8, 16, 64)
    predicted = [noisy.tricritical_beta(d) for d in dimensions]
    observed = [
        brentq(lambda beta, d=d: _bend("usa", d, beta), 0.98 * beta, 1.02 * beta, xtol=1e-7)
        for d, beta in zip(dimensions, predicted, strict=True)
    ]
    return predicted, observed


def _onset() -> Sides:
    predicted, observed = [], []
    for model, d, beta in FORMS:
        if (bend := float(noisy.normal_form(beta, d=d, model=model))) > 0:
            continue
        kappa = 1.00001 * float(noisy.critical_kappa(beta, d=d, model=model))
        guess = np.array([1.0, np.sqrt(1e-5 / -bend * d)])
        predicted.append(noisy.threshold_order_parameter(beta, kappa, d=d, model=model))
        observed.append(af.analysis.gibbs.gibbs(beta, kappa, d, model, start=guess).R)
    return predicted, observed


def _kuramoto() -> Sides:
    cases = [(3.0, 2), (1.9, 2), (2.5, 2), (20.0, 2), (4.0, 3), (70.0, 64)]
    predicted = [noisy.kuramoto_order_parameter(kappa, d=d) for kappa, d in cases]
    return predicted, [af.analysis.gibbs.gibbs(0.0, kappa, d).R for kappa, d in cases]


def _ordered() -> Sides:
    cases = [(model, 2, beta, kappa) for model, beta, kappa in ORDERED]
    for model, beta in (
        ("usa", 0.5),
        ("usa", 1.0),
        ("usa", 2.0),
        ("sa", 1.0),
        ("sa", 4.0),
        ("sa", 9.0),
    ):
        cases.append((model, 2, beta, 1.002 * float(noisy.critical_kappa(beta, d=2, model=model))))
    cases += ELSEWHERE
    predicted = [gibbs.order_parameter(b, kappa, d=d, model=m) for m, d, b, kappa in cases]
    return predicted, [af.analysis.gibbs.gibbs(b, kappa, d, m).R for m, d, b, kappa in cases]


def _free_energies() -> Sides:
    cases = [(2, beta, kappa) for model, beta, kappa in ORDERED if model == "usa"]
    cases += [(d, beta, kappa) for model, d, beta, kappa in ELSEWHERE if model == "usa"]
    predicted = [gibbs.free_energy(beta, kappa, d=d) for d, beta, kappa in cases]
    return predicted, [
        af.analysis.gibbs.gibbs(b, kappa, d, "usa").free_energy for d, b, kappa in cases
    ]


def _first_order() -> Sides:
    cases = [(beta, 2) for beta in FIRST_ORDER] + [(9.0, 3), (3.0, 8)]
    read = lambda found: [getattr(found, name) for name in FIELDS]
    predicted = [read(gibbs.first_order(beta, d=d)) for beta, d in cases]
    return predicted, [read(af.analysis.branches.transition(beta, d)) for beta, d in cases]


def _loop() -> Sides:
    """Order parameters as kappa rises and falls between 0.375 and 0.425, on the circle at beta = 4."""
    kappas = np.arange(0.375, 0.426, 0.005)
    ordered = np.array([gibbs.order_parameter(4.0, kappa, model="usa") for kappa in kappas])
    rising = np.where(kappas > noisy.critical_kappa(4.0, d=2, model="usa"), ordered, 0)
    return [rising, ordered], af.analysis.branches.hysteresis(4.0, kappas, 2, "usa")


def _velocities() -> Sides:
    """Velocity of the order parameter and of the next modes at stationary densities."""
    speeds = [_speed(m, 2, beta, kappa) for m, beta, kappa in ORDERED[3::4]]
    speeds += [_speed(*case) for case in ELSEWHERE]
    return np.zeros(np.shape(speeds)), speeds


def _speed(model: str, d: int, beta: float, kappa: float) -> Any:
    state = af.analysis.gibbs.gibbs(beta, kappa, d, model, degree=DEGREE)
    space = af.meanfield.Zonal(d, DEGREE)
    flow = af.meanfield.MeanField(space, beta, model, kappa=kappa)
    return np.asarray(flow(0.0, array(state.modes)))[:9]


DERIVED = "derived: Gibbs densities"

CLAIMS = (
    Claim(
        name="critical-kappa",
        statement="Noise damps the mean of uniform tokens up to kappa_c = beta/a_1 (USA), beta a_0/a_1 (SA).",
        source="Shalova+ 2024",
        check=_thresholds,
        oracle=noisy.critical_kappa,
        printed="""
            2 1.938779 1.769413 1.257358 .758846 .409859 .097812 .008730
            3 2.926189 2.718282 2.052582 1.337620 .781031 .214162 .022491
            4 3.917740 3.683304 2.902975 2.004265 1.245681 .384721 .046848
            8 7.900725 7.611406 6.570919 5.181066 3.765745 1.622932 .315408
            64 63.878906 63.517037 62.090534 59.785876 56.706341 48.776002 34.836259
            2 2.061859 2.240194 2.866255 3.703771 4.632189 6.576356 9.547148
            3 3.049647 3.194528 3.722213 4.466702 5.328565 7.199894 10.125000
            8 8.024948 8.099178 8.387382 8.840083 9.425497 10.873841 13.430306
        """,
        tolerance=1e-11,
        why="rounding 1e-16 of sums, over harmonics of a tenth and slopes of a tenth, times e^9 beside it",
        relative=True,
    ),
    Claim(
        name="critical-kappa-of-modes",
        statement="Noise damps harmonics of degrees 2 and 3 up to beta/a_l (USA), beta a_0/a_l (SA).",
        source="Shalova+ 2024",
        check=_higher_thresholds,
        oracle=noisy.critical_kappa,
        tolerance=1e-10,
        why="as for degree 1, over a_3/a_0 above 1e-2",
        relative=True,
    ),
    Claim(
        name="normal-form",
        statement="Near the threshold kappa/kappa_c = 1 - B R^2, with B known in every dimension.",
        source="derived: third order",
        check=_normal_forms,
        oracle=noisy.normal_form,
        tolerance=3e-7,
        why="R^6 left out, 0.06^6 times 5; rounding 1e-14 over the least R^2, 4e-6, is less",
    ),
    Claim(
        name="tricritical-beta",
        statement="Order of (USA) sets in continuously up to beta_*, and with a jump above.",
        source="Mun, Rosenzweig 2026",
        check=_tricritical,
        oracle=noisy.tricritical_beta,
        printed="2.446918 1.816155 1.575257 1.445485 1.266553 1.128972 1.031494",
        tolerance=2e-6,
        why="error of B, 3e-7, over its slope in beta, above 0.2; root to 1e-7",
    ),
    Claim(
        name="onset-of-order",
        statement="At 1.00001 kappa_c the order parameter is sqrt(1e-5/|B|).",
        source="derived: third order",
        check=_onset,
        oracle=noisy.threshold_order_parameter,
        tolerance=2e-4,
        why="next order: at most 20 times the excess 1e-5",
        relative=True,
    ),
    Claim(
        name="noisy-kuramoto",
        statement="At beta = 0, order r = I_{d/2}(kappa r)/I_{d/2-1}(kappa r) sets in at kappa = d.",
        source="Bertini+ 2010",
        check=_kuramoto,
        oracle=noisy.kuramoto_order_parameter,
        printed=".7241587176 0.0±1e-9 * * * *",
        tolerance=1e-12,
        why="rounding, times the response 1/(1 - slope) below 100",
    ),
    Claim(
        name="gibbs-order-parameter",
        statement="Stationary densities of noisy tokens have these order parameters.",
        source=DERIVED,
        check=_ordered,
        oracle=gibbs.order_parameter,
        printed="""
            .543821 0.0±1e-9 .220786 .7815843 .7596071 0.0±1e-9 .739920 .928532 0.0±1e-9
            0.0±1e-9 .443448 .7174175 0.0±1e-9 .278050 .535115 .751905
            .068127 .076316 .127968 .064721 .108120 .160904 * * * *
        """,
        tolerance=1e-10,
        why="rounding 1e-14 of both sides, times the response 1/(2 * 0.002) at 1.002 kappa_c",
    ),
    Claim(
        name="gibbs-free-energy",
        statement="Free energies of ordered densities of (USA), less that of the uniform one.",
        source=DERIVED,
        check=_free_energies,
        oracle=gibbs.free_energy,
        tolerance=1e-11,
        why="rounding of e^4 over beta, and of logarithms up to 30",
    ),
    Claim(
        name="first-order-transition",
        statement="Above beta_* order of (USA) appears at a fold, wins at kappa_t, and is left alone at kappa_c.",
        source="Mun, Rosenzweig 2026",
        check=_first_order,
        oracle=gibbs.first_order,
        printed="""
            .943607 .942830 .280 * *
            .758846 .752188 .4815 .7503 *
            .409859 .391475 .6688 .3871 *
            .097812 .0858285 .7930 .0835 *
            * .00687789 .8588 * *
            * * * * *  * * * * *
        """,
        tolerance=1e-9,
        why="folds to 1e-10; kappa_t to 1e-13 where the free energy crosses with a slope",
        relative=True,
    ),
    Claim(
        name="hysteresis-loop",
        statement="As kappa rises order jumps in at kappa_c, as it falls order jumps out at the fold (beta = 4).",
        source="Mun, Rosenzweig 2026",
        check=_loop,
        oracle=gibbs.order_parameter,
        tolerance=1e-10,
        why="rounding, times the response 100 of the nearest density to the fold",
    ),
    Claim(
        name="gibbs-is-stationary",
        statement="Such densities stand still under transport by attention and diffusion by noise.",
        source=DERIVED,
        check=_velocities,
        tolerance=1e-10,
        why="rounding of e^4 times slopes of degree 9 and values at the pole up to 1e3",
    ),
)
