"""Densities: growth of their modes, agreement of geometries, and their collapse by quantiles."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array
from attnflow.theory import kuramoto, rates, stability

DEGREE = 72
"""Resolution of densities: the kernel at beta = 50 has 64 degrees."""
BETAS, DEGREES = (1.0, 4.0, 9.0, 50.0), np.arange(1, 11)
HEIGHT = 1e-9
"""Of a perturbation: products of modes change its rate by some 100 times as much, rounding by 1e-16 / 1e-9."""
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-13}


def _space(d: int) -> Any:
    meanfield = af.meanfield
    return meanfield.Circle(DEGREE) if d == 2 else meanfield.Zonal(d, DEGREE)


def _growth(d: int, model: str) -> Sides:
    """Rates of ten modes, each read off a run of solve until the fastest has grown by e."""
    predicted, observed = [], []
    space = _space(d)
    start = np.array(space.uniform)
    start[(0, DEGREES) if d == 2 else DEGREES] = HEIGHT
    for beta in BETAS:
        rate = stability.growth_rates(DEGREES, beta=beta, d=d, model=model, clock="rescaled")
        t = 1 / rate.max()
        flow = af.meanfield.MeanField(space, beta, model, clock="rescaled")
        end = np.asarray(
            af.solve(flow, array(start), np.array([0.0, t]), rtol=1e-12, atol=1e-23).x_end
        )  # fmt: skip
        seen = end[0, DEGREES] if d == 2 else end[DEGREES]
        predicted.append(rate * t)
        observed.append(np.log(seen / HEIGHT))
    return predicted, observed


def _noisy_decay() -> Sides:
    """Rates of ten modes under strong noise, kappa = 1, beta = 4: all decay."""
    predicted, observed = [], []
    for d in (2, 3, 8):
        space = af.meanfield.Circle(40) if d == 2 else af.meanfield.Zonal(d, 40)
        for model in ("sa", "usa"):
            flow = af.meanfield.MeanField(space, 4.0, model, kappa=0.25)
            start = np.array(space.uniform)
            start[(0, DEGREES) if d == 2 else DEGREES] = HEIGHT
            velocity = np.asarray(flow(0.0, array(start)))
            seen = velocity[0, DEGREES] if d == 2 else velocity[DEGREES]
            rate = stability.growth_rates(DEGREES, beta=4.0, d=d, model=model, kappa=0.25)
            predicted.append(rate / np.abs(rate).max())
            observed.append(seen / HEIGHT / np.abs(rate).max())
    return predicted, observed


def _geometries() -> Sides:
    """One density by Fourier modes and by Gegenbauer modes; one by harmonics of S² and by zonal ones."""
    import diffrax as dfx

    predicted, observed = [], []
    meanfield, ts = af.meanfield, np.array([0.0, 1.0])
    for wide, narrow in (
        (meanfield.Circle(32), meanfield.Zonal(2, 32)),
        (meanfield.Sphere(32), meanfield.Zonal(3, 32)),
    ):
        for model in ("sa", "usa"):
            ends = []
            for space in (wide, narrow):
                start = np.array(space.uniform)
                row = {"Circle": start[0], "Zonal": start}.get(type(space).__name__)
                row = start[0, :, 0] if row is None else row
                row[1:3] = 0.4, 0.1
                flow = meanfield.MeanField(space, 2.0, model, kappa=6.0, clock="rescaled")
                end = af.solve(flow, array(start), ts, method=dfx.Dopri8(), **TIGHT).x_end
                end = np.asarray(end)
                ends.append(end if end.ndim == 1 else end[0] if end.ndim == 2 else end[0, :, 0])
            predicted.append(ends[1])
            observed.append(ends[0])
    return predicted, observed


def _ott_antonsen() -> Sides:
    """Order parameter of a Poisson kernel of order 0.3 under beta = 0, at four times."""
    space, ts = af.meanfield.Circle(80), np.array([0.0, 0.5, 1.0, 2.0])
    start = np.sqrt(2) * np.stack([0.3 ** np.arange(81), np.zeros(81)])
    start[0, 0] = 1
    found = af.solve(af.meanfield.MeanField(space, 0.0, "usa"), array(start), ts, **TIGHT)
    observed = [float(space.order_parameter(modes)) for modes in found.xs]
    return kuramoto.ott_antonsen(ts, 0.3), observed


def _arc() -> np.ndarray:
    """Quantiles of a density on an arc of 2.2 radians."""
    theta = 0.7 * np.arcsin(2 * (np.arange(400) + 0.5) / 400 - 1)
    return np.stack([np.cos(theta), np.sin(theta)], axis=1)


def _spread(xs: Any, weights: Any = None) -> np.ndarray:
    """W2 to the point on axis 0, shape (t,)."""
    theta = np.arctan2(np.asarray(xs)[..., 1], np.asarray(xs)[..., 0])
    return np.sqrt(np.average(theta**2, axis=-1, weights=weights))


def _hemisphere() -> Sides:
    """Rates of W2 within a hemisphere, and the smallest W2 in units of 1e-8: below 1."""
    predicted, observed = [], []
    for model, ts in (("sa", (0.0, 10, 14, 24)), ("usa", (0.0, 4, 5, 8))):
        flow = af.sa(1.0) if model == "sa" else af.usa(1.0)
        w2 = _spread(af.solve(flow, array(_arc()), np.array(ts), **TIGHT).xs)
        predicted += [rates.consensus_rate(model, 1.0), 0.0]
        observed += [np.log(w2[1] / w2[2]) / (ts[2] - ts[1]), max(w2[3] - 1e-8, 0.0)]
    return predicted, observed


@cache
def _full_support() -> Sides:
    """Rates of W2 of 1 + cos(theta)/2, whose quantiles crowd towards the antipode."""
    y = np.linspace(-24, 24, 241)
    theta = 2 * np.arctan(np.exp(y))
    weights = (1 + 0.5 * np.cos(theta)) / np.cosh(y)
    # Tokens of both sides, angles at the antipode by their distance to it, which is precise.
    sine = 1 / np.cosh(y)
    x = np.stack([np.concatenate([np.cos(theta)] * 2), np.concatenate([sine, -sine])], axis=1)
    weights = np.concatenate([weights] * 2) / (2 * weights.sum())
    predicted, observed = [], []
    for model, beta, ts in (("sa", 1.0, (0.0, 11.0, 13.0)), ("usa", 0.5, (0.0, 19.0, 22.0))):
        make = af.sa if model == "sa" else af.usa
        found = af.solve(make(beta, weights=array(weights)), array(x), np.array(ts), **TIGHT)
        w2 = _spread(found.xs, weights)
        predicted.append(rates.density_collapse_rate(model, beta, d=2))
        observed.append(np.log(w2[1] / w2[2]) / (ts[2] - ts[1]))
    return predicted, observed


def _energy_identity() -> Sides:
    """Gain of energy of quantiles that collapse, beside the integral of its rate, by Gauss's rule."""
    nodes, shares = np.polynomial.legendre.leggauss(48)
    predicted, observed = [], []
    for model, t_max in (("sa", 12.0), ("usa", 2.0)):
        flow = af.sa(2.0) if model == "sa" else af.usa(2.0)
        ts = np.concatenate([[0], (nodes + 1) * t_max / 2, [t_max]])
        xs = np.asarray(af.solve(flow, array(_arc()), ts, rtol=1e-12, atol=1e-14).xs)
        loss = []
        for x in xs[1:-1]:
            z = np.exp(2.0 * x @ x.T).mean(axis=1) if model == "sa" else 1.0
            loss.append((z * (np.asarray(flow(0.0, array(x))) ** 2).sum(axis=1)).mean())
        energies = [float(af.observables.energy(array(xs[k]), 2.0)) for k in (0, -1)]
        predicted.append(float(shares @ np.array(loss)) * t_max / 2)
        observed.append(energies[1] - energies[0])
    return predicted, observed


def _chaos() -> Sides:
    """Exponent of n in the distance of tokens to their density."""
    from attnflow.experiments import mean_field

    settings = mean_field.Config(n_max=10_000, n_count=3, starts=24, beta=4.0, sphere_degree=0)
    return np.full(2, -0.5), mean_field.run(settings).exponent.values


RATES = "Bruno+ 2025"

CLAIMS = (
    *(
        Claim(
            name=f"density-growth-{model}-d{d}",
            statement=f"Ten modes of a density in dimension {d} grow at their linear rates, "
            f"beta from 1 to 50 ({model.upper()}).",
            source=RATES,
            check=partial(_growth, d, model),
            oracle=stability.growth_rates,
            tolerance=1e-6,
            why="height 1e-9 of the perturbation, times products of modes below 300; in units of the fastest rate",
        )
        for d in (2, 3, 8)
        for model in ("sa", "usa")
    ),
    Claim(
        name="density-decay-by-noise",
        statement="Under strong noise ten modes of a density decay at their linear rates, d = 2, 3, 8.",
        source=RATES,
        check=_noisy_decay,
        oracle=stability.growth_rates,
        tolerance=1e-6,
        why="height 1e-9 of the perturbation, times products of modes below 300; in units of the fastest rate",
    ),
    Claim(
        name="density-geometries",
        statement="A density on the circle by Fourier and by Gegenbauer modes is one, and so is one on S².",
        source="two ways to one number",
        check=_geometries,
        tolerance=1e-8,
        why="1000 rtol of two solvers, rtol = 1e-11",
    ),
    Claim(
        name="density-ott-antonsen",
        statement="At beta = 0 a Poisson kernel on the circle follows Ott and Antonsen's equation.",
        source="Ott, Antonsen 2008",
        check=_ott_antonsen,
        oracle=kuramoto.ott_antonsen,
        tolerance=1e-8,
        why="1000 rtol; the mode 80 left out is 0.65^80 = 1e-15 at t = 2",
    ),
    Claim(
        name="collapse-within-a-hemisphere",
        statement="A density within a hemisphere collapses to W2 < 1e-8 at the rate of consensus.",
        source="Geshkovski+ 2025; rate derived",
        check=_hemisphere,
        oracle=rates.consensus_rate,
        tolerance=1e-6,
        why="next order e^(-2 rate t) at the start of the window",
    ),
    Claim(
        name="collapse-of-full-support",
        statement="A density positive everywhere on the circle collapses at half the rate of its antipode.",
        source="derived: mass near the antipode",
        check=_full_support,
        oracle=rates.density_collapse_rate,
        tolerance=1e-4,
        why="next order e^(-2 rate t) < 2e-5 of W2 squared; tokens within e^-24 of the antipode left out",
    ),
    Claim(
        name="collapse-energy-identity",
        statement="Energy gained in a collapse of quantiles is the integral of its rate.",
        source="gradient structure",
        check=_energy_identity,
        tolerance=1e-8,
        why="1000 rtol, rtol = 1e-12, of an energy of order 1; Gauss's rule of 48 points",
        relative=True,
    ),
    Claim(
        name="propagation-of-chaos",
        statement="Distances of n tokens to their density fall like n^(-1/2), n from 100 to 10 000.",
        source="Sznitman 1991",
        check=_chaos,
        tolerance=0.1,
        why="four standard errors over 24 draws of distances that vary by half their size",
    ),
)
