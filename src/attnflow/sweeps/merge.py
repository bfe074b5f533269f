"""Merge: the results of all tasks in one dataset, whose axes are the fields that were swept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow import store

if TYPE_CHECKING:
    import xarray as xr

Column = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]
"""Dimensions, values and attributes of one variable of one run."""


def merge(
    experiment: str,
    points: Sequence[Any],
    results: Iterable[xr.Dataset | None],
    *,
    runs: Sequence[str] | None = None,
    reasons: Sequence[str] | None = None,
    keep: Sequence[str] = (),
) -> xr.Dataset:
    """Results of the configs of a sweep, with one dimension per field where they form a product.

    Merged are the numbers that `attnflow run --json` prints and that are single, or variables of the
    result; and what `keep` names. All results must have them in one shape; else they are left out.

    Args:
        experiment: Name of the experiment.
        points: Configs.
        results: Results, in the same order; None for a task that failed. Read one after the other.
        runs: Names of the runs.
        reasons: Why tasks failed; "" for others.
        keep: Further variables of the results.

    Returns:
        Variables (swept fields ..., own dimensions ...). Configs that are not every combination of
        their values have one dimension, `task`, with the fields along it. `run` and `reason` are
        coordinates. Numbers of failed tasks are NaN, words "". A name of a result that is also
        a swept field has "_of_run" behind it. Attributes: `experiment`, `swept`, `settings` that all
        have, names `merged`, in order, and `left_out`.

    Raises:
        ValueError: If a result has no variable of a name in `keep`.
    """
    import xarray as xr

    from attnflow.experiments import load

    module = load(experiment)
    swept, dims, coords, order = layout(points)
    taken = {*swept, "task", "run", "reason"}
    rows, axes = [], {}
    for data in results:
        rows.append(None if data is None else _columns(module, data, keep, taken))
        if data is not None:
            _note_axes(axes, data, taken)
    rows = [rows[k] for k in order]
    sizes = tuple(len(coords[dim][1]) for dim in dims)
    stacked, left_out = _stack(rows, sizes, dims)
    for name, label in (("run", runs), ("reason", reasons)):
        words = np.array([("" if label is None else label[k]) for k in order], dtype=str)
        coords[name] = (dims, words.reshape(sizes))
    used = {dim for inner, _, _ in stacked.values() for dim in inner}
    coords |= {
        dim: (dim, values) for dim, values in axes.items() if dim in used and values is not None
    }
    settings = [store.canonical(module.resolve(point)) for point in points]
    shared = {
        name: value
        for name, value in settings[0].items()
        if value is not None and all(other[name] == value for other in settings)
    }
    return xr.Dataset(
        stacked,
        coords,
        attrs={
            "experiment": experiment,
            "swept": list(swept),
            "settings": json.dumps({k: v for k, v in shared.items() if k not in swept}),
            "merged": list(stacked),
            "left_out": sorted(left_out),
        },
    )


def layout(
    points: Sequence[Any],
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any], list[int]]:
    """Swept fields, dimensions, their coordinates, and the order in which points fill them."""
    names = [field.name for field in fields(points[0])]
    values = {name: [getattr(point, name) for point in points] for name in names}
    swept = tuple(name for name in names if len(set(values[name])) > 1)
    own = {name: list(dict.fromkeys(values[name])) for name in swept}
    cells = list(zip(*(values[name] for name in swept), strict=True)) if swept else []
    full = math.prod(len(v) for v in own.values()) == len(points) == len(set(cells))
    if not (swept and full):
        along = {name: ("task", labels(values[name])) for name in swept}
        coords = {"task": ("task", np.arange(len(points))), **along}
        return swept, ("task",), coords, list(range(len(points)))
    own = {name: _ascending(v) for name, v in own.items()}
    places = {name: {value: k for k, value in enumerate(v)} for name, v in own.items()}
    place = lambda k: tuple(places[name][values[name][k]] for name in swept)
    coords = {name: (name, labels(v)) for name, v in own.items()}
    return swept, swept, coords, sorted(range(len(points)), key=place)


def measured(data: xr.Dataset, outcome: str) -> xr.DataArray:
    """One number a task: a variable, at given places of its own dimensions, else at the last.

    Args:
        data: Merged results.
        outcome: Name, or name@dimension=place,...: clusters, clusters@time=100. Of a dimension
            of numbers the nearest place is taken.

    Raises:
        ValueError: If there is no such variable, dimension or place, or all runs failed.
    """
    from attnflow.errors import check_choice

    if not data.data_vars and (reasons := [r for r in data["reason"].values.ravel() if r]):
        raise ValueError(f"All {len(reasons)} runs failed, the first for this: {reasons[0]}")
    name, _, places = outcome.partition("@")
    check_choice(name, "outcome", map(str, data.data_vars))
    found, outer = data[name], _outer(data)
    for text in filter(None, places.split(",")):
        dim, _, place = text.partition("=")
        inner = [str(d) for d in found.dims if d not in outer and d in data.coords]
        check_choice(dim, "dimension", inner)
        found = _at(found, dim, place)
    return found.isel({dim: -1 for dim in found.dims if dim not in outer})


def numbers_of(data: xr.Dataset) -> list[str]:
    """Names of merged variables that hold numbers, those that `numbers` of the experiment names first."""
    return [name for name in data.attrs["merged"] if data[name].dtype.kind in "biuf"]


def labels(values: Sequence[Any]) -> np.ndarray:
    """Values as numbers where all are, else as words."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values)
    word = lambda v: ",".join(map(str, v)) if isinstance(v, tuple) else str(v)
    return np.array([word(value) for value in values])


def _outer(data: xr.Dataset) -> tuple[str, ...]:
    return tuple(map(str, data["reason"].dims))


def _at(found: xr.DataArray, dim: str, place: str) -> xr.DataArray:
    axis = found[dim]
    try:
        if axis.dtype.kind in "iuf":
            return found.sel({dim: float(place)}, method="nearest")
        return found.sel({dim: place})
    except (KeyError, ValueError):
        known = ", ".join(map(str, axis.values[:8]))
        raise ValueError(
            f"Argument `outcome` must name a place of {dim}, but {dim}={place!r}. Known: {known}."
        ) from None


def _ascending(values: list[Any]) -> list[Any]:
    """Numbers in order, other values as they came."""
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else values


def _columns(
    module: ModuleType, data: xr.Dataset, keep: Sequence[str], taken: set[str]
) -> dict[str, Column]:
    """What is merged of one result."""
    from attnflow.errors import check_choice

    for name in keep:
        check_choice(name, "keep", map(str, data.data_vars))
    rename = lambda name: f"{name}_of_run" if name in taken else str(name)
    numbers: dict[str, Any] = module.numbers(data)
    found: dict[str, Column] = {}
    for name in dict.fromkeys([*numbers, *keep]):
        value = numbers.get(name, ())
        if value is None or isinstance(value, bool | int | float | str):
            found[rename(name)] = ((), np.asarray(np.nan if value is None else value), {})
        elif name in data.data_vars and data[name].dtype.kind in "biufU":
            one = data[name]
            attrs = {k: v for k, v in one.attrs.items() if k in ("long_name", "units")}
            found[rename(name)] = (tuple(map(rename, one.dims)), one.values, attrs)
    return found


def _note_axes(axes: dict[str, Any], data: xr.Dataset, taken: set[str]) -> None:
    """Keep the coordinates of dimensions that are the same in all results; None where they differ."""
    for name in map(str, data.dims):
        dim = f"{name}_of_run" if name in taken else name
        values = data[name].values if name in data.coords else None
        if dim not in axes:
            axes[dim] = values
        elif values is None or axes[dim] is None or not np.array_equal(axes[dim], values):
            axes[dim] = None


def _stack(
    rows: list[dict[str, Column] | None], sizes: tuple[int, ...], dims: tuple[str, ...]
) -> tuple[dict[str, Column], set[str]]:
    """Columns of all rows on top of each other, and the names of those that do not fit."""
    there = [row for row in rows if row is not None]
    names = list(dict.fromkeys(name for row in there for name in row))
    stacked, left_out = {}, set()
    for name in names:
        some = [row[name] for row in there if name in row]
        if len(some) < len(there) or len({(inner, v.shape) for inner, v, _ in some}) > 1:
            left_out.add(name)
            continue
        (inner, first, attrs), values = some[0], [v for _, v, _ in some]
        words = {v.dtype.kind == "U" for v in values}
        if len(words) > 1:
            left_out.add(name)
            continue
        gap = np.full(first.shape, "" if words == {True} else np.nan)
        block = np.stack([gap if row is None else row[name][1] for row in rows])
        stacked[name] = ((*dims, *inner), block.reshape(*sizes, *first.shape), attrs)
    return stacked, left_out
