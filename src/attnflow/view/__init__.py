"""One self-contained HTML page per run: a Scene of arrays, and the page that shows it."""

from attnflow.view.merges import scene_of_tree
from attnflow.view.page import check_page, html, write
from attnflow.view.scene import (
    Clock,
    Color,
    Dendrogram,
    Histogram,
    Panel,
    Scene,
    Series,
    clock_of,
    layer_clock,
)
from attnflow.view.states import scene_of_states
from attnflow.view.thinning import thinned
from attnflow.view.trajectories import scene_of_trajectory

__all__ = [
    "Clock",
    "Color",
    "Dendrogram",
    "Histogram",
    "Panel",
    "Scene",
    "Series",
    "check_page",
    "clock_of",
    "html",
    "layer_clock",
    "scene_of_states",
    "scene_of_trajectory",
    "scene_of_tree",
    "thinned",
    "write",
]
