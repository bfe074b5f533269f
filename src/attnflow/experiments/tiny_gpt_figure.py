"""Figure and table of the tiny GPT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow import plot
from attnflow.experiments.tiny_gpt import SCHEMES, at_end, gradient_ratio, orders

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

NAMES = {"post": "Post-LN", "pre": "Pre-LN", "peri": "Peri-LN"}
COLORS = dict(zip(SCHEMES, plot.CATEGORICAL, strict=False))
SHOWN = {"init": "at initialisation", "full": "there without causal mask", "trained": "trained"}


def figure(data: xr.Dataset) -> Figure:
    """Loss and mean cosine of both depths, effective rank and gradients of the deep models."""
    a = data.attrs
    with plot.style():
        fig, axes = plot.panels(
            [["loss0", "loss1", "gradient"], ["rho0", "rho1", "rank"]], width=15.0, height=8.2
        )
        top = float(np.nanmax(data.loss.isel(step=slice(len(data.step) // 50, None))))
        for k, depth in enumerate(data.depth.values):
            _draw_loss(axes[f"loss{k}"], data.sel(depth=depth))
            axes[f"loss{k}"].set(title=f"{depth} layers: loss of training", ylim=(None, 1.02 * top))
            _draw_depth(axes[f"rho{k}"], data.sel(depth=depth), "rho")
            title = f"{depth} layers: mean cosine of tokens"
            axes[f"rho{k}"].set(title=title, ylabel=r"$\rho$", ylim=(-0.03, 1.03))
        deep = data.isel(depth=-1)
        _draw_depth(axes["rank"], deep, "effective_rank")
        limit = min(a["n"], a["d"])
        axes["rank"].set(
            title=f"{int(deep.depth)} layers: effective rank, at most {limit}", ylabel="effective rank",
            ylim=(0, None),
        )  # fmt: skip
        _draw_gradients(axes["gradient"], data)
        fig.legend(handles=_handles(), loc="outside lower center", ncol=7, handlelength=2.2)
        fig.suptitle(
            f"Character GPTs on Python's reference: d = {a['d']}, {a['heads']} heads, windows of {a['n']}, "
            f"{a['steps']} steps of {a['batch']} windows"
        )
    return fig


def table(data: xr.Dataset) -> str:
    """What `figure` shows, in numbers, and which orders hold."""
    a, rho, ratio = data.attrs, at_end(data, "rho"), gradient_ratio(data)
    theory, rank = at_end(data, "rho_theory"), at_end(data, "effective_rank")
    lines = [
        f"Character GPTs on {a['text']}: d = {a['d']}, {a['heads']} heads, n = {a['n']}, {a['steps']} steps",
        "",
        f"{'':<18}{'test loss':>10}{'last mean cosine at initialisation':>36}{'':>10}{'effective rank':>20}"
        f"{'gradient':>12}",
        f"{'':<18}{'nats':>10}{'theory':>12}{'no mask':>12}{'causal':>12}{'trained':>10}"
        f"{'start':>10}{'trained':>10}{'first/last':>12}",
    ]
    at = {name: k for k, name in enumerate(data.measured.values)}
    for k, depth in enumerate(data.depth.values):
        for s, scheme in enumerate(data.scheme.values):
            cells = (
                f"{float(data.test_loss[s, k]):>10.3f}{theory[s, k]:>12.3f}{rho[at['full'], s, k]:>12.3f}"
                f"{rho[at['init'], s, k]:>12.3f}{rho[at['trained'], s, k]:>10.3f}"
                f"{rank[at['init'], s, k]:>10.1f}{rank[at['trained'], s, k]:>10.1f}{ratio[s, k]:>12.3g}"
            )
            lines.append(f"{NAMES[scheme]:<9}{depth:>2} layers{cells}")
    lines += ["", "Orders, most collapsed first, beside the predicted one; loss, lowest first:"]
    for depth, found in orders(data).items():
        expected = found["predicted"]
        lines.append(f"{depth:>3} layers, predicted: {' > '.join(NAMES[s] for s in expected)}")
        for name, text in SHOWN.items():
            kept = "kept" if found[name] == expected else "not kept"
            shown = " > ".join(NAMES[s] for s in found[name])
            lines.append(f"{'':>12}{text + ':':<28}{shown}   ({kept})")
        best = " < ".join(NAMES[s] for s in found["loss"])
        kept = "less collapse, less loss" if found["loss"] == expected[::-1] else "not by collapse"
        lines.append(f"{'':>12}{'test loss:':<28}{best}   ({kept})")
    return "\n".join([
        *lines, "",
        "Theory is of full attention and fresh weights, up to 1/n and 1/sqrt(d): compare it with no mask. Under the",
        "causal mask early tokens see few others. Of training and of gradients it says nothing. One training a cell.",
    ])  # fmt: skip


def _draw_loss(ax: Any, data: xr.Dataset) -> None:
    """Loss of every step faint, its running mean, and that of held-out text."""
    for scheme in SCHEMES:
        loss, color = data.loss.sel(scheme=scheme).values, COLORS[scheme]
        width = max(1, len(loss) // 20)
        ax.plot(loss, color=color, linewidth=0.6, alpha=0.25)
        mean = np.convolve(loss, np.full(width, 1 / width), "valid")
        ax.plot(np.arange(len(mean)) + (width - 1) / 2, mean, color=color, linewidth=2.0)
        test = float(data.test_loss.sel(scheme=scheme))
        ax.plot([len(loss)], [test], "o", color=color, clip_on=False, zorder=3)
    ax.set(xlabel="step", ylabel="nats per character", xlim=(0, len(data.step)))


def _draw_depth(ax: Any, data: xr.Dataset, name: str) -> None:
    """A statistic over layers: initialisation solid, trained broken, no mask as circles, theory dotted."""
    layer = np.arange(int(data.depth) + 1)
    for scheme in SCHEMES:
        one = data.sel(scheme=scheme, layer=layer)
        path = lambda measured, one=one: one[name].sel(measured=measured).values
        color = COLORS[scheme]
        ax.plot(layer, path("init"), color=color)
        ax.plot(layer, path("trained"), "--", color=color, linewidth=1.6)
        ax.plot(layer, path("full"), "o", color=color, markerfacecolor="white", markersize=4)
        if name == "rho":
            ax.plot(layer, one.rho_theory, ":", color=color, linewidth=1.8, zorder=4)
    ax.set(xlabel="layer", xlim=(0, layer[-1]))
    ax.locator_params(axis="x", integer=True)


def _draw_gradients(ax: Any, data: xr.Dataset) -> None:
    """Gradient norm of every block, shallow models faint."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for depth, alpha in zip(data.depth.values, (0.4, 1.0), strict=True):
        block = np.arange(1, int(depth) + 1)
        for scheme in SCHEMES:
            values = data.gradient.sel(scheme=scheme, depth=depth, block=block)
            ax.plot(block, values, "o-", color=COLORS[scheme], alpha=alpha, markersize=4)
    shallow, deep = data.depth.values
    ax.set(
        yscale="log", xlabel="block", ylabel="norm over a block's weights",
        title=f"Gradient at initialisation ({shallow} layers faint, {deep} full)",
    )  # fmt: skip
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.locator_params(axis="x", integer=True)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    def line(label: str, **look: Any) -> Any:
        options: dict[str, Any] = {"color": plot.INK, "label": label} | look
        return Line2D([], [], **options)

    return [
        *(line(NAMES[s], color=COLORS[s]) for s in SCHEMES),
        line("at initialisation", linestyle="-"),
        line("trained", linestyle="--"),
        line("initialisation, no mask", linestyle="", marker="o", markerfacecolor="white"),
        line("theory (no mask)", linestyle=":"),
    ]
