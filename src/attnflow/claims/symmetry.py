"""Symmetries: rotations, permutations, invariant subspaces and cones."""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array, cone, gram, run, sa, save_times, uniform, velocity
from attnflow.theory import rates

BETA = 2.0


def _rotations() -> Sides:
    """Velocities of every flow, rotated, and velocities of rotated tokens."""
    x = uniform(20, 6, 4)
    rotation = np.linalg.qr(np.random.default_rng(20).normal(size=(4, 4)))[0]
    flows = [make(BETA) for make in (af.sa, af.usa, af.causal, af.sinkhorn)]
    flows += [af.kuramoto(), af.hardmax()]
    predicted = [velocity(flow, x) @ rotation for flow in flows]
    return predicted, [velocity(flow, x @ rotation) for flow in flows]


def _permutations() -> Sides:
    """Velocities of every unmasked flow, permuted, and velocities of permuted tokens."""
    x, order = uniform(20, 6, 4), np.random.default_rng(20).permutation(6)
    flows = [make(BETA) for make in (af.sa, af.usa, af.sinkhorn)]
    flows += [af.kuramoto(), af.hardmax()]
    predicted = [velocity(flow, x)[order] for flow in flows]
    return predicted, [velocity(flow, x[order]) for flow in flows]


def _great_circle() -> Sides:
    """Components off the great circle, and the distance of two equal tokens, along a run."""
    x0 = np.pad(uniform(21, 5, 2), [(0, 0), (0, 1)])
    x0[1] = x0[0]
    xs = run(sa(BETA), x0, 3.0)
    observed = np.abs(xs[:, :, 2]).max(), np.abs(xs[:, 0] - xs[:, 1]).max()
    return [0.0, 0.0], observed


def _cone_bound() -> Sides:
    """Smallest cosine along a run of eight tokens that start .52318 apart."""
    alpha, times = 0.52318, save_times(6.0)
    x0 = cone(22, 8, 3, alpha=alpha)
    smallest = gram(run(sa(3.0), x0, 6.0)).min(axis=(1, 2))
    return rates.cone_bound(times, alpha, n=8, beta=3.0)[1:], smallest[1:]


def _cone_is_kept() -> Sides:
    """Slowest rise of the lowest tokens over w, for random Q, K and masks: one entry a draw."""
    observed = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, query, key = cone(seed, 6, 3, alpha=-0.5), *rng.normal(size=(2, 3, 3))
        x[:, 0] = np.abs(x[:, 0])
        mask = array(rng.random((6, 6)) < 0.5) > 0
        rule = af.Attention(1.0, query=array(query), key=array(key), mask=mask | (np.eye(6) > 0))
        rise, height = velocity(af.Flow(rule), x)[:, 0], x[:, 0]
        observed.append(rise[height.argmin()])
    return np.zeros(40), observed


CLAIMS = (
    Claim(
        name="rotation-equivariance",
        statement="Every flow with Q = K = V = I commutes with rotations.",
        source="derived: symmetry",
        check=_rotations,
        tolerance=1e-12,
        why="rounding of e^2",
    ),
    Claim(
        name="permutation-equivariance",
        statement="Every flow without a mask commutes with permutations of the tokens.",
        source="derived: symmetry",
        check=_permutations,
        tolerance=1e-12,
        why="rounding of e^2",
    ),
    Claim(
        name="great-circles-are-kept",
        statement="Tokens on a great circle stay on it, and equal tokens stay equal.",
        source="derived: symmetry",
        check=_great_circle,
        tolerance=1e-14,
        why="exact up to rounding: both are zeros that never mix",
    ),
    Claim(
        name="cone-bound",
        statement="The smallest cosine, if not negative, stays above the solution of a scalar ODE (SA).",
        source="derived: weights e^(-beta(1-alpha))/n",
        check=_cone_bound,
        oracle=rates.cone_bound,
        at_least=True,
        printed="* * * * * * * .62473",
        tolerance=0.0,
        why="a bound",
    ),
    Claim(
        name="hemisphere-is-kept",
        statement="With V = I the lowest token of a hemisphere never sinks, for any Q, K and mask.",
        source="Geshkovski+ 2023, Sec. 6",
        check=_cone_is_kept,
        at_least=True,
        tolerance=1e-15,
        why="rounding: a bound",
    ),
)
