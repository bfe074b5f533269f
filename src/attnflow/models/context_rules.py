"""Rules by which a checkpoint itself scales its logits with the context: read off its modules and config."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnflow.errors import check_count


def own_factors(model: Any, n: int) -> np.ndarray:
    r"""Factor on the logits of row n that a model's own rule brings, shape (layers,); 1 where it has none.

    - Rotary factor m of YaRN and LongRoPE, on queries and keys alike: $m^2$ at every n.
    - Llama 4, in layers without rotation: $1+a\log(1+\lfloor n/L\rfloor)$.
    - Ministral 3: $1+b\log(1+\lfloor (n-1)/L\rfloor)$.

    Queries and keys that `watching` captures hold these factors already; what another length brings is the
    ratio of two of them. A constant scale (Granite, Gemma 2) is no rule of the length, and is in `scale`.

    Args:
        model: Model of transformers.
        n: Number of tokens, >= 1.

    Returns:
        Factors of the layers' logits.

    Raises:
        ValueError: If n < 1.

    Source: Peng, Quesnelle, Fan, Shippole, YaRN (ICLR 2024), eq. 15 (as $1/\sqrt t$ on queries and keys); Meta,
    Llama 4 model code (2025), after Nakanishi, Scalable-Softmax (2025).
    """
    check_count(n, "n")
    layers, rotary, latest = _attentions(model), _rotary(model), _ministral(model)
    factors = np.full(len(layers), rotary**2 * (latest[0](n) if latest else 1.0))
    for k, layer in enumerate(layers):
        if _is_tempered(layer):
            grown = np.log1p(np.floor(n / layer.floor_scale))
            factors[k] = 1.0 + layer.attn_scale * grown  # no rotation in these layers
    return factors


def own_rules(model: Any) -> list[str]:
    """One sentence for each rule of `own_factors` that a model applies; none for most models."""
    said, layers, rotary, latest = [], _attentions(model), _rotary(model), _ministral(model)
    if rotary != 1.0:
        kind = _rope(model).get("rope_type", "rotary")
        said.append(f"{kind}: logits times {rotary**2:.4f} at every length, by its rotary factor")
    tempered = [layer for layer in layers if _is_tempered(layer)]
    if tempered:
        one = tempered[0]
        said.append(
            f"llama4: logits times 1 + {one.attn_scale:g} log(1 + floor(n/{one.floor_scale:g})) "
            f"in {len(tempered)} of {len(layers)} layers, those without rotation"
        )
    if latest:
        said.append(latest[1])
    return said


def _attentions(model: Any) -> list[Any]:
    """Attention modules of the layers, in order."""
    found = {
        module.layer_idx: module
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "scaling")
    }
    count = getattr(model.config.get_text_config(), "num_hidden_layers", len(found))
    return [found.get(layer) for layer in range(count)]


def _is_tempered(layer: Any) -> bool:
    return bool(getattr(layer, "attn_temperature_tuning", False)) and not layer.use_rope


def _rope(model: Any) -> dict[str, Any]:
    return dict(getattr(model.config.get_text_config(), "rope_parameters", None) or {})


def _rotary(model: Any) -> float:
    """Factor of cosines and sines in the rotary embedding."""
    factors = (getattr(module, "attention_scaling", None) for module in model.modules())
    return next((float(factor) for factor in factors if isinstance(factor, int | float)), 1.0)


def _ministral(model: Any) -> tuple[Any, str] | None:
    """Factor of n, and its sentence, of models whose rotary parameters hold Llama 4's slope."""
    rope = _rope(model)
    slope, length = rope.get("llama_4_scaling_beta"), rope.get("original_max_position_embeddings")
    if not slope or not length:
        return None
    said = f"llama4: logits times 1 + {slope:g} log(1 + floor((n-1)/{length:g})) in all layers"
    return (lambda n: 1.0 + slope * np.log1p((n - 1) // length)), said
