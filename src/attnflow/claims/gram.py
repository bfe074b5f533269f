"""Gram matrices: the inner products of tokens evolve by themselves, in any dimension."""

from __future__ import annotations

from functools import partial

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    ATOL,
    FLOW,
    TOL,
    array,
    causal,
    circle,
    gram,
    run,
    save_times,
    uniform,
    velocity,
)
from attnflow.theory import gram as theory
from attnflow.theory import kuramoto

PAIR = np.array([[1.0, 0.0], [0.0, 1.0]])
SHARES = np.array([0.8, 0.2])


def _grams(flow: str, t_end: float, *, beta: float = 2.0, value: float = 1.0) -> Sides:
    """Gram matrices of five uniform tokens in four dimensions."""
    x0 = uniform(1, 5, 4)
    model, mask = ("sa", "causal") if flow == "causal" else (flow, None)
    predicted = theory.gram(
        save_times(t_end), gram(x0), beta=beta, model=model, mask=mask, value=value
    )
    return predicted[1:], gram(run(FLOW[flow](beta, value), x0, t_end))[1:]


def _gaps() -> Sides:
    """Gaps 1 - cosine of all pairs on the way into consensus."""
    x0, pairs = uniform(1, 5, 4), np.triu_indices(5, 1)
    xs = run(FLOW["sa"](2.0), x0, 12.0, rtol=1e-14)[1:]
    predicted = theory.gram_gap(save_times(12.0), 1 - gram(x0), beta=2.0, atol=1e-30)[1:]
    observed = ((xs[:, pairs[0]] - xs[:, pairs[1]]) ** 2).sum(axis=2) / 2
    return predicted[:, pairs[0], pairs[1]], observed


def _two_clusters(model: str, t: float) -> Sides:
    """Cosine of four tokens and one, at right angles: weights .8 and .2."""
    end = run(FLOW[model](4.0), circle(np.pi / 2 * (np.arange(5) == 4)), t)[-1]
    predicted = theory.gram([0, t], PAIR, beta=4.0, model=model, weights=SHARES)
    return predicted[1, 0, 1], end[0] @ end[-1]


def _copies() -> Sides:
    """Velocities of eight tokens and two, and of two tokens of weights .8 and .2."""
    pair = uniform(2, 2, 3)
    copies = np.repeat(pair, [8, 2], axis=0)
    weights = array(SHARES)
    predicted = [velocity(make(3.0, weights=weights), pair) for make in (af.sa, af.usa)]
    observed = [velocity(make(3.0), copies)[[0, -1]] for make in (af.sa, af.usa)]
    return predicted, observed


def _layers() -> Sides:
    """Gram matrices through five masked, weighted layers."""
    x, weights = uniform(3, 6, 9), np.random.default_rng(3).dirichlet(np.ones(6))
    flow = af.causal(2.0, weights=array(weights))
    predicted = theory.gram_post_ln(
        gram(x), steps=5, eta=0.3, beta=2.0, mask="causal", weights=weights
    )
    tokens = [array(x)]
    for _ in range(5):
        tokens.append(flow.layer(0.0, tokens[-1], 0.3))
    return predicted, gram(np.array(tokens))


def _rows() -> Sides:
    """Log-slopes of |x_k - x_1| between t = 20 and 30, k = 2, ..., 5, under a causal mask."""
    x0 = uniform(1, 5, 3)
    xs = run(causal(1.0), x0, 30.0, start=20.0, rtol=1e-14)
    distance = np.linalg.norm(xs[:, 1:] - xs[:, :1], axis=2)
    gaps = theory.gram_gap([0, 20, 30], 1 - gram(x0), beta=1.0, mask="causal", atol=1e-80)
    predicted = np.log(gaps[1, 0, 1:] / gaps[2, 0, 1:]) / 20
    return predicted, np.log(distance[1] / distance[-1]) / 10


def _radial_speed() -> Sides:
    """Change of |x|^2 of repelled tokens that are off the sphere."""
    x = 1.1 * uniform(4, 6, 3)
    return np.zeros(6), 2 * (x * velocity(af.sa(5.0, value=-1.0), x)).sum(axis=1)


def _ambient(t, x, attention):
    """The projected equation as printed, read at tokens that need not be unit."""
    a = attention(x)
    return a - (x * a).sum(axis=1)[:, None] * x


def _repelled_radius() -> Sides:
    """Growth of norm errors by t = 5 of 400 tokens on the circle, as a multiple of the first."""
    import diffrax as dfx

    rule, error = af.Attention(50.0, value=-1.0), 1e-8
    x0 = (1 + error) * af.sphere.polygon(400)
    end = af.solve(
        _ambient, x0, [0.0, 5.0], args=rule, rtol=1e-12, atol=ATOL, adjoint=dfx.ForwardMode()
    ).x_end
    bessel = kuramoto.kernel_coefficients(50.0, 1, scaled=True)
    grown = np.linalg.norm(np.asarray(end), axis=1).mean() - 1
    return np.exp(2 * 5 * bessel[1] / bessel[0]), grown / error


GRAM_ODE = "derived: product rule"
ODE = "solver: 10 rtol of a run"

CLAIMS = (
    Claim(
        name="gram-sa",
        statement="Inner products of tokens obey an ODE of their own under (SA), whatever d is.",
        source=GRAM_ODE,
        check=partial(_grams, "sa", 1.5),
        oracle=theory.gram,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="gram-usa",
        statement="Inner products of tokens obey an ODE of their own under (USA), whatever d is.",
        source=GRAM_ODE,
        check=partial(_grams, "usa", 1.5),
        oracle=theory.gram,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="gram-causal",
        statement="Inner products of tokens obey an ODE of their own under a causal mask.",
        source=GRAM_ODE,
        check=partial(_grams, "causal", 5.0),
        oracle=theory.gram,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="gram-repulsive",
        statement="Tokens that repel each other (V = -I) stay on the sphere and spread as predicted.",
        source=GRAM_ODE,
        check=partial(_grams, "sa", 5.0, beta=5.0, value=-1.0),
        oracle=theory.gram,
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="gram-gaps",
        statement="Gaps 1 - cosine follow the Gram flow all the way into consensus.",
        source=GRAM_ODE,
        check=_gaps,
        oracle=theory.gram_gap,
        tolerance=2e-7,
        why="solver: 20 atol = 2e-12 over the last distances, 1e-5 and more",
        relative=True,
    ),
    Claim(
        name="gram-layers",
        statement="Gram matrices go through masked, weighted Post-LN layers exactly.",
        source="Karagodin+ 2025, Post-LN",
        check=_layers,
        oracle=theory.gram_post_ln,
        tolerance=1e-14,
        why="rounding of unit vectors in nine dimensions, five layers",
    ),
    Claim(
        name="two-clusters-sa",
        statement="Clusters of .8 and .2 of the tokens at right angles reach cosine .999 at t = 7.24775.",
        source="derived: two-cluster ODE",
        check=partial(_two_clusters, "sa", 7.24775),
        oracle=theory.gram,
        printed=".99900000±1e-8",
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="two-clusters-usa",
        statement="Under (USA) they reach it at t = .327158, whatever their shares.",
        source="derived: two-cluster ODE",
        check=partial(_two_clusters, "usa", 0.327158),
        oracle=theory.gram,
        printed=".99900000±6e-8",
        tolerance=TOL,
        why=ODE,
    ),
    Claim(
        name="weights-are-copies",
        statement="Eight tokens at one point and two at another are two tokens of weights .8 and .2.",
        source="Rigollet 2025, Sec. 3",
        check=_copies,
        tolerance=1e-13,
        why="rounding of sums of e^3",
    ),
    Claim(
        name="causal-rows",
        statement="Under a causal mask every later token nears the first at its own speed.",
        source="derived: linearization",
        check=_rows,
        oracle=theory.gram_gap,
        tolerance=1e-7,
        why="solver: 20 atol over the last distance, e^-15, over a span of 10",
    ),
    Claim(
        name="radii-are-kept",
        statement="The Post-LN field leaves |x| alone at any radius, attractive or repulsive.",
        source="Rigollet 2025, Sec. 3",
        check=_radial_speed,
        tolerance=1e-14,
        why="rounding of velocities of order one",
    ),
    Claim(
        name="repulsion-leaves-the-sphere",
        statement="The equation as printed loses the sphere under V = -I: norm errors grow as e^(2 t I_1/I_0).",
        source="derived: d|x|^2/dt",
        check=_repelled_radius,
        oracle=kuramoto.kernel_coefficients,
        printed="1.99e4",
        tolerance=1e-3,
        why="next order of the norm error, 4 x 2e-4",
        relative=True,
    ),
)
