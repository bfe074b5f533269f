r"""Non-uniform Fourier transforms of real columns, two to a complex transform, on fixed parts of the points.

The points are cut into parts whose number depends on sizes alone; each part is transformed by one thread and
parts are added in order, so that results have the same bits whatever the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

FINEST = 1e-14
"""Smallest tolerance of a transform; below, rounding rules."""
PARTS = 8
SHORTEST, LONGEST = 2**13, 2**17
"""Points of a part: sums of more grow rounding errors, FFTs of fewer cost more than their points."""
ADDED_AT_ONCE = 1024
"""Points that a transform adds up before it adds sums: it keeps equal points from piling rounding up."""

Coordinates = tuple[np.ndarray, ...]
"""Angles of points, one array (n,) per axis of the torus, in [-pi, pi]."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads())


def threads() -> int:
    """Number of threads: OMP_NUM_THREADS, else the processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[[Any], Any], items: Any) -> list:
    """Results of a function on items, in order, computed by all threads."""
    return list(_pool().map(function, items))


def parts(n: int, modes: int) -> list[slice]:
    """Ranges of points: up to PARTS, more only where there are more than LONGEST in each."""
    count = max(min(PARTS, n // max(SHORTEST, 2 * modes)), -(-n // LONGEST))
    edges = np.linspace(0, n, max(count, 1) + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(edges.tolist())]


def to_modes(at: Coordinates, columns: np.ndarray | None, shape: tuple[int, ...], tolerance: float):
    r"""$\sum_j u_j e^{-i\langle k, \theta_j\rangle}$ for all |k| <= K, complex, shape (c', *shape).

    Args:
        at: Angles of the points.
        columns: Real columns u, shape (n, c), paired as u_0 + i u_1, ...: c' = ceil(c/2); None for u = 1.
        shape: Numbers of modes 2K + 1 of each axis.
        tolerance: Relative accuracy of the transform.
    """
    import finufft

    count = 1 if columns is None else -(-columns.shape[1] // 2)

    def one(part: slice) -> np.ndarray:
        options: dict[str, Any] = {"nthreads": 1, "spread_max_sp_size": ADDED_AT_ONCE}
        plan = finufft.Plan(1, shape, count, tolerance, -1, **options)
        plan.setpts(*(a[part] for a in at))
        size = part.stop - part.start
        strengths = np.ones((1, size), complex) if columns is None else packed(columns[part])
        return plan.execute(strengths).reshape(count, *shape)

    total, *others = each(one, parts(len(at[0]), int(np.prod(shape))))
    for other in others:
        total += other
    return total


def to_points(
    at: Coordinates, modes: np.ndarray, tolerance: float, write: Callable[[slice, np.ndarray], None]
) -> None:
    r"""$\sum_k f_k e^{i\langle k, \theta_i\rangle}$ at the points, handed to `write(part, values)` by parts.

    Args:
        at: Angles of the points.
        modes: Coefficients f, complex, shape (c', *shape).
        tolerance: Relative accuracy of the transform.
        write: Takes a range of points and values there, complex, shape (c', size).
    """
    import finufft

    count, shape = len(modes), modes.shape[1:]

    def one(part: slice) -> None:
        plan = finufft.Plan(2, shape, count, tolerance, 1, nthreads=1)
        plan.setpts(*(a[part] for a in at))
        write(part, plan.execute(modes if count > 1 else modes[0]).reshape(count, -1))

    each(one, parts(len(at[0]), int(np.prod(shape))))


def packed(columns: np.ndarray) -> np.ndarray:
    """Real columns (n, c) as complex rows u_0 + i u_1, ..., shape (ceil(c/2), n)."""
    n, c = columns.shape
    rows = np.zeros((-(-c // 2), n, 2))
    rows[:, :, 0] = columns[:, 0::2].T
    rows[: c // 2, :, 1] = columns[:, 1::2].T
    return rows.view(complex)[:, :, 0]


def unpack(values: np.ndarray, out: np.ndarray) -> None:
    """Undo `packed`: complex rows (c', n) into real columns `out`, shape (n, c)."""
    c = out.shape[1]
    out[:, 0::2] = np.real(values).T
    out[:, 1::2] = np.imag(values)[: c // 2].T
