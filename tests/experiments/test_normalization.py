"""The normalisation figure: three settings beside their theories, and late laws."""

import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

from attnflow.experiments import normalization
from attnflow.experiments.normalization import SCHEMES, Config, resolve

SMALL = Config(n=48, d=64, seeds=3, depth=4, t_max=4.0, beta_identity=2.0, dtype="float64")


class Memory:
    """A checkpoint that dies after given saves."""

    def __init__(self, death):
        self.kept, self.death = None, death

    def load(self):
        return self.kept

    def save(self, step, arrays):
        self.kept = (step, {name: np.copy(a) for name, a in arrays.items()})
        if step == self.death:
            self.death = None
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted():
    """A run killed after its third scheme, and resumed."""
    checkpoint = Memory(3)
    with pytest.raises(KeyboardInterrupt):
        normalization.run(SMALL, checkpoint=checkpoint)
    return normalization.run(SMALL, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def small():
    return normalization.run(SMALL)


def test_a_resumed_run_has_the_same_numbers(small, interrupted):
    assert interrupted.identical(small)


def test_exponents_and_constants_are_within_one_per_cent(small):
    known = [scheme for scheme in SCHEMES if scheme != "none"]
    one = small.sel(scheme=known)
    np.testing.assert_allclose(one.exponent, one.exponent_theory, rtol=0.01)
    np.testing.assert_allclose(one.constant, one.constant_theory, rtol=0.01)
    assert one.exponent_theory.values.tolist() == [-2, -2, -2, -2, -2, -4, -1]
    assert np.isnan(small.exponent.sel(scheme="none"))


def test_tokens_under_the_identity_follow_the_equiangular_ode(small):
    """Random cosines of size 1/sqrt(d) under beta = 2: 4 standard errors of 3 draws of 1128 pairs, and beta/(2d)."""
    spread = small.identity.values.std(axis=1).max()
    error = np.abs(small.identity.mean("draw") - small.identity_theory).max()
    assert error < 4 * spread / np.sqrt(3) + 2**2 / (2 * 64)


@pytest.mark.parametrize("panel", ["shared", "fresh"])
def test_random_weights_follow_their_mean_fields(small, panel):
    """Each matrix multiplies by chi^2_d/d: relative sd sqrt(2/64), here in 4 layers of 2 or a clock of 4."""
    error = np.abs(small[panel].mean("draw") - small[f"{panel}_theory"]).max()
    assert error < 4 * 0.25 * np.sqrt(2 * 8 / 64) / np.sqrt(3)
    assert np.isnan(small[panel].sel(scheme="none")).all()


def test_orders_rank_by_half_way_depth(small):
    tokens, theory = normalization.orders(small)["identity"]
    half = small.half_theory.sel(panel="identity")
    assert all(np.diff(half.sel(scheme=theory)) > 0)
    assert sorted(tokens) == sorted(theory)
    assert tokens[0] == "ngpt"


def test_figure_summary_and_numbers(small):
    assert isinstance(normalization.draw(small), matplotlib.figure.Figure)
    text = normalization.summary(small)
    assert "Post-LN" in text
    assert "e^(-4√t)" in text
    numbers = json.loads(json.dumps(normalization.numbers(small), allow_nan=False))
    assert numbers["exponent_theory"][SCHEMES.index("none")] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "`n` must be a whole number >= 2"),
        ({"depth": 0}, "`depth` must be a whole number >= 1"),
        ({"seeds": 1}, "`seeds` must be a whole number >= 2"),
        ({"beta": -1.0}, "`beta` must satisfy"),
        ({"beta": 1e4}, "Scores would be beyond theory"),
        ({"beta_identity": float("nan")}, "`beta_identity` must be finite"),
        ({"t_max": 0.0}, "`t_max` must satisfy"),
        ({"tau": 4.0}, "Mix must switch within the run"),
        ({"alpha": -0.5}, "`alpha` must satisfy"),
        ({"late_beta": 9.0}, "the laws come too late"),
        ({"dtype": "float16"}, "`dtype` must be one of"),
    ],
)
def test_bad_input_is_refused_before_any_work(change, message, untyped):
    with pytest.raises(ValueError, match=message):
        normalization.run(replace(SMALL, **change))


def test_open_fields_are_filled_in():
    config = resolve(Config())
    assert (config.beta, config.tau) == (512**0.5, 2.5)


def test_help_imports_neither_jax_nor_matplotlib():
    code = "import sys, attnflow.experiments.normalization; print({'jax', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
