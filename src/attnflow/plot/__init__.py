"""Figures: each function takes numbers and `ax`, returns `ax`, and never saves or shows."""

from attnflow.plot.animation import animate, save_animation
from attnflow.plot.bifurcation import bifurcation
from attnflow.plot.curves import band, cluster_curve, cosine_curve, decay_curve, energy_curve
from attnflow.plot.dendrogram import dendrogram
from attnflow.plot.density import density_heatmap, density_map, growth_spectrum
from attnflow.plot.histograms import cosine_heatmap, cosine_histograms
from attnflow.plot.images import image_grid
from attnflow.plot.phase import phase_map
from attnflow.plot.river import river
from attnflow.plot.staircase import staircase
from attnflow.plot.strip import strip
from attnflow.plot.style import CATEGORICAL, INK, SEQUENTIAL, category_colors, panels, style
from attnflow.plot.tables import table
from attnflow.plot.tokens import tokens, tokens_on_circle, tokens_on_sphere, tokens_projected

__all__ = [
    "CATEGORICAL",
    "INK",
    "SEQUENTIAL",
    "animate",
    "band",
    "bifurcation",
    "category_colors",
    "cluster_curve",
    "cosine_curve",
    "cosine_heatmap",
    "cosine_histograms",
    "decay_curve",
    "dendrogram",
    "density_heatmap",
    "density_map",
    "energy_curve",
    "growth_spectrum",
    "image_grid",
    "panels",
    "phase_map",
    "river",
    "save_animation",
    "staircase",
    "strip",
    "style",
    "table",
    "tokens",
    "tokens_on_circle",
    "tokens_on_sphere",
    "tokens_projected",
]
