import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from attnflow import plot


def test_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with plot.style():
        assert matplotlib.rcParams["axes.spines.top"] is False
        assert matplotlib.rcParams["text.usetex"] is False
    assert dict(matplotlib.rcParams) == before


def test_plots_leave_the_callers_settings_alone():
    before = dict(matplotlib.rcParams)
    plot.cosine_curve([0.0, 1.0], [0.1, 0.2]).figure.draw_without_rendering()
    assert dict(matplotlib.rcParams) == before


def test_ticks_made_while_saving_keep_the_style():
    ax = plot.energy_curve([0.0, 1.0], [0.1, 0.2])
    ax.figure.draw_without_rendering()
    assert {label.get_fontsize() for label in ax.get_xticklabels()} == {9.0}


def test_panels_follow_the_mosaic():
    figure, axes = plot.panels("ab;cc", width=7, height=4)
    assert set(axes) == {"a", "b", "c"}
    assert tuple(figure.get_size_inches()) == (7, 4)


def test_category_colors_start_with_the_palette_and_differ_for_21_labels():
    colors = plot.category_colors(np.arange(21))
    np.testing.assert_allclose(colors[0, :3], to_rgb(plot.CATEGORICAL[0]))
    np.testing.assert_allclose(colors[6, :3], to_rgb(plot.CATEGORICAL[6]))
    assert len(np.unique(colors.round(3), axis=0)) == 21
    np.testing.assert_array_equal(plot.category_colors([21]), colors[:1])


@pytest.mark.parametrize("labels", [[0.5], [-1], [np.nan]])
def test_labels_are_whole_numbers(labels):
    with pytest.raises(ValueError, match="`labels` must hold integers"):
        plot.category_colors(labels)


def test_import_and_drawing_need_no_pyplot_and_no_display(bare_python):
    code = (
        "import sys, io; from attnflow import plot;"
        "plot.tokens([[0., 0, 1], [1, 0, 0]]).figure.savefig(io.BytesIO());"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert bare_python(code).strip() == "False"
