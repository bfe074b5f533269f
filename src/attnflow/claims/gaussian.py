"""Gaussians under attention in R^d: weighted tokens at quadrature nodes beside mean and covariance."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import ATOL, RTOL, array
from attnflow.theory import gaussian

NODES = 18
"""Gauss-Hermite nodes along each axis."""
ITERATIONS = 22
"""Of Sinkhorn: each shrinks the error by the largest squared correlation of x and y, here below 0.18."""
MEAN, COVARIANCE = np.array([0.4, -0.3]), np.array([[0.5, 0.1], [0.1, 0.3]])
WEIGHTS = {
    "query": np.array([[1.0, 0.3], [0.0, 0.8]]),
    "key": np.array([[0.9, 0.0], [-0.2, 1.1]]),
    "value": np.array([[0.5, 0.4], [-0.3, -0.6]]),
}
BETA = 0.6


def _tokens(mean: Any, covariance: Any) -> tuple[Any, Any]:
    """Tokens and weights that integrate polynomials of degree 2 NODES - 1 against a plane Gaussian."""
    nodes, share = np.polynomial.hermite_e.hermegauss(NODES)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    weights = np.outer(share, share).ravel()
    x = mean + grid @ np.linalg.cholesky(covariance).T
    return array(x), array(weights / weights.sum())


def _line(mean: float, variance: float) -> tuple[Any, Any]:
    """As many tokens on a line, two at each node."""
    nodes, share = (np.repeat(a, 2) for a in np.polynomial.hermite_e.hermegauss(NODES**2 // 2))
    x = mean + np.sqrt(variance) * nodes
    return array(np.column_stack([x, 0 * x])), array(share / share.sum())


def _gaussian(x: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of weighted tokens, shapes (..., d) and (..., d, d)."""
    x, weights = np.asarray(x), np.asarray(weights)
    mean = np.einsum("n,...ni->...i", weights, x)
    spread = x - mean[..., None, :]
    return mean, np.einsum("n,...ni,...nj->...ij", weights, spread, spread)


def _softmax(weights: Any, beta: Any, query: Any, key: Any, value: Any) -> Any:
    attention = af.Attention(beta, query, key, value, weights=weights)
    return af.Flow(attention, af.norms.no_ln)


def _l2(weights, beta, query, key, value, t, x, args=None):
    """Scores <Qx, Ky> - |Ky|^2/2: a bias is one more coordinate."""
    import jax.numpy as jnp

    q, k = x @ query.T, x @ key.T
    q = jnp.column_stack([q, jnp.ones(len(x))])
    k = jnp.column_stack([k, -(k**2).sum(axis=1) / 2])
    return af.kernels.dense(q, k, x @ value.T, beta, weights=weights)[0]


def _linear(weights, beta, query, key, value, t, x, args=None):
    import jax.numpy as jnp

    scores = beta * (x @ query.T) @ (x @ key.T).T
    return jnp.matmul(scores, weights[:, None] * (x @ value.T))


def _sinkhorn(weights, beta, query, key, value, t, x, args=None):
    """Weights w_i w_j e^(s_ij + f_i + g_j) of both marginals w."""
    import jax
    import jax.numpy as jnp

    one = jnp.ones(len(x))
    q, k, nothing = x @ query.T, x @ key.T, jnp.zeros((len(x), 0))

    def log_sum(a, b, bias, v=nothing):
        a, b = jnp.column_stack([beta * a, one]), jnp.column_stack([b, bias])
        return af.kernels.dense(a, b, v, 1.0, weights=weights)

    def step(g, _):
        return -log_sum(k, q, -log_sum(q, k, g)[1])[1], None

    g, _ = jax.lax.scan(step, 0 * one, None, length=ITERATIONS)
    return log_sum(q, k, g, x @ value.T)[0]


@cache
def _flow(
    kind: str, beta: float = BETA, value: float | None = None, *, line: bool = False
) -> tuple[Any, Any]:
    """Flow of one kind, and the weights of its tokens; with a number for value, Q = K = I."""
    import equinox as eqx

    one = np.eye(2)
    matrices = WEIGHTS.values() if value is None else (one, one, value * one)
    share = (_line(0.0, 1.0) if line else _tokens(MEAN, COVARIANCE))[1]
    numbers = (share, array(beta), *(array(matrix) for matrix in matrices))
    if kind == "softmax":
        return _softmax(*numbers), share
    field = {"l2": _l2, "linear": _linear, "sinkhorn": _sinkhorn}[kind]
    return eqx.Partial(field, *numbers), share


def _run(flow: Any, x0: Any, ts: Any) -> np.ndarray:
    import diffrax as dfx

    run = af.solve(flow, x0, ts, rtol=RTOL, atol=ATOL, adjoint=dfx.ForwardMode())
    return np.asarray(run.xs)


def _map(kind: str) -> Sides:
    """What tokens see within two standard deviations of the mean."""
    x = _tokens(MEAN, COVARIANCE)[0]
    seen = np.asarray(_flow(kind)[0](0.0, x))
    x = np.asarray(x)
    depth = np.einsum("ni,ij,nj->n", x - MEAN, np.linalg.inv(COVARIANCE), x - MEAN)
    offset, slope = gaussian.attention_map(MEAN, COVARIANCE, kind=kind, beta=BETA, **WEIGHTS)
    return (offset + x @ slope.T)[depth < 4], seen[depth < 4]


def _slope() -> Sides:
    """Slope of Sinkhorn attention in one dimension."""
    x, weights = _line(0.0, 0.6)
    flow = _flow("sinkhorn", 0.8, 1.0, line=True)[0]
    seen, x, weights = (np.asarray(a) for a in (flow(0.0, x)[:, 0], x[:, 0], weights))
    slope = gaussian.attention_map([0.0], [[0.6]], kind="sinkhorn", beta=0.8)[1]
    return slope, [[weights @ (seen * x) / (weights @ x**2)]]


def _velocities(kind: str) -> Sides:
    x, share = _tokens(MEAN, COVARIANCE)
    speed = np.asarray(_flow(kind)[0](0.0, x))
    weights, spread = np.asarray(share), np.asarray(x) - MEAN
    turn = np.einsum("n,ni,nj->ij", weights, speed, spread)
    mean, covariance = gaussian.velocity(MEAN, COVARIANCE, kind=kind, beta=BETA, **WEIGHTS)
    return np.append(mean, covariance), np.append(weights @ speed, turn + turn.T)


def _path(kind: str) -> Sides:
    ts = np.array([0.0, 0.5, 1.0])
    flow, share = _flow(kind)
    mean, covariance = _gaussian(_run(flow, _tokens(MEAN, COVARIANCE)[0], ts), share)
    means, covariances = gaussian.path(ts, MEAN, COVARIANCE, kind=kind, beta=BETA, **WEIGHTS)
    return np.append(means, covariances), np.append(mean, covariance)


def _closed(kind: str, value: float) -> Sides:
    ts = np.array([0.0, 0.5, 1.0])
    mean = 0 * MEAN if kind == "linear" else MEAN
    flow, share = _flow(kind, 0.4, value)
    seen = _gaussian(_run(flow, _tokens(mean, COVARIANCE)[0], ts), share)
    found = gaussian.closed_path(ts, mean, COVARIANCE, kind=kind, beta=0.4, value=value)
    return np.append(*found), np.append(*seen)


def _printed(m: float, t_end: float, value: float) -> Sides:
    """Variance and mean in one dimension after a run of softmax attention, beta = 0.4."""
    flow, share = _flow("softmax", 0.4, value, line=True)
    last = _run(flow, _line(m, 0.5)[0], np.array([0.0, t_end / 2, t_end]))[-1]
    mean, covariance = _gaussian(last, share)
    means, covariances = gaussian.closed_path([0, t_end], [m], [[0.5]], beta=0.4, value=value)
    return [covariances[-1, 0, 0], means[-1, 0]], [covariance[0, 0], mean[0]]


def _blow_up() -> Sides:
    """Zero of 1/variance, a straight line in time, along the wide axis."""
    observed = []
    for kind in ("softmax", "linear"):
        flow, share = _flow(kind, 0.4, 1.0)
        x0, _ = _tokens(np.zeros(2), COVARIANCE)
        ts = np.array([0.0, 0.5, 1.0])
        spread = _gaussian(_run(flow, x0, ts), share)[1]
        inverse = 1 / np.linalg.eigvalsh(spread)[:, -1]
        observed.append(ts[-1] * inverse[0] / (inverse[0] - inverse[-1]))
    kinds = ("softmax", "linear")
    return [gaussian.blow_up_time(COVARIANCE, kind=kind, beta=0.4) for kind in kinds], observed


SOURCES = {
    "softmax": "Castin+ 2025",
    "l2": "Castin+ 2025",
    "linear": "Castin+ 2025",
    "sinkhorn": "derived: Gaussian coupling",
}
ROUNDING = "rounding; 18 nodes leave less"
SOLVER = "solver: ten times its tolerance 1e-11"

CLAIMS = (
    *(
        Claim(
            name=f"gaussian-attention-{kind}",
            statement=f"Under {kind} attention a token in a Gaussian sees an affine function of itself.",
            source=source,
            check=partial(_map, kind),
            oracle=gaussian.attention_map,
            tolerance=1e-14,
            why=ROUNDING,
        )
        for kind, source in SOURCES.items()
    ),
    Claim(
        name="gaussian-attention-slope",
        statement="Sinkhorn attention in a centred Gaussian on the line multiplies a token by this number.",
        source=SOURCES["sinkhorn"],
        check=_slope,
        oracle=gaussian.attention_map,
        printed=".40231028760",
        tolerance=1e-13,
        why="rounding of exponents up to 100, that of scores beta x^2",
    ),
    *(
        Claim(
            name=f"gaussian-velocity-{kind}",
            statement=f"Under {kind} attention mean and covariance of a Gaussian have these velocities.",
            source=source,
            check=partial(_velocities, kind),
            oracle=gaussian.velocity,
            tolerance=1e-14,
            why=ROUNDING,
        )
        for kind, source in SOURCES.items()
    ),
    *(
        Claim(
            name=f"gaussian-path-{kind}",
            statement=f"Under {kind} attention a Gaussian stays one, and moves by the equations for any Q, K, V.",
            source=source,
            check=partial(_path, kind),
            oracle=gaussian.path,
            tolerance=1e-10,
            why=SOLVER,
        )
        for kind, source in SOURCES.items()
    ),
    *(
        Claim(
            name=f"gaussian-{name}-{kind}",
            statement=f"Under {kind} attention with Q = K = I and V = {sign}I the path is known in closed form.",
            source=source,
            check=partial(_closed, kind, value),
            oracle=gaussian.closed_path,
            tolerance=1e-10,
            why=SOLVER,
        )
        for kind, source in SOURCES.items()
        for name, sign, value in (("attracts", "", 1.0), ("repels", "-", -1.0))
    ),
    Claim(
        name="gaussian-line-attracts",
        statement="Variance and mean on the line under softmax attention, V = 1, grow to these values.",
        source=SOURCES["softmax"],
        check=partial(_printed, 1.0, 1.5, 1.0),
        oracle=gaussian.closed_path,
        printed="1.25 7.0861726",
        tolerance=1e-10,
        why=SOLVER,
        relative=True,
    ),
    Claim(
        name="gaussian-line-repels",
        statement="Variance and mean on the line under softmax attention, V = -1, shrink to these values.",
        source=SOURCES["softmax"],
        check=partial(_printed, 0.3, 2.0, -1.0),
        oracle=gaussian.closed_path,
        printed=".2777777778 .0302618893",
        tolerance=1e-10,
        why=SOLVER,
    ),
    Claim(
        name="gaussian-blow-up",
        statement="With V = I softmax and linear attention spread a centred Gaussian to infinity in finite time.",
        source=SOURCES["softmax"],
        check=_blow_up,
        oracle=gaussian.blow_up_time,
        tolerance=3e-10,
        why="solver: ten times its tolerance 1e-11, by the lever 2.3 of the extrapolation",
        relative=True,
    ),
)
