"""Bifurcation diagram: order parameter of stationary states over a parameter."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from attnflow.errors import check_finite
from attnflow.plot.shapes import read
from attnflow.plot.style import INK, new_axes, style


@style()
def bifurcation(
    parameter: ArrayLike,
    order: ArrayLike,
    stable: ArrayLike,
    *,
    color: str = INK,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One branch of states: solid where it is stable, broken where it is not.

    Args:
        parameter: Parameter of each state in the order of the branch, which may turn, shape (k,), k >= 2.
        order: Order parameter of each state, shape (k,).
        stable: Whether each state is stable, shape (k,). A piece between two states is solid if both are.
        color: Colour of the branch.
        label: Name in the legend.
        ax: Axes to draw on. `None` makes a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If a shape does not fit or a number is not finite.
    """
    parameter = read("parameter", parameter, k=None)
    order, stable = (
        read(name, value, k=len(parameter))
        for name, value in (("order", order), ("stable", stable))
    )
    for name, value in (("parameter", parameter), ("order", order)):
        check_finite(value, name)
    if len(parameter) < 2:
        raise ValueError("Argument `parameter` must hold at least two states, but it holds one.")
    ax = ax or new_axes(6.0, 4.2)
    solid = (stable[:-1] > 0) & (stable[1:] > 0)
    cuts = np.flatnonzero(np.diff(solid)) + 1
    for piece in np.split(np.arange(len(solid)), cuts):
        ends = slice(piece[0], piece[-1] + 2)
        kind = "-" if solid[piece[0]] else "--"
        ax.plot(parameter[ends], order[ends], kind, color=color, linewidth=1.6, zorder=2)
    if label:
        ax.plot([], [], "-", color=color, label=label)
    ax.set(ylabel="order parameter $R$", ylim=(-0.03, 1.03))
    return ax
