"""Attention over many uniform keys, alone or around a common direction: integrals beside sums."""

from __future__ import annotations

from functools import cache

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.long_context import attend
from attnflow.claims.runs import array, uniform
from attnflow.theory.long_context import uniform_keys as theory

CASES = ((2, 4.0), (3, 5.0), (8, 6.0))
"""Dimension and inverse temperature."""
KEYS, QUERIES = 2**16, 512
TOKENS = 2048


@cache
def _rows(d: int, beta: float) -> tuple[np.ndarray, ...]:
    """Of each query: log Z/n, <q, y>, entropy of its row, and sum of squared weights times n."""
    import jax

    q, k = array(uniform(60, QUERIES, d)), array(uniform(61, KEYS, d))
    dense = jax.jit(af.kernels.dense)
    y, log_z = (np.asarray(a) for a in dense(q, k, k, beta))
    twice = np.asarray(dense(q, k, k, 2 * beta)[1])
    along = (np.asarray(q) * y).sum(axis=1)
    return log_z - np.log(KEYS), along, log_z - beta * along, np.exp(twice - 2 * log_z) * KEYS


def _means(reading: int) -> list[float]:
    return [float(_rows(d, beta)[reading].mean()) for d, beta in CASES]


def _partition() -> Sides:
    return [theory.log_partition(beta, d=d) for d, beta in CASES], _means(0)


def _length() -> Sides:
    return [theory.output_length(beta, d=d) for d, beta in CASES], _means(1)


def _entropy() -> Sides:
    """Entropies for 200 000 keys: those of fewer keys, plus the logarithm of the ratio."""
    n = 200_000
    predicted = [theory.row_entropy(beta, n=n, d=d) for d, beta in CASES]
    return predicted, [h + np.log(n / KEYS) for h in _means(2)]


def _participation() -> Sides:
    n = 200_000
    predicted = [theory.participation_ratio(beta, n=n, d=d) for d, beta in CASES]
    return predicted, [n / share for share in _means(3)]


def _nearest() -> Sides:
    """Growth of the scale from 512 keys to 4096: the mean gap to the nearest other token shrinks as much."""
    few, many, predicted, observed = 2**9, 2**12, [], []
    for d in (3, 5):
        gaps = [
            np.mean([_nearest_gap(uniform(70 + k, n, d)) for k in range(starts)])
            for n, starts in ((few, 8), (many, 1))
        ]
        predicted.append(theory.selectivity_scale(many, d) / theory.selectivity_scale(few, d))
        observed.append(gaps[0] / gaps[1])
    return predicted, observed


def _nearest_gap(x: np.ndarray) -> float:
    x = np.pad(x, [(0, 0), (0, 5 - x.shape[1])])
    y = np.asarray(af.HardmaxAttention()(array(x)))
    return float(((x - y) ** 2).sum(axis=1).mean() / 2)


@cache
def _near(rho: float, d: int, gamma: float) -> tuple[float, float, float]:
    """Mean cosine of outputs, mean self-weight and mean log-odds of it, of random tokens."""
    x = np.sqrt(1 - rho) * uniform(80 + d, TOKENS, d)
    x = np.pad(np.column_stack([np.full(TOKENS, np.sqrt(rho)), x]), [(0, 0), (0, 122 - d)])
    beta = gamma * np.log(TOKENS)
    y, log_z = attend(x, beta)
    total = (y / np.linalg.norm(y, axis=1, keepdims=True)).sum(axis=0)
    own = np.exp(beta - log_z)
    cosine = (total @ total - TOKENS) / (TOKENS * (TOKENS - 1))
    return float(cosine), float(own.mean()), float(np.log(own / (1 - own)).mean())


def _random_tokens() -> Sides:
    predicted, observed = [], []
    for d, gamma in ((30, 1.6), (30, 2.4), (122, 2.0), (122, 3.0)):
        exact = theory.near_equiangular(0.5, n=TOKENS, beta=gamma * np.log(TOKENS), d=d)
        predicted += [exact.cosine, exact.self_weight]
        observed += _near(0.5, d, gamma)[:2]
    return predicted, observed


def _threshold() -> Sides:
    """Where the mean log-odds of the self-weight change sign, between two layers near the threshold."""
    densities = np.array([30, 122]) / np.log(TOKENS)
    predicted = theory.random_energy_threshold(densities)
    observed = []
    for d, g in zip((30, 122), predicted, strict=True):
        scales = np.array([0.98, 1.02]) * g
        heights = [_near(0.5, d, float(2 * scale))[2] for scale in scales]
        observed.append(np.interp(0.0, heights, scales))
    return predicted, observed


NOISE = "4 standard errors of 2^9 queries on 2^16 keys: "

CLAIMS = (
    Claim(
        name="uniform-keys-partition",
        statement="A query sees the partition function n a_0(beta) of many uniform keys.",
        source="Funk-Hecke, degree 0",
        check=_partition,
        oracle=theory.log_partition,
        tolerance=2e-3,
        why=NOISE + "each row has 0.009",
    ),
    Claim(
        name="uniform-keys-length",
        statement="The output of a query q over many uniform keys is q times a ratio of Bessel functions.",
        source="Funk-Hecke, degree 1",
        check=_length,
        oracle=theory.output_length,
        printed=".863523 .800091 .551783",
        tolerance=5e-4,
        why=NOISE + "each row has 0.0025",
    ),
    Claim(
        name="uniform-keys-entropy",
        statement="A row of attention over many uniform keys has the entropy log n + log a_0 - beta r.",
        source="derived: H = log Z - beta <q, y>",
        check=_entropy,
        oracle=theory.row_entropy,
        printed="11.17695 10.90299 10.79750",
        tolerance=1.5e-3,
        why=NOISE + "each row has 0.008",
    ),
    Claim(
        name="uniform-keys-participation",
        statement="The weight of a query is shared by n a_0(beta)^2/a_0(2 beta) of many uniform keys.",
        source="derived: sum of squares",
        check=_participation,
        oracle=theory.participation_ratio,
        printed="59749 * *",
        tolerance=3e-3,
        why=NOISE + "each row has 0.014, relative",
        relative=True,
    ),
    Claim(
        name="uniform-keys-selectivity",
        statement="Single keys stand out at a scale of beta that grows like n^(2/(d-1)), as the nearest gap shrinks.",
        source="arXiv:2605.08505",
        check=_nearest,
        oracle=theory.selectivity_scale,
        tolerance=0.15,
        why="4 standard errors of means over 4096 gaps, 0.12; curvature of caps at 512 keys, 0.03",
        relative=True,
    ),
    Claim(
        name="random-tokens-layer",
        statement="Random tokens around a direction leave a layer with the cosine and self-weight of integrals.",
        source="derived: integrals for sums",
        check=_random_tokens,
        oracle=theory.near_equiangular,
        tolerance=2.5e-3,
        why="annealed for quenched: half of one over the tokens that share the weight, 220 at least",
    ),
    Claim(
        name="random-tokens-threshold",
        statement="In dimension D log n the critical scale shifts as in a random energy model (heuristic).",
        source="derived: REM, Derrida 1981",
        check=_threshold,
        oracle=theory.random_energy_threshold,
        tolerance=1e-3,
        why="half of one over 250 tokens that share the weight, over a slope of 5; finite n, 5e-4",
    ),
)
