import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import diffrax
import jax
import numpy as np
import pytest

import attnflow as af
from attnflow.experiments import phase_diagram
from attnflow.experiments.phase_diagram import Config
from attnflow.theory import equiangular

SMALL = Config(
    n=6, dims=(6, 20), beta_min=0.5, beta_max=3.0, beta_count=2, seeds=5, batch=2, t_max=12.0,
    time_count=25,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return phase_diagram.run(SMALL)


@pytest.fixture(scope="module")
def wide():
    """Dimension 1024 at beta = 1, 2, 3, 4, 5, half-height times read off every 0.02."""
    config = Config(
        dims=(1024,), beta_min=1.0, beta_max=5.0, beta_count=5, seeds=16, t_max=12.0,
        time_count=301,
    )  # fmt: skip
    return phase_diagram.run(config)


def direct_cosines(config, d):
    """Cosines at save times, (beta, seed, time, n, n): each system alone, in its own d, at 1e-12."""
    ts = np.linspace(0, config.t_max, config.time_count)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)

    def solve(beta, x0):
        return af.solve(
            af.sa(beta), x0, ts, method=diffrax.Dopri8(), rtol=1e-12, atol=1e-14, reduce=False
        ).xs

    each = jax.jit(jax.vmap(jax.vmap(solve, (None, 0)), (0, None)))
    xs = np.asarray(each(betas, phase_diagram.starts(config, d)))
    return np.einsum("bstik,bstjk->bstij", xs, xs)


@pytest.mark.parametrize("d", SMALL.dims)
def test_fractions_are_those_of_each_system_alone(small, d):
    """Batches, rotation into the span and early ends change no pair, none being on the edge.

    Tokens within 1e-6 move a cosine near 0.999 by at most 2 sqrt(2 delta) 1e-6 < 1e-7.
    """
    pairs = direct_cosines(SMALL, d)[..., ~np.eye(SMALL.n, dtype=bool)]
    assert np.abs(pairs - 0.999).min() > 1e-7
    fractions = (pairs >= 0.999).mean(axis=-1)
    assert 0 < fractions.mean() < 1
    found = small.sel(dim=d)
    np.testing.assert_allclose(found.fraction, fractions.mean(axis=1), rtol=1e-14)
    error = np.sqrt(fractions.var(axis=1, ddof=1) / SMALL.seeds)
    np.testing.assert_allclose(found.fraction_error, error, atol=1e-15)


@pytest.mark.parametrize(("d", "beta"), [(8, 4.0), (1024, 5.0)])
def test_tokens_are_within_1e_6(d, beta):
    """Default tolerances against 1e-12, over all save times of 16 starts."""
    config = phase_diagram.resolve(Config(seeds=16))
    ts = np.linspace(0, config.t_max, config.time_count)
    x0 = phase_diagram.reduced(phase_diagram.starts(config, d))

    @partial(jax.jit, static_argnums=(0, 1))
    def solve(rtol, atol):
        flow = partial(phase_diagram.batch_velocity, af.sa(beta))
        return af.solve(flow, x0, ts, method=diffrax.Dopri8(), rtol=rtol, atol=atol).xs

    error = np.abs(solve(config.rtol, config.atol) - solve(1e-12, 1e-14)).max()
    assert 0 < error < 1e-6


def spread_of_one_seed(beta):
    """Standard deviation of a half-height time.

    The mean of n (n-1)/2 independent cosines of variance 1/d is off by sqrt(2/(n (n-1) d)); the
    curve is then ahead by this over its first speed.
    """
    return np.sqrt(2 / (32 * 31 * 1024)) / equiangular.speed(0.0, n=32, beta=beta)


def test_half_times_of_uniform_tokens_lie_on_the_curve(wide):
    """Four standard errors, and a bias: the mean of e^(beta G) over cosines G of variance 1/d is

    e^(beta^2/(2d)), so tokens leave the start faster by beta^2/(2d), and are early by at most this
    share of the time.
    """
    betas, curve = wide.beta.values, equiangular.phase_curve(wide.beta.values, n=32)
    tolerance = 4 * spread_of_one_seed(betas) / np.sqrt(16) + betas**2 / (2 * 1024) * curve
    miss = wide.half_time.values[0] - curve
    assert np.all(np.abs(miss) < tolerance), (miss, tolerance)
    np.testing.assert_array_equal(wide.curve, curve)


def test_half_times_agree_with_the_published_runs(wide):
    """Four seeds, Euler steps 0.01, which are late by half of it: 5.295(43), 6.995(110), 9.60(14)."""
    times = wide.half_time.sel(dim=1024, beta=[1.0, 4.0, 5.0]).values
    published = np.array([5.295, 6.995, 9.60]) / 1.005
    spread = np.array([0.043, 0.11, 0.14])
    assert np.all(np.abs(times - published) < 3 * spread * np.sqrt(1 / 4 + 1 / 16))


def test_standard_errors_of_half_times(wide):
    """At beta = 1 they are those of the mean cosine; 16 seeds tell them to 1/sqrt(30), times 3."""
    expected = spread_of_one_seed(1.0) / np.sqrt(16)
    error = wide.half_time_error.sel(dim=1024, beta=1.0)
    np.testing.assert_allclose(error, expected, rtol=3 / np.sqrt(30))


class Memory:
    """A checkpoint in memory; the run is cut off after its first save."""

    def __init__(self):
        self.kept = None

    def load(self):
        return self.kept

    def save(self, step, arrays):
        if self.kept is None:
            self.kept = step, {name: np.array(values) for name, values in arrays.items()}
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(small):
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        phase_diagram.run(SMALL, checkpoint=memory)
    assert memory.kept[0] == 2
    assert phase_diagram.run(SMALL, checkpoint=memory).identical(small)


def test_every_beta_and_run_has_the_same_starts():
    config = Config(seeds=3)
    x = phase_diagram.starts(config, 8)
    np.testing.assert_array_equal(x, phase_diagram.starts(Config(seeds=3, beta_count=2), 8))
    other = phase_diagram.starts(Config(seeds=3, seed=1, dtype="float32"), 8)
    assert other.dtype == np.float32
    assert not np.allclose(x, other)
    assert not np.allclose(x[0], x[1])


def test_open_tolerances_follow_the_dtype():
    assert phase_diagram.resolve(Config()).rtol == 1e-7
    assert phase_diagram.resolve(Config(dtype="float32")).rtol == 1e-5
    assert phase_diagram.resolve(Config(atol=0.25)).atol == 0.25


def test_figure_table_and_numbers(small):
    figure = phase_diagram.draw(small)
    figure.draw_without_rendering()
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["$d$ = 6", "$d$ = 20"]
    assert "curve" in phase_diagram.summary(small)
    values = json.loads(json.dumps(phase_diagram.numbers(small), allow_nan=False))
    np.testing.assert_array_equal(values["curve"], small.curve)


def test_half_times_that_never_come():
    short = phase_diagram.run(replace(SMALL, dims=(20,), seeds=2, t_max=0.5))
    assert np.isinf(short.half_time).all()
    assert "never" in phase_diagram.summary(short)
    assert phase_diagram.numbers(short)["half_time"] == [[None, None]]


def test_import_is_light():
    """`attnflow run phase-diagram --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.phase_diagram; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "`n` must be a whole number >= 2"),
        ({"dims": (8, 1)}, "`dims` must be a whole number >= 2"),
        ({"dims": ()}, r"`len\(dims\)` must be a whole number >= 1"),
        ({"dims": (8, 8)}, "`dims` must not repeat"),
        ({"beta_min": -1.0}, "`beta_min` must satisfy beta_min >= 0"),
        ({"beta_max": 0.1}, "`beta_max` must satisfy beta_max > 0.1"),
        ({"beta_max": float("nan")}, "`beta_max` must be finite"),
        ({"seeds": 1}, "`seeds` must be a whole number >= 2"),
        ({"t_max": 0.0}, "`t_max` must satisfy t_max > 0"),
        ({"delta": 1.0}, "`delta` must satisfy delta > 0 and delta < 1"),
        ({"rtol": 0.0}, "`rtol` must satisfy rtol > 0"),
        ({"time_count": 1}, "`time_count` must be a whole number >= 2"),
        ({"batch": 0}, "`batch` must be a whole number >= 1"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        phase_diagram.run(Config(**changes))


def test_more_than_memory_is_refused():
    with pytest.raises(MemoryError, match="GiB"):
        phase_diagram.run(Config(dims=(10**9,)))


def test_float64_needs_to_be_switched_on():
    with jax.enable_x64(False), pytest.raises(ValueError, match="`dtype` must be 'float32'"):
        phase_diagram.run(Config())
