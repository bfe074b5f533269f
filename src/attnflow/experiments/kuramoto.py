"""Kuramoto: tokens on the circle at beta = 0 beside three exact theories, of order, of motion, of noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.intervals import half_interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

RTOL, ATOL = 1e-12, 1e-14
SAVES = 121
SETTLED = 1 / 3
"""Share of a noisy run that is left out, in which it forgets its start."""
SMALLEST = 1e-12
"""Order parameter below which a start counts as balanced; likewise R^n."""


@dataclass(frozen=True)
class Config:
    """Settings of the Kuramoto experiment."""

    n: int = 256
    """Number of tokens at the quantiles of their density."""
    r0: tuple[float, ...] = (0.01, 0.1, 0.5)
    """Order parameters to start from, in (0, 1)."""
    t_max: float = 12.0
    """Final time without noise."""
    ring: int = 16
    """Number of uniform tokens whose cross ratios are followed, at least 4."""
    beta: float = 1.0
    """Inverse temperature of the contrast, where cross ratios are not conserved, > 0."""
    kappa_min: float = 0.5
    """Strongest noise sqrt(2/kappa) dW."""
    kappa_max: float = 6.0
    """Weakest noise."""
    kappa_count: int = 12
    """Number of noises, evenly spaced in kappa."""
    noisy_n: int = 128
    """Number of tokens under noise."""
    noisy_t: float = 60.0
    """Length of a noisy run, the first third of which is left out."""
    dt: float = 0.1
    """Step of a noisy run."""
    seeds: int = 16
    """Number of noisy runs at each kappa."""
    seed: int = 0
    """Seed of the ring and of the noise."""
    dtype: Literal["float64"] = "float64"
    """Precision."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Order parameter over time, cross ratios along a run, and order parameter under noise.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each kappa.

    Returns:
        `order` and `ott_antonsen` (r0, time); `drift` (beta, time), the largest relative change of a cross
        ratio of neighbours; `noisy_order` (kappa), the root of the mean of R^2 over time and runs, with half
        its 95 % interval (Student) `noisy_order_error`, beside `finite_order`, exact for that many tokens, and
        `limit_order`, of infinitely many. Attributes: `ott_antonsen_error`, the largest difference while R is
        `exact_below`, and `late_error` at any time, about 1/2n: quantiles miss R^n of their density.

    Raises:
        ValueError: If a setting is out of range, or a start is balanced, before work starts.
    """
    import xarray as xr

    check(config)
    theory = af.theory
    ts = np.linspace(0.0, config.t_max, SAVES)
    starts = [_quantiles(config.n, r0) for r0 in config.r0]
    order = np.stack([_follow(af.kuramoto(), x0, ts, "order_parameter") for x0 in starts])
    expected = np.stack([theory.kuramoto.ott_antonsen(ts, r0) for r0 in config.r0])
    exact_below = SMALLEST ** (1 / config.n)  # R^n is what quantiles miss of their density
    exact = expected <= exact_below
    kappas = np.linspace(config.kappa_min, config.kappa_max, config.kappa_count)
    squares = _noisy_squares(config, kappas, progress, checkpoint)
    noisy = np.sqrt(squares.mean(axis=1))
    return xr.Dataset(
        {
            "order": (("r0", "time"), order, {"long_name": "order parameter of tokens"}),
            "ott_antonsen": (("r0", "time"), expected),
            "drift": (("beta", "time"), _drifts(config, ts)),
            "noisy_order": ("kappa", noisy, {"long_name": "root of the mean of R^2"}),
            "noisy_order_error": ("kappa", half_interval(squares) / (2 * noisy)),
            "finite_order": (
                "kappa",
                np.sqrt(theory.kuramoto.noisy_mean_square(config.noisy_n, kappas)),
            ),
            "limit_order": ("kappa", theory.noisy.kuramoto_order_parameter(kappas)),
        },
        {"r0": list(config.r0), "time": ts, "beta": [0.0, config.beta], "kappa": kappas},
        attrs={
            "experiment": "kuramoto",
            "equation": "dtheta_i = R sin(psi - theta_i) dt + sqrt(2/kappa) dB_i, R e^(i psi) = mean e^(i theta)",
            "units": "dimensionless",
            "ott_antonsen_error": float(np.abs(order - expected)[exact].max()),
            "exact_below": exact_below,
            "late_error": float(np.abs(order - expected).max()),
            "contrast": config.beta,
            **{k: v for k, v in asdict(config).items() if k not in ("dtype", "r0", "beta")},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Order parameters beside Ott-Antonsen, drift of cross ratios, and order under noise."""
    from attnflow import plot

    with plot.style():
        figure, axes = plot.panels([["order", "drift", "noise"]], width=15.0, height=4.6)
        _draw_order(axes["order"], data)
        _draw_drift(axes["drift"], data)
        _draw_noise(axes["noise"], data)
        figure.suptitle(r"Tokens on the circle at $\beta$ = 0: Kuramoto's identical oscillators")
    return figure


def summary(data: xr.Dataset) -> str:
    """Largest difference from Ott-Antonsen, drift of cross ratios, and order parameters over kappa."""
    a = data.attrs
    still, moved = (float(x) for x in data.drift.max("time"))
    lines = [
        f"{a['n']} tokens at quantiles: R(t) is that of Ott and Antonsen to {a['ott_antonsen_error']:.1e} up to "
        f"R = {a['exact_below']:.3f}, then to {a['late_error']:.1e}",
        f"cross ratios of {a['ring']} tokens: they drift by {still:.1e} at beta = 0, by {moved:.2g} at "
        f"beta = {a['contrast']:g}",
        "",
        f"{a['noisy_n']} tokens under noise, {a['seeds']} runs: root of the mean of R^2, 95 % intervals",
        f"{'kappa':>8}{'tokens':>18}{'exact':>9}{'n = inf':>9}",
    ]
    for k, kappa in enumerate(data.kappa.values):
        row = data.isel(kappa=k)
        seen = f"{float(row.noisy_order):.4f} ± {float(row.noisy_order_error):.4f}"
        limit = f"{float(row.finite_order):>9.4f}{float(row.limit_order):>9.4f}"
        lines.append(f"{kappa:>8.3g}{seen:>18}{limit}")
    return "\n".join([*lines, "", "Order sets in at kappa = 2."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Errors, drifts and order parameters, as plain JSON values."""
    names = ("kappa", "noisy_order", "noisy_order_error", "finite_order", "limit_order", "beta")
    return {name: data[name].values.tolist() for name in names} | {
        **{name: data.attrs[name] for name in ("ott_antonsen_error", "exact_below", "late_error")},
        "largest_drift": data.drift.max("time").values.tolist(),
    }


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_count, check_finite

    counts = (("n", 1), ("ring", 4), ("kappa_count", 2), ("noisy_n", 1), ("seeds", 2), ("seed", 0))
    for name, low in counts:
        check_count(getattr(config, name), name, low=low)
    check_count(len(config.r0), "len(r0)")
    for name in ("t_max", "beta", "kappa_min", "kappa_max", "noisy_t", "dt"):
        check_finite(getattr(config, name), name)
    for name in ("t_max", "beta", "kappa_min", "noisy_t", "dt"):
        check_between(getattr(config, name), name, low=0.0, open_low=True)
    check_between(config.kappa_max, "kappa_max", low=config.kappa_min, open_low=True)
    starts = np.array(config.r0)
    check_between(starts, "r0", low=SMALLEST, remedy="Tokens that balance, R = 0, never leave it.")
    check_between(
        starts,
        "r0",
        high=SMALLEST ** (1 / config.n),
        remedy="Take more tokens: quantiles miss r0^n.",
    )
    if len(set(config.r0)) < len(config.r0):
        raise ValueError(f"Argument `r0` must not repeat a start, but r0={config.r0}.")
    limit = min(1.0, config.kappa_min / 2)
    check_between(config.dt, "dt", high=limit, remedy="A step may turn tokens by 1 radian.")


def _quantiles(n: int, r0: float) -> Any:
    """Tokens at the quantiles of the Poisson kernel."""
    import jax.numpy as jnp

    return af.sphere.circle(jnp.asarray(af.theory.kuramoto.poisson_angles(n, r0)))


def _follow(flow: Any, x0: Any, ts: np.ndarray, name: str | None = None) -> np.ndarray:
    """Observable along a run, or the tokens."""
    observe = {} if name is None else {name: af.observables.OBSERVABLES[name]}
    run = af.solve(flow, x0, ts, observe=observe, states=name is None, rtol=RTOL, atol=ATOL)
    return np.asarray(run.xs if name is None else run.observed[name])


def _drifts(config: Config, ts: np.ndarray) -> np.ndarray:
    """Largest relative change of a cross ratio at beta = 0 and at the contrast, shape (2, time)."""
    import jax.numpy as jnp
    import jax.random as jr

    x0 = af.sphere.uniform(jr.fold_in(jr.key(config.seed), 0), config.ring, 2)
    angles = jnp.sort(jnp.arctan2(x0[:, 1], x0[:, 0]))
    drifts = []
    for beta in (0.0, config.beta):
        xs = _follow(af.usa(beta), af.sphere.circle(angles), ts)
        ratios = af.theory.kuramoto.cross_ratios(np.arctan2(xs[..., 1], xs[..., 0]))
        drifts.append(np.abs(ratios / ratios[0] - 1).max(axis=1))
    return np.stack(drifts)


def _noisy_squares(config, kappas, progress, checkpoint) -> np.ndarray:
    """Mean of R^2 over time of every kappa and run, from consensus."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    from tqdm import tqdm

    ts = jnp.linspace(0, config.noisy_t, SAVES)
    x0 = jnp.zeros((config.noisy_n, 2)).at[:, 0].set(1.0)

    @jax.jit
    def runs(keys, kappa):
        def order(key):
            traj = af.solve_sde(
                af.kuramoto(), x0, ts, kappa=kappa, dt=config.dt, key=key, states=False,
                observe={"R": af.observables.order_parameter},
            )  # fmt: skip
            return jnp.mean(traj.observed["R"][int(SETTLED * SAVES) :] ** 2)

        return jax.vmap(order)(keys)

    done, found = 0, {"squares": np.zeros((len(kappas), config.seeds))}
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    bar = tqdm(range(done, len(kappas)), initial=done, total=len(kappas), disable=not progress)
    for k in bar:
        keys = jr.split(jr.fold_in(jr.key(config.seed), k + 1), config.seeds)
        found["squares"][k] = runs(keys, kappas[k])
        if checkpoint is not None and k + 1 < len(kappas):
            checkpoint.save(k + 1, found)
    return found["squares"]


def _draw_order(ax: Any, data: xr.Dataset) -> None:
    from attnflow import plot

    few = slice(None, None, 6)
    for k, r0 in enumerate(data.r0.values):
        color = plot.CATEGORICAL[k % len(plot.CATEGORICAL)]
        seen = data.order.isel(r0=k)
        ax.plot(data.time[few], seen[few], "o", color=color, label=rf"$R_0$ = {r0:g}", zorder=3)
        ax.plot(data.time, data.ott_antonsen.isel(r0=k), "--", color=plot.INK, linewidth=1.3)
    ax.lines[-1].set_label("Ott–Antonsen")
    ax.set(title=f"{data.attrs['n']} tokens at quantiles", xlabel="time $t$", ylim=(0, 1.05))
    ax.set_ylabel("order parameter $R$")
    ax.legend(loc="lower right")


def _draw_drift(ax: Any, data: xr.Dataset) -> None:
    from attnflow import plot

    floor = 1e-16
    for beta, color in zip(data.beta.values, plot.CATEGORICAL, strict=False):
        drift = np.maximum(data.drift.sel(beta=beta), floor)
        ax.plot(data.time[1:], drift[1:], color=color, label=rf"$\beta$ = {beta:g}")
    ax.set(
        yscale="log", xlabel="time $t$", ylabel="largest relative change",
        title=f"Cross ratios of {data.attrs['ring']} uniform tokens",
    )  # fmt: skip
    ax.legend(loc="center right")


def _draw_noise(ax: Any, data: xr.Dataset) -> None:
    from attnflow import plot

    a, theory = data.attrs, af.theory
    kappa = np.linspace(data.kappa.values[0], data.kappa.values[-1], 400)
    finite = np.sqrt(theory.kuramoto.noisy_mean_square(a["noisy_n"], kappa))
    limit = theory.noisy.kuramoto_order_parameter(kappa)
    ax.axvline(2, color="0.8", linewidth=1, zorder=0)
    ax.plot(kappa, limit, "--", color=plot.INK, linewidth=1.3, label=r"theory, $n = \infty$")
    ax.plot(kappa, finite, color=plot.INK, linewidth=1.3, label=f"theory, n = {a['noisy_n']}")
    ax.errorbar(
        data.kappa, data.noisy_order, data.noisy_order_error, fmt="o", color=plot.CATEGORICAL[1],
        label=f"tokens, {a['seeds']} runs", zorder=3,
    )  # fmt: skip
    ax.set(title=r"Noise $\sqrt{2/\kappa}\,dW$: order above $\kappa$ = 2", ylim=(0, 1.05))
    ax.set(xlabel=r"$\kappa$", ylabel=r"order parameter $\langle R^2\rangle^{1/2}$")
    ax.legend(loc="lower right")
