"""Three ways to see tokens on paper: the circle, the globe, and two principal axes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from attnflow.plot.style import MUTED

GLOBE = "#EEF1F5"


class View(NamedTuple):
    """How tokens become points on paper."""

    project: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Tokens (..., d) to places (..., 2) and depths (...), from -1 (far) to 1 (near)."""
    frame: Callable[[Axes], None]
    """Draws what surrounds the tokens, and sets the limits."""
    inward: float = 0.0
    """How far the oldest point of a tail moves toward the centre, so that paths do not overlap."""


def circle() -> View:
    """The unit circle itself, d = 2."""
    return View(lambda x: (x, np.ones(x.shape[:-1])), _ring, inward=0.4)


def globe(elevation: float, azimuth: float) -> View:
    """The sphere from far away (orthographic), d = 3, the viewer's direction in degrees."""
    e, a = np.radians([elevation, azimuth])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.array([-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)])
    toward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])

    def project(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x @ np.stack([right, up], axis=-1), x @ toward

    def frame(ax: Axes) -> None:
        _ball(ax)
        _graticule(ax, project)

    return View(project, frame)


def principal(x: np.ndarray) -> View:
    """The two directions of largest variance of x, (n, d); d >= 2."""
    centre = x.mean(axis=0)
    _, scales, axes = np.linalg.svd(x - centre, full_matrices=False)
    plane = np.zeros((2, x.shape[1]))
    plane[: len(axes)] = axes[:2]
    largest = np.abs(plane).argmax(axis=1)
    plane *= np.where(plane[[0, 1], largest] < 0, -1.0, 1.0)[:, None]
    variances = np.append(scales**2, 0.0)
    shares = variances[:2] / max(variances.sum(), np.finfo(float).tiny)

    def project(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x - centre) @ plane.T, np.ones(x.shape[:-1])

    def frame(ax: Axes) -> None:
        places = project(x)[0]
        low, high = places.min(axis=0), places.max(axis=0)
        middle, half = (low + high) / 2, 0.56 * max((high - low).max(), 1e-3)
        ax.set(
            aspect="equal",
            xlim=(middle[0] - half, middle[0] + half),
            ylim=(middle[1] - half, middle[1] + half),
            xlabel=f"principal axis 1 ({shares[0]:.0%} of variance)",
            ylabel=f"principal axis 2 ({shares[1]:.0%} of variance)",
        )

    return View(project, frame)


def _disc_limits(ax: Axes) -> None:
    ax.set(aspect="equal", xlim=(-1.12, 1.12), ylim=(-1.12, 1.12))
    ax.set_axis_off()


def _ring(ax: Axes) -> None:
    ax.add_patch(Circle((0, 0), 1, facecolor="none", edgecolor="#C5CAD1", linewidth=1.2, zorder=1))
    _disc_limits(ax)


def _ball(ax: Axes) -> None:
    """A disc shaded as a matt ball lit from the upper left."""
    grid = np.linspace(-1, 1, 256)
    right, up = np.meshgrid(grid, grid)
    toward = np.sqrt(np.clip(1 - right**2 - up**2, 0, None))
    light = np.clip(-0.45 * right + 0.55 * up + 0.70 * toward, 0, None)
    shade = 0.80 + 0.19 * light
    tint = np.stack([shade, shade + 0.008, np.clip(shade + 0.022, 0, 1)], axis=-1)
    disc = Circle((0, 0), 1, facecolor="none", edgecolor="#AEB4BD", linewidth=0.9, zorder=2)
    ax.add_patch(disc)
    image = ax.imshow(
        np.clip(tint, 0, 1),
        extent=(-1, 1, -1, 1),
        origin="lower",
        interpolation="bilinear",
        zorder=0,
    )
    image.set_clip_path(disc)
    _disc_limits(ax)


def _graticule(ax: Axes, project: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    """Meridians and parallels every 30 degrees, the far side fainter."""
    turn = np.linspace(0, 2 * np.pi, 181)
    parallels = [
        np.stack(
            [np.cos(b) * np.cos(turn), np.cos(b) * np.sin(turn), np.full_like(turn, np.sin(b))]
        )
        for b in np.radians([-60, -30, 0, 30, 60])
    ]
    meridians = [
        np.stack([np.cos(turn) * np.cos(a), np.cos(turn) * np.sin(a), np.sin(turn)])
        for a in np.radians(np.arange(0, 180, 30))
    ]
    places, depths = project(np.stack(parallels + meridians).swapaxes(1, 2))
    segments = np.stack([places[:, :-1], places[:, 1:]], axis=2).reshape(-1, 2, 2)
    near = (depths[:, :-1] + depths[:, 1:]).ravel() > 0
    for side, alpha in ((~near, 0.16), (near, 0.42)):
        ax.add_collection(
            LineCollection(
                list(segments[side]), colors=MUTED, linewidths=0.6, alpha=alpha, zorder=1
            ),
            autolim=False,
        )
