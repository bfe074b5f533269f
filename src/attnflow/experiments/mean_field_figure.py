"""Figure of the mean field: way to clusters, tokens beside the density, growth of modes, the sphere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def draw(data: xr.Dataset) -> Figure:
    """The way to clusters, tokens beside the density, growth of modes, and the sphere."""
    from attnflow import plot

    rows = [["path", "errors"], ["rates", "sphere" if "sphere_density" in data else "errors"]]
    with plot.style():
        figure, axes = plot.panels(rows, width=12.0, height=8.4)
        a = data.attrs
        ax = plot.density_heatmap(
            data.time, data.angle, data.density, ceiling=30.0, ax=axes["path"]
        )  # fmt: skip
        if a["t_resolved"] < float(data.time[-1]):
            ax.axvline(a["t_resolved"], color="white", linewidth=1, linestyle=":")
        ax.set_title(
            f"From nearly uniform to {a['peaks']} clusters; quantiles after the dotted line"
        )
        _draw_errors(axes["errors"], data)
        plot.growth_spectrum(
            data.degree, data.rate, measured=data.measured_rate, ax=axes["rates"]
        ).set_title("Growth of the modes of the uniform density")  # fmt: skip
        if "sphere_density" in data:
            plot.density_map(data.height, data.longitude, data.sphere_density, ax=axes["sphere"])
            axes["sphere"].set_title(
                f"On S² at t = {a['sphere_t']:.3g}: {a['sphere_peaks']} peaks, "
                f"fastest mode l = {a['sphere_fastest_mode']}"
            )
        noise = "" if np.isinf(a["kappa"]) else rf", $\kappa$ = {a['kappa']:g}"
        figure.suptitle(rf"The mean field of {a['flow'].upper()}, $\beta$ = {a['beta']:g}{noise}")
    return figure


def _draw_errors(ax: Any, data: xr.Dataset) -> None:
    """Distances to the density over n, each draw and the root mean square, beside n^(-1/2)."""
    from attnflow import plot

    names = {"w2": r"$W_2$ (radians)", "mode_error": "error of modes 1 to 6"}
    for (name, label), color, marker in zip(names.items(), plot.CATEGORICAL, "os", strict=False):
        one = data.sel(measure=name)
        mean = np.sqrt((data[name].values ** 2).mean(axis=1))
        ax.plot(data.n, data[name], ".", color=color, alpha=0.3, markersize=3)
        text = f"{label}: exponent {float(one.exponent):.3f} ± {float(one.exponent_error):.3f}"
        ax.plot(data.n, mean, marker, color=color, label=text)
        law = mean[0] * np.sqrt(data.n.values[0] / data.n.values)
        ax.plot(data.n, law, "--", color=plot.INK, linewidth=1, zorder=0)
    ax.plot([], [], "--", color=plot.INK, linewidth=1, label=r"$n^{-1/2}$")
    ax.set(
        xscale="log", yscale="log", xlabel="number of tokens n", ylabel="distance to the density"
    )
    ax.set_title(f"Tokens beside their density at t = {data.attrs['t_end']:g}")
    ax.legend(loc="lower left")
