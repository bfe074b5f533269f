"""Rates of decay: exponential or power law, with errors, and which of the two the data prefer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student


@dataclass(frozen=True)
class Law:
    """One fitted law.

    Attributes:
        rate: Rate lambda of C e^(-lambda t), or exponent p of C t^(-p).
        error: Standard error of the rate, from the residuals.
        interval: Confidence interval of the rate.
        log_constant: log C.
        residual: Root mean square of the residuals of log y.
        aicc: Corrected Akaike information criterion; smaller is better.
    """

    rate: float
    error: float
    interval: tuple[float, float]
    log_constant: float
    residual: float
    aicc: float


@dataclass(frozen=True)
class RateFit:
    """Both laws fitted to one decay.

    Attributes:
        exponential: y ~ C e^(-lambda t).
        power: y ~ C t^(-p), or None if a time of the window is not positive.
        preferred: "exponential" or "power", whichever has the smaller AICc; "undecided" if they
            differ by less than 4, an evidence ratio below e^2.
        window: First and last time used.
        count: Number of points used.
    """

    exponential: Law
    power: Law | None
    preferred: str
    window: tuple[float, float]
    count: int


def fit_rate(
    ts: Float[np.ndarray, " t"],
    y: Float[np.ndarray, " t"],
    *,
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> RateFit:
    """Fit an exponential and a power law to a decay, by least squares of log y.

    Errors of log y are taken as independent with one variance; intervals are Student's.

    Args:
        ts: Increasing times, shape (t,).
        y: Decaying values, > 0, shape (t,).
        window: First and last time to use; all by default.
        confidence: Probability of the intervals, in (0, 1).

    Returns:
        Both fits and the preferred law.

    Raises:
        ValueError: If shapes differ, a value in the window is not positive and finite, or fewer
            than four points are in the window.
    """
    ts, y = np.asarray(ts, float), np.asarray(y, float)
    if ts.ndim != 1 or ts.shape != y.shape:
        raise ValueError(
            f"Argument `y` must have the shape of `ts`, but ts.shape={ts.shape}, y.shape={y.shape}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"Argument `confidence` must be in (0, 1), but confidence={confidence}.")
    if window is not None:
        inside = (ts >= window[0]) & (ts <= window[1])
        ts, y = ts[inside], y[inside]
    if len(ts) < 4:
        raise ValueError(
            f"Argument `ts` must have 4 times in the window, but it has {len(ts)}. Widen it."
        )
    if not np.all(np.isfinite(y) & (y > 0)):
        raise ValueError(
            f"Argument `y` must be positive and finite, but min(y)={y.min()}. Leave out its floor."
        )
    exponential = _line(ts, np.log(y), confidence)
    power = _line(np.log(ts), np.log(y), confidence) if ts[0] > 0 else None
    preferred = "exponential"
    if power is not None:
        lead = exponential.aicc - power.aicc
        preferred = "undecided" if abs(lead) < 4 else "power" if lead > 0 else "exponential"
    return RateFit(exponential, power, preferred, (float(ts[0]), float(ts[-1])), len(ts))


def _line(s: np.ndarray, log_y: np.ndarray, confidence: float) -> Law:
    """Least squares of log y = log C - rate s."""
    n = len(s)
    centred = s - s.mean()
    spread = float(centred @ centred)
    rate = -float(centred @ log_y) / spread
    log_constant = float(log_y.mean() + rate * s.mean())
    residuals = log_y - log_constant + rate * s
    square = float(residuals @ residuals)
    error = float(np.sqrt(square / (n - 2) / spread))
    reach = float(student.ppf((1 + confidence) / 2, n - 2)) * error
    # Residuals below rounding carry no evidence.
    floor = n * (np.finfo(float).eps * max(1.0, float(np.abs(log_y).max()))) ** 2
    parameters = 3
    aicc = n * np.log(max(square, floor) / n) + 2 * parameters
    aicc += 2 * parameters * (parameters + 1) / max(n - parameters - 1, 1e-9)
    return Law(
        rate,
        error,
        (rate - reach, rate + reach),
        log_constant,
        float(np.sqrt(square / n)),
        float(aicc),
    )


def crossing_time(
    ts: Float[np.ndarray, " t"], y: Float[np.ndarray, "*b t"], level: float
) -> Float[np.ndarray, "*b"]:
    """First time at which y rises to a level, by linear interpolation; NaN if it never does.

    Args:
        ts: Increasing times, shape (t,).
        y: Values, shape (..., t). Leading axes are mapped.
        level: Level to reach.
    """
    ts, y = np.asarray(ts, float), np.asarray(y, float)
    reached = y >= level
    k = np.maximum(reached.argmax(axis=-1), 1)
    low = np.take_along_axis(y, (k - 1)[..., None], -1)[..., 0]
    high = np.take_along_axis(y, k[..., None], -1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((level - low) / (high - low), 0, 1)
    times = ts[k - 1] + np.where(np.isfinite(share), share, 0) * (ts[k] - ts[k - 1])
    return np.where(reached.any(axis=-1), times, np.nan)
