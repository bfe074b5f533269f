"""Bifurcation diagrams: branches and transitions by the theory's own solver, tokens within their errors."""

import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

import attnflow as af
from attnflow.experiments import bifurcation
from attnflow.experiments.bifurcation import Config

SMALL = Config(models=("usa",), dimensions=(2,), n=64, runs=6, most_steps=300)
theory = af.theory


@pytest.fixture(scope="module")
def small():
    return bifurcation.run(SMALL)


def test_transitions(small):
    """Continuous at beta = 1, with a jump at beta = 4; both by the other solver."""
    low, high = (small.sel(model="usa", d=2, beta=beta) for beta in (1.0, 4.0))
    for one, beta in ((low, 1.0), (high, 4.0)):
        exact = theory.noisy.critical_kappa(beta, d=2, model="usa")
        np.testing.assert_allclose(one.kappa_c, exact, rtol=1e-12)
    found = theory.gibbs.first_order(4.0)
    for name in ("kappa_t", "jump", "kappa_sn", "fold"):
        np.testing.assert_allclose(high[name], getattr(found, name), rtol=1e-9)
        assert np.isnan(low[name])


def test_branches(small):
    """Stable points are the most ordered densities; between kappa_c and the fold one direction grows."""
    for beta in (1.0, 4.0):
        one = small.sel(model="usa", d=2, beta=beta).dropna("point", subset=["kappa"])
        stable = one.unstable.values == 0
        ahead = np.flatnonzero(stable)[5::8]
        exact = [
            theory.gibbs.order_parameter(beta, float(k), model="usa") for k in one.kappa[ahead]
        ]
        np.testing.assert_allclose(one.R[ahead], exact, atol=1e-9)
        assert float(one.kappa[-1]) == pytest.approx(1.8 * float(one.kappa_c), rel=1e-9)
    lower = (one.R > 0.01) & (float(one.fold) - 0.001 > one.R)
    assert np.all(one.unstable.values[lower] == 1)
    assert not stable[lower].any()


def test_tokens_run_where_a_density_is_stable(small):
    for beta in (1.0, 4.0):
        one = small.sel(model="usa", d=2, beta=beta)
        ordered, uniform = (np.isfinite(one.token_R.sel(start=s)) for s in ("ordered", "uniform"))
        lowest = float(one.kappa_c if np.isnan(one.kappa_sn) else one.kappa_sn)
        np.testing.assert_array_equal(ordered, one.token_kappa > lowest)
        np.testing.assert_array_equal(uniform, one.token_kappa < one.kappa_c)
        for dot in range(6):
            known = theory.gibbs.order_parameter(beta, float(one.token_kappa[dot]), model="usa")
            if ordered[dot]:
                np.testing.assert_allclose(one.density_R[dot, 0], known, atol=1e-9)
            if uniform[dot]:
                np.testing.assert_allclose(one.density_R[dot, 1], 0, atol=1e-9)
    assert (one.token_kappa < one.kappa_c).sum() == 4  # below the fold, and thrice in the loop
    assert np.isfinite(one.token_R).sum() == 9


def test_ordered_tokens_are_on_the_branch(small):
    """Far above kappa_c, within four standard errors and 2/n; half an interval is 2.57 of them."""
    for beta in (1.0, 4.0):
        last = small.sel(model="usa", d=2, beta=beta, start="ordered").isel(dot=-1)
        allowed = 4 / 2.57 * float(last.token_error) + 2 / 64
        assert abs(float(last.token_R - last.density_R)) < allowed
        assert float(last.token_error) < 0.1


def test_uniform_tokens_stay_near_zero(small):
    r"""Below kappa_c, R^2 has the mean $\frac1n\frac1{1-\kappa/\kappa_c}$ to leading order in 1/n."""
    first = small.sel(model="usa", d=2, beta=1.0, start="uniform").isel(dot=0)
    spread = np.sqrt(1 / 64 / (1 - 0.7))
    # a mean of Rayleigh's law is 0.886 of the root mean square
    assert abs(float(first.token_R) - 0.886 * spread) < 4 / 2.57 * float(first.token_error) + 2 / 64


class Memory:
    """A checkpoint in memory; the run is cut off after its first save."""

    def __init__(self):
        self.kept, self.saves = None, 0

    def load(self):
        return self.kept

    def save(self, step, arrays):
        self.kept = step, {name: np.array(values) for name, values in arrays.items()}
        self.saves += 1
        if self.saves == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(small):
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        bifurcation.run(SMALL, checkpoint=memory)
    assert bifurcation.run(SMALL, checkpoint=memory).identical(small)


def test_figure_table_and_numbers(small):
    figure = bifurcation.draw(small)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left") == "unnormalised attention, d = 2"
    text = bifurcation.summary(small)
    assert "continuous" in text
    assert "0.391475" in text
    values = json.loads(json.dumps(bifurcation.numbers(small), allow_nan=False))
    assert values["kappa_t"][0][0][0] is None
    assert values["beta"] == [1.0, 4.0]


def test_without_tokens():
    alone = bifurcation.run(replace(SMALL, models=("sa",), n=0))
    assert np.isnan(alone.token_R).all()
    assert np.isnan(alone.kappa_t).all()  # softmax orders continuously
    bifurcation.draw(alone).draw_without_rendering()
    assert "No tokens" in bifurcation.summary(alone)


def test_import_is_light():
    """`attnflow run bifurcation --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.bifurcation; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "`models` must hold different values"),
        ({"betas": (1.0, 1.0)}, "`betas` must hold different values"),
        ({"models": ("causal",)}, "`model` must be one of sa, usa"),
        ({"dimensions": (1,)}, "`d` must be a whole number >= 2"),
        ({"dimensions": (300,)}, "d <= 256"),
        ({"betas": (-1.0,)}, "beta >= 0"),
        ({"betas": (40.0,), "dimensions": (8,)}, "more than degree=1000"),
        ({"n": -1}, "`n` must be a whole number >= 0"),
        ({"runs": 1}, "`runs` must be a whole number >= 2"),
        ({"most_steps": 0}, "`most_steps` must be a whole number >= 1"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        bifurcation.run(Config(**changes))
