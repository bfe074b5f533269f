"""Intervals of confidence of means over independent starts."""

import numpy as np

CONFIDENCE = 0.95


def half_interval(values: np.ndarray) -> np.ndarray:
    """Half the 95 % interval of the mean over the last axis, by Student's distribution."""
    from scipy.stats import t

    count = values.shape[-1]
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return np.asarray(quantile * values.std(axis=-1, ddof=1) / np.sqrt(count))
