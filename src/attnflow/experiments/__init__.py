"""Experiments, one file per question: `Config`, `run(config) -> Dataset`, `draw(dataset) -> Figure`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

EXPERIMENTS = {
    "simulate": "Tokens under any flow, from any start, beside what theory predicts for them.",
    "staircase": "Energy over exponentially long time, as tokens merge into one cluster.",
    "merge-times": "Log time to merge over beta, for many starts, beside the gaps clusters cross.",
    "modes": "Number of clusters that appear first, beside hills of the density and linear modes.",
    "mean-field": "Many tokens beside the density they follow, and a density's way to its clusters.",
    "bifurcation": "Order as noise fades: branches of stationary densities, stable or not, beside noisy tokens.",
    "kuramoto": "Tokens at beta = 0 beside exact theories of their order, their motion and their noise.",
    "anneal": "How noise prevents, delays or speeds the collapse of attention, over kappa and beta.",
    "compare-clusterings": "AttentionClustering beside KMeans, Ward, HDBSCAN and MeanShift on labelled data.",
    "long-context": "One layer at logits gamma log n: collapse below 1/(1 - rho), drift and late escape above.",
    "normalization": "Mean cosine over depth under every normalisation scheme, with its theory and its law.",
    "design": "What to ask before training: depth budget, norm and logit scale of a Transformer.",
    "trained-model": "A trained Transformer on a text: cosines, ranks and heads by layer, beside theory.",
    "tiny-gpt": "Character GPTs trained under three norm schemes, beside the collapse predicted for them.",
    "scale": "A trained model's heads at longer contexts, and the logit scale that keeps their outputs apart.",
    "phase-diagram": "Share of merged pairs over time and beta, with the equiangular curve on it.",
}
"""Name and one line of every experiment; the module has the name with `_` for `-`."""

VIEWED = ("simulate", "staircase", "trained-model")
"""Experiments whose runs have a page: those with `scene(data)`."""


def load(name: str) -> ModuleType:
    """Module of an experiment."""
    return import_module(f"attnflow.experiments.{name.replace('-', '_')}")
