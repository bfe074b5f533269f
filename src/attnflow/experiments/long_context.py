"""Long context: one layer at logits gamma log n, and many, on equal and on random cosines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.intervals import half_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

BRANCHES = ("attention", "block")
LARGEST, LARGEST_DEEP, DEEPEST = 2**12, 2**11, 24
"""Most tokens of one real layer, of many, and how many those are: each token has a dimension of its own."""
TAU = 8.0


@dataclass(frozen=True)
class Config:
    """Settings of the long context."""

    ns: tuple[int, ...] = (2**8, 2**14, 2**20)
    """Numbers of tokens for the theory: a plane and a curve each."""
    layer_ns: tuple[int, ...] = (2**6, 2**8, 2**10)
    """Numbers of tokens of real layers, run on equal cosines."""
    layer_count: int = 17
    """Number of scales gamma at which real layers are run, evenly spaced from 0."""
    rho: float = 0.5
    """Common cosine of the tokens, outside the planes."""
    eta: float = 1.0
    """Step of the residual block."""
    gamma_max: float = 4.0
    """Largest scale gamma of planes and curves."""
    resolution: int = 161
    """Number of scales and of cosines of a plane, evenly spaced."""
    random_n: int = 2**12
    """Number of random tokens around a common direction."""
    densities: tuple[float, ...] = (4.0, 16.0, 64.0)
    """Dimensions of random tokens, in units of log n."""
    random_gammas: tuple[float, ...] = (1.0, 1.6, 2.0, 2.4, 3.0)
    """Scales at which random tokens pass a real layer."""
    seeds: int = 4
    """Number of independent samples of random tokens."""
    escape_ns: tuple[int, ...] = (2**10, 2**16, 2**20)
    """Numbers of tokens that pass many layers; up to 2^11 also the first 24 real layers."""
    escape_gammas: tuple[float, ...] = (2.5, 3.0)
    """Scales of the many layers."""
    rho_max: float = 0.99
    """Cosine at which tokens have escaped."""
    layers: int = 500
    """Number of layers that are followed."""
    seed: int = 0
    """Seed of the random tokens."""
    dtype: Literal["float64"] = "float64"
    """Precision; closed forms are met to 1e-13."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Set exact cosines after one and many layers beside real layers, on equal and on random cosines.

    Equal cosines: `af.Attention` on n tokens in n dimensions, beside $C_n$ and its limits. Random ones:
    $x_i = \sqrt\rho\,e+\sqrt{1-\rho}\,g_i$, $g_i$ uniform on $S^{d-1}$ orthogonal to e, d = D log n.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each sample of random tokens.

    Returns:
        `plane` (n, cosine, gamma) and its `boundary` (cosine); `curve` (branch, curve_n, gamma), its
        `limit` (branch, gamma) and `critical_limit` (branch); `window` (curve_n, tau) and `window_limit`
        (tau); `layer_cosine`, of real layers, and `layer_predicted` (branch, layer_n, layer_gamma).
        Of random tokens: `random_cosine` and `random_weight` (density, random_gamma), means over samples
        with half their 95 % intervals, `_error`; their predictions, also over gamma, `_curve`;
        `threshold` (density). Of many layers: `escape` (escape_gamma, escape_n, layer) and
        `escape_measured`, NaN where no layer is run; `escape_layers`, inf where 100 000 are not enough,
        and `escape_estimate` (escape_gamma, escape_n).

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    check(config)
    random = _random_all(config, progress, checkpoint)
    return xr.Dataset(
        _one_layer(config) | _escapes(config) | _random_tokens(config, random),
        {
            "n": list(config.ns),
            "cosine": np.linspace(0, 1, config.resolution),
            "gamma": _gammas(config),
            "branch": list(BRANCHES),
            "curve_n": _curve_ns(config),
            "tau": np.linspace(-TAU, TAU, config.resolution),
            "layer_n": list(config.layer_ns),
            "layer_gamma": _layer_gammas(config),
            "density": list(config.densities),
            "random_gamma": list(config.random_gammas),
            "escape_gamma": list(config.escape_gammas),
            "escape_n": list(config.escape_ns),
            "layer": np.arange(config.layers + 1),
        },
        attrs={
            "experiment": "long-context",
            "equation": "y_i = sum_j softmax_j(beta <x_i, x_j>) x_j, block x + eta y; beta = gamma log n",
            "units": "dimensionless",
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(config).items()
                if name not in ("dtype", "layers")
            },
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Planes, curves with dots of real layers, the critical window, random tokens, and the escape."""
    from attnflow.experiments.long_context_figure import figure

    return figure(data)


def summary(data: xr.Dataset) -> str:
    """Tables: C_n beside its limit, real layers, random tokens, and layers to escape."""
    from attnflow.experiments.long_context_figure import tables

    return tables(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Real layers, random tokens and escapes beside their predictions, as plain JSON values."""
    names = (
        "layer_n", "layer_gamma", "layer_cosine", "layer_predicted", "density", "random_gamma",
        "random_cosine", "random_cosine_error", "random_cosine_predicted", "random_weight",
        "random_weight_error", "random_weight_predicted", "random_equiangular", "threshold",
        "escape_n", "escape_gamma", "escape_layers", "escape_estimate",
    )  # fmt: skip
    return {
        "critical_gamma": 1 / (1 - data.attrs["rho"]),
        **{name: _plain(data[name].values) for name in names},
    }


def _plain(values: Any) -> Any:
    """Lists of numbers; None where not finite."""
    if values.ndim:
        return [_plain(row) for row in values]
    return values.item() if np.isfinite(values) else None


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_count, check_finite, check_memory

    counts = (("layer_count", 2), ("resolution", 2), ("random_n", 3), ("seeds", 2), ("layers", 1))
    for name, low in (*counts, ("seed", 0)):
        check_count(getattr(config, name), name, low=low)
    for name in ("ns", "layer_ns", "escape_ns", "densities", "random_gammas", "escape_gammas"):
        values = getattr(config, name)
        check_count(len(values), f"len({name})")
        if len(set(values)) < len(values):
            raise ValueError(f"Argument `{name}` must not repeat a value, but {name}={values}.")
        check_finite(values, name)
    for name in ("ns", "layer_ns", "escape_ns"):
        for n in getattr(config, name):
            check_count(n, name, low=2)
    check_between(
        config.layer_ns,
        "layer_ns",
        high=LARGEST,
        remedy="Larger ones cost n^2 numbers: put them in `ns`.",
    )
    for name in ("rho", "eta", "gamma_max", "rho_max"):
        check_finite(getattr(config, name), name)
    check_between(config.rho, "rho", 0.0, 1.0, open_low=True, open_high=True)
    check_between(config.rho_max, "rho_max", config.rho, 1.0, open_low=True, open_high=True)
    check_between(config.eta, "eta", low=0.0)
    check_between(config.gamma_max, "gamma_max", low=0.0, open_low=True)
    check_between(config.random_gammas, "random_gammas", low=0.0)
    check_between(config.escape_gammas, "escape_gammas", low=0.0, open_low=True)
    least = 2 / np.log(config.random_n)
    check_between(config.densities, "densities", low=least, remedy="d = D log n must reach 2.")
    planes = len(config.ns) * config.resolution**2
    tokens = config.random_n * (max(config.densities) * np.log(config.random_n) + 1)
    check_memory(int(8 * (8 * planes + 8 * tokens)), "These planes and random tokens")


def _gammas(config: Config) -> np.ndarray:
    return np.linspace(0, config.gamma_max, config.resolution)


def _layer_gammas(config: Config) -> np.ndarray:
    return np.linspace(0, config.gamma_max, config.layer_count)


def _curve_ns(config: Config) -> list[int]:
    return sorted({*config.ns, *config.layer_ns})


@cache
def _layer() -> Any:
    """Function (tokens, beta) -> (outputs, log-partitions) of a real layer."""
    import jax

    return jax.jit(lambda x, beta: af.Attention(beta).mean_and_log_z(x))


def _mean_cosine(y: np.ndarray) -> float:
    """Mean cosine of all pairs of rows."""
    total, n = (y / np.linalg.norm(y, axis=1, keepdims=True)).sum(axis=0), len(y)
    return float((total @ total - n) / (n * (n - 1)))


def _one_layer(config: Config) -> dict[str, Any]:
    """Planes, curves, window, and real layers on equal cosines."""
    theory, rho, etas = af.theory.long_context, config.rho, (None, config.eta)
    gammas, cosines = _gammas(config), np.linspace(0, 1, config.resolution)
    tau, ns = np.linspace(-TAU, TAU, config.resolution), np.array(_curve_ns(config))[:, None]

    def exact(rho, gamma, n, eta=None):
        return theory.output_cosine(rho, n=n, beta=theory.logit_scale(gamma, n), eta=eta)

    scale = (1 + tau / np.log(ns)) / (1 - rho)
    window = np.where(scale >= 0, exact(rho, np.maximum(scale, 0), ns), np.nan)
    with np.errstate(divide="ignore"):
        boundary = 1 / (1 - cosines)
    measured = np.zeros((2, len(config.layer_ns), config.layer_count))
    for i, n in enumerate(config.layer_ns):
        x = np.asarray(af.sphere.equiangular(n, rho))
        for k, gamma in enumerate(_layer_gammas(config)):
            y = np.asarray(_layer()(x, float(theory.logit_scale(gamma, n)))[0])
            measured[:, i, k] = _mean_cosine(y), _mean_cosine(x + config.eta * y)
    sizes = np.array(config.layer_ns)[:, None]
    dots, name = ("branch", "layer_n", "layer_gamma"), {"long_name": "cosine of two outputs"}
    return {
        "plane": (
            ("n", "cosine", "gamma"),
            exact(cosines[:, None], gammas, np.array(config.ns)[:, None, None]),
            name,
        ),
        "boundary": ("cosine", boundary, {"long_name": "critical gamma, 1/(1 - rho)"}),
        "curve": (("branch", "curve_n", "gamma"), np.stack([exact(rho, gammas, ns, e) for e in etas]), name),
        "limit": (
            ("branch", "gamma"),
            np.stack([theory.limit_cosine(rho, gammas, eta=eta) for eta in etas]),
            {"long_name": "limit of the cosine as n grows"},
        ),
        "critical_limit": (
            "branch",
            [theory.limit_cosine(rho, 1 / (1 - rho), eta=eta) for eta in etas],
            {"long_name": "limit at the critical gamma"},
        ),
        "window": (("curve_n", "tau"), window, name),
        "window_limit": ("tau", theory.critical_window(tau, rho), {"long_name": "limit at fixed tau"}),
        "layer_cosine": (dots, measured, {"long_name": "mean cosine of outputs of a real layer"}),
        "layer_predicted": (dots, np.stack([exact(rho, _layer_gammas(config), sizes, e) for e in etas]), name),
    }  # fmt: skip


def _escapes(config: Config) -> dict[str, Any]:
    """Many layers: exact, estimated, and real where the tokens are few."""
    theory, ns = af.theory.long_context, np.array(config.escape_ns)
    gammas = np.array(config.escape_gammas)[:, None]
    courses = theory.cosines(config.rho, layers=config.layers, n=ns, gamma=gammas)
    counts = theory.layers_to_escape(config.rho, gammas, n=ns, rho_max=config.rho_max)
    estimate = theory.escape_estimate(config.rho, gammas, n=ns)
    measured = np.full((*counts.shape, config.layers + 1), np.nan)
    for at in np.ndindex(counts.shape):
        if ns[at[1]] > LARGEST_DEEP:
            continue
        x = np.asarray(af.sphere.equiangular(int(ns[at[1]]), config.rho))
        beta = float(config.escape_gammas[at[0]] * np.log(ns[at[1]]))
        for layer in range(1 + int(min(counts[at], config.layers, DEEPEST))):
            measured[*at, layer] = _mean_cosine(x)
            x = np.asarray(_layer()(x, beta)[0])
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
    axes, name = ("escape_gamma", "escape_n"), {"long_name": "common cosine"}
    return {
        "escape": ((*axes, "layer"), np.moveaxis(courses, 0, -1), name),
        "escape_measured": ((*axes, "layer"), measured, name),
        "escape_layers": (axes, counts, {"long_name": "layers until the cosine is rho_max"}),
        "escape_estimate": (axes, estimate, {"long_name": "layers to escape, leading order"}),
    }


def _random_all(config: Config, progress: bool, checkpoint: Any) -> np.ndarray:
    """Mean cosines and self-weights of random tokens, shape (2, density, gamma, sample)."""
    import jax.random as jr
    from tqdm import tqdm

    found = np.zeros((2, len(config.densities), len(config.random_gammas), config.seeds))
    rows, done = list(np.ndindex(len(config.densities), config.seeds)), 0
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept[0], kept[1]["found"]
    for at in tqdm(rows[done:], initial=done, total=len(rows), disable=not progress, unit="sample"):
        i, k = at
        key = jr.fold_in(jr.fold_in(jr.key(config.seed), k), _dimension(config, i))
        g = np.asarray(af.sphere.uniform(key, config.random_n, _dimension(config, i)), float)
        x = np.column_stack([np.full(len(g), np.sqrt(config.rho)), np.sqrt(1 - config.rho) * g])
        for j, gamma in enumerate(config.random_gammas):
            beta = float(gamma * np.log(config.random_n))
            y, log_z = (np.asarray(a) for a in _layer()(x, beta))
            found[:, i, j, k] = _mean_cosine(y), np.exp(beta - log_z).mean()
        done += 1
        if checkpoint is not None and done < len(rows):
            checkpoint.save(done, {"found": found})
    return found


def _dimension(config: Config, i: int) -> int:
    return round(config.densities[i] * np.log(config.random_n))


def _random_tokens(config: Config, found: np.ndarray) -> dict[str, Any]:
    """What random tokens do, beside what integrals and the equiangular tokens predict."""
    from scipy.special import expit

    n, rho, log_n = config.random_n, config.rho, np.log(config.random_n)
    scales = np.array(config.random_gammas)

    def predict(gammas):
        rows = [
            af.theory.long_context.near_equiangular(rho, n=n, beta=gammas * log_n, d=_dimension(config, i))
            for i in range(len(config.densities))
        ]  # fmt: skip
        return np.stack([row.cosine for row in rows]), np.stack([row.self_weight for row in rows])

    at, along = predict(scales), predict(_gammas(config))
    result = {}
    for k, (name, text) in enumerate(
        (("random_cosine", "mean cosine of outputs"), ("random_weight", "mean self-weight A_ii"))
    ):
        axes = ("density", "random_gamma")
        result[name] = (axes, found[k].mean(axis=-1), {"long_name": text})
        half = {"long_name": f"half the 95 % interval of the {text}"}
        result[f"{name}_error"] = (axes, half_interval(found[k]), half)
        predicted = {"long_name": f"{text}, by integrals"}
        result[f"{name}_predicted"] = (axes, at[k], predicted)
        result[f"{name}_curve"] = (("density", "gamma"), along[k], predicted)
    theory, gammas = af.theory.long_context, _gammas(config)
    exact = theory.output_cosine(rho, n=n, beta=scales * log_n)
    threshold = af.theory.long_context.random_energy_threshold(config.densities) / (1 - rho)
    return result | {
        "random_equiangular": ("random_gamma", exact, {"long_name": "C_n of equal cosines"}),
        "equiangular_cosine": (
            "gamma",
            theory.output_cosine(rho, n=n, beta=gammas * log_n),
            {"long_name": "C_n of equal cosines"},
        ),
        "equiangular_weight": (
            "gamma",
            expit((1 - rho) * gammas * log_n - np.log(n - 1)),
            {"long_name": "self-weight A_ii of equal cosines"},
        ),
        "threshold": ("density", threshold, {"long_name": "random-energy threshold in gamma"}),
    }
