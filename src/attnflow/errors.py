"""One voice for every message: what was wrong, the value, the remedy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

SPHERE_TOL = 1e-5


def concrete(value: Any) -> bool:
    """Whether a value can be read now, or is known only under jit, grad or vmap."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check_tokens(x: Any, name: str = "x", *, unit: bool = True) -> None:
    """Raise `ValueError` unless `x` is a finite (n, d) float array, d >= 2, of unit (or nonzero) rows."""
    try:
        shape = np.shape(x)
    except ValueError:
        raise ValueError(
            f"Argument `{name}` must have shape (n, d), but rows of {name} differ in length."
        ) from None
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            f"Argument `{name}` must have shape (n, d) with n >= 1 and d >= 2, "
            f"but {name}.shape={shape}."
        )
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"Argument `{name}` must hold real floating-point numbers, but {name}.dtype={dtype}. "
            f"Pass `np.asarray({name}, float)`."
        )
    if not concrete(x):
        return
    norms = np.linalg.norm(np.asarray(x, dtype=float), axis=-1)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise ValueError(
            f"Argument `{name}` must be finite, but {len(bad)} of {len(norms)} rows hold NaN or inf, "
            f"first {name}[{bad[0]}]. Remove them or fill them in."
        )
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise ValueError(
            f"Argument `{name}` must have a direction in every row, but {len(zero)} rows are zero, "
            f"first {name}[{zero[0]}]. Remove them."
        )
    error = np.abs(norms - 1).max()
    if unit and error > SPHERE_TOL:
        raise ValueError(
            f"Argument `{name}` must hold unit vectors, but one norm is off by {error:.1e}. "
            f"Pass `sphere.normalize({name})`."
        )


def check_finite(value: Any, name: str) -> None:
    """Raise `ValueError` if a value, readable now, holds NaN or inf, or is no number."""
    if concrete(value) and not np.all(np.isfinite(_numbers(value, name))):
        raise ValueError(f"Argument `{name}` must be finite, but {name}={_show(value)}.")


def check_between(
    value: Any,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    remedy: str = "",
) -> None:
    """Raise `ValueError` unless every entry, readable now, lies between two numbers."""
    if not concrete(value):
        return
    array = _numbers(value, name)
    above = array > low if open_low else array >= low
    below = array < high if open_high else array <= high
    if not np.all(above & below):
        left = f"{name} {'>' if open_low else '>='} {low:g}" if low > -math.inf else ""
        right = f"{name} {'<' if open_high else '<='} {high:g}" if high < math.inf else ""
        condition = " and ".join(part for part in (left, right) if part) or "not be NaN"
        raise ValueError(
            f"Argument `{name}` must satisfy {condition}, but {name}={_show(value)}."
            + (f" {remedy}" if remedy else "")
        )


def check_increasing(ts: Any, name: str = "ts") -> None:
    """Raise `ValueError` unless `ts` is a finite, strictly increasing (t,) array, t >= 2."""
    if len(np.shape(ts)) != 1 or np.shape(ts)[0] < 2:
        raise ValueError(
            f"Argument `{name}` must be a list of at least two times, but {name}.shape={np.shape(ts)}."
        )
    check_finite(ts, name)
    if concrete(ts):
        ts = np.asarray(ts)
        gaps = np.diff(np.asarray(ts, dtype=float))
        if np.any(gaps <= 0):
            at = int(np.argmax(gaps <= 0))
            raise ValueError(
                f"Argument `{name}` must increase strictly, but {name}[{at}]={float(ts[at]):g} and "
                f"{name}[{at + 1}]={float(ts[at + 1]):g}. Pass `np.unique({name})`."
            )


def check_choice(value: str, name: str, known: Iterable[str]) -> None:
    """Raise `ValueError` unless a name is known; list the known, suggest the nearest."""
    known = sorted(known)
    if value not in known:
        near = get_close_matches(str(value), known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(known)}, but {name}='{value}'.{hint}"
        )


def check_functions(functions: Any, name: str = "") -> None:
    """Raise `ValueError` unless `functions` is a dict of functions, {name: function}."""
    if not isinstance(functions, Mapping):
        raise ValueError(
            f"Argument `{name}` must be a dict of functions, but {name}={functions!r}. "
            f"Pass `{{'name': function}}`."
        )
    for key, function in functions.items():
        if not callable(function):
            label = f"{name}['{key}']" if name else key
            raise ValueError(f"Argument `{label}` must be a function, but {label}={function!r}.")


def check_count(value: Any, name: str, low: int = 1) -> None:
    """Raise `ValueError` unless a value is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(
            f"Argument `{name}` must be a whole number >= {low}, but {name}={_show(value)}."
        )


def check_weights(weights: Any, n: int, name: str = "weights") -> None:
    """Raise `ValueError` unless `weights` is (..., n), finite, >= 0, and sums to 1."""
    check_finite(weights, name)
    if np.shape(weights)[-1:] != (n,):
        raise ValueError(
            f"Argument `{name}` must have shape ({n},), one weight a token, "
            f"but {name}.shape={np.shape(weights)}."
        )
    check_between(weights, name, low=0.0)
    if concrete(weights):
        totals = np.ravel(np.sum(np.asarray(weights, float), axis=-1))
        off = totals[np.abs(totals - 1).argmax()]
        if abs(off - 1) > 1e-5:
            raise ValueError(
                f"Argument `{name}` must sum to 1, but its sum is {off:g}. "
                f"Pass `{name} / {name}.sum()`."
            )


def check_shape(value: Any, name: str, *shapes: tuple[int, ...]) -> None:
    """Raise `ValueError` unless a value has one of the shapes."""
    if np.shape(value) not in shapes:
        known = " or ".join(f"have shape {shape}" if shape else "be one number" for shape in shapes)
        raise ValueError(f"Argument `{name}` must {known}, but {name}.shape={np.shape(value)}.")


def _numbers(value: Any, name: str) -> np.ndarray:
    """Value as floats."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "cUSMm":
            return array.astype(float)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"Argument `{name}` must be a number, but {name}={_short(value)}.")


def _show(value: Any) -> str:
    """Short text of an offending value, in one line."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return _short(value)
    if array.ndim == 0:
        return _short(array.item())
    return " ".join(np.array2string(array, threshold=6, edgeitems=2).split())


def _short(value: Any) -> str:
    """How Python writes a value, cut to 60 letters of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_memory(needed: int, what: str) -> None:
    """Raise `MemoryError` before work starts if it needs more memory than is free."""
    free = available_memory()
    if needed > free:
        raise MemoryError(
            f"{what} needs about {float(min(needed, 2**999)) / 2**30:.2g} GiB, but {free / 2**30:.2g} GiB are free. "
            "Take fewer tokens or save fewer states."
        )


def available_memory() -> int:
    """Bytes that can be taken without swapping; a large number where the system does not say."""
    try:
        with Path("/proc/meminfo").open() as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 2**62
