"""Figure of a sweep: a line for one field, lines or a map for two, points where they form no grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.sweeps.merge import measured, numbers_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = 9
LOG_FROM = 30
"""An axis of positive numbers is logarithmic if the largest is so many times the smallest."""


def draw(data: xr.Dataset, outcome: str = "") -> Figure:
    """One number a task over one or two swept fields; means over seeds, with standard errors.

    Args:
        data: Merged results.
        outcome: What is drawn, see `measured`; the first number by default.

    Raises:
        ValueError: If there is no such number, or not one or two fields besides seed.
    """
    from attnflow import plot

    outcome = outcome or next(iter(numbers_of(data)), "")
    mean, error, axes = over_seeds(data, outcome)
    text = _text(data, outcome)
    if not 1 <= len(axes) <= 2:
        raise ValueError(
            "Argument `data` must have one or two swept fields besides seed, but it has "
            f"{', '.join(axes) or 'none'}. Take one value of the others: data.isel({(axes or ['n'])[-1]}=0)."
        )
    with plot.style():
        figure, panels = plot.panels([["a"]], width=6.4, height=4.4)
        ax, numbers = panels["a"], [name for name in axes if mean[name].dtype.kind in "iuf"]
        if mean.dims == ("task",):
            _points(ax, mean, axes, text)
        elif len(axes) == 2 and len(numbers) == 2:
            _map(ax, mean, axes, text)
        else:
            _lines(ax, mean, error, [*numbers, *(name for name in axes if name not in numbers)])
            ax.set_ylabel(text)
        ax.set_title(data.attrs["experiment"])
    return figure


def over_seeds(
    data: xr.Dataset, outcome: str
) -> tuple[xr.DataArray, xr.DataArray | None, list[str]]:
    """Mean over seeds of one number, its standard error, and the fields that are left."""
    from attnflow.errors import check_choice

    check_choice(outcome.partition("@")[0], "outcome", numbers_of(data))
    found = measured(data, outcome).astype(float)
    if found.dims == ("task",):
        swept = data.attrs["swept"]
        return found, None, [name for name in swept if name != "seed"] or swept
    fields = [str(dim) for dim in found.dims]
    if "seed" not in fields or len(fields) == 1:
        return found, None, fields
    count = found.notnull().sum("seed")
    error = found.std("seed", ddof=1) / np.sqrt(count)
    return found.mean("seed"), error, [name for name in fields if name != "seed"]


def pictures(data: xr.Dataset, outcome: str = "") -> dict[str, bytes]:
    """Files of the figure; none if there is nothing that can be drawn."""
    from attnflow.experiments.pictures import figure_files

    try:
        figure = draw(data, outcome)
    except ValueError:
        return {}
    return figure_files(figure)


def _text(data: xr.Dataset, outcome: str) -> str:
    """Words for an outcome: where nothing is said, own dimensions are at their last place."""
    name, _, places = outcome.partition("@")
    outer = data["reason"].dims
    said = [text.partition("=")[0] for text in places.split(",")]
    last = [str(dim) for dim in data[name].dims if dim not in outer and dim not in said]
    where = [text.replace("=", " = ") for text in filter(None, places.split(","))]
    where += [f"last {dim}" for dim in last]
    return name.replace("_", " ") + (f" ({', '.join(where)})" if where else "")


def _lines(ax: Axes, mean: xr.DataArray, error: xr.DataArray | None, axes: list[str]) -> None:
    """A line over the first field, one for each value of the second."""
    x = mean[axes[0]].values
    numbers = x.dtype.kind in "iuf"
    places = x if numbers else np.arange(len(x))
    others = axes[1:2]
    for value in mean[others[0]].values if others else [None]:
        pick = {others[0]: value} if others else {}
        bars = None if error is None else error.sel(pick).values
        ax.errorbar(
            places, mean.sel(pick).values, yerr=bars, marker="o", capsize=2.5, markersize=4,
            label=None if value is None else f"{others[0]} = {value}",
        )  # fmt: skip
    if not numbers:
        ax.set_xticks(places, [str(v) for v in x])
    ax.set_xlabel(axes[0])
    if numbers and _is_wide(x):
        ax.set_xscale("log")
    if others:
        ax.legend(loc="best")


def _map(ax: Axes, mean: xr.DataArray, axes: list[str], text: str) -> None:
    """Cells of one size, whatever the distances of the values, which stand at the ticks."""
    across, up = axes
    mesh = ax.pcolormesh(mean.transpose(up, across).values, rasterized=True)
    for name, set_ticks in ((across, ax.set_xticks), (up, ax.set_yticks)):
        shown = np.unique(np.linspace(0, mean.sizes[name] - 1, TICKS).round().astype(int))
        set_ticks(shown + 0.5, [f"{v:.4g}" for v in mean[name].values[shown]])
    ax.set(xlabel=across, ylabel=up)
    ax.figure.colorbar(mesh, ax=ax, label=text)


def _points(ax: Axes, mean: xr.DataArray, axes: list[str], text: str) -> None:
    """A point a task: over one field, or coloured over two."""
    known = np.isfinite(mean.values)
    columns: list[Any] = [mean[name].values[known] for name in axes]
    if len(axes) == 1:
        ax.plot(columns[0], mean.values[known], "o", markersize=4)
        ax.set(xlabel=axes[0], ylabel=text)
    else:
        dots = ax.scatter(columns[0], columns[1], c=mean.values[known], s=28)
        ax.set(xlabel=axes[0], ylabel=axes[1])
        ax.figure.colorbar(dots, ax=ax, label=text)
    for column, set_scale in zip(columns, (ax.set_xscale, ax.set_yscale), strict=False):
        if column.dtype.kind in "iuf" and _is_wide(column):
            set_scale("log")


def _is_wide(values: np.ndarray) -> bool:
    return bool(len(values) > 2 and 0 < LOG_FROM * values.min() <= values.max())
