"""Kernel sums: functions (q, k, v, beta) -> (mean, log_z) behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attnflow.errors import check_choice
from attnflow.kernels.auto import auto, cheapest, to_accuracy
from attnflow.kernels.dense import dense
from attnflow.kernels.fourier import fourier
from attnflow.kernels.harmonics import harmonics
from attnflow.kernels.masks import causal, exclude_self, window
from attnflow.kernels.random_batch import RandomBatch, random_batch

KERNEL_SUMS = {
    "auto": auto,
    "dense": dense,
    "fourier": fourier,
    "harmonics": harmonics,
    "random-batch": RandomBatch(seed=0, batch=256),
}


def as_kernel_sum(given: Callable | str) -> Callable:
    """A kernel sum by its name in `KERNEL_SUMS`, or as it is."""
    if not isinstance(given, str):
        return given
    check_choice(given, "kernel_sum", KERNEL_SUMS)
    return KERNEL_SUMS[given]


def name_of(kernel_sum: Callable) -> str:
    """Short text that names a kernel sum, and its accuracy if it has one of its own."""
    if isinstance(kernel_sum, partial):
        options = ", ".join(f"{key}={value!r}" for key, value in kernel_sum.keywords.items())
        return f"{name_of(kernel_sum.func)} ({options})" if options else name_of(kernel_sum.func)
    return getattr(kernel_sum, "__name__", type(kernel_sum).__name__)


__all__ = [
    "KERNEL_SUMS",
    "RandomBatch",
    "as_kernel_sum",
    "auto",
    "causal",
    "cheapest",
    "dense",
    "exclude_self",
    "fourier",
    "harmonics",
    "name_of",
    "random_batch",
    "to_accuracy",
    "window",
]
