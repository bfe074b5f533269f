"""Noisy tokens: Brownian motion by degree, Gibbs laws of few tokens, and order parameters of many."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array
from attnflow.theory import gibbs, kuramoto, noisy

MANY = 2**16
"""Samples of a law of one token or of two."""
ERRORS = 4
"""Standard errors that a mean may be off."""


def _mean(samples: Any, tolerance: float) -> np.ndarray:
    """Mean over the first axis, once its standard errors leave room for the tolerance."""
    samples = np.asarray(samples, float)
    error = ERRORS * float(np.max(samples.std(axis=0, ddof=1))) / np.sqrt(len(samples))
    if error > tolerance:
        raise RuntimeError(f"{ERRORS} standard errors are {error:.1e}, above {tolerance:.1e}")
    return np.asarray(samples.mean(axis=0))


def _ends(flow: Any, x0: Any, t: float, count: int, **noise: Any) -> np.ndarray:
    """Tokens at time t of many runs, shape (count, n, d)."""
    import jax
    import jax.random as jr

    def end(key):
        return af.solve_sde(
            flow, array(x0), array([0.0, t]), key=key, states=False, **noise
        ).x_end  # fmt: skip

    return np.asarray(jax.vmap(end)(jr.split(jr.key(0), count)))


def _still() -> Any:
    """No drift: V = 0."""
    return af.usa(0.0, value=0.0)


def _brownian() -> Sides:
    """Means of zonal harmonics of degrees 1, 2 and 3, of size 1 at the start, d = 2, 3, 8."""
    kappa, t, predicted, observed = 4.0, 0.5, [], []
    degrees = np.arange(1, 4)
    for d in (2, 3, 8):
        c = _ends(_still(), np.eye(d)[:1], t, MANY, kappa=kappa, dt=t / 10)[:, 0, 0]
        two = (d * c**2 - 1) / (d - 1)
        three = ((d + 2) * c**3 - 3 * c) / (d - 1)
        predicted.append(np.exp(-degrees * (degrees + d - 2) * t / kappa))
        observed.append(_mean(np.stack([c, two, three], axis=1), BROWNIAN))
    return predicted, observed


BROWNIAN = 0.012


def _gathering() -> Sides:
    """Means of log(1 - g) at a time t, less that at the start, d = 2, 3, 5."""
    kappa, t, predicted, observed = 4.0, 0.4, [], []
    for d in (2, 3, 5):
        pair = np.eye(d)[:2]
        ends = _ends(
            _still(), pair, t, MANY // 4, kappa=np.inf, common_kappa=kappa, dt=t / 40
        )  # fmt: skip
        cosine = np.einsum("kd,kd->k", ends[:, 0], ends[:, 1])
        predicted.append(-2 * (d - 1) * t / kappa)
        observed.append(_mean(np.log(1 - cosine), GATHERING))
    return predicted, observed


GATHERING = 0.05


def _pairs() -> Sides:
    """Mean cosines of two tokens under (USA) once they have forgotten their start."""
    predicted, observed = [], []
    for d, beta, kappa in ((2, 1.0, 2.0), (3, 2.0, 2.0), (3, 1.0, 6.0)):
        angle = (np.arange(4000) + 0.5) * np.pi / 4000
        g = np.cos(angle)
        log = kappa * np.exp(beta * g) / (2 * beta) + (d - 2) * np.log(np.sin(angle))
        weight = np.exp(log - log.max())
        predicted.append((weight * g).sum() / weight.sum())
        ends = _ends(af.usa(beta), np.eye(d)[:2], 10.0, MANY // 4, kappa=kappa, dt=0.05)
        observed.append(_mean(np.einsum("kd,kd->k", ends[:, 0], ends[:, 1]), PAIRS))
    return predicted, observed


PAIRS = 0.025


def _squares(
    flow: Any, n: int, count: int, *, kappa: float, dt: float, tolerance: float
) -> float:  # fmt: skip
    """Mean of R^2 of n tokens on the circle, from consensus, over the last three quarters of every run."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    ts, x0 = jnp.linspace(0, 40, 81), jnp.zeros((n, 2)).at[:, 0].set(1.0)

    def square(key):
        run = af.solve_sde(
            flow, x0, ts, kappa=kappa, dt=dt, key=key, states=False,
            observe={"R": af.observables.order_parameter},
        )  # fmt: skip
        return jnp.mean(run.observed["R"][20:] ** 2)

    return float(_mean(jax.vmap(square)(jr.split(jr.key(0), count)), tolerance))


def _few_rotors() -> Sides:
    """Mean R^2 of 32 tokens at beta = 0."""
    n, kappas = 32, (1.0, 2.0, 3.0, 6.0)
    run = partial(_squares, af.kuramoto(), n, 256, dt=0.1, tolerance=FEW)
    return kuramoto.noisy_mean_square(n, kappas), [run(kappa=kappa) for kappa in kappas]


FEW = 0.02


def _orders(*cases: tuple[str, float, float, float]) -> Sides:
    """Order parameters of 512 tokens, with sqrt(mean R^2) off by 1/n and dt^2."""
    predicted, observed = [], []
    for model, beta, kappa, dt in cases:
        flow = {"sa": af.sa, "usa": af.usa}[model](beta)
        if beta == 0:
            predicted.append(float(noisy.kuramoto_order_parameter(kappa)))
        else:
            predicted.append(gibbs.order_parameter(beta, kappa, model=model))
        room = 2 * predicted[-1] * ORDERS
        square = _squares(flow, 512, 8, kappa=kappa, dt=dt, tolerance=room)
        observed.append(np.sqrt(square))
    return predicted, observed


ORDERS = 0.025

NOISE = "derived: generator of the noise"

CLAIMS = (
    Claim(
        name="brownian-decay",
        statement="Noise alone damps spherical harmonics of degree l by e^(-l(l+d-2)t/kappa).",
        source="Rigollet 2025, Sec. 7, corrected",
        check=_brownian,
        tolerance=BROWNIAN,
        why="4 standard errors of 65 536 tokens; bias (dt/kappa)^2 a step",
    ),
    Claim(
        name="common-noise-gathers",
        statement="Common noise 1/kappa makes the mean of log(1 - <x, y>) fall at the rate 2(d-1)/kappa.",
        source=NOISE,
        check=_gathering,
        tolerance=GATHERING,
        why="4 standard errors of 16 384 pairs; bias of first order in dt, a tenth of that",
    ),
    Claim(
        name="noisy-pair-is-gibbs",
        statement="Two noisy tokens under (USA) have cosines of density e^(kappa e^(beta g)/2 beta) (1-g^2)^((d-3)/2).",
        source=NOISE,
        check=_pairs,
        tolerance=PAIRS,
        why="4 standard errors of 16 384 pairs; bias dt^2",
    ),
    Claim(
        name="noisy-rotors-are-gibbs",
        statement="A few noisy tokens at beta = 0 have the law e^(kappa n R^2/2): their mean R^2 is known exactly.",
        source=NOISE,
        check=_few_rotors,
        oracle=kuramoto.noisy_mean_square,
        tolerance=FEW,
        why="4 standard errors over 256 runs; bias dt^2",
    ),
    Claim(
        name="noisy-kuramoto-order",
        statement="At beta = 0 tokens under noise settle at the order parameter r = I_1(kappa r)/I_0(kappa r).",
        source="Bertini+ 2010",
        check=partial(_orders, ("usa", 0.0, 3.0, 0.1), ("usa", 0.0, 6.0, 0.1)),
        oracle=noisy.kuramoto_order_parameter,
        printed=".7241587176 *",
        tolerance=ORDERS,
        why="4 standard errors over 8 runs of 512 tokens; bias 1/n and dt^2",
    ),
    Claim(
        name="noisy-order-parameters",
        statement="Under noise tokens settle at the order parameter of the Gibbs fixed point, (USA) and (SA).",
        source="Rigollet 2025, Sec. 7",
        check=partial(
            _orders,
            ("usa", 1.0, 2.5, 0.1),
            ("usa", 2.0, 1.5, 0.1),
            ("sa", 2.0, 4.0, 0.1),
        ),
        oracle=gibbs.order_parameter,
        printed=".7815843 .7596071 .7174175",
        tolerance=ORDERS,
        why="4 standard errors over 8 runs of 512 tokens; bias 1/n and dt^2",
    ),
)
