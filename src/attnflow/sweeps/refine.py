"""Refinement along a transition: halve the cells of an axis, or of two, where the outcome changes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np

from attnflow import store
from attnflow.sweeps.design import check_fields
from attnflow.sweeps.merge import layout, measured, merge
from attnflow.sweeps.sweep import conclude, perform_all, plan, results

if TYPE_CHECKING:
    import xarray as xr

    from attnflow.sweeps.tasks import Outcome

Cell = tuple[tuple[Any, Any], ...]
"""Lower and upper value on each axis."""


def refine(
    experiment: str,
    points: Sequence[Any],
    axes: str | Sequence[str],
    outcome: str,
    *,
    threshold: float | None = None,
    levels: int = 3,
    executor: Any = None,
    out: Path | str = "runs",
    retry: bool = False,
    keep: Sequence[str] = (),
    progress: bool = True,
) -> xr.Dataset:
    """Results of a product design and of points between, where the outcome changes.

    A cell is what lies between neighbouring values of the axes. If corners of it lie on both sides of
    the threshold, or without one have different outcomes, for any of the other settings, such as seeds,
    it is halved on each axis; so again, `levels` times. Cells of whole numbers end at neighbours. A
    change within a cell whose corners agree is not seen. Tasks that failed count on no side.

    Args:
        experiment: Name of the experiment.
        points: Configs of a product design.
        axes: One or two fields of numbers, two or more values each.
        outcome: What changes, see `measured`.
        threshold: Number that it crosses; needed where it is no whole number, truth or word.
        levels: How often cells are halved, >= 1.
        executor: As of `sweep`, like all that follows.
        out: Folder of all runs.
        retry: Do again what failed before.
        keep: Further variables to merge.
        progress: Whether to show progress.

    Returns:
        Merged results of all points, as of `sweep`; the attribute `transition` is the JSON of
        the smallest cells in which the outcome changes, a [low, high] for each axis.

    Raises:
        ValueError: As of `sweep`; if an axis is not swept, or the outcome needs a threshold.
    """
    folder = refined(
        experiment, points, axes, outcome, threshold=threshold, levels=levels, executor=executor,
        out=out, retry=retry, keep=keep, progress=progress,
    )  # fmt: skip
    return store.load(folder)


def refined(
    experiment: str,
    points: Sequence[Any],
    axes: str | Sequence[str],
    outcome: str,
    *,
    threshold: float | None,
    levels: int,
    executor: Any,
    out: Path | str,
    retry: bool,
    keep: Sequence[str],
    progress: bool,
) -> Path:
    """Folder of a sweep that `refine` made."""
    from attnflow.errors import check_count

    check_count(levels, "levels")
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    cells = _first_cells(experiment, points, names)
    ground = dict(zip(names, (side[0] for side in cells[0]), strict=True))
    place = lambda point: (tuple(getattr(point, n) for n in names), replace(point, **ground))
    known = {place(point): point for point in points}
    others = list(dict.fromkeys(other for _, other in known))
    tasks, changing = [], []
    outcomes: dict[str, Outcome] = {}
    for level in range(levels + 1):
        tasks = plan(experiment, list(known.values()), out)
        new = [task for task in tasks if task.folder.name not in outcomes]
        outcomes |= perform_all(new, executor, retry=retry, progress=progress)
        data = merge(
            experiment, list(known.values()), results(tasks, outcomes),
            runs=[task.folder.name for task in tasks],
            reasons=[outcomes[task.folder.name].reason for task in tasks], keep=keep,
        )  # fmt: skip
        side_of_run = _sides(data, outcome, threshold)
        sides = {k: side_of_run[task.folder.name] for k, task in zip(known, tasks, strict=True)}
        changing = [cell for cell in cells if _changes(cell, others, sides)]
        cells = [half for cell in changing for half in _halves(cell)]
        if level == levels or cells == changing:
            break
        for corner, other in itertools.product(_corners(*cells), others):
            if (corner, other) not in known:
                known[corner, other] = replace(other, **dict(zip(names, corner, strict=True)))
    attrs = {"refined": list(names), "transition": json.dumps(changing)}
    return conclude(
        experiment, list(known.values()), tasks, outcomes,
        out=out, keep=keep, outcome=outcome, attrs=attrs,
    )  # fmt: skip


def _first_cells(experiment: str, points: Sequence[Any], names: tuple[str, ...]) -> list[Cell]:
    """Cells between neighbouring values of the axes."""
    check_fields(experiment, names)
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise ValueError(f"Argument `axes` must be one field or two, but axes={list(names)}.")
    hints, sides = get_type_hints(type(points[0])), []
    for name in names:
        values = {getattr(point, name) for point in points}
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise ValueError(f"Argument `axes` must be fields of numbers, but {name} is not.")
        if len(values) < 2:
            raise ValueError(
                f"Argument `axes` must be swept over two values or more, but {name} has one."
            )
        real = float in (hints[name], *get_args(hints[name]))
        sides.append(list(itertools.pairwise(sorted(map(float, values) if real else values))))
    if "task" in layout(points)[1]:
        raise ValueError(
            "Argument `points` must be a product design, but it is not. Take `product`."
        )
    return list(itertools.product(*sides))


def _halves(cell: Cell) -> list[Cell]:
    """Halves on every axis; an axis of neighbouring whole numbers, or equal floats, stays as it is."""
    parts = []
    for low, high in cell:
        middle = (low + high) // 2 if isinstance(low, int) else low + (high - low) / 2
        inner = low < middle < high
        parts.append([(low, middle), (middle, high)] if inner else [(low, high)])
    return list(itertools.product(*parts))


def _corners(*cells: Cell) -> Iterable[tuple[Any, ...]]:
    """Corners of cells, each once."""
    return dict.fromkeys(corner for cell in cells for corner in itertools.product(*cell))


def _changes(cell: Cell, others: Sequence[Any], sides: dict[Any, Any]) -> bool:
    """Whether corners lie on different sides, for any of the other settings."""
    seen = ({sides[corner, other] for corner in _corners(cell)} - {None} for other in others)
    return any(len(some) > 1 for some in seen)


def _sides(data: xr.Dataset, outcome: str, threshold: float | None) -> dict[str, Any]:
    """On which side each run lies; None for those without a number."""
    found = measured(data, outcome)
    values, runs = found.values.ravel(), data["run"].values.ravel().tolist()
    if found.dtype.kind == "U":
        return {run: str(v) or None for run, v in zip(runs, values, strict=True)}
    there = ~np.isnan(values.astype(float))
    if threshold is None and not np.array_equal(values[there], np.floor(values[there])):
        raise ValueError(
            f"Argument `threshold` must be given, since {outcome} is no whole number, but "
            "threshold=None. Pass the number that it crosses."
        )
    sides = values if threshold is None else values >= threshold
    pairs = zip(runs, sides.tolist(), there.tolist(), strict=True)
    return {run: side if known else None for run, side, known in pairs}
