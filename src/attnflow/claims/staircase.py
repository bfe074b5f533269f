"""One pair moves at a time: order, places and energies of merges; tokens that become centers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import FLOW, array, circle, run, uniform
from attnflow.theory import metastability

FIVE = np.array([0.0, 0.35, 0.85, 1.5, 2.3])
LOG = np.log(2000) / np.sqrt(2000)
AUTHORS = 0.5 * LOG * np.array([0, 0.5, 2, 4, 7])
"""Start of the authors' staircase."""
SEPARATED = np.array([0.0, 0.3, 1.0, 1.6, 3.0])
MASSES = np.array([0.3, 0.1, 0.25, 0.15, 0.2])


class _OwnClock(NamedTuple):
    """A flow of two tokens, on the clock on which they move at speed 1."""

    flow: Any
    beta: Any
    softmax: bool

    def __call__(self, t, x, args=None):
        cosine = (af.sphere.normalize(x)[0] * af.sphere.normalize(x)[1]).sum()
        pace = self.beta * (1.0 * self.softmax - cosine)
        return self.flow(t, x) * array(np.e) ** pace


def _attention(model: str, beta: float) -> Any:
    return af.Attention(beta) if model == "sa" else af.UnnormalizedAttention(beta)


def _plateaus() -> Sides:
    """Energies half way in log time between two merges, and at the end."""
    predicted, observed = [], []
    for theta, beta in ((FIVE, 60.0), (AUTHORS, 4000.0)):
        tree = af.coalesce(_attention("usa", beta), circle(theta))
        predicted.append(metastability.greedy_merges(theta, model="usa").energies[1:])
        observed.append([_energy(tree, k, beta) for k in range(1, 5)])
    return predicted, observed


def _energy(tree: Any, k: int, beta: float) -> float:
    """Scaled energy half way between merge k and the next."""
    if k == len(tree.log10_times):
        return float(tree.energies[-1])
    state = tree.at(log10_t=float(tree.log10_times[k - 1 : k + 1].mean()))
    x, weights = np.asarray(state.x), np.asarray(state.weights)
    return float(weights @ np.exp(beta * (x @ x.T - 1)) @ weights)


def _merges() -> Sides:
    """Pairs, places and log10 times of separated clusters of unequal masses."""
    predicted, observed = [], []
    for model in ("sa", "usa"):
        for beta in (200.0, 600.0):
            tree = af.coalesce(_attention(model, beta), circle(SEPARATED), weights=MASSES)
            steps = metastability.greedy_merges(SEPARATED, beta=beta, model=model, weights=MASSES)
            for side, found in ((predicted, steps), (observed, tree)):
                side.append(
                    np.column_stack(
                        [
                            found.pairs, found.merged_x, found.merged_weights,
                            found.log10_times / beta,
                        ]
                    )
                )  # fmt: skip
    return predicted, observed


def _steps() -> Sides:
    """Energies of tokens at right angles, put together as the pairs say."""
    pairs = [[1, 3], [0, 4], [2, 6], [5, 7]]
    weights = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    labels, energies = np.arange(5), []
    for step, pair in enumerate([None, *pairs]):
        if pair:
            labels = np.where(np.isin(labels, pair), 4 + step, labels)
        x = np.eye(10)[labels]
        energies.append(np.exp(-50.0) * _energy_of(x, weights))
    return metastability.plateau_energies(pairs, weights), energies


def _energy_of(x: np.ndarray, weights: np.ndarray) -> float:
    """2 beta E at beta = 50."""
    return 100 * float(af.observables.energy(array(x), 50.0, array(weights)))


def _pair_flow(model: str, beta: float, weights: tuple, x0: np.ndarray, s: float) -> np.ndarray:
    """Two weighted tokens on the clock of their pair, at nine times up to s, shape (9, 2, d)."""
    make, rtol = (af.sa, 1e-7) if model == "sa" else (af.usa, 1e-11)
    flow = _OwnClock(make(beta, weights=array(weights)), array(beta), model == "sa")
    return run(flow, x0, s, rtol=rtol)


ENDS = np.array([[1.0, 0, 0], [-0.6, 0.64, 0.48]])
PRINTED_ENDS = np.array([[1.0, 0, 0], [0.2, 0.96**0.5, 0]])


def _cosines(x: np.ndarray) -> np.ndarray:
    return np.einsum("tkd,tkd->t", x[:, :1], x[:, 1:])


def _pairing_cosines() -> Sides:
    """USA at beta = 3, whose law is exact; masses .5 and .5 run to the printed cosine."""
    predicted, observed = [], []
    for weights, ends, s in (((0.5, 0.5), PRINTED_ENDS, 1.4), ((0.8, 0.2), ENDS, 2.0)):
        ts = np.linspace(0, s, 9)[1:]
        start = np.arccos(ends[0] @ ends[1])
        angle = metastability.pairing_angle(ts[::-1], start, weights=weights, model="usa")
        predicted.append(np.cos(angle))
        observed.append(_cosines(_pair_flow("usa", 3.0, weights, ends, s))[:0:-1])
    return predicted, observed


def _pairing_places() -> Sides:
    """USA at beta = 3 and SA at beta = 12, masses .8 and .2, while the pair is apart."""
    predicted, observed = [], []
    for model, beta, s in (("usa", 3.0, 2.0), ("sa", 12.0, 0.15)):
        ts = np.linspace(0, s, 9)
        predicted.append(metastability.pairing_flow(ts, *ENDS, weights=(0.8, 0.2), model=model))
        observed.append(_pair_flow(model, beta, (0.8, 0.2), ENDS, s))
    return predicted, observed


def _peaks() -> Sides:
    """Angles at which two tokens approach fastest under USA: where the slope of the speed vanishes."""
    import jax
    import jax.numpy as jnp
    from scipy.optimize import brentq

    def speed(t, beta):
        pair = jnp.stack([jnp.stack([jnp.cos(t), jnp.sin(t)]), jnp.array([1.0, 0.0])])
        pull = af.usa(beta, clock="rescaled")(0.0, pair)[0]
        return jnp.sin(t) * pull[0] - jnp.cos(t) * pull[1]

    slope, betas = jax.jit(jax.grad(speed)), (0.0, 1.0, 9.0, 100.0)
    observed = [
        brentq(lambda t, beta=beta: float(slope(t, beta)), 1e-3, 3 / (1 + beta) ** 0.5, xtol=1e-15)
        for beta in betas
    ]
    return metastability.interaction_peak(betas), observed


def _centers() -> Sides:
    r"""Farthest walk of strong centers under a causal mask, against the bound of the lemma.

    Separation $c(1+2\varepsilon)\beta^{-1/2}$ holds them within $\varepsilon c\beta^{-1/2}$ for a time T with
    $T s h(c\beta^{-1/2}) = \varepsilon c\beta^{-1/2}$, s the place of the last center.
    """
    beta, c, eps, predicted, observed = 64.0, 2.0, 0.1, [], []
    reach = c / np.sqrt(beta)
    for seed in (61, 62, 63):
        x0 = uniform(seed, 16, 2)
        centers = metastability.renyi_centers(x0, reach * (1 + 2 * eps), strong=True)
        pull = np.exp(beta * (np.cos(reach) - 1)) * np.sin(reach)
        end = run(FLOW["causal"](beta), x0, eps * reach / ((centers[-1] + 1) * pull))[-1]
        predicted.append(-eps * reach)
        observed.append(-np.linalg.norm(end - x0, axis=1)[centers].max())
    return predicted, observed


def _counts() -> Sides:
    """Centers among 500 uniform tokens, mean over 40 draws, in standard errors."""
    import jax

    predicted, observed = [], []
    draws = [np.asarray(af.sphere.uniform(jax.random.key(k), 500, 2)) for k in range(40)]
    for delta in (0.1, 0.3):
        for strong in (True, False):
            law = metastability.renyi_count(delta, n=500, strong=strong)
            found = [len(metastability.renyi_centers(x, delta, strong=strong)) for x in draws]
            unit = np.std(found, ddof=1) / np.sqrt(len(found))
            predicted.append(law / unit)
            observed.append(np.mean(found) / unit)
    return predicted, observed


LIMIT = "Geshkovski+ 2024, Sec. 6"
MASKED = "Karagodin+ 2024"

CLAIMS = (
    Claim(
        name="staircase-plateaus",
        statement="The closest pair merges first, and each merger lifts the energy to the sum of squared masses.",
        source=LIMIT,
        check=_plateaus,
        oracle=metastability.greedy_merges,
        printed=".28 .36 .68 1 .28 .44 .52 1",
        tolerance=1e-5,
        why="pull e^(-60(1-cos .5)) = 6e-4 of the next pair, of which half the log time is left",
    ),
    Claim(
        name="staircase-merges",
        statement="Pairs, places, masses and times of all merges of separated clusters are those of the greedy rule.",
        source="derived: one pair at a time",
        check=_merges,
        oracle=metastability.greedy_merges,
        tolerance=1e-9,
        why="solver; the others move by e^(-200(cos .3 - cos .6)) = 1e-11",
    ),
    Claim(
        name="plateau-energies",
        statement="Clusters at right angles have the sum of squared masses for energy.",
        source=LIMIT,
        check=_steps,
        oracle=metastability.plateau_energies,
        tolerance=2e-14,
        why="rounding of e^50 in units of e^50, through its exponent",
    ),
    Claim(
        name="pairing-angle",
        statement="On the clock of its current angle a pair has cosine tanh(cs + artanh rho0), exactly (USA).",
        source="Bruno+ 2025, Prop. 3.11",
        check=_pairing_cosines,
        oracle=metastability.pairing_angle,
        printed=".92207884" + 15 * " *",
        tolerance=1e-9,
        why="solver: rtol = 1e-11 a step, e^(beta pace) amplifies",
    ),
    Claim(
        name="pairing-flow",
        statement="Masses set who moves how far: b^2 : a^2 (SA, large beta), b : a (USA).",
        source="Bruno+ 2025, Prop. 3.11",
        check=_pairing_places,
        oracle=metastability.pairing_flow,
        tolerance=2e-5,
        why="SA at finite beta: e^(-12(1-cos)) times the ratio 4 of masses, and rtol = 1e-7",
    ),
    Claim(
        name="interaction-peak",
        statement="Two tokens attract most at the angle with cos = beta sin^2.",
        source=MASKED,
        check=_peaks,
        oracle=metastability.interaction_peak,
        tolerance=1e-13,
        why="rounding of a slope, over its curvature",
    ),
    Claim(
        name="renyi-centers-stay",
        statement="Under a causal mask strong Rényi centers hardly move for a time exponential in beta.",
        source=MASKED,
        check=_centers,
        oracle=metastability.renyi_centers,
        tolerance=0.0,
        why="a bound, met with a factor of twenty to spare",
        at_least=True,
    ),
    Claim(
        name="renyi-count",
        statement="Uniform tokens on the circle have these expected numbers of Rényi centers, strong and plain.",
        source="Rényi 1958; derived",
        check=_counts,
        oracle=metastability.renyi_count,
        tolerance=4.0,
        why="statistics: four standard errors of 40 draws, the unit",
    ),
)
