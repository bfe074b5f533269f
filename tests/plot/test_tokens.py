import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from attnflow import plot
from attnflow.plot import panels

BEHIND = [-1.0, 0.0, 0.0]  # seen from azimuth 0, elevation 0
FRONT = [1.0, 0.0, 0.0]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def points(ax):
    return ax.collections[-1]


@pytest.mark.parametrize("d", [2, 3, 5])
def test_tokens_choose_the_view_and_return_the_given_axes(rng, d):
    _, axes = panels("a")
    x = unit(rng.normal(size=(7, d)))
    ax = plot.tokens(x, labels=np.arange(7), tail=np.stack([x, x]), ax=axes["a"])
    named = {2: plot.tokens_on_circle, 3: plot.tokens_on_sphere, 5: plot.tokens_projected}[d](x)
    assert ax is axes["a"]
    np.testing.assert_array_equal(points(ax).get_offsets(), points(named).get_offsets())
    ax.figure.draw_without_rendering()


def test_circle_shows_the_coordinates_and_the_labels(rng):
    x = unit(rng.normal(size=(9, 2)))
    scatter = points(plot.tokens_on_circle(x, labels=np.arange(9)))
    np.testing.assert_array_equal(scatter.get_offsets(), x)
    np.testing.assert_allclose(scatter.get_facecolor(), plot.category_colors(np.arange(9)))


def test_marker_areas_are_proportional_to_weights_and_small_ones_on_top():
    weights = np.array([1.0, 4.0, 2.0])
    scatter = points(plot.tokens_on_circle(np.eye(2)[[0, 1, 0]], weights=weights, size=30.0))
    np.testing.assert_allclose(scatter.get_sizes(), 30 * np.array([4, 2, 1]) / weights.mean())


def test_markers_shrink_when_there_are_many(rng):
    few, many = (points(plot.tokens(unit(rng.normal(size=(n, 2))))).get_sizes() for n in (100, 400))
    np.testing.assert_allclose(few, 42)
    np.testing.assert_allclose(many, 21)


def test_values_choose_colours_and_draw_a_colour_bar():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    ax = plot.tokens(x, values=[2.0, 3.0, 4.0], value_label="age")
    expected = matplotlib.colormaps[plot.SEQUENTIAL]([0.0, 0.5, 1.0])
    np.testing.assert_allclose(points(ax).get_facecolor(), expected)
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "age"
    np.testing.assert_allclose(bar.get_ylim(), (2, 4))


def test_sphere_is_an_orthographic_projection():
    """From azimuth 0 on the equator, right is the second axis and up the third."""
    x = unit(np.array([[0.5, 0.5, 0.1], [0.6, -0.3, 0.7]]))
    offsets = points(plot.tokens_on_sphere(x, elevation=0.0, azimuth=0.0)).get_offsets()
    np.testing.assert_allclose(offsets, x[np.argsort(x[:, 0])][:, 1:], atol=1e-15)


def test_sphere_draws_far_tokens_first_smaller_and_paler():
    ax = plot.tokens_on_sphere([FRONT, BEHIND], size=40.0, elevation=0.0, azimuth=0.0)
    back, front = points(ax).get_sizes()
    assert (back, front) == (20.0, 40.0)
    back, front = points(ax).get_facecolor()
    np.testing.assert_allclose(front, to_rgba(plot.CATEGORICAL[0]))
    assert back[:3].sum() > front[:3].sum() + 0.5


def test_projection_shows_the_principal_axes_and_their_shares(rng):
    """Independent coordinates of variances 9, 4 and 1 on known axes: shares 9/14 and 4/14."""
    scores = np.linalg.qr(rng.normal(size=(50, 4)))[0]
    scores = np.linalg.qr(np.column_stack([np.ones(50), scores]))[0][:, 1:4] * [3.0, 2.0, 1.0]
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    ax = plot.tokens_projected(scores @ rotation + 1.0)
    got = points(ax).get_offsets()
    np.testing.assert_allclose(np.abs(got), np.abs(scores[:, :2]), atol=1e-12)
    assert ax.get_xlabel() == "principal axis 1 (64% of variance)"
    assert ax.get_ylabel() == "principal axis 2 (29% of variance)"
    assert ax.get_xlim()[0] < got[:, 0].min() and got[:, 0].max() < ax.get_xlim()[1]


def test_projection_survives_tokens_that_coincide():
    ax = plot.tokens_projected(np.full((4, 5), 0.2))
    np.testing.assert_allclose(points(ax).get_offsets(), 0, atol=1e-15)
    ax.figure.draw_without_rendering()


def test_tail_ends_at_the_tokens_and_fades():
    x = np.array([[0.0, 1.0]])
    path = np.array([[[1.0, 0.0]], [[0.6, 0.8]]])
    lines = plot.tokens_on_circle(x, tail=path).collections[0]
    segments = lines.get_segments()
    assert len(segments) == 2
    np.testing.assert_allclose(segments[-1][-1], x[0])
    assert np.linalg.norm(segments[0][0]) < 1  # the past lies inside the circle
    old, new = lines.get_color()[:, 3]
    assert old < new


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: plot.tokens(x[0]), "`x` must have shape"),
        (lambda x: plot.tokens(x[:, :1]), "d >= 2"),
        (lambda x: plot.tokens(x[:0]), "n >= 1"),
        (lambda x: plot.tokens([["a", "b"]]), "`x` must hold real numbers"),
        (lambda x: plot.tokens(x * np.nan), "`x` must be finite"),
        (lambda x: plot.tokens_on_circle(np.eye(3)), "d=2"),
        (lambda x: plot.tokens_on_sphere(x), "d=3"),
        (lambda x: plot.tokens(x, labels=[0]), "`labels` must have shape"),
        (lambda x: plot.tokens(x, labels=[0, 1], values=[0, 1]), "together"),
        (lambda x: plot.tokens(x, values=[0, np.inf]), "`values` must be finite"),
        (lambda x: plot.tokens(x, weights=[0, 1]), "`weights`"),
        (lambda x: plot.tokens(x, tail=x), "`tail` must have shape"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(np.eye(2))
    assert "\n" not in str(error.value)
