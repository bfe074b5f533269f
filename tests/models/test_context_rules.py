"""The rules a checkpoint applies: read off it, against the queries and keys that it computes."""

import numpy as np
import pytest
import torch
import transformers as hf

from attnflow.models import own_factors, own_rules, watching

SMALL = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
N = 25


def yarn(factor):
    rope = {"rope_type": "yarn", "factor": factor, "rope_theta": 1e4, "original_max_position_embeddings": 16,
            "attention_factor": None if factor > 1 else 1.0}  # fmt: skip
    return hf.LlamaModel(
        hf.LlamaConfig(**SMALL, rope_parameters={k: v for k, v in rope.items() if v is not None})
    )


def llama4(active):
    config = hf.Llama4TextConfig(
        **SMALL, head_dim=16, intermediate_size_mlp=64, num_local_experts=2, floor_scale=5, attn_scale=0.3,
        no_rope_layers=[1, 0, 1, 0], attn_temperature_tuning=active, use_qk_norm=False, attention_chunk_size=64,
    )  # fmt: skip
    return hf.Llama4TextModel(config)


def ministral(slope):
    rope = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": slope,
            "original_max_position_embeddings": 5}  # fmt: skip
    return hf.Ministral3Model(hf.Ministral3Config(**SMALL, head_dim=16, rope_parameters=rope))


MODELS = {"yarn": (yarn, 8.0, 1.0), "llama4": (llama4, True, False), "ministral3": (ministral, 0.2, 0.0)}  # fmt: skip


def last_row(model, weights):
    """Length of the last query times that of its key, per layer: what a rotation leaves alone."""
    model.load_state_dict(weights)
    seen = []
    with watching(model.eval(), lambda _, heads: seen.append(heads)), torch.no_grad():
        model(torch.arange(1, N + 1)[None])
    return [float((h["q"][0, 0, -1].norm() * h["k"][0, 0, -1].norm()) * h["scale"]) for h in seen]


@pytest.mark.parametrize("name", MODELS)
def test_factors_are_what_the_model_multiplies_by(name):
    make, on, off = MODELS[name]
    torch.manual_seed(0)
    plain = make(off)
    weights = plain.state_dict()
    for key, value in weights.items():  # branches add nothing: every layer sees the same states
        if "o_proj" in key or "down_proj" in key or "experts" in key:
            value.zero_()
    ruled = make(on)
    ratio = np.divide(last_row(ruled, weights), last_row(plain, weights))
    np.testing.assert_allclose(own_factors(ruled, N), ratio, rtol=1e-5)  # float32
    np.testing.assert_array_equal(own_factors(plain, N), np.ones(4))
    assert np.any(np.abs(ratio - 1) > 0.05)
    assert own_rules(plain) == []
    assert len(own_rules(ruled)) == 1
    assert "logits times" in own_rules(ruled)[0]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
def test_most_models_have_none(name, build):
    model, _ = build(name)
    assert own_rules(model) == []
    np.testing.assert_array_equal(own_factors(model, 10**6), np.ones(3))
