"""The phase diagram in (t, beta): when tokens become one cluster, as a flow and through layers."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    LANES,
    LAYERS,
    TOKENS,
    WIDE_BETAS,
    WIDE_DIMENSION,
    WIDE_SEEDS,
    fill_lanes,
    frontier,
    layers,
    orthogonal,
    read,
    run,
    sa,
    wide_starts,
)
from attnflow.theory import equiangular, normalization, rates

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
LAYER_BETAS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


def _prefactor() -> Sides:
    betas, t = (0.0, 1.0, 4.0), 14.0
    ends = [run(sa(beta), np.eye(8), t)[-1] for beta in betas]
    gaps = read(af.observables.cosine_gap, np.array(ends))
    return equiangular.prefactor(0.0, n=8, beta=betas), np.exp(2 * t) * gaps


def _prefactor_many(n: int) -> Sides:
    """Constants of n tokens, from the times at which their gap is 1e-9."""
    betas = fill_lanes((1.0, 4.0))
    times = frontier(orthogonal(n), betas, delta=1e-9, rtol=1e-9)[:2]
    return equiangular.prefactor(0.0, n=n, beta=betas[:2]), 1e-9 * np.exp(2 * times)


def _phase_curve(n: int) -> Sides:
    times = frontier(orthogonal(n), fill_lanes(BETAS), rtol=1e-8)
    return equiangular.phase_curve(BETAS, n=n), times[: len(BETAS)]


def _phase_curve_at_zero() -> Sides:
    n, delta = TOKENS, 0.01
    curve = equiangular.phase_curve(0.0, n=n, delta=delta)
    formula = np.log((n * (1 - delta) + delta) / delta) / 2
    return [curve, formula], frontier(orthogonal(n), fill_lanes((0.0,)), delta=delta)[:2]


def _uniform_curve(beta: float) -> Sides:
    """Mean over seeds of the half-height time of uniform tokens in dimension 1024."""
    times = frontier(wide_starts(), np.repeat(WIDE_BETAS, len(WIDE_SEEDS)))
    mean = times.reshape(len(WIDE_BETAS), -1).mean(axis=1)[WIDE_BETAS.index(beta)]
    return equiangular.phase_curve(beta, n=TOKENS), mean


def _four_standard_errors(beta: float) -> float:
    """Four standard errors of `_uniform_curve`.

    The mean of n (n-1)/2 independent cosines has variance 2/(n (n-1) d); one unit of it is worth
    1/speed(0) units of time.
    """
    spread = np.sqrt(2 / (TOKENS * (TOKENS - 1) * WIDE_DIMENSION * len(WIDE_SEEDS)))
    return float(4 * spread / equiangular.speed(0.0, n=TOKENS, beta=beta))


def _layer() -> Sides:
    """Cosines after one real layer, from equal cosines."""
    cases = [(6, 2.0, 0.2, 0.3), (6, 2.0, 0.2, 1.0), (6, -3.0, -0.15, 0.5), (32, 9.0, 0.4, 1.0)]
    predicted, observed = [], []
    for n, beta, rho, eta in cases:
        x = af.sa(beta).layer(0.0, af.sphere.equiangular(n, rho, d=n + 3), eta)
        predicted.append(normalization.layer_step("post", rho, n=n, beta=beta, eta=eta).cosine)
        observed.append(float(x[0] @ x[-1]))
    return predicted, observed


@cache
def _stacks(eta: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaps and shares of close pairs through layers from orthogonal tokens, one lane a beta."""
    return layers(orthogonal(), fill_lanes(LAYER_BETAS), eta)


def _stack() -> Sides:
    """Cosines through the first 40 layers, for every beta."""
    steps = 40
    predicted = [
        normalization.layer_course("post", layers=steps, n=TOKENS, beta=beta).cosine
        for beta in LAYER_BETAS
    ]
    return predicted, 1 - _stacks(1.0)[0][: len(LAYER_BETAS), : steps + 1]


def _layer_curve(eta: float, betas: tuple[float, ...]) -> Sides:
    share = _stacks(eta)[1][: len(betas)]
    predicted = normalization.phase_curve_post_ln(betas, n=TOKENS, eta=eta, max_steps=LAYERS)
    return predicted, eta * (share >= 0.5).argmax(axis=1)


def _uniform_layers(beta: float) -> Sides:
    """Mean over seeds of the nominal half-height time of uniform tokens through layers."""
    _, share = layers(wide_starts(), np.repeat(WIDE_BETAS, len(WIDE_SEEDS)), 0.1)
    times = 0.1 * (share >= 0.5).argmax(axis=1).reshape(len(WIDE_BETAS), -1)
    mean = times.mean(axis=1)[WIDE_BETAS.index(beta)]
    return normalization.phase_curve_post_ln(beta, n=TOKENS, eta=0.1), mean


def _contraction() -> Sides:
    """Slope of the logarithm of displacements, per unit of nominal time, near consensus."""
    start = np.tile(np.asarray(af.sphere.equiangular(TOKENS, 1 - 1e-7)), (LANES, 1, 1))
    gap = layers(start, fill_lanes((0.0, 2.0, 9.0)), 0.1)[0][:3]
    slope = np.log(gap[:, 20] / gap[:, 60]) / (2 * 0.1 * 40)
    return [rates.consensus_rate("sa", beta, eta=0.1) for beta in (0.0, 2.0, 9.0)], slope


PRINTED_CURVE = {
    32: "5.1863 5.2202 5.2703 5.4584 5.8976 6.9535 9.5443 15.9953 32.2331 73.4457 178.7309",
    128: "5.8794 5.8912 5.9090 5.9787 6.1481 6.5695 7.6342 10.3530 17.3504 35.4675 82.5934",
}
PRINTED_LAYERS = {
    0.1: "5.5 5.6 5.8 6.3 7.5 10.4 17.5 35.4 80.8 196.7",
    1.0: "8 8 9 10 12 18 31",
}
PRINTED_UNIFORM = {1.0: "5.295±.043", 4.0: "6.995±.11", 5.0: "9.60±.14"}
PRINTED_UNIFORM_LAYERS = {1.0: "5.575±.043", 4.0: "7.575±.11", 5.0: "10.325±.14"}
FIGURE = "Geshkovski+ 2023, Sec. 6"

CLAIMS = (
    Claim(
        name="consensus-constant",
        statement="Orthogonal tokens approach consensus as 1 - rho = C e^(-2t), with C known exactly (SA).",
        source="derived: limit of the clock",
        check=_prefactor,
        oracle=equiangular.prefactor,
        printed="8 12.265 18481.40",
        tolerance=2e-6,
        why="next order (1 + beta n) gap < 5e-7; solver: 20 rtol over the distance sqrt(2 gap)",
        relative=True,
    ),
    *(
        Claim(
            name=f"consensus-constant-{n}-tokens",
            statement=f"The constant C of 1 - rho = C e^(-2t) for n = {n} tokens (SA).",
            source="derived: limit of the clock",
            check=partial(_prefactor_many, n),
            oracle=equiangular.prefactor,
            printed=printed,
            tolerance=2e-6,
            why="next order (1 + beta n) gap < 6e-7; cosines round at 1e-16 of a gap of 1e-9",
            relative=True,
        )
        for n, printed in ((32, "37.85689 1097.009"), (128, "135.81396 508.9595"))
    ),
    *(
        Claim(
            name=f"phase-curve-{n}-tokens",
            statement=f"n = {n} orthogonal tokens become one cluster at the time t_SA(.999; 0, n, beta).",
            source=FIGURE,
            check=partial(_phase_curve, n),
            oracle=equiangular.phase_curve,
            printed=printed,
            tolerance=1e-7,
            why="solver: 10 rtol, 1e-8 here",
            relative=True,
        )
        for n, printed in PRINTED_CURVE.items()
    ),
    Claim(
        name="phase-curve-at-beta-zero",
        statement="At beta = 0 the frontier lies at log((n(1-delta)+delta)/delta)/2.",
        source="derived: partial fractions",
        check=_phase_curve_at_zero,
        oracle=equiangular.phase_curve,
        tolerance=1e-8,
        why="10 rtol of the event and of the run, 1e-10 each",
    ),
    *(
        Claim(
            name=f"phase-curve-uniform-beta-{beta:g}",
            statement="Uniform tokens in dimension 1024 cross the frontier with orthogonal ones: "
            "half of the pairs, mean of four seeds.",
            source=FIGURE,
            check=partial(_uniform_curve, beta),
            oracle=equiangular.phase_curve,
            printed=printed,
            tolerance=_four_standard_errors(beta),
            why="four standard errors of the mean cosine of 496 pairs, over the initial speed",
        )
        for beta, printed in PRINTED_UNIFORM.items()
    ),
    Claim(
        name="layer-step",
        statement="One Post-LN layer takes equal cosines to equal cosines, exactly.",
        source="Karagodin+ 2025, Post-LN",
        check=_layer,
        oracle=normalization.layer_step,
        printed=".283433106795 * * *",
        tolerance=1e-14,
        why="rounding of unit vectors in 35 dimensions",
    ),
    Claim(
        name="layer-stack",
        statement="A stack of Post-LN layers is the iterated map of one cosine.",
        source="Karagodin+ 2025, Post-LN",
        check=_stack,
        oracle=normalization.layer_course,
        tolerance=1e-12,
        why="rounding: 40 layers of 2e-16, times the ratio of speeds, below 100",
    ),
    *(
        Claim(
            name=f"phase-curve-layers-eta-{eta:g}",
            statement=f"Through layers of step {eta:g} the frontier lies later than that of the flow.",
            source=FIGURE,
            check=partial(_layer_curve, eta, LAYER_BETAS[: len(printed.split())]),
            oracle=normalization.phase_curve_post_ln,
            printed=printed,
            tolerance=1e-9,
            why="whole layers: nothing but rounding of eta times their number",
        )
        for eta, printed in PRINTED_LAYERS.items()
    ),
    *(
        Claim(
            name=f"phase-curve-uniform-layers-{beta:g}",
            statement="Uniform tokens in dimension 1024 through layers of step 0.1, as published.",
            source=FIGURE,
            check=partial(_uniform_layers, beta),
            oracle=normalization.phase_curve_post_ln,
            printed=printed,
            tolerance=_four_standard_errors(beta) + 0.1,
            why="four standard errors as for the flow, and one layer",
        )
        for beta, printed in PRINTED_UNIFORM_LAYERS.items()
    ),
    Claim(
        name="layer-contraction",
        statement="Near consensus a layer of step eta contracts by 1/(1+eta): rate log(1+eta)/eta, not 1.",
        source="derived: linearization",
        check=_contraction,
        oracle=rates.consensus_rate,
        printed=".95310180 .95310180 .95310180",
        tolerance=1e-8,
        why="next order beta gap < 2e-8 over two spans of 4; the published accuracy",
    ),
)
