"""Phase diagram: how far clustering has come at each time and inverse temperature."""

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from attnflow.errors import check_between
from attnflow.plot.shapes import read, read_times
from attnflow.plot.style import CATEGORICAL, INK, SEQUENTIAL, new_axes, style
from attnflow.plot.times import time_axis


@style()
def phase_map(
    ts: ArrayLike,
    betas: ArrayLike,
    fraction: ArrayLike,
    *,
    curve: ArrayLike | None = None,
    curve_label: str = "theory",
    half_label: str = "simulation, one half",
    fraction_label: str = "fraction of clustered pairs",
    log_time: bool = False,
    legend: bool = True,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Fraction of clustered pairs (colour) over time (across) and inverse temperature (up).

    A solid line follows the simulated fraction one half, a dashed one the theory.

    Args:
        ts: Increasing times, shape (t,), t >= 2.
        betas: Increasing inverse temperatures, shape (b,), b >= 2.
        fraction: Fractions in [0, 1], shape (b, t).
        curve: Predicted time of the transition at each beta, shape (b,); infinite if never.
        curve_label: Name of `curve` in the legend.
        half_label: Name of the contour at one half in the legend.
        fraction_label: Text beside the colour bar.
        log_time: Logarithmic time axis, from the first positive time.
        legend: Draw the legend; switch it off in all but one of a row of maps.
        colorbar: Draw the colour bar; likewise.
        ax: Axes to draw on. `None` makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If a shape does not fit or a fraction lies outside [0, 1].
    """
    ts, betas = read_times(ts), read_times(betas, "betas")
    if len(ts) < 2 or len(betas) < 2:
        raise ValueError(
            f"Arguments `ts` and `betas` must each hold at least two values, but they hold "
            f"{len(ts)} and {len(betas)}."
        )
    fraction = read("fraction", fraction, b=len(betas), t=len(ts))
    check_between(fraction.ravel().round(6), "fraction", 0.0, 1.0)
    predicted = None if curve is None else read("curve", curve, b=len(betas))
    ax = ax or new_axes(6.0, 4.2)
    time_axis(ax, ts, log=log_time)
    kept = (ts > 0) | (not log_time)
    mesh = ax.pcolormesh(
        ts[kept],
        betas,
        fraction[:, kept],
        cmap=SEQUENTIAL,
        vmin=0,
        vmax=1,
        shading="nearest",
        rasterized=True,
    )
    handles = []
    if fraction[:, kept].min() < 0.5 < fraction[:, kept].max():
        ax.contour(ts[kept], betas, fraction[:, kept], [0.5], colors=CATEGORICAL[1], linewidths=1.8)
        handles.append(Line2D([], [], color=CATEGORICAL[1], label=half_label))
    if predicted is not None:
        seen = np.isfinite(predicted)
        outline = [patheffects.withStroke(linewidth=3.2, foreground=INK)]
        (line,) = ax.plot(
            predicted[seen],
            betas[seen],
            "--",
            color="white",
            linewidth=1.6,
            path_effects=outline,
            label=curve_label,
        )
        handles.append(line)
    ax.set(ylabel=r"inverse temperature $\beta$", ylim=(betas[0], betas[-1]))
    ax.set_xlim(ts[kept][0], ts[kept][-1])
    if handles and legend:
        ax.legend(
            handles=handles, loc="upper left", frameon=True, facecolor="#E4E7EB", framealpha=0.92
        )
    if colorbar:
        bar = ax.figure.colorbar(mesh, ax=ax, label=fraction_label)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return ax
