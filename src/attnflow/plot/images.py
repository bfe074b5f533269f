"""Small pictures in a grid, such as the mean image of each cluster of handwritten digits."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from attnflow.errors import check_count, check_finite
from attnflow.plot.shapes import read
from attnflow.plot.style import INK, new_axes, style

_GAP, _CAPTION = 0.14, 0.34  # shares of a tile


@style()
def image_grid(
    images: ArrayLike,
    *,
    counts: ArrayLike | None = None,
    captions: list[str] | None = None,
    columns: int | None = None,
    cmap: str = "gray_r",
    ax: Axes | None = None,
) -> Axes:
    """Images in reading order, each with its count ("n = 182") or caption under it.

    All share one grey scale.

    Args:
        images: Intensities, shape (k, h, w).
        counts: Numbers of members, written as "n = 182", shape (k,).
        captions: Texts under the images, k of them. Not together with `counts`.
        columns: Images per row, >= 1. `None` puts up to ten in a row.
        cmap: matplotlib colour map.
        ax: Axes to draw on. `None` makes a new figure.
    """
    images = read("images", images, k=None, h=None, w=None)
    check_finite(images.ravel(), "images")
    k, h, w = images.shape
    texts = _captions(counts, captions, k)
    if columns is not None:
        check_count(columns, "columns")
    width = min(k, columns or 10)
    rows = -(-k // width)
    tall, pitch_x = h / w, 1 + _GAP
    pitch_y = tall + _GAP + (_CAPTION if texts else 0.0)
    ax = ax or new_axes(0.95 * width * pitch_x, 0.95 * rows * pitch_y)
    low, high = images.min(), max(images.max(), images.min() + 1e-12)
    for i, image in enumerate(images):
        left, top = (i % width) * pitch_x, -(i // width) * pitch_y
        ax.imshow(
            image,
            extent=(left, left + 1, top - tall, top),
            cmap=cmap,
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        ax.add_patch(
            Rectangle((left, top - tall), 1, tall, fill=False, edgecolor="#B8BDC5", linewidth=0.7)
        )
        if texts:
            ax.text(
                left + 0.5,
                top - tall - 0.07,
                texts[i],
                ha="center",
                va="top",
                fontsize=8.5,
                color=INK,
            )
    ax.set(
        aspect="equal",
        xlim=(-_GAP / 2, width * pitch_x - _GAP / 2),
        ylim=(-rows * pitch_y + _GAP / 2, _GAP / 2),
    )
    ax.set_axis_off()
    return ax


def _captions(counts: ArrayLike | None, captions: list[str] | None, k: int) -> list[str]:
    if counts is not None and captions is not None:
        raise ValueError("Arguments `counts` and `captions` must not be given together. Pass one.")
    if counts is not None:
        return [f"n = {count:.0f}" for count in read("counts", counts, k=k)]
    if captions is not None and len(captions) != k:
        raise ValueError(
            f"Argument `captions` must hold k={k} texts, but len(captions)={len(captions)}."
        )
    return captions or []
