"""Layers at initialisation: scores, what attention and MLP add, and the cosine through depth."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array
from attnflow.theory import random_weights, shared_weights

N, D, SEEDS = 128, 512, 4
SCORES = ((1.0, 64), (4.0, 64), (16.0, 64))
RHOS = (0.0, 0.3, 0.7)
COURSES = (("post", "kaiming", None), ("peri", "gaussian", None), ("pre", "gaussian", "gelu"))
DEPTH, STACKS, FLOWS = 6, 24, 12
GAINS = {"gaussian": 1.0, "kaiming": 2.0}


@cache
def _scores() -> np.ndarray:
    """Scores of equiangular tokens at rho = 0 under random queries and keys, shape (seeds, n, n)."""
    rng, x = np.random.default_rng(0), np.asarray(af.sphere.equiangular(N, 0.0, d=D))
    q, k = np.sqrt(2 / D) * rng.normal(size=(2, SEEDS, D, D))
    return np.sqrt(D) * np.einsum("sij,skj->sik", x @ q, x @ k)


def _variance() -> Sides:
    return random_weights.score_variance(D**0.5, d=D, gain=2.0), _scores().var()


@cache
def _shares() -> np.ndarray:
    """Sums of squared weights over independent Gaussian scores, 40 000 rows a case."""
    rng, shares = np.random.default_rng(1), []
    for variance, n in SCORES:
        scores = np.sqrt(variance) * rng.normal(size=(40_000, n))
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares.append(((weights / weights.sum(axis=1, keepdims=True)) ** 2).sum(axis=1))
    return np.array(shares)


def _participation() -> Sides:
    predicted = [random_weights.participation(variance, n=n) for variance, n in SCORES]
    return predicted, _shares().mean(axis=1)


def _seen_tokens() -> Sides:
    predicted = [random_weights.seen_tokens(variance, n=n) for variance, n in SCORES]
    return predicted, (1 / _shares()).mean(axis=1)


def _overlaps(function: Any, rho: float) -> tuple[float, float]:
    """Mean square and mean contrast of what a sublayer adds to equiangular tokens of length sqrt(d)."""
    import jax.random as jr

    x = np.sqrt(D) * np.asarray(af.sphere.equiangular(N, rho, d=D))
    squares, contrasts = [], []
    for seed in range(SEEDS):
        a = np.asarray(function(jr.key(seed), array(x))) / np.sqrt(D)
        square = (a**2).sum() / N
        squares.append(square)
        contrasts.append(square - (a.sum(axis=0) @ a.sum(axis=0) - N * square) / (N * (N - 1)))
    return float(np.mean(squares)), float(np.mean(contrasts))


def _attention() -> Sides:
    predicted, observed = [], []
    for rho in RHOS:
        heads = lambda key, x: af.layers.block(
            key, D, weights="gaussian", output="identity", mlp=None, placement="none"
        ).attention.function(x)
        predicted.append(random_weights.attention_overlaps(rho, n=N, variance=1.0)[:2])
        observed.append(_overlaps(heads, rho))
    return predicted, observed


def _mlp() -> Sides:
    predicted, observed = [], []
    for activation in ("relu", "gelu", "swiglu"):
        for rho in RHOS:
            mlp = lambda key, x, activation=activation: af.layers.block(
                key, D, weights="gaussian", mlp=activation, placement="none"
            ).mlp.function(x)  # pyright: ignore[reportOptionalMemberAccess]
            predicted.append(random_weights.mlp_overlaps(rho, activation=activation)[:2])
            observed.append(_overlaps(mlp, rho))
    return predicted, observed


def _courses() -> Sides:
    """Mean cosine after 2, 4 and 6 fresh layers, mean over seeds."""
    import jax
    import jax.random as jr

    predicted, observed = [], []
    for placement, weights, activation in COURSES:
        gain = GAINS[weights]

        def run(key, placement=placement, weights=weights, activation=activation):
            model = af.layers.transformer(
                key, D, DEPTH, weights=weights, mlp=activation, placement=placement
            )
            x0 = np.sqrt(D) * af.sphere.equiangular(N, 0.0, d=D)
            observe = {"rho": af.observables.mean_cosine}
            return af.layers.forward(model, x0, observe=observe, states=False).observed["rho"]

        means = np.asarray(jax.lax.map(run, jr.split(jr.key(0), STACKS))).mean(axis=0)
        path = random_weights.random_layer_course(
            placement, layers=DEPTH, n=N, variance=gain**2, gain=gain**2, activation=activation
        )
        predicted.append(path.cosine[[2, 4, 6]])
        observed.append(means[[2, 4, 6]])
    return predicted, observed


def _flows() -> Sides:
    """Mean cosine at t = 2, 4, 6 of flows under one draw of Kaiming Q, K, V, mean over seeds."""
    import jax.numpy as jnp
    import jax.random as jr

    ts, n = np.array([0.0, 2.0, 4.0, 6.0], np.float32), 256
    observe = {"rho": af.observables.mean_cosine}
    predicted, observed = [], []
    for scheme in ("post", "pre", "peri"):
        runs = []
        for seed in range(FLOWS):
            *keys, key = jr.split(jr.key(seed), 4)
            matrices = [(2 / D) ** 0.5 * jr.normal(k, (D, D), jnp.float32) for k in keys]
            flow = af.Flow(af.QKVAttention(jnp.float32(D**0.5), *matrices), af.NORMS[scheme])
            x0 = af.sphere.uniform(key, n, D).astype(jnp.float32)
            run = af.solve(flow, x0, ts, observe=observe, states=False, rtol=1e-3, atol=1e-4)
            runs.append(run.observed["rho"][1:])
        observed.append(np.mean(runs, axis=0))
        cosine = shared_weights.shared_weights_cosine(scheme, ts, n=n, variance=4.0, gain=2.0)
        predicted.append(cosine[1:])
    return predicted, observed


CLAIMS = (
    Claim(
        name="random-score-variance",
        statement="At initialisation attention scores have variance beta^2 gain^2 |x|^4/(H d).",
        source="derived: d/H products",
        check=_variance,
        oracle=random_weights.score_variance,
        tolerance=0.03,
        relative=True,
        why="four standard errors of .7 %: 65 536 scores, and 512 lengths of queries and of keys, sqrt(2/d) each",
    ),
    Claim(
        name="random-seen-tokens",
        statement="Softmax over Gaussian scores sees as many tokens as the random energy model says.",
        source="Derrida 1981",
        check=_seen_tokens,
        oracle=random_weights.seen_tokens,
        tolerance=0.01,
        relative=True,
        why="four standard errors of 40 000 rows whose numbers vary by at most half of themselves",
    ),
    Claim(
        name="random-participation",
        statement="Softmax weights of Gaussian scores participate as in the random energy model.",
        source="Derrida 1981",
        check=_participation,
        oracle=random_weights.participation,
        tolerance=0.02,
        relative=True,
        why="four standard errors of 40 000 rows whose sums of squares vary by at most themselves",
    ),
    Claim(
        name="random-attention",
        statement="Random attention averages: |m|^2 = rho + (1-rho) Y, <m_i, m_j> = rho + (1-rho) (nY)^rho/n.",
        source="derived: Gaussian scores",
        check=_attention,
        oracle=random_weights.attention_overlaps,
        tolerance=D**-0.5,
        why="inner products of random vectors in dimension d vary by 1/sqrt(d)",
    ),
    Claim(
        name="random-mlp",
        statement="A wide random MLP maps cosines by its kernel E phi(a) phi(b).",
        source="Cho, Saul 2009",
        check=_mlp,
        oracle=random_weights.mlp_overlaps,
        tolerance=D**-0.5,
        why="inner products of random vectors in dimension d vary by 1/sqrt(d)",
    ),
    Claim(
        name="random-layers",
        statement="Through fresh random layers the mean cosine is one map, attention and MLP, iterated.",
        source="derived: overlaps",
        check=_courses,
        oracle=random_weights.random_layer_course,
        tolerance=4 * 0.25 * (2 * 2 * 2 * DEPTH / D) ** 0.5 / STACKS**0.5,
        why="four standard errors: two matrices in each of 12 sublayers multiply what tokens share by"
        " chi^2_d/d, and the cosine moves by at most 1/4 of that",
    ),
    Claim(
        name="random-shared-weights",
        statement="Under one random Q, K, V the cosine grows like a Bessel function in the clock of the scheme.",
        source="derived: Ginibre V",
        check=_flows,
        oracle=shared_weights.shared_weights_cosine,
        tolerance=0.05,
        why="four standard errors of 12 draws, each measured as at most .012",
    ),
)
