"""What a million tokens feel, by the fast sums, against the kernel's own series and the growth rates of harmonics."""

from __future__ import annotations

import numpy as np
from scipy.special import eval_legendre

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array, circle, uniform
from attnflow.theory import kuramoto, stability

BETAS = (0.1, 1.0, 9.0, 81.0, 1000.0)
MILLION = 10**6
BANDS, DEGREES = 400, (1, 2, 3, 5, 8)
LONELY = 2000


def _polygon() -> Sides:
    """Partition sums per token, in units of e^beta, and lengths of the means: the largest of a million."""
    x = array(circle(2 * np.pi * np.arange(MILLION) / MILLION))
    predicted, observed = [], []
    for beta in BETAS:
        zeroth, first = kuramoto.kernel_coefficients(beta, 1, scaled=True)
        mean, log_z = af.kernels.fourier(x, x, x, beta)
        share = np.exp(np.asarray(log_z) - beta - np.log(MILLION))
        along = (np.asarray(mean) * np.asarray(x)).sum(axis=1)
        predicted += [[zeroth, first / zeroth]]
        observed += [
            [share[np.abs(share - zeroth).argmax()], along[np.abs(along - first / zeroth).argmax()]]
        ]
    return predicted, observed


def _growth() -> Sides:
    """Rates from the velocities of 320 000 weighted tokens, a quadrature of the sphere, at once."""
    height, share = np.polynomial.legendre.leggauss(BANDS)
    phi = np.pi * (np.arange(2 * BANDS) + 0.5) / BANDS
    ring = np.sqrt(1 - height**2)[:, None]
    x = np.stack(
        [
            ring * np.cos(phi),
            ring * np.sin(phi),
            np.broadcast_to(height[:, None], (BANDS, len(phi))),
        ],
        -1,
    )
    x, w = x.reshape(-1, 3), np.repeat(share / share.sum() / len(phi), len(phi))
    axis = uniform(3, 1, 3)[0]
    z, up = x @ axis, axis - (x @ axis)[:, None] * x
    tokens, predicted, observed = array(x), [], []
    for beta in BETAS[1:4]:
        predicted.append(stability.growth_rates(DEGREES, beta=beta, d=3))
        _, log_z0 = af.kernels.harmonics(tokens, tokens, tokens, beta, weights=array(w))
        for degree in DEGREES:
            own, below = eval_legendre(degree, z), eval_legendre(degree - 1, z)
            slope = degree * (below - z * own) / (1 - z**2)
            push = w * (1 + own / 2)
            mean, log_z = af.kernels.harmonics(tokens, tokens, tokens, beta, weights=array(push))
            velocity = np.asarray(mean) * np.exp(np.asarray(log_z - log_z0))[:, None]
            gradient = slope[:, None] * up / 2
            fit = (w * (velocity * gradient).sum(1)).sum() / (w * (gradient**2).sum(1)).sum()
            observed.append(degree * (degree + 1) * fit)
    return predicted, np.reshape(observed, np.shape(predicted))


def _lonely() -> Sides:
    """Velocities of a crowd and of one token far from it, in units of the largest, beside those of all pairs."""
    predicted, observed = [], []
    for d, fast in ((2, af.kernels.fourier), (3, af.kernels.harmonics)):
        crowd = np.eye(d)[0] + 0.05 * np.random.default_rng(d).normal(size=(LONELY, d))
        lone = np.r_[-2.0, np.ones(d - 1)]
        x = np.vstack([crowd, lone])
        x = array(x / np.linalg.norm(x, axis=1, keepdims=True))
        for beta in BETAS:
            exact, own = (
                np.asarray(af.sphere.project(x, s(x, x, x, beta)[0]))
                for s in (af.kernels.dense, fast)
            )
            largest = np.linalg.norm(exact, axis=1).max()
            predicted.append(exact / largest)
            observed.append(own / largest)
    whole = lambda side: np.concatenate([np.ravel(a) for a in side])
    return whole(predicted), whole(observed)


CLAIMS = (
    Claim(
        name="million-on-the-circle",
        statement="A million evenly spaced tokens: Z = n I_0(beta) and mean I_1/I_0 x, for beta from 0.1 to 1000.",
        source="Jacobi-Anger expansion",
        check=_polygon,
        oracle=kuramoto.kernel_coefficients,
        tolerance=1e-12,
        why="rounding 1e-13 of a sum, in units of the largest, over Z/n >= 0.0126",
    ),
    Claim(
        name="growth-rates-of-a-full-sphere",
        statement="Harmonics on 320 000 weighted tokens of S² grow at rates l(l+1) a_l/(beta a_0).",
        source="Bruno+ 2025",
        check=_growth,
        oracle=stability.growth_rates,
        printed=" ".join(["*"] * 15),
        tolerance=1e-10,
        why="rounding 1e-13 over Z/W >= 1/162, times l(l+1) up to 72, averaged over tokens",
    ),
    Claim(
        name="lonely-token",
        statement="A token far from a crowd moves by the fast sums as by all pairs, beta from 0.1 to 1000.",
        source="two ways to one number",
        check=_lonely,
        tolerance=1e-10,
        why="what the fast sums promise, of the largest speed",
    ),
)
