import numpy as np
import pytest
from matplotlib.colors import to_rgba
from scipy.cluster.hierarchy import fcluster, linkage

from attnflow import plot
from attnflow.plot.style import MUTED


def tree(rng, n):
    """Single linkage of points on a line: heights from 0 to about 5."""
    return linkage(np.sort(rng.uniform(0, 40, n))[:, None], "single")


def chain(n):
    """Every merge adds one token: as deep as a tree can be."""
    made = np.arange(n - 1)
    left = np.where(made == 0, 0, n + made - 1)
    return np.column_stack([left, made + 1, 0.1 + made / 10, made + 2]).astype(float)


def leaf_colors(ax, n):
    return ax.collections[0].get_colors()[:n]


@pytest.mark.parametrize("n", [2, 12, 200])
def test_stems_run_from_birth_to_merge_and_joints_stand_at_the_heights(rng, n):
    _, axes = plot.panels("a")
    z = tree(rng, n)
    ax = plot.dendrogram(z, ax=axes["a"])
    assert ax is axes["a"]
    segments = np.array(ax.collections[0].get_segments())
    assert len(segments) == (2 * n - 1) + (n - 1)
    stem, joint = segments[: 2 * n - 1], segments[2 * n - 1 :]
    np.testing.assert_array_equal(stem[:, 0, 0], [0] * n + list(z[:, 2]))
    assert (stem[:, 0, 1] == stem[:, 1, 1]).all()
    np.testing.assert_array_equal(joint[..., 0], np.stack([z[:, 2]] * 2, axis=1))
    children = z[:, :2].astype(int)
    np.testing.assert_array_equal(joint[..., 1], stem[children, 0, 1])
    np.testing.assert_array_equal(stem[children, 1, 0], joint[..., 0])
    np.testing.assert_allclose(stem[n:, 0, 1], joint[..., 1].mean(axis=1))
    assert sorted(stem[:n, 0, 1]) == list(range(n))


@pytest.mark.parametrize("height", [0.2, 0.5, 1.0])
def test_leaves_are_coloured_by_their_cluster_on_the_plateau(rng, height):
    n, z = 60, tree(rng, 60)
    ax = plot.dendrogram(z, plateau=np.log10(10**height - 1))
    labels = fcluster(z, height, "distance")
    assert ax.texts[0].get_text() == f"{labels.max()} clusters"
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), height)
    colors = leaf_colors(ax, n)
    y = np.array(ax.collections[0].get_segments())[:n, 0, 1].astype(int)
    in_order = labels[np.argsort(y)]
    firsts = np.flatnonzero(np.diff(in_order, prepend=-1))
    assert len(firsts) == labels.max()  # every cluster is contiguous
    number = np.searchsorted(firsts, y, side="right") - 1
    np.testing.assert_allclose(colors, plot.category_colors(number))
    later = ax.collections[0].get_colors()[n : 2 * n - 1][z[:, 2] > height]
    assert (later == to_rgba(MUTED)).all()


def test_default_plateau_is_the_longest():
    z = chain(4)
    z[:, 2] = [0.5, 1.0, 9.0]
    ax = plot.dendrogram(z)
    assert ax.texts[0].get_text() == "2 clusters"
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), 5.0)


def test_what_never_merges_reaches_the_end():
    z = chain(5)
    z[2:, 2] = np.inf
    ax = plot.dendrogram(z)
    segments = np.array(ax.collections[0].get_segments())
    assert np.isfinite(segments).all()
    assert (segments[:7, 1, 0] == ax.get_xlim()[1]).sum() == 3
    assert ax.texts[0].get_text() == "3 clusters"
    ax.figure.draw_without_rendering()
    z[:, 2] = np.inf
    assert plot.dendrogram(z).texts[0].get_text() == "5 clusters"


def test_a_chain_of_a_thousand_leaves_is_drawn_within_the_axes():
    ax = plot.dendrogram(chain(1000))
    ax.figure.draw_without_rendering()
    points = np.array(ax.collections[0].get_segments()).reshape(-1, 2)
    assert ((points[:, 0] >= 0) & (points[:, 0] <= ax.get_xlim()[1])).all()
    assert ax.get_ylabel() == "1000 tokens"
    assert len(ax.get_yticks()) == 0


def test_leaves_carry_their_names_in_the_order_drawn():
    z = linkage(np.array([[0.0], [9.0], [0.1], [9.1]]), "single")
    ax = plot.dendrogram(z, names=["a", "b", "c", "d"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "c", "b", "d"]
    assert [text.get_text() for text in plot.dendrogram(z).get_yticklabels()] == list("0213")


@pytest.mark.parametrize("high", [0.05, 0.5, 3.0, 20.0, 434.0])
def test_ticks_stand_where_log10_of_one_plus_t_puts_them(high):
    z = chain(3)
    z[:, 2] = [high / 2, high]
    ax = plot.dendrogram(z)
    ax.figure.draw_without_rendering()
    pairs = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    shown = {p: label.get_text().strip("$") for p, label in pairs if p <= ax.get_xlim()[1]}
    assert shown[0.0] == "0"
    assert len(shown) >= 3
    for place, text in shown.items():
        if "^" in text:
            k = float(text[4:-1])
            np.testing.assert_allclose(place, np.logaddexp(0, k * np.log(10)) / np.log(10))
        else:
            np.testing.assert_allclose(place, np.log10(1 + float(text)), atol=1e-12)


def broken(**changes):
    z = chain(4)
    for (i, j), value in changes.values():
        z[i, j] = value
    return z


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.dendrogram(chain(4)[:, :3]), "columns=4"),
        (lambda: plot.dendrogram(broken(a=((0, 0), 5))), "clusters that exist, each once"),
        (lambda: plot.dendrogram(broken(a=((2, 1), 1))), "clusters that exist, each once"),
        (lambda: plot.dendrogram(broken(a=((0, 0), 0.5))), "clusters that exist, each once"),
        (lambda: plot.dendrogram(broken(a=((0, 2), -1))), "heights >= 0 that do not decrease"),
        (lambda: plot.dendrogram(broken(a=((0, 2), 5))), "heights >= 0 that do not decrease"),
        (lambda: plot.dendrogram(broken(a=((1, 2), np.nan))), "heights >= 0 that do not decrease"),
        (lambda: plot.dendrogram(chain(4), names=["a"]), "n=4 texts"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
