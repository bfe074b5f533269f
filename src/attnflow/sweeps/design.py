"""Designs: values of fields to a list of configs. A list, range or array varies, all else is fixed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np


@dataclass(frozen=True)
class Between:
    """Values of a random design, uniform between two numbers, or in their logarithm."""

    low: float
    """Smallest value."""
    high: float
    """Largest value; of a field of whole numbers it counts."""
    log: bool = False
    """Uniform in log value; both numbers are > 0 then."""


def product(experiment: str, /, **axes: Any) -> list[Any]:
    """Configs of every combination of values; those of the last field vary fastest.

    Args:
        experiment: Name of the experiment.
        axes: Fields of its Config. A list, range or array varies; any other value, also a tuple, is
            the same everywhere.

    Returns:
        Configs, one a task.

    Raises:
        ValueError: For an unknown field, an axis that is empty, or one that repeats a value.
    """
    start, varied = _start(experiment, axes)
    for name, values in varied.items():
        values = _listed(name, values)
        if repeated := [value for k, value in enumerate(values) if value in values[:k]]:
            raise ValueError(
                f"Argument `{name}` must not repeat a value, but {repeated[0]!r} is there twice."
            )
        varied[name] = values
    rows = itertools.product(*varied.values())
    return [replace(start, **dict(zip(varied, row, strict=True))) for row in rows]


def zipped(experiment: str, /, **axes: Any) -> list[Any]:
    """Configs of the first values of all axes, of the second values, and so on.

    Args:
        experiment: Name of the experiment.
        axes: As of `product`; all lists have one length.

    Raises:
        ValueError: For an unknown field, an axis that is empty, or lists of unequal lengths.
    """
    start, varied = _start(experiment, axes)
    varied = {name: _listed(name, values) for name, values in varied.items()}
    lengths = {name: len(values) for name, values in varied.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"Axes of a zipped design must have one length, but {told}.")
    rows = zip(*varied.values(), strict=True) if varied else [()]
    return [replace(start, **dict(zip(varied, row, strict=True))) for row in rows]


def random(experiment: str, count: int, /, *, sweep_seed: int = 0, **axes: Any) -> list[Any]:
    """Configs of values drawn at random, each axis on its own.

    Args:
        experiment: Name of the experiment.
        count: Number of configs.
        sweep_seed: Seed of the draws.
        axes: As of `product`, where of a list each value is as likely; or `Between`.

    Raises:
        ValueError: For an unknown field, an axis that is empty, or numbers that are in no order.
    """
    from attnflow.errors import check_count

    check_count(count, "count")
    check_count(sweep_seed, "sweep_seed", low=0)
    start, varied = _start(experiment, axes)
    hints, dice = get_type_hints(type(start)), np.random.default_rng(sweep_seed)
    draws = {name: _sampler(name, values, hints[name]) for name, values in varied.items()}
    return [
        replace(start, **{name: draw(dice) for name, draw in draws.items()}) for _ in range(count)
    ]


def check_fields(experiment: str, names: Iterable[str], options: Iterable[str] = ()) -> None:
    """Raise `ValueError` unless an experiment and its fields are known; suggest the nearest.

    Args:
        experiment: Name of the experiment.
        names: Names that must be fields of its Config, or options.
        options: Further names that are known.
    """
    from difflib import get_close_matches

    from attnflow.errors import check_choice
    from attnflow.experiments import EXPERIMENTS, load

    check_choice(experiment, "experiment", EXPERIMENTS)
    known = [field.name for field in fields(load(experiment).Config)]
    for name in names:
        if name in (*known, *options):
            continue
        near = get_close_matches(name, [*known, *options], n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
        raise ValueError(
            f"Argument `{name}` must be a field of {experiment}, but there is none of this name. {hint}"
        )


def _start(experiment: str, axes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Config of the fixed values, and the axes that vary."""
    from attnflow.experiments import load

    check_fields(experiment, axes)
    varies = lambda values: isinstance(values, list | range | np.ndarray | Between)
    fixed = {name: _plain(value) for name, value in axes.items() if not varies(value)}
    return load(experiment).Config(**fixed), {
        name: values for name, values in axes.items() if varies(values)
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, Between):
        raise ValueError(
            f"Argument `{name}` must be a list here, but {name}={values}. Only random designs draw."
        )
    if not len(values):
        hint = " A range a:b stops before b." if isinstance(values, range) else ""
        raise ValueError(
            f"Argument `{name}` must hold at least one value, but {name}={values!r}.{hint}"
        )
    return values.tolist() if isinstance(values, np.ndarray) else [_plain(v) for v in values]


def _sampler(name: str, values: Any, hint: Any) -> Callable[[np.random.Generator], Any]:
    """Function that draws one value."""
    if not isinstance(values, Between):
        listed = _listed(name, values)
        return lambda dice: listed[dice.integers(len(listed))]
    low, high, whole = values.low, values.high, float not in (hint, *get_args(hint))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"Argument `{name}` must go up between two numbers, but {name}={low:g}..{high:g}."
        )
    if values.log and low <= 0:
        raise ValueError(f"Argument `{name}` must be > 0 in log, but {name}={low:g}..{high:g}.")
    if values.log:
        draw = lambda dice: math.exp(dice.uniform(math.log(low), math.log(high)))
        return lambda dice: round(draw(dice)) if whole else draw(dice)
    if whole:
        return lambda dice: int(dice.integers(math.ceil(low), math.floor(high) + 1))
    return lambda dice: float(dice.uniform(low, high))
