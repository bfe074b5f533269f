"""Times that pass 1e308: read, drawn and written as their decimal logarithms."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from attnflow.plot.shapes import read
from attnflow.plot.style import MUTED
from attnflow.plot.times import number

_STEPS = [1, 2, 5, 10]


def read_log10_times(name: str, value: ArrayLike, **sizes: int | None) -> np.ndarray:
    """Logarithms of times that never decrease, finite or -inf (t = 0), of one named axis."""
    array = read(name, value, **sizes)
    wrong = np.flatnonzero(np.isnan(array) | (array == np.inf))
    if len(wrong):
        raise ValueError(
            f"Argument `{name}` must hold finite logarithms or -inf for t = 0, "
            f"but {name}[{wrong[0]}]={array[wrong[0]]}."
        )
    falls = np.flatnonzero(array[1:] < array[:-1])
    if len(falls):
        raise ValueError(
            f"Argument `{name}` must not decrease, but {name}[{falls[0]}]={array[falls[0]]:g} and "
            f"{name}[{falls[0] + 1}]={array[falls[0] + 1]:g}. Pass `np.sort({name})`."
        )
    return array


def log_time_axis(ax: Axes, low: float, high: float) -> None:
    """Limits and ticks 10^k of an axis whose numbers are log10 t, over one decade or a thousand."""
    ax.set(xlim=(low, high), xlabel="time $t$")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_STEPS))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda log10, _: f"${power(log10)}$"))
    if 1 < high - low <= 7:
        decades = np.arange(np.floor(low), np.ceil(high))
        ax.xaxis.set_minor_locator(
            FixedLocator(np.add.outer(decades, np.log10(range(2, 10))).ravel().tolist())
        )


def shifted_log_time_axis(ax: Axes, high: float) -> None:
    """Limits and ticks of an axis whose numbers are log10(1 + t): it starts at t = 0."""
    ax.set(xlim=(0, high), xlabel="time $t$")
    if high < 1.2:
        ts = np.asarray(MaxNLocator(6).tick_values(0, 10**high - 1))
        places, texts = np.log10(1 + ts[ts >= 0]), [f"${number(t)}$" for t in ts[ts >= 0]]
    else:
        exponents = np.asarray(MaxNLocator(7, integer=True, steps=_STEPS).tick_values(0, high))
        exponents = exponents[(exponents >= 0) & ((exponents > 0) | (high < 6))]
        places = np.append(0, shifted(exponents))
        texts = ["0", *(f"${power(k)}$" for k in exponents)]
    ax.xaxis.set_major_locator(FixedLocator(places.tolist()))
    ax.xaxis.set_major_formatter(FixedFormatter(texts))
    ax.set_xlim(0, high)


def shifted(log10: float | np.ndarray) -> np.ndarray:
    """log10(1 + t) of log10 t."""
    return np.asarray(np.logaddexp(0, np.asarray(log10) * np.log(10)) / np.log(10))


def unshifted(height: float) -> float:
    """log10 t of log10(1 + t) > 0."""
    return height + float(np.log10(-np.expm1(-height * np.log(10))))


def power(log10: float) -> str:
    """Power of ten for mathtext, 10^{172} or 10^{0.5}; 0 at -inf."""
    return "0" if log10 == -np.inf else f"10^{{{log10:.4g}}}"


def mark_plateau(ax: Axes, place: float, clusters: int) -> None:
    """A dashed line across time at the plateau whose clusters choose the colours, and their number."""
    ax.axvline(place, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=5)
    ax.text(
        place, 1.01, clusters_text(clusters), color=MUTED, fontsize=8.5,
        ha="center", va="bottom", transform=ax.get_xaxis_transform(),
    )  # fmt: skip


def clusters_text(count: float | int) -> str:
    """A number of clusters in words."""
    return f"{count:.0f} cluster{'' if count == 1 else 's'}"
