"""Configurations that do not move, how fast their perturbations grow, and their energies."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import (
    FLOW,
    array,
    circle,
    gram,
    response,
    run,
    sa,
    tangent,
    velocity,
)
from attnflow.theory import stationary


def _angular_matrix(model: str, beta: float, theta: np.ndarray) -> np.ndarray:
    """Derivative of angular velocities by angles, shape (n, n)."""
    tangents = tangent(theta)
    rows = [
        response(FLOW[model](beta), circle(theta), tangents * unit[:, None])
        for unit in np.eye(len(theta))
    ]
    return (np.array(rows) * tangents).sum(axis=-1).T


def _polygon_rate(model: str, m: int, n: int, beta: float) -> float:
    """Growth rate of the wave cos(m theta) on the regular n-gon."""
    theta = 2 * np.pi * np.arange(n) / n
    wave = np.cos(m * theta)
    moved = response(FLOW[model](beta), circle(theta), tangent(theta) * wave[:, None])
    return float(wave @ (moved * tangent(theta)).sum(axis=1) / (wave @ wave))


def _polygons(rate: Any, *cases: tuple[str, int, int, float]) -> Sides:
    predicted = [rate(m, n=n, beta=beta, model=model) for model, m, n, beta in cases]
    return predicted, [_polygon_rate(*case) for case in cases]


def _polygon_growth(model: str, t_end: float) -> Sides:
    """Growth of a wave of three periods, 1e-6 high, on 64 tokens."""
    theta = 2 * np.pi * np.arange(64) / 64
    wave = np.cos(3 * theta)
    xs = run(FLOW[model](4.0), circle(theta + 1e-6 * wave), t_end, rtol=1e-14)
    height = [(x * tangent(theta)).sum(axis=1) @ wave for x in xs[[0, -1]]]
    observed = np.log(height[1] / height[0]) / t_end
    return stationary.polygon_rate(3, n=64, beta=4.0, model=model), observed


def _triangle() -> Sides:
    betas = (-0.5, -0.8, -2 / 3, 2.0)
    return stationary.triangle_rate(betas), [_polygon_rate("usa", 1, 3, beta) for beta in betas]


def _triangle_groups() -> Sides:
    """All growth rates of three pairs of tokens at 120 degrees, in rising order."""
    theta = 2 * np.pi * np.repeat(np.arange(3), 2) / 3
    predicted, observed = [], []
    for model in ("sa", "usa"):
        for beta in (-0.8, -0.5, 1.0):
            between, inside = stationary.triangle_group_rates(beta, model=model)
            predicted.append(sorted([0.0, between, between, inside, inside, inside]))
            matrix = _angular_matrix(model, beta, theta)
            observed.append(np.sort(np.linalg.eigvals(matrix).real))
    return predicted, observed


def _configurations(n: int) -> dict[str, np.ndarray]:
    """Stationary tokens, built by the simulator."""
    north = np.eye(n)[:1]
    return {
        "consensus": np.repeat(north, n, axis=0),
        "antipodal": np.where(np.arange(n) < n // 2, 1.0, -1.0)[:, None] * north,
        "polygon": np.asarray(af.sphere.polygon(n)),
        "simplex": np.asarray(af.sphere.equiangular(n, -1 / (n - 1), d=n - 1)),
    }


def _grams() -> Sides:
    predicted, observed = stationary.stationary_grams(6), _configurations(6)
    return list(predicted.values()), [gram(observed[name]) for name in predicted]


def _speeds() -> Sides:
    """Largest speed of each stationary configuration, read off its Gram matrix."""
    speeds = []
    for matrix in stationary.stationary_grams(6).values():
        values, vectors = np.linalg.eigh(matrix)
        tokens = vectors * np.sqrt(np.where(values > 1e-12, values, 0))
        for model in ("sa", "usa"):
            for value in (1.0, -1.0):
                speeds.append(np.abs(velocity(FLOW[model](1.5, value), tokens)).max())
    return np.zeros(len(speeds)), speeds


def _unequal_poles() -> Sides:
    """|mean|^2 and speeds of 2/3 of the tokens at a pole, 1/3 at the other, for many beta."""
    tokens = np.eye(2)[:1] * np.array([1.0, 1.0, -1.0])[:, None]
    speeds = [np.abs(velocity(sa(beta), tokens)).max() for beta in (0.0, 1.0, 9.0, 50.0)]
    order = float(af.observables.order_parameter(array(tokens)))
    return [1 / 9, 0, 0, 0, 0], [order**2, *speeds]


def _sphere_grid() -> tuple[np.ndarray, np.ndarray]:
    """Quadrature tokens on the sphere of three dimensions, and their weights."""
    height, share = np.polynomial.legendre.leggauss(24)
    phi = 2 * np.pi * np.arange(48) / 48
    z = np.repeat(height, 48)
    flat = np.sqrt(1 - z**2)[:, None] * np.tile(circle(phi), (24, 1))
    return np.column_stack([flat, z]), np.repeat(share / 96, 48)


def _gegenbauer() -> Sides:
    """Attention of three probes to the spherical harmonics of degrees 1, 2, 3, uniform keys."""
    grid, weights = (array(a) for a in _sphere_grid())
    probes, degrees = np.array([[0.6, 0, 0.8], [0, 0.28, 0.96], [0, 1, 0.0]]), (0, 1, 2, 3)
    zonal = [np.polynomial.legendre.Legendre.basis(degree) for degree in degrees]
    values = array(np.stack([p(np.asarray(grid)[:, 2]) for p in zonal], axis=1))
    predicted, observed = [], []
    for beta in (1.0, 4.0, 9.0):
        mean, log_z = af.kernels.dense(array(probes), grid, values, beta, weights=weights)
        observed.append(np.exp(np.asarray(log_z))[:, None] * np.asarray(mean) / np.exp(beta))
        heights = np.stack([p(probes[:, 2]) for p in zonal], axis=1)
        factors = [stationary.gegenbauer_coefficient(k, d=3, beta=beta) for k in degrees]
        predicted.append(heights * factors / np.exp(beta))
    return predicted, observed


def _uniform_energy() -> Sides:
    import jax

    grid, weights = (array(a) for a in _sphere_grid())
    energy = jax.jit(af.observables.energy)
    return (
        [stationary.uniform_energy(3.0, d=2), stationary.uniform_energy(3.0, d=3)],
        [energy(af.sphere.polygon(64), 3.0), energy(grid, 3.0, weights)],
    )


def _consensus_energy() -> Sides:
    import jax

    energy = jax.jit(af.observables.energy)
    betas, tokens = (3.0, 0.5, 9.0), array(_configurations(6)["consensus"])
    observed = [float(energy(tokens, beta)) for beta in betas]
    return stationary.consensus_energy(betas), observed


POLYGON = "derived: circulant matrix"

CLAIMS = (
    Claim(
        name="stationary-configurations",
        statement="One point, two poles, the polygon and the simplex have these inner products.",
        source="derived: symmetry",
        check=_grams,
        oracle=stationary.stationary_grams,
        tolerance=1e-15,
        why="rounding of unit vectors",
    ),
    Claim(
        name="stationary-speeds",
        statement="They do not move, under (SA) or (USA), attractive or repulsive.",
        source="derived: symmetry",
        check=_speeds,
        oracle=stationary.stationary_grams,
        tolerance=1e-14,
        why="rounding of pulls below e^1.5; tokens from eigenvectors",
    ),
    Claim(
        name="stationary-unequal-poles",
        statement="2/3 of the tokens at a pole and 1/3 at the other have |mean|^2 = 1/9 and never move.",
        source="derived: symmetry",
        check=_unequal_poles,
        tolerance=1e-15,
        why="rounding",
    ),
    Claim(
        name="polygon-rates",
        statement="Waves on a regular polygon of tokens grow at rates known exactly for finite n.",
        source=POLYGON,
        check=partial(
            _polygons,
            stationary.polygon_rate,
            ("sa", 3, 64, 4.0),
            ("sa", 5, 16, 4.0),
            ("usa", 3, 64, 4.0),
            ("sa", 2, 5, -1.0),
            ("usa", 1, 4, 0.0),
        ),
        oracle=stationary.polygon_rate,
        printed=".664388812208 .279305046344 7.50887050 * *",
        tolerance=1e-12,
        why="rounding of e^4 times beta",
    ),
    Claim(
        name="polygon-rates-bessel",
        statement="The same rates are a series of Bessel functions: the mean field's, and its aliases.",
        source="derived: Poisson summation",
        check=partial(
            _polygons,
            stationary.polygon_rate_bessel,
            ("sa", 5, 64, 4.0),
            ("sa", 5, 16, 4.0),
            ("usa", 3, 64, 4.0),
            ("sa", 2, 5, -1.0),
            ("usa", 2, 4, 1.0),
        ),
        oracle=stationary.polygon_rate_bessel,
        printed=".279114232324 .279305046344 7.50887050 * *",
        tolerance=1e-12,
        why="rounding of e^4 times beta",
    ),
    Claim(
        name="polygon-growth-sa",
        statement="A small wave on 64 tokens grows at that rate over five units of time (SA).",
        source=POLYGON,
        check=partial(_polygon_growth, "sa", 5.0),
        oracle=stationary.polygon_rate,
        printed=".66438881",
        tolerance=4e-8,
        why="solver: 20 rtol over the height 1e-6 and the time 5, rtol = 1e-14",
    ),
    Claim(
        name="polygon-growth-usa",
        statement="A small wave on 64 tokens grows at that rate over half a unit of time (USA).",
        source=POLYGON,
        check=partial(_polygon_growth, "usa", 0.5),
        oracle=stationary.polygon_rate,
        printed="7.50887050",
        tolerance=4e-7,
        why="solver: 20 rtol over the height 1e-6 and the time 1/2, rtol = 1e-14",
    ),
    Claim(
        name="triangle-rate",
        statement="A ring of three tokens is unstable for beta > -2/3 and stable below.",
        source="Polyanskiy+ 2025",
        check=_triangle,
        oracle=stationary.triangle_rate,
        printed=".16050318 -.1491825 0.0±4e-16 *",
        tolerance=1e-14,
        why="rounding of sums of e^2",
    ),
    Claim(
        name="triangle-of-groups",
        statement="Three equal groups at 120 degrees have these growth rates between and inside groups.",
        source="Polyanskiy+ 2025",
        check=_triangle_groups,
        oracle=stationary.triangle_group_rates,
        tolerance=1e-14,
        why="rounding of a symmetric eigenvalue problem",
    ),
    Claim(
        name="funk-hecke",
        statement="A uniform sphere of keys acts on spherical harmonics by one number per degree.",
        source="Funk-Hecke formula",
        check=_gegenbauer,
        oracle=stationary.gegenbauer_coefficient,
        tolerance=1e-14,
        why="rounding, in units of e^beta; the quadrature is exact to degree 47",
    ),
    Claim(
        name="energy-of-uniform",
        statement="The uniform measure has energy a_0(beta)/(2 beta).",
        source="Rigollet 2025, Sec. 3.2",
        check=_uniform_energy,
        oracle=stationary.uniform_energy,
        printed=".81346543 *",
        tolerance=1e-14,
        why="rounding; aliases I_64(3) are below 1e-70",
    ),
    Claim(
        name="energy-of-consensus",
        statement="One point has energy e^beta/(2 beta).",
        source="Rigollet 2025, Sec. 3.2",
        check=_consensus_energy,
        oracle=stationary.consensus_energy,
        printed="3.34758949 * *",
        tolerance=1e-14,
        why="rounding",
        relative=True,
    ),
)
