"""Probe against ten lines of direct computation, on five families and the real model."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import attnflow as af
from attnflow.models import probe, probe_states
from attnflow.models.hidden_states import Block, blocks, scheme

FAMILIES = {"gpt2": "pre", "llama": "pre", "gemma2": "peri", "bert": "post", "vit": "pre"}


def direct(states):
    """Mean cosine and effective rank of each state, by hand."""
    found = []
    for x in states:
        theta = x[0].double().numpy()
        theta = theta / np.linalg.norm(theta, axis=1, keepdims=True)
        n, sigma = len(theta), np.linalg.svd(theta, compute_uv=False)
        p = sigma / sigma.sum()
        gram = theta @ theta.T
        found.append([(gram.sum() - n) / (n * (n - 1)), np.exp(-(p * np.log(p)).sum())])
    return np.array(found).T


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_output_hidden_states(build, family):
    model, inputs = build(family)
    data = probe(model, inputs)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    # The last hidden state of decoders and ViT has the final norm; blocks end before it.
    last = len(states) - 1 if family in ("gpt2", "llama", "gemma2", "vit") else len(states)
    rho, rank = direct(states[:last])
    np.testing.assert_allclose(data.mean_cosine[:last], rho, atol=1e-6)
    np.testing.assert_allclose(data.effective_rank[:last], rank, rtol=1e-6)
    assert data.attrs["scheme"] == FAMILIES[family]
    assert data.sizes["layer"] == 4
    assert data.entropy.shape == (3, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_contraction_adds_up(build, family):
    """Changes of log(1 - rho) by attention, norm, MLP and norm are the change over the block."""
    model, inputs = build(family)
    data = probe(model, inputs)
    np.testing.assert_allclose(data.contraction.sum("step"), np.diff(np.log(data.gap)), atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "vit"])
def test_entropies_are_those_of_eager_attention(build, family):
    model, inputs = build(family)
    data = probe(model, inputs)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(**inputs, output_attentions=True).attentions
    for block, a in enumerate(weights):
        a = a[0].double()
        entropy = -torch.xlogy(a, a).sum(-1).mean(-1)
        np.testing.assert_allclose(data.entropy[block], entropy, atol=1e-5)
        np.testing.assert_allclose(data.sink[block], a[:, :, 0].mean(-1), atol=1e-6)


def test_minilm_against_the_model_itself(minilm):
    model, tokenizer = minilm
    text = "The tokens of a sentence move through the layers of a network. " * 20
    inputs = dict(tokenizer(text, return_tensors="pt", truncation=True, max_length=160))
    data = probe(model, inputs)
    with torch.no_grad():
        rho, rank = direct(model(**inputs, output_hidden_states=True).hidden_states)
    np.testing.assert_allclose(data.mean_cosine, rho, atol=1e-5)
    np.testing.assert_allclose(data.effective_rank, rank, rtol=1e-5)
    assert data.attrs["scheme"] == "post"
    assert data.attrs["random_rank"] > data.effective_rank.max()


def test_speed_factor_is_the_radius(build):
    """Under Pre-LN a token turns by |P a|/r: the first order of a small step."""
    model, inputs = build("llama")
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.o_proj.weight *= 1e-3
    data = probe(model, inputs)
    np.testing.assert_allclose(data.speed_factor, data.radius[:-1], rtol=0.2)  # median against mean


def test_saved_states_give_the_same_numbers(build):
    model, inputs = build("bert")
    data = probe(model, inputs, states=True)
    again = probe_states(list(data.tokens.values), beta=data.attrs["beta"])
    for name in ("mean_cosine", "effective_rank", "clusters", "histogram", "energy"):
        np.testing.assert_allclose(again[name], data[name], rtol=1e-12)
    np.testing.assert_allclose(again.influence, data.influence, atol=1e-12)
    x = af.sphere.normalize(jnp.asarray(data.tokens.values[2]))
    assert float(af.observables.effective_rank(x)) == pytest.approx(
        float(data.effective_rank[2]), rel=1e-9
    )
    assert float(af.observables.scaled_energy(x, data.attrs["beta"])) == pytest.approx(
        float(data.energy[2]), rel=1e-9
    )


def test_any_module_with_blocks():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, norm_first=False)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    found = [Block(m, m.self_attn, m.linear2, m.norm1, ("norm1", "norm2")) for m in model.layers]
    data = probe(model, {"src": torch.randn(1, 10, 32)}, blocks=found)
    assert data.attrs["scheme"] == "post"
    np.testing.assert_allclose(data.contraction.sum("step"), np.diff(np.log(data.gap)), atol=1e-5)


def test_sinks_and_massive_dimensions_are_masked():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 50))
    spoiled = x.copy()
    spoiled[:, 7] = 40.0
    spoiled[3] *= 30
    data = probe_states([x, spoiled])
    assert data.massive.values.tolist() == [0, 1]
    assert data.sinks.values.tolist() == [0, 1]
    assert data.mean_cosine[1] > 0.9
    assert abs(float(data.masked_cosine[1])) < 0.02


def test_clusters_and_histogram():
    """Three far groups are three clusters; all pairs are counted once."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3, 8), 10, axis=0) + 0.01 * rng.normal(size=(30, 8))
    data = probe_states([x, x], beta=4.0)
    assert data.clusters.values.tolist() == [3, 3]
    assert int(data.histogram[0].sum()) == 30 * 29 // 2
    assert int(data.histogram[0, -1]) == 3 * 45


def test_nan_is_named_by_layer(build):
    model, inputs = build("bert")
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="after layer 2 hold NaN"):
        probe(model, inputs)


def test_bad_input(build):
    model, inputs = build("bert")
    with pytest.raises(ValueError, match="at least 2 tokens, but it holds 1"):
        probe(model, {"input_ids": inputs["input_ids"][:, :1]})
    with pytest.raises(ValueError, match="one text"):
        probe(model, {"input_ids": inputs["input_ids"].repeat(2, 1)})
    with pytest.raises(ValueError, match="no padding"):
        probe(model, inputs | {"attention_mask": torch.zeros(1, 24)})
    with pytest.raises(ValueError, match="list of blocks with attention"):
        blocks(torch.nn.Linear(2, 2))
    assert [scheme(b) for b in blocks(model)] == ["post"] * 3
