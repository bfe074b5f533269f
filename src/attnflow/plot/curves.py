"""Numbers along time: energy, cosine against theory, decay, cluster count, bands over seeds."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from attnflow.errors import check_choice
from attnflow.plot.shapes import read, read_times
from attnflow.plot.style import CATEGORICAL, INK, new_axes, style
from attnflow.plot.times import number, time_axis

_SIZE = (6.0, 3.8)
_FEW = 40  # up to so many measurements are drawn as markers


@style()
def energy_curve(
    ts: ArrayLike,
    energy: ArrayLike,
    *,
    merges: ArrayLike | None = None,
    log_time: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Energy along a trajectory, with merge times marked.

    Args:
        ts: Increasing times, shape (t,).
        energy: E_beta(t), shape (t,).
        merges: Merge times to mark, shape (k,).
        log_time: Logarithmic time axis, from the first positive time.
        ax: Axes to draw on. `None` makes a new figure.
    """
    ts = read_times(ts)
    energy = read("energy", energy, t=len(ts))
    ax = ax or new_axes(*_SIZE)
    ax.plot(ts, energy)
    if merges is not None and np.size(merges):
        marks = read("merges", merges, k=None)
        line = ax.vlines(
            marks, 0, 1, transform=ax.get_xaxis_transform(), color="#D5D8DD", linewidth=1, zorder=0
        )
        line.set_label("merges")
        ax.legend(loc="upper left")
    ax.set_ylabel(r"energy $\mathcal{E}_\beta$")
    time_axis(ax, ts, log=log_time)
    return ax


@style()
def cosine_curve(
    ts: ArrayLike,
    rho: ArrayLike,
    *,
    theory: ArrayLike | None = None,
    theory_ts: ArrayLike | None = None,
    label: str = "simulation",
    theory_label: str = "theory",
    ylabel: str = r"mean cosine $\rho$",
    log_time: bool = False,
    ax: Axes | None = None,
) -> Axes:
    r"""Measured cosine $\rho(t)$ and, dashed on the same axes, what theory predicts.

    Up to 40 measurements are drawn as markers, more as a line.

    Args:
        ts: Increasing times, shape (t,).
        rho: Measured cosines, shape (t,).
        theory: Predicted cosines, shape (t,), or (u,) with `theory_ts`.
        theory_ts: Increasing times of `theory`, shape (u,). `None` means `ts`.
        label: Name of the measurement in the legend.
        theory_label: Name of the prediction in the legend.
        ylabel: What is measured.
        log_time: Logarithmic time axis, from the first positive time.
        ax: Axes to draw on. `None` makes a new figure.
    """
    ts = read_times(ts)
    rho = read("rho", rho, t=len(ts))
    ax = ax or new_axes(*_SIZE)
    few = len(ts) <= _FEW
    if few:
        ax.plot(ts, rho, "o", markeredgecolor="white", markeredgewidth=0.5, label=label, zorder=3)
    else:
        ax.plot(ts, rho, linewidth=2.6, label=label)
    if theory is not None:
        predicted_ts = ts if theory_ts is None else read_times(theory_ts, "theory_ts")
        predicted = read("theory", theory, t=len(predicted_ts))
        ax.plot(
            predicted_ts, predicted, "--", color=INK, linewidth=1.3, label=theory_label, zorder=4
        )
    ax.set_ylabel(ylabel)
    time_axis(ax, ts, log=log_time, pad=0.02 if few else 0.0)
    ax.legend(loc="best")
    return ax


@style()
def decay_curve(
    ts: ArrayLike,
    gap: ArrayLike,
    *,
    fitted_rate: float | int | None = None,
    predicted_rate: float | int | None = None,
    law: str = "exponential",
    window: tuple[float | int, float | int] | None = None,
    ylabel: str = r"$1 - \rho$",
    ax: Axes | None = None,
) -> Axes:
    r"""How $1 - \rho$ vanishes, on axes where the law is a straight line.

    Lines are $C e^{-\lambda t}$ (law `exponential`, time linear) or $C t^{-\lambda}$ (law `power`,
    time logarithmic). A rate fixes the slope only: $C$ is the least-squares constant of the
    measurements inside `window`, for the fitted and the predicted rate alike.

    Args:
        ts: Increasing times, shape (t,).
        gap: Measured 1 - rho, shape (t,). Entries <= 0, where rho is 1 to rounding, are left out.
        fitted_rate: Rate measured in `window`.
        predicted_rate: Rate that theory promises.
        law: `exponential` or `power`.
        window: First and last time of the fit. `None` means all times.
        ylabel: What vanishes.
        ax: Axes to draw on. `None` makes a new figure.
    """
    check_choice(law, "law", ("exponential", "power"))
    ts = read_times(ts)
    gap = read("gap", gap, t=len(ts))
    power = law == "power"
    shown = (gap > 0) & ((ts > 0) | (not power))
    start, end = window or (ts[0], ts[-1])
    inside = shown & (ts >= start) & (ts <= end)
    if inside.sum() < 2:
        raise ValueError(
            f"Argument `window` must hold two times where gap > 0, but window={window} "
            f"holds {inside.sum()}."
        )
    ax = ax or new_axes(*_SIZE)
    few = shown.sum() <= _FEW
    look: dict[str, Any] = {"marker": "o", "ls": ""} if few else {"linewidth": 5.0, "alpha": 0.45}
    ax.plot(ts[shown], gap[shown], markeredgecolor="white", label="measured", **look)
    clock = np.log(ts[inside]) if power else ts[inside]
    lines = (
        ("fitted", fitted_rate, {"color": CATEGORICAL[1], "linewidth": 1.6}),
        ("predicted", predicted_rate, {"color": INK, "linewidth": 1.6, "linestyle": (0, (3, 3))}),
    )
    for name, rate, look in lines:
        if rate is not None:
            line = np.exp(np.mean(np.log(gap[inside]) + rate * clock) - rate * clock)
            formula = rf"t^{{-{number(rate)}}}" if power else rf"e^{{-{number(rate)}\,t}}"
            ax.plot(ts[inside], line, label=rf"{name}  $\propto {formula}$", zorder=4, **look)
    ax.set(yscale="log", ylabel=ylabel)
    time_axis(ax, ts[shown], log=power, pad=0.02 if few else 0.0)
    ax.legend(loc="best")
    return ax


@style()
def cluster_curve(
    ts: ArrayLike, counts: ArrayLike, *, log_time: bool = True, ax: Axes | None = None
) -> Axes:
    """Number of clusters over time, as steps; a log axis of counts when there are many.

    Args:
        ts: Increasing times, shape (t,).
        counts: Cluster counts >= 1, shape (t,).
        log_time: Logarithmic time axis, from the first positive time.
        ax: Axes to draw on. `None` makes a new figure.
    """
    ts = read_times(ts)
    counts = read("counts", counts, t=len(ts))
    ax = ax or new_axes(*_SIZE)
    ax.step(ts, counts, where="post")
    ax.set_ylabel("clusters")
    if np.nanmax(counts) > 60:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(bottom=0.85)
    else:
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(bottom=0)
    time_axis(ax, ts, log=log_time)
    return ax


@style()
def band(
    ts: ArrayLike,
    median: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    label: str = "",
    band_label: str = "",
    color: str | None = None,
    ylabel: str = "",
    log_time: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """A median with the band between two quantiles; call again on the same axes to compare.

    Args:
        ts: Increasing times, shape (t,).
        median: Middle values, shape (t,).
        lower: Lower quantile, shape (t,).
        upper: Upper quantile, shape (t,).
        label: Name of the median in the legend.
        band_label: Name of the band in the legend, such as "90 % of seeds".
        color: Any matplotlib colour. `None` takes the next of the palette.
        ylabel: What is measured.
        log_time: Logarithmic time axis, from the first positive time.
        ax: Axes to draw on. `None` makes a new figure.
    """
    ts = read_times(ts)
    median, lower, upper = (
        read(name, values, t=len(ts))
        for name, values in (("median", median), ("lower", lower), ("upper", upper))
    )
    if (lower > upper).any():
        raise ValueError("Argument `lower` must not exceed `upper`, but it does. Swap them.")
    ax = ax or new_axes(*_SIZE)
    (line,) = ax.plot(ts, median, color=color, label=label or "_nolegend_", zorder=3)
    area = ax.fill_between(ts, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    area.set_label(band_label or "_nolegend_")
    if ylabel:
        ax.set_ylabel(ylabel)
    time_axis(ax, ts, log=log_time)
    if label or band_label:
        ax.legend(loc="best")
    return ax
