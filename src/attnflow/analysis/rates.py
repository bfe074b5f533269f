"""Rates of decay: exponential or power law, with errors, and which of the two the data prefer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.stats import t as student

from attnflow.errors import check_between, check_increasing, check_shape

Numbers = np.ndarray | Array
STARTS = 24
FEWEST = 8
UNDECIDED = 4.0


@dataclass(frozen=True)
class Law:
    """One fitted law.

    Attributes:
        rate: Rate lambda of C e^(-lambda t), or exponent p of C t^(-p).
        error: Standard error of the rate, if errors of log y were independent.
        drift: Half the difference between the rates of the two halves of the window: how much the
            rate depends on the window.
        interval: Confidence interval of the rate, from `error` and `drift` together.
        log_constant: log C.
        residual: Root mean square of the residuals of log y.
        aicc: Corrected Akaike information criterion; smaller is better.
    """

    rate: float
    error: float
    drift: float
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
            differ by less than 4, an evidence ratio below e^2, or if there is no power law.
        log_evidence: Log of the evidence ratio of the exponential over the power law, half the
            difference of AICc; NaN if there is no power law.
        window: First and last time used.
        count: Number of points used.
    """

    exponential: Law
    power: Law | None
    preferred: str
    log_evidence: float
    window: tuple[float, float]
    count: int


def fit_rate(
    ts: Float[Numbers, " t"],
    y: Float[Numbers, " t"],
    *,
    window: tuple[float, float] | None = None,
    floor: float = 1e-13,
    misfit: float = 0.01,
    confidence: float = 0.95,
) -> RateFit:
    r"""Fit an exponential and a power law to a decay, by least squares of log y.

    Errors of log y are modelled as independent, with one variance: this gives the standard error, a
    Student interval and the AICc. Curves of a simulation are smooth, so that what is left over is
    not noise but the next term of the decay, and such errors are too small. Their `drift` shows it:
    the interval is the rate $\pm\sqrt{(q \cdot \text{error})^2 + \text{drift}^2}$, q Student's quantile,
    and is therefore somewhat wider than stated where errors are independent indeed.

    The window, if not given, ends before y first falls to `floor`, and starts at the first of 24
    equally spaced times from which either law fits with a residual of at most `misfit`: the
    transient is left out. Noisier data never fit so well; then it is the last half of the points.
    Nothing is random.

    Args:
        ts: Increasing times, shape (t,), from the origin of the power law.
        y: Decaying values, > 0 in the window, shape (t,).
        window: First and last time to use. Chosen by the rule above by default.
        floor: Size of y where rounding takes over, times 100, so that errors stay below 1 %. The
            default suits 1 - rho in float64; `observables.cosine_gap` is good to 1e-30.
        misfit: Largest root mean square residual of log y beyond a transient.
        confidence: Probability of the intervals, in (0, 1).

    Returns:
        Both fits and the preferred law.

    Raises:
        ValueError: If shapes differ, a value in the window is not positive and finite, or fewer
            than 4 points are in the window (8 in one that is not given).
    """
    check_increasing(ts)
    check_shape(y, "y", np.shape(ts))
    check_between(confidence, "confidence", 0.0, 1.0, open_low=True, open_high=True)
    ts, y = np.asarray(ts, float), np.asarray(y, float)
    if window is None:
        above = np.flatnonzero(~(y > floor))
        inside = (ts > 0) & (np.arange(len(ts)) < (above[0] if len(above) else len(ts)))
    else:
        inside = (ts >= window[0]) & (ts <= window[1])
    ts, y = ts[inside], y[inside]
    least = 4 if window else FEWEST
    if len(ts) < least:
        raise ValueError(
            f"Argument `ts` must have {least} times in the window, but it has {len(ts)}. "
            + ("Widen it." if window else "Save more often, or lower `floor`.")
        )
    if not np.all(np.isfinite(y) & (y > 0)):
        raise ValueError(
            f"Argument `y` must be positive and finite in the window, but one value is "
            f"{y[~(np.isfinite(y) & (y > 0))][0]}. Leave out its floor."
        )
    if window is None:
        begin = _end_of_transient(ts, np.log(y), misfit)
        ts, y = ts[begin:], y[begin:]
    exponential = _law(ts, np.log(y), confidence)
    span = (float(ts[0]), float(ts[-1]))
    if ts[0] <= 0:
        return RateFit(exponential, None, "undecided", float("nan"), span, len(ts))
    power = _law(np.log(ts), np.log(y), confidence)
    lead = power.aicc - exponential.aicc
    better = "exponential" if lead > 0 else "power"
    preferred = better if abs(lead) >= UNDECIDED else "undecided"
    return RateFit(exponential, power, preferred, lead / 2, span, len(ts))


def _end_of_transient(ts: np.ndarray, log_y: np.ndarray, misfit: float) -> int:
    """First of some equally spaced starts from which either law fits; else the middle."""
    for begin in np.unique(np.linspace(0, len(ts) - FEWEST, STARTS).astype(int)):
        fits = (_line(s[begin:], log_y[begin:]) for s in (ts, np.log(ts)))
        if min(np.sqrt(np.mean(residuals**2)) for _, _, residuals in fits) <= misfit:
            return int(begin)
    return min(len(ts) // 2, len(ts) - FEWEST)


def _law(s: np.ndarray, log_y: np.ndarray, confidence: float) -> Law:
    """Least squares of log y = log C - rate s, with errors."""
    n = len(s)
    rate, log_constant, residuals = _line(s, log_y)
    square = float(residuals @ residuals)
    error = float(np.sqrt(square / (n - 2)) / np.linalg.norm(s - s.mean()))
    half = n // 2
    drift = abs(_line(s[:half], log_y[:half])[0] - _line(s[half:], log_y[half:])[0]) / 2
    reach = float(np.hypot(student.ppf((1 + confidence) / 2, n - 2) * error, drift))
    # Residuals below rounding carry no evidence.
    floor = n * (np.finfo(float).eps * max(1.0, float(np.abs(log_y).max()))) ** 2
    parameters = 3
    aicc = n * np.log(max(square, floor) / n) + 2 * parameters
    aicc += 2 * parameters * (parameters + 1) / (n - parameters - 1) if n > 4 else 0.0
    return Law(
        rate=rate,
        error=error,
        drift=drift,
        interval=(rate - reach, rate + reach),
        log_constant=log_constant,
        residual=float(np.sqrt(square / n)),
        aicc=float(aicc),
    )


def _line(s: np.ndarray, log_y: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Rate, log C and residuals of the straight line through log y."""
    centred = s - s.mean()
    rate = -float(centred @ log_y) / float(centred @ centred)
    log_constant = float(log_y.mean() + rate * s.mean())
    return rate, log_constant, log_y - log_constant + rate * s
