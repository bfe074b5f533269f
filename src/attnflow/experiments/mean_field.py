"""Mean field: many tokens beside the density they follow, and the path of a density to its clusters."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.intervals import half_interval
from attnflow.experiments.mean_field_figure import draw

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Config", "check", "draw", "numbers", "resolve", "run", "summary"]

MODES = 6
"""Modes whose error is measured."""
ANGLES = 360
SAVES = 121
QUANTILES = 4096
LARGEST_DEGREE = 1024
RTOL, ATOL = 1e-5, 1e-7
"""Tolerances of token runs: far below n^(-1/2) for a million tokens."""
DEGREES = 12
"""Degrees that the small perturbation holds."""
LINEAR = 30.0
"""Growth of the largest mode up to which rates are measured: beyond, products of modes force others."""


@dataclass(frozen=True)
class Config:
    """Settings of the mean field."""

    flow: Literal["sa", "usa"] = "sa"
    """Softmax attention, or unnormalised attention in the clock rescaled by e^(-beta)."""
    beta: float = 9.0
    """Inverse temperature, > 0."""
    kappa: float = float("inf")
    """Noise sqrt(2/kappa) dW, > 0; inf is none."""
    n_min: int = 100
    """Smallest number of tokens."""
    n_max: int = 1_000_000
    """Largest number of tokens."""
    n_count: int = 5
    """Number of sizes, evenly spaced in their logarithm."""
    starts: int = 16
    """Independent draws of the tokens at each size."""
    t_end: float = 1.0
    """Time at which tokens are compared with the density."""
    dt: float = 0.01
    """Step of the noisy runs."""
    perturbation: float = 1e-6
    """Height of the random modes from which the density goes its way to clusters."""
    t_max: float = 0.0
    """End of that way; 0 takes one and a half times what linear growth needs."""
    sphere_degree: int = 48
    """Resolution on the sphere S²; 0 leaves it out."""
    seed: int = 0
    """Seed of tokens and perturbations."""
    dtype: Literal["float64"] = "float64"
    """Precision."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in."""
    valid = config.flow in ("sa", "usa") and min(config.beta, config.kappa, config.perturbation) > 0
    if config.t_max or not valid:
        return config
    rate = _rates(config, 2).max()
    t_max = 1.5 * np.log(1 / config.perturbation) / rate if rate > 0 else 20.0
    return replace(config, t_max=float(f"{t_max:.3g}"))


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Tokens beside the density they follow, and a density's way from nearly uniform to clusters.

    Tokens are drawn independently from $1+\frac12\cos\theta+\frac3{10}\sin2\theta$ on the circle and run to
    t_end; the distance of their law to the density, $W_2$ and modes 1..6, falls like $n^{-1/2}$. The path
    starts from random modes of one height; where its density outgrows the grid, 4096 quantiles go on.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each size.

    Returns:
        `w2` and `mode_error` (n, start); `exponent` and `exponent_error` (measure): mean over starts of
        the least-squares exponent of n with half its 95 % interval (Student). `density` (time, angle)
        relative to uniform; `rate` and `measured_rate` (degree); on S², `sphere_density` (height,
        longitude) where its resolution ends. Attributes: `peaks`, `fastest_mode`, `t_resolved`.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    check(config)
    config = resolve(config)
    ns = np.unique(np.geomspace(config.n_min, config.n_max, config.n_count).round().astype(int))
    path, facts = _path(config)
    errors = _errors(config, ns, progress, checkpoint)
    size = np.log(ns) - np.log(ns).mean()
    exponents = np.stack([(size @ np.log(e)) / (size @ size) for e in errors])
    data = {
        "w2": (("n", "start"), errors[0], {"units": "rad", "long_name": "W2 to the density"}),
        "mode_error": (("n", "start"), errors[1], {"long_name": "RMS error of modes 1 to 6"}),
        "exponent": ("measure", exponents.mean(axis=1)),
        "exponent_error": ("measure", half_interval(exponents)),
    } | path
    if config.sphere_degree:
        sphere, more = _sphere(config)
        data, facts = data | sphere, facts | more
    return xr.Dataset(
        data,
        {"n": ns, "measure": ["w2", "mode_error"]},
        attrs={
            "experiment": "mean-field",
            "equation": "d_t mu = Lap mu / kappa - div(mu P int e^(beta <x,y>) y mu(dy) / Z), Z = 1 for usa",
            "units": "dimensionless",
            **facts,
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def summary(data: xr.Dataset) -> str:
    """Table of errors over n, exponents, and the clusters of the density."""
    a = data.attrs
    lines = [
        f"{a['flow']}, beta = {a['beta']:g}, kappa = {a['kappa']:g}: {data.sizes['start']} draws of n tokens",
        f"beside their density at t = {a['t_end']:g}, root mean squares",
        "",
        f"{'n':>9}{'W2 (rad)':>12}{'mode error':>12}",
    ]
    for k, n in enumerate(data.n.values):
        w2, modes = (np.sqrt((data[x][k] ** 2).mean()) for x in ("w2", "mode_error"))
        lines.append(f"{n:>9}{float(w2):>12.3g}{float(modes):>12.3g}")
    lines += ["", "Exponent of n (law: -1/2), 95 % intervals over draws:"]
    for measure in data.measure.values:
        one = data.sel(measure=measure)
        lines.append(f"{measure:>12}  {float(one.exponent):.4f} ± {float(one.exponent_error):.4f}")
    lines += [
        "",
        f"From perturbations of {a['perturbation']:g}: {a['peaks']} peaks on the circle "
        f"(fastest mode {a['fastest_mode']}); the grid resolved them until t = {a['t_resolved']:.4g}.",
    ]
    if "sphere_peaks" in a:
        lines.append(
            f"On S²: {a['sphere_peaks']} peaks at t = {a['sphere_t']:.4g} "
            f"(fastest mode {a['sphere_fastest_mode']}, which has l(l+1) = about 2 beta)."
        )
    return "\n".join(lines)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Errors, exponents, rates and peaks, as plain JSON values."""
    names = (
        "n",
        "w2",
        "mode_error",
        "measure",
        "exponent",
        "exponent_error",
        "degree",
        "rate",
        "measured_rate",
    )
    found: dict[str, Any] = {name: data[name].values.tolist() for name in names}
    return found | {name: data.attrs[name] for name in ("peaks", "fastest_mode", "t_resolved")}


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_choice, check_count, check_finite

    check_choice(config.flow, "flow", ("sa", "usa"))
    for name, low in (
        ("n_min", 2),
        ("n_count", 2),
        ("starts", 2),
        ("seed", 0),
        ("sphere_degree", 0),
    ):
        check_count(getattr(config, name), name, low=low)
    check_count(config.n_max, "n_max", low=config.n_min + 1)
    for name in ("beta", "t_end", "dt", "perturbation", "t_max"):
        check_finite(getattr(config, name), name)
        check_between(getattr(config, name), name, low=0.0, open_low=name != "t_max")
    check_between(config.kappa, "kappa", low=0.0, open_low=True, remedy="inf is no noise.")
    check_between(config.beta, "beta", high=700.0)
    check_between(
        config.perturbation, "perturbation", high=0.02, remedy="Modes must leave a density."
    )
    if config.sphere_degree:
        needed = af.meanfield.gegenbauer.kernel_degree(config.beta, 3)
        check_between(
            config.sphere_degree, "sphere_degree", low=needed,
            remedy=f"The kernel at beta={config.beta:g} has {needed} degrees; 0 leaves the sphere out.",
        )  # fmt: skip


def _flow(config: Config) -> Any:
    """What tokens follow."""
    return af.sa(config.beta) if config.flow == "sa" else af.usa(config.beta, clock="rescaled")


def _density(config: Config, space: Any) -> Any:
    """What densities follow."""
    return af.meanfield.MeanField(
        space, config.beta, config.flow, kappa=config.kappa, clock="rescaled"
    )


def _rates(config: Config, d: int) -> np.ndarray:
    """Growth rates of degrees 1..DEGREES in the clock of the run."""
    return af.theory.stability.growth_rates(
        np.arange(1, DEGREES + 1), beta=config.beta, d=d, model=config.flow, kappa=config.kappa,
        clock="rescaled",
    )  # fmt: skip


def _solve_density(config: Config, modes: Any, ts: np.ndarray) -> Any:
    """Run of a density on the circle as far as its grid goes, without the warning."""
    space = af.meanfield.Circle(modes.shape[1] - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return af.solve(_density(config, space), modes, ts, rtol=1e-7, atol=1e-13)


def _errors(config: Config, ns: np.ndarray, progress: bool, checkpoint: Any) -> np.ndarray:
    """W2 and mode errors of every size and start, shape (2, n, start)."""
    import jax
    from tqdm import tqdm

    modes = _final(config)
    errors, done = np.zeros((2, len(ns), config.starts)), 0
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, errors = kept[0], np.array(kept[1]["errors"])
    bar = tqdm(total=len(ns) * config.starts, initial=done * config.starts, disable=not progress)
    for k in range(done, len(ns)):
        n = int(ns[k])
        reference = af.meanfield.circle.quantiles(modes, (np.arange(n) + 0.5) / n)
        for start in range(config.starts):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), start), k)
            theta = _tokens_at_end(config, n, key)
            errors[0, k, start] = af.analysis.transport.circle_w2(theta, reference)
            gap = af.meanfield.circle.modes_of(theta, MODES) - modes[:, : MODES + 1]
            errors[1, k, start] = np.sqrt((gap[:, 1:] ** 2).mean())
            bar.update()
        if checkpoint is not None and k + 1 < len(ns):
            checkpoint.save(k + 1, {"errors": errors})
    bar.close()
    return errors


def _start(degree: int) -> Any:
    """Density from which tokens are drawn."""
    import jax.numpy as jnp

    space = af.meanfield.Circle(degree)
    return space.modes(jnp.asarray(1 + 0.5 * np.cos(space.grid) + 0.3 * np.sin(2 * space.grid)))


def _final(config: Config) -> np.ndarray:
    """Modes of the density at t_end, on a grid that resolves it."""
    degree = 2 * af.meanfield.gegenbauer.kernel_degree(config.beta, 2)
    while degree <= LARGEST_DEGREE:
        found = _solve_density(config, _start(degree), np.array([0.0, config.t_end]))
        if float(found.t_end) >= config.t_end:
            return np.asarray(found.x_end)
        degree *= 2
    raise ValueError(
        f"Argument `t_end` must leave a density that {LARGEST_DEGREE} modes resolve, but "
        f"t_end={config.t_end:g}. Its clusters are too narrow by then; take an earlier time."
    )


def _tokens_at_end(config: Config, n: int, key: Any) -> np.ndarray:
    """Angles at t_end of n tokens drawn from the starting density."""
    import jax
    import jax.numpy as jnp

    draw, noise = jax.random.split(key)
    u = np.asarray(jax.random.uniform(draw, (n,), jnp.float64))
    theta = af.meanfield.circle.quantiles(_start(8), u)
    x0, ts = jnp.asarray(np.stack([np.cos(theta), np.sin(theta)], 1)), np.array([0.0, config.t_end])
    if np.isinf(config.kappa):
        x = af.solve(_flow(config), x0, ts, states=False, rtol=RTOL, atol=ATOL).x_end
    else:
        x = af.solve_sde(
            _flow(config), x0, ts, kappa=config.kappa, dt=config.dt, key=noise, states=False
        ).x_end
    return np.arctan2(x[:, 1], x[:, 0])


def _path(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Density over time from a small perturbation, on the grid and then by quantiles."""
    import jax.numpy as jnp

    rng = np.random.default_rng(config.seed)
    degree = 2 * af.meanfield.gegenbauer.kernel_degree(config.beta, 2)
    degree = max(degree, 128) if np.isinf(config.kappa) else degree  # noise keeps densities wide
    turn = rng.uniform(0, 2 * np.pi, DEGREES)
    modes = np.zeros((2, degree + 1))
    modes[0, 0] = 1
    modes[:, 1 : DEGREES + 1] = config.perturbation * np.stack([np.cos(turn), np.sin(turn)])
    ts = np.linspace(0, config.t_max, SAVES)
    found = _solve_density(config, jnp.asarray(modes), ts)
    xs, edges = np.asarray(found.xs), 2 * np.pi * np.arange(ANGLES + 1) / ANGLES
    angle = (edges[1:] + edges[:-1]) / 2
    turns = np.outer(np.arange(degree + 1), angle)
    scale = np.where(np.arange(degree + 1) == 0, 1.0, np.sqrt(2))[:, None]
    cosines, sines = scale * np.cos(turns), scale * np.sin(turns)
    end = np.asarray(found.x_end)
    density = xs[:, 0] @ cosines + xs[:, 1] @ sines
    last = end[0] @ cosines + end[1] @ sines
    t_resolved = float(found.t_end)
    if len(xs) < len(ts):
        density = np.concatenate([density, _after(config, end, ts[len(xs) :] - t_resolved, edges)])
    size = np.hypot(xs[:, 0, 1 : DEGREES + 1], xs[:, 1, 1 : DEGREES + 1])
    linear = (size < LINEAR * config.perturbation).all(axis=1) & (ts[: len(xs)] > 0)
    k = int(np.flatnonzero(linear)[-1]) if linear.any() else 0
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = np.log(size[k] / size[0]) / ts[k] if k else np.full(DEGREES, np.nan)
    return {
        "density": (("time", "angle"), np.maximum(density, 0)),
        "time": ("time", ts),
        "angle": ("angle", angle),
        "degree": ("degree", np.arange(1, DEGREES + 1)),
        "rate": ("degree", _rates(config, 2)),
        "measured_rate": ("degree", measured),
    }, {
        "peaks": _peaks(last),
        "fastest_mode": int(_rates(config, 2).argmax()) + 1,
        "t_resolved": t_resolved,
    }  # fmt: skip


def _after(config: Config, modes: np.ndarray, ts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Density between `edges` at times ts after the grid gave out, from quantiles."""
    import jax.numpy as jnp

    x0 = jnp.asarray(af.meanfield.circle.tokens(np.asarray(modes), QUANTILES))
    found = af.solve(_flow(config), x0, np.concatenate([[0], ts]), rtol=RTOL, atol=ATOL)
    theta = np.arctan2(found.xs[1:, :, 1], found.xs[1:, :, 0]) % (2 * np.pi)
    counts = np.stack([np.histogram(row, edges)[0] for row in theta])
    return counts * (len(edges) - 1) / QUANTILES


def _peaks(values: np.ndarray) -> int:
    """Local maxima above the uniform density, on a ring."""
    higher = (values > np.roll(values, 1)) & (values >= np.roll(values, -1))
    return int((higher & (values > 1)).sum())


def _sphere(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Density on S² where its resolution, or time, ends."""
    import jax.numpy as jnp

    space = af.meanfield.Sphere(config.sphere_degree)
    rng = np.random.default_rng(config.seed + 1)
    modes = np.array(space.uniform)
    for l in range(1, DEGREES + 1):  # noqa: E741
        modes[0, l, : l + 1] = config.perturbation * rng.normal(size=l + 1)
        modes[1, l, 1 : l + 1] = config.perturbation * rng.normal(size=l)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = af.solve(
            _density(config, space), jnp.asarray(modes), np.array([0.0, config.t_max]),
            states=False, rtol=1e-6, atol=1e-12,
        )  # fmt: skip
    values = np.asarray(space.values(found.x_end))
    return {
        "sphere_density": (("height", "longitude"), values),
        "height": ("height", space.grid[0]),
        "longitude": ("longitude", space.grid[1]),
    }, {
        "sphere_peaks": _sphere_peaks(values),
        "sphere_t": float(found.t_end),
        "sphere_fastest_mode": int(_rates(config, 3).argmax()) + 1,
    }


def _sphere_peaks(values: np.ndarray) -> int:
    """Local maxima above the uniform density on a grid of heights and longitudes; poles count as points."""
    from scipy.ndimage import maximum_filter

    poles = [np.full((1, values.shape[1]), row.max()) for row in (values[0], values[-1])]
    wide = np.concatenate([poles[0], values, poles[1]])
    wide = np.concatenate([wide[:, -1:], wide, wide[:, :1]], axis=1)
    top = maximum_filter(wide, size=3)[1:-1, 1:-1]
    return int(((values == top) & (values > 1)).sum())
