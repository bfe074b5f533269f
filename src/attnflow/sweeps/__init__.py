"""Sweeps: many configs of one experiment, each its own run, merged into one labelled dataset."""

from attnflow.sweeps.design import Between, product, random, zipped
from attnflow.sweeps.executors import EXECUTORS, Processes, open_executor
from attnflow.sweeps.figure import draw
from attnflow.sweeps.merge import measured, merge
from attnflow.sweeps.refine import refine
from attnflow.sweeps.sweep import sweep

__all__ = [
    "EXECUTORS",
    "Between",
    "Processes",
    "draw",
    "measured",
    "merge",
    "open_executor",
    "product",
    "random",
    "refine",
    "sweep",
    "zipped",
]
