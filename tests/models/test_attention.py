"""Statistics of heads against the whole attention matrix, in float64."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from attnflow.models.attention import attention_statistics, watching


def direct(q, k, scale, seen=None, bias=None):
    """All statistics from the matrix of one head."""
    s = (q.double() @ k.double().T) * scale
    s = s if bias is None else s + bias.double()
    if seen is not None:
        s = s.masked_fill(~seen, -torch.inf)
    a = s.softmax(dim=1)
    allowed = torch.ones_like(s, dtype=torch.bool) if seen is None else seen
    entropy = -(a * torch.where(a > 0, a, 1).log()).sum(1)
    logits = [row[mask] for row, mask in zip(s, allowed, strict=True)]
    return {
        "log_z": s.logsumexp(1),
        "entropy": entropy,
        "max_logit": s.amax(1),
        "mean_logit": torch.stack([r.mean() for r in logits]),
        "std_logit": torch.stack([r.std(correction=0) for r in logits]),
        "participation": 1 / (a**2).sum(1),
        "own": a.diagonal() if len(q) == len(k) else torch.full((len(q),), torch.nan),
        "sink": a[:, 0],
        "keys": allowed.sum(1).double(),
    }


@pytest.fixture
def heads():
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(h, 60, 16, generator=rng, dtype=torch.float64) for h in (4, 2)]


@pytest.mark.parametrize("block", [7, 60, None])
@pytest.mark.parametrize("kind", ["full", "causal", "padded", "additive"])
def test_equal_to_the_matrix(heads, kind, block):
    q, k = heads
    seen, mask, bias = None, None, None
    if kind == "causal":
        seen = torch.ones(60, 60, dtype=torch.bool).tril()
    if kind == "padded":
        mask = (torch.arange(60) < 41)[None]
        seen = mask.expand(60, 60)
    if kind == "additive":
        bias = torch.randn(60, 60, dtype=torch.float64)
        mask = bias
    found = attention_statistics(q, k, scale=1.5, causal=kind == "causal", mask=mask, block=block)
    for head in range(4):
        for name, exact in direct(q[head], k[head // 2], 1.5, seen, bias).items():
            # Sums of 60 terms in float64, logits up to 20; the variance is a difference of squares.
            tol = 1e-6 if name == "std_logit" else 1e-12
            np.testing.assert_allclose(
                getattr(found, name)[head], exact, rtol=tol, atol=tol, err_msg=name
            )


def test_large_logits_and_empty_rows():
    q = torch.tensor([[[300.0, 0], [0, 300]]]).double()
    mask = torch.tensor([[True, True], [False, False]])
    found = attention_statistics(q, q, scale=1.0, mask=mask)
    assert found.entropy[0, 0] == 0
    assert found.max_logit[0, 0] == 90_000
    assert found.participation[0, 0] == 1
    assert np.isnan(found.entropy[0, 1])
    assert found.keys[0].tolist() == [2, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(heads, dtype):
    q, k = (h.to(dtype) for h in heads)
    found = attention_statistics(q, k)
    exact = direct(q[0], k[0], 0.25)
    # Scores up to 10 in float32, entries of q and k as given.
    np.testing.assert_allclose(found.entropy[0], exact["entropy"], atol=1e-5)
    np.testing.assert_allclose(found.log_z[0], exact["log_z"], atol=1e-5)


@pytest.mark.usefixtures("untyped")
def test_bad_input(heads):
    q, k = heads
    with pytest.raises(ValueError, match="must have shape"):
        attention_statistics(q, k[:, :, :8])
    with pytest.raises(ValueError, match="must have shape"):
        attention_statistics(q[:3], k)
    with pytest.raises(ValueError, match="`sinks`"):
        attention_statistics(q, k, sinks=(60,))
    with pytest.raises(ValueError, match="finite scores"):
        attention_statistics(q.float() * 1e30, k.float() * 1e30)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_watching_sees_what_the_model_does(implementation):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=implementation,
    )  # fmt: skip
    model, seen = LlamaModel(config).eval(), {}
    tokens = torch.arange(12)[None]
    plain = model(tokens).last_hidden_state
    with watching(model, lambda layer, heads: seen.update({layer: heads})), torch.no_grad():
        watched = model(tokens).last_hidden_state
    assert torch.allclose(watched, plain, atol=1e-6)
    assert torch.equal(model(tokens).last_hidden_state, plain)  # nothing is left behind
    assert list(seen) == [0, 1]
    one = seen[1]
    k, v = (one[name].repeat_interleave(2, dim=1) for name in "kv")
    by_hand = scaled_dot_product_attention(one["q"], k, v, is_causal=True, scale=one["scale"])
    assert torch.allclose(by_hand.transpose(1, 2), one["output"], atol=1e-6)
    assert one["q"].shape == (1, 4, 12, 8)
    assert one["k"].shape == (1, 2, 12, 8)


def test_blocks_nest_and_leave_nothing_behind(build):
    """Watching inside scaling, or inside watching, ends without undoing the block around it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from attnflow.models.scaling import scaled

    model, inputs = build("bert")
    seen = []
    with torch.no_grad(), scaled(model, 3.0):
        first = model(**inputs).last_hidden_state
        with watching(model, lambda layer, heads: None):
            pass
        assert torch.equal(model(**inputs).last_hidden_state, first)
    with torch.no_grad(), watching(model, lambda layer, heads: seen.append(layer)):
        with watching(model, lambda layer, heads: None):
            pass
        plain = model(**inputs).last_hidden_state
    assert seen == [0, 1, 2]
    assert not torch.allclose(plain, first)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)
