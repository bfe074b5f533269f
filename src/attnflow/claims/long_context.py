"""Long contexts: one layer and many, at logits that grow like gamma log n, on equiangular tokens."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array, read
from attnflow.theory import long_context as theory
from attnflow.theory.long_context import escape

LAYERS = ((50, 0.3, 1.1), (200, 0.5, 2.0), (100, 0.2, 1.6))
"""Layers of all tokens: n, rho, gamma."""
HUGE = 10**12


def attend(x: Any, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Softmax means and log-partitions of a layer, compiled once per shape."""
    return tuple(np.asarray(a) for a in _compiled()(array(x), array(beta)))  # pyright: ignore


@cache
def _compiled() -> Any:
    import jax

    return jax.jit(lambda x, beta: af.Attention(beta).mean_and_log_z(x))


@cache
def _layer(n: int, rho: float, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equiangular tokens, what a layer makes of them, and their weights on themselves."""
    x = np.asarray(af.sphere.equiangular(n, rho))
    y, log_z = attend(x, beta)
    return x, y, np.exp(beta - log_z)


def _gap(y: np.ndarray) -> float:
    """Gap 1 - cosine of the first two of some vectors of equal length."""
    return float(((y[0] - y[1]) ** 2).sum() / 2 / (y[0] @ y[0]))


def kernel_gap(n: int, rho: float, beta: float, eta: float | None = None) -> float:
    """Gap of two of n equiangular tokens after a layer, by the kernel sum, for any n.

    All other tokens have equal scores with the two, so their mean, in one more dimension, stands for
    them with the weight n - 2.
    """
    x = np.asarray(af.sphere.equiangular(3, rho))
    common = rho / (1 + rho) * (x[0] + x[1])
    beyond = x[2] - common  # orthogonal to the two; shorter once averaged
    square = rho - common @ common + (1 - rho) / (n - 2)
    mean = common + np.sqrt(square) * beyond / np.linalg.norm(beyond)
    y = af.kernels.dense(
        array(x[:2]), array(x), array([x[0], x[1], mean]), beta, weights=array([1, 1, n - 2])
    )[0]
    return _gap(np.asarray(y) if eta is None else x[:2] + eta * np.asarray(y))


def _cosines(*, block: bool) -> Sides:
    """Cosines of layers, then of blocks of step 0.7 if wanted, and of two tokens among a million."""
    eta = 0.7 if block else None
    predicted, observed = [], []
    for n, rho, gamma in LAYERS:
        beta = float(theory.logit_scale(gamma, n))
        x, y, _ = _layer(n, rho, beta)
        predicted.append(theory.output_cosine(rho, n=n, beta=beta, eta=eta))
        observed.append(1 - _gap(y if eta is None else x + eta * y))
    n, eta = 2**20, 1.0 if block else None
    beta = float(theory.logit_scale(1.0 if block else 2.2, n))
    predicted.append(theory.output_cosine(0.5, n=n, beta=beta, eta=eta))
    return predicted, [*observed, 1 - kernel_gap(n, 0.5, beta, eta)]


def _gaps() -> Sides:
    """Gaps from 1e-6 to 1e-1, by the kernel sum over a million tokens."""
    gammas = (1.0, 1.3, 1.6, 1.9)
    betas = [float(theory.logit_scale(gamma, 2**20)) for gamma in gammas]
    return (
        theory.output_gap(0.5, n=2**20, beta=betas),
        [kernel_gap(2**20, 0.5, beta) for beta in betas],
    )


def _norms() -> Sides:
    betas = [float(theory.logit_scale(gamma, n)) for n, _, gamma in LAYERS]
    predicted = [
        theory.output_norm(rho, n=n, beta=beta)
        for (n, rho, _), beta in zip(LAYERS, betas, strict=True)
    ]
    outputs = [_layer(n, rho, beta)[1] for (n, rho, _), beta in zip(LAYERS, betas, strict=True)]
    return predicted, [np.linalg.norm(y[0]) for y in outputs]


def _odds() -> Sides:
    """Scale told from a layer: the odds of the own weight to another one are n^(gamma (1 - rho))."""
    predicted, observed = [], []
    for n, rho, gamma in LAYERS:
        beta = float(theory.logit_scale(gamma, n))
        own = _layer(n, rho, beta)[2][0]
        predicted.append(beta)
        observed.append(np.log((n - 1) * own / (1 - own)) / (1 - rho))
    return predicted, observed


def _critical() -> Sides:
    """Scale at which the odds are n, between two layers of tokens of squared length q: log-odds are linear."""
    n, predicted, observed = 64, [], []
    for rho, square in ((0.5, 1.0), (0.2, 1.0), (0.5, 2.0)):
        x = np.sqrt(square) * np.asarray(af.sphere.equiangular(n, rho / square))
        gammas, heights = np.array([0.5, 2.0]), []
        for beta in theory.logit_scale(gammas, n):
            log_z = af.kernels.dense(array(x), array(x), array(x), float(beta))[1]
            own = np.exp(beta * square - np.asarray(log_z)[0])
            heights.append(np.log((n - 1) * own / (1 - own)))
        observed.append(np.interp(np.log(n), heights, gammas))
        predicted.append(theory.critical_gamma(rho, square=square))
    return predicted, observed


def _limits() -> Sides:
    """Collapse, critical value and identity of the branch and of the block of step 1, at n = 10^12."""
    cases = [(gamma, eta) for eta in (None, 1.0) for gamma in (0.5, 2.0, 3.5)]
    return (
        [theory.limit_cosine(0.5, gamma, eta=eta) for gamma, eta in cases],
        [
            1 - kernel_gap(HUGE, 0.5, float(theory.logit_scale(gamma, HUGE)), eta)
            for gamma, eta in cases
        ],
    )


def _corrections() -> Sides:
    """What is left of C_n beside its limit, at n = 10^6."""
    n, cases = 10**6, [(0.5, 1.0), (0.5, 2.0), (0.5, 3.0), (0.2, 2.0), (0.8, 5.0)]
    predicted = [theory.limit_correction(rho, gamma, n) for rho, gamma in cases]
    limits = [float(theory.limit_cosine(rho, gamma)) for rho, gamma in cases]
    gaps = [kernel_gap(n, rho, float(theory.logit_scale(gamma, n))) for rho, gamma in cases]
    return predicted, [1 - limit - gap for limit, gap in zip(limits, gaps, strict=True)]


def _window() -> Sides:
    taus = (-6.0, -2.0, 0.0, 1.0, 5.0)
    betas = [float((np.log(HUGE) + tau) / 0.7) for tau in taus]
    return theory.critical_window(taus, 0.3), [1 - kernel_gap(HUGE, 0.3, beta) for beta in betas]


def _wanted(told: str) -> Sides:
    """Cosines of layers whose scale was told from the cosine wanted."""
    wanted = [0.35, 0.5, 0.9, 0.999]
    if told == "beta":
        betas = theory.scale_for_cosine(wanted, 0.3, n=50)
    else:
        betas = theory.logit_scale(theory.gamma_for_cosine(wanted, 0.3, n=50), 50)
    return wanted, [1 - _gap(_layer(50, 0.3, float(beta))[1]) for beta in betas]


def _jacobian() -> Sides:
    """Largest, median and smallest value of a derivative through a layer of 32 tokens, d = 40."""
    import jax

    def direction(token, x, beta):
        y = af.Attention(beta)(x.at[0].set(af.sphere.normalize(token)))
        return af.sphere.normalize(y[0])

    derivative = jax.jit(jax.jacfwd(direction))
    x, predicted, observed = af.sphere.equiangular(32, 0.5, d=40), [], []
    for gamma in (1.0, 2.0, 3.0):
        beta = float(theory.logit_scale(gamma, 32))
        slopes = np.asarray(derivative(x[0], x, array(beta)))
        values = np.linalg.svd(slopes, compute_uv=False)[:-1]  # the last is the radial direction's
        exact = theory.self_jacobian(0.5, n=32, beta=beta)
        predicted += [exact.plane, exact.inside, exact.outside]
        observed += [values[0], np.median(values), values[-1]]
    return predicted, observed


def _depth(n: int, gamma: float, eta: float | None, layers: int) -> np.ndarray:
    """Tokens after each of some layers from cosine 1/2, shape (layers + 1, n, n)."""
    beta, xs = float(theory.logit_scale(gamma, n)), [np.asarray(af.sphere.equiangular(n, 0.5))]
    for _ in range(layers):
        y = attend(xs[-1], beta)[0]
        y = y if eta is None else xs[-1] + eta * y
        xs.append(y / np.linalg.norm(y, axis=1, keepdims=True))
    return np.stack(xs)


def _courses() -> Sides:
    """Cosines layer by layer, of the branch and of the block."""
    predicted, observed = [], []
    for eta in (None, 0.5):
        xs = _depth(64, 2.5, eta, 5)
        predicted.append(escape.cosines(0.5, layers=5, n=64, gamma=2.5, eta=eta))
        observed.append(read(af.observables.mean_cosine, xs))
    return predicted, observed


def _collapse() -> Sides:
    """Gaps of a stack below the critical scale, down to 1e-16."""
    gaps = escape.gaps(0.5, layers=2, n=64, gamma=1.2)
    return gaps, read(af.observables.cosine_gap, _depth(64, 1.2, None, 2))


@cache
def _counts(*cases: tuple[int, float]) -> tuple[int, ...]:
    """Layers from cosine 1/2 to .99 for each (n, gamma), each layer a kernel sum on equiangular tokens."""
    counts = []
    for n, gamma in cases:
        beta, rho, count = float(theory.logit_scale(gamma, n)), 0.5, 0
        while rho < 0.99:
            rho, count = 1 - kernel_gap(n, rho, beta), count + 1
        counts.append(count)
    return tuple(counts)


CASES = ((2**10, 3.0), (2**16, 3.0), (2**20, 3.0), (2**16, 2.5), (2**20, 2.5))


def _escape() -> Sides:
    n, gamma = np.array(CASES).T
    return escape.layers_to_escape(0.5, gamma, n=n), _counts(*CASES)


def _estimate() -> Sides:
    n, gamma = np.array(CASES[:3]).T
    return escape.escape_estimate(0.5, gamma, n=n), _counts(*CASES)[:3]


SURVEY = "Rigollet 2025, Thm 6"
ROUNDING = "rounding: sums over up to 200 tokens of size 1"

CLAIMS = (
    Claim(
        name="long-context-cosine",
        statement="A layer turns equal cosines into equal cosines, C_n = 1 - D^2 (1-rho)/(D^2 + (1-D^2) m).",
        source="derived: one row, summed",
        check=partial(_cosines, block=False),
        oracle=theory.output_cosine,
        printed=".851831153488 .801399197593 .292510006657 .609756",
        tolerance=1e-13,
        why=ROUNDING,
    ),
    Claim(
        name="long-context-block",
        statement="With a residual the closed form still holds, and one layer no longer collapses the tokens.",
        source="derived: one row, summed",
        check=partial(_cosines, block=True),
        oracle=theory.output_cosine,
        printed=".470203164697 .614009242458 .232751997231 .799688",
        tolerance=1e-13,
        why=ROUNDING,
    ),
    Claim(
        name="long-context-gap",
        statement="Below the critical scale the gap 1 - C_n falls like a power of n, and the theory keeps its digits.",
        source="derived: one row, summed",
        check=_gaps,
        oracle=theory.output_gap,
        tolerance=1e-11,
        why="rounding: outputs at distance sqrt(2 gap) = 1e-3, rounded to 1e-16, times 50",
        relative=True,
    ),
    Claim(
        name="long-context-length",
        statement="Outputs of a layer have the squared length D^2 + (1-D^2) m.",
        source="derived: one row, summed",
        check=_norms,
        oracle=theory.output_norm,
        tolerance=1e-13,
        why=ROUNDING,
    ),
    Claim(
        name="long-context-scale",
        statement="At beta = gamma log n a token weighs itself n^(gamma (1-rho)) times as much as another.",
        source="Rigollet 2025, Sec. 6.3",
        check=_odds,
        oracle=theory.logit_scale,
        tolerance=1e-12,
        why="rounding: logarithms of odds of size 1e3, times 1/(1-rho)",
    ),
    Claim(
        name="long-context-critical",
        statement="A token weighs itself as much as all n together at gamma = 1/(q-rho), for squared lengths q.",
        source=SURVEY,
        check=_critical,
        oracle=theory.critical_gamma,
        tolerance=1e-11,
        why="rounding: exponents of size 16, over what is left to others, 1/4096",
    ),
    Claim(
        name="long-context-limits",
        statement="As n grows a layer collapses tokens, mixes them at gamma_c alone, or leaves them as they are.",
        source=SURVEY,
        check=_limits,
        oracle=theory.limit_cosine,
        tolerance=1e-8,
        why="next order at n = 10^12: n^-0.75 = 1e-9 in the block and beyond gamma_c",
    ),
    Claim(
        name="long-context-corrections",
        statement="Limits are reached like n^(2g-2), 1/n and n^(1-g), g = gamma (1-rho), with known factors.",
        source="derived: expansion in n",
        check=_corrections,
        oracle=theory.limit_correction,
        tolerance=4e-3,
        why="next order at n = 10^6, relative: n^-|g-1| = 1e-3 times up to 3",
        relative=True,
    ),
    Claim(
        name="long-context-window",
        statement="Within 1/log n of the critical scale all n share one curve, rho/(D^2 (1-rho) + rho), logit D = tau.",
        source="derived: E = n e^tau",
        check=_window,
        oracle=theory.critical_window,
        tolerance=1e-11,
        why="next order: 1/n = 1e-12",
    ),
    Claim(
        name="long-context-wanted-beta",
        statement="Each output cosine above that of the inputs belongs to one beta, in closed form.",
        source="derived: inverse of C_n",
        check=partial(_wanted, "beta"),
        oracle=theory.scale_for_cosine,
        tolerance=1e-13,
        why=ROUNDING,
    ),
    Claim(
        name="long-context-wanted-gamma",
        statement="Each output cosine above that of the inputs belongs to one gamma, in closed form.",
        source="derived: inverse of C_n",
        check=partial(_wanted, "gamma"),
        oracle=theory.gamma_for_cosine,
        tolerance=1e-13,
        why=ROUNDING,
    ),
    Claim(
        name="long-context-jacobian",
        statement="The derivative of a direction by its own token has three singular values, in closed form.",
        source="derived: span of the tokens",
        check=_jacobian,
        oracle=theory.self_jacobian,
        printed=".400 .279 * 1.334 .708 * * * *",
        tolerance=1e-12,
        why="rounding: derivatives of size beta = 10",
    ),
    Claim(
        name="long-context-layers",
        statement="Tokens stay equiangular through layers, with and without residual: C_n, iterated.",
        source="derived: C_n, iterated",
        check=_courses,
        oracle=escape.cosines,
        tolerance=1e-12,
        why=ROUNDING + ", five layers",
    ),
    Claim(
        name="long-context-collapse",
        statement="Below the critical scale two layers are enough: gaps shrink like their third power.",
        source="derived: C_n, iterated",
        check=_collapse,
        oracle=escape.gaps,
        tolerance=1e-7,
        why="rounding: tokens at distance sqrt(2 gap) = 1e-7, rounded to 1e-16, times 100",
        relative=True,
    ),
    Claim(
        name="long-context-escape",
        statement="Above the critical scale tokens drift, then collapse: long contexts are metastable, not stable.",
        source="derived; corrects Sec. 6.3",
        check=_escape,
        oracle=escape.layers_to_escape,
        printed="6 20 54 4 5",
        tolerance=0.0,
        why="whole numbers",
    ),
    Claim(
        name="long-context-escape-law",
        statement="Escape takes about n^(gamma (1-rho0) - 1)/(2 rho0 (1-rho0) gamma log n) layers.",
        source="derived: integrated drift",
        check=_estimate,
        oracle=escape.escape_estimate,
        printed="3.1 15.4 49.2",
        tolerance=5.0,
        why="leading order: log(L)/2 = 2 of the sum over its integral, 3 layers of the last rush",
    ),
)
