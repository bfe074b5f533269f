"""Argument checks of the oracles, in the voice of `attnflow.errors`, with NumPy alone."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Number = float | int | np.floating | np.integer | np.ndarray
"""A scalar, or an array of shape ()."""
Numbers = ArrayLike | list | tuple
"""An array of any shape, or what NumPy makes one of, JAX arrays too."""


def check(
    ok: bool | np.bool_ | np.ndarray, name: str, must: str, value: Numbers, remedy: str = ""
) -> None:
    """Raise `ValueError` unless `ok` everywhere; show the first value that is not."""
    if np.all(ok):
        return
    array = np.asarray(value)
    if np.ndim(ok) and np.shape(ok) == array.shape:
        array = np.asarray(array[~np.asarray(ok)][0])
    shown = str(array) if array.size <= 6 else f"an array of shape {array.shape}"
    raise ValueError(f"Argument `{name}` must {must}, but {name}={shown}. {remedy}".rstrip())


def numbers(value: Any, name: str) -> np.ndarray:
    """Return `value` as a float array; raise `ValueError` if it is none."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "cUSMm":
            return array.astype(float)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"Argument `{name}` must be a number, but {name}={_show(value)}.")


def one(check: Callable[..., np.ndarray], value: Numbers, name: str, *bounds: Any) -> float:
    """Return what a check of this module makes of `value`, if that is one number."""
    array = check(value, name, *bounds)
    if array.ndim:
        raise ValueError(f"Argument `{name}` must be one number, but {name}.shape={array.shape}.")
    return float(array)


def check_finite(value: Numbers, name: str) -> np.ndarray:
    """Return `value` as a float array, all finite."""
    array = numbers(value, name)
    check(np.isfinite(array), name, "be finite", array)
    return array


def check_positive(value: Numbers, name: str, remedy: str = "") -> np.ndarray:
    """Return `value` as a float array, finite and > 0."""
    array = numbers(value, name)
    check(np.isfinite(array) & (array > 0), name, "be finite and > 0", array, remedy)
    return array


def check_nonnegative(value: Numbers, name: str, remedy: str = "") -> np.ndarray:
    """Return `value` as a float array, finite and >= 0."""
    array = numbers(value, name)
    check(np.isfinite(array) & (array >= 0), name, "be finite and >= 0", array, remedy)
    return array


def check_between(
    value: Numbers, name: str, low: Number, high: Number, remedy: str = ""
) -> np.ndarray:
    """Return `value` as a float array inside the closed interval [low, high]."""
    array = numbers(value, name)
    inside = (array >= low) & (array <= high)
    check(inside, name, f"lie in [{low:.6g}, {high:.6g}]", array, remedy)
    return array


def check_count(value: int | np.integer, name: str, low: int) -> int:
    """Return a whole number >= low."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    check(whole and value >= low, name, f"be a whole number >= {low}", value)
    return int(value)


def check_times(ts: Numbers) -> np.ndarray:
    """Return `ts` as a float array of shape (t,), t >= 1, finite and strictly increasing."""
    ts = check_finite(ts, "ts")
    if ts.ndim != 1 or len(ts) == 0:
        raise ValueError(f"Argument `ts` must be a list of times, but ts.shape={ts.shape}.")
    rises = np.diff(ts) > 0
    remedy = "Pass `np.unique(ts)`."
    check(np.append(True, rises), "ts", "increase strictly", ts, remedy)
    return ts


def check_shape(value: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless an array has this shape."""
    if value.shape != shape:
        raise ValueError(
            f"Argument `{name}` must have shape {shape}, but {name}.shape={value.shape}."
        )


def check_weights(
    query: Numbers, key: Numbers, value: Numbers, d: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Q, K of one shape (h, d) and V of shape (d, d); a number is a multiple of the identity."""
    eye = np.eye(d)
    named = ((query, "query"), (key, "key"), (value, "value"))
    arrays = [check_finite(matrix, name) for matrix, name in named]
    q, k, v = (array * eye if array.ndim == 0 else array for array in arrays)
    height = k.shape[0] if k.ndim == 2 else d
    for matrix, name, rows in ((k, "key", height), (q, "query", height), (v, "value", d)):
        check_shape(matrix, name, (rows, d))
    return q, k, v


def check_choice(value: str, name: str, known: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is known; list the known, suggest the nearest."""
    if value not in known:
        near = get_close_matches(str(value), known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(known)}, but {name}='{value}'.{hint}"
        )


def _show(value: Any) -> str:
    """Short text of a value that is no number, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
