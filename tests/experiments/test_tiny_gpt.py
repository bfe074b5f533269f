"""Tiny GPTs: what is measured, by other means; resuming; and the order theory predicts at initialisation."""

import json
from dataclasses import replace

import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest
import torch
from torch import nn

import attnflow as af
from attnflow.experiments import tiny_gpt
from attnflow.experiments import tiny_gpt_model as gpt
from attnflow.experiments.tiny_gpt import Config

TINY = Config(
    d=16, heads=2, n=16, shallow=1, deep=2, steps=4, batch=4, warmup=1, draws=2, characters=20_000
)


@pytest.fixture(scope="module")
def tiny():
    return tiny_gpt.run(TINY)


def test_every_cell_is_there(tiny):
    assert tiny.test_loss.shape == (3, 2)
    for depth in (1, 2):
        path = tiny.rho.sel(depth=depth, layer=slice(0, depth))
        assert np.isfinite(path).all()
        assert np.isfinite(tiny.gradient.sel(depth=depth, block=slice(1, depth))).all()
    assert np.isnan(tiny.rho.sel(depth=1, layer=2)).all()


def test_losses_start_at_a_uniform_guess_and_fall(tiny):
    """Fresh weights guess nearly uniformly: log of the alphabet, up to logits of order 1."""
    start = tiny.loss.isel(step=0).values
    assert (np.abs(start - np.log(tiny.attrs["alphabet"])) < 1.5).all()
    longer = tiny_gpt.run(replace(TINY, steps=40, learning_rate=3e-3))
    assert (longer.loss.isel(step=slice(-5, None)).mean("step") < longer.loss.isel(step=0)).all()


def test_schemes_share_text_and_entry(tiny):
    entry = tiny.rho.sel(measured="init", layer=0)
    assert np.ptp(entry.values, axis=0).max() < 1e-6
    assert (tiny.effective_rank <= 16 + 1e-9).where(tiny.effective_rank.notnull(), True).all()


def test_resumes_to_the_same_numbers(tiny):
    class Memory:
        kept = None

        def load(self):
            return self.kept

        def save(self, step, arrays):
            self.kept = (step, {k: np.array(v) for k, v in arrays.items()})
            if step == 2:
                raise KeyboardInterrupt

    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        tiny_gpt.run(TINY, checkpoint=memory)
    again = tiny_gpt.run(TINY, checkpoint=memory)
    np.testing.assert_allclose(again.loss, tiny.loss, rtol=1e-5)
    np.testing.assert_allclose(again.test_loss, tiny.test_loss, rtol=1e-5)


def encoder_layer(block, d, heads, scheme):
    """PyTorch's own layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(
        d, heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=scheme == "pre"
    )
    pairs = (
        (layer.self_attn.out_proj, block.out), (layer.linear1, block.up), (layer.linear2, block.down),
        (layer.norm1, block.norms[0]), (layer.norm2, block.norms[1]),
    )  # fmt: skip
    for own, ours in pairs:
        own.load_state_dict(ours.state_dict())
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.qkv.bias)
    return layer


@pytest.mark.parametrize("scheme", ["post", "pre"])
@pytest.mark.parametrize("causal", [True, False])
def test_blocks_are_those_of_pytorch(scheme, causal):
    block, x = gpt.Block(16, 2, scheme), torch.randn(3, 9, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(9) if causal else None
    with torch.no_grad():
        expected = encoder_layer(block, 16, 2, scheme)(x, src_mask=mask, is_causal=causal)
        found = block(x, causal)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # float32, sums of 64


def test_peri_adds_updates_of_unit_radius():
    """Each sublayer adds a vector of mean square 1, so |x|^2/d grows by at most (1 + 1)^2 - 1 at first."""
    block, x = gpt.Block(64, 2, "peri"), torch.randn(2, 8, 64)
    seen = []
    block.norms[2].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        middle = x + block.norms[2](block._attention(block.norms[0](x), True))
        up = nn.functional.gelu(block.up(block.norms[1](middle)))
        expected = middle + block.norms[3](block.down(up))
        found = block(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(seen[0].square().mean(-1), torch.ones(2, 8), rtol=1e-2, atol=0.0)


def test_a_model_does_not_see_what_comes():
    model = gpt.new_model(TINY, "pre", 2, 50)
    text = torch.arange(16)[None] % 50
    changed = text.clone()
    changed[0, 10:] = 7
    with torch.no_grad():
        one, other = model(text), model(changed)
        full = model.states(text, causal=False)[-1] - model.states(changed, causal=False)[-1]
    torch.testing.assert_close(one[:, :10], other[:, :10])
    assert not torch.allclose(one[:, 10:], other[:, 10:])
    assert full[:, :10].abs().max() > 1e-3


def test_measures_by_other_means(tiny):
    """The first draw is the trained one: its mean with the second is what the run has."""
    text, alphabet, _ = gpt.read_text(TINY.characters)
    assert len(alphabet) == tiny.attrs["alphabet"]
    rows, full, norms = [], [], []
    for draw in range(2):
        model = gpt.new_model(TINY, "peri", 2, len(alphabet), draw)
        batch = gpt.held_out(TINY, text, tiny_gpt.ROWS)
        states, others = (
            np.stack([s.detach().double().numpy() for s in model.states(batch[0], causal)])
            for causal in (True, False)
        )
        cosines = [[af.observables.mean_cosine(jnp.asarray(x)) for x in state] for state in states]
        rows.append(np.mean(cosines, axis=1))
        last = [
            af.observables.effective_rank(af.sphere.normalize(jnp.asarray(x))) for x in others[-1]
        ]
        full.append(np.mean(last))
        loss = nn.functional.cross_entropy(model(batch[0]).transpose(1, 2), batch[1])
        for block in model.blocks:
            parts = torch.autograd.grad(loss, list(block.parameters()), retain_graph=True)
            norms.append(float(torch.cat([p.flatten() for p in parts]).norm()))
    one = tiny.sel(scheme="peri", depth=2)
    np.testing.assert_allclose(one.rho.sel(measured="init"), np.mean(rows, axis=0), rtol=1e-6)
    found = one.effective_rank.sel(measured="full", layer=2)
    np.testing.assert_allclose(found, np.mean(full), rtol=1e-5)
    expected = np.reshape(norms, (2, 2)).mean(axis=0)
    np.testing.assert_allclose(one.gradient, expected, rtol=1e-4)


def test_training_leaves_random_numbers_and_threads_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    tiny_gpt.run(replace(TINY, steps=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("scheme", tiny_gpt.SCHEMES)
def test_theory_holds_without_the_mask(scheme):
    """Fresh weights, no mask: means over 6 draws within 1/sqrt(d) of theory, its own error."""
    config = replace(TINY, d=256, heads=8, n=64)
    text, alphabet, _ = gpt.read_text(config.characters)
    draws = [gpt.new_model(config, scheme, 4, len(alphabet), k) for k in range(6)]
    found = np.mean([gpt.measure(config, m, text, 4, causal=False) for m in draws], axis=0)
    course = af.theory.random_weights.random_layer_course(
        scheme, 1 - found[0, 0], layers=4, n=64, variance=1.0, activation="gelu",
        radius=found[2, 0],
    )  # fmt: skip
    np.testing.assert_allclose(found[0], 1 - course.gap, atol=256**-0.5)


def test_draw_and_summary(tiny):
    assert isinstance(tiny_gpt.draw(tiny), matplotlib.figure.Figure)
    assert "predicted:" in tiny_gpt.summary(tiny)
    json.dumps(tiny_gpt.numbers(tiny), allow_nan=False)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 3}, "`heads` must divide d=16"),
        ({"deep": 2, "shallow": 2}, "`deep` must satisfy deep >= 3"),
        ({"characters": 100}, "A tenth is held out"),
        ({"learning_rate": 0.0}, "`learning_rate` must satisfy"),
    ],
)
def test_bad_input(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_gpt.run(replace(TINY, **change))
