"""Pictures of the gallery: figures of `attnflow.plot` belong to no window system, so pyplot knows none."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def keep_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save every figure a block of a gallery script has named, once: an `image_scrapers` entry."""
    images = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not getattr(value, "kept", False):
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=120, bbox_inches="tight")
            value.kept = True  # pyright: ignore[reportAttributeAccessIssue]
            images.append(path)
    return figure_rst(images, gallery_conf["src_dir"])
