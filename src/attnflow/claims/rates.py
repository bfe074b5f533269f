"""Sharp rates at consensus, and a criterion for synchronization on the circle."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import FLOW, array, cone, response, run
from attnflow.theory import rates

CRITERION_BETAS = (0.0, 1.0, 4.0, 20.0, -0.16)
ARC = 2 * np.pi * np.arange(8000) / 8000


def _decay(model: str, beta: float, value: float, window: tuple[float, float]) -> np.ndarray:
    """Tokens at both ends of a window of time, from a cone, shape (2, 5, 3)."""
    x0 = cone(30, 5, 3, alpha=0.5)
    return run(FLOW[model](beta, value), x0, window[1], start=window[0], rtol=1e-14)[[1, -1]]


def _displacements() -> Sides:
    """Log-slopes of the distance from the mean; under the causal mask from the first token."""
    cases = (
        ("sa", 3.0, 1.0, (8.0, 12.0)), ("sa", 3.0, 2.0, (4.0, 6.0)), ("usa", 1.0, 1.0, (3.0, 4.5)),
        ("causal", 1.0, 1.0, (16.0, 24.0)),
    )  # fmt: skip
    observed = []
    for model, beta, value, window in cases:
        ends = _decay(model, beta, value, window)
        away = ends[:, 1] - ends[:, 0] if model == "causal" else ends[:, 0] - ends.mean(axis=1)
        lengths = np.linalg.norm(away, axis=1)
        observed.append(np.log(lengths[0] / lengths[1]) / (window[1] - window[0]))
    return [rates.consensus_rate(model, beta, value) for model, beta, value, _ in cases], observed


def _cosines() -> Sides:
    """Log-slopes of 1 - cosine of the first two tokens."""
    cases = (
        ("sa", 3.0, 1.0, (8.0, 12.0)), ("usa", 1.0, 1.0, (3.0, 4.5)), ("causal", 1.0, 1.0, (16.0, 24.0)),
    )  # fmt: skip
    observed = []
    for model, beta, value, window in cases:
        ends = _decay(model, beta, value, window)
        gaps = ((ends[:, 0] - ends[:, 1]) ** 2).sum(axis=1) / 2
        observed.append(np.log(gaps[0] / gaps[1]) / (window[1] - window[0]))
    return [rates.cosine_rate(model, beta, value) for model, beta, value, _ in cases], observed


def _linearized(flow: Any) -> float:
    """Slowest decay of displacements from consensus, away from common shifts."""
    point = np.eye(4)[:1]
    directions = []
    for i in range(5):
        for axis in range(1, 4):
            u = np.zeros((5, 4))
            u[i, axis] = 1
            directions.append(response(flow, np.repeat(point, 5, axis=0), u)[:, 1:].ravel())
    decay = np.sort(-np.linalg.eigvals(np.array(directions).T).real)
    return decay[3]


def _any_queries() -> Sides:
    """Slowest decay for random Q and K: the rates do not see them."""
    rng = np.random.default_rng(31)
    query, key = (array(matrix) for matrix in rng.normal(size=(2, 4, 4)))
    flows = [af.sa(2.0, query=query, key=key), af.causal(2.0, query=query, key=key)]
    flows += [af.sa(2.0, value=-0.5), af.usa(2.0), af.causal(9.0)]
    predicted = [
        rates.consensus_rate("sa", 2.0), rates.consensus_rate("causal", 2.0),
        rates.consensus_rate("sa", 2.0, -0.5), rates.consensus_rate("usa", 2.0),
        rates.consensus_rate("causal", 9.0),
    ]  # fmt: skip
    return predicted, [_linearized(flow) for flow in flows]


@cache
def _force_derivatives() -> Any:
    """First and third derivative of the force of one token on another under (USA), over ARC."""
    import jax
    import jax.numpy as jnp

    def force(t, beta):
        pair = jnp.stack([jnp.stack([jnp.cos(t), jnp.sin(t)]), jnp.array([1.0, 0.0])])
        pull = af.usa(beta)(0.0, pair)[0]
        return 2 * (jnp.sin(t) * pull[0] - jnp.cos(t) * pull[1])

    slope = jax.jacfwd(force)
    third = jax.jacfwd(jax.jacfwd(slope))
    return jax.jit(jax.vmap(lambda t, beta: (slope(t, beta), third(t, beta)), (0, None)))


def _criterion(beta: float) -> float:
    """Ratio of the criterion, measured on the simulated force."""
    slope, third = (np.asarray(f) for f in _force_derivatives()(array(ARC), array(beta)))
    k = int(np.argmax(slope < 0))
    peak = np.interp(0, slope[[k, k - 1]], ARC[[k, k - 1]])
    rise = np.maximum(third, 0).mean() * 2 * np.pi
    return float(peak * rise / (4 * (1 + peak / (2 * np.pi)) * slope[0]))


def _criteria() -> Sides:
    predicted = [rates.circle_criterion(beta) for beta in CRITERION_BETAS]
    return predicted, [_criterion(beta) for beta in CRITERION_BETAS]


def _crossing() -> Sides:
    """Inverse temperature at which the criterion is 1."""
    from scipy.optimize import brentq

    predicted = brentq(lambda beta: rates.circle_criterion(beta) - 1, -0.25, -0.15, xtol=1e-9)
    return predicted, brentq(lambda beta: _criterion(beta) - 1, -0.25, -0.15, xtol=1e-9)


LINEAR = "derived: linearization"

CLAIMS = (
    Claim(
        name="consensus-rate",
        statement="Displacements decay as e^(-ct) under (SA), e^(-c e^beta t) (USA), e^(-ct/2) (causal), V = c I.",
        source=LINEAR,
        check=_displacements,
        oracle=rates.consensus_rate,
        printed="1.0000000 * * *",
        tolerance=5e-7,
        why="next order: squared distances of e^-16 over a span of 4; causal: the next rate, e^(-t/6)",
    ),
    Claim(
        name="consensus-rate-any-query",
        statement="The rates at consensus do not depend on Q and K.",
        source=LINEAR,
        check=_any_queries,
        oracle=rates.consensus_rate,
        tolerance=1e-12,
        why="rounding of a matrix of e^2, in eigenvalues that are not defective",
    ),
    Claim(
        name="cosine-rate",
        statement="1 - cosine decays at twice the rate of displacements.",
        source=LINEAR,
        check=_cosines,
        oracle=rates.cosine_rate,
        tolerance=5e-7,
        why="next order: squared distances of e^-16 over a span of 4",
    ),
    Claim(
        name="circle-criterion",
        statement="The sufficient criterion for synchronization on the circle, measured on the force (USA).",
        source="Polyanskiy+ 2025",
        check=_criteria,
        oracle=rates.circle_criterion,
        printed=".628 .688 .779 .838 .912",
        tolerance=1.3e-5,
        why="trapezoids and chords: h^2 (1 + beta), h = 2 pi/8000",
    ),
    Claim(
        name="circle-criterion-crossing",
        statement="The criterion reaches 1 at beta = -0.192, below the published -0.16.",
        source="Polyanskiy+ 2025",
        check=_crossing,
        oracle=rates.circle_criterion,
        printed="-.1921",
        tolerance=1e-6,
        why="trapezoids and chords: h^2, h = 2 pi/8000, over the slope 2",
    ),
)
