"""The monitor against NumPy, on models in training that it leaves as they were."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from attnflow.models.monitor import STATISTICS, Monitor, callback

D, N, BATCH = 24, 16, 4


def encoder(layers=3, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(D, 4, 32, **{"batch_first": True} | options)
        return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def batch(seed=0, n=N, rows=BATCH):
    return torch.randn(rows, n, D, generator=torch.Generator().manual_seed(seed))


def train(model, steps, monitor=None):
    """Losses of some steps, dropout on; from the same random numbers every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
        for step in range(steps):
            loss = (model(batch(step)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def direct(states):
    """Statistics of states (layers + 1, batch, n, d) by other means: all pairs, singular values."""
    rows = []
    for layer, state in enumerate(states):
        units = state / np.linalg.norm(state, axis=2, keepdims=True)
        n = state.shape[1]
        cosines = np.einsum("bid,bjd->bij", units, units)
        sigma = np.linalg.svd(units, compute_uv=False)
        p = sigma / sigma.sum(axis=1, keepdims=True)
        before = states[max(layer - 1, 0)]
        before = before / np.linalg.norm(before, axis=2, keepdims=True)
        rows.append((
            cosines[:, ~np.eye(n, dtype=bool)].mean(),
            np.exp(-(p * np.log(p)).sum(axis=1)).mean(),
            np.linalg.norm(state, axis=2).mean(),
            1 - (units * before).sum(axis=2).mean() if layer else np.nan,
        ))  # fmt: skip
    return np.array(rows)


def states_of(model, x):
    """States of a deterministic model, float64."""
    states = [x]
    for block in model.layers:
        states.append(block(states[-1]))
    return np.stack([s.detach().double().numpy() for s in states])


def watched(model, x, **options):
    with Monitor(model, **options) as monitor:
        model(x)
    return np.stack([monitor.history[name][0] for name in STATISTICS], axis=1)


@pytest.mark.parametrize("n", [16, 40])
def test_equal_to_numpy(n):
    """More tokens than dimensions, and fewer; states are the same bits, sums of 1e3 terms in float64."""
    model = encoder(dropout=0.0)
    found = watched(model, batch(n=n))
    # Square roots of eigenvalues of a Gram matrix: a vanishing singular value has error 1e-8 of the largest.
    np.testing.assert_allclose(found, direct(states_of(model, batch(n=n))), rtol=1e-7, atol=1e-7)


def test_training_stays_the_same_to_the_bit():
    model, alone = encoder(), encoder()
    with Monitor(model, every=2) as monitor:
        watched_losses = train(model, 7)
    assert watched_losses == train(alone, 7)
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(monitor.history["step"], [0, 2, 4, 6])
    assert monitor.history["rho"].shape == (4, 4)


def test_sink_has_every_layer():
    told = []
    model = encoder(dropout=0.0)
    with Monitor(model, every=3, sink=lambda values, step: told.append((step, values))) as monitor:
        train(model, 4)
    assert [step for step, _ in told] == [0, 3]
    assert told[1][1]["rho/3"] == monitor.history["rho"][1, 3]
    assert len(told[0][1]) == 4 * 4 - 1
    assert "influence/0" not in told[0][1]


def test_hooks_are_gone_after_and_evaluation_is_no_step():
    model = encoder()
    with Monitor(model, every=1) as monitor:
        model.eval()
        with torch.no_grad():
            model(batch())
        model.train()
        model(batch())
    model(batch())
    assert monitor.history["step"].tolist() == [0]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_step_of_several_forwards_is_read_once():
    model = encoder()
    with Monitor(model, every=2) as monitor:
        for _ in range(3):
            monitor.step()
            for _ in range(4):
                model(batch())
    assert monitor.history["step"].tolist() == [0, 2]


@pytest.mark.parametrize("reentrant", [True, False])
def test_blocks_run_again_in_the_backward_are_not_read(monkeypatch, reentrant):
    from attnflow.models import monitor as module

    read, statistics = [], module._statistics
    monkeypatch.setattr(module, "_statistics", lambda x: (read.append(1), statistics(x))[1])

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = encoder(dropout=0.0).layers

        def forward(self, x):
            x = x.clone().requires_grad_()
            for layer in self.layers:
                x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
            return x

    model = Checkpointed()
    with Monitor(model, every=1) as monitor:
        train(model, 2)
    assert monitor.history["rho"].shape == (2, 4)
    assert len(read) == 2 * 4 * BATCH


def test_a_forward_that_raises_leaves_nothing():
    model = encoder()
    with Monitor(model, every=1) as monitor:
        with pytest.raises(AssertionError):
            model(batch()[..., :3])
        model(batch())
    assert len(monitor.history["step"]) == 1


def test_few_tokens_of_many():
    """20 of 64 tokens: one sequence, evenly spaced; 40: two sequences of 16, and 8 of them spare."""
    model = encoder(dropout=0.0)
    states = states_of(model, batch())
    found = watched(model, batch(), tokens=10)
    at = np.linspace(0, N - 1, 10).astype(int)
    np.testing.assert_allclose(found, direct(states[:, :1, at]), rtol=1e-7, atol=1e-7)
    found = watched(model, batch(), tokens=40)
    np.testing.assert_allclose(found, direct(states[:, :2]), rtol=1e-7, atol=1e-7)


def test_padding_is_left_out():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = encoder(dropout=0.0).layers

        def forward(self, x, attention_mask):
            for layer in self.layers:
                x = layer(x, src_key_padding_mask=~attention_mask.bool())
            return x

    model, mask = Padded(), torch.ones(BATCH, N, dtype=torch.long)
    mask[:, 11:] = 0
    with Monitor(model) as monitor:
        model(batch(), attention_mask=mask)
    expected = direct(states_of(model, batch()[:, :11]))
    found = np.stack([monitor.history[name][0] for name in STATISTICS], axis=1)
    # Attention with and without padding rounds differently: float32, some 1e-6.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sequence_first_and_half_precision():
    model = encoder(dropout=0.0, batch_first=False)
    found = watched(model, batch().transpose(0, 1), batch_first=False)
    np.testing.assert_allclose(found, watched(encoder(dropout=0.0), batch()), rtol=1e-5, atol=1e-5)
    low = watched(encoder(dropout=0.0).bfloat16(), batch().bfloat16())
    # Three digits of bfloat16 in each entry; sums keep them.
    np.testing.assert_allclose(low[:, :3], found[:, :3], rtol=2e-2, atol=1e-2)


def test_autocast_does_not_reach_the_sums():
    model = encoder(dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = watched(model, batch())
    expected = direct(states_of(model, batch())[:1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-7)


def test_the_first_block_that_is_not_finite_is_named_once():
    model = encoder(dropout=0.0)
    with torch.no_grad():
        model.layers[1].linear2.bias.fill_(torch.nan)
    with pytest.warns(RuntimeWarning, match=r"of block `layers\.1` are not finite at step 0"):  # noqa: SIM117
        with Monitor(model, every=1) as monitor:
            model(batch())
    assert np.isnan(monitor.history["rho"][0]).tolist() == [False, False, True, True]
    with monitor:
        model(batch())  # warnings are errors
    assert len(monitor.history["step"]) == 2


def test_the_list_with_most_parameters_has_the_blocks():
    """Experts of a layer are more in number, but smaller."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(8))

        def forward(self, x):
            return sum(expert(x) for expert in self.experts)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.ModuleList([Layer(), Layer()])

        def forward(self, x):
            return self.h[1](self.h[0](x))

    model = Model()
    assert Monitor(model).names == ["h.0", "h.1"]
    assert Monitor(model, blocks=["h.1"]).names == ["h.1"]
    assert Monitor(model, blocks=[model.h[0]]).names == ["h.0"]
    assert Monitor(nn.Sequential(nn.Linear(D, D), nn.ReLU())).names == ["0", "1"]
    assert watched(model, batch()[0]).shape == (3, 4)  # (n, d) is one sequence


def test_gpt2_and_the_trainer_callback():
    """The order in which a Trainer calls, two forwards a step; blocks are called with keywords or not."""
    from transformers import GPT2Config, GPT2LMHeadModel, TrainerState
    from transformers.trainer_callback import TrainerCallback

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=N, n_embd=D, n_layer=2, n_head=2))
    told, text = [], torch.arange(2 * N).reshape(2, N) % 50
    one = callback(lambda values, step: told.append(step), every=2)
    assert isinstance(one, TrainerCallback)
    state = TrainerState()
    one.on_train_begin(None, state, None, model=model)
    for state.global_step in range(3):
        one.on_step_begin(None, state, None, model=model)
        for _ in range(2):
            model(text)
    one.on_train_end(None, state, None, model=model)
    model(text)
    assert told == [0, 2]
    history = one.monitor.history
    assert one.monitor.names == ["transformer.h.0", "transformer.h.1"]
    model.eval()
    states = model(text, output_hidden_states=True).hidden_states[:2]
    assert history["rho"].shape == (2, 3)
    expected = direct(np.stack([s.detach().double().numpy() for s in states]))
    # Dropout of embeddings and blocks, .1: a tenth of the entries, at random.
    np.testing.assert_allclose(history["radius"][0, :2], expected[:, 2], rtol=0.2)


def test_a_trainer_calls_it_and_training_stays_the_same(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    texts = [{"input_ids": torch.arange(k, k + N) % 50} for k in range(24)]
    texts = [text | {"labels": text["input_ids"]} for text in texts]

    def train(*callbacks):
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "n_positions": N, "n_embd": D, "n_layer": 2, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**sizes))
        settings = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=6,
            use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=0, logging_strategy="no",
            dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(model, settings, train_dataset=texts, callbacks=list(callbacks)).train()
        return model

    told = []
    one = callback(lambda values, step: told.append((step, values)), every=3)
    watched, alone = train(one), train()
    assert [step for step, _ in told] == [0, 3]
    assert one.monitor.history["rho"].shape == (2, 3)
    assert told[1][1]["rho/2"] == one.monitor.history["rho"][1, 2]
    for a, b in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_import_is_lazy_and_what_is_missing_is_said():
    code = (
        "import sys, attnflow, attnflow.models; assert 'torch' not in sys.modules; "
        "sys.modules['torch'] = None\n"
        "try: attnflow.models.Monitor\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'attnflow[models]'" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "`every` must be a whole number >= 1"),
        ({"tokens": 1}, "`tokens` must be a whole number >= 2"),
        ({"blocks": []}, "`blocks` must hold a block"),
        ({"blocks": ["layers.7"]}, "`blocks` must hold modules of the model or their names"),
        ({"model": nn.Linear(2, 2)}, "`model` must hold its blocks in a `ModuleList`"),
        ({"model": "gpt2"}, "`model` must be a `torch.nn.Module`"),
    ],
)
def test_bad_input_is_told(options, message, untyped):
    with pytest.raises(ValueError, match=message):
        Monitor(**{"model": encoder()} | options)


def test_states_of_another_shape_are_told():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    with Monitor(model), pytest.raises(ValueError, match=r"shape \(batch, n, d\)"):
        model(torch.zeros(1, 1, 2, 2))
