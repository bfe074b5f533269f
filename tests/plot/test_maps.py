"""Histograms over time and the phase map."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from attnflow import plot

EDGES = np.linspace(-1, 1, 5)
TS = np.array([0.0, 0.1, 1.0, 10.0])
COUNTS = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [0, 0, 2, 8], [0, 0, 0, 10]])
BETAS = np.array([0.0, 1.0, 3.0])
FRACTION = np.array([[0, 0.2, 0.9, 1], [0, 0.1, 0.6, 1], [0, 0, 0.1, 0.3]])


def test_ridges_are_the_rows_scaled_to_their_peaks():
    ax = plot.cosine_histograms(EDGES, COUNTS, TS)
    ridges = [patch.get_data() for patch in ax.patches]
    assert len(ridges) == len(TS)
    for row, baseline, ridge in zip(COUNTS, (3, 2, 1, 0), ridges, strict=True):
        np.testing.assert_allclose(ridge.values - baseline, 0.9 * row / row.max())
        np.testing.assert_array_equal(ridge.edges, EDGES)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["$t = 0$", "$t = 0.1$", "$t = 1$", "$t = 10$"]
    assert ax.get_xlabel() == "pairwise cosine"


def test_ridges_are_densities_when_bins_differ():
    ax = plot.cosine_histograms([-1, 0, 0.5, 1], [[2, 2, 1]], [0])
    np.testing.assert_allclose(ax.patches[0].get_data().values, [0.45, 0.9, 0.45])


def test_rows_choose_evenly_and_keep_both_ends():
    ax = plot.cosine_histograms(EDGES, np.ones((50, 4)), np.arange(50), rows=3)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["$t = 0$", "$t = 24$", "$t = 49$"]


def test_no_pairs_make_a_flat_ridge():
    ax = plot.cosine_histograms(EDGES, np.zeros((1, 4)), [0])
    np.testing.assert_array_equal(ax.patches[0].get_data().values, 0)


def test_heatmap_shows_shares_from_the_first_positive_time():
    ax = plot.cosine_heatmap(EDGES, COUNTS, TS, mean=[0, 0.1, 0.5, 1])
    np.testing.assert_allclose(ax.collections[0].get_array(), COUNTS[1:].T / 10)
    np.testing.assert_allclose(ax.get_xlim(), (0.1, 10))
    corners = ax.collections[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(corners, [0.1, np.sqrt(0.1), np.sqrt(10), 10])
    assert ax.figure.axes[1].get_ylabel() == "share of pairs"
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [0, 0.1, 0.5, 1])


def test_heatmap_on_linear_time_shows_every_time():
    ax = plot.cosine_heatmap(EDGES, COUNTS, TS, log_time=False)
    np.testing.assert_allclose(ax.collections[0].get_array(), COUNTS.T / 10)


def test_phase_map_shows_fraction_half_contour_and_theory():
    _, axes = plot.panels("a")
    ax = plot.phase_map(TS, BETAS, FRACTION, curve=[0.5, 0.9, np.inf], ax=axes["a"])
    assert ax is axes["a"]
    mesh, contour = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), FRACTION)
    assert mesh.get_clim() == (0, 1)
    np.testing.assert_allclose(contour.get_edgecolor()[0], to_rgba(plot.CATEGORICAL[1]))
    crossings = contour.get_paths()[0].vertices
    first = crossings[crossings[:, 1] == 0][:, 0]  # beta = 0: from 0.2 at t=0.1 to 0.9 at t=1
    np.testing.assert_allclose(first, 0.1 + 0.9 * 0.3 / 0.7)
    theory = ax.get_lines()[0]
    np.testing.assert_array_equal(theory.get_xydata(), [[0.5, 0.0], [0.9, 1.0]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["simulation, one half", "theory"]
    assert ax.get_ylabel() == r"inverse temperature $\beta$"
    assert ax.figure.axes[1].get_ylabel() == "fraction of clustered pairs"
    ax.figure.draw_without_rendering()


def test_phase_map_without_a_transition_has_no_contour():
    ax = plot.phase_map(TS, BETAS, np.zeros((3, 4)), colorbar=False)
    assert len(ax.collections) == 1
    assert len(ax.figure.axes) == 1
    assert ax.get_legend() is None


def test_phase_map_on_log_time_drops_time_zero():
    ax = plot.phase_map(TS, BETAS, FRACTION, log_time=True)
    np.testing.assert_array_equal(ax.collections[0].get_array(), FRACTION[:, 1:])
    np.testing.assert_allclose(ax.get_xlim(), (0.1, 10))
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.cosine_histograms(EDGES, COUNTS[:, :3], TS), "t=4, b=4"),
        (lambda: plot.cosine_histograms(EDGES, -COUNTS, TS), "counts >= 0"),
        (lambda: plot.cosine_histograms(EDGES, COUNTS, TS, rows=0), "`rows`"),
        (lambda: plot.cosine_histograms([1.0], [[]], [0.0]), "two bin edges"),
        (lambda: plot.cosine_heatmap(EDGES[::-1], COUNTS, TS), "`edges` must increase"),
        (lambda: plot.cosine_heatmap(EDGES, COUNTS[:1], TS[:1]), "two times"),
        (lambda: plot.cosine_heatmap(EDGES, COUNTS, TS, mean=[0]), "`mean` must have shape"),
        (lambda: plot.phase_map(TS, BETAS, FRACTION.T), "b=3, t=4"),
        (lambda: plot.phase_map(TS, BETAS, 2 * FRACTION), "fraction <= 1"),
        (lambda: plot.phase_map(TS, BETAS, FRACTION, curve=[1]), "`curve` must have shape"),
        (lambda: plot.phase_map(TS[:1], BETAS, FRACTION[:, :1]), "two values"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
