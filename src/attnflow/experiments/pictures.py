"""Files that go with a run's numbers: its figure, and its page where the experiment has one."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def pictures(experiment: ModuleType, data: xr.Dataset) -> dict[str, bytes]:
    """Names and contents of the files."""
    figure = experiment.draw(data)
    files = figure_files(figure)
    if hasattr(experiment, "page"):
        files["report.html"] = experiment.page(data, figure).encode()
    return files


def figure_files(figure: Figure) -> dict[str, bytes]:
    """A figure as figure.png and figure.pdf."""
    files = {}
    for kind in ("png", "pdf"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150)
        files[f"figure.{kind}"] = buffer.getvalue()
    return files


def add_missing(folder: Path, experiment: ModuleType) -> None:
    """Draw what a run lacks: a sweep keeps numbers only. Each file is whole or absent, figure.png last."""
    from attnflow import store

    if (folder / "figure.png").exists():
        return
    files = pictures(experiment, store.load(folder))
    for name in sorted(files, key=lambda name: name == "figure.png"):
        temporary = folder / f".{name}.{os.getpid()}-{time.time_ns():x}"
        try:
            temporary.write_bytes(files[name])
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
