"""Commands, one module each: `main(argv)` gives the exit code, and bad input raises one sentence."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

COMMANDS = {
    "run": "run an experiment, keep its numbers, draw its figure",
    "sweep": "an experiment at many settings: resumable, on cores, Dask or SLURM, merged and drawn",
    "list": "runs that were kept",
    "show": "one run: its settings, its table, where its figure is",
    "view": "one page to play with: tokens over time, clusters, energy, merges",
    "verify": "every claim: predicted, observed, error, tolerance, verdict",
    "probe": "a trained model on a text: cosines, ranks, heads by layer, a page",
    "compare": "two models on one text",
    "scale": "the logit scale of a trained model at longer contexts",
    "doctor": "versions, devices, float64, optional parts, a self-test of a minute",
}
"""Name and one line of every command; the module has the same name."""


def load(name: str) -> ModuleType:
    """Module of a command."""
    return import_module(f"attnflow.commands.{name}")
