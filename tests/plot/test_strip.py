from itertools import pairwise

import numpy as np
import pytest

from attnflow import plot

TIMES = [-np.inf, 0.3010299957, 17.234, 433.0]


@pytest.fixture
def cloud(rng):
    def make(d, sizes=(6, 4, 2, 1)):
        xs = [rng.normal(size=(k, d)) for k in sizes]
        return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in xs]

    return make


@pytest.mark.parametrize("d", [2, 3, 5])
def test_one_panel_per_moment_with_its_tokens_and_title(cloud, d):
    xs = cloud(d)
    axes = plot.strip(xs, TIMES)
    assert [len(ax.collections[-1].get_offsets()) for ax in axes] == [6, 4, 2, 1]
    assert [ax.get_title() for ax in axes] == [
        "$t = 0$\n6 clusters",
        "$t = 2$\n4 clusters",
        "$t = 10^{17.2}$\n2 clusters",
        "$t = 10^{433}$\n1 cluster",
    ]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    axes[0].figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_circle_shows_the_coordinates_and_labels(cloud):
    xs = cloud(2)
    labels = [np.arange(len(x)) for x in xs]
    for ax, x, label in zip(plot.strip(xs, TIMES, labels=labels), xs, labels, strict=True):
        np.testing.assert_array_equal(ax.collections[-1].get_offsets(), x)
        colors = ax.collections[-1].get_facecolors()
        np.testing.assert_allclose(colors, plot.category_colors(label))


def test_all_moments_are_seen_from_the_same_side(cloud):
    """A configuration that does not move stands still, whatever else is drawn."""
    x, *_, last = cloud(5)
    one, two, _ = plot.strip([x, x, last], [0.0, 1.0, 2.0])
    offsets = [ax.collections[-1].get_offsets() for ax in (one, two)]
    np.testing.assert_array_equal(*offsets)
    axis = np.eye(5)[[4, 4]] * [[1.0], [-1.0]]  # of the second moment only, and yet seen in full
    _, ends = plot.strip([np.eye(5)[:2], axis], [0.0, 1.0])
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(ends.collections[-1].get_offsets(), axis=0)), 2
    )


def test_areas_are_proportional_to_weight_across_panels():
    xs = [np.eye(2), np.eye(2)[:1]]
    halves, whole = plot.strip(xs, [0.0, 1.0], weights=[[0.25, 0.75], [1.0]])
    (all_area,) = whole.collections[-1].get_sizes()
    sizes = sorted(halves.collections[-1].get_sizes())
    np.testing.assert_allclose(sizes, [0.25 * all_area, 0.75 * all_area])
    crowd = np.repeat(np.eye(2), 500, axis=0)
    (small,) = set(plot.strip([crowd], [0.0])[0].collections[-1].get_sizes())
    assert small > 1000**-1 * all_area  # seen, though a thousandth would be too small


def test_draws_on_the_given_axes_and_counts_what_it_is_told(cloud):
    _, axes = plot.panels("abc")
    drawn = plot.strip(cloud(2, (5, 5)), [0.0, 1.0], clusters=[3, 1], axes=[axes["a"], axes["c"]])
    assert drawn == [axes["a"], axes["c"]]
    assert not axes["b"].has_data()
    assert drawn[0].get_title().endswith("3 clusters")
    assert drawn[1].get_title().endswith("1 cluster")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda xs: plot.strip(xs, TIMES[:3]), "`xs` must hold one entry for each of t=3 moments"),
        (lambda xs: plot.strip(xs, TIMES[::-1]), "must not decrease"),
        (lambda xs: plot.strip([*xs[:3], np.eye(3)], TIMES), "one dimension d"),
        (lambda xs: plot.strip([*xs[:3], xs[3][0]], TIMES), r"`xs\[3\]` must have shape"),
        (lambda xs: plot.strip(xs, TIMES, labels=[[0]] * 4), "`labels` must have shape"),
        (lambda xs: plot.strip(xs, TIMES, weights=[[1]] * 4), r"`weights\[0\]` must have shape"),
        (lambda xs: plot.strip(xs[3:], [0.0], weights=[[0]]), "`weights`"),
        (lambda xs: plot.strip(xs, TIMES, clusters=[1]), "`clusters` must have shape"),
        (lambda xs: plot.strip(xs, TIMES, axes=[]), "`axes` must hold one entry"),
    ],
)
def test_bad_arguments(cloud, call, words):
    with pytest.raises(ValueError, match=words):
        call(cloud(2))
