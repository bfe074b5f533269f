"""Figure of the bifurcations: a panel per model and dimension, a colour per inverse temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

NAMES = {"sa": "softmax attention", "usa": "unnormalised attention"}


def draw(data: xr.Dataset) -> Figure:
    """Branches over kappa/kappa_c, with the tokens of each as dots."""
    from attnflow import plot

    models, dimensions = data.model.values, data.d.values
    rows = [[f"{m} {d}" for d in dimensions] for m in models]
    with plot.style():
        figure, axes = plot.panels(
            rows, width=max(6.0, 4.1 * len(dimensions)), height=1.2 + 3.6 * len(models)
        )
        for m in models:
            for d in dimensions:
                _panel(axes[f"{m} {d}"], data.sel(model=m, d=d))
                axes[f"{m} {d}"].set_title(f"{NAMES[m]}, d = {d}")
        figure.legend(handles=_legend(data), loc="outside lower center", ncols=4)
        noise = ""
        if data.attrs["n"]:
            noise = f"; dots: {data.attrs['n']} tokens, {data.attrs['runs']} runs, 95 % intervals"
        figure.suptitle(f"Order as noise fades: stationary densities{noise}")
    return figure


def _panel(ax: Any, data: xr.Dataset) -> None:
    """Branches and dots of every beta, in units of the threshold."""
    from attnflow import plot

    low, high = 0.6, float((data.kappa / data.kappa_c).max())
    for beta, color in zip(data.beta.values, plot.CATEGORICAL, strict=False):
        one = data.sel(beta=beta)
        kappa_c, known = float(one.kappa_c), np.isfinite(one.kappa.values)
        low = min(low, 0.85 * float(one.kappa_sn) / kappa_c if np.isfinite(one.kappa_sn) else low)
        plot.bifurcation(
            one.kappa.values[known] / kappa_c,
            one.R.values[known],
            one.unstable.values[known] == 0,
            color=color,
            ax=ax,
        )
        if np.isfinite(one.kappa_t):
            at = float(one.kappa_t) / kappa_c
            ax.plot([at, at], [0, float(one.jump)], ":", color=color, linewidth=1.4, zorder=1)
        for start, face in (("ordered", color), ("uniform", "white")):
            dots = one.sel(start=start)
            ax.errorbar(
                one.token_kappa / kappa_c, dots.token_R, dots.token_error, fmt="o", color=color,
                markerfacecolor=face, markersize=4.5, elinewidth=1, zorder=4,
            )  # fmt: skip
    ax.plot([low, 1], [0, 0], "-", color=plot.INK, linewidth=1.6, zorder=2)
    ax.plot([1, high], [0, 0], "--", color=plot.INK, linewidth=1.6, zorder=2)
    ax.axvline(1, color="0.8", linewidth=1, zorder=0)
    ax.set(xlabel=r"noise parameter $\kappa/\kappa_c$", xlim=(low, high))


def _legend(data: xr.Dataset) -> list[Any]:
    """What colours, lines and dots mean."""
    from matplotlib.lines import Line2D

    from attnflow import plot

    handles = [
        Line2D([], [], color=color, label=rf"$\beta$ = {beta:g}")
        for beta, color in zip(data.beta.values, plot.CATEGORICAL, strict=False)
    ]
    ink: dict[str, Any] = {"color": plot.INK}
    dot: dict[str, Any] = {"color": plot.INK, "marker": "o", "linestyle": "none"}
    handles += [
        Line2D([], [], linestyle="-", label="stable", **ink),
        Line2D([], [], linestyle="--", label="unstable", **ink),
        Line2D([], [], linestyle=":", label=r"equal free energy, $\kappa_t$", **ink),
        Line2D([], [], color="0.8", label=r"uniform loses stability, $\kappa_c$"),
    ]
    if data.attrs["n"]:
        handles += [
            Line2D([], [], label="tokens from one point", **dot),
            Line2D([], [], label="tokens from random places", markerfacecolor="white", **dot),
        ]
    return handles
