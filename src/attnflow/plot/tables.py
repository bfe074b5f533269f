"""A table of short texts inside a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from attnflow.plot.style import INK, new_axes, style


@style()
def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, ax: Axes | None = None
) -> Axes:
    """Rows under a header between three rules; numbers stand to the right, words to the left.

    Floats are written with four significant digits.

    Args:
        columns: Headers, c of them.
        rows: Rows of c entries each: texts or numbers.
        ax: Axes to draw on. `None` makes a new figure.
    """
    if not columns or not rows:
        raise ValueError("Arguments `columns` and `rows` must not be empty, but one is.")
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"Argument `rows` must hold rows of {len(columns)} entries, but one row is {row!r}."
            )
    cells = [list(columns), *([_text(entry) for entry in row] for row in rows)]
    widths = np.array([max(len(row[j]) for row in cells) + 2.5 for j in range(len(columns))])
    edges = np.concatenate([[0.0], widths.cumsum()]) / widths.sum()
    ax = ax or new_axes(max(3.0, 0.085 * widths.sum()), 0.28 * len(cells) + 0.2)
    pad = 0.6 / widths.sum()
    for i, row in enumerate(cells):
        for j, text in enumerate(row):
            right = all(isinstance(r[j], int | float | np.number) for r in rows)
            place = edges[j + 1] - pad if right else edges[j] + pad
            weight = "bold" if i == 0 else "normal"
            ax.text(
                place, -i - 0.5, text, ha="right" if right else "left", va="center",
                fontsize=9, fontweight=weight, color=INK,
            )  # fmt: skip
    for height, width in ((0, 1.2), (-1, 0.7), (-len(cells), 1.2)):
        ax.plot([0, 1], [height, height], color=INK, linewidth=width, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(-len(cells) - 0.1, 0.1))
    ax.set_axis_off()
    return ax


def _text(entry: object) -> str:
    return f"{entry:.4g}" if isinstance(entry, float | np.floating) else str(entry)
