"""A real random Transformer of small size beside its own theory, for the design."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import attnflow as af
from attnflow.experiments.design import GROWING, Config, beta_of, random_course, usual_beta

LAYERS, WIDTH, STACKS = 24, 256, 8


def shrink(config: Config) -> Config:
    """Resolved config of at most 24 layers, width 256 and 256 tokens, of the same head dimension if it divides.

    The logit scale keeps its ratio to the usual one, hence scores their variance; mix its share of Post-LN.
    """
    layers, width = min(config.layers, LAYERS), min(config.width, WIDTH)
    size = config.width // config.heads
    heads = width // size if width % size == 0 else 1
    factor = beta_of(config) / usual_beta(config.width, config.heads)
    return replace(
        config,
        layers=layers,
        width=width,
        heads=heads,
        context=min(config.context, width),
        beta=factor * usual_beta(width, heads),
        tau=int(config.tau or 0) * layers // config.layers,
    )


def measure(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean cosine through fresh layers, mean and standard error of 8 stacks, and its theory; sizes."""
    import jax
    import jax.random as jr

    small = shrink(config)
    spread = lambda key, shape, dtype: (
        small.gain**0.5 * af.layers.WEIGHTS["gaussian"](key, shape, dtype)
    )
    radius = small.radius if small.norm in GROWING else 1.0
    x0 = radius * small.width**0.5 * af.sphere.equiangular(small.context, small.rho0, d=small.width)

    def run(key):
        model = af.layers.transformer(
            key, small.width, small.layers, heads=small.heads, weights=spread,
            beta=beta_of(small) * small.heads / small.width, normalizer="rms-norm",
            mlp=None if small.activation == "none" else small.activation,
            placement=small.norm, alpha=small.alpha, tau=small.tau,
        )  # fmt: skip
        observe = {"rho": af.observables.mean_cosine}
        return af.layers.forward(model, x0, observe=observe, states=False).observed["rho"]

    rho = np.asarray(jax.lax.map(run, jr.split(jr.key(small.seed), STACKS)))
    theory = 1 - random_course(small, small.norm, small.layers, small.context)
    name = "mean cosine of a real random Transformer"
    data = {
        "measured": ("small_layer", rho.mean(axis=0), {"long_name": name}),
        "measured_error": (
            "small_layer",
            rho.std(axis=0, ddof=1) / STACKS**0.5,
            {"long_name": f"standard error of the {name}"},
        ),
        "measured_theory": ("small_layer", theory, {"long_name": "its theory"}),
    }
    return data, {"small_width": small.width, "small_context": small.context}
