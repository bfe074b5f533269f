"""One style for every figure: palettes, type sizes, and figures that no window system owns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from attnflow.plot.shapes import read

CATEGORICAL = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#F0E442",  # yellow
)
"""Okabe-Ito colours, which colour-blind readers tell apart; theory has the black (`INK`)."""

SEQUENTIAL = "cividis"
"""Colour map of ordered values: perceptually uniform, the same with and without colour vision."""

INK = "#222222"
"""Text and theory curves."""

MUTED = "#8A8F98"
"""Guides, outlines and everything that is not data."""

_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=CATEGORICAL),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 11,
    "axes.unicode_minus": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "image.cmap": SEQUENTIAL,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": "#555555",
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": "#555555",
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's style inside a `with` block; the caller's settings come back after it.

    Every function of `attnflow.plot` already draws inside it; titles and texts of your own take it
    inside the block, or in a function under `@style()`.
    Fonts ship with matplotlib and formulas use its own mathtext, so no TeX is needed.
    """
    with matplotlib.rc_context(_RC):
        yield


@style()
def panels(
    mosaic: str | list[list[str]], *, width: float | int = 8.0, height: float | int = 5.0
) -> tuple[Figure, dict[str, Axes]]:
    """A figure and its named axes, laid out as in `Figure.subplot_mosaic`.

    The figure belongs to no window system and needs no closing.

    Args:
        mosaic: Layout such as `"ab;cc"`, or rows of names.
        width: Inches.
        height: Inches.

    Returns:
        Figure, and one axes per name.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplot_mosaic(mosaic)  # pyright: ignore[reportArgumentType, reportCallIssue]
    for ax in axes.values():
        for side in ("x", "y"):  # matplotlib makes ticks while saving, when the style is gone
            rc = {name: _RC[f"{side}tick.{name}"] for name in ("color", "labelcolor", "labelsize")}
            ax.tick_params(axis=side, which="both", **rc)
    return figure, axes


def new_axes(width: float | int, height: float | int) -> Axes:
    """Axes of a new figure of their own."""
    return panels("a", width=width, height=height)[1]["a"]


def category_colors(labels: ArrayLike) -> np.ndarray:
    """A colour per integer label: seven hues, then the same hues lighter, then darker.

    Labels repeat a colour after 21 categories.

    Args:
        labels: Integers >= 0, shape (n,).

    Returns:
        RGBA in [0, 1], shape (n, 4).
    """
    array = read("labels", labels, n=None)
    if not (np.isfinite(array).all() and (array >= 0).all() and (array == array.round()).all()):
        raise ValueError(
            "Argument `labels` must hold integers >= 0, but some entry is not. "
            "Pass `values` to colour tokens by a real number."
        )
    hues = to_rgba_array(CATEGORICAL)
    tints = np.concatenate([hues, blend(hues, "white", 0.5), blend(hues, "black", 0.4)])
    return tints[array.astype(int) % len(tints)]


def blend(colors: np.ndarray, toward: str, share: float | np.ndarray) -> np.ndarray:
    """RGBA colors moved toward a colour by a share in [0, 1], alpha kept; shape (..., 4)."""
    share = np.asarray(share)[..., None]
    mixed = colors.copy()
    mixed[..., :3] = (1 - share) * colors[..., :3] + share * np.asarray(to_rgb(toward))
    return mixed
