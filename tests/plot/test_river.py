import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from attnflow import plot


def merges(rng, n):
    """Pairs, and times over 400 decades, most of them close together at the start."""
    pairs = linkage(rng.uniform(size=(n, 1)), "single")[:, :2].astype(int)
    return pairs, np.sort(400 * rng.uniform(size=n - 1) ** 6) - 1


def intervals(ax, x):
    """Lower and upper edges of the streams at time x, in order."""
    found = []
    for path in ax.collections[0].get_paths():
        corners = path.vertices[:-1]
        there, back = np.array_split(corners, 2)
        if there[0, 0] <= x < there[-1, 0]:
            found.append([np.interp(x, *there.T), np.interp(x, *back[::-1].T)])
    return np.array(sorted(found))


@pytest.mark.parametrize("n", [2, 5, 30, 200])
def test_streams_never_overlap_and_carry_all_weight_at_all_times(rng, n):
    _, axes = plot.panels("a")
    pairs, times = merges(rng, n)
    weights = rng.uniform(0.2, 2, n)
    ax = plot.river(pairs, times, weights, ax=axes["a"])
    assert ax is axes["a"]
    low, high = ax.get_xlim()
    for x in np.concatenate([np.linspace(low, high, 97)[:-1], times, times - 1e-9, times - 3]):
        if low <= x < high:
            bands = intervals(ax, x)
            np.testing.assert_allclose((bands[:, 1] - bands[:, 0]).sum(), weights.sum())
            # Outlines are straight between 25 corners on both sides alike: rounding only.
            assert (bands[1:, 0] - bands[:-1, 1]).min(initial=1) > -1e-12 * weights.sum()


def test_each_plateau_has_its_clusters_and_widths():
    """Tokens 0 and 2 merge, then 1 and 3, then all."""
    pairs, times = [[0, 2], [1, 3], [4, 5]], [1.0, 20.0, 40.0]
    weights = np.array([1.0, 2, 3, 4])
    ax = plot.river(pairs, times, weights)
    for x, widths in ((0.0, [1, 3, 2, 4]), (10.0, [4, 2, 4]), (30.0, [4, 6]), (41.0, [10])):
        np.testing.assert_allclose(np.diff(intervals(ax, x))[:, 0], widths)


def test_streams_meet_without_a_step(rng):
    pairs, times = merges(rng, 6)
    times = np.arange(5.0) * 20
    ax = plot.river(pairs, times, np.ones(6))
    for t in times:
        before, after = intervals(ax, t - 1e-9), intervals(ax, t)
        assert len(before) == len(after) + 1
        for edges in after:
            assert np.abs(before - edges[0]).min() < 1e-9
            assert np.abs(before - edges[1]).min() < 1e-9


def test_colours_are_the_clusters_of_the_plateau_and_then_of_the_heavier(rng):
    pairs, weights = np.array([[0, 1], [2, 3], [5, 4]]), np.array([1.0, 1, 5, 5])
    ax = plot.river(pairs, [0.0, 3.0, 100.0], weights)
    assert ax.texts[0].get_text() == "2 clusters"
    blue, red = plot.category_colors([0, 1])
    faces = ax.collections[0].get_facecolors()
    np.testing.assert_allclose(faces, [blue, blue, red, red, blue, red, red])
    early = plot.river(pairs, [0.0, 3.0, 100.0], weights, plateau=1.0)
    assert early.texts[0].get_text() == "3 clusters"


def test_colours_and_plateau_agree_with_the_dendrogram(rng):
    pairs, times = merges(rng, 40)
    heights = np.logaddexp(0, times * np.log(10)) / np.log(10)
    z = np.column_stack([pairs, heights, np.full(39, 2)]).astype(float)
    tree, ax = plot.dendrogram(z), plot.river(pairs, times, np.ones(40), start=-5.0)
    assert tree.texts[0].get_text() == ax.texts[0].get_text()
    leaves = tree.collections[0].get_colors()[:40]
    np.testing.assert_allclose(ax.collections[0].get_facecolors()[:40], leaves)
    at = tree.get_lines()[0].get_xdata()[0]
    count = len(np.unique(fcluster(z, at, "distance")))
    assert ax.texts[0].get_text() == f"{count} clusters"


def test_default_plateau_is_the_middle_of_the_longest_in_log10_of_one_plus_t():
    times = np.log10([1.0, 2.0, 999.0])  # heights log10 of 2, 3, 1000
    ax = plot.river([[0, 1], [2, 4], [3, 5]], times, np.ones(4))
    middle = np.log10(np.sqrt(3 * 1000) - 1)
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), middle)


def test_unfinished_runs_keep_their_streams():
    ax = plot.river([[0, 1]], [5.0], np.ones(4))
    assert len(intervals(ax, 5.05)) == 3
    assert ax.texts[0].get_text() == "3 clusters"
    ax.figure.draw_without_rendering()


def test_start_cuts_what_came_before():
    ax = plot.river([[0, 1], [2, 3]], [5.0, 9.0], np.ones(3), start=6.0)
    assert ax.get_xlim()[0] == 6.0
    assert len(ax.collections[0].get_paths()) == 3
    assert len(intervals(ax, 7.0)) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.river([[0, 1]], [1.0, 2.0], [1, 1, 1]), "`pairs` must have shape"),
        (lambda: plot.river([[0, 9]], [1.0], [1, 1]), "clusters that exist, each once"),
        (lambda: plot.river([[0, 1], [0, 2]], [1.0, 2], [1, 1, 1]), "each once"),
        (lambda: plot.river([[0, 1], [2, 3]], [2.0, 1], [1, 1, 1]), "must not decrease"),
        (lambda: plot.river([[0, 1]], [1.0], [1, 0]), "`weights`"),
        (lambda: plot.river([[0, 1]], [1.0], [1, np.inf]), "`weights` must be finite"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
