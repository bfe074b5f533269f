"""First plateaus: clusters, hills and linear modes, counted again by other means."""

import json
import subprocess
import sys
from dataclasses import replace

import jax
import matplotlib.figure
import numpy as np
import pytest
from scipy.signal import find_peaks

import attnflow as af
from attnflow.experiments import modes
from attnflow.experiments.intervals import half_interval
from attnflow.experiments.modes import Config

SMALL = Config(n=48, beta_min=9.0, beta_max=81.0, beta_count=3, seeds=6)
"""At beta = 9 two clusters of start 5 are still within half a width on the plateau: they count as one."""


@pytest.fixture(scope="module")
def small():
    return modes.run(SMALL)


def start(k):
    return np.asarray(af.sphere.uniform(jax.random.fold_in(jax.random.key(0), k), 48, 2))


def test_counts_are_hills_of_densities(small):
    """The densities kept of one start, on a grid of 2 pi / 1440: hills at the start, then clusters."""
    for name, count in (("start_density", "kde_modes"), ("plateau_density", "clusters")):
        once = small[name].values[:-1]
        ring = np.concatenate([once, once[:3]])  # a hill at the seam is whole
        peaks, _ = find_peaks(ring)
        assert len(np.unique(peaks % len(once))) == small[count].values[1, 0]


def test_the_density_is_the_kernel_sum(small):
    theta = np.arctan2(start(0)[:, 1], start(0)[:, 0])
    at = small.angle.values[[0, 333, 1000]]
    expected = np.exp(27 * (np.cos(at[:, None] - theta) - 1)).mean(axis=1)
    np.testing.assert_allclose(small.start_density[[0, 333, 1000]], expected, rtol=1e-10)


def test_clusters_are_those_of_an_ordinary_run(small):
    """Tokens run to the middle of the plateau without merging, cut where gaps exceed half a width."""
    for k, beta in enumerate(small.beta.values):
        for one in range(6):
            ends = 10 ** np.array(
                [float(small[f"plateau_log10_{end}"][k, one]) for end in ("start", "end")]
            )
            assert ends[1] > 2 * ends[0]
            ts = np.array([0.0, np.sqrt(ends.prod())])
            x = np.asarray(af.solve(af.sa(float(beta)), start(one), ts, rtol=1e-9, atol=1e-11).xs)
            angles = np.sort(np.arctan2(x[-1, :, 1], x[-1, :, 0]))
            gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
            assert (gaps > 0.5 / np.sqrt(beta)).sum() == small.clusters.values[k, one]


def test_exponents_and_prefactors(small):
    """Least squares by `polyfit`, start by start; 2.570582 is Student's quantile of five freedoms."""
    for kind in ("clusters", "kde_modes"):
        counts = small[kind].values
        lines = [np.polyfit(np.log(small.beta), np.log(counts[:, k]), 1)[0] for k in range(6)]
        one = small.sel(kind=kind)
        np.testing.assert_allclose(one.exponent, np.mean(lines), rtol=1e-10)
        half = 2.570582 * np.std(lines, ddof=1) / np.sqrt(6)
        np.testing.assert_allclose(one.exponent_error, half, rtol=1e-6)
        shares = (counts / np.sqrt(small.beta.values)[:, None]).mean(axis=0)
        np.testing.assert_allclose(one.prefactor, shares.mean(), rtol=1e-12)


def test_counts_follow_the_laws(small):
    """Hills as Kac-Rice says, four standard errors (their spread is below their root); clusters fewer."""
    expected, hills = small.expected_kde_modes.values, small.kde_modes.values
    assert np.all(np.abs(hills.mean(axis=1) - expected) < 4 * np.sqrt(expected / 6))
    assert small.clusters.values.mean() <= hills.mean()
    np.testing.assert_array_equal(small.fastest_mode, [4, 7, 13])


def test_half_interval_covers():
    """The 95 % interval of normal samples holds the mean in 95 % of 20 000 cases, within 0.6 %."""
    values = np.random.default_rng(0).normal(size=(20_000, 4))
    held = np.abs(values.mean(axis=1)) < half_interval(values)
    assert abs(held.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 20_000)


class Memory:
    """A checkpoint in memory; the run is cut off after its second save."""

    def __init__(self):
        self.kept, self.saves = None, 0

    def load(self):
        return self.kept

    def save(self, step, arrays):
        self.kept = step, {name: np.array(values) for name, values in arrays.items()}
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(small):
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        modes.run(SMALL, checkpoint=memory)
    assert memory.saves == 2
    assert modes.run(SMALL, checkpoint=memory).identical(small)


def test_figure_table_and_numbers(small):
    figure = modes.draw(small)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    assert "27" in figure.axes[1].get_title(loc="left")
    assert "law: 1/2" in modes.summary(small)
    values = json.loads(json.dumps(modes.numbers(small), allow_nan=False))
    np.testing.assert_array_equal(values["clusters"], small.clusters)


def test_no_plateau_is_said():
    with pytest.raises(RuntimeError, match="Raise `t_max`"):
        modes.run(replace(SMALL, t_max=2.0))


def test_import_is_light():
    """`attnflow run modes --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.modes; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "`n` must be a whole number >= 2"),
        ({"seeds": 1}, "`seeds` must be a whole number >= 2"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"beta_count": 1}, "`beta_count` must be a whole number >= 2"),
        ({"beta_min": 0.0}, "`beta_min` must satisfy beta_min > 0"),
        ({"beta_max": 3.0}, "`beta_max` must satisfy beta_max > 4"),
        ({"beta_max": float("inf")}, "`beta_max` must be finite"),
        ({"t_max": 0.0}, "`t_max` must satisfy t_max > 0"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        modes.run(Config(**changes))
