"""Energies: which flows climb them, and how fast."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    FLOW,
    SAVES,
    TOL,
    array,
    change,
    cone,
    gram,
    read,
    run,
    sa,
    save_times,
    uniform,
    usa,
    velocity,
)

BETA = 2.0
DRAWS = 2000


def _z(x: np.ndarray, beta: float) -> np.ndarray:
    """Mean kernel that each token sees, (1/n) sum_j e^(beta <x_i, x_j>)."""
    return np.exp(beta * gram(x)).mean(axis=1)


def _power(flow: Any, x: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    """Weighted mean of the squared speeds."""
    return float((weights * (velocity(flow, x) ** 2).sum(axis=1)).mean())


def _energy(x):
    return af.observables.energy(x, BETA)


def _weighted_energy(x, weights):
    return af.observables.energy(x, BETA, weights)


def _climb(model: str) -> Sides:
    """Power of the tokens, and dE/dt."""
    x, flow = uniform(3, 7, 3), FLOW[model](BETA)
    return _power(flow, x, _z(x, BETA) if model == "sa" else 1.0), change(_energy, flow, x)


def _gain(model: str, t_end: float) -> Sides:
    """Energy gained by t_end: the power integrated by seven Gauss points, and observed."""
    node, share = np.polynomial.legendre.leggauss(SAVES - 2)
    flow, ts = FLOW[model](BETA), t_end * np.concatenate([[0.0], (1 + node) / 2, [1.0]])
    xs = run(flow, cone(16, 8, 3, alpha=-0.3), ts)
    powers = [_power(flow, x, _z(x, BETA) if model == "sa" else 1.0) for x in xs[1:-1]]
    energies = read(_energy, xs)
    return t_end / 2 * share @ np.array(powers), energies[-1] - energies[0]


def _euclidean_gradient() -> Sides:
    """Velocity under (USA), and n times the gradient of the energy on the sphere."""
    import jax

    x = uniform(3, 7, 3)
    gradient = np.asarray(jax.jit(jax.grad(_energy))(array(x)))
    tangential = gradient - (x * gradient).sum(axis=1, keepdims=True) * x
    return len(x) * tangential, velocity(usa(BETA), x)


def _speed_factors() -> Sides:
    """Pre-LN: tokens of radii r_i turn 1/r_i as fast, in the factor s_i of the energy balance."""
    x, radius = uniform(9, 6, 4), np.random.default_rng(9).uniform(0.5, 3, 6)
    flow = af.sa(BETA, norm=af.norms.pre_ln)
    post = velocity(sa(BETA), x)
    predicted = (_z(x, BETA) / radius * (post**2).sum(axis=1)).mean()
    observed = change(lambda y: _energy(af.sphere.normalize(y)), flow, radius[:, None] * x)
    return predicted, observed


def _symmetric(rng: np.random.Generator) -> np.ndarray:
    """Random symmetric matrix, entries of order one."""
    matrix = rng.normal(size=(3, 3))
    return (matrix + matrix.T) / 2


@cache
def _general_energy(value: str, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """dE_B/dt under (SA) with Q^T K = B and V = B, -B or I: from the Gram matrix, and observed."""
    import jax

    rng, beta, n = np.random.default_rng(11), 1.0, 6
    matrices = np.array([_symmetric(rng) for _ in range(draws)])
    starts = rng.normal(size=(draws, n, 3))
    starts /= np.linalg.norm(starts, axis=2, keepdims=True)
    values = {"B": matrices, "-B": -matrices, "I": np.broadcast_to(np.eye(3), matrices.shape)}

    def observed(x, matrix, value):
        rule = af.Attention(beta, query=matrix, value=value)

        def energy(x):
            _, log_z = rule.mean_and_log_z(x)
            return jax.numpy.exp(log_z).mean() / (2 * beta * n)

        return jax.jvp(energy, (x,), (af.Flow(rule)(0.0, x),))[1]

    rates = jax.jit(jax.vmap(observed))(array(starts), array(matrices), array(values[value]))
    kernel = np.exp(beta * starts @ matrices @ np.swapaxes(starts, 1, 2))
    seen = kernel / kernel.sum(axis=2, keepdims=True) @ starts
    moved = seen @ np.swapaxes(values[value], 1, 2)
    moved -= (moved * starts).sum(axis=2, keepdims=True) * starts
    pull = kernel @ starts @ matrices
    return (pull * moved).sum(axis=(1, 2)) / n**2, np.asarray(rates)


def _general_balance(sign: float) -> Sides:
    """dE_B/dt for V = +-B is +-(1/n) sum Z_i |dx_i/dt|^2: the share of draws where it rises."""
    _, observed = _general_energy("B" if sign > 0 else "-B", 200)
    return float(sign > 0), (observed > 0).mean()


def _general_rates() -> Sides:
    return _general_energy("I", DRAWS)


def _falls() -> Sides:
    """Share of draws in which E_B falls under V = I."""
    predicted, observed = _general_energy("I", DRAWS)
    return (predicted < 0).mean(), (observed < 0).mean()


def _multi_head() -> Sides:
    """Unnormalised heads with V_h = Q_h^T K_h = B_h climb the sum of their energies."""
    import jax.numpy as jnp

    rng, n = np.random.default_rng(12), 5
    x, heads = uniform(12, n, 3), [array(_symmetric(rng)) for _ in range(3)]
    rules = [af.UnnormalizedAttention(1.0, query=head, value=head) for head in heads]
    flow = af.Flow(af.MultiHead(rules, combine="sum"))

    def energy(x):
        return sum(jnp.exp(x @ head @ x.T).sum() for head in heads) / (2 * n**2)

    return _power(flow, x), change(energy, flow, x)


def _fisher_rao() -> Sides:
    """dE/dt, the speed of the total weight, and whether weights stay positive."""
    import jax

    rate, n = 0.7, 6
    x, weights = uniform(13, n, 3), np.random.default_rng(13).dirichlet(np.ones(n))
    flow, state = af.FisherRaoFlow(BETA, rate), af.WeightedTokens(array(x), array(weights))
    moved = flow(0.0, state)
    height = np.exp(BETA * gram(x)) @ weights / BETA
    variance = weights @ height**2 - (weights @ height) ** 2
    power = weights @ (np.asarray(moved.x) ** 2).sum(axis=1)
    energy = lambda state: af.observables.energy(state.x, BETA, state.weights)
    observed = jax.jit(lambda state, moved: jax.jvp(energy, (state,), (moved,))[1])(state, moved)
    return [power + rate * variance, 0.0], [observed, moved.weights.sum()]


def _fisher_rao_run() -> Sides:
    """Total weight along a run, and the share of save times at which all weights are positive."""
    import diffrax as dfx

    x, weights = uniform(13, 6, 3), np.random.default_rng(13).dirichlet(np.ones(6))
    start = af.WeightedTokens(array(x), array(weights))
    trajectory = af.solve(
        af.FisherRaoFlow(BETA, 3.0), start, save_times(0.8), states=False,
        observe={"energy": _weighted_energy}, adjoint=dfx.ForwardMode(),
    )  # fmt: skip
    kept, energies = np.asarray(trajectory.weights), trajectory.observed["energy"]
    return (
        [*np.ones(9), 1.0, 1.0],
        [*kept.sum(axis=1), (kept > 0).mean(), (np.diff(energies) > 0).mean()],
    )


def _torque() -> Sides:
    """Sums of x_i ^ dx_i/dt, weighted by Z_i under (SA), in four dimensions."""
    x, totals = uniform(14, 6, 4), []
    for flow, weights in ((usa(BETA), np.ones(6)), (sa(BETA), _z(x, BETA))):
        wedge = np.einsum("i,ia,ib->ab", weights, x, velocity(flow, x))
        totals.append(wedge - wedge.T)
    return np.zeros((2, 4, 4)), totals


def _zero_temperature_energy() -> Sides:
    """|mean|^2/2, the energy at beta = 0, and E - 1/(2 beta) at beta = 1e-6."""
    import jax

    x, beta = array(uniform(15, 6, 3)), 1e-6
    energy = jax.jit(af.observables.energy)
    mean = np.asarray(x).mean(axis=0)
    return [mean @ mean / 2] * 2, [energy(x, 0.0), energy(x, beta) - 1 / (2 * beta)]


ASCENT = "Rigollet 2025, Sec. 3.2"

CLAIMS = (
    Claim(
        name="energy-climb-usa",
        statement="(USA) climbs the energy at the rate (1/n) sum |dx_i/dt|^2.",
        source=ASCENT,
        check=partial(_climb, "usa"),
        printed=".3024864",
        tolerance=1e-14,
        why="rounding of sums of e^2 / 49",
    ),
    Claim(
        name="energy-climb-sa",
        statement="(SA) climbs the same energy at the rate (1/n) sum Z_i |dx_i/dt|^2.",
        source=ASCENT,
        check=partial(_climb, "sa"),
        printed=".1196229",
        tolerance=1e-14,
        why="rounding of sums of e^2 / 49",
    ),
    *(
        Claim(
            name=f"energy-gain-{model}",
            statement=f"Along a run ({model.upper()}) gains the energy that its power adds up to.",
            source=ASCENT,
            check=partial(_gain, model, t_end),
            tolerance=10 * TOL,
            why="solver: 10 rtol times the slope of the energy, below 10; 14th order quadrature",
        )
        for model, t_end in (("sa", 0.5), ("usa", 0.1))
    ),
    Claim(
        name="usa-is-a-gradient",
        statement="(USA) is n times the gradient of the energy on the sphere.",
        source=ASCENT,
        check=_euclidean_gradient,
        tolerance=1e-13,
        why="rounding of e^2",
    ),
    Claim(
        name="energy-climb-pre-ln",
        statement="Pre-LN tokens of radius r climb the energy at (1/n) sum Z_i |P A|^2 / r_i.",
        source="Karagodin+ 2025",
        check=_speed_factors,
        tolerance=1e-13,
        why="rounding of e^2",
    ),
    *(
        Claim(
            name=f"energy-of-scores-{'rises' if sign > 0 else 'falls'}",
            statement=f"E_B {'rises' if sign > 0 else 'falls'} under V = {'' if sign > 0 else '-'}B, "
            "B = Q^T K symmetric, in each of 200 random draws (SA).",
            source="Rigollet 2025, Sec. 3.2",
            check=partial(_general_balance, sign),
            tolerance=0.0,
            why="a share of draws",
        )
        for sign in (1.0, -1.0)
    ),
    Claim(
        name="energy-of-scores-rate",
        statement="dE_B/dt under V = I, written out and observed, in 2000 random draws (SA).",
        source="derived: chain rule",
        check=_general_rates,
        tolerance=1e-11,
        why="rounding of sums of e^|B|, below 1e4",
    ),
    Claim(
        name="energy-of-scores-may-fall",
        statement="Under V = I with a random symmetric Q^T K, E_B falls from nearly half of the starts (SA).",
        source="derived: chain rule",
        check=_falls,
        printed=".445±.070",
        tolerance=0.0,
        why="a share of draws; the published one is 89 of 200, two standard errors .070",
    ),
    Claim(
        name="energy-climb-multi-head",
        statement="Unnormalised heads with V_h = Q_h^T K_h symmetric climb the sum of their energies.",
        source="derived: gradient flow",
        check=_multi_head,
        tolerance=1e-12,
        why="rounding of e^|B|, relative",
        relative=True,
    ),
    Claim(
        name="fisher-rao-climb",
        statement="Competing weights: dE/dt = sum w_i |dx_i/dt|^2 + a Var_w(U), total weight conserved.",
        source="Rigollet 2025, Sec. 4.1",
        check=_fisher_rao,
        tolerance=1e-13,
        why="rounding of e^2",
    ),
    Claim(
        name="fisher-rao-weights",
        statement="Along a run the weights keep their sum and their sign, and the energy rises.",
        source="Rigollet 2025, Sec. 4.1",
        check=_fisher_rao_run,
        tolerance=1e-7,
        why="solver: 10 rtol, 1e-8 by default",
    ),
    Claim(
        name="torque",
        statement="sum_i x_i ^ dx_i/dt = 0 under (USA); with weights Z_i under (SA).",
        source="derived: symmetry of the kernel",
        check=_torque,
        tolerance=1e-13,
        why="rounding of e^2",
    ),
    Claim(
        name="energy-at-beta-zero",
        statement="E - 1/(2 beta) tends to |mean|^2/2 as beta tends to 0.",
        source="derived: expansion",
        check=_zero_temperature_energy,
        tolerance=1e-6,
        why="next order beta/4; rounding 1e-16/beta",
    ),
)
