"""Other attention rules: hardmax, the limit of large beta, and Sinkhorn's doubly stochastic rule."""

from __future__ import annotations

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import TOL, array, circle, gram, run, save_times, uniform, velocity

STEP, STEPS = 0.3, 200


def _hardmax_pair() -> Sides:
    """Cosines of two tokens, each drawn to the other."""
    x0 = circle(np.array([0.0, np.arccos(0.2)]))
    cosines = gram(run(af.hardmax(), x0, 0.7))[1:, 0, 1]
    return np.tanh(2 * save_times(0.7)[1:] + np.arctanh(0.2)), cosines


def _frank_wolfe() -> tuple[np.ndarray, list[np.ndarray]]:
    """Gaussian points in the plane whose hull vertices each choose themselves, and their run."""
    import equinox as eqx

    attention = eqx.filter_jit(af.HardmaxAttention(include_self=True))
    for seed in range(1000):
        x = np.random.default_rng(seed).normal(size=(15, 2))
        best = (x @ x.T).argmax(axis=1)
        vertices = np.unique(best)
        if len(vertices) == 5 and (best[vertices] == vertices).all():
            break
    else:
        raise RuntimeError("no such points")
    runs = [x]
    for _ in range(STEPS):
        runs.append(runs[-1] + STEP * (np.asarray(attention(array(runs[-1]))) - runs[-1]))
    return x[best], runs


def _frank_wolfe_lines() -> Sides:
    """All points after 1, 5 and 200 steps: on straight lines to the vertex that each chose."""
    targets, runs = _frank_wolfe()
    steps = (1, 5, STEPS)
    predicted = [targets + (1 - STEP) ** k * (runs[0] - targets) for k in steps]
    return predicted, [runs[k] for k in steps]


def _frank_wolfe_limits() -> Sides:
    """Number of distinct points at the end."""
    end = _frank_wolfe()[1][-1]
    return 5, len(np.unique(np.round(end, 9), axis=0))


def _zero_temperature() -> Sides:
    """Self-attention without the self term at beta = 2000, and hardmax."""
    from attnflow.kernels import exclude_self

    x = uniform(60, 6, 3)
    return velocity(af.hardmax(), x), velocity(af.sa(2000.0, mask=exclude_self), x)


def _sinkhorn_columns() -> Sides:
    """Sum of attention vectors: columns that sum to one leave the sum of tokens."""
    x = uniform(61, 7, 3)
    return x.sum(axis=0), np.asarray(af.SinkhornAttention(4.0)(array(x))).sum(axis=0)


def _sinkhorn_equiangular() -> Sides:
    """Velocities of equiangular tokens, whose softmax is doubly stochastic already."""
    x = np.asarray(af.sphere.equiangular(6, 0.1))
    return velocity(af.sa(3.0), x), velocity(af.sinkhorn(3.0), x)


def _rescaled_clock() -> Sides:
    """Velocity of two tokens under (USA) at beta = 1000, in units of e^-beta: finite."""
    theta, beta = np.array([0.0, 1e-3]), 1000.0
    pull = np.exp(beta * (np.cos(1e-3) - 1)) * np.sin(1e-3) / 2
    flow = af.usa(beta, clock="rescaled")
    tangents = np.stack([-np.sin(theta), np.cos(theta)], axis=1)
    return [pull, -pull], (velocity(flow, circle(theta)) * tangents).sum(axis=1)


CLAIMS = (
    Claim(
        name="hardmax-pair",
        statement="Two tokens drawn to each other have cosine tanh(2 t + artanh rho0).",
        source="Bruno+ 2025, Prop. 3.11",
        check=_hardmax_pair,
        printed="* * * * * * * .92207884",
        tolerance=TOL,
        why="solver: 10 rtol of a run",
    ),
    Claim(
        name="hardmax-is-the-limit",
        statement="Without the self term, attention at large beta picks the nearest other token.",
        source="Alcalde+ 2025",
        check=_zero_temperature,
        tolerance=1e-12,
        why="e^(-beta times the gap of scores) is below rounding",
    ),
    Claim(
        name="hardmax-straight-lines",
        statement="In the plane, Frank-Wolfe steps take each point straight to the vertex it chose.",
        source="arXiv:2508.09628, B = I",
        check=_frank_wolfe_lines,
        tolerance=1e-14,
        why="rounding of points of size 3",
    ),
    Claim(
        name="hardmax-vertices",
        statement="Fifteen points end at the five vertices that choose themselves.",
        source="arXiv:2508.09628, B = I",
        check=_frank_wolfe_limits,
        printed="5",
        tolerance=0.0,
        why="whole numbers; .7^200 = 1e-31",
    ),
    Claim(
        name="sinkhorn-columns",
        statement="Doubly stochastic attention keeps the sum of tokens.",
        source="Sander+ 2022",
        check=_sinkhorn_columns,
        tolerance=1e-13,
        why="rounding; the iteration halves its error 64 times",
    ),
    Claim(
        name="sinkhorn-equiangular",
        statement="On equiangular tokens doubly stochastic attention is softmax.",
        source="derived: equal row sums",
        check=_sinkhorn_equiangular,
        tolerance=1e-13,
        why="rounding; the iteration halves its error 64 times",
    ),
    Claim(
        name="usa-rescaled-clock",
        statement="In units of e^-beta the velocity under (USA) is finite at beta = 1000, and right.",
        source="Rigollet 2025, Sec. 3.2",
        check=_rescaled_clock,
        tolerance=1e-15,
        why="rounding 1e-16 of scores of size beta, times the speed 3e-4, plus that of the tangent",
    ),
)
