"""The scale advisor where its theory holds, where it does not, and on the command line."""

import json
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest
import torch

import attnflow as af
from attnflow.experiments import scale
from attnflow.experiments.scale import Config, advise, sizes


def equiangular_model(n, *, rho, lead, width=512):
    """One layer of one random head over tokens x_i = sqrt(rho) e + sqrt(1 - rho) g_i (THEORY: nearly equiangular).

    Tokens have mean zero, so that LayerNorm only sets their length; Q = K up to one rotation, V random.
    """
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=n, hidden_size=width, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=n,
    )  # fmt: skip
    model = BertModel(config).eval()
    draw = torch.randn(n + 1, width, dtype=torch.float64)
    draw -= draw.mean(dim=1, keepdim=True)
    e = draw[0] / draw[0].norm()
    g = draw[1:] - (draw[1:] @ e)[:, None] * e
    x = rho**0.5 * e + (1 - rho) ** 0.5 * g / g.norm(dim=1, keepdim=True)
    rotation = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    beta = lead / (1 - rho)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(x)
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
        attention = model.encoder.layer[0].attention.self
        for part in (attention.query, attention.key):
            part.weight.copy_(rotation * (beta / width**0.5) ** 0.5)
        attention.value.weight.copy_(torch.linalg.qr(torch.randn(width, width))[0])
    return model


def test_factors_come_on_top_of_the_rule_of_the_model_itself():
    from transformers import Ministral3Config, Ministral3Model

    torch.manual_seed(0)
    slope, length = 0.5, 16
    rope = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": slope,
            "original_max_position_embeddings": length}  # fmt: skip
    model = Ministral3Model(
        Ministral3Config(
            vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=2, head_dim=16,
            num_attention_heads=2, num_key_value_heads=2, rope_parameters=rope,
        )
    ).eval()  # fmt: skip
    data = advise(model, torch.arange(32)[None], [32, 128], n0=32)
    brought = (1 + slope * np.log(1 + 127 // length)) / (1 + slope * np.log(1 + 31 // length))
    np.testing.assert_allclose(data.own, [[1, 1], [brought, brought]], rtol=1e-14)
    kept = af.theory.logit_rules.keep_cosine(
        128, n0=32, lead=data.lead.values, rho=np.clip(data.rho.values, 0, 1)
    )
    np.testing.assert_allclose(data.factor.sel(law="fixed", length=128) * brought, kept, rtol=1e-9)
    text = scale.summary(data)
    assert "its own" in text
    assert "applies: llama4: logits times 1 + 0.5 log" in text


@pytest.mark.parametrize("rho", [0.2, 0.5])
def test_prediction_is_what_the_scaled_model_does(rho):
    model = equiangular_model(1024, rho=rho, lead=5.5)
    data = advise(model, torch.arange(1024)[None], [512, 1024], n0=256, apply=True)
    # Cosines of g_i spread by d^(-1/2): leads are off by lead^2 / (2 d) = 0.03, and dC/dlead < 1/2; the
    # cosine of n values is known to n^(-1/2) of its part 1 - rho in one direction.
    gap = np.abs(data.applied - data.expected)
    assert float(gap.sel(logits=["unscaled", "fixed"]).max()) < 0.03
    assert abs(float(data.measured.mean() - data.cosine.mean())) < 0.03
    kept = data.applied.sel(logits="fixed")
    assert np.abs(kept - float(data.measured.mean())).max() < 0.03
    moved = data.applied.sel(logits="unscaled", length=1024)
    assert float(moved.mean()) > float(data.measured.mean()) + 0.05  # it matters


def test_lengths():
    assert sizes(("32k", "512", "1m")) == [512, 32768, 2**20]
    for bad in ("1x", "k", "1", "-4", "1.5k", ""):
        with pytest.raises(ValueError, match="`lengths` must hold"):
            sizes((bad,))
    with pytest.raises(ValueError, match="it is empty"):
        sizes(())


@pytest.fixture(scope="module")
def small():
    return scale.run(Config(n0=64, lengths=("96", "4k"), apply=True))


def test_minilm_says_how_far_off_it_is(small):
    text = scale.summary(small)
    off = np.abs(small.measured - small.cosine)
    assert f"off by {float(off.mean()):.3f} in the mean" in text
    assert "4096   the text or the model is too short" in text
    assert np.isfinite(small.applied.sel(length=96)).all()
    assert np.isnan(small.applied.sel(length=4096)).all()


def test_longer_contexts_need_more(small):
    fixed = small.factor.sel(law="fixed")
    assert (fixed.sel(length=4096) > fixed.sel(length=96)).all()
    assert (small.rules.sel(length=4096) >= 1).all()
    # A lead that grows by itself needs less from the factor, in proportion.
    grown = small.lead + np.maximum(small.slope, 0) * np.log(4096 / 64)
    ratio = fixed.sel(length=4096) / small.factor.sel(law="growing", length=4096)
    assert float(ratio.max()) > 1.1
    np.testing.assert_allclose(ratio, grown / small.lead, rtol=1e-9)


def test_draw_and_numbers(small):
    assert isinstance(scale.draw(small), matplotlib.figure.Figure)
    json.dumps(scale.numbers(small), allow_nan=False)


def test_command_line(tmp_path):
    call = [sys.executable, "-m", "attnflow.cli", "scale"]
    done = subprocess.run(
        [*call, "minilm", "--lengths", "128", "--n0", "48", "--out", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "heads measured at n0 = 48" in done.stdout
    done = subprocess.run(
        [*call, "nowhere", "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "is no folder" in done.stderr


def test_bad_input():
    with pytest.raises(ValueError, match="`n0` must not exceed the text"):
        scale.run(Config(n0=100_000))
    with pytest.raises(ValueError, match="`text` must be a file"):
        scale.run(Config(text="none.txt"))
