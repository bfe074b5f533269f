"""Figure and table of the normalisation schemes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow import plot
from attnflow.experiments.normalization import PANELS, SCHEMES, orders

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

NAMES = {
    "post": "Post-LN", "pre": "Pre-LN", "mix": "Mix-LN", "peri": "Peri-LN", "ngpt": "nGPT",
    "sqrt": "sqrt-scaling", "ln-scaling": "LN-scaling", "none": "No-LN",
}  # fmt: skip
LAWS = {
    "post": "e^(-2t)", "pre": "t^-2", "mix": "t^-2", "peri": "t^-2", "ngpt": "e^(-2∫α)",
    "sqrt": "e^(-4√t)", "ln-scaling": "t^-1", "none": "freezes",
}  # fmt: skip
COLORS = dict(zip(SCHEMES, (*plot.CATEGORICAL, "#8A8F98"), strict=True)) | {"ln-scaling": "#6B4C9A"}
BAND = (0.05, 0.95)


def figure(data: xr.Dataset) -> Figure:
    """Mean cosine over depth in three settings, then late gaps on their laws and the table of exponents."""
    with plot.style():
        fig, axes = plot.panels([[*PANELS], ["late", "late", "table"]], width=15.0, height=8.6)
        a = data.attrs
        titles = {
            "identity": rf"Q = K = V = I, $\beta$ = {a['beta_identity']:g}: theory is the equiangular ODE",
            "shared": rf"one Kaiming Q, K, V, $\beta$ = {a['beta']:.3g}: theory is a mean field",
            "fresh": rf"fresh Kaiming layers, $\beta$ = {a['beta']:.3g}: theory is one map, iterated",
        }
        for panel in PANELS:
            _draw_panel(axes[panel], data, panel)
            axes[panel].set_title(titles[panel], fontsize=10)
        axes["identity"].set_ylabel(r"mean cosine $\rho$ of pairs")
        _draw_late(axes["late"], data)
        _draw_table(axes["table"], data)
        fig.legend(
            handles=_handles(), loc="outside lower center", ncol=10, fontsize=9, handlelength=1.6
        )
        fig.suptitle(
            f"{a['n']} uniform tokens, d = {a['d']}: mean over {a['seeds']} draws with 90 % band"
        )
    return fig


def table(data: xr.Dataset) -> str:
    """What `figure` shows, in numbers."""
    a = data.attrs
    lines = [
        f"{a['n']} uniform tokens, d = {a['d']}, {a['seeds']} draws: {a['equation']}",
        "",
        "Depth at which the mean cosine is 1/2, tokens (theory):",
        f"{'':<14}{'Q = K = V = I':>20}{'shared Kaiming':>20}{'fresh Kaiming':>20}",
    ]
    for scheme in SCHEMES:
        one = data.sel(scheme=scheme)
        cells = "".join(
            f"{_pair(one.half.sel(panel=p).item(), one.half_theory.sel(panel=p).item()):>20}"
            for p in PANELS
        )
        lines.append(f"{NAMES[scheme]:<14}{cells}")
    lines += ["", "Order, fastest first:"]
    for panel, (tokens, theory) in orders(data).items():
        same = "as predicted" if tokens == theory else f"predicted {' < '.join(theory)}"
        lines.append(f"{panel:<14}{' < '.join(tokens)}   ({same})")
    lines += [
        "",
        f"Collapse of {a['late_n']} orthogonal tokens at late times, beta = {a['late_beta']:g}:",
        f"{'':<14}{'1 - rho':>12}{'exponent':>12}{'measured':>12}{'constant':>12}{'measured':>12}",
    ]
    for scheme in SCHEMES:
        one = data.sel(scheme=scheme)
        values = (one.exponent_theory, one.exponent, one.constant_theory, one.constant)
        cells = "".join(f"{_number(value.item()):>12}" for value in values)
        lines.append(f"{NAMES[scheme]:<14}{LAWS[scheme]:>12}{cells}")
    return "\n".join(lines)


def _pair(found: float, theory: float) -> str:
    return f"{_number(found, 3)} ({_number(theory, 3)})"


def _number(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}" if np.isfinite(value) else "-"


def _draw_panel(ax: Any, data: xr.Dataset, panel: str) -> None:
    """Mean over draws and its band, theory dashed on top."""
    axis = "layer" if panel == "fresh" else "time"
    x = data[axis].values
    for scheme in SCHEMES:
        runs = data[panel].sel(scheme=scheme).values
        if not np.isfinite(runs).all():
            continue
        low, high = np.quantile(runs, BAND, axis=0)
        ax.fill_between(x, low, high, color=COLORS[scheme], alpha=0.2, linewidth=0)
        ax.plot(x, runs.mean(axis=0), color=COLORS[scheme], linewidth=2.2)
        predicted = data[f"{panel}_theory"].sel(scheme=scheme).values
        ax.plot(x, predicted, "--", color=plot.INK, linewidth=0.9)
    ax.set(xlabel="layer" if panel == "fresh" else "time $t$", ylim=(-0.03, 1.03))
    ax.set_xlim(x[0], x[-1])


def _draw_late(ax: Any, data: xr.Dataset) -> None:
    """Gaps of every scheme over time, with the dashed law they end on."""
    for scheme in SCHEMES:
        one = data.sel(scheme=scheme)
        ts, gaps, law = (one[name].values for name in ("late_time", "late_gap", "late_law"))
        if not np.isfinite(gaps).all():
            continue
        ax.plot(ts, gaps, color=COLORS[scheme], linewidth=3.0, alpha=0.8)
        ax.plot(ts, law, "--", color=plot.INK, linewidth=0.9)
        offset, align = _LABELS[scheme]
        ax.annotate(
            f"{NAMES[scheme]}  {LAWS[scheme]}", (ts[-1], gaps[-1]), xytext=offset, ha=align,
            textcoords="offset points", fontsize=9, color=COLORS[scheme],
        )  # fmt: skip
    ax.set(
        xscale="log", yscale="log", xlabel="time $t$", ylabel=r"gap $1-\rho$", ylim=(1e-9, 3),
        title=f"{data.attrs['late_n']} orthogonal tokens, Q = K = V = I, "
        rf"$\beta$ = {data.attrs['late_beta']:g}: late laws with their constants",
    )  # fmt: skip


_LABELS = {
    "post": ((-6, -4), "right"), "ngpt": ((-6, 2), "right"), "sqrt": ((6, -2), "left"),
    "pre": ((4, 6), "left"), "mix": ((-12, -4), "right"), "peri": ((4, -6), "left"),
    "ln-scaling": ((-10, 26), "center"),
}  # fmt: skip


def _draw_table(ax: Any, data: xr.Dataset) -> None:
    rows = []
    for scheme in SCHEMES:
        one = data.sel(scheme=scheme)
        if np.isfinite(one.exponent.item()):
            cells = (one.exponent_theory, one.exponent, one.constant_theory, one.constant)
            rows.append([NAMES[scheme], *(_number(c.item(), 4) for c in cells)])
    plot.table(["scheme", "exponent", "measured", "constant", "measured "], rows, ax=ax)
    ax.set_title("predicted and measured collapse", fontsize=11)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=COLORS[s], linewidth=2.2, label=NAMES[s]) for s in SCHEMES]
    return [*lines, Line2D([], [], color=plot.INK, linestyle="--", linewidth=0.9, label="theory")]
