from itertools import pairwise

import numpy as np
import pytest

from attnflow import plot

LOG10_T = np.array([-np.inf, -3.0, -1.0, 1.0, 1.0, 60.0, 433.0])
ENERGY = np.array([0.2, 0.2, 0.2001, 0.28, 0.3, 0.52, 1.0])


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ticks(ax):
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    labels = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    return {label.get_text(): place for place, label in labels if low <= place <= high}


def test_draws_on_the_given_axes_only():
    _, axes = plot.panels("ab")
    assert plot.staircase(LOG10_T, ENERGY, ax=axes["b"]) is axes["b"]
    assert not axes["a"].has_data()
    assert axes["b"].get_legend() is None


def test_axis_starts_just_before_the_energy_rises_and_the_line_reaches_both_ends():
    """The last time with less than a thousandth of the rise of 0.8 is 10^-1; 1 % of room before it."""
    ax = plot.staircase(LOG10_T, ENERGY)
    low, high = ax.get_xlim()
    np.testing.assert_allclose(low, -1 - 0.01 * 434)
    x, y = ax.get_lines()[0].get_xydata().T
    np.testing.assert_array_equal(x[3:-1], LOG10_T[3:])
    np.testing.assert_array_equal(y[:-1], ENERGY)
    assert (x[0], x[-1], y[-1]) == (low, high, 1.0)
    assert plot.staircase(LOG10_T, ENERGY, start=0.5).get_xlim()[0] == 0.5


@pytest.mark.parametrize("last", [-0.7, 0.3, 2.0, 9.0, 40.0, 433.0, 2000.0])
def test_ticks_are_powers_of_ten_over_any_range(last):
    ax = plot.staircase([-1.0, -0.9, last], [0.1, 0.2, 1.0], start=-1.0)
    shown = ticks(ax)
    assert 2 <= len(shown) <= 9
    for text, place in shown.items():
        assert text == f"$10^{{{place:.4g}}}$"
    if last > 2:
        assert all(place == round(place) for place in shown.values())
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_minor_ticks_show_that_decades_are_logarithmic():
    minor = plot.staircase([0.0, 3.0], [0.1, 1.0], start=0.0).xaxis.get_minorticklocs()
    assert np.isclose(minor[:, None], np.log10([2, 30, 900])).any(axis=0).all()


def test_plateaus_lie_at_the_energy_of_their_middle_and_name_their_clusters():
    spans = [[-np.inf, 0.9], [1.0, 60.0], [433.0, np.inf]]
    ax = plot.staircase(LOG10_T, ENERGY, plateaus=spans, clusters=[5, 3, 1], steps=True)
    bars = np.array(ax.collections[0].get_segments())
    low, high = ax.get_xlim()
    np.testing.assert_allclose(bars[:, 0, 0], [low, 1, 433])
    np.testing.assert_allclose(bars[:, 1, 0], [0.9, 60, high])
    middle = np.interp(30.5, [1, 60], [0.3, 0.52])
    np.testing.assert_allclose(bars[1, :, 1], middle)
    assert [text.get_text() for text in ax.texts] == ["3", "1"]  # the first is too short for a text
    assert "plateaus" in texts(ax)
    assert ax.get_lines()[0].get_drawstyle() == "steps-post"


def test_few_merges_are_lines_and_many_are_ticks():
    few = plot.staircase(LOG10_T, ENERGY, merges=[60.0, 1.0]).collections[0]
    many = plot.staircase(LOG10_T, ENERGY, merges=np.linspace(0, 433, 199)).collections[0]
    assert [segment[0, 0] for segment in few.get_segments()] == [1.0, 60.0]
    assert few.get_segments()[0][1, 1] == 1.0
    assert len(many.get_segments()) == 199
    assert many.get_segments()[0][1, 1] < 0.1


def test_prediction_is_a_dashed_staircase_or_its_levels():
    levels, jumps = [0.2, 0.28, 0.52, 1.0], [1.5, 59.0, 430.0]
    stepped = plot.staircase(LOG10_T, ENERGY, predicted=levels, predicted_times=jumps)
    values, edges, _ = stepped.patches[0].get_data()
    np.testing.assert_array_equal(values, levels)
    np.testing.assert_array_equal(edges, [stepped.get_xlim()[0], *jumps, stepped.get_xlim()[1]])
    assert texts(stepped) == ["simulation", "prediction"]
    level = plot.staircase(LOG10_T, ENERGY, predicted=levels).collections[0]
    np.testing.assert_array_equal([segment[0, 1] for segment in level.get_segments()], levels)


def test_a_run_at_rest_is_drawn():
    for times in ([-np.inf], [-np.inf, 3.0]):
        plot.staircase(times, [0.5] * len(times)).figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.staircase(LOG10_T, ENERGY[1:]), "s=7"),
        (lambda: plot.staircase(LOG10_T[::-1], ENERGY), "`log10_times` must not decrease"),
        (lambda: plot.staircase([0.0, np.inf], [0, 1]), "finite logarithms or -inf"),
        (lambda: plot.staircase([0.0, 1.0], [0, np.nan]), "`energies` must be finite"),
        (lambda: plot.staircase(LOG10_T, ENERGY, plateaus=[0, 1]), "`plateaus` must have shape"),
        (lambda: plot.staircase(LOG10_T, ENERGY, merges=[np.nan]), "`merges`"),
        (
            lambda: plot.staircase(LOG10_T, ENERGY, plateaus=[[0, 1]], clusters=[1, 2]),
            "`clusters` must have shape",
        ),
        (
            lambda: plot.staircase(LOG10_T, ENERGY, predicted=[0, 1], predicted_times=[1, 2]),
            "`predicted_times` must have shape",
        ),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
