import numpy as np
import pytest

from attnflow.analysis.plateaus import crossing_time, merges, persistent_count, plateaus

TS = np.linspace(0.0, 4.0, 41)


def test_straight_scales_cross_exactly():
    """Each curve is straight on its scale, so interpolation is exact up to rounding."""
    line, decay = 3 - TS, np.exp(-2 * TS)
    switch = 1 / (1 + np.exp(-7 * (TS - 1.234)))
    np.testing.assert_allclose(crossing_time(TS, line, 0.55), 2.45, rtol=1e-12)
    np.testing.assert_allclose(crossing_time(TS, decay, np.exp(-1.5), scale="log"), 0.75, rtol=1e-9)
    np.testing.assert_allclose(crossing_time(TS, switch, 0.5, scale="logit"), 1.234, rtol=1e-12)


def test_linear_interpolation_errs_by_the_second_difference():
    """|error| <= h^2 max|y''| / (8 |y'|) = h^2/4 for e^(-2t), and not below a tenth of that."""
    error = crossing_time(TS, np.exp(-2 * TS), np.exp(-1.5)) - 0.75
    assert 0.1**2 / 40 < abs(error) < 0.1**2 / 4


def test_first_of_several_crossings_and_none():
    y = np.stack([np.sin(TS * np.pi), np.cos(TS * np.pi), np.full(41, 0.25), 2 + TS])
    expected = [1 / 6, np.arccos(0.5) / np.pi, np.inf, np.inf]
    curvature = 0.1**2 * np.pi**2 / 8 / (np.pi * np.cos(np.pi / 6))
    np.testing.assert_allclose(crossing_time(TS, y, 0.5), expected, atol=curvature)


def test_start_at_the_level_counts():
    assert crossing_time(TS, 0.5 + TS, 0.5) == 0.0


def test_a_step_from_0_to_1_falls_back_to_the_middle():
    y = np.where(TS < 1.05, 0.0, 1.0)
    np.testing.assert_allclose(crossing_time(TS, y, 0.5, scale="logit"), 1.05, rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="`level` must satisfy level > 0 and level < 1"):
        crossing_time(TS, TS, 2.0, scale="logit")
    with pytest.raises(ValueError, match="`ts` must increase strictly"):
        crossing_time(-TS, TS, 2.0)


def test_passing_links_and_splits_are_not_merges():
    counts = np.array([5, 5, 4, 5, 5, 3, 3, 3, 4, 3, 3, 2, 2, 2, 1])
    lasting = np.array([5, 5, 5, 5, 5, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2])
    # The 4 of index 8 parts the 3s before from the 3s after: both stretches last for three saves.
    np.testing.assert_array_equal(persistent_count(counts), lasting)
    np.testing.assert_array_equal(persistent_count(np.stack([counts] * 2))[1], lasting)
    found = merges(np.arange(15.0), counts)
    np.testing.assert_array_equal(found.times, [5.0, 11.0])
    np.testing.assert_array_equal(found.lost, [2, 1])


def test_persistence_of_one_save_is_the_running_minimum():
    counts = np.array([4, 2, 3, 1])
    np.testing.assert_array_equal(persistent_count(counts, saves=1), [4, 2, 2, 1])


def test_plateaus_of_a_staircase():
    """Levels 1, 2, 4 on [1, 10], [10, 12], [12, 100]: the middle one is too short."""
    ts = np.geomspace(1, 100, 400)
    y = np.select([ts < 10, ts < 12], [1.0, 2.0], 4.0)
    first, second = plateaus(ts, y + 0.01 * np.sin(ts), tolerance=0.02)
    assert (first.start, second.end) == (1.0, 100.0)
    step = ts[1] / ts[0]
    assert 10 / step <= first.end < 10 <= 12 <= second.start <= 12 * step
    assert abs(first.level - 1) <= 0.01
    assert abs(second.level - 4) <= 0.01


def test_a_slope_is_no_plateau():
    assert plateaus(np.geomspace(1, 100, 50), np.linspace(0, 1, 50), tolerance=0.1) == []
