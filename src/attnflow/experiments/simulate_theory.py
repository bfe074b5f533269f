"""What theory says beside a simulation: which theorems apply, the cosine expected, and the last rate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr

LINEAR = 1e-4
THEORY_MODELS = {"sa": "sa", "usa": "usa", "kuramoto": "usa", "causal": "causal"}


def theory_model(config: Any) -> tuple[str, float] | None:
    """Name and beta under which theory knows a flow, if it does."""
    if config.norm != "post" or config.flow not in THEORY_MODELS:
        return None
    return THEORY_MODELS[config.flow], beta_of(config)


def beta_of(config: Any) -> float:
    """Inverse temperature of a run, 0 under Kuramoto."""
    return 0.0 if config.flow == "kuramoto" or config.beta is None else config.beta


def theorems(config: Any, x0: np.ndarray) -> list[dict[str, Any]]:
    """Clustering theorems for these tokens, as plain values."""
    model = theory_model(config)
    if model is None:
        return []
    return [asdict(t) for t in af.theory.clustering.theorems(*model, x0, value=config.value)]


def predicted_cosine(
    config: Any, ts: np.ndarray, n: int, columns: dict[str, np.ndarray]
) -> np.ndarray:
    """Cosine of equiangular tokens with the same first mean cosine; NaN where unknown."""
    theory, beta = af.theory, beta_of(config)
    rho0 = float(columns["mean_cosine"][0])
    known = config.flow in ("sa", "usa", "kuramoto") and config.value == 1.0 and beta >= 0
    if not known or n < 2 or not rho0 > -1 / (n - 1):
        return np.full(len(ts), np.nan)
    if config.flow == "sa":
        options = {"n": n, "beta": beta, "tau": config.tau, "alpha": config.alpha}
        if config.method != "layers":
            return theory.normalization.cosine(config.norm, ts, rho0, **options)
        layers = np.round(ts / config.dt).astype(int)
        path = theory.normalization.layer_course(
            config.norm, 1 - rho0, layers=int(layers[-1]), eta=config.dt, **options
        )
        return path.cosine[layers]
    if config.norm != "post":
        return np.full(len(ts), np.nan)
    unit = np.exp(-beta) if config.clock == "rescaled" else 1.0
    return theory.equiangular.cosine_usa(ts * unit, rho0, n=n, beta=beta)


def last_decay(config: Any, flow: Any, data: xr.Dataset, numerics: dict[str, Any]):
    """Times, 1 - rho and its predicted rate, in a short, finer rerun once one cluster is left.

    The rate is one of the linearised flow, good to O((1 + beta) |x_i - x_j|^2); n (1 - rho) bounds
    these squares, so the rerun is read where n (1 + beta) (1 - rho) <= 1e-4.
    """
    import diffrax

    model = theory_model(config)
    gap = data.gap.values
    linear = LINEAR / data.sizes["token"] / (1 + abs(model[1])) if model else 0.0
    near = np.flatnonzero((gap < 1e-3) & (gap > 1e-16) & (data.clusters.values == 1))
    kept = data.state_save.values if "state_save" in data else np.arange(len(gap))
    near = np.intersect1d(near, kept)
    if model is None or "tokens" not in data or not len(near) or config.value <= 0:
        return None
    first = near[np.argmin(np.abs(np.log(gap[near] / linear)))]
    layers = config.method == "layers"
    rate = af.theory.rates.cosine_rate(*model, config.value, eta=config.dt if layers else None)
    if config.flow == "usa" and config.clock == "rescaled":
        rate *= np.exp(-model[1])
    t_max = (max(np.log(gap[first] / linear), 0) + 4) / rate
    ts = np.linspace(0, t_max, 65)
    if layers:
        ts = config.dt * np.arange(max(9, np.ceil(t_max / config.dt)))
    if config.method == "adaptive":
        numerics = numerics | {"rtol": 1e-12, "atol": 1e-13, "method": diffrax.Dopri8()}
    traj = af.solve(
        flow, data.tokens.values[np.searchsorted(kept, first)], ts, states=False, **numerics
    )
    fall = np.asarray(traj.observed["gap"])
    last = fall <= max(linear, float(fall[-8]))
    return (float(data.time[first]) + ts)[last], fall[last], float(rate)
