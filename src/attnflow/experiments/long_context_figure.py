"""Figure and tables of the long context, from its numbers alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

import attnflow as af
from attnflow.experiments.long_context import BRANCHES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TITLES = {"attention": "attention alone", "block": r"block with residual, $x + \eta\,\mathrm{ATT}$"}


def figure(data: xr.Dataset) -> Figure:
    """Planes over (gamma, rho), curves with dots, the window, random tokens, and the escape."""
    from attnflow import plot

    planes = [f"plane {n}" for n in data.n.values]
    width = math.lcm(len(planes), 3)
    rows = [[name for name in planes for _ in range(width // len(planes))]]
    for names in ([*BRANCHES, "window"], ["cosine", "weight", "escape"]):
        rows.append([name for name in names for _ in range(width // 3)])
    a = data.attrs
    with plot.style():
        fig, axes = plot.panels(rows, width=14.0, height=12.0)
        _draw_planes([axes[name] for name in planes], data)
        for branch in BRANCHES:
            _draw_curves(axes[branch], data, branch)
        _draw_window(axes["window"], data)
        _draw_random(axes["cosine"], data, "cosine")
        _draw_random(axes["weight"], data, "weight")
        _draw_escape(axes["escape"], data)
        fig.suptitle(
            rf"Long context: attention over $n$ tokens at $\beta = \gamma\log n$"
            rf" (curves: $\rho = {a['rho']:g}$, $\gamma_c = {1 / (1 - a['rho']):.4g}$)",
            fontsize=14,
        )
    return fig


def tables(data: xr.Dataset) -> str:
    """Tables: C_n beside its limit, real layers, random tokens, and layers to escape."""
    a, rho = data.attrs, data.attrs["rho"]
    shown = [g for g in (0.5, 0.75, 1.0, 1.1, 1.25, 1.5) if g / (1 - rho) <= a["gamma_max"]]
    theory = af.theory.long_context
    lines = [
        f"{a['equation']}; cosine rho = {rho:g}, critical gamma = {1 / (1 - rho):.4g}",
        "",
        "Output cosine of attention, exact:",
        f"{'gamma':>8}" + "".join(f"{f'n = {n}':>18}" for n in a["ns"]) + f"{'limit':>10}",
    ]
    for share in shown:
        gamma = share / (1 - rho)
        betas = theory.logit_scale(gamma, a["ns"])
        cells = "".join(f"{c:>18.6f}" for c in theory.output_cosine(rho, n=a["ns"], beta=betas))
        lines.append(f"{gamma:>8.4g}{cells}{float(theory.limit_cosine(rho, gamma)):>10.6f}")
    error = np.abs(data.layer_cosine - data.layer_predicted).max(["layer_n", "layer_gamma"])
    worst = ", ".join(f"{float(error.sel(branch=b)):.1e} ({b})" for b in BRANCHES)
    lines += ["", f"Real layers, largest difference from the closed form: {worst}", ""]
    lines += [*_random_lines(data), "", *_escape_lines(data)]
    return "\n".join(lines)


def _random_lines(data: xr.Dataset) -> list[str]:
    """Table of random tokens."""
    n = data.attrs["random_n"]
    lines = [
        f"{n} random tokens, d = D log n, {data.attrs['seeds']} samples (95 % intervals), "
        "beside integrals, and the equiangular C_n:",
        f"{'D':>6}{'gamma':>8}{'cosine':>20}{'integral':>10}{'C_n':>9}"
        f"{'A_ii':>20}{'integral':>10}{'threshold':>11}",
    ]
    for density in data.density.values:
        for gamma in data.random_gamma.values:
            row = data.sel(density=density, random_gamma=gamma)
            cosine = f"{float(row.random_cosine):.5f} ± {float(row.random_cosine_error):.5f}"
            weight = f"{float(row.random_weight):.5f} ± {float(row.random_weight_error):.5f}"
            lines.append(
                f"{density:>6g}{gamma:>8g}{cosine:>20}{float(row.random_cosine_predicted):>10.5f}"
                f"{float(row.random_equiangular):>9.5f}{weight:>20}"
                f"{float(row.random_weight_predicted):>10.5f}{float(row.threshold):>11.4f}"
            )
    return lines


def _escape_lines(data: xr.Dataset) -> list[str]:
    """Table of layers to escape."""
    lines = [
        f"Layers until the cosine is {data.attrs['rho_max']:g}, and the leading estimate:",
        f"{'gamma':>8}" + "".join(f"{f'n = {n}':>22}" for n in data.escape_n.values),
    ]
    for gamma in data.escape_gamma.values:
        row = data.sel(escape_gamma=gamma)
        pairs = zip(row.escape_layers.values, row.escape_estimate.values, strict=True)
        cells = (f"{count:.0f}  ({estimate:.4g})" for count, estimate in pairs)
        lines.append(f"{gamma:>8g}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


def _size(n: int) -> str:
    """Number of tokens, as a power of two or of ten where it is one."""
    for base in (2, 10):
        power = round(math.log(n, base))
        if base**power == n and n > 100:
            return f"${base}^{{{power}}}$"
    return f"{n}"


def _shades(sizes: Any, among: Any) -> list[Any]:
    """A colour per number of tokens, the same in every panel: small is dark."""
    from matplotlib import colormaps

    ranks = np.searchsorted(np.unique(among), sizes) / max(len(np.unique(among)) - 1, 1)
    return [colormaps["viridis"](0.92 * rank) for rank in ranks]


def _sizes(data: xr.Dataset) -> np.ndarray:
    return np.concatenate([data.curve_n.values, data.escape_n.values])


def _draw_planes(axes: list[Any], data: xr.Dataset) -> None:
    """Output cosine over (gamma, rho), with the critical line."""
    from matplotlib import patheffects

    from attnflow import plot

    seen = data.boundary.values <= data.gamma.values[-1]
    for ax, n in zip(axes, data.n.values, strict=True):
        ax.pcolormesh(
            data.gamma, data.cosine, data.plane.sel(n=n), cmap=plot.SEQUENTIAL,
            vmin=0, vmax=1, shading="nearest", rasterized=True,
        )  # fmt: skip
        ax.plot(
            data.boundary.values[seen], data.cosine.values[seen], "--", color="white", linewidth=1.6,
            path_effects=[patheffects.withStroke(linewidth=3.2, foreground=plot.INK)],
            label=r"$\gamma_c = 1/(1-\rho)$",
        )  # fmt: skip
        ax.set(
            title=("output cosine, " if len(axes) <= 3 else "") + f"$n$ = {_size(int(n))}",
            xlabel=r"scale $\gamma$",
            ylabel=r"cosine of inputs $\rho$",
            xlim=(0, data.gamma.values[-1]),
            ylim=(0, 1),
        )
    axes[0].legend(loc="lower right", frameon=True, facecolor="#E4E7EB", framealpha=0.92)
    mesh = axes[-1].collections[0]
    bar = axes[-1].figure.colorbar(mesh, ax=axes, label="cosine of outputs $C_n$", pad=0.01)
    bar.outline.set_visible(False)


def _draw_curves(ax: Any, data: xr.Dataset, branch: str) -> None:
    """C_n over gamma: lines of the theory, dots of real layers, and the limit."""
    from matplotlib.lines import Line2D

    from attnflow import plot

    shades = dict(zip(data.curve_n.values, _shades(data.curve_n.values, _sizes(data)), strict=True))
    one = data.sel(branch=branch)
    for n, color in shades.items():
        ax.plot(data.gamma, one.curve.sel(curve_n=n), color=color, label=f"$n$ = {_size(int(n))}")
    for n in data.layer_n.values:
        ax.plot(
            data.layer_gamma, one.layer_cosine.sel(layer_n=n), "o", color=shades[n],
            markersize=5, markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    critical = 1 / (1 - data.attrs["rho"])
    for side in (data.gamma < critical, data.gamma > critical):
        ax.plot(data.gamma[side], one.limit[side], "--", color=plot.INK, linewidth=1.4)
    ax.plot(critical, one.critical_limit, "D", color=plot.INK, markersize=6, zorder=5)
    eta = data.attrs["eta"]
    ax.set(
        title=TITLES[branch] + (rf", $\eta$ = {eta:g}" if branch == "block" else ""),
        xlabel=r"scale $\gamma$",
        ylabel="cosine of outputs $C_n$",
        xlim=(0, data.gamma.values[-1]),
        ylim=(data.attrs["rho"] - 0.04, 1.03),
    )
    if branch == "attention":
        ax.legend(loc="upper right")
    else:
        dots = Line2D([], [], color=plot.INK, marker="o", ls="", label="real layers")
        limit = Line2D([], [], color=plot.INK, ls="--", label=r"limit $n\to\infty$")
        at = Line2D([], [], color=plot.INK, marker="D", ls="", label=r"limit at $\gamma_c$")
        ax.legend(handles=[dots, limit, at], loc="upper right")


def _draw_window(ax: Any, data: xr.Dataset) -> None:
    """All n on one curve: C_n over tau, with the dots of real layers that lie there."""
    from attnflow import plot

    shades, rho = _shades(data.curve_n.values, _sizes(data)), data.attrs["rho"]
    colors = dict(zip(data.curve_n.values, shades, strict=True))
    for n, color in colors.items():
        ax.plot(data.tau, data.window.sel(curve_n=n), color=color, label=f"$n$ = {_size(int(n))}")
    for n in data.layer_n.values:
        tau = (data.layer_gamma.values * (1 - rho) - 1) * np.log(n)
        ax.plot(
            tau, data.layer_cosine.sel(branch="attention", layer_n=n), "o", color=colors[n],
            markersize=5, markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    label = r"limit, $\Delta = 1/(1+e^{-\tau})$"
    ax.plot(data.tau, data.window_limit, "--", color=plot.INK, linewidth=1.2, label=label)
    ax.set(
        title="critical window: one curve for all $n$",
        xlabel=r"$\tau = (\gamma(1-\rho) - 1)\log n$",
        ylabel="cosine of outputs $C_n$",
        xlim=(data.tau.values[0], data.tau.values[-1]),
        ylim=(rho - 0.04, 1.03),
    )
    ax.legend(handles=ax.lines[-1:], loc="upper right")


def _draw_random(ax: Any, data: xr.Dataset, what: str) -> None:
    """Random tokens: dots of real layers, lines of integrals, and equal cosines for comparison."""
    from matplotlib.lines import Line2D

    from attnflow import plot

    name, cosine = f"random_{what}", what == "cosine"
    for k, density in enumerate(data.density.values):
        color, one = plot.CATEGORICAL[k % len(plot.CATEGORICAL)], data.sel(density=density)
        label = f"$d$ = {density:g} log $n$, integrals"
        ax.plot(data.gamma, one[f"{name}_curve"], color=color, label=label)
        ax.errorbar(
            data.random_gamma, one[name], one[f"{name}_error"], fmt="o", color=color,
            markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
        if not cosine:
            ax.plot([float(one.threshold)] * 2, [0, 0.5], ":", color=color, linewidth=1.4)
    ax.plot(
        data.gamma, data[f"equiangular_{what}"], "--", color=plot.INK, linewidth=1.2,
        label="equal cosines",
    )  # fmt: skip
    extra = [Line2D([], [], color=plot.INK, marker="o", ls="", label="real layers")]
    if not cosine:
        extra.append(Line2D([], [], color=plot.INK, ls=":", label="threshold (REM)"))
    ax.set(
        title=f"random tokens, $n$ = {_size(data.attrs['random_n'])}",
        xlabel=r"scale $\gamma$",
        ylabel="mean cosine of outputs" if cosine else "mean weight on itself $A_{ii}$",
        xlim=(0, data.gamma.values[-1]),
        ylim=(data.attrs["rho"] - 0.04, 1.03) if cosine else (-0.03, 1.03),
    )
    labelled = [line for line in ax.lines if not line.get_label().startswith("_")]
    ax.legend(handles=labelled + extra, loc="upper right" if cosine else "upper left")


def _draw_escape(ax: Any, data: xr.Dataset) -> None:
    """Cosine layer by layer: exact lines, dots of real layers, and the estimate of the escape."""
    from matplotlib.lines import Line2D

    from attnflow import plot

    sizes, last = data.escape_n.values, int(data.layer.values[-1])
    colors = dict(zip(sizes, _shades(sizes, _sizes(data)), strict=True))
    handles = [Line2D([], [], color=c, label=f"$n$ = {_size(int(n))}") for n, c in colors.items()]
    for k, gamma in enumerate(data.escape_gamma.values):
        dashes = ("-", "--", "-.", ":")[k % 4]
        handles.append(Line2D([], [], color=plot.INK, ls=dashes, label=rf"$\gamma$ = {gamma:g}"))
        for n, color in colors.items():
            one = data.sel(escape_gamma=gamma, escape_n=n)
            ax.plot(data.layer, one.escape, dashes, color=color)
            ax.plot(
                data.layer, one.escape_measured, "o", color=color, markersize=5,
                markeredgecolor="white", markeredgewidth=0.6,
            )  # fmt: skip
            if 1 <= float(one.escape_estimate) <= last:
                ax.plot(one.escape_estimate, data.attrs["rho_max"], "v", color=color, clip_on=False)
    handles.append(Line2D([], [], color=plot.INK, marker="v", ls="", label="estimate"))
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= last]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set(
        title="many layers: drift, then collapse",
        xlabel="layer",
        ylabel=r"cosine $\rho$",
        xlim=(0, last),
        ylim=(data.attrs["rho"] - 0.04, 1.03),
    )
    ax.legend(handles=handles, loc="center right", handlelength=2)
