"""Noise over temperature: cells again by single runs, by runs without noise, and by theory."""

import json
from dataclasses import replace

import jax
import jax.random as jr
import matplotlib.figure
import numpy as np
import pytest

import attnflow as af
from attnflow.experiments import anneal
from attnflow.experiments.anneal import Config

SMALL = Config(
    n=16, beta_min=0.5, beta_max=2.0, beta_count=2, kappa_min=2.0, kappa_max=50.0, kappa_count=3,
    seeds=4, t_max=20.0, step=0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return anneal.run(SMALL)


def pieces(k):
    """Start and noise of one start."""
    start, noise = jr.split(jr.split(jr.key(0), SMALL.seeds)[k])
    return af.sphere.uniform(start, SMALL.n, 2), noise


def test_without_noise_tokens_follow_the_flow(small):
    """An ordinary run: the midpoint rule errs by dt^2, dt = 0.4/1.5 and 0.4/3."""
    ts = np.linspace(0, 20, 201)
    observe = {"rho": af.observables.mean_cosine}
    for row, beta in enumerate(small.beta.values):
        times = []
        for k in range(SMALL.seeds):
            run = af.solve(af.sa(float(beta)), pieces(k)[0], ts, observe=observe, states=False)
            times.append(float(ts[np.argmax(run.observed["rho"] > 0.5)]))
            if not bool((run.observed["rho"] > 0.5).any()):
                times[-1] = np.inf
        assert float(small.collapse_time[row, -1]) == pytest.approx(np.median(times), abs=0.12)
    assert float(small.order[0, -1]) == pytest.approx(1, abs=1e-3)


def test_a_cell_is_the_mean_of_its_runs(small):
    ts, dt = np.linspace(0, 20, 201), 0.4 / 3
    squares = []
    for k in range(SMALL.seeds):
        x0, noise = pieces(k)
        run = af.solve_sde(af.sa(2.0), x0, ts, kappa=10.0, dt=dt, key=noise)
        late = jax.vmap(af.observables.order_parameter)(run.xs[150:])
        squares.append(float((late**2).mean()))
    assert float(small.order[1, 1]) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)
    spread = np.std(squares, ddof=1) / 2 / 2 / np.sqrt(np.mean(squares))
    assert float(small.order_error[1, 1]) == pytest.approx(spread, rel=1e-9)


def test_noise_beyond_the_threshold_prevents_collapse(small):
    """kappa = 2 lies below kappa_c of both; weak noise lets beta = 1/2 settle at the Gibbs order, 1/n apart."""
    np.testing.assert_allclose(small.critical_kappa, [2.061859, 2.866255], atol=5e-7)
    assert np.all(small.expected_order[:, 0] == 0)  # 0.5 and 2 are the slices
    assert np.isinf(small.collapse_time[1, 0])
    seen, expected = float(small.order[0, 2]), float(small.expected_order[0, -1])
    assert abs(seen - expected) < 4 * float(small.order_error[0, 2]) + 1 / (10 * SMALL.n)
    assert float(small.order_error[0, 2]) < 0.01


class Memory:
    """A checkpoint in memory; the run is cut off after its first save."""

    def __init__(self):
        self.kept, self.saves = None, 0

    def load(self):
        return self.kept

    def save(self, step, arrays):
        self.kept = step, {name: np.array(values) for name, values in arrays.items()}
        self.saves += 1
        raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(small):
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        anneal.run(SMALL, checkpoint=memory)
    assert anneal.run(SMALL, checkpoint=memory).identical(small)


def test_figure_table_and_numbers(small):
    figure = anneal.draw(small)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    assert "2.866" in anneal.summary(small)
    values = json.loads(json.dumps(anneal.numbers(small), allow_nan=False))
    assert values["kappa"][-1] is None
    np.testing.assert_array_equal(values["order"], small.order)


def test_unnormalised_attention_on_the_sphere():
    """Three dimensions; the threshold falls with beta instead."""
    data = anneal.run(replace(SMALL, flow="usa", d=3, t_max=2.0, kappa_min=1.0, seeds=2))
    np.testing.assert_allclose(data.critical_kappa, [2.926189, 2.052582], atol=5e-7)
    anneal.draw(data).draw_without_rendering()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kappa_min": 0.0}, "`kappa_min` must satisfy kappa_min > 0"),
        ({"kappa_max": 1.0}, "`kappa_max` must satisfy kappa_max > 2"),
        ({"beta_min": -1.0}, "`beta_min` must satisfy beta_min >= 0"),
        ({"beta_max": np.inf}, "`beta_max` must be finite"),
        ({"cosine": 1.0}, "`cosine` must satisfy cosine > 0 and cosine < 1"),
        ({"step": 1.5}, "`step` must satisfy step > 0 and step <= 1"),
        ({"seeds": 1}, "`seeds` must be a whole number >= 2"),
        ({"d": 1}, "`d` must be a whole number >= 2"),
        ({"flow": "hardmax"}, "`flow` must be one of sa, usa"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        anneal.run(replace(SMALL, **changes))
