"""Tokens at one moment: on the circle, on the sphere, or on two principal axes."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Normalize, to_rgba_array
from numpy.typing import ArrayLike

from attnflow.errors import check_between, check_finite
from attnflow.plot import views
from attnflow.plot.shapes import read, read_tokens
from attnflow.plot.style import CATEGORICAL, SEQUENTIAL, blend, category_colors, new_axes, style
from attnflow.plot.views import View


@style()
def tokens(
    x: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    values: ArrayLike | None = None,
    value_label: str = "",
    weights: ArrayLike | None = None,
    tail: ArrayLike | None = None,
    size: float | int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Tokens as points: on the circle for d = 2, the sphere for d = 3, else on principal axes.

    Args:
        x: Tokens, shape (n, d), d >= 2.
        labels: Integers >= 0 that choose colours from `CATEGORICAL`, shape (n,).
        values: Numbers that choose colours from `SEQUENTIAL`, shape (n,); draws a colour bar.
            Not together with `labels`.
        value_label: Text beside the colour bar.
        weights: Token masses > 0, shape (n,); marker areas are proportional to them.
        tail: Recent positions, oldest first, shape (s, n, d); drawn as fading lines that end in x.
        size: Mean marker area, points squared. `None` means 42, less for more than 100 tokens.
        ax: Axes to draw on. `None` makes a new figure.

    Returns:
        The axes, with one scatter of n points.

    Raises:
        ValueError: If a shape does not fit, or both `labels` and `values` are given.
    """
    x = read_tokens(x)
    view = view_of(x)
    return _draw(x, view, labels, values, value_label, weights, tail, size, ax)


@style()
def tokens_on_circle(
    x: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    values: ArrayLike | None = None,
    value_label: str = "",
    weights: ArrayLike | None = None,
    tail: ArrayLike | None = None,
    size: float | int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Tokens on the unit circle; the past of a `tail` spirals inward so that it stays visible.

    Args:
        x: Tokens, shape (n, 2).
        labels: As in `tokens`.
        values: As in `tokens`.
        value_label: As in `tokens`.
        weights: As in `tokens`.
        tail: As in `tokens`.
        size: As in `tokens`.
        ax: As in `tokens`.
    """
    x = read_tokens(x, d=2)
    return _draw(x, views.circle(), labels, values, value_label, weights, tail, size, ax)


@style()
def tokens_on_sphere(
    x: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    values: ArrayLike | None = None,
    value_label: str = "",
    weights: ArrayLike | None = None,
    tail: ArrayLike | None = None,
    size: float | int | None = None,
    elevation: float | int = 20.0,
    azimuth: float | int = 30.0,
    ax: Axes | None = None,
) -> Axes:
    """Tokens on a globe seen from far away; those behind are smaller and paler.

    The picture is an orthographic projection on ordinary axes, so no 3-d axes are needed.

    Args:
        x: Tokens, shape (n, 3).
        labels: As in `tokens`.
        values: As in `tokens`.
        value_label: As in `tokens`.
        weights: As in `tokens`.
        tail: As in `tokens`.
        size: As in `tokens`.
        elevation: Viewer's angle above the equator, degrees.
        azimuth: Viewer's angle around the third axis, degrees.
        ax: As in `tokens`.
    """
    x = read_tokens(x, d=3)
    view = views.globe(elevation, azimuth)
    return _draw(x, view, labels, values, value_label, weights, tail, size, ax)


@style()
def tokens_projected(
    x: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    values: ArrayLike | None = None,
    value_label: str = "",
    weights: ArrayLike | None = None,
    tail: ArrayLike | None = None,
    size: float | int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Tokens of any dimension on their two principal axes, with the share of variance of each.

    Args:
        x: Tokens, shape (n, d), d >= 2.
        labels: As in `tokens`.
        values: As in `tokens`.
        value_label: As in `tokens`.
        weights: As in `tokens`.
        tail: As in `tokens`.
        size: As in `tokens`.
        ax: As in `tokens`.
    """
    x = read_tokens(x)
    return _draw(x, views.principal(x), labels, values, value_label, weights, tail, size, ax)


def view_of(x: np.ndarray) -> View:
    """The natural view of tokens (n, d)."""
    match x.shape[-1]:
        case 2:
            return views.circle()
        case 3:
            return views.globe(elevation=20.0, azimuth=30.0)
        case _:
            return views.principal(x)


def marker_areas(weights: ArrayLike | None, n: int, size: float | int | None) -> np.ndarray:
    """Marker areas of mean `size`, proportional to the weights; shape (n,)."""
    size = max(6.0, 42.0 * min(1.0, (100 / n) ** 0.5)) if size is None else size
    if weights is None:
        return np.full(n, float(size))
    array = read("weights", weights, n=n)
    check_finite(array, "weights")
    check_between(array, "weights", 0.0, open_low=True)
    return size * array / array.mean()


def token_colors(
    labels: ArrayLike | None, values: ArrayLike | None, n: int, norm: Normalize | None = None
) -> np.ndarray:
    """RGBA of each token, by label, by value, or one colour for all; shape (n, 4)."""
    if labels is not None and values is not None:
        raise ValueError("Arguments `labels` and `values` must not be given together. Pass one.")
    if labels is not None:
        return category_colors(read("labels", labels, n=n))
    if values is not None:
        array = read("values", values, n=n)
        check_finite(array, "values")
        return matplotlib.colormaps[SEQUENTIAL]((norm or Normalize())(array))
    return np.repeat(to_rgba_array(CATEGORICAL[0]), n, axis=0)


def place_points(
    points: PathCollection, x: np.ndarray, view: View, colors: np.ndarray, areas: np.ndarray
) -> None:
    """Move a scatter to tokens x, far ones first, and among equally far ones the large first."""
    places, depths = view.project(x)
    order = np.lexsort((-areas, depths))
    near = (1 + depths[order]) / 2
    points.set_offsets(places[order])
    points.set_facecolor(blend(colors[order], views.GLOBE, 0.62 * _behind(near)))  # pyright: ignore[reportArgumentType]
    points.set_sizes(areas[order] * (0.5 + 0.5 * near))
    points.set_linewidth(min(0.6, 0.1 * areas.mean() ** 0.5))


def place_tail(lines: LineCollection, path: np.ndarray, view: View, colors: np.ndarray) -> None:
    """Draw the path (s, n, d) of each token as segments that fade with age and with depth."""
    if len(path) < 2:
        lines.set_segments([])
        return
    places, depths = view.project(path)
    age = np.linspace(1, 0, len(path))
    places = places * (1 - view.inward * age)[:, None, None]
    segments = np.stack([places[:-1], places[1:]], axis=2).reshape(-1, 2, 2)
    near = (1 + depths[1:]) / 2
    tint = np.tile(colors, (len(path) - 1, 1, 1))
    tint[..., 3] = 0.65 * (1 - age[1:])[:, None] ** 1.5 * (1 - 0.75 * _behind(near))
    lines.set_segments(list(segments))
    lines.set_color(tint.reshape(-1, 4))  # pyright: ignore[reportArgumentType]


def _behind(near: np.ndarray) -> np.ndarray:
    """0 for tokens well in front, 1 for those well behind, changing fastest at the limb."""
    return 1 / (1 + np.exp(12 * (near - 0.42))) * (near < 1)


def empty_cloud(ax: Axes) -> tuple[PathCollection, LineCollection]:
    """The two artists that show tokens: a scatter, and lines under it."""
    lines = LineCollection([], linewidths=1.2, capstyle="butt", zorder=3)
    ax.add_collection(lines, autolim=False)
    points = ax.scatter([], [], edgecolors="white", zorder=4, clip_on=False)
    return points, lines


def _draw(
    x: np.ndarray,
    view: View,
    labels: ArrayLike | None,
    values: ArrayLike | None,
    value_label: str,
    weights: ArrayLike | None,
    tail: ArrayLike | None,
    size: float | int | None,
    ax: Axes | None,
) -> Axes:
    n, d = x.shape
    norm = Normalize()
    colors, areas = token_colors(labels, values, n, norm), marker_areas(weights, n, size)
    path = (
        x[None] if tail is None else np.concatenate([read("tail", tail, s=None, n=n, d=d), x[None]])
    )
    ax = ax or new_axes(4.6, 4.6)
    view.frame(ax)
    points, lines = empty_cloud(ax)
    place_points(points, x, view, colors, areas)
    place_tail(lines, path, view, colors)
    if values is not None:
        bar = ax.figure.colorbar(
            ScalarMappable(norm, SEQUENTIAL), ax=ax, shrink=0.7, label=value_label
        )
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return ax
