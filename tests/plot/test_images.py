"""Image grids and tables."""

import numpy as np
import pytest

from attnflow import plot


@pytest.fixture
def images(rng):
    return rng.uniform(0, 16, size=(5, 8, 6))


def test_images_and_counts_are_shown_in_order_on_one_scale(images):
    _, axes = plot.panels("a")
    ax = plot.image_grid(images, counts=[1, 20, 300, 4, 5], columns=3, ax=axes["a"])
    assert ax is axes["a"]
    for shown, image in zip(ax.images, images, strict=True):
        np.testing.assert_array_equal(shown.get_array(), image)
        assert shown.get_clim() == (images.min(), images.max())
    assert [text.get_text() for text in ax.texts] == [
        "n = 1",
        "n = 20",
        "n = 300",
        "n = 4",
        "n = 5",
    ]
    lefts = [shown.get_extent()[0] for shown in ax.images]
    tops = [shown.get_extent()[3] for shown in ax.images]
    assert lefts[0] == lefts[3] < lefts[1] == lefts[4] < lefts[2]
    assert tops[0] == tops[1] == tops[2] > tops[3] == tops[4]


def test_nothing_overlaps_and_all_lies_within_the_axes(images):
    ax = plot.image_grid(images, counts=np.full(5, 1234), columns=2)
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    boxes = [artist.get_window_extent() for artist in [*ax.images, *ax.texts]]
    for i, box in enumerate(boxes):
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1
        assert frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_captions_and_constant_images():
    ax = plot.image_grid(np.zeros((2, 3, 3)), captions=["left", "right"])
    assert [text.get_text() for text in ax.texts] == ["left", "right"]
    ax.figure.draw_without_rendering()


def test_table_writes_every_cell_and_rounds_floats():
    _, axes = plot.panels("a")
    rows = [["rate", 2.0, 1.23456], ["clusters", 3, 4]]
    ax = plot.table(["claim", "predicted", "observed"], rows, ax=axes["a"])
    assert ax is axes["a"]
    expected = ["claim", "predicted", "observed", "rate", "2", "1.235", "clusters", "3", "4"]
    assert [text.get_text() for text in ax.texts] == expected
    assert [text.get_ha() for text in ax.texts[:3]] == ["left", "right", "right"]


def test_table_cells_do_not_overlap():
    rows = [["a rather long claim about rates", "Thm 2.1", 1.99], ["x", "a longer source", 2]]
    ax = plot.table(["claim", "source", "observed"], rows)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: plot.image_grid(x[0]), "`images` must have shape"),
        (lambda x: plot.image_grid(x * np.nan), "`images` must be finite"),
        (lambda x: plot.image_grid(x, counts=[1]), "`counts` must have shape"),
        (lambda x: plot.image_grid(x, captions=["a"]), "k=5 texts"),
        (lambda x: plot.image_grid(x, counts=range(5), captions=["a"] * 5), "together"),
        (lambda x: plot.image_grid(x, columns=0), "`columns`"),
        (lambda x: plot.table(["a", "b"], [[1]]), "rows of 2 entries"),
        (lambda x: plot.table(["a"], []), "must not be empty"),
    ],
)
def test_bad_arguments(images, call, words):
    with pytest.raises(ValueError, match=words):
        call(images)
