"""Energy against the logarithm of time: a staircase of plateaus and merges."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from attnflow.errors import check_finite
from attnflow.plot.log_time import log_time_axis, read_log10_times
from attnflow.plot.shapes import read
from attnflow.plot.style import CATEGORICAL, INK, new_axes, style

_RISE = 1e-3  # share of the whole rise before which the time axis need not start
_FEW = 40  # up to so many merges are marked over the whole height


@style()
def staircase(
    log10_times: ArrayLike,
    energies: ArrayLike,
    *,
    plateaus: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    merges: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    predicted_times: ArrayLike | None = None,
    steps: bool = False,
    start: float | int | None = None,
    label: str = "simulation",
    ax: Axes | None = None,
) -> Axes:
    r"""Scaled energy $\hat{\mathcal{E}}_\beta$ against log10 of time, which may pass 1e308.

    Args:
        log10_times: Logarithms of times, not decreasing, -inf for t = 0, shape (s,).
        energies: Scaled energies in (0, 1], shape (s,).
        plateaus: log10 of first and last time of each plateau, shape (p, 2); -inf and inf reach the
            ends of the axis. Highlighted at the energy of their middle.
        clusters: Number of clusters on each plateau, written above it where it fits, shape (p,).
        merges: log10 of merge times, shape (m,); ticks at the bottom if there are more than 40.
        predicted: Levels that theory promises, in order, shape (k,).
        predicted_times: log10 of the times at which one level ends and the next begins, shape
            (k - 1,). `None` draws the levels over the whole width.
        steps: Hold each energy until the next time, for energies known after merges only.
        start: log10 of the time at which the axis begins. `None` begins just before the energy has
            risen by a thousandth of its whole rise.
        label: Name of the measurement in the legend.
        ax: Axes to draw on. `None` makes a new figure.

    Raises:
        ValueError: If a shape does not fit, or times decrease.
    """
    times = read_log10_times("log10_times", log10_times, s=None)
    energies = read("energies", energies, s=len(times))
    check_finite(energies, "energies")
    low = _start(times, energies) if start is None else float(start)
    last = max(float(times[-1]), low + 1e-3)
    low -= 0.01 * (last - low) if start is None else 0.0
    high = last + 0.04 * (last - low)
    ax = ax or new_axes(7.0, 3.8)
    x, y = np.append(np.maximum(times, low), high), np.append(energies, energies[-1])
    if merges is not None and np.size(merges):
        marks = read_log10_times("merges", np.sort(np.ravel(merges)), m=None)
        few = len(marks) <= _FEW
        ax.vlines(
            marks, 0, 1 if few else 0.04, transform=ax.get_xaxis_transform(), zorder=0,
            color="#D5D8DD" if few else INK, linewidth=1 if few else 0.5, label="merges",
        )  # fmt: skip
    if plateaus is not None and np.size(plateaus):
        _plateaus(ax, plateaus, clusters, x, y)
    (line,) = ax.plot(x, y, drawstyle="steps-post" if steps else "default", label=label, zorder=3)
    line.set_solid_joinstyle("round")
    if predicted is not None:
        _predicted(ax, predicted, predicted_times, low, high)
    ax.set(ylabel=r"scaled energy $\hat{\mathcal{E}}_\beta$")
    bottom = min(0.0, float(energies.min()))
    ax.set_ylim(bottom, max(1.0, float(energies.max())) + 0.08)
    log_time_axis(ax, low, high)
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(loc="upper left", frameon=True, framealpha=1.0, edgecolor="none")
    return ax


def _start(times: np.ndarray, energies: np.ndarray) -> float:
    """Last finite time before which next to nothing has happened."""
    finite = np.flatnonzero(np.isfinite(times))
    if not len(finite):
        return 0.0
    rise = np.abs(energies - energies[0])
    still = finite[rise[finite] <= _RISE * rise.max()]
    return float(times[still[-1] if len(still) and rise.max() > 0 else finite[0]])


def _plateaus(
    ax: Axes, plateaus: ArrayLike, clusters: ArrayLike | None, x: np.ndarray, y: np.ndarray
) -> None:
    spans = np.clip(read("plateaus", plateaus, p=None, ends=2), x[0], x[-1])
    levels = np.interp(spans.mean(axis=1), x, y)
    ax.hlines(
        levels, *spans.T, color=CATEGORICAL[4], alpha=0.35, linewidth=8, label="plateaus", zorder=2
    )
    if clusters is None:
        return
    counts = read("clusters", clusters, p=len(spans))
    for (begin, end), level, count in zip(spans, levels, counts, strict=True):
        if end - begin > 0.025 * (x[-1] - x[0]):
            ax.annotate(
                f"{count:.0f}", ((begin + end) / 2, level), xytext=(0, 6), ha="center",
                textcoords="offset points", fontsize=8.5, color=INK,
            )  # fmt: skip


def _predicted(
    ax: Axes, levels: ArrayLike, times: ArrayLike | None, low: float, high: float
) -> None:
    levels = read("predicted", levels, k=None)
    look = {"color": INK, "linewidth": 1.2, "linestyle": (0, (3, 3)), "label": "prediction"}
    if times is None:
        ax.hlines(levels, low, high, alpha=0.55, zorder=1, **look)  # pyright: ignore[reportArgumentType]
        return
    jumps = read_log10_times("predicted_times", times, k=len(levels) - 1) if len(levels) > 1 else []
    edges = np.clip(np.concatenate([[low], jumps, [high]]), low, high)
    ax.stairs(levels, edges, baseline=None, zorder=4, **look)  # pyright: ignore[reportArgumentType]
