"""attnflow: attention dynamics, their theory and their measurement.

Names load on first use, so that `import attnflow` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnflow import (
        analysis,
        coalescence,
        distributed,
        experiments,
        kernels,
        layers,
        mean_shift,
        meanfield,
        models,
        norms,
        observables,
        plot,
        sphere,
        store,
        theory,
    )
    from attnflow.attention import (
        Attention,
        HardmaxAttention,
        MultiHead,
        QKVAttention,
        SinkhornAttention,
        UnnormalizedAttention,
    )
    from attnflow.cluster import AttentionClustering
    from attnflow.coalescence import MergeTree, coalesce
    from attnflow.events import stationary, within_cap
    from attnflow.flows import (
        FLOWS,
        FisherRaoFlow,
        Flow,
        WeightedTokens,
        causal,
        hardmax,
        kuramoto,
        sa,
        sinkhorn,
        usa,
    )
    from attnflow.integrate import LayerMap, log_times, solve
    from attnflow.norms import NORMS
    from attnflow.stochastic import solve_sde
    from attnflow.trajectory import Trajectory

__version__ = "0.1.0"

_MODULES = (
    "analysis", "coalescence", "distributed", "experiments", "kernels", "layers", "mean_shift",
    "meanfield", "models", "norms", "observables", "plot", "sphere", "store", "theory",
)  # fmt: skip
_HOMES = {
    "attention": (
        "Attention", "HardmaxAttention", "MultiHead", "QKVAttention", "SinkhornAttention",
        "UnnormalizedAttention",
    ),
    "flows": (
        "FLOWS", "FisherRaoFlow", "Flow", "WeightedTokens", "causal", "hardmax", "kuramoto", "sa",
        "sinkhorn", "usa",
    ),
    "norms": ("NORMS",),
    "coalescence": ("MergeTree", "coalesce"),
    "events": ("stationary", "within_cap"),
    "integrate": ("LayerMap", "log_times", "solve"),
    "trajectory": ("Trajectory",),
    "cluster": ("AttentionClustering",),
    "stochastic": ("solve_sde",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_MODULES, *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOME_OF:
        return getattr(import_module(f"attnflow.{_HOME_OF[name]}"), name)
    if name in _MODULES:
        return import_module(f"attnflow.{name}")
    raise AttributeError(f"module 'attnflow' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
