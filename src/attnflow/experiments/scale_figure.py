"""Figure of the scale advisor: heads on the phase diagram, factors over the length, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def figure(data: xr.Dataset) -> Figure:
    """Heads on the plane of scale and cosine, factors of all rules, predicted and measured cosines."""
    from attnflow import plot

    with plot.style():
        drawn, axes = plot.panels([["phase", "factors", "check"]], width=15.0, height=4.8)
        _draw_phase(axes["phase"], data)
        _draw_factors(axes["factors"], data)
        _draw_check(axes["check"], data)
        drawn.suptitle(
            f"Logit scale of {data.attrs['model']}, heads measured at {data.attrs['n0']} tokens"
        )
    return drawn


def _draw_phase(ax: Any, data: xr.Dataset) -> None:
    """Heads over (gamma, rho), with the exact output cosine at n0 as levels."""
    n0, gamma = data.attrs["n0"], data.gamma.values
    right = max(1.5, float(np.quantile(gamma, 0.98)) * 1.15)
    x, y = np.linspace(0.01, right, 160), np.linspace(0.005, 0.99, 120)
    level = af.theory.long_context.output_cosine(
        np.broadcast_to(y[:, None], (120, 160)), n=n0, beta=np.broadcast_to(x * np.log(n0), (120, 160))
    )  # fmt: skip
    lines = ax.contour(x, y, level, [0.5, 0.7, 0.8, 0.9, 0.99], colors="#8A8F98", linewidths=0.8)
    ax.clabel(lines, fontsize=7)
    dots = ax.scatter(
        gamma, np.clip(data.rho, 0, 1), c=np.broadcast_to(data.layer.values[:, None], gamma.shape), s=16, zorder=3
    )  # fmt: skip
    ax.figure.colorbar(dots, ax=ax, label="layer").outline.set_visible(False)
    ax.set(xlabel=r"$\gamma$ = lead / $((1-\rho)\log n_0)$", ylabel=r"cosine $\rho$ of a head's values",
           xlim=(0, right), ylim=(0, 1))  # fmt: skip
    ax.set_title("Heads now; lines: cosine of outputs")


def _draw_factors(ax: Any, data: xr.Dataset) -> None:
    """Factors of the logits over the length."""
    from attnflow import plot

    n = data.curve_length
    for k, (law, label) in enumerate(
        (("fixed", "keeps cosines, lead as at n0"), ("growing", "keeps cosines, lead grows"))
    ):
        each = data.curve_factor.sel(law=law).values.reshape(len(n), -1)
        ax.plot(n, each.mean(axis=1), color=plot.CATEGORICAL[k], label=label, zorder=3)
        ax.fill_between(
            n,
            *np.quantile(each, [0.1, 0.9], axis=1),
            color=plot.CATEGORICAL[k],
            alpha=0.15,
            linewidth=0,
        )
    ax.plot(n, data.curve_one_factor, color=plot.CATEGORICAL[2], label="one factor for all heads")
    for rule, dash in zip(data.rule.values, ("--", "-.", ":"), strict=True):
        ax.plot(
            n, data.curve_rules.sel(rule=rule), dash, color=plot.INK, linewidth=1.2, label=str(rule)
        )
    ax.axvline(data.attrs["n0"], color="#8A8F98", linewidth=0.8)
    ax.set(xscale="log", xlabel="number of tokens n", ylabel="factor of the logits")
    ax.set_title("Scale at other lengths; bands: 80 % of heads")
    ax.legend(fontsize=8)


def _draw_check(ax: Any, data: xr.Dataset) -> None:
    """Predicted against measured cosines: at n0, and scaled where it was applied."""
    from attnflow import plot

    ax.plot([0, 1], [0, 1], color="#8A8F98", linewidth=0.8)
    ax.plot(data.cosine.values.ravel(), data.measured.values.ravel(), "o", color=plot.CATEGORICAL[0],
            markersize=4, label=f"as it is, n0 = {data.attrs['n0']}")  # fmt: skip
    if "applied" in data:
        for k, name in enumerate(data.logits.values[1:], 1):
            ax.plot(data.expected.sel(logits=name).values.ravel(), data.applied.sel(logits=name).values.ravel(),
                    ".", color=plot.CATEGORICAL[k], alpha=0.6, label=f"scaled: {name}")  # fmt: skip
    ax.set(
        xlabel="predicted cosine of outputs",
        ylabel="measured",
        xlim=(-0.05, 1.02),
        ylim=(-0.05, 1.02),
    )
    ax.set_title("Does the theory of equiangular heads hold?")
    ax.legend(fontsize=8, loc="upper left")
