"""Reading arguments: numbers in the announced shape, or one sentence that says why not."""

import numpy as np
from numpy.typing import ArrayLike

from attnflow.errors import check_finite, check_increasing


def read(name: str, value: ArrayLike, **sizes: int | None) -> np.ndarray:
    """`value` as a float array whose axes are named, in order, by `sizes`.

    Args:
        name: Argument name, for the message.
        value: What the caller passed.
        sizes: One keyword per axis: its length, or `None` when any length >= 1 will do.

    Raises:
        ValueError: If `value` does not hold real numbers or has another shape.
    """
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"Argument `{name}` must hold real numbers, but it holds a {type(value).__name__} that "
            "NumPy cannot convert. Pass a rectangular array of floats or integers."
        ) from None
    known = [f"{axis}={size}" for axis, size in sizes.items() if size is not None]
    fits = array.ndim == len(sizes) and all(
        got >= 1 if want is None else got == want
        for got, want in zip(array.shape, sizes.values(), strict=True)
    )
    if not fits:
        shape = ", ".join(sizes) + ("," if len(sizes) == 1 else "")
        free = [f"{axis} >= 1" for axis, size in sizes.items() if size is None]
        raise ValueError(
            f"Argument `{name}` must have shape ({shape}) with {', '.join(known + free)}, "
            f"but {name}.shape={array.shape}."
        )
    return array


def read_times(ts: ArrayLike, name: str = "ts") -> np.ndarray:
    """Finite, strictly increasing numbers, shape (t,)."""
    array = read(name, ts, t=None)
    check_finite(array.ravel(), name)
    if len(array) > 1:
        check_increasing(array, name)
    return array


def read_tokens(x: ArrayLike, name: str = "x", *, d: int | None = None) -> np.ndarray:
    """Finite tokens of dimension d >= 2, of any norm, shape (n, d)."""
    array = read(name, x, n=None, d=d)
    if array.shape[-1] < 2:
        raise ValueError(
            f"Argument `{name}` must have shape (n, d) with d >= 2, but {name}.shape={array.shape}."
        )
    check_finite(array.ravel(), name)
    return array
