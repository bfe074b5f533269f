"""The page of a probed model: what a run keeps of its states, and the scene made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.view import Color, Histogram, Panel, Scene, Series, layer_clock
from attnflow.view.states import count_panel, lasting, place

if TYPE_CHECKING:
    import xarray as xr


def kept_states(xs: np.ndarray, words: Sequence[str], beta: float) -> dict[str, Any]:
    """What is kept of hidden states, shape (layer, n, d): little beside them, enough for the page.

    Returns:
        `positions` (layer, token, component): directions on the principal axes of all layers; `share` (component) of
        squared length on them; `token_labels` (layer, token): clusters linked by distances below 1/(2 sqrt(beta)), as
        `clusters` counts; `token_radius` (layer, token); `word` (token).
    """
    from attnflow.analysis.clusters import cluster_labels

    radius = np.linalg.norm(xs, axis=-1)
    theta = xs / np.maximum(radius, np.finfo(float).tiny)[..., None]
    moving = radius.min() > 0  # a zero state has no direction: then there is no picture
    if not moving or theta.shape[-1] < 2:
        return {}
    positions, space = place(theta)
    labels = np.stack(
        [cluster_labels(frame, cosine=1 - 1 / (8 * max(beta, 0.1))) for frame in theta]
    )
    token = ("layer", "token")
    kept = {
        "positions": ((*token, "component"), positions.astype(np.float32)),
        "token_labels": (token, labels.astype(np.int32)),
        "token_radius": (token, radius.astype(np.float32)),
    }
    if "shares" in space:
        kept["share"] = ("component", np.array(space["shares"]))
    return kept | ({"word": ("token", list(words))} if len(words) else {})


def scene(data: xr.Dataset) -> Scene | None:
    """Tokens by layer with their words, cosines beside theory, ranks; None for a run that kept no positions."""
    if "positions" not in data:
        return None
    a, x = data.attrs, data.layer.values.astype(float)
    n, d = a["n"], a["d"]
    shares = tuple(data.share.values.tolist()) if "share" in data else ()
    note = (
        f"Directions x/|x| on principal axes 1 to {len(shares)} of {d}, of all layers pooled and not centred; "
        f"they hold {sum(shares):.1%} of the squared length. What is missing to length 1 is on other axes."
    )
    rho = [
        Series("rho", x, data.mean_cosine.values),
        Series("centred", x, data.centred_cosine.values, note="after the mean is taken off"),
        Series("aligned", x, data.aligned_cosine.values, style="theory", note="Q = K = V = I"),
        Series("fresh", x, data.random_cosine.values, style="theory", note="fresh random weights"),
    ]
    counts = data.histogram.values.astype(float)
    middles = data.bin.values
    half = (middles[1] - middles[0]) / 2
    edges = np.append(middles - half, middles[-1] + half)
    rank = Series("effective rank", x, data.effective_rank.values)
    energy = Series("energy", x, data.energy.values)
    return Scene(
        title=f"{a['source']} ({a['model']})",
        subtitle=f"{n} tokens in {d} dimensions, norm scheme {a['scheme']}",
        positions=data.positions.values,
        clock=layer_clock(data.sizes["layer"]),
        kind="axes" if shares else ("circle", "sphere")[data.sizes["component"] - 2],
        shares=shares,
        space_note=note if shares else "Directions x/|x|.",
        names=tuple(str(word) for word in data.word.values) if "word" in data else (),
        colors=(
            Color("cluster", lasting(data.token_labels.values)),
            Color("place in the text", np.arange(float(n))),
            Color("length |x|", data.token_radius.values),
        ),
        panels=(
            Panel("rho", "Mean cosine", "rho", tuple(rho)),
            count_panel(x, data.clusters.values),
            Panel("rank", "Effective rank", "rank", (rank,)),
            Panel("energy", "Energy, share of consensus", "energy", (energy,)),
        ),
        histogram=Histogram(edges, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)),
        notes=(
            f"Clusters: chains of tokens nearer than 1/(2 sqrt(beta)), beta = {a['beta']:.3g}.",
            "Theory is for one set of weights and no MLP; the report of the run says what fails of it.",
        ),
    )
