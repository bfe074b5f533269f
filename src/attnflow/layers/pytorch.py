"""PyTorch's encoder layer as a block; PyTorch itself is not imported."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from attnflow.kernels import causal as causal_mask
from attnflow.layers.block import Block
from attnflow.layers.sublayers import MLP, Heads, Normalizer, Sublayer


def from_torch(layer: Any, *, causal: bool = False) -> Block:
    """Copy of a `torch.nn.TransformerEncoderLayer`, without its dropout.

    An encoder is `stack([from_torch(layer) for layer in encoder.layers])`; a final norm is no layer.

    Args:
        layer: The layer, of GELU or ReLU, Pre-LN (norm_first) or Post-LN, on any device.
        causal: Whether token i sees tokens j <= i only, which PyTorch is told by each call's mask.

    Raises:
        ValueError: If it is no such layer, or has another activation.
    """
    if not hasattr(layer, "self_attn") or not hasattr(layer, "linear1"):
        raise ValueError(
            "Argument `layer` must be a `torch.nn.TransformerEncoderLayer`, "
            f"but it is of type {type(layer).__name__}."
        )
    activation = {1: "relu", 2: "gelu"}.get(layer.activation_relu_or_gelu)
    if activation is None or getattr(layer.activation, "approximate", "none") != "none":
        raise ValueError(
            "Argument `layer.activation` must be ReLU or exact GELU, "
            f"but layer.activation={layer.activation!r}."
        )
    attention = layer.self_attn
    query, key, value = jnp.split(_array(attention.in_proj_weight), 3)
    biases = _array(attention.in_proj_bias)
    shifts = (None, None, None) if biases is None else tuple(jnp.split(biases, 3))
    heads = Heads(
        query, key, value, _array(attention.out_proj.weight),
        query_bias=shifts[0], key_bias=shifts[1], value_bias=shifts[2],
        output_bias=_array(attention.out_proj.bias),
        heads=attention.num_heads, mask=causal_mask if causal else None,
    )  # fmt: skip
    mlp = MLP(
        _array(layer.linear1.weight),
        _array(layer.linear2.weight),
        up_bias=_array(layer.linear1.bias),
        down_bias=_array(layer.linear2.bias),
        activation=activation,
    )
    norms = [
        Normalizer("layer-norm", _array(norm.weight), _array(norm.bias), norm.eps)
        for norm in (layer.norm1, layer.norm2)
    ]
    placement = "pre" if layer.norm_first else "post"
    return Block(Sublayer(heads, norms[0]), Sublayer(mlp, norms[1]), placement=placement)


def _array(parameter) -> Any:
    """Copy of a parameter, which PyTorch may go on training."""
    return None if parameter is None else jnp.array(parameter.detach().cpu().numpy(), copy=True)
