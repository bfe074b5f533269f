"""Tokens at a few moments, side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from attnflow.errors import check_between, check_finite
from attnflow.plot.log_time import clusters_text, power, read_log10_times
from attnflow.plot.shapes import read, read_tokens
from attnflow.plot.style import panels, style
from attnflow.plot.times import number
from attnflow.plot.tokens import empty_cloud, place_points, token_colors, view_of

_AREA, _SMALLEST = 320.0, 10.0  # points squared: of all tokens together, and of a token at least


@style()
def strip(
    xs: Sequence[ArrayLike],
    log10_times: ArrayLike,
    *,
    weights: Sequence[ArrayLike] | None = None,
    labels: Sequence[ArrayLike] | None = None,
    clusters: ArrayLike | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """A row of small panels of tokens, each titled by its time and its number of clusters.

    Seen as in `tokens`, all from the same side: the principal axes of d > 3 are those of all moments
    together. Areas of markers are proportional to weights, the same in all panels, but no smaller
    than can be seen.

    Args:
        xs: Tokens or clusters at each moment, shapes (k, d); their number k may change.
        log10_times: Increasing log10 of the moments, -inf for t = 0, shape (t,).
        weights: Masses > 0 at each moment, shapes (k,); equal by default.
        labels: Integers >= 0 that choose colours, at each moment, shapes (k,).
        clusters: Number of clusters at each moment, shape (t,). `None` counts the rows of xs.
        axes: Axes to draw on, one for each moment. `None` makes a new figure.

    Returns:
        The axes, one for each moment, each with one scatter.

    Raises:
        ValueError: If a shape does not fit.
    """
    times = read_log10_times("log10_times", log10_times, t=None)
    moments = [read_tokens(x, f"xs[{i}]") for i, x in enumerate(_each("xs", xs, len(times)))]
    if len({x.shape[1] for x in moments}) > 1:
        raise ValueError(
            "Argument `xs` must have one dimension d at all moments, but it has several."
        )
    counts = (
        [len(x) for x in moments] if clusters is None else read("clusters", clusters, t=len(times))
    )
    masses = _each("weights", weights, len(times))
    groups = _each("labels", labels, len(times))
    if axes is None:
        names = [str(i) for i in range(len(times))]
        axes = list(panels([names], width=1.75 * len(times), height=2.3)[1].values())
    axes = list(_each("axes", axes, len(times)))
    view = view_of(np.concatenate(moments))
    for i, (x, ax) in enumerate(zip(moments, axes, strict=True)):
        view.frame(ax)
        points, _ = empty_cloud(ax)
        place_points(
            points, x, view, token_colors(groups[i], None, len(x)), _areas(masses[i], len(x), i)
        )
        if x.shape[1] > 3:
            ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.set_title(
            f"${_moment(times[i])}$\n{clusters_text(counts[i])}", loc="center", fontsize=9.5
        )
    return axes


def _each(name: str, values: Sequence | None, t: int) -> Sequence:
    """One value for each moment; `None` for each when there are none."""
    values = [None] * t if values is None else values
    if len(values) != t:
        raise ValueError(
            f"Argument `{name}` must hold one entry for each of t={t} moments, "
            f"but len({name})={len(values)}."
        )
    return values


def _areas(weights: ArrayLike | None, n: int, moment: int) -> np.ndarray:
    share = np.full(n, 1 / n)
    if weights is not None:
        share = read(f"weights[{moment}]", weights, n=n)
        check_finite(share, "weights")
        check_between(share, "weights", 0.0, open_low=True)
        share = share / share.sum()
    return np.maximum(_AREA * share, _SMALLEST)


def _moment(log10: float) -> str:
    """Time for mathtext: digits while they are few, then a power of ten."""
    return f"t = {number(10.0**log10)}" if log10 < 4 else f"t = {power(round(log10, 1))}"
