"""Tiny GPTs: what is measured, by other means; resuming; and the order theory predicts at initialisation."""

import json
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

from attnflow.experiments import tiny_gpt
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
