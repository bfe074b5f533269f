"""What a page shows: tokens over time, colours, panels, a histogram and a tree, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

UNIFORM = 1e-3
"""Relative spread of the steps up to which times count as evenly spaced."""


@dataclass(frozen=True)
class Clock:
    """Moments of the frames.

    Attributes:
        values: Increasing, shape (t,); log10 t where `log`.
        log: Whether the axis is logarithmic.
        zero: Whether the first frame is t = 0; then its value on a logarithmic axis is made up.
        label: Text at the axis.
        kind: "time", or "layer" of a trained model.
        ticks: A text per frame; empty for numbers.
    """

    values: np.ndarray
    log: bool = False
    zero: bool = False
    label: str = "time t"
    kind: Literal["time", "layer"] = "time"
    ticks: tuple[str, ...] = ()

    def place(self, ts: np.ndarray) -> np.ndarray:
        """Times in the unit of `values`; on a logarithmic axis nothing is left of the first frame."""
        if not self.log:
            return np.asarray(ts, float)
        with np.errstate(divide="ignore"):
            return np.maximum(np.log10(np.asarray(ts, float)), self.values[0])

    def only(self, frames: np.ndarray) -> Clock:
        """Clock of some of the frames."""
        return replace(
            self,
            values=self.values[frames],
            zero=bool(self.zero and frames[0] == 0),
            ticks=tuple(self.ticks[k] for k in frames) if self.ticks else (),
        )


def clock_of(ts: np.ndarray) -> Clock:
    """Clock of save times: linear if they are evenly spaced, else logarithmic.

    t = 0 has no logarithm; it is put as far before the first save as the second save is after it.
    """
    ts = np.asarray(ts, float)
    steps = np.diff(ts)
    if len(ts) < 3 or ts[0] < 0 or np.ptp(steps) <= UNIFORM * steps.max():
        return Clock(ts, zero=bool(ts[0] == 0))
    with np.errstate(divide="ignore"):
        values = np.log10(ts)
    if zero := bool(ts[0] == 0):
        values[0] = 2 * values[1] - values[2]
    return Clock(values, log=True, zero=zero)


def layer_clock(layers: int) -> Clock:
    """Clock of a trained model: layer 0 is the entry of its first block."""
    ticks = ("entry", *(str(k) for k in range(1, layers)))
    return Clock(np.arange(layers, dtype=float), label="layer", kind="layer", ticks=ticks)


@dataclass(frozen=True)
class Color:
    """A colour of tokens: numbers of categories (integers) or quantities (floats), (n,) or (t, n)."""

    name: str
    values: np.ndarray
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def kind(self) -> str:
        """Whether values are a "category" or a "number"."""
        return "number" if np.asarray(self.values).dtype.kind == "f" else "category"


@dataclass(frozen=True)
class Series:
    """A curve or marks of a panel; `x` in the unit of the clock."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: Literal["measured", "theory", "event"] = "measured"
    step: bool = False
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves over time that share an axis."""

    id: str
    title: str
    y_label: str
    series: tuple[Series, ...]
    y_log: bool = False


@dataclass(frozen=True)
class Histogram:
    """Shares of pairs per bin, shape (t, bins), between edges (bins + 1,)."""

    edges: np.ndarray
    shares: np.ndarray
    title: str = "Cosines of pairs"
    label: str = "cos(x_i, x_j)"
    note: str = ""


@dataclass(frozen=True)
class Dendrogram:
    """Merges of n leaves: ids (m, 2) as SciPy's, heights (m,) in the unit of the clock, not decreasing.

    `leaf_of` (tokens,) is each token's leaf. Leaves that are groups of tokens have `leaf_sizes` (n,).
    """

    pairs: np.ndarray
    heights: np.ndarray
    leaf_of: np.ndarray
    n: int
    leaf_sizes: np.ndarray | None = None
    note: str = ""


@dataclass(frozen=True)
class Scene:
    """All that a page shows of a run.

    Attributes:
        title: First line of the page.
        subtitle: Second line: the settings.
        positions: Tokens over time, shape (t, n, 2 or 3), coordinates in [-1, 1].
        clock: Moments of the frames.
        kind: "circle", "sphere", or "axes" of a projection.
        shares: Share of squared length on each axis of a projection.
        space_note: What the axes are.
        tokens: Number of tokens of the run; n if all are here.
        index: Number of each token in the run, shape (n,).
        mass: Weights with mean 1, shape (t, n) or (n,).
        names: A text per token.
    """

    title: str
    subtitle: str
    positions: np.ndarray
    clock: Clock
    kind: Literal["circle", "sphere", "axes"] = "sphere"
    shares: tuple[float, ...] = ()
    space_note: str = ""
    tokens: int = 0
    index: np.ndarray | None = None
    mass: np.ndarray | None = None
    names: tuple[str, ...] = ()
    colors: tuple[Color, ...] = ()
    panels: tuple[Panel, ...] = ()
    histogram: Histogram | None = None
    dendrogram: Dendrogram | None = None
    notes: tuple[str, ...] = ()
