"""Tokens in motion, shown or written as .gif and .mp4."""

from pathlib import Path

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from attnflow.errors import check_count, check_finite
from attnflow.plot.gif import GifWriter
from attnflow.plot.shapes import read, read_times
from attnflow.plot.style import new_axes, style
from attnflow.plot.times import number
from attnflow.plot.tokens import (
    empty_cloud,
    marker_areas,
    place_points,
    place_tail,
    token_colors,
    view_of,
)


@style()
def animate(
    xs: ArrayLike,
    ts: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    values: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    tail: int = 0,
    size: float | int | None = None,
    ax: Axes | None = None,
) -> FuncAnimation:
    """Tokens in motion, one frame per time, the time in the title.

    Seen as in `tokens`; the principal axes of d > 3 are those of all frames together, so they stay
    fixed. Keep the returned object alive while it plays; write it with `save_animation`.

    Args:
        xs: Trajectory, shape (t, n, d), d >= 2.
        ts: Increasing times, shape (t,).
        labels: Integers >= 0 that choose colours, shape (n,), or (t, n) when they change.
        values: Numbers that choose colours, shape (n,) or (t, n). Not together with `labels`.
        weights: Token masses > 0, shape (n,) or (t, n); marker areas are proportional to them.
        tail: Number of earlier frames drawn as a fading path, >= 0.
        size: Mean marker area, as in `tokens`.
        ax: Axes to draw on. `None` makes a new figure.

    Raises:
        ValueError: If a shape does not fit.
    """
    ts = read_times(ts)
    xs = read("xs", xs, t=len(ts), n=None, d=None)
    check_finite(xs.ravel(), "xs")
    t, n, d = xs.shape
    if d < 2:
        raise ValueError(
            f"Argument `xs` must have shape (t, n, d), d >= 2, but xs.shape={xs.shape}."
        )
    check_count(tail, "tail", 0)
    labels, values, weights = (
        _per_frame(name, given, t, n)
        for name, given in (("labels", labels), ("values", values), ("weights", weights))
    )
    norm = Normalize() if values is None else Normalize(values.min(), values.max())
    colors = [token_colors(_at(labels, i), _at(values, i), n, norm) for i in range(t)]
    areas = [marker_areas(_at(weights, i), n, size) for i in range(t)]
    view = view_of(xs.reshape(-1, d))

    own = ax is None
    ax = ax or new_axes(4.4, 4.6)
    view.frame(ax)
    points, lines = empty_cloud(ax)
    title = ax.set_title("")

    def show(i: int) -> tuple[object, ...]:
        place_points(points, xs[i], view, colors[i], areas[i])
        place_tail(lines, xs[max(0, i - tail) : i + 1], view, colors[i])
        title.set_text(f"$t = {number(float(ts[i]))}$")
        return points, lines, title

    show(0)
    figure = _figure_of(ax)
    if own:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # a layout computed once does not jitter
    return FuncAnimation(figure, show, frames=t, interval=50, cache_frame_data=False)  # pyright: ignore[reportArgumentType]


@style()
def save_animation(
    animation: FuncAnimation, path: str | Path, *, fps: int = 20, dpi: int = 110
) -> Path:
    """Write an animation as .gif (Pillow) or .mp4 (ffmpeg).

    Args:
        animation: What `animate` returned.
        path: Where to write; the suffix chooses the format.
        fps: Frames per second, >= 1. Browsers play at most 50 in a .gif.
        dpi: Pixels per inch.

    Returns:
        The path written.

    Raises:
        ValueError: If the suffix is neither .gif nor .mp4, or fps < 1.
        FileNotFoundError: If ffmpeg is needed and not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"Argument `path` must end in .gif or .mp4, but path={str(path)!r}.")
    check_count(fps, "fps")
    if suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise FileNotFoundError(
            f"Writing {str(path)!r} needs the program ffmpeg, which was not found. "
            "Install ffmpeg, or end the path in .gif."
        )
    writer = GifWriter(fps=fps) if suffix == ".gif" else FFMpegWriter(fps=fps)
    animation.save(path, writer=writer, dpi=dpi)
    return path


def _per_frame(name: str, given: ArrayLike | None, t: int, n: int) -> np.ndarray | None:
    """One row per frame, from one row for all frames or one row for each; shape (t, n)."""
    if given is None:
        return None
    if np.ndim(given) == 1:
        return np.broadcast_to(read(name, given, n=n), (t, n))
    return read(name, given, t=t, n=n)


def _at(rows: np.ndarray | None, i: int) -> np.ndarray | None:
    return None if rows is None else rows[i]


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure
