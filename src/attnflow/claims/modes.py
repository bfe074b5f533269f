"""Hills of the density of the tokens, counted where their drift changes sign."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import array, circle
from attnflow.theory import modes

CIRCLE_BETAS = (10.0, 50.0, 200.0)
DRAWS, TOKENS, PROBES = 30, 2000, 2048
LINE_TOKENS = LINE_BETA = 500
LINE_DRAWS, LINE_PROBES = 30, 8192


@cache
def _drift() -> Any:
    """Drift of probes on the circle, and on the line, among tokens; compiled once per shape."""
    import jax
    import jax.numpy as jnp

    def on_circle(probes, x, beta):
        mean, _ = af.kernels.dense(probes, x, x, beta)
        return probes[:, 0] * mean[:, 1] - probes[:, 1] * mean[:, 0]

    def on_line(probes, x, beta):
        q = jnp.stack([probes, jnp.ones_like(probes)], axis=1)
        k = jnp.stack([x, -(x**2) / 2], axis=1)
        return af.kernels.dense(q, k, x[:, None], beta)[0][:, 0] - probes

    return jax.jit(on_circle), jax.jit(on_line)


@cache
def _circle_counts(beta: float) -> np.ndarray:
    """Numbers of modes of uniform tokens, shape (DRAWS,)."""
    import jax

    probes = array(circle(2 * np.pi * (np.arange(PROBES) + 0.37) / PROBES))
    counts = []
    for k in range(DRAWS):
        drift = _drift()[0](probes, af.sphere.uniform(jax.random.key(k), TOKENS, 2), array(beta))
        counts.append(_falls(np.append(drift, drift[0])))
    return np.array(counts)


@cache
def _line_places() -> list[np.ndarray]:
    """Modes of normal tokens on the line, one array per draw."""
    places = []
    for k in range(LINE_DRAWS):
        x = np.random.default_rng(70 + k).normal(size=LINE_TOKENS)
        probes = np.linspace(x.min() - 0.1, x.max() + 0.1, LINE_PROBES)
        drift = np.asarray(_drift()[1](array(probes), array(x), array(LINE_BETA)))
        places.append(probes[:-1][(drift[:-1] > 0) & (drift[1:] <= 0)])
    return places


def _falls(drift: np.ndarray) -> int:
    return int(((drift[:-1] > 0) & (drift[1:] <= 0)).sum())


def _expected(law: Any) -> Sides:
    """Expected and mean number of modes, in standard errors of the mean."""
    counts = [_circle_counts(beta) for beta in CIRCLE_BETAS]
    units = np.array([c.std(ddof=1) for c in counts]) / np.sqrt(DRAWS)
    return law(CIRCLE_BETAS) / units, np.array([c.mean() for c in counts]) / units


def _exact() -> Sides:
    return _expected(modes.expected_circle_modes)


def _law() -> Sides:
    return _expected(modes.circle_mode_law)


def _circle_places() -> Sides:
    """Modes, and where probes end that climb the density by mean shift."""
    predicted, observed = [], []
    for seed, n, beta in ((71, 8, 60.0), (72, 40, 30.0), (73, 200, 100.0)):
        theta = np.random.default_rng(seed).uniform(-np.pi, np.pi, n)
        probes = circle(2 * np.pi * (np.arange(256) + 0.37) / 256)
        ends = np.asarray(
            af.mean_shift.ascend(array(probes), array(circle(theta)), beta, tol=1e-7).x
        )
        predicted.append(modes.circle_modes(theta, beta))
        observed.append(_distinct(np.arctan2(ends[:, 1], ends[:, 0])))
    return np.concatenate(predicted), np.concatenate(observed)


def _line_ends() -> Sides:
    """The same for normal tokens on the line."""
    predicted, observed = [], []
    for seed, n, beta in ((74, 8, 60.0), (75, 40, 30.0), (76, 200, 100.0)):
        x = np.random.default_rng(seed).normal(size=n)
        probes = np.linspace(x.min(), x.max(), 512)[:, None]
        ends = af.mean_shift.gaussian_ascend(array(probes), array(x[:, None]), beta, tol=1e-7).x
        predicted.append(modes.line_modes(x, beta))
        observed.append(_distinct(np.asarray(ends)[:, 0]))
    return np.concatenate(predicted), np.concatenate(observed)


def _distinct(places: np.ndarray) -> np.ndarray:
    """Places more than 1e-5 apart, increasing."""
    places = np.sort(places)
    return places[np.append(True, np.diff(places) > 1e-5)]


def _line_count() -> Sides:
    """Mean number of modes against .45 of the law."""
    law = modes.line_mode_law(LINE_BETA)
    return 0.45 * law, np.mean([len(places) for places in _line_places()])


def _line_band() -> Sides:
    """Share of the modes inside the band."""
    low, high = modes.line_mode_band(LINE_TOKENS, LINE_BETA)
    places = np.abs(np.concatenate(_line_places()))
    return 0.8, np.mean((places >= low) & (places <= high))


MODES = "Geshkovski+ 2024 (modes)"

CLAIMS = (
    Claim(
        name="circle-modes-expected",
        statement="The density of many uniform tokens on the circle has this expected number of modes.",
        source="derived: Kac-Rice",
        check=_exact,
        oracle=modes.expected_circle_modes,
        tolerance=4.0,
        why="statistics: four standard errors of 30 draws, the unit",
    ),
    Claim(
        name="circle-modes-law",
        statement="That number is close to sqrt(3 beta/2).",
        source="derived: Kac-Rice",
        check=_law,
        oracle=modes.circle_mode_law,
        tolerance=4.0,
        why="statistics: four standard errors of 30 draws, the unit; 1/(24 beta) is less",
    ),
    Claim(
        name="circle-modes",
        statement="Modes on the circle are where mean shift on the fixed density ends.",
        source="Rigollet 2025, Sec. 5.3",
        check=_circle_places,
        oracle=modes.circle_modes,
        tolerance=1e-7,
        why="tolerance of the ascent in units of beta^-1/2",
    ),
    Claim(
        name="line-modes",
        statement="Modes on the line are where Gaussian mean shift on the fixed density ends.",
        source="Rigollet 2025, Sec. 5.3",
        check=_line_ends,
        oracle=modes.line_modes,
        tolerance=1e-7,
        why="tolerance of the ascent in units of beta^-1/2",
    ),
    Claim(
        name="line-modes-law",
        statement="Normal tokens on the line have about .45 sqrt(beta log beta) modes.",
        source=MODES,
        check=_line_count,
        oracle=modes.line_mode_law,
        tolerance=0.07,
        why="the constant is not known: .42 to .46 was measured for n from 500 to 8000",
        relative=True,
    ),
    Claim(
        name="line-modes-band",
        statement="Most modes lie where 2 log n - 3 log beta <= x^2 <= 2 log n - log beta.",
        source=MODES,
        check=_line_band,
        oracle=modes.line_mode_band,
        tolerance=0.0,
        why="asymptotic: the band held 83 to 86 % wherever it was measured",
        at_least=True,
    ),
)
