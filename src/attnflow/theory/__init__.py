"""What theory predicts: NumPy in, NumPy out, no code shared with the simulator.

Submodules load on first use, so that `import attnflow` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnflow.theory import (
        clustering,
        equiangular,
        gaussian,
        gibbs,
        gram,
        hemisphere,
        kuramoto,
        large_beta,
        logit_rules,
        long_context,
        metastability,
        modes,
        noisy,
        normalization,
        random_weights,
        rates,
        renyi,
        shared_weights,
        stability,
        staircase,
        stationary,
        two_clusters,
    )

__all__ = [
    "clustering",
    "equiangular",
    "gaussian",
    "gibbs",
    "gram",
    "hemisphere",
    "kuramoto",
    "large_beta",
    "logit_rules",
    "long_context",
    "metastability",
    "modes",
    "noisy",
    "normalization",
    "random_weights",
    "rates",
    "renyi",
    "shared_weights",
    "stability",
    "staircase",
    "stationary",
    "two_clusters",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
