"""Rules for the logits of a longer context, against attention over tokens."""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.long_context import attend, kernel_gap
from attnflow.theory import logit_rules as theory

LENGTHS = (64, 512, 2**20)
SPREAD = (0.5, 0.2, 0.8)
"""Cosines of tokens."""


def _own(n: int, rho: float, beta: float, query: float = 1.0, key: float = 1.0) -> float:
    """Log-odds of a token's weight on itself to that on another, read off a layer.

    Queries and keys are the tokens times a factor each.
    """
    x = af.sphere.equiangular(n, rho)
    log_z = float(af.kernels.dense(query * x[:1], key * x, x, float(beta))[1][0])
    others = np.exp(query * key * beta - log_z)
    return float(np.log((n - 1) * others / (1 - others)))


def _kept() -> Sides:
    """Gaps of n tokens whose logits were scaled, and of 64, from collapse to the identity."""
    predicted, observed = [], []
    for rho in SPREAD:
        for lead in (0.5, 2.0, np.log(64), 6.0):
            before = kernel_gap(64, rho, lead / (1 - rho))
            for n in LENGTHS:
                factor = float(theory.keep_cosine(n, n0=64, lead=lead, rho=rho))
                predicted.append(before)
                observed.append(kernel_gap(n, rho, factor * lead / (1 - rho)))
    return predicted, observed


def _critical() -> Sides:
    """Scale of 2^20 tokens with the gap of 2^10 at the critical scale, by bisection, over theirs."""
    observed = []
    for rho in SPREAD:
        beta = np.log(2**10) / (1 - rho)
        wanted, low, high = kernel_gap(2**10, rho, beta), beta, 3 * beta
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if kernel_gap(2**20, rho, middle) < wanted else (low, middle)
        observed.append(low / beta)
    return np.full(3, theory.log_n(2**20, n0=2**10)), observed


def _participation() -> Sides:
    """Lead told from the squares of a layer's weights."""
    predicted, observed = [], []
    for rho, lead in zip(SPREAD, (0.5, 4.0, 8.0), strict=True):
        x, beta = np.asarray(af.sphere.equiangular(64, rho)), lead / (1 - rho)
        scores = beta * x[0] @ x.T - attend(x, beta)[1][0]
        predicted.append(theory.lead_of_participation(1 / np.exp(2 * scores).sum(), n=64))
        observed.append(_own(64, rho, beta))
    return predicted, observed


def _ssmax() -> Sides:
    """Log-odds of a token's own weight: s (1 - rho) log n."""
    predicted = [0.7 * theory.ssmax(n, s=0.43) for n in (16, 64, 256)]
    return predicted, [_own(n, 0.3, 0.43 * np.log(n)) for n in (16, 64, 256)]


def _yarn() -> Sides:
    """Log-odds gained when queries and keys each are 0.1 log(n/n0) + 1 times as long."""
    observed = []
    for ratio in (1, 4, 32):
        length = 0.1 * np.log(ratio) + 1
        observed.append(_own(64, 0.5, 4.0, length, length) / 2)
    return [theory.yarn(64 * ratio, n0=64) for ratio in (1, 4, 32)], observed


def _llama4() -> Sides:
    """Log-odds gained when queries are longer by a tenth of a logarithm for each doubling of the steps."""
    observed = [_own(64, 0.5, 4.0, 1 + 0.1 * np.log(steps)) / 2 for steps in (1, 2, 5)]
    return theory.llama4([8191, 8192, 40_000]), observed


ROUNDING = "rounding: log-odds of weights down to 1e-4"

CLAIMS = (
    Claim(
        name="logit-rule-cosine",
        statement="One factor of the logits keeps the output cosine of a layer when tokens are many more, at every n.",
        source="derived: C_n, solved for the scale",
        check=_kept,
        oracle=theory.keep_cosine,
        tolerance=1e-11,
        why="rounding: outputs at distance sqrt(2 gap) = 7e-3, rounded to 1e-16, times 500",
        relative=True,
    ),
    Claim(
        name="logit-rule-log-n",
        statement="At the critical scale, and only there, that factor is log n / log n0, up to 1/n0.",
        source="derived: lead log n0",
        check=_critical,
        oracle=theory.log_n,
        tolerance=3e-4,
        why="D = 1/2 - 1/(4 n0), m = rho + (1-rho)/n0 shift log E by 1/n0 + .75 (1-rho)/(rho n0), over log n",
        relative=True,
    ),
    Claim(
        name="logit-rule-participation",
        statement="The participation of an equiangular row tells how far one logit stands above all others.",
        source="derived: a row of equal weights but one",
        check=_participation,
        oracle=theory.lead_of_participation,
        tolerance=1e-11,
        why="rounding: scores up to 40, over what is left to others, 1/50",
    ),
    Claim(
        name="logit-rule-ssmax",
        statement="Under SSMax a token weighs itself n^(s (1-rho)) times as much as another.",
        source="Nakanishi 2025, Eq. (2)",
        check=_ssmax,
        oracle=theory.ssmax,
        tolerance=1e-12,
        why=ROUNDING,
    ),
    Claim(
        name="logit-rule-yarn",
        statement="YaRN lengthens queries and keys alike, so logits grow by the square of its factor.",
        source="Peng+ 2023, Eq. (22)",
        check=_yarn,
        oracle=theory.yarn,
        tolerance=1e-12,
        why=ROUNDING,
    ),
    Claim(
        name="logit-rule-llama4",
        statement="Llama 4 lengthens queries alone, in steps of 8192 tokens.",
        source="released code of Llama 4",
        check=_llama4,
        oracle=theory.llama4,
        tolerance=1e-12,
        why=ROUNDING,
    ),
)
