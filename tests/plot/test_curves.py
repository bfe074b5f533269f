import numpy as np
import pytest

from attnflow import plot

TS = np.array([0.0, 0.1, 1.0, 10.0, 100.0])
Y = np.array([0.1, 0.2, 0.4, 0.8, 0.99])
MANY = np.linspace(0, 5, 101)


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


CALLS = {
    "energy": lambda **kw: plot.energy_curve(TS, Y, merges=[1.0, 10.0], **kw),
    "cosine": lambda **kw: plot.cosine_curve(TS, Y, theory=Y, **kw),
    "decay": lambda **kw: plot.decay_curve(TS, 1 - Y, fitted_rate=1.0, predicted_rate=2.0, **kw),
    "clusters": lambda **kw: plot.cluster_curve(TS, [9, 4, 3, 2, 1], **kw),
    "band": lambda **kw: plot.band(TS, Y, Y - 0.1, Y + 0.1, label="a", **kw),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_curves_draw_on_the_given_axes_and_alone(call):
    _, axes = plot.panels("ab")
    assert call(ax=axes["b"]) is axes["b"]
    assert not axes["a"].has_data()
    ax = call()
    assert ax.get_xlabel() == "time $t$"
    assert ax.get_ylabel() or call is CALLS["band"]
    ax.figure.draw_without_rendering()


def test_energy_shows_the_numbers_and_the_merges():
    ax = plot.energy_curve(TS, Y, merges=[1.0, 10.0])
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), np.column_stack([TS, Y]))
    assert [segment[0, 0] for segment in ax.collections[0].get_segments()] == [1.0, 10.0]
    assert texts(ax) == ["merges"]
    assert plot.energy_curve(TS, Y, merges=[]).get_legend() is None


def test_cosine_shows_measurement_and_dashed_theory():
    ax = plot.cosine_curve(TS, Y, theory=MANY / 5, theory_ts=MANY, theory_label="equiangular")
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["simulation"].get_ydata(), Y)
    np.testing.assert_array_equal(drawn["equiangular"].get_xdata(), MANY)
    np.testing.assert_array_equal(drawn["equiangular"].get_ydata(), MANY / 5)
    assert drawn["simulation"].get_linestyle() == "None"  # few: markers
    assert drawn["equiangular"].get_linestyle() == "--"
    assert texts(ax) == ["simulation", "equiangular"]


def test_many_measurements_are_a_line():
    line = lines(plot.cosine_curve(MANY, MANY / 5))["simulation"]
    assert (line.get_linestyle(), line.get_marker()) == ("-", "None")


def test_log_time_starts_at_the_first_positive_time():
    for ax in (plot.energy_curve(TS, Y, log_time=True), plot.cluster_curve(TS, Y)):
        assert ax.get_xscale() == "log"
        np.testing.assert_allclose(ax.get_xlim(), (0.1, 100))


def test_linear_time_spans_all_times():
    np.testing.assert_allclose(plot.energy_curve(TS, Y).get_xlim(), (0, 100))


@pytest.mark.parametrize("law", ["exponential", "power"])
def test_decay_lines_have_the_given_slopes_and_pass_through_the_window(law):
    """On exact data the line of the true rate is the data, at rounding error."""
    ts = np.linspace(1, 9, 81)
    gap = 3 * np.exp(-2 * ts) if law == "exponential" else 3 * ts**-2.0
    ax = plot.decay_curve(ts, gap, fitted_rate=2.0, predicted_rate=1.5, law=law, window=(4.0, 9.0))
    measured, fitted, predicted = ax.get_lines()
    np.testing.assert_array_equal(measured.get_ydata(), gap)
    np.testing.assert_allclose(fitted.get_ydata(), gap[ts >= 4], rtol=1e-12)
    clock = np.log(ts[ts >= 4]) if law == "power" else ts[ts >= 4]
    slopes = np.diff(np.log(predicted.get_ydata())) / np.diff(clock)
    np.testing.assert_allclose(slopes, -1.5, rtol=1e-9)
    residual = np.log(predicted.get_ydata()) - np.log(gap[ts >= 4])
    np.testing.assert_allclose(residual.mean(), 0, atol=1e-12)
    formula = "e^{-2\\,t}" if law == "exponential" else "t^{-2}"
    assert formula in texts(ax)[1]
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "log" if law == "power" else "linear")


def test_decay_leaves_out_what_has_no_logarithm():
    ax = plot.decay_curve(TS, [0.5, 0.1, 0.01, 0.0, -1e-17], fitted_rate=1.0)
    np.testing.assert_array_equal(lines(ax)["measured"].get_xdata(), TS[:3])


def test_cluster_counts_are_steps_on_whole_ticks():
    ax = plot.cluster_curve(TS, [9, 4, 3, 2, 1])
    line = ax.get_lines()[0]
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(line.get_ydata(), [9, 4, 3, 2, 1])
    assert (ax.get_yticks() == ax.get_yticks().round()).all()
    assert plot.cluster_curve(TS, [1797, 90, 30, 5, 1]).get_yscale() == "log"


def test_band_shows_median_and_quantiles():
    ax = plot.band(TS, Y, Y - 0.1, Y + 0.2, label="beta = 1", band_label="90 % of seeds")
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), Y)
    corners = ax.collections[0].get_paths()[0].vertices
    for edge in (Y - 0.1, Y + 0.2):
        for point in np.column_stack([TS, edge]):
            assert (np.abs(corners - point).max(axis=1) < 1e-12).any()
    assert texts(ax) == ["beta = 1", "90 % of seeds"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.energy_curve(TS, Y[:4]), r"shape \(t,\) with t=5"),
        (lambda: plot.energy_curve(TS[::-1], Y), "`ts` must increase strictly"),
        (lambda: plot.energy_curve([-1, 0, 1], [1, 2, 3], log_time=True), "two positive times"),
        (lambda: plot.cosine_curve(TS, Y, theory=MANY), "`theory` must have shape"),
        (lambda: plot.decay_curve(TS, Y, law="linear"), "exponential, power"),
        (lambda: plot.decay_curve(TS, Y, window=(200.0, 300.0)), "`window` must hold two times"),
        (lambda: plot.cluster_curve(TS, [Y]), "`counts` must have shape"),
        (lambda: plot.band(TS, Y, Y + 1, Y), "must not exceed"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
