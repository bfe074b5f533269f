"""A real Transformer as a map: attention with weights, LayerNorm, MLP, any placement, layer by layer."""

from attnflow.layers.block import PLACEMENTS, Block, block
from attnflow.layers.pytorch import from_torch
from attnflow.layers.sublayers import ACTIVATIONS, MLP, NORMALIZERS, Heads, Normalizer, Sublayer
from attnflow.layers.transformer import Transformer, forward, repeat, stack, transformer
from attnflow.layers.weights import WEIGHTS

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NORMALIZERS",
    "PLACEMENTS",
    "WEIGHTS",
    "Block",
    "Heads",
    "Normalizer",
    "Sublayer",
    "Transformer",
    "block",
    "forward",
    "from_torch",
    "repeat",
    "stack",
    "transformer",
]
