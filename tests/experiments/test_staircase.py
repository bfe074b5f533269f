"""The staircase: merge times and energies beside the greedy rule and the closed equation."""

import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest
from scipy.cluster.hierarchy import is_valid_linkage

from attnflow.experiments import staircase
from attnflow.experiments.staircase import Config
from attnflow.theory.metastability import log10_merge_time, plateau_energies

SMALL = Config(n=12, d=2, beta=80.0, seed=2)
"""A start in which no two gaps nearly tie after the first plateau."""


@pytest.fixture(scope="module", params=["sa", "usa"])
def small(request):
    return staircase.run(replace(SMALL, model=request.param))


def test_two_tokens_follow_the_quadrature():
    """log10 to 1e-7: rounding of positions, 1e-15, over the chord 1e-8 of a merge."""
    data = staircase.run(Config(n=2, d=3, beta=30.0))
    x = data.tokens.values[0]
    exact = log10_merge_time(np.arccos(x[0] @ x[1]), 1e-8, beta=30.0)
    np.testing.assert_allclose(data.merge_log10_time, [exact], atol=1e-7)
    assert data.sizes["predicted"] == 0
    staircase.draw(data).draw_without_rendering()


def test_all_become_one_in_a_tree(small):
    assert small.attrs["status"] == "collapsed"
    assert small.sizes["merge"] == 11 and is_valid_linkage(small.linkage.values)
    assert np.all(np.diff(small.merge_log10_time) >= 0)
    assert small.clusters.values[-1] == 1
    np.testing.assert_allclose(small.energy.values[-1], 1, atol=1e-12)


def test_energy_climbs_to_squared_weights(small):
    """Each step adds energy; after a merge it is the sum of squared weights plus pulls of the rest.

    A pair at angle g adds 2 w_i w_j e^(-80 (1 - cos g)), so energies after merges are above the sum.
    """
    assert np.all(np.diff(small.energy) > -1e-9)
    squares = plateau_energies(small.linkage.values[:, :2], np.full(12, 1 / 12))
    np.testing.assert_allclose(small.squared_weights, squares, rtol=1e-12)
    excess = small.energy_after.values - squares
    assert np.all(excess > -1e-12)
    assert np.all(excess[-3:] < 1e-6)


def test_the_greedy_rule_foretells_the_rest(small):
    """Pairs, energies, and times, up to rounding: 1e-15 of positions over the chord 1e-8 of a merge."""
    assert small.sizes["predicted"] >= 3
    assert small.same_pair.values.all()
    rest = small.sizes["predicted"]
    np.testing.assert_allclose(small.predicted_energy, small.squared_weights[-rest:], rtol=1e-12)
    times = small.merge_log10_time.values[-rest:]
    np.testing.assert_allclose(small.predicted_log10_time, times, atol=1e-7)


def test_moments_show_clusters(small):
    """At the start every token is alone; later tokens of one label are at one place."""
    tokens, labels = small.tokens.values, small.labels.values
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=2), 1, rtol=1e-12)
    np.testing.assert_array_equal(labels[0], np.arange(12))
    assert np.all(np.diff([len(np.unique(row)) for row in labels]) < 0)
    for x, row in zip(tokens[1:], labels[1:], strict=True):
        for label in np.unique(row):
            assert np.ptp(x[row == label], axis=0).max() == 0


def test_figure_table_and_numbers(small):
    figure = staircase.draw(small)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    table = staircase.summary(small)
    assert "collapsed" in table and table.count("yes") == small.sizes["predicted"]
    values = json.loads(json.dumps(staircase.numbers(small), allow_nan=False))
    np.testing.assert_array_equal(values["log10_times"], small.merge_log10_time)


def test_the_same_bits_each_time():
    assert staircase.run(SMALL).identical(staircase.run(SMALL))


def test_seeds_are_starts():
    one, other = (
        staircase.run(Config(n=3, d=3, beta=20.0, seed=seed)).tokens.values[0] for seed in (0, 1)
    )
    assert not np.allclose(one, other)


def test_import_is_light():
    """`attnflow run staircase --help` needs the config only."""
    code = (
        "import sys; import attnflow.experiments.staircase; "
        "print([m for m in ('jax', 'xarray', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "`n` must be a whole number >= 2"),
        ({"d": 1}, "`d` must be a whole number >= 2"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"beta": -1.0}, "`attention.beta` must satisfy"),
        ({"beta": float("nan")}, "must be finite"),
        ({"model": "us"}, "Did you mean 'usa'"),
        ({"merge_tol": 1.0}, "`merge_tol` must satisfy"),
        ({"rtol": 0.0}, "`rtol` must satisfy"),
    ],
)
def test_bad_input(changes, message, untyped):
    with pytest.raises(ValueError, match=message):
        staircase.run(Config(**changes))
