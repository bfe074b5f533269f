import numpy as np
import pytest

from attnflow import plot
from attnflow.plot.density import mollweide


def test_mollweide_keeps_areas(rng):
    z = np.linspace(-1, 1, 21)
    x, y = mollweide(np.full(21, np.pi), z)
    assert np.abs((x / (2 * np.sqrt(2))) ** 2 + (y / np.sqrt(2)) ** 2 - 1).max() < 1e-7
    # Equal steps of z have equal areas: width at height y integrates to the share of the ellipse.
    fine = np.linspace(-1, 1, 4001)
    width, up = mollweide(np.full(4001, np.pi), fine)
    area = np.concatenate([[0], np.cumsum(np.diff(up) * (width[1:] + width[:-1]))])
    assert np.abs(area - 2 * np.pi * (fine + 1)).max() < 2e-3  # trapezoids next to the poles


def test_heatmap_shows_the_density(rng):
    ts, theta = np.linspace(0, 2, 5), np.linspace(0.1, 6.2, 8)
    density = rng.uniform(0.2, 3, (5, 8))
    ax = plot.density_heatmap(ts, theta, density)
    (mesh,) = ax.collections
    assert np.allclose(np.asarray(mesh.get_array()).reshape(8, 5), density.T)
    assert ax.get_xlabel() == "time t"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "π/2", "π", "3π/2", "2π"]


def test_map_shows_the_density(rng):
    z, longitude = np.linspace(-0.9, 0.9, 6), 2 * np.pi * np.arange(10) / 10
    density = rng.uniform(0.2, 3, (6, 10))
    ax = plot.density_map(z, longitude, density)
    mesh = ax.collections[0]
    assert np.allclose(np.asarray(mesh.get_array()).reshape(6, 10), density)


def test_spectrum_marks_the_fastest():
    ax = plot.growth_spectrum([1, 2, 3], [0.1, 0.5, 0.2], measured=[0.1, 0.5, np.nan])
    assert "fastest: l = 2" in [t.get_text() for t in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: plot.density_heatmap([0, 1], [0, 1], np.ones((2, 3))),
            "`density` must have shape",
        ),
        (lambda: plot.density_map([0, 0.5], [0, 1], np.full((2, 2), np.nan)), "must be finite"),
        (lambda: plot.growth_spectrum([1, 2], [0.5]), "`rates` must have shape"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
