"""Scaled logits against attention by hand, and measurements of heads against the whole matrix."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnflow.models.attention import watching
from attnflow.models.scaling import measure_heads, output_cosines, scaled

TOKENS = torch.arange(24)[None]
SIZES = {"vocab_size": 50, "num_hidden_layers": 2}
MODELS = {
    "bert": lambda **kw: BertModel(
        BertConfig(**SIZES, hidden_size=32, intermediate_size=32, num_attention_heads=4, **kw)
    ),
    "gpt2": lambda **kw: GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, **kw)),
    "llama": lambda **kw: LlamaModel(
        LlamaConfig(**SIZES, hidden_size=32, intermediate_size=32, num_attention_heads=4,
                    num_key_value_heads=2, **kw)
    ),
}  # fmt: skip
FACTORS = np.array([[1.0, 2.0, 0.5, 1.5], [3.0, 1.0, 0.0, 0.7]])


def make(name, implementation="sdpa"):
    torch.manual_seed(0)
    model = MODELS[name](attn_implementation=implementation).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)  # logits of size 1, so that factors matter
    return model


def heads_of(model, *contexts):
    """What each attention call saw, layer by layer."""
    seen = []
    with watching(model, lambda layer, heads: seen.append(heads)), torch.no_grad():
        model(TOKENS)
    return seen


def weights_of(heads, factors):
    """Attention matrices of a layer by hand, logits times factors, shape (heads, n, n)."""
    k = heads["k"][0].repeat_interleave(heads["q"].shape[1] // heads["k"].shape[1], dim=0)
    scores = heads["scale"] * heads["q"][0].double() @ k.double().mT
    scores = scores * torch.as_tensor(factors, dtype=torch.float64)[:, None, None]
    if heads["causal"]:
        n = scores.shape[1]
        scores = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf)
    return scores.softmax(dim=-1)


def values_of(heads):
    return heads["v"][0].double().repeat_interleave(heads["q"].shape[1] // heads["v"].shape[1], 0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_scaled_by_hand(name, implementation):
    """Output of every head of the first layer, whose inputs no factor has touched."""
    model = make(name, implementation)
    plain = heads_of(model)[0] if implementation == "sdpa" else heads_of(make(name))[0]
    with scaled(model, FACTORS):
        outputs = heads_of(model)[0]["output"][0].double()
    expected = weights_of(plain, FACTORS[0]) @ values_of(plain)
    np.testing.assert_allclose(
        outputs.transpose(0, 1), expected, atol=1e-5
    )  # float32, values of 10


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_behind(name):
    model, other = make(name), make("bert")
    before = ALL_ATTENTION_FUNCTIONS.get_interface
    with torch.no_grad():
        plain, others = model(TOKENS)[0], other(TOKENS)[0]
        with scaled(model, 2.0) as same:
            assert same is model
            changed = model(TOKENS)[0]
            assert torch.equal(model(TOKENS)[0], changed)  # a second pass, the same factors
            assert torch.equal(other(TOKENS)[0], others)
        with pytest.raises(RuntimeError), scaled(model, 2.0):
            raise RuntimeError
        assert torch.equal(model(TOKENS)[0], plain)
    assert not torch.allclose(changed, plain, atol=1e-2)
    assert before == ALL_ATTENTION_FUNCTIONS.get_interface


def test_shapes_of_factors():
    model = make("llama")
    with torch.no_grad():
        plain = model(TOKENS)[0]
        for ones in (1, np.ones(2), np.ones((2, 4))):
            with scaled(model, ones):
                assert torch.equal(model(TOKENS)[0], plain)
        with scaled(model, [2.0, 0.5]):
            by_layer = model(TOKENS)[0]
        with scaled(model, np.outer([2.0, 0.5], np.ones(4))):
            assert torch.equal(model(TOKENS)[0], by_layer)
        with scaled(model, 3.0), scaled(model, 1 / 3):
            assert torch.allclose(
                model(TOKENS)[0], plain, atol=1e-4
            )  # factors of two blocks multiply


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_measurements_by_hand(name, factor):
    model = make(name)
    found = measure_heads(model, TOKENS, factor)
    with scaled(model, factor):
        layers = heads_of(model)
    np.testing.assert_array_equal(output_cosines(model, TOKENS, factor), found.cosine)
    n = TOKENS.shape[1]
    for layer, heads in enumerate(layers):
        weights, values = weights_of(heads, np.full(4, factor)), values_of(heads)
        rows = torch.arange(n // 2 - 1, n) if heads["causal"] else torch.arange(n)
        keys = rows + 1.0 if heads["causal"] else torch.full((n,), float(n))
        squares = weights[:, rows].square().sum(-1)
        delta2 = ((squares - 1 / keys) / (1 - 1 / keys)).mean(1)
        # Logits of size 10 in float32.
        np.testing.assert_allclose(
            found.participation[layer], 1 / (delta2 + (1 - delta2) / n), rtol=1e-4
        )
        theta = torch.nn.functional.normalize((weights @ values)[:, rows], dim=-1)
        pairs = (theta @ theta.mT).sum((1, 2)) - len(rows)
        np.testing.assert_allclose(
            found.cosine[layer], pairs / len(rows) / (len(rows) - 1), atol=1e-5
        )
        inner = (values @ values.mT).sum((1, 2)) / values.square().sum((1, 2))
        np.testing.assert_allclose(found.rho[layer], (inner - 1) / (n - 1), atol=1e-6)
        np.testing.assert_allclose(found.sink[layer], weights[:, rows, 0].mean(1), atol=1e-5)


@pytest.mark.usefixtures("untyped")
def test_bad_input():
    model = make("gpt2")
    for factors in (np.ones(3), np.ones((4, 2)), np.ones((2, 4, 1))):
        with (
            pytest.raises(ValueError, match="`factors` must be one number or have shape"),
            scaled(model, factors),
        ):
            pass
    with pytest.raises(ValueError, match="`factors` must be finite"), scaled(model, np.nan):
        pass
    with pytest.raises(ValueError, match="`tokens` must be a whole number >= 2"):
        measure_heads(model, TOKENS[:, :1])
    with torch.no_grad():
        model.h[1].attn.c_attn.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 1 holds NaN"):
        measure_heads(model, TOKENS)
