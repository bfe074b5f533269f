"""Densities: over time on the circle, on a Mollweide map of the sphere, and the growth of their modes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from attnflow.errors import check_finite
from attnflow.plot.shapes import read, read_times
from attnflow.plot.style import CATEGORICAL, INK, MUTED, SEQUENTIAL, new_axes, style


@style()
def density_heatmap(
    ts: ArrayLike,
    theta: ArrayLike,
    density: ArrayLike,
    *,
    floor: float | int = 0.1,
    ceiling: float | int | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Density on the circle (logarithmic colour) over time (across) and angle (up).

    Args:
        ts: Increasing times, shape (t,), t >= 2.
        theta: Increasing angles in radians, shape (m,), m >= 2.
        density: Density relative to uniform, >= 0, shape (t, m).
        floor: Density at the dark end of the colours, > 0; what is below has the same colour.
        ceiling: Density at the bright end; its maximum by default.
        colorbar: Draw the colour bar.
        ax: Axes to draw on. `None` makes a new figure.
    """
    ts, theta = read_times(ts), read_times(theta, "theta")
    density = read("density", density, t=len(ts), m=len(theta))
    check_finite(density.ravel(), "density")
    ax = ax or new_axes(6.4, 4.0)
    top = float(max(density.max(), 2 * floor) if ceiling is None else ceiling)
    mesh = ax.pcolormesh(
        ts, theta, np.clip(density, floor, top).T, cmap=SEQUENTIAL, shading="nearest",
        norm=LogNorm(floor, top), rasterized=True,
    )  # fmt: skip
    ax.set(xlabel="time t", ylabel=r"angle $\theta$", xlim=(ts[0], ts[-1]))
    ax.set_ylim(theta[0], theta[-1])
    ax.set_yticks(*_angle_ticks(theta))
    if colorbar:
        _bar(ax, mesh, "density (uniform: 1)")
    return ax


@style()
def density_map(
    heights: ArrayLike,
    longitudes: ArrayLike,
    density: ArrayLike,
    *,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Density on S² (colour) in Mollweide's projection, which keeps areas; north is up.

    Args:
        heights: Increasing heights z = cos(colatitude) in (-1, 1), shape (q,).
        longitudes: Increasing longitudes from 0 to below 2 pi, shape (m,).
        density: Density relative to uniform, shape (q, m).
        colorbar: Draw the colour bar.
        ax: Axes to draw on. `None` makes a new figure.
    """
    heights, longitudes = read_times(heights, "heights"), read_times(longitudes, "longitudes")
    density = read("density", density, q=len(heights), m=len(longitudes))
    check_finite(density.ravel(), "density")
    ax = ax or new_axes(6.4, 3.4)
    edges = np.concatenate([[-1], (heights[1:] + heights[:-1]) / 2, [1]])
    step = 2 * np.pi / len(longitudes)
    turns = np.concatenate([longitudes - step / 2, [longitudes[-1] + step / 2]]) - np.pi
    turns = turns - turns.mean()
    across, up = mollweide(*np.meshgrid(turns, edges))
    mesh = ax.pcolormesh(across, up, density, cmap=SEQUENTIAL, rasterized=True, shading="flat",
                         norm=Normalize(min(0.0, density.min()), density.max()))  # fmt: skip
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(2 * np.sqrt(2) * np.cos(angle), np.sqrt(2) * np.sin(angle), color=MUTED, linewidth=1)
    for z in (-0.5, 0, 0.5):
        ax.plot(*mollweide(np.array([-np.pi, np.pi]), np.full(2, z)), color="white", linewidth=0.4)
    ax.set(aspect="equal", xlim=(-2.9, 2.9), ylim=(-1.48, 1.48))
    ax.axis("off")
    if colorbar:
        _bar(ax, mesh, "density (uniform: 1)", shrink=0.8)
    return ax


@style()
def growth_spectrum(
    degrees: ArrayLike,
    rates: ArrayLike,
    *,
    measured: ArrayLike | None = None,
    label: str = "theory",
    color: str = INK,
    ax: Axes | None = None,
) -> Axes:
    """Growth rate of each mode of the uniform density, the fastest marked; measured rates as dots.

    Args:
        degrees: Increasing degrees, shape (l,).
        rates: Predicted rates, shape (l,).
        measured: Measured rates, shape (l,); NaN where there is none.
        label: Name of the prediction in the legend.
        color: Colour of the prediction.
        ax: Axes to draw on. `None` makes a new figure.
    """
    degrees = read("degrees", degrees, l=None)
    rates = read("rates", rates, l=len(degrees))
    ax = ax or new_axes(5.0, 4.0)
    ax.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
    ax.plot(degrees, rates, "--", color=color, linewidth=1.2, label=label, zorder=1)
    if measured is not None:
        seen = read("measured", measured, l=len(degrees))
        ax.plot(degrees, seen, "o", color=CATEGORICAL[0], label="measured", zorder=3)
    top = int(rates.argmax())
    ax.plot(
        degrees[top], rates[top], "o", markersize=11, markerfacecolor="none",
        markeredgecolor=CATEGORICAL[1], label=f"fastest: l = {int(degrees[top])}", zorder=2,
    )  # fmt: skip
    ax.set(xlabel="degree l", ylabel=r"growth rate $\lambda_l$")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best")
    return ax


def mollweide(longitude: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mollweide's plane coordinates of longitudes in [-pi, pi] and heights z = sin(latitude).

    $(\frac{2\sqrt2}\pi\lambda\cos\psi, \sqrt2\sin\psi)$ with $2\psi+\sin2\psi = \pi z$.
    """
    size = np.abs(height)
    psi = np.pi / 2 - np.cbrt(3 * np.pi / 4 * (1 - size))
    for _ in range(8):
        slope = np.maximum(2 + 2 * np.cos(2 * psi), 1e-12)
        psi = np.clip(psi - (2 * psi + np.sin(2 * psi) - np.pi * size) / slope, 0, np.pi / 2)
    psi = np.copysign(np.where(size == 1, np.pi / 2, psi), height)
    return 2 * np.sqrt(2) / np.pi * longitude * np.cos(psi), np.sqrt(2) * np.sin(psi)


def _angle_ticks(theta: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Ticks at quarter turns within reach."""
    names = {
        -4: "−2π",
        -3: "−3π/2",
        -2: "−π",
        -1: "−π/2",
        0: "0",
        1: "π/2",
        2: "π",
        3: "3π/2",
        4: "2π",
    }
    low, high = theta[0] - 0.1, theta[-1] + 0.1
    kept = [k for k in names if low <= k * np.pi / 2 <= high]
    return np.array(kept) * np.pi / 2, [names[k] for k in kept]


def _bar(ax: Axes, mesh, label: str, shrink: float = 1.0) -> None:
    bar = ax.figure.colorbar(mesh, ax=ax, label=label, shrink=shrink)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
