"""Causal masks: all tokens follow the first, and no energy is climbed."""

from __future__ import annotations

from functools import cache

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import TOL, array, causal, gram, response, run, uniform
from attnflow.theory import clustering

DRAWS = 2000


def _first_token() -> Sides:
    """Distances from the first token at t = 400, for random Q and K."""
    rng = np.random.default_rng(40)
    x0 = uniform(40, 6, 3)
    query, key = (array(np.pad(m, [(0, 5), (0, 5)])) for m in rng.normal(size=(2, 3, 3)))
    xs = run(af.causal(1.0, query=query, key=key), x0, 400.0, rtol=1e-14)
    return np.zeros(6), np.linalg.norm(xs[-1] - x0[0], axis=1)


def _rows() -> Sides:
    """Decay rates of every row at consensus."""
    u = np.zeros((5, 2))
    rates = []
    for k in range(1, 5):
        u[:], u[k, 1] = 0, 1
        rates.append(-response(causal(3.0), np.eye(2)[[0] * 5], u)[k, 1])
    return 1 - 1 / np.arange(2, 6), rates


@cache
def _energy_rates() -> tuple[np.ndarray, np.ndarray]:
    """dE/dt of random starts under a causal mask: from the Gram matrix, and observed."""
    import jax

    beta, n = 2.0, 6
    x = np.random.default_rng(41).normal(size=(DRAWS, n, 3))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    flow = af.causal(beta)

    def rate(x):
        return jax.jvp(lambda x: af.observables.energy(x, beta), (x,), (flow(0.0, x),))[1]

    g = gram(x)
    seen = np.tri(n) * np.exp(beta * g)
    fall = seen / seen.sum(axis=2, keepdims=True) @ g
    pull = np.diagonal(fall, axis1=1, axis2=2)[:, :, None]
    moved = fall - pull * g
    predicted = (np.exp(beta * g) * moved).sum(axis=(1, 2)) / n**2
    return predicted, np.asarray(jax.jit(jax.vmap(rate))(array(x)))


def _may_fall() -> Sides:
    """Share of starts from which the energy falls."""
    predicted, observed = _energy_rates()
    return (predicted < 0).mean(), (observed < 0).mean()


def _theorem() -> Sides:
    """Cosines with the first token at t = 60, one where the causal theorem applies."""
    x0 = uniform(42, 5, 3)
    theorem = {entry.name: entry for entry in clustering.theorems("causal", 1.0, x0)}
    end = run(causal(1.0), x0, 60.0)[-1]
    promised = float(theorem["causal mask, almost every start"].applies)
    return np.full(5, promised), end @ x0[0]


CLAIMS = (
    Claim(
        name="causal-first-token",
        statement="Under a causal mask with V = I all tokens reach the first, for random Q and K.",
        source="Karagodin+ 2024",
        check=_first_token,
        tolerance=1e-12,
        why="e^(-400/2) is below rounding; atol of the solver is 1e-13",
    ),
    Claim(
        name="causal-row-rates",
        statement="Near consensus row k alone decays at the rate 1 - 1/k: the second, 1/2, is slowest.",
        source="derived: linearization",
        check=_rows,
        tolerance=1e-14,
        why="rounding",
    ),
    Claim(
        name="causal-energy-rate",
        statement="dE/dt under a causal mask, from the Gram matrix and observed, in 2000 random draws.",
        source="derived: product rule",
        check=_energy_rates,
        tolerance=1e-13,
        why="rounding of sums of e^2",
    ),
    Claim(
        name="causal-energy-may-fall",
        statement="Causal attention is no gradient flow: from some starts the energy falls.",
        source="derived: product rule",
        check=_may_fall,
        printed=".006±.0069",
        tolerance=0.0,
        why="a share of draws; the published one is 3 of 500, two standard errors .0069",
    ),
    Claim(
        name="causal-theorem",
        statement="The causal theorem applies to random tokens, and they meet at the first.",
        source="Karagodin+ 2024",
        check=_theorem,
        oracle=clustering.theorems,
        tolerance=TOL,
        why="solver: 10 rtol of a run; e^-60 is left",
    ),
)
