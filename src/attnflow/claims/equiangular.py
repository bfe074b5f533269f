"""Equiangular tokens: one cosine for all pairs, its clock, its collapse and its phase diagram."""

from __future__ import annotations

from functools import partial

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    FLOW,
    TOL,
    causal,
    change,
    gram,
    read,
    run,
    save_times,
)
from attnflow.theory import equiangular

MODELS = ("sa", "usa")
COSINE = {"sa": equiangular.cosine_sa, "usa": equiangular.cosine_usa}


def _course(model: str, n: int, beta: float, rho0: float, t_end: float, **options) -> np.ndarray:
    """Tokens along a run from equal cosines rho0."""
    x0 = np.asarray(af.sphere.equiangular(n, rho0, d=8))
    return run(FLOW[model](beta), x0, t_end, **options)


def _cosines(model: str, *cases: tuple[int, float, float, float]) -> Sides:
    """Final cosines of runs (n, beta, rho0, t)."""
    predicted = [COSINE[model]([0, t], rho0, n=n, beta=beta)[1] for n, beta, rho0, t in cases]
    ends = [_course(model, *case)[-1] for case in cases]
    return predicted, [read(af.observables.mean_cosine, end[None])[0] for end in ends]


def _kuramoto() -> Sides:
    xs = _course("usa", 6, 0.0, 0.05, 1.3)
    return (
        equiangular.cosine_kuramoto(save_times(1.3), 0.05, n=6)[1:],
        read(af.observables.mean_cosine, xs)[1:],
    )


def _one_cosine() -> Sides:
    """Every pair of tokens at once, from equal cosines."""
    grams = gram(_course("sa", 8, 4.0, 0.0, 3.0))[1:, ~np.eye(8, dtype=bool)]
    cosines = equiangular.cosine_sa(save_times(3.0), 0.0, n=8, beta=4.0)[1:]
    return np.repeat(cosines[:, None], grams.shape[1], axis=1), grams


def _causal_pair() -> Sides:
    """The first two of five tokens see no later ones."""
    x0 = np.asarray(af.sphere.equiangular(5, -0.2, d=8))
    xs = run(causal(2.0), x0, 5.0)
    predicted = equiangular.cosine_causal_pair(save_times(5.0), -0.2, beta=2.0)
    return predicted[1:], gram(xs)[1:, 0, 1]


def _speeds() -> Sides:
    cases = [(model, b, r) for model in MODELS for b in (0.0, 2.0, -1.0) for r in (0.0, -0.03, 0.6)]
    predicted = [equiangular.speed(rho, n=32, beta=b, model=model) for model, b, rho in cases]
    observed = [
        change(af.observables.mean_cosine, FLOW[model](b), af.sphere.equiangular(32, rho))
        for model, b, rho in cases
    ]
    return predicted, observed


def _clock(model: str, *cases: tuple[int, float, float, float]) -> Sides:
    """Time of each case (n, beta, rho0, t), told from the simulated cosine."""
    told = {"sa": equiangular.time_sa, "usa": equiangular.time_usa}[model]
    predicted = []
    for n, beta, rho0, t in cases:
        cosine = read(af.observables.mean_cosine, _course(model, n, beta, rho0, t))[-1]
        predicted.append(told(cosine, rho0, n=n, beta=beta))
    return predicted, [t for *_, t in cases]


def _gap() -> Sides:
    xs = _course("sa", 8, 1.0, 0.0, 12.0)
    return (
        equiangular.gap(save_times(12.0), 1.0, n=8, beta=1.0)[1:],
        read(af.observables.cosine_gap, xs)[1:],
    )


def _gap_clock() -> Sides:
    """Logarithm of time, told from simulated gaps."""
    gaps = read(af.observables.cosine_gap, _course("sa", 8, 4.0, 0.0, 16.0))[1:]
    told = equiangular.gap_time(gaps, 1.0, n=8, beta=4.0, log=True)
    return told, np.log(save_times(16.0)[1:])


def _entropy() -> Sides:
    import jax

    cases = [(0.3, 4.0), (0.0, 1.0), (-0.03, 9.0), (0.9, 30.0)]
    x = [af.sphere.equiangular(32, rho) for rho, _ in cases]
    entropy = jax.jit(af.observables.attention_entropy)
    return (
        [equiangular.attention_entropy(rho, n=32, beta=beta) for rho, beta in cases],
        [np.asarray(entropy(x, beta))[0] for x, (_, beta) in zip(x, cases, strict=True)],
    )


ODE = "solver: 10 rtol of a run"
CLOCK = "solver: 10 rtol in the cosine, divided by the smallest final speed, 0.1"

CLAIMS = (
    Claim(
        name="equiangular-sa",
        statement="Equal cosines stay equal under (SA) and follow one scalar ODE, at any sign of beta.",
        source="Rigollet 2025, Sec. 6.1",
        check=partial(
            _cosines,
            "sa",
            (5, 2.0, 0.1, 2.0),
            (8, 4.0, 0.0, 3.0),
            (8, -2.0, -0.1, 2.0),
            (8, 9.0, 0.4, 5.0),
        ),
        oracle=equiangular.cosine_sa,
        printed=".8398614556 .1798908690 * *",
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="equiangular-usa",
        statement="Equal cosines stay equal under (USA) and follow one scalar ODE, at any sign of beta.",
        source="Geshkovski+ 2023, Sec. 6",
        check=partial(
            _cosines, "usa", (8, 4.0, 0.0, 0.5), (5, 2.0, 0.1, 0.5), (8, -2.0, -0.1, 2.0)
        ),
        oracle=equiangular.cosine_usa,
        printed=".3696865801 * *",
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="equiangular-every-pair",
        statement="Every pair of equiangular tokens has the one cosine of the theory at all times.",
        source="Rigollet 2025, Sec. 6.1",
        check=_one_cosine,
        oracle=equiangular.cosine_sa,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="equiangular-kuramoto",
        statement="At beta = 0 the common cosine is (q-1)/(q+n-1), q = e^(2t) (1+(n-1) rho0)/(1-rho0).",
        source="derived: partial fractions",
        check=_kuramoto,
        oracle=equiangular.cosine_kuramoto,
        printed="* * * * * * * .735862535",
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="equiangular-causal-pair",
        statement="Under a causal mask the first two tokens meet at half speed, whatever comes after them.",
        source="Karagodin+ 2024, n = 2",
        check=_causal_pair,
        oracle=equiangular.cosine_causal_pair,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="equiangular-speed",
        statement="Cosines of orthogonal tokens start at speed 2/(e^beta+n-1) under (SA), 2/n under (USA).",
        source="Geshkovski+ 2023, Sec. 6",
        check=_speeds,
        oracle=equiangular.speed,
        tolerance=1e-13,
        why="rounding: sums over n^2 = 1024 pairs of numbers below e^2",
    ),
    Claim(
        name="equiangular-clock-sa",
        statement="The time that equiangular tokens need is a closed form of exponential integrals (SA).",
        source="derived: partial fractions",
        check=partial(_clock, "sa", (5, 2.0, 0.1, 2.0), (8, 4.0, 0.0, 3.0)),
        oracle=equiangular.time_sa,
        printed="2.0000000 3.0000000",
        tolerance=10 * TOL,
        why=CLOCK,
    ),
    Claim(
        name="equiangular-clock-usa",
        statement="The time that equiangular tokens need is a closed form of exponential integrals (USA).",
        source="derived: partial fractions",
        check=partial(_clock, "usa", (8, 4.0, 0.0, 0.5), (5, 2.0, 0.1, 0.5)),
        oracle=equiangular.time_usa,
        printed=".5000000 .5000000",
        tolerance=10 * TOL,
        why=CLOCK,
    ),
    Claim(
        name="equiangular-gap",
        statement="The gap 1 - rho keeps following the theory long after rho has rounded to 1.",
        source="Rigollet 2025, Sec. 6.1",
        check=_gap,
        oracle=equiangular.gap,
        tolerance=1e-5,
        why="solver: 20 rtol over the last distance of tokens, sqrt(2 gap) = 3e-5",
        relative=True,
    ),
    Claim(
        name="equiangular-gap-clock",
        statement="Time is a function of the gap alone, down to gaps far below rounding.",
        source="derived: partial fractions",
        check=_gap_clock,
        oracle=equiangular.gap_time,
        tolerance=3e-7,
        why="solver: 20 rtol over the last distance of tokens, 2e-5, over 2 t = 32",
    ),
    Claim(
        name="equiangular-entropy",
        statement="Each row of softmax attention has the entropy log(E+n-1) - u beta (1-rho).",
        source="derived: one row, summed",
        check=_entropy,
        oracle=equiangular.attention_entropy,
        printed="2.88906410 * * *",
        tolerance=1e-13,
        why="rounding: log Z and its mean are of size beta = 30",
    ),
)
