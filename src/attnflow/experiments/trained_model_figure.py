"""Figure of a trained model: cosines by depth, rank, entropy of heads, contraction, phase diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def draw(data: xr.Dataset) -> Figure:
    """Histograms by layer, rho and rank with theory and controls; of heads, entropy and phase diagram."""
    from attnflow import plot

    heads = "entropy" in data
    rows = [["ridges", "rho", "rank"]] + ([["heads", "parts", "phase"]] if heads else [])
    with plot.style():
        figure, axes = plot.panels(rows, width=14.0, height=4.6 * len(rows))
        _draw_ridges(axes["ridges"], data)
        _draw_rho(axes["rho"], data)
        _draw_rank(axes["rank"], data)
        if heads:
            _draw_heads(axes["heads"], data)
            _draw_parts(axes["parts"], data)
            _draw_phase(axes["phase"], data)
        a = data.attrs
        figure.suptitle(
            f"{a['model']}: {a['n']} tokens in {a['d']} dimensions, norm scheme {a['scheme']}"
        )
    return figure


def _draw_ridges(ax: Any, data: xr.Dataset) -> None:
    from attnflow import plot

    step = float(data.bin[1] - data.bin[0])
    edges = np.append(data.bin.values - step / 2, data.bin.values[-1] + step / 2)
    plot.cosine_histograms(
        edges, data.histogram.values, data.layer.values.astype(float), rows=8, ax=ax
    )
    ax.set_yticks(
        ax.get_yticks(), [t.get_text().replace("t =", r"\ell =") for t in ax.get_yticklabels()]
    )
    ax.set_title("Cosines of pairs, by layer")


def _draw_rho(ax: Any, data: xr.Dataset) -> None:
    """Mean cosine over depth, measured, controls and theory."""
    from attnflow import plot

    ax.plot(
        data.layer, data.mean_cosine, "o-", color=plot.CATEGORICAL[0], label="measured", zorder=4
    )
    ax.plot(
        data.layer, data.masked_cosine, ":", color=plot.CATEGORICAL[0], linewidth=1.2, zorder=3,
        label="without sinks and massive dimensions",
    )  # fmt: skip
    if "control_cosine" in data:
        for k, name in enumerate(data.control.values):
            ax.plot(
                data.layer,
                data.control_cosine[k],
                "-",
                color=plot.CATEGORICAL[k + 1],
                linewidth=1,
                label=name,
            )
    ax.plot(
        data.layer,
        data.aligned_cosine,
        "--",
        color=plot.INK,
        linewidth=1.2,
        label="theory, Q = K = V = I",
    )
    ax.plot(
        data.layer,
        data.random_cosine,
        "-.",
        color=plot.INK,
        linewidth=1.2,
        label="theory, fresh weights",
    )
    ax.set(
        xlabel="layer",
        ylabel=r"mean cosine $\rho$",
        ylim=(min(-0.05, float(data.mean_cosine.min()) - 0.05), 1.45),
        yticks=np.linspace(0, 1, 6),
    )
    ax.set_title("Do tokens gather?")
    ax.legend(fontsize=7.5, loc="upper left", ncols=2)


def _draw_rank(ax: Any, data: xr.Dataset) -> None:
    """Effective rank over depth beside Gaussian tokens of the same shape."""
    from attnflow import plot

    ax.plot(
        data.layer, data.effective_rank, "o-", color=plot.CATEGORICAL[0], label="effective rank"
    )
    ax.plot(
        data.layer,
        data.power_rank,
        "s-",
        color=plot.CATEGORICAL[5],
        label="of squared singular values",
    )
    ax.axhline(
        data.attrs["random_rank"],
        color=plot.INK,
        linestyle="--",
        linewidth=1.2,
        label="Gaussian tokens",
    )
    ax.set(xlabel="layer", ylabel="effective rank", ylim=(0, 1.3 * data.attrs["random_rank"]))
    ax.set_title("How many dimensions do they fill?")
    ax.legend(fontsize=8, loc="upper right")


def _draw_heads(ax: Any, data: xr.Dataset) -> None:
    """Row entropy of every head as a share of log n."""
    from attnflow import plot

    share = data.entropy.values / np.log(data.attrs["n"])
    mesh = ax.imshow(share, cmap=plot.SEQUENTIAL, vmin=0, vmax=1, aspect="auto", origin="lower",
                     extent=(-0.5, share.shape[1] - 0.5, 0.5, share.shape[0] + 0.5))  # fmt: skip
    ax.set(xlabel="head", ylabel="layer")
    ax.set_title("Entropy of attention rows / log n")
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.outline.set_visible(False)


def _draw_parts(ax: Any, data: xr.Dataset) -> None:
    """What each part of each layer does to log(1 - rho)."""
    from attnflow import plot

    blocks = data.block.values
    up, down = np.zeros(len(blocks)), np.zeros(len(blocks))
    for k, name in enumerate(data.step.values):
        values = data.contraction.sel(step=name).values
        if np.abs(values).max() < 1e-9:
            continue
        base = np.where(values > 0, up, down)
        ax.bar(
            blocks,
            values,
            0.7,
            bottom=base,
            color=plot.CATEGORICAL[k],
            label=str(name).replace("_", "'s "),
        )
        up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
    ax.axhline(0, color=plot.INK, linewidth=0.8)
    ax.set(xlabel="layer", ylabel=r"change of $\log(1-\rho)$")
    ax.set_title("Which part draws tokens together (below 0)?")
    ax.legend(fontsize=8)


def _draw_phase(ax: Any, data: xr.Dataset) -> None:
    """Heads over (gamma, rho), with the exact output cosine of one layer as levels."""
    n = data.attrs["n"]
    gamma = data.head_gamma.values
    right = max(1.5, float(np.quantile(gamma, 0.98)) * 1.1)
    x, y = np.linspace(0.01, right, 160), np.linspace(0.01, 0.99, 120)
    level = af.theory.long_context.output_cosine(
        np.broadcast_to(y[:, None], (120, 160)), n=n, beta=np.broadcast_to(x * np.log(n), (120, 160))
    )  # fmt: skip
    lines = ax.contour(x, y, level, [0.5, 0.7, 0.8, 0.9, 0.99], colors="#8A8F98", linewidths=0.8)
    ax.clabel(lines, fontsize=7)
    critical = 1 - 1 / x
    ax.plot(x[critical > 0], critical[critical > 0], "--", color="#222222", linewidth=1.2,
            label=r"$\gamma = 1/(1-\rho)$")  # fmt: skip
    rho = np.broadcast_to(data.mean_cosine.values[:-1, None], gamma.shape)
    dots = ax.scatter(
        gamma, rho, c=np.broadcast_to(data.block.values[:, None], gamma.shape), s=14, zorder=3
    )
    ax.figure.colorbar(dots, ax=ax, label="layer").outline.set_visible(False)
    ax.set(xlabel=r"$\gamma$ = scale |q||k| / log n", ylabel=r"mean cosine $\rho$ at the layer's entry",
           xlim=(0, right), ylim=(0, 1))  # fmt: skip
    ax.set_title("Heads on the phase diagram; lines: output cosine")
    ax.legend(fontsize=8, loc="upper left")
