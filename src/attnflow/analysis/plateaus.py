"""What happens when: crossing times, counts that last, merges and plateaus."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from attnflow.errors import check_between, check_choice, check_count, check_increasing, check_shape

Numbers = np.ndarray | Array
SCALES = ("linear", "log", "logit")


def crossing_time(
    ts: Float[Numbers, " t"],
    y: Float[Numbers, "*b t"],
    level: float,
    *,
    scale: Literal["linear", "log", "logit"] = "linear",
) -> Float[np.ndarray, "*b"]:
    r"""First time at which y passes a level, rising or falling; inf if it never does.

    Interpolated between save times on the scale on which y is straight: log for what decays
    exponentially, logit $\log(y/(1-y))$ for shares that switch from 0 to 1. Where an end of the
    interval has no place on that scale (a share of 0 or 1, a value of 0) the interpolation is linear.

    Args:
        ts: Increasing times, shape (t,), t >= 2.
        y: Values, shape (..., t). Leading axes are mapped.
        level: Level to pass; positive for log, in (0, 1) for logit.
        scale: "linear", "log" or "logit".

    Returns:
        Times, shape (...). ts[0] if y starts at the level.

    Raises:
        ValueError: If ts does not increase, y does not fit it, or the level is not on the scale.
    """
    check_increasing(ts)
    check_choice(scale, "scale", SCALES)
    check_between(
        level,
        "level",
        low=-np.inf if scale == "linear" else 0.0,
        high=1.0 if scale == "logit" else np.inf,
        open_low=True,
        open_high=True,
        remedy="" if scale == "linear" else "Pass scale='linear'.",
    )
    ts, y = np.asarray(ts, float), np.asarray(y, float)
    check_shape(y, "y", (*y.shape[:-1], len(ts)))
    side = np.sign(y - level)
    passed = side != side[..., :1]
    passed[..., 0] = side[..., 0] == 0
    last = passed.argmax(axis=-1)[..., None]
    first = np.maximum(last - 1, 0)
    low, high = np.take_along_axis(y, first, -1), np.take_along_axis(y, last, -1)
    share = _share(low, high, level, _linear)
    if scale != "linear":
        curved = _share(low, high, level, np.log if scale == "log" else _logit)
        share = np.where(np.isfinite(curved), curved, share)
    times = ts[first] + np.where(last > 0, share, 0) * (ts[last] - ts[first])
    return np.where(passed.any(axis=-1), times[..., 0], np.inf)


def persistent_count(counts: Int[Numbers, "*b t"], *, saves: int = 3) -> Int[np.ndarray, "*b t"]:
    """Cluster count that never rises: a lower count holds once it lasts for `saves` save times.

    Single linkage may link two clusters by a passing token for a moment, and tokens that part were
    chained: both are noise around merges, which are for ever. The last `saves` - 1 counts have not
    lasted, and confirm nothing.

    Args:
        counts: Number of clusters at each save time, shape (..., t), t >= saves. Leading axes are
            mapped.
        saves: Number of consecutive save times, >= 1.

    Returns:
        Counts that do not increase in time, shape (..., t).
    """
    check_count(saves, "saves")
    counts = np.asarray(counts)
    check_count(counts.shape[-1], "counts.shape[-1]", low=saves)
    windows = np.lib.stride_tricks.sliding_window_view(counts, saves, axis=-1).max(axis=-1)
    held = np.minimum.accumulate(windows, axis=-1)
    tail = np.repeat(held[..., -1:], saves - 1, axis=-1)
    return np.concatenate([held, tail], axis=-1)


class Merges(NamedTuple):
    """Merges of clusters along one run.

    Attributes:
        times: Save times from which the lower count holds, shape (m,). The merge is between the
            save time before and this one.
        lost: Number of clusters lost at each, shape (m,), >= 1.
    """

    times: Float[np.ndarray, " m"]
    lost: Int[np.ndarray, " m"]


def merges(ts: Float[Numbers, " t"], counts: Int[Numbers, " t"], *, saves: int = 3) -> Merges:
    """Merges along one run, those that last for `saves` save times."""
    check_increasing(ts)
    check_shape(counts, "counts", np.shape(ts))
    lost = -np.diff(persistent_count(counts, saves=saves))
    at = np.flatnonzero(lost)
    return Merges(np.asarray(ts, float)[at + 1], lost[at])


class Plateau(NamedTuple):
    """A stretch of time over which a curve stays level.

    Attributes:
        start: First save time on it.
        end: Last save time on it.
        level: Middle of the values on it.
    """

    start: float
    end: float
    level: float


def plateaus(
    ts: Float[Numbers, " t"],
    y: Float[Numbers, " t"],
    *,
    tolerance: float,
    ratio: float = 2.0,
) -> list[Plateau]:
    """Plateaus of a curve in log time, from the first on, none overlapping another.

    From each time on the longest stretch whose values differ by at most `tolerance` is taken; it is
    a plateau if its end is at least `ratio` times its start. Times <= 0 are left out. O(t) stretches
    are tried, O(t) each at worst.

    Args:
        ts: Increasing times, shape (t,).
        y: Values, shape (t,).
        tolerance: Largest difference between values of one plateau, >= 0.
        ratio: Smallest ratio of end to start, > 1.
    """
    check_increasing(ts)
    check_shape(y, "y", np.shape(ts))
    check_between(tolerance, "tolerance", low=0.0)
    check_between(ratio, "ratio", low=1.0, open_low=True)
    ts, y = np.asarray(ts, float), np.asarray(y, float)
    ts, y = ts[ts > 0], y[ts > 0]
    found, begin = [], 0
    while begin < len(ts):
        rise = np.maximum.accumulate(y[begin:]) - np.minimum.accumulate(y[begin:])
        end = begin + int(np.searchsorted(rise, tolerance, side="right")) - 1
        if ts[end] >= ratio * ts[begin]:
            level = (y[begin : end + 1].max() + y[begin : end + 1].min()) / 2
            found.append(Plateau(float(ts[begin]), float(ts[end]), float(level)))
            begin = end
        begin += 1
    return found


def _linear(y):
    return y


def _logit(y):
    return np.log(y) - np.log1p(-y)


def _share(low, high, level, scale):
    """Where the level lies between low and high on a scale, in [0, 1]; not finite off the scale."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (scale(level) - scale(low)) / (scale(high) - scale(low))
