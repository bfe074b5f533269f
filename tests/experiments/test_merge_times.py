"""Merge times over beta: the closed equation, slopes against gaps, checkpoints to the same bits."""

import json
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest

from attnflow.experiments import merge_times
from attnflow.experiments.merge_times import Config
from attnflow.theory.metastability import log10_merge_time

SMALL = Config(n=4, beta_min=60.0, beta_max=120.0, beta_count=3, seeds=4)


@pytest.fixture(scope="module")
def small():
    return merge_times.run(SMALL)


@pytest.fixture(scope="module")
def pairs():
    """Two tokens, whose law is exact."""
    return merge_times.run(Config(n=2, beta_min=60.0, beta_max=120.0, beta_count=3, seeds=6))


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_two_tokens_follow_the_quadrature(pairs, model):
    """log10 to 1e-7: rounding of positions, 1e-15, over the chord 1e-8 of a merge."""
    clock = merge_times.CLOCKS[model]
    for k in range(6):
        one = pairs.sel(model=model).isel(start=k, merge=0)
        angle = np.arccos(1 - float(one.gap))
        exact = log10_merge_time(angle, 1e-8, beta=pairs.beta.values, model=model, clock=clock)
        np.testing.assert_allclose(one.log10_time, exact, atol=1e-7)
        np.testing.assert_allclose(one.predicted_log10_time, exact, atol=1e-9)


def test_slopes_of_two_tokens_are_gaps(pairs):
    """Laplace's method: log(beta T) is a line but for 2 cos / (beta sin^2), and squares of 1/k.

    Both change by less than 2 (2 |cos|/k + 8/k^2) over the range, k = 60 sin^2.
    """
    gap, slope = pairs.gap.values, pairs.slope.values
    k = 60 * gap * (2 - gap)
    clear = k > 20  # below, the expansion is none
    bound = 2 * (2 * np.abs(1 - gap) / k + 8 / k**2) / 60
    assert clear.sum() >= 8
    assert np.all(np.abs(slope - gap)[clear] < bound[clear])


def test_slopes_are_least_squares(small):
    heights = small.log10_time.values * np.log(10) + np.log(small.beta.values)[:, None]
    for index in np.ndindex(2, 4, 3):
        line = np.polyfit(small.beta.values, heights[index[:2]][:, index[2]], 1)
        np.testing.assert_allclose(small.slope.values[index], line[0], rtol=1e-10)


def test_last_merges_have_slope_one_per_gap(small):
    """Neglected terms are of order 1/(beta gap), about 1 %, and change by half of it over the range."""
    ratio = small.slope.values[..., -1] / small.gap.values[..., -1]
    np.testing.assert_allclose(ratio, 1, atol=0.03)
    np.testing.assert_allclose(small.ratio, ratio.mean(axis=1), rtol=1e-14)
    # Student's 97.5 % quantile of three degrees of freedom is 3.182446
    half = 3.182446 * ratio.std(axis=1, ddof=1) / 2
    np.testing.assert_allclose(small.ratio_error, half, rtol=1e-6)


def test_merges_come_in_order_and_gaps_rise(small):
    assert np.all(np.diff(small.log10_time, axis=-1) >= 0)
    assert np.all(np.diff(small.gap, axis=-1) >= 0)


class Memory:
    """A checkpoint in memory; the run is cut off after its third save."""

    def __init__(self):
        self.kept, self.saves = None, 0

    def load(self):
        return self.kept

    def save(self, step, arrays):
        self.kept = step, {name: np.array(values) for name, values in arrays.items()}
        self.saves += 1
        if self.saves == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(small):
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        merge_times.run(SMALL, checkpoint=memory)
    assert memory.saves == 3
    assert merge_times.run(SMALL, checkpoint=memory).identical(small)


def test_figure_table_and_numbers(small):
    figure = merge_times.draw(small)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0].startswith("SA: slope / gap = ") and titles[1].startswith("USA: ")
    assert len(figure.axes[0].lines) == 8
    assert len(merge_times.summary(small).splitlines()) == 11
    values = json.loads(json.dumps(merge_times.numbers(small), allow_nan=False))
    np.testing.assert_array_equal(values["slope"], small.slope)


def test_import_is_light():
    """`attnflow run merge-times --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.merge_times; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "`n` must be a whole number >= 2"),
        ({"d": 1}, "`d` must be a whole number >= 2"),
        ({"seeds": 1}, "`seeds` must be a whole number >= 2"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"beta_count": 1}, "`beta_count` must be a whole number >= 2"),
        ({"beta_min": 0.0}, "`beta_min` must satisfy beta_min > 0"),
        ({"beta_max": 30.0}, "`beta_max` must satisfy beta_max > 40"),
        ({"beta_max": float("inf")}, "`beta_max` must be finite"),
        ({"rtol": 0.0}, "`rtol` must satisfy"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        merge_times.run(Config(**changes))
