"""Kernel sums: functions (q, k, v, beta) -> (mean, log_z) behind one signature."""

from attnflow.kernels.dense import dense
from attnflow.kernels.masks import causal, exclude_self, window

KERNEL_SUMS = {"dense": dense}

__all__ = ["KERNEL_SUMS", "causal", "dense", "exclude_self", "window"]
