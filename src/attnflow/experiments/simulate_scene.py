"""The page of a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attnflow.view import Histogram, Panel, Scene, Series, clock_of, scene_of_states
from attnflow.view.states import count_panel

if TYPE_CHECKING:
    import xarray as xr

SCALARS = {
    "energy": ("Energy, share of consensus", "energy"),
    "order_parameter": ("Order parameter", "R"),
    "effective_rank": ("Effective rank", "rank"),
}


def scene(data: xr.Dataset) -> Scene | None:
    """Tokens at the saves that kept them, and every number at all saves; None if no tokens were kept."""
    if "tokens" not in data:
        return None
    a, times = data.attrs, data.time.values
    saves = data.state_save.values if "state_save" in data else np.arange(len(times))
    whole = clock_of(times)
    clock = whole.only(saves)
    x = whole.values
    n, pairs = data.sizes["token"], data.histogram.values[saves].astype(float)
    shares = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    rho = [Series("rho", x, data.mean_cosine.values)]
    if np.isfinite(data.predicted_cosine.values).any():
        note = "equiangular tokens of the same start"
        rho.append(Series("theory", x, data.predicted_cosine.values, style="theory", note=note))
    panels = [
        count_panel(x, data.clusters.values),
        Panel("rho", "Mean cosine", "rho", tuple(rho)),
    ]
    for name, (title, label) in SCALARS.items():
        if name in data:
            panels.append(Panel(name, title, label, (Series(name, x, data[name].values),)))
    return scene_of_states(
        clock,
        data.tokens.values,
        labels=data.labels.values,
        histogram=Histogram(data.edges.values, shares),
        panels=panels,
        title=f"{n} tokens ({a['tokens']}), d = {data.sizes['axis']}, {a['flow']}, β = {a['beta']:g}",
        subtitle=f"{a['equation']}, norm scheme {a['norm']}",
        mass=data.weights.values * n if "weights" in data else None,
        notes=[f"Clusters: chains of tokens with cosines of {a['cosine']:g} and more."],
    )
