"""Bifurcation: how order appears as noise fades, by densities and by noisy tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.bifurcation_figure import draw
from attnflow.experiments.intervals import half_interval

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Config", "check", "draw", "numbers", "resolve", "run", "summary"]

HIGHEST = 1.8
"""Largest kappa of a branch, in units of kappa_c."""
LOOP, OUTSIDE = (0.25, 0.5, 0.75), (0.9, 1.15, 1.5)
"""Noise of the tokens where order jumps: shares of the way from the fold to kappa_c; below the fold and above."""
CONTINUOUS = (0.7, 0.85, 1.15, 1.3, 1.5, 1.75)
"""Noise of the tokens where order sets in continuously, in units of kappa_c."""
BURN_IN, AVERAGED, SAVES = 6.0, 12.0, 36
"""Relaxation times before the average and in it; save times of a run."""
STARTS = ("ordered", "uniform")
COLUMNS = ("kappa_c", "kappa_t", "jump", "kappa_sn", "fold")


@dataclass(frozen=True)
class Config:
    """Settings of the bifurcation diagrams."""

    models: tuple[str, ...] = ("sa", "usa")
    """Softmax attention, "sa", and unnormalised attention, "usa"."""
    dimensions: tuple[int, ...] = (2, 3, 8)
    """Dimensions of the tokens."""
    betas: tuple[float, ...] = (1.0, 4.0)
    """Inverse temperatures, 0 to 100."""
    n: int = 256
    """Number of tokens; 0 leaves them out."""
    runs: int = 8
    """Independent runs at each kappa, for the error bars."""
    most_steps: int = 2000
    """Most steps of a run; otherwise it lasts 18 relaxation times of the density."""
    seed: int = 0
    """Seed of starts and noise."""
    dtype: Literal["float64"] = "float64"
    """Precision."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Follow branches of stationary densities, and run noisy tokens beside them.

    Tokens start in one point ("ordered") where an ordered density exists, and at random ("uniform") where
    the uniform one is stable: inside a hysteresis loop both, where few tokens leave the worse one in time.
    Their order parameter is averaged over time once six relaxation times are over. It is off by about
    1/sqrt(n) where the density is uniform, and less elsewhere; by the share e^beta/(n Z) of a token's own
    weight under (SA), which pulls it nowhere.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each panel's beta.

    Returns:
        `kappa`, `R`, `free_energy`, `unstable` (model, d, beta, point): the branch from kappa_c, NaN beyond
        its end. `kappa_c`, and where order jumps `kappa_t`, `jump`, `kappa_sn`, `fold` (model, d, beta).
        `token_kappa` (model, d, beta, dot); `token_R`, mean over runs, and `token_error`, half its 95 %
        interval (Student), `density_R` (model, d, beta, dot, start), NaN where not run.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    check(config)
    cases = [(m, d, b) for m in config.models for d in config.dimensions for b in config.betas]
    shape = len(config.models), len(config.dimensions), len(config.betas)
    curves = [_curve(*case) for case in cases]
    facts = np.array([_facts(*case, curve) for case, curve in zip(cases, curves, strict=True)])
    dots = _dots(config, cases, facts, progress, checkpoint)
    case = ("model", "d", "beta")
    longest = max(len(curve.R) for curve in curves)
    pad = lambda values: np.append(values, np.full(longest - len(values), np.nan))
    data: dict[str, Any] = {
        name: ((*case, "point"), np.reshape([pad(getattr(c, name)) for c in curves], (*shape, -1)))
        for name in ("kappa", "R", "free_energy", "unstable")
    }
    data |= {name: (case, facts[:, k].reshape(shape)) for k, name in enumerate(COLUMNS)}
    for name, values in dots.items():
        axes = (*case, "dot", "start")[: 3 + values.ndim - 1]
        data[name] = (axes, values.reshape(*shape, *values.shape[1:]))
    return xr.Dataset(
        data,
        {
            "model": list(config.models),
            "d": list(config.dimensions),
            "beta": list(config.betas),
            "start": list(STARTS),
        },
        attrs={
            "experiment": "bifurcation",
            "equation": "dX_i = P_{X_i} sum_j w_ij X_j dt + sqrt(2/kappa) P_{X_i} o dB_i, "
            "w_ij = e^(beta <x_i, x_j>) over its sum (sa) or n (usa)",
            "units": "dimensionless",
            **{k: v for k, v in asdict(config).items() if isinstance(v, int)},
        },
    )


def summary(data: xr.Dataset) -> str:
    """Table of transitions, and how far the tokens are from their densities."""
    lines = [
        "Order sets in at kappa_c, continuously, or jumps to R at kappa_t and lasts down to kappa_sn",
        "",
        f"{'model':>6}{'d':>4}{'beta':>7}{'kappa_c':>11}{'kappa_t':>11}{'jump R':>8}{'kappa_sn':>11}"
        f"{'tokens - density':>20}",
    ]
    for row in _rows(data):
        jumps = bool(np.isfinite(row.kappa_t))
        cells = (
            f"{float(row.kappa_t):>11.6g}{float(row.jump):>8.4f}{float(row.kappa_sn):>11.6g}"
            if jumps
            else f"{'continuous':>11}{'':>19}"
        )
        gap = (row.token_R - row.density_R).sel(start="ordered").values
        ordered = gap[np.isfinite(gap)]
        far = f"{ordered.mean():+.4f}, {np.sqrt((ordered**2).mean()):.4f}" if len(ordered) else ""
        lines.append(
            f"{row.model.item():>6}{int(row.d):>4}{float(row.beta):>7g}{float(row.kappa_c):>11.6g}"
            f"{cells}{far:>20}"
        )
    tail = f"{data.attrs['n']} tokens, {data.attrs['runs']} runs: mean and root mean square over kappas"
    return "\n".join([*lines, "", tail if data.attrs["n"] else "No tokens."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Transitions and order parameters of tokens, as plain JSON values; what is not there is None."""
    names = (*COLUMNS, "token_kappa", "token_R", "token_error", "density_R")
    axes = {name: data[name].values.tolist() for name in ("model", "d", "beta", "start")}
    return axes | {name: _finite(data[name].values) for name in names}


def _finite(values: np.ndarray) -> list[Any]:
    """Nested lists, with None for what is not finite."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()


def _rows(data: xr.Dataset) -> list[xr.Dataset]:
    """Every model, dimension and beta."""
    return [
        data.sel(model=m, d=d, beta=b)
        for m in data.model.values
        for d in data.d.values
        for b in data.beta.values
    ]


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_count

    for name in ("models", "dimensions", "betas"):
        values = getattr(config, name)
        if not values or len(set(values)) < len(values):
            raise ValueError(
                f"Argument `{name}` must hold different values, but {name}={values}. Name each once."
            )
    for name, low in (("n", 0), ("runs", 2), ("most_steps", 1), ("seed", 0)):
        check_count(getattr(config, name), name, low=low)
    for model in config.models:
        for d in config.dimensions:
            for beta in config.betas:
                af.analysis.gibbs.check_parameters(beta, 1.0, d, model)
                kappa = HIGHEST * af.analysis.branches.threshold(beta, d, model)
                af.analysis.gibbs.axis_of(beta, kappa, d, model, None)


def _curve(model: str, d: int, beta: float) -> Any:
    """Branch of ordered densities from kappa_c."""
    kappa_c = af.analysis.branches.threshold(beta, d, model)
    return af.analysis.branches.branch(beta, (1e-3 * kappa_c, HIGHEST * kappa_c), d, model)


def _facts(model: str, d: int, beta: float, curve: Any) -> list[float]:
    """Values of `COLUMNS`, NaN where order sets in continuously."""
    if not curve.fold.any():
        return [float(curve.kappa[0]), *[np.nan] * 4]
    found = af.analysis.branches.transition(beta, d)
    return [getattr(found, name) for name in COLUMNS]


def _dots(config: Config, cases, facts, progress, checkpoint) -> dict[str, np.ndarray]:
    """Order parameters of tokens beside those of densities, at six kappas of every case."""
    from tqdm import tqdm

    kappas = np.array([_kappas(*row) for row in facts[:, [0, 3]]])
    shape = (*kappas.shape, len(STARTS))
    found = {name: np.full(shape, np.nan) for name in ("token_R", "token_error", "density_R")}
    done = 0
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept[0], {name: np.array(values) for name, values in kept[1].items()}
    left = range(done, len(cases)) if config.n else range(0)
    for k in tqdm(left, initial=done, total=len(cases), disable=not progress):
        for dot, kappa in enumerate(kappas[k]):
            for column, start in enumerate(STARTS):
                key = (k * len(kappas[k]) + dot) * len(STARTS) + column
                seen = _tokens(config, cases[k], float(kappa), float(facts[k, 0]), start, key)
                for name, value in zip(found, seen, strict=True):
                    found[name][k, dot, column] = value
        if checkpoint is not None and k + 1 < len(cases):
            checkpoint.save(k + 1, found)
    return {"token_kappa": kappas, **found}


def _kappas(kappa_c: float, kappa_sn: float) -> np.ndarray:
    """Noise of the tokens."""
    if np.isnan(kappa_sn):
        return kappa_c * np.array(CONTINUOUS)
    inside = kappa_sn + (kappa_c - kappa_sn) * np.array(LOOP)
    return np.sort(np.r_[OUTSIDE[0] * kappa_sn, inside, kappa_c * np.array(OUTSIDE[1:])])


def _tokens(
    config: Config, case: tuple[str, int, float], kappa: float, kappa_c: float, start: str, key: int
) -> tuple[float, float, float]:
    """Order parameter of tokens, half its 95 % interval, and that of the density nearby."""
    import jax
    import jax.numpy as jnp

    model, d, beta = case
    density = af.analysis.gibbs.gibbs(beta, kappa, d, model, start=start)
    if density.unstable or (start == "ordered" and density.R < 1e-6):
        return np.nan, np.nan, np.nan
    clock = np.exp(-beta) if model == "usa" else 1.0
    heat, relaxation = kappa / clock, 1 / (-density.growth * clock)
    largest = 1.0 if model == "usa" else 1 + beta
    dt = min(0.5 / largest, 0.25 * heat / (d - 1))
    t_max = min((BURN_IN + AVERAGED) * relaxation, config.most_steps * dt)
    ts = jnp.linspace(0, t_max, SAVES + 1)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), key), config.runs + 1)
    x0 = af.sphere.uniform(keys[0], config.n, d) if start == "uniform" else jnp.eye(d)[:1]
    x0 = jnp.broadcast_to(jnp.asarray(x0, jnp.float64), (config.n, d))
    orders = np.asarray(_compiled(model)(jnp.asarray(beta), x0, ts, heat, dt, keys[1:]))
    late = orders[:, int(SAVES * BURN_IN / (BURN_IN + AVERAGED)) + 1 :].mean(axis=1)
    return float(late.mean()), float(half_interval(late)), density.R


@lru_cache
def _compiled(model: str) -> Any:
    """Order parameters along runs of tokens, one per key; compiled once per shape."""
    import jax

    def orders(beta, x0, ts, kappa, dt, key):
        flow = af.sa(beta) if model == "sa" else af.usa(beta, clock="rescaled")
        observe = {"R": af.observables.order_parameter}
        found = af.solve_sde(
            flow, x0, ts, kappa=kappa, dt=dt, key=key, observe=observe, states=False
        )
        return found.observed["R"]

    return jax.jit(jax.vmap(orders, (None, None, None, None, None, 0)))
