"""Large beta: rates, velocities, heat and alignment of tokens beside their limits.

An observation whose error is O(1/beta) is read at beta and at a multiple of it, and the error is eliminated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import FLOW, array, circle, response, sa, tangent, uniform, velocity
from attnflow.theory import large_beta, stability

TOKENS = 400
"""Tokens of the runs with heat, at quantiles of their density."""
RING = 1500
"""Tokens of the run with alignment, evenly spaced."""
QUERY = np.array([[1.0, 0.3], [0.0, 0.8]])
KEY = np.array([[0.9, 0.0], [-0.2, 1.1]])
VALUE = np.array([[1.2, 0.1], [0.2, 0.5]])
WEIGHTS = {"query": QUERY, "key": KEY, "value": VALUE}
MIXTURE: dict[str, Any] = {"weights": [0.3, 0.7], "means": [0.5, 3.0], "variances": [0.5, 0.8]}
DEGREES = np.array([1, 2, 4])


def _limit(read: Callable[[float], Any], beta: float, factor: float = 2.0) -> np.ndarray:
    """Limit of read(beta) = limit + c/beta + ..., from two values."""
    near, far = np.asarray(read(beta)), np.asarray(read(factor * beta))
    return np.asarray(far + (far - near) / (factor - 1))


def _ring_rates(model: str, beta: float) -> np.ndarray:
    """Growth rates of waves on 256 even tokens, in the rescaled clock for USA."""
    theta = 2 * np.pi * np.arange(256) / 256
    rates = []
    for wave in np.cos(np.outer(DEGREES, theta)):
        moved = response(FLOW[model](beta), circle(theta), tangent(theta) * wave[:, None])
        rates.append(wave @ (moved * tangent(theta)).sum(axis=1) / (wave @ wave))
    return np.array(rates) * (np.exp(-beta) if model == "usa" else 1)


def _ratios(model: str) -> Sides:
    """Rates over their limits at beta = 200."""
    clock = {"model": model, "clock": "rescaled", "beta": 200.0, "d": 2}
    limit = large_beta.limit_rates(DEGREES, **clock)
    return stability.growth_rates(DEGREES, **clock) / limit, _ring_rates(model, 200.0) / limit


def _limit_rates(model: str) -> Sides:
    """Relative to the limits at the same beta, which are powers of it."""

    def read(beta):
        limit = large_beta.limit_rates(DEGREES, beta=beta, d=2, model=model, clock="rescaled")
        return _ring_rates(model, beta) / limit

    return np.ones(len(DEGREES)), _limit(read, 200.0)


def _constant() -> Sides:
    r"""$\beta c_\beta$, the integral of e^(beta <x, y>) over the surface, in units of e^beta."""

    def read(d, beta):
        grid, surface = _grid(d)
        log_z = af.kernels.dense(grid[:1], grid, grid[:, :0], beta, weights=surface)[1]
        constant = large_beta.porous_constant(beta, d=d, clock="rescaled")
        return np.exp(float(log_z[0]) - beta) / (beta * constant)

    return np.ones(2), [_limit(partial(read, d), 40.0) for d in (2, 3)]


@cache
def _grid(d: int) -> tuple[Any, Any]:
    """Quadrature nodes on the circle or the sphere, and their shares of the surface."""
    if d == 2:
        return array(circle(2 * np.pi * np.arange(512) / 512)), array(np.full(512, np.pi / 256))
    height, share = np.polynomial.legendre.leggauss(64)
    z = np.repeat(height, 128)
    flat = np.tile(circle(2 * np.pi * np.arange(128) / 128), (64, 1))
    nodes = np.column_stack([np.sqrt(1 - z**2)[:, None] * flat, z])
    return array(nodes), array(np.repeat(share * np.pi / 64, 128))


def _velocities(model: str) -> Sides:
    """Over their limits of largest size, of probes in mu = (1 + <a, x>)/|S|, |a| < 1."""
    predicted, observed = [], []
    for d in (2, 3):
        nodes, surface = _grid(d)
        tilt = np.array([0.3, -0.2, 0.1])[:d]
        probes = uniform(11, 6, d)
        area = float(surface.sum())
        mu = (1 + probes @ tilt) / area
        slope = (tilt - (probes @ tilt)[:, None] * probes) / area

        def limit(beta, mu=mu, slope=slope):
            return large_beta.limit_velocity(mu, slope, beta=beta, model=model, clock="rescaled")

        def read(beta, nodes=nodes, weights=surface * (1 + nodes @ tilt) / area, probes=probes):
            mean, log_z = af.kernels.dense(array(probes), nodes, nodes, beta, weights=weights)
            seen = np.asarray(mean)
            if model == "usa":
                seen = np.exp(np.asarray(log_z) - beta)[:, None] * seen
            speed = seen - (seen * probes).sum(axis=1, keepdims=True) * probes
            return speed / np.abs(limit(beta)).max()

        predicted.append(limit(1.0) / np.abs(limit(1.0)).max())
        observed.append(_limit(read, 40.0))
    return np.concatenate(predicted, axis=None), np.concatenate(observed, axis=None)


def _quantiles(cumulative: Callable, density: Callable) -> np.ndarray:
    """Angles at which a distribution function on [0, 2 pi] takes the values (i + 1/2)/n."""
    share = (np.arange(TOKENS) + 0.5) / TOKENS
    theta = 2 * np.pi * share
    low, high = np.zeros(TOKENS), np.full(TOKENS, 2 * np.pi)
    for _ in range(80):  # Newton's method, kept in its bracket
        excess = cumulative(theta) - share
        low, high = np.where(excess < 0, theta, low), np.where(excess < 0, high, theta)
        step = theta - excess / density(theta)
        theta = np.where((step > low) & (step < high), step, (low + high) / 2)
    return theta


def modes(theta: np.ndarray, beta: float, value: float, age: float, count: int) -> np.ndarray:
    """Means of e^(-ik theta), k = 1, ..., after a run of (SA) of length age beta."""
    import diffrax as dfx

    run = af.solve(
        sa(beta, value), array(circle(theta)), np.array([0, age * beta]),
        rtol=1e-11, atol=1e-13, adjoint=dfx.ForwardMode(),
    )  # fmt: skip
    z = np.asarray(run.xs[-1]) @ np.array([1, -1j])
    return np.array([(z**k).mean() for k in range(1, count + 1)])


@cache
def tilted(height: float) -> np.ndarray:
    """Quantiles of (1 + height cos theta)/2 pi."""
    return _quantiles(
        lambda theta: (theta + height * np.sin(theta)) / (2 * np.pi),
        lambda theta: (1 + height * np.cos(theta)) / (2 * np.pi),
    )


def _forward_heat() -> Sides:
    predicted = large_beta.heat_modes([0, 20], [1, 0.2], beta=50.0, d=2, value=-1.0)
    observed = _limit(lambda beta: np.real(modes(tilted(0.4), beta, -1.0, 0.4, 1)), 100.0)
    return predicted[-1, 1:], observed


def _mixture(value: float) -> Sides:
    """Modes 0 to 3 of a mixture of two heat kernels at t = 0.1 beta."""
    from scipy.special import erf

    weights, means, variances = (np.array(MIXTURE[name]) for name in MIXTURE)
    grid = 2 * np.pi * np.arange(128) / 128

    def cumulative(theta):
        images = means[:, None] + 2 * np.pi * np.arange(-3, 4)
        width = np.sqrt(2 * variances)[:, None]
        steps = erf((theta[:, None, None] - images) / width) + erf(images / width)
        return steps.sum(axis=-1) @ weights / 2

    theta = _quantiles(
        cumulative, lambda theta: large_beta.heat_mixture(theta, 0, beta=1, **MIXTURE)
    )
    density = large_beta.heat_mixture(grid, 5.0, beta=50.0, value=value, **MIXTURE)
    predicted = np.fft.fft(density)[1:4] * 2 * np.pi / 128
    observed = _limit(lambda beta: modes(theta, beta, value, 0.1, 3), 50.0)
    return predicted.view(float), observed.view(float)


def _attention(beta: float) -> Any:
    return af.Flow(af.QKVAttention(beta, array(QUERY), array(KEY), array(VALUE)))


def ring() -> np.ndarray:
    """Even tokens on the circle."""
    return circle(2 * np.pi * np.arange(RING) / RING)


def _alignment_velocity() -> Sides:
    from scipy.special import ive

    x, beta = ring(), 80.0
    length = beta * np.linalg.norm(x @ (KEY.T @ QUERY).T, axis=1)
    seen = velocity(_attention(beta), x) / (ive(1, length) / ive(0, length))[:, None]
    return large_beta.alignment_velocity(x, **WEIGHTS), seen


@cache
def aligned(beta: float) -> np.ndarray:
    """Tokens at t = 1/2."""
    import diffrax as dfx

    ts, adjoint = np.array([0, 0.5]), dfx.ForwardMode()
    run = af.solve(_attention(beta), array(ring()), ts, rtol=1e-10, atol=1e-12, adjoint=adjoint)
    return np.asarray(run.xs[-1])


def _alignment_path() -> Sides:
    return large_beta.alignment_path([0, 0.5], ring(), **WEIGHTS)[-1], _limit(aligned, 80.0, 4.0)


def _directions() -> Sides:
    """Projections to the plane, and to the line, that tokens end in, Q = K = I."""
    import diffrax as dfx

    basis = np.array([[1.0, 0.2, 0.4], [0.0, 1.0, -0.3], [0.1, 0.0, 1.0]])
    spiral = np.array([[1.0, -0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.2]])
    predicted, observed = [], []
    for block, dimension in ((spiral, 2), (np.diag([1.1, 0.2, 0.1]), 1)):
        value = basis @ block @ np.linalg.inv(basis)
        flow = af.Flow(af.QKVAttention(100.0, 1.0, 1.0, array(value)))
        x0, ts = array(uniform(12, 40, 3)), np.array([0, 40.0])
        x = af.solve(flow, x0, ts, rtol=1e-8, atol=1e-10, adjoint=dfx.ForwardMode()).xs[-1]
        found = np.linalg.svd(np.asarray(x))[2][:dimension]
        limit = large_beta.limit_directions(value=value, d=3)
        predicted.append(limit @ limit.T)
        observed.append(found.T @ found)
    return predicted, observed


SOURCE = "Bruno+ 2025"
LAPLACE = "derived: Laplace's method"

CLAIMS = (
    Claim(
        name="large-beta-rates-sa",
        statement="At beta = 200 waves on a uniform ring grow at k^2/beta, up to these factors (SA).",
        source=SOURCE,
        check=partial(_ratios, "sa"),
        oracle=large_beta.limit_rates,
        printed=".9975 .99003 .96069",
        tolerance=1e-13,
        why="rounding of beta k^2; aliases are below 1e-60",
    ),
    Claim(
        name="large-beta-rates-usa",
        statement="At beta = 200 waves on a uniform ring grow at c_beta k^2/2 pi, up to these factors (USA).",
        source=SOURCE,
        check=partial(_ratios, "usa"),
        oracle=large_beta.limit_rates,
        printed=".99812 .99065 .96130",
        tolerance=1e-13,
        why="rounding of beta k^2; aliases are below 1e-60",
    ),
    *(
        Claim(
            name=f"large-beta-limit-rates-{model}",
            statement=f"These factors go to 1 as beta goes to infinity ({model.upper()}).",
            source=SOURCE,
            check=partial(_limit_rates, model),
            oracle=large_beta.limit_rates,
            tolerance=4e-4,
            why="next order of I_k(beta), k^4/(16 beta^2) at k = 4, beta = 200",
        )
        for model in ("sa", "usa")
    ),
    Claim(
        name="large-beta-constant",
        statement="On the circle and the sphere e^(beta <x, y>) integrates to beta c_beta as beta goes to infinity.",
        source=LAPLACE,
        check=_constant,
        oracle=large_beta.porous_constant,
        tolerance=3e-5,
        why="next order of I_0(beta), 9/(256 beta^2) = 2.2e-5 at beta = 40, and a third of it for those after",
    ),
    *(
        Claim(
            name=f"large-beta-velocity-{model}",
            statement=f"Tokens in a smooth density climb the gradient of {what} ({model.upper()}).",
            source=LAPLACE,
            check=partial(_velocities, model),
            oracle=large_beta.limit_velocity,
            tolerance=3.2e-4,
            why="next order, 1/(2 beta^2) at beta = 40, its coefficient being below 1",
        )
        for model, what in (("sa", "its logarithm over beta"), ("usa", "c_beta times itself"))
    ),
    Claim(
        name="large-beta-forward-heat",
        statement="With V = -I the density of tokens spreads as heat in the time t/beta (SA).",
        source=SOURCE,
        check=_forward_heat,
        oracle=large_beta.heat_modes,
        printed=".134064",
        tolerance=1e-6,
        why="next order, m_1 (T + T^2)/(16 beta^2) = 4.7e-7 at T = t/beta = 0.4, beta = 100",
    ),
    *(
        Claim(
            name=f"large-beta-mixture-{name}",
            statement=f"With V = {sign}I mixtures of heat kernels {how}, each by 2t/beta in variance (SA).",
            source=SOURCE,
            check=partial(_mixture, value),
            oracle=large_beta.heat_mixture,
            tolerance=5e-4,
            why="next order, m_k (T k^4)^2/(16 beta^2) = 1.7e-4 at k = 3, T = t/beta = 0.1, beta = 50; modes interact",
        )
        for name, sign, how, value in (
            ("spreads", "-", "spread", -1.0),
            ("sharpens", "", "sharpen", 1.0),
        )
    ),
    Claim(
        name="alignment-velocity",
        statement="On the uniform ring a token sees V u, u = K^T Q x/|K^T Q x|, times a ratio of Bessel functions.",
        source="derived: von Mises mean",
        check=_alignment_velocity,
        oracle=large_beta.alignment_velocity,
        tolerance=1e-14,
        why="rounding",
    ),
    Claim(
        name="alignment-path",
        statement="As beta goes to infinity tokens follow the linear flow of V K^T Q, each in its own time.",
        source=SOURCE,
        check=_alignment_path,
        oracle=large_beta.alignment_path,
        tolerance=4e-5,
        why="next order, 1/(4 beta^2) at beta = 80, its coefficient being below 1",
    ),
    Claim(
        name="alignment-directions",
        statement="Tokens end in the eigenspace of V of largest real part, a plane or a line (Q = K = I).",
        source=SOURCE,
        check=_directions,
        oracle=large_beta.limit_directions,
        tolerance=1e-9,
        why="solver: ten times its absolute tolerance; e^(-0.8 t) is 1e-14",
    ),
)
