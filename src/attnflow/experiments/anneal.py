"""Anneal: noise prevents the collapse of attention, or delays it, or frees tokens from their plateaus."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SAVES = 201
LATE = 0.75
"""Share of a run after which the order parameter is measured."""
SLICES, FINER = 3, 4
"""Inverse temperatures at which theory is set beside, and how much finer in kappa."""


@dataclass(frozen=True)
class Config:
    """Settings of the annealing map."""

    flow: Literal["sa", "usa"] = "sa"
    """Softmax attention, or unnormalised attention."""
    n: int = 64
    """Number of tokens, uniform at the start."""
    d: int = 2
    """Dimension."""
    beta_min: float = 0.5
    """Smallest inverse temperature."""
    beta_max: float = 6.0
    """Largest inverse temperature."""
    beta_count: int = 12
    """Number of inverse temperatures, evenly spaced."""
    kappa_min: float = 1.0
    """Strongest noise sqrt(2/kappa) dW."""
    kappa_max: float = 100.0
    """Weakest noise; runs without noise stand beside."""
    kappa_count: int = 14
    """Number of noises, evenly spaced in log kappa."""
    seeds: int = 8
    """Number of starts; every cell has the same ones, and the same noise."""
    t_max: float = 150.0
    """Final time; order is measured over its last quarter."""
    cosine: float = 0.5
    """Mean cosine at which tokens count as one cluster, in (0, 1); two that are alike have less beyond 90°."""
    step: float = 0.7
    """Share of the largest step that `solve_sde` takes at each beta and the strongest noise, in (0, 1]."""
    seed: int = 0
    """Seed of starts and noise."""
    dtype: Literal["float64"] = "float64"
    """Precision."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Order parameter and time to collapse of noisy attention over kappa and beta.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each beta.

    Returns:
        `order` (beta, kappa): root of the mean of R^2 over starts and the last quarter of the run, with
        its standard error `order_error`; `collapse_time` (beta, kappa): median over starts of the time
        at which the mean cosine first reaches `cosine`, inf if it does not. The last kappa is inf, no noise.
        By theory, `critical_kappa` (beta), where order sets in, and `expected_order` (slice, fine_kappa) of
        infinitely many tokens, at some beta, NaN beyond the reach of its solver.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    check(config)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)
    kappas = np.append(
        np.geomspace(config.kappa_min, config.kappa_max, config.kappa_count), np.inf
    )  # fmt: skip
    squares, times = _simulate(config, betas, kappas, progress, checkpoint)
    order = np.sqrt(squares.mean(axis=-1))
    error = squares.std(axis=-1, ddof=1) / np.sqrt(config.seeds) / (2 * order)
    maps, threshold = ("beta", "kappa"), af.theory.noisy.critical_kappa
    slices = betas[np.unique(np.linspace(0, len(betas) - 1, SLICES).round().astype(int))]
    fine = np.geomspace(config.kappa_min, config.kappa_max, FINER * (config.kappa_count - 1) + 1)
    expected = np.array([[_expected(config, b, k) for k in fine] for b in slices])
    return xr.Dataset(
        {
            "order": (maps, order, {"long_name": "root of the mean of R^2, late"}),
            "order_error": (maps, error, {"long_name": "standard error over starts"}),
            "collapse_time": (maps, np.median(times, axis=-1)),
            "expected_order": (
                ("slice", "fine_kappa"),
                expected,
                {"long_name": "Gibbs fixed point"},
            ),
            "critical_kappa": ("beta", threshold(betas, d=config.d, model=config.flow)),
        },
        {"beta": betas, "kappa": kappas, "slice": slices, "fine_kappa": fine},
        attrs={
            "experiment": "anneal",
            "equation": "dX_i = b_i(X) dt + sqrt(2/kappa) P_{X_i} o dB_i, b_i the attention field, j = i included",
            "units": "dimensionless",
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Maps of late order and of the time to collapse, with the threshold on both, and slices beside theory."""
    from attnflow import plot

    a = data.attrs
    name = {"sa": "self-attention", "usa": "unnormalised self-attention"}[a["flow"]]
    with plot.style():
        figure, axes = plot.panels([["order", "time", "slices"]], width=16.0, height=4.8)
        noisy = data.isel(kappa=slice(None, -1))
        _draw_map(
            axes["order"], noisy, noisy.order, f"Order after t = {LATE * a['t_max']:g}",
            r"order parameter $\langle R^2\rangle^{1/2}$", 0, 1,
        )  # fmt: skip
        log_time = np.log10(noisy.collapse_time.where(np.isfinite(noisy.collapse_time)))
        _draw_map(
            axes["time"], noisy, log_time, f"Time until the mean cosine is {a['cosine']:g}",
            r"$\log_{10}$ time (grey: not reached)", None, np.log10(a["t_max"]),
        )  # fmt: skip
        _draw_slices(axes["slices"], data)
        figure.suptitle(
            rf"{a['n']} uniform tokens, d = {a['d']}, under noisy {name}: {a['seeds']} starts"
        )
    return figure


def summary(data: xr.Dataset) -> str:
    """Table of late order and collapse times, with the threshold of every beta."""
    a = data.attrs
    columns = np.unique(np.linspace(0, data.sizes["kappa"] - 2, 6).round().astype(int))
    columns = np.append(columns, data.sizes["kappa"] - 1)
    lines = [
        f"{a['n']} tokens, d = {a['d']}, {a['flow']}, {a['seeds']} starts",
        f"late order parameter, and median time until the mean cosine is {a['cosine']:g} (-: never)",
        "",
        f"{'beta':>6}{'kappa_c':>9}"
        + "".join(f"{f'kappa = {k:.3g}':>16}" for k in data.kappa.values[columns]),
    ]
    for k in range(data.sizes["beta"]):
        row = data.isel(beta=k)
        cells = (
            f"{float(row.order[c]):.3f}"
            + (f" ({t:.3g})" if np.isfinite(t := float(row.collapse_time[c])) else " (-)")
            for c in columns
        )
        line = f"{float(row.beta):>6.3g}{float(row.critical_kappa):>9.3f}"
        lines.append(line + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join([*lines, "", "kappa_c: noise below which uniform tokens stay so, by theory."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Maps and threshold, as plain JSON values; None for never, for no noise, and beyond theory."""

    def plain(values):
        if values.ndim > 1:
            return [plain(row) for row in values]
        return [float(v) if np.isfinite(v) else None for v in values]

    names = (
        "beta", "kappa", "order", "order_error", "collapse_time", "critical_kappa", "slice", "fine_kappa",
        "expected_order",
    )  # fmt: skip
    return {name: plain(data[name].values) for name in names}


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_choice, check_count, check_finite

    check_choice(config.flow, "flow", ("sa", "usa"))
    lows = {"n": 2, "d": 2, "beta_count": 2, "kappa_count": 2, "seeds": 2, "seed": 0}
    for name, low in lows.items():
        check_count(getattr(config, name), name, low=low)
    for name in ("beta_min", "beta_max", "kappa_min", "kappa_max", "t_max", "cosine"):
        check_finite(getattr(config, name), name)
    check_between(config.beta_min, "beta_min", low=0.0)
    check_between(config.beta_max, "beta_max", low=config.beta_min, open_low=True)
    check_between(config.kappa_min, "kappa_min", low=0.0, open_low=True)
    check_between(config.kappa_max, "kappa_max", low=config.kappa_min, open_low=True)
    check_between(config.t_max, "t_max", low=0.0, open_low=True)
    check_between(config.cosine, "cosine", 0.0, 1.0, open_low=True, open_high=True)
    check_between(config.step, "step", 0.0, 1.0, open_low=True)


def _flow(config: Config, beta: Any) -> Any:
    return {"sa": af.sa, "usa": af.usa}[config.flow](beta)


def _step(config: Config, beta: float) -> float:
    """Step of all runs at one beta."""
    from attnflow.stochastic import drift_rate

    turn = config.kappa_min / (2 * (config.d - 1))
    return config.step * min(1 / drift_rate(_flow(config, beta)), turn)


def _simulate(config, betas, kappas, progress, checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Late means of R^2, and times to collapse, both (beta, kappa, start)."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    from tqdm import tqdm

    ts = np.linspace(0.0, config.t_max, SAVES)
    observe = {"R": af.observables.order_parameter, "rho": af.observables.mean_cosine}

    @jax.jit
    def runs(keys, beta, dt):
        def one(kappa, key):
            start, noise = jr.split(key)
            traj = af.solve_sde(
                _flow(config, beta), af.sphere.uniform(start, config.n, config.d), jnp.asarray(ts),
                kappa=kappa, dt=dt, key=noise, observe=observe, states=False,
            )  # fmt: skip
            return jnp.mean(traj.observed["R"][int(LATE * SAVES) :] ** 2), traj.observed["rho"]

        each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
        return each(jnp.asarray(kappas), keys)

    shape = len(betas), len(kappas), config.seeds
    done, found = 0, {"squares": np.zeros(shape), "times": np.zeros(shape)}
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    keys = jr.split(jr.key(config.seed), config.seeds)
    for k in tqdm(
        range(done, len(betas)), initial=done, total=len(betas), disable=not progress
    ):  # fmt: skip
        found["squares"][k], cosines = runs(keys, betas[k], _step(config, betas[k]))
        crossing = af.analysis.plateaus.crossing_time
        found["times"][k] = crossing(ts, np.asarray(cosines), config.cosine)
        if checkpoint is not None and k + 1 < len(betas):
            checkpoint.save(k + 1, found)
    return found["squares"], found["times"]


def _expected(config: Config, beta: float, kappa: float) -> float:
    """Order parameter of infinitely many tokens."""
    try:
        order = af.theory.gibbs.order_parameter
        return order(float(beta), float(kappa), d=config.d, model=config.flow)
    except ValueError:
        return np.nan


def _draw_map(ax: Any, data: xr.Dataset, values: Any, title: str, label: str, low: Any, high: Any):
    """One quantity over kappa and beta in colour, with the threshold on it."""
    from matplotlib import patheffects

    from attnflow import plot

    kappa = data.kappa.values
    ax.set_facecolor("#D5D8DD")
    mesh = ax.pcolormesh(
        kappa, data.beta, values, cmap=plot.SEQUENTIAL, vmin=low, vmax=high, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    ax.set(xscale="log", xlabel=r"$\kappa$ (noise $\sqrt{2/\kappa}\,dW$)", title=title)
    ax.set_ylabel(r"inverse temperature $\beta$")
    limits = ax.get_xlim(), ax.get_ylim()
    beta = np.linspace(max(limits[1][0], 0), limits[1][1], 200)
    curve = af.theory.noisy.critical_kappa(beta, d=data.attrs["d"], model=data.attrs["flow"])
    ax.plot(
        curve, beta, color="white", linewidth=1.6, label=r"$\kappa_c(\beta)$, theory",
        path_effects=[patheffects.withStroke(linewidth=3.2, foreground=plot.INK)],
    )  # fmt: skip
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.legend(loc="upper left", frameon=True, facecolor="#E4E7EB", framealpha=0.92)
    ax.figure.colorbar(mesh, ax=ax, label=label).outline.set_visible(False)


def _draw_slices(ax: Any, data: xr.Dataset) -> None:
    """Late order over kappa at some beta, with the Gibbs fixed point of infinitely many tokens."""
    from attnflow import plot

    for beta, color in zip(data.slice.values, plot.CATEGORICAL, strict=False):
        row = data.isel(kappa=slice(None, -1)).sel(beta=beta)
        ax.errorbar(
            row.kappa, row.order, 2 * row.order_error, fmt="o", color=color, zorder=3,
            label=rf"$\beta$ = {beta:.3g}",
        )  # fmt: skip
        theory = data.expected_order.sel(slice=beta)
        ax.plot(data.fine_kappa, theory, "--", color=color, linewidth=1.3)
    ax.plot([], [], "--", color=plot.INK, linewidth=1.3, label=r"theory, $n = \infty$")
    ax.set(xscale="log", xlabel=r"$\kappa$", ylim=(0, 1.05), title="Late order, 2 standard errors")
    ax.set_ylabel(r"order parameter $\langle R^2\rangle^{1/2}$")
    ax.legend(loc="upper left")
