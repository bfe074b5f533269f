"""Modes: how many clusters appear first, beside hills of the density and the fastest linear mode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.intervals import half_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

KINDS = ("clusters", "kde_modes")
ANGLES = 1441
LASTING = 2.0
MERGE_TOL, RTOL = 1e-4, 1e-6
"""The crowded start is followed to a hundredth of log10 t; counts need no more."""


@dataclass(frozen=True)
class Config:
    """Settings of the modes."""

    n: int = 256
    """Number of tokens, uniform on the circle; many more than sqrt(beta)."""
    beta_min: float = 4.0
    """Smallest inverse temperature."""
    beta_max: float = 400.0
    """Largest inverse temperature."""
    beta_count: int = 7
    """Number of inverse temperatures, evenly spaced in their logarithm."""
    seeds: int = 8
    """Number of independent starts; every beta has the same ones."""
    seed: int = 0
    """Seed of the starts."""
    t_max: float = 1e3
    """Time by which the first plateau has lasted long enough."""
    dtype: Literal["float64"] = "float64"
    """Precision; metastable speeds need float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Count clusters of self-attention on the circle on their first plateau, and hills of their start.

    The first plateau is the first stretch between merges that lasts until twice the time it began,
    with at most n/2 clusters left; those nearer than half a kernel width, $\frac12\beta^{-1/2}$, count as
    one, being stragglers between two clusters. Hills are local maxima of $\sum_je^{\beta\cos(\theta-\theta_j)}$
    at the start.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each beta.

    Returns:
        `clusters`, `kde_modes`, `plateau_log10_start` and `plateau_log10_end` (beta, start);
        `fastest_mode`, `expected_kde_modes` (beta), by theory; `exponent` and `prefactor` (kind): mean
        over starts of the least-squares exponent of a count by beta, and of count / sqrt(beta), each
        with half its 95 % interval (Student). Of one start, at the middle beta: kernel densities at
        the start and on the plateau (angle).

    Raises:
        ValueError: If a setting is out of range, before work starts.
        RuntimeError: If no plateau lasts long enough before t_max.
    """
    import xarray as xr

    check(config)
    betas = np.geomspace(config.beta_min, config.beta_max, config.beta_count)
    found = _count_all(config, betas, progress, checkpoint)
    counts = np.stack([found[kind] for kind in KINDS])
    heat = np.log(betas) - np.log(betas).mean()
    exponents = np.einsum("b,kbs->ks", heat, np.log(counts)) / (heat @ heat)
    prefactors = (counts / np.sqrt(betas)[:, None]).mean(axis=1)
    theory, line = af.theory, ("beta", "start")
    return xr.Dataset(
        {
            "clusters": (line, found["clusters"], {"long_name": "clusters on the first plateau"}),
            "kde_modes": (line, found["kde_modes"], {"long_name": "hills of the density at t = 0"}),
            "plateau_log10_start": (line, found["plateau"][..., 0]),
            "plateau_log10_end": (line, found["plateau"][..., 1]),
            "fastest_mode": ("beta", theory.stability.fastest_mode(betas, d=2)),
            "expected_kde_modes": ("beta", theory.modes.expected_circle_modes(betas)),
            "exponent": ("kind", exponents.mean(axis=1)),
            "exponent_error": ("kind", half_interval(exponents)),
            "prefactor": ("kind", prefactors.mean(axis=1)),
            "prefactor_error": ("kind", half_interval(prefactors)),
            "start_density": ("angle", found["densities"][0]),
            "plateau_density": ("angle", found["densities"][1]),
        },
        {"kind": list(KINDS), "beta": betas, "angle": np.linspace(-np.pi, np.pi, ANGLES)},
        attrs={
            "experiment": "modes",
            "equation": "dx_i/dt = P_{x_i} sum_j softmax_j(beta <x_i, x_j>) x_j, j = i included",
            "units": "dimensionless",
            "steps": int(found["steps"]),
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Counts over beta beside their laws, and one start with the clusters it becomes."""
    from attnflow import plot

    with plot.style():
        figure, axes = plot.panels([["counts", "density"]], width=12.0, height=4.8)
        _draw_counts(axes["counts"], data)
        _draw_densities(axes["density"], data)
        figure.suptitle(
            f"{data.attrs['n']} uniform tokens on the circle under self-attention, "
            f"{data.attrs['seeds']} starts"
        )
    return figure


def summary(data: xr.Dataset) -> str:
    """Table of counts over beta, then exponents and prefactors."""
    lines = [
        f"{data.attrs['n']} tokens on the circle, {data.attrs['seeds']} starts, means ± standard errors",
        "",
        f"{'beta':>8}{'clusters':>16}{'KDE modes':>16}{'expected':>10}{'fastest mode':>14}",
    ]
    for k, beta in enumerate(data.beta.values):
        row = data.isel(beta=k)
        cells = (f"{mean:.2f} ± {error:.2f}" for mean, error in map(_mean, (row[x] for x in KINDS)))
        line = f"{beta:>8.4g}" + "".join(f"{cell:>16}" for cell in cells)
        lines.append(f"{line}{float(row.expected_kde_modes):>10.2f}{int(row.fastest_mode):>14}")
    lines += ["", "Exponent of beta (law: 1/2) and count / sqrt(beta), 95 % intervals over starts:"]
    for kind, law in zip(KINDS, ("", "(law: 1.2247)"), strict=True):
        one = data.sel(kind=kind)
        exponent = f"{float(one.exponent):.3f} ± {float(one.exponent_error):.3f}"
        prefactor = f"{float(one.prefactor):.3f} ± {float(one.prefactor_error):.3f}"
        lines.append(f"{kind:>10}  {exponent}   {prefactor}  {law}".rstrip())
    return "\n".join([*lines, "", "Fastest mode: law 1.4142 sqrt(beta)."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Counts, exponents and prefactors, as plain JSON values."""
    names = (
        "beta", "clusters", "kde_modes", "fastest_mode", "expected_kde_modes", "kind", "exponent",
        "exponent_error", "prefactor", "prefactor_error",
    )  # fmt: skip
    return {name: data[name].values.tolist() for name in names}


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_count, check_finite

    for name, low in (("n", 2), ("beta_count", 2), ("seeds", 2), ("seed", 0)):
        check_count(getattr(config, name), name, low=low)
    for name in ("beta_min", "beta_max", "t_max"):
        check_finite(getattr(config, name), name)
    check_between(config.beta_min, "beta_min", low=0.0, open_low=True)
    check_between(config.beta_max, "beta_max", low=config.beta_min, open_low=True)
    check_between(config.t_max, "t_max", low=0.0, open_low=True)


def _count_all(config: Config, betas, progress, checkpoint) -> dict[str, np.ndarray]:
    """Counts and plateaus of every beta and start, and two densities of one."""
    from tqdm import tqdm

    shape = len(betas), config.seeds
    found = {kind: np.zeros(shape, np.int64) for kind in KINDS}
    found |= {"plateau": np.zeros((*shape, 2)), "densities": np.zeros((2, ANGLES))}
    found |= {"steps": np.zeros((), np.int64)}
    done = 0
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    for k in tqdm(range(done, len(betas)), initial=done, total=len(betas), disable=not progress):
        for start in range(config.seeds):
            _count(config, float(betas[k]), (k, start), found)
        if checkpoint is not None and k + 1 < len(betas):
            checkpoint.save(k + 1, found)
    return found


def _count(config: Config, beta: float, row: tuple[int, int], found: dict[str, np.ndarray]) -> None:
    """Run one start at one beta, and enter what it shows."""
    import jax.random as jr

    key = jr.fold_in(jr.key(config.seed), row[1])
    x0 = np.asarray(af.sphere.uniform(key, config.n, 2), float)
    tree = af.coalesce(
        af.Attention(beta), x0, t_max=config.t_max, merge_tol=MERGE_TOL, rtol=RTOL
    )  # fmt: skip
    lasting = (p for p in tree.plateaus() if p.end > LASTING * p.start)
    plateau = next((p for p in lasting if 2 * p.clusters <= config.n), None)
    if plateau is None:
        raise RuntimeError(
            f"No plateau lasted long enough before t_max={config.t_max:g} at beta={beta:.4g}. Raise `t_max`."
        )
    moment = tree.at(log10_t=plateau.log10_middle)
    labels = af.analysis.clusters.cluster_labels(moment.x, cosine=float(np.cos(beta**-0.5 / 2)))
    found["clusters"][row] = af.analysis.clusters.cluster_count(labels)
    found["kde_modes"][row] = len(af.theory.modes.circle_modes(_angles(x0), beta))
    found["plateau"][row] = np.log10([plateau.start, plateau.end])
    found["steps"] += tree.stats["steps"]
    if row == (config.beta_count // 2, 0):
        found["densities"][0] = _density(x0, np.full(config.n, 1 / config.n), beta)
        found["densities"][1] = _density(moment.x, moment.weights, beta)


def _angles(x: np.ndarray) -> np.ndarray:
    return np.arctan2(x[:, 1], x[:, 0])


def _density(x: np.ndarray, weights: np.ndarray, beta: float) -> np.ndarray:
    """Kernel density of weighted tokens, in units of the kernel's height, at `ANGLES` angles."""
    grid = np.linspace(-np.pi, np.pi, ANGLES)
    return np.exp(beta * (np.cos(grid[:, None] - _angles(x)) - 1)) @ weights


def _mean(counts: xr.DataArray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(counts.mean()), float(counts.std(ddof=1)) / np.sqrt(counts.size)


def _draw_counts(ax: Any, data: xr.Dataset) -> None:
    """Counts with standard errors on logarithmic axes, laws broken."""
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    from attnflow import plot

    betas = data.beta.values
    labels = ("clusters on the first plateau", "hills of the density at the start")
    for kind, label, color, marker in zip(KINDS, labels, plot.CATEGORICAL, "os", strict=False):
        means, errors = np.array([_mean(data[kind].isel(beta=k)) for k in range(len(betas))]).T
        ax.errorbar(betas, means, errors, fmt=marker, color=color, label=label, zorder=3)
    fine = np.geomspace(betas[0], betas[-1], 200)
    ax.plot(
        fine, af.theory.stability.fastest_mode(fine, d=2), color=plot.CATEGORICAL[2],
        linewidth=1.2, label="fastest linear mode", zorder=2,
    )  # fmt: skip
    law = {"color": plot.INK, "linewidth": 1.2, "zorder": 1}
    ax.plot(fine, np.sqrt(2 * fine), "--", label=r"$\sqrt{2\beta}$", **law)
    ax.plot(
        fine, af.theory.modes.circle_mode_law(fine), ":", label=r"$\sqrt{3\beta/2}$", **law
    )  # fmt: skip
    ax.set(
        xscale="log", yscale="log", title="How many", ylabel="number",
        xlabel=r"inverse temperature $\beta$",
    )  # fmt: skip
    for axis, ticks in (
        (ax.xaxis, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
        (ax.yaxis, (1, 2, 3, 5, 10, 20, 30, 50, 100)),
    ):
        low, high = axis.get_view_interval()
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    handles, names = ax.get_legend_handles_labels()
    ax.legend(handles[-2:] + handles[:-2], names[-2:] + names[:-2], loc="upper left")


def _draw_densities(ax: Any, data: xr.Dataset) -> None:
    """Kernel density of one start, and that of the clusters it becomes."""
    from attnflow import plot

    middle = data.isel(beta=data.sizes["beta"] // 2, start=0)
    blue, red = plot.CATEGORICAL[:2]
    ax.fill_between(
        data.angle, data.plateau_density, color=blue, alpha=0.25, linewidth=0, zorder=1
    )  # fmt: skip
    for values, color, label in (
        (data.plateau_density, blue, f"first plateau: {int(middle.clusters)} clusters"),
        (data.start_density, red, f"start: {int(middle.kde_modes)} hills"),
    ):
        ax.plot(data.angle, values, color=color, label=label)
    top = float(max(data.plateau_density.max(), data.start_density.max()))
    ax.set(
        title=rf"One start, $\beta$ = {float(middle.beta):.3g}",
        xlabel=r"angle $\theta$",
        ylabel=r"kernel density (height of one kernel: 1)",
        xlim=(-np.pi, np.pi),
        ylim=(0, 1.3 * top),
    )
    ax.set_xticks(np.pi * np.linspace(-1, 1, 5), ["−π", "−π/2", "0", "π/2", "π"])
    ax.legend(loc="upper left", ncols=2)
