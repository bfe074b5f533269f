"""Figure of the design, from its numbers alone."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.experiments.design import usual_beta
from attnflow.experiments.design_tables import answer, context_table, name_of, norm_table, verdict

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ON_LINES: dict[str, Any] = {"frameon": True, "facecolor": "white", "edgecolor": "none"}
"""Look of a legend that may lie on lines."""


def figure(data: xr.Dataset) -> Figure:
    """Cosines over layers, budgets over the scale, one layer, the scale over the context, and the answer."""
    from attnflow import plot

    rows = [["init"] * 4 + ["aligned"] * 4 + ["budget"] * 4]
    rows.append(["cosine"] * 4 + ["scale"] * 4 + ["answer"] * 4)
    rows.append(["norms"] * 7 + ["contexts"] * 5)
    with plot.style():
        fig, axes = plot.panels(rows, width=15.0, height=11.0)
        titles = (
            ("init", "fresh weights: attention and MLP"),
            ("aligned", "aligned heads: worst case"),
        )
        for name, title in titles:
            _draw_course(axes[name], data, name, title)
        _draw_budget(axes["budget"], data)
        _draw_cosine(axes["cosine"], data)
        _draw_scale(axes["scale"], data)
        _draw_answer(axes["answer"], data)
        written = [
            plot.table(*table, ax=axes[name])
            for name, table in (("norms", norm_table(data)), ("contexts", context_table(data)))
        ]
        lowest = min(ax.get_ylim()[0] for ax in written)
        for ax in written:
            ax.set_ylim(bottom=lowest)  # rows of one height
        lines = axes["aligned"].get_legend_handles_labels()
        fig.legend(*lines, loc="outside upper right", ncols=len(data.norm), columnspacing=1.2)
        title = f"{name_of(data)}: {verdict(data.sel(norm=data.attrs['norm']))}"
        fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    return fig


def _looks(data: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Colour and width of the line of every norm scheme; the chosen one is bold and on top."""
    from attnflow import plot

    colors = plot.category_colors([0, 1, 2, 3, 4, 5, 20])
    return {
        norm: {"color": color, "linewidth": 3.2 if norm == data.attrs["norm"] else 1.2,
               "zorder": 3 if norm == data.attrs["norm"] else 2}
        for norm, color in zip(data.norm.values, colors, strict=True)
    }  # fmt: skip


def _draw_course(ax: Any, data: xr.Dataset, limit: str, title: str) -> None:
    """Cosine over layers under every scheme, and the real Transformer if there is one."""
    from attnflow import plot

    a = data.attrs
    for norm, look in _looks(data).items():
        ax.plot(data.layer, 1 - data[f"gap_{limit}"].sel(norm=norm), label=norm, **look)
    ax.axhline(a["rho_max"], color=plot.INK, linestyle=":", linewidth=1.2)
    if limit == "init" and "measured" in data:
        label = f"real, width {a['small_width']}, {a['small_context']} tokens"
        ax.errorbar(
            np.arange(data.sizes["small_layer"]), data.measured, 2 * data.measured_error, fmt="o",
            color=plot.INK, markersize=3.5, label=label, zorder=4,
        )  # fmt: skip
        ax.plot(
            data.measured_theory, "--", color=plot.INK, linewidth=1.2, label="its theory", zorder=4
        )
        ax.legend(*(found[-2:] for found in ax.get_legend_handles_labels()), loc="lower right")
    low = min(0.0, a["rho0"])
    ax.set(
        title=title,
        xlabel="layer",
        ylabel=r"mean cosine $\rho$",
        ylim=(low, 1.02),
        xlim=(0, a["layers"]),
    )


def _draw_budget(ax: Any, data: xr.Dataset) -> None:
    """Aligned layers until rho_max over the logit scale, with the depth, the scale now and the recommended."""
    from attnflow import plot

    a = data.attrs
    for norm, look in _looks(data).items():
        ax.plot(data.beta, data.budget_curve.sel(norm=norm), **look)
    ax.axhline(a["layers"], color=plot.INK, linestyle=":", linewidth=1.2)
    ax.annotate(
        f"{a['layers']} layers", (0.02, a["layers"]), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", fontsize=9,
    )  # fmt: skip
    _mark(ax, data, 1.0, critical=False)
    ax.set(
        title=f"depth budget: aligned layers until {a['rho_max']:g}",
        xlabel=r"logit scale $\beta$",
        ylabel="layers",
        yscale="log",
        ylim=(1, a["horizon_aligned"]),
        xlim=(0, data.beta.values[-1]),
    )
    ax.legend(loc="upper left", **ON_LINES)


def _draw_cosine(ax: Any, data: xr.Dataset) -> None:
    """Output cosine of one layer over gamma, without and with residual."""
    from attnflow import plot

    a, names = data.attrs, ("attention", "with residual")
    for branch, name, color in zip(data.branch.values, names, plot.CATEGORICAL, strict=False):
        one = data.sel(branch=branch)
        ax.plot(data.gamma, one.cosine_curve, color=color, linewidth=2.4, label=name)
        gamma = a["beta"] / np.log(a["context"])
        ax.plot(
            gamma, one.cosine, "o", color=color, markersize=7, markeredgecolor="white", zorder=4
        )
    _mark(ax, data, 1 / np.log(a["context"]))
    ax.set(
        title=f"one layer, {a['context']} tokens of cosine {a['rho0']:g}",
        xlabel=r"scale $\gamma = \beta/\log\,n$",
        ylabel="cosine of outputs $C_n$",
        xlim=(0, data.gamma.values[-1]),
        ylim=(min(0.0, a["rho0"]), 1.02),
    )
    ax.legend(loc="best", **ON_LINES)


def _mark(ax: Any, data: xr.Dataset, unit: float, *, critical: bool = True) -> None:
    """Upright lines at beta now, critical and recommended, times a unit."""
    from attnflow import plot

    here = data.sel(context=data.attrs["context"])
    marks = [
        ("now", data.attrs["beta"], plot.INK, "-"),
        ("recommended", here.recommended_beta, plot.INK, "--"),
    ]
    if critical:
        marks.append(("critical", here.critical_beta, "#8A8F98", "-."))
    for name, beta, color, dashes in marks:
        value = float(beta) * unit
        ax.axvline(
            value,
            color=color,
            linestyle=dashes,
            linewidth=1.3,
            label=f"{name}, {value:.3g}",
            zorder=1,
        )


def _draw_scale(ax: Any, data: xr.Dataset) -> None:
    """Recommended scale over the context, beside the critical one and the usual one."""
    from attnflow import plot

    a = data.attrs
    usual = usual_beta(a["width"], a["heads"])
    ax.plot(
        data.curve_context,
        data.recommended_curve,
        color=plot.CATEGORICAL[0],
        linewidth=2.4,
        label="recommended",
    )
    ax.plot(
        data.context,
        data.critical_beta,
        "-.",
        color="#8A8F98",
        label=r"critical, $\log n/(1-\rho_0)$",
    )
    ax.axhline(usual, color=plot.INK, linestyle=":", linewidth=1.2, label=f"usual, {usual:.3g}")
    ax.plot(a["context"], a["beta"], "o", color=plot.INK, markersize=7, label="now", zorder=4)
    ax.set_xscale("log", base=2)
    top = max(float(data.recommended_curve.max()), usual, a["beta"])
    ax.set(
        title="scale over context length",
        xlabel="context $n$, tokens",
        ylabel=r"logit scale $\beta$",
        ylim=(0, 1.08 * top),
        xlim=(data.curve_context.values[0], data.curve_context.values[-1]),
    )
    factor = ax.secondary_yaxis("right", functions=(lambda b: b / usual, lambda f: f * usual))
    factor.set_ylabel("factor on the usual scale", fontsize=10)
    factor.tick_params(labelsize=9, color="#555555")
    ax.legend(loc="lower right", **ON_LINES)


def _draw_answer(ax: Any, data: xr.Dataset) -> None:
    """The answer in words: labels in bold, sentences below them."""
    from attnflow import plot

    height = 0.0
    for label, text in answer(data):
        ax.text(0, height, label, va="top", fontsize=9, fontweight="bold", color=plot.INK)
        for line in textwrap.wrap(text, 61):
            height -= 1
            ax.text(0, height, line, va="top", fontsize=9, color=plot.INK)
        height -= 1.4
    ax.set(xlim=(0, 1), ylim=(height, 0.2))
    ax.set_axis_off()
