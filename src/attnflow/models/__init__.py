"""Trained models, measured with the same instruments. Needs the extra `models`; submodules load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "attention": ("AttentionStatistics", "attention_statistics", "watching"),
    "hidden_states": ("Block", "blocks", "passing", "read_states", "scheme"),
    "loading": ("load",),
    "probing": ("probe", "probe_states"),
    "context_rules": ("own_factors", "own_rules"),
    "scaling": ("HeadMeasurement", "measure_heads", "output_cosines", "scaled"),
    "projections": ("LayerHeads", "heads"),
    "tokens": ("token_statistics",),
    "monitor": ("Monitor",),
    "weights": ("EffectiveBeta", "as_attention", "as_heads", "effective_beta", "weight_table"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_NEEDED = ("torch", "transformers", "safetensors")

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        raise ImportError(
            f"Probing a model needs {error.name}. Install it: pip install 'attnflow[models]'."
        ) from None


def __dir__() -> list[str]:
    return sorted(__all__)
