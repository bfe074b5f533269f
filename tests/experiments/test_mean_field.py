"""Tokens beside their density: distances recomputed by other means, and the way to clusters."""

import json
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

import attnflow as af
from attnflow.experiments import mean_field
from attnflow.experiments.mean_field import Config

SMALL = Config(beta=4.0, n_min=50, n_max=800, n_count=3, starts=4, sphere_degree=24)


@pytest.fixture(scope="module")
def small():
    return mean_field.run(SMALL)


def test_errors_fall(small):
    assert small.w2.shape == small.mode_error.shape == (3, 4)
    rms = np.sqrt((small.w2.values**2).mean(axis=1))
    # n^(-1/2) over a factor 16 is 4; four draws leave a third of each.
    assert 1.8 < rms[0] / rms[-1] < 9
    assert np.abs(small.exponent + 0.5).max() < 0.3


def test_without_motion_the_error_is_that_of_the_draw():
    """At t_end -> 0 W2 is the distance of n draws to 1 + cos/2 + 3 sin(2 theta)/10."""
    still = mean_field.run(
        replace(SMALL, t_end=1e-9, sphere_degree=0, n_max=51, n_count=2, starts=40)
    )
    mean = (still.mode_error.values[0] ** 2).mean()
    # Modes of n draws: variances 1 - |m_k|^2 summed over cosine and sine, by n; modes 1 and 2 have
    # means 1/2 and 3/10, in the orthonormal basis times sqrt(2).
    exact = (6 * 2 - 2 * (0.25**2 + 0.15**2)) / 12 / 50
    assert abs(mean - exact) < 4 * (still.mode_error.values[0] ** 2).std() / np.sqrt(40)


def test_the_density_keeps_its_mass(small):
    mass = small.density.mean("angle").values
    assert np.abs(mass - 1).max() < 1e-6
    assert small.attrs["t_resolved"] < float(small.time[-1])


def test_rates_are_those_of_theory(small):
    fast = small.rate.values > 0.1
    assert np.abs(small.measured_rate - small.rate).values[fast].max() < 2e-3


def test_peaks_are_the_fastest_mode(small):
    assert small.attrs["fastest_mode"] == af.theory.stability.fastest_mode(4.0, d=2) == 3
    assert small.attrs["peaks"] == 3
    last = small.density.values[-1]
    assert (last > 0).mean() < 0.2  # quantiles have gathered


def test_noise_takes_part():
    noisy = mean_field.run(
        replace(
            SMALL,
            kappa=10.0,
            t_max=20.0,
            sphere_degree=0,
            n_max=100,
            n_count=2,
            starts=2,
            t_end=0.2,
        )
    )
    assert np.isfinite(noisy.w2).all()
    assert noisy.attrs["t_resolved"] == float(noisy.time[-1])  # noise keeps clusters wide


def test_resumes_to_the_same_bits(small):
    class Memory:
        step = None

        def load(self):
            return self.step

        def save(self, step, arrays):
            self.step = (step, {k: np.array(v) for k, v in arrays.items()})
            raise KeyboardInterrupt

    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        mean_field.run(SMALL, checkpoint=memory)
    memory.save = lambda step, arrays: None
    again = mean_field.run(SMALL, checkpoint=memory)
    assert np.array_equal(again.w2, small.w2)


def test_draw_and_summary(small):
    assert isinstance(mean_field.draw(small), matplotlib.figure.Figure)
    assert isinstance(mean_field.draw(small.drop_vars("sphere_density")), matplotlib.figure.Figure)
    text = mean_field.summary(small)
    assert "3 peaks on the circle (fastest mode 3)" in text
    json.dumps(mean_field.numbers(small), allow_nan=False)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kappa": 0.0}, "`kappa` must satisfy kappa > 0"),
        ({"beta": -1.0}, "`beta` must satisfy beta > 0"),
        ({"n_max": 50}, "`n_max`"),
        ({"perturbation": 0.5}, "perturbation <= 0.02"),
        ({"sphere_degree": 9}, r"sphere_degree >= (\d+).*kernel at beta=4 has \1 degrees"),
        ({"flow": "causal"}, "`flow` must be one of sa, usa"),
    ],
)
def test_bad_input(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        mean_field.run(replace(SMALL, **change))
