"""Small models with random weights, and the real one that ships in a package."""

import pytest
import torch


@pytest.fixture(scope="session")
def minilm():
    from attnflow.models import load

    return load("minilm")


SMALL = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
}


def small(name: str, **options):
    """A tiny random model in evaluation mode, and inputs of 24 tokens or patches."""
    import transformers as hf

    torch.manual_seed(0)
    ids = {"input_ids": torch.randint(3, 90, (1, 24))}
    if name == "gpt2":
        config = hf.GPT2Config(
            n_embd=64,
            n_layer=3,
            n_head=4,
            vocab_size=100,
            bos_token_id=1,
            eos_token_id=2,
            **options,
        )
        return hf.GPT2Model(config).eval(), ids
    if name == "llama":
        config = hf.LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=100, **options)
        return hf.LlamaModel(config).eval(), ids
    if name == "gemma2":
        config = hf.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=16, vocab_size=100,
                                 attn_implementation="eager")  # fmt: skip
        return hf.Gemma2Model(config).eval(), ids
    if name == "bert":
        return hf.BertModel(hf.BertConfig(**SMALL, vocab_size=100, **options)).eval(), ids
    config = hf.ViTConfig(**SMALL, image_size=32, patch_size=8)
    return hf.ViTModel(config).eval(), {"pixel_values": torch.randn(1, 3, 32, 32)}


@pytest.fixture
def build():
    return small
