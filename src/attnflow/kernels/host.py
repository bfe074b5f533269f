r"""Fast sums in NumPy: $\sum_j u_j e^{\beta(\langle q_i, k_j\rangle - 1)}$ by Fourier modes, and rows that need better.

One transform of the keys, one product of modes, one transform back to the queries.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import NamedTuple

import numpy as np

from attnflow.errors import available_memory
from attnflow.kernels.spaces import Space, modes_needed
from attnflow.kernels.torus import FINEST, each, to_modes, to_points, unpack

ROUNDING = 1e-13
"""Error of a sum, rounding alone, in units of the norm of the density."""
BEST = 1e-9
"""Largest error of log Z where no accuracy is asked for."""
NEAR = 0.9
"""Length of the mean token from which payloads are taken from their centre."""
UNIT = {"float64": 1e-12, "float32": 1e-6}
"""How far from 1 squared lengths may be, by the dtype that tokens had."""
ROWS_AT_ONCE, MANY = 16, 2**30
PAIRS = 2**24
"""Pairs that may be summed directly for rows that are better than asked."""


class Grid(NamedTuple):
    """Modes |k| <= cut, the tolerance of transforms, and the truncation error."""

    cut: int
    tolerance: float
    truncation: float


@cache
def grid(space: Space, beta: float, accuracy: float | None) -> Grid:
    """Modes and tolerances for sums whose error, of uniform tokens, is well below `accuracy`; None for the best."""
    tolerance = FINEST if accuracy is None else max(FINEST, accuracy / 100 / spread(space, beta))
    cut = modes_needed(space, beta, tolerance / 100)
    return Grid(cut, tolerance, space.truncation(beta, cut))


def spread(space: Space, beta: float) -> float:
    r"""About $\|\mu\|/Z$ of uniform tokens: $a_0^{-1/2}$, a_0 the mean of $e^{\beta(\langle x, y\rangle - 1)}$."""
    return (1 + 2 * np.pi * beta) ** ((space.dimension - 1) / 4)


def finest(space: Space, beta: float) -> float:
    """Smallest accuracy that `row_bound` promises for uniform tokens; below it all rows would be summed directly."""
    return 2**1.5 * (2 * FINEST + ROUNDING) * spread(space, abs(beta))


def too_large(space: Space, beta: float, accuracy: float | None) -> str | None:
    """A sentence if the modes for this beta do not fit into memory."""
    needed, free = space.memory(grid(space, abs(beta), accuracy).cut), available_memory()
    if needed <= free / 2:
        return None
    return (
        f"beta = {beta:g} needs {grid(space, abs(beta), accuracy).cut} modes on the {space.name}, "
        f"{needed / 2**30:.2g} GiB, but {free / 2**30:.2g} GiB are free"
    )


def pair_sums(space: Space, q, k, beta: float, columns, accuracy: float | None) -> np.ndarray:
    r"""$\sum_j u_j e^{\beta\langle q_i, k_j\rangle - |\beta|}$ of columns u, shape (m, c), at the queries: (n, c)."""
    size = np.abs(columns).max(axis=0, initial=0.0)
    size = np.where(size > 0, size, 1.0)
    out = np.empty((len(q), columns.shape[1]))
    _transform(space, q, k, beta, columns / size, accuracy, lambda part, v: unpack(v, out[part]))
    return out * size


def _transform(space, q, k, beta, columns, accuracy, write, *, tokens=False):
    """Hand sums to `write` by parts of the queries; the norm of the densities comes back.

    With `tokens` the columns are weights, or None for ones, and the sums are those of (1, x_1, ..., x_d) too.
    """
    at = space.angles(k)
    there = at if q is k and beta >= 0 else space.angles(q if beta >= 0 else -q)
    beta, cut = abs(beta), grid(space, abs(beta), accuracy).cut
    tolerance = grid(space, beta, accuracy).tolerance
    width = 2 * (cut + tokens) + 1
    modes = to_modes(at, columns, (width,) * len(at), tolerance)
    if tokens:
        modes = space.shifted(modes[0])
    convolved = space.convolve(modes, beta)
    norm = np.sqrt(max(np.vdot(modes, convolved).real, 0.0))
    to_points(there, convolved, tolerance, write)
    return norm


def mean_and_log_z(
    space: Space,
    accuracy: float | None,
    q,
    k,
    v,
    w,
    beta: float,
    mean,
    log_z,
    dtype: str = "float64",
):
    r"""Kernel sum in float64, written to `mean` (n, p) and `log_z` (n,).

    The error of log Z_i is at most `row_bound`, that of the mean at most twice that, in units of the payload.
    Rows for which that is more than the accuracy are summed directly, all pairs.

    Args:
        space: Circle or sphere.
        accuracy: Largest error of log Z and, in units of the payload, of the mean; None for the best.
        q: Queries (n, d), unit vectors.
        k: Keys (m, d); the same object as q, if they are.
        v: Payload (m, p); the same object as k, if it is.
        w: Weights (m,), or None for ones.
        beta: Inverse temperature.
        mean: Output.
        log_z: Output.
        dtype: What the tokens were rounded to.
    """
    n, p = mean.shape
    total = float(len(k)) if w is None else float(w.sum())
    wanted = BEST if accuracy is None else accuracy
    if not all(
        np.isfinite(a).all()
        for a in {id(a): a for a in (q, k, v, beta, w) if a is not None}.values()
    ):
        mean[:], log_z[:] = np.nan, np.nan
        return
    everything = lambda: _direct_rows(np.arange(n), q, k, v, w, beta, mean, log_z)
    if not total > 0:
        return everything()
    if (reason := _reason_not_to(space, q, k, beta, accuracy, UNIT[dtype])) is not None:
        _warn_once(f"{reason}: all {n * len(k):.2g} pairs are summed instead.")
        return everything()
    centre = v.mean(axis=0) if w is None else w @ v / total
    tokens = v is k and bool(centre @ centre < NEAR**2)
    if tokens:
        centre, size, columns = np.zeros(p), np.ones(p), None if w is None else w[:, None]
    else:
        offset = v - centre
        size = np.abs(offset).max(axis=0, initial=0.0)
        size[size == 0] = 1.0
        ones = np.ones(len(k)) if w is None else w
        columns = np.column_stack([ones, ones[:, None] * (offset / size)])
    z = np.empty(n)

    def write(part: slice, values: np.ndarray) -> None:
        sums = np.empty((values.shape[1], p + 1))
        unpack(values, sums)
        z[part] = sums[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_z[part] = np.log(sums[:, 0]) + abs(beta)
            mean[part] = sums[:, 1:] / sums[:, :1] * size + centre

    try:
        norm = _transform(space, q, k, beta, columns, accuracy, write, tokens=tokens and p > 0)
    except Exception as error:
        _warn_once(f"finufft failed ({error}): all {n * len(k):.2g} pairs are summed instead.")
        return everything()
    bound = row_bound(space, beta, accuracy, z, norm, total)
    poor = ~(2 * bound <= wanted)
    if accuracy is None and q is k and v is k:
        poor = _poorer(poor, bound, _speed(q, mean), len(k))
    if (pairs := poor.sum() * len(k)) > MANY and poor.sum() > n / 10:
        _warn_once(
            f"{poor.sum()} of {n} rows are too far from the others for an accuracy of {wanted:g} at "
            f"beta = {beta:g}: their {pairs:.2g} pairs are summed instead."
        )
    if poor.any():
        _direct_rows(np.flatnonzero(poor), q, k, v, w, beta, mean, log_z)


def row_bound(space: Space, beta: float, accuracy: float | None, z, norm: float, total: float):
    r"""Bound on the error of log Z_i, $((2\,\mathrm{tol} + 10^{-13})\|\mu\| + \mathrm{truncation}\cdot W)/Z_i$.

    Z in units of $e^{|\beta|}$. The first term is the tolerance of two transforms and their rounding, relative
    to $\|\mu\|^2 = \sum_{ij} w_i w_j (1 + \langle v_i, v_j\rangle)e^{\beta(\cos\theta_{ij} - 1)}$; its constants are
    measured, with a margin. The second, with W the total weight, is a theorem.
    """
    chosen = grid(space, abs(beta), accuracy)
    with np.errstate(divide="ignore"):
        error = (2 * chosen.tolerance + ROUNDING) * norm + chosen.truncation * total
        return np.where(z > 0, error / np.where(z > 0, z, 1.0), np.inf)


def _speed(x, mean) -> float:
    """Largest length of the tangent part of the means."""
    tangent = mean - np.einsum("nd,nd->n", x, mean)[:, None] * x
    return float(np.sqrt(np.nanmax(np.einsum("nd,nd->n", tangent, tangent))))


def _poorer(poor, bound, speed: float, m: int):
    """Rows to sum directly, a few lonely ones more: those whose error may count beside the largest speed."""
    more = ~(bound <= 5e-10 * speed)
    return more if more.sum() * m <= PAIRS else poor


def _direct_rows(rows, q, k, v, w, beta: float, mean, log_z) -> None:
    """Sum rows over all pairs, shifted by their largest score; each by itself, so that bits do not depend on others."""
    logs = None if w is None else np.log(w, where=w > 0, out=np.full(len(w), -np.inf))

    def one(part: slice) -> None:
        for i in rows[part]:
            scores = k @ (beta * q[i])
            if logs is not None:
                scores += logs
            top = scores.max()
            if not np.isfinite(top):
                mean[i], log_z[i] = 0.0, -np.inf
                continue
            e = np.exp(scores - top)
            z = e.sum()
            mean[i], log_z[i] = e @ v / z, np.log(z) + top

    with np.errstate(divide="ignore"):
        each(one, [slice(a, a + ROWS_AT_ONCE) for a in range(0, len(rows), ROWS_AT_ONCE)])


def _reason_not_to(
    space: Space, q, k, beta: float, accuracy: float | None, unit: float
) -> str | None:
    """Why the fast sum cannot be taken, if so."""
    for x, name in [(k, "keys")] if q is k else [(q, "queries"), (k, "keys")]:
        off = np.abs(np.einsum("nd,nd->n", x, x) - 1).max(initial=0.0)
        if off > unit:
            return f"The {name} are not unit vectors (|x|² is off by {off:.1e})"
    return too_large(space, beta, accuracy)


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
