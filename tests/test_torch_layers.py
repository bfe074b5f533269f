"""Blocks against `torch.nn.TransformerEncoderLayer`: same weights, same hidden states, layer by layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from attnflow import layers

N, D, HEADS, HIDDEN, DEPTH = 12, 16, 4, 40, 4
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def encoder(dtype="float64", **options):
    """Layers of PyTorch with every parameter random: biases, gains and all."""
    settings = {"nhead": HEADS, "dim_feedforward": HIDDEN, "dropout": 0.0, "batch_first": True}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        make = lambda: nn.TransformerEncoderLayer(
            D, **settings, **options, dtype=getattr(torch, dtype)
        )
        parts = [make().eval() for _ in range(DEPTH)]
        for parameter in itertools.chain(*(part.parameters() for part in parts)):
            parameter += 0.3 * torch.randn(parameter.shape, dtype=parameter.dtype)
    return parts


def hidden_states(parts, x, causal):
    mask = nn.Transformer.generate_square_subsequent_mask(N, dtype=x.dtype) if causal else None
    xs = [x]
    with torch.no_grad():
        for part in parts:
            xs.append(part(xs[-1][None], src_mask=mask, is_causal=causal)[0])
    return torch.stack(xs).numpy()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_hidden_states_are_those_of_pytorch(norm_first, activation, causal, dtype):
    """Entries reach 20; four layers of sums of 40 terms lose some ulp of that (2e-6, 4e-15) each."""
    parts = encoder(dtype, norm_first=norm_first, activation=activation)
    x = np.random.default_rng(0).normal(size=(N, D)).astype(dtype)
    want = hidden_states(parts, torch.from_numpy(x), causal)
    model = layers.stack([layers.from_torch(part, causal=causal) for part in parts])
    run = layers.forward(model, x)
    assert run.xs.dtype == dtype
    np.testing.assert_allclose(run.xs, want, rtol=0, atol=TOLERANCE[dtype])


def test_layers_without_biases():
    parts = encoder(bias=False, layer_norm_eps=0.2, norm_first=True)
    block = layers.from_torch(parts[0])
    assert block.attention.norm.bias is None
    assert block.attention.function.query_bias is None
    x = np.random.default_rng(0).normal(size=(N, D))
    want = hidden_states(parts[:1], torch.from_numpy(x), False)[-1]
    np.testing.assert_allclose(block(0, jnp.asarray(x)), want, atol=1e-12)


def test_weights_are_copies():
    part = encoder()[0]
    block = layers.from_torch(part)
    before = [np.array(leaf) for leaf in jax.tree.leaves(block)]
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
    for got, want in zip(jax.tree.leaves(block), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.Linear(2, 2), "`layer` must be a `torch.nn.TransformerEncoderLayer`, .* type Linear"),
        (encoder(activation=torch.tanh)[0], "`layer.activation` must be ReLU or exact GELU"),
        (encoder(activation=nn.GELU("tanh"))[0], "`layer.activation` must be ReLU or exact GELU"),
    ],
)
def test_other_modules_are_refused(layer, sentence):
    with pytest.raises(ValueError, match=sentence):
        layers.from_torch(layer)
