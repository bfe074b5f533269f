"""Branches: solid where stable, broken where not, and whole around a fold."""

import numpy as np
import pytest

from attnflow import plot


def test_pieces_meet_and_differ():
    parameter, order = np.array([1.0, 0.9, 0.8, 0.9, 1.1]), np.array([0, 0.3, 0.5, 0.7, 0.9])
    ax = plot.bifurcation(parameter, order, [False, False, True, True, True], label="branch")
    broken, solid, legend = ax.get_lines()
    assert broken.get_linestyle() == "--"
    assert solid.get_linestyle() == "-"
    np.testing.assert_array_equal(broken.get_xydata(), np.column_stack([parameter, order])[:3])
    np.testing.assert_array_equal(solid.get_xydata(), np.column_stack([parameter, order])[2:])
    assert legend.get_label() == "branch"


def test_a_stable_branch_is_one_line():
    ax = plot.bifurcation([0, 1], [0, 1], [1, 1])
    (line,) = ax.get_lines()
    assert line.get_linestyle() == "-"
    assert plot.bifurcation([0, 1], [0, 1], [1, 1], ax=ax) is ax


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.bifurcation([0, 1], [0], [1, 1]), "`order` must have shape"),
        (lambda: plot.bifurcation([0, 1], [0, 1], [1]), "`stable` must have shape"),
        (lambda: plot.bifurcation([0, np.nan], [0, 1], [1, 1]), "`parameter` must be finite"),
        (lambda: plot.bifurcation([0], [0], [1]), "at least two states"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
