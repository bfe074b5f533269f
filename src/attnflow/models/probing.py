"""A model on a text: every layer's tokens and every head's attention, reduced to numbers as it runs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.errors import check_between, check_finite
from attnflow.models import hidden_states
from attnflow.models.attention import attention_statistics, watching
from attnflow.models.hidden_states import Block, check_states, passing, scheme
from attnflow.models.tokens import EDGES, TINY, gap_, random_rank, token_statistics

if TYPE_CHECKING:
    import torch
    import xarray as xr

HEAD_NUMBERS = (
    "entropy",
    "max_logit",
    "mean_logit",
    "std_logit",
    "participation",
    "own",
    "sink",
    "log_z",
)
STEPS = ("attention", "attention_norm", "mlp", "mlp_norm")


def probe(
    model: Any,
    inputs: dict[str, torch.Tensor],
    *,
    beta: float | None = None,
    blocks: list[Block] | None = None,
    heads: bool = True,
    states: bool = False,
    full: bool = True,
) -> xr.Dataset:
    r"""Statistics of every layer and head of a model on one text, in one forward pass.

    Hooks reduce each block's tokens as it is done, so that memory does not grow with depth; attention is seen
    through its queries and keys, under any kernel. Statistics are in float64.

    Args:
        model: Hugging Face encoder or decoder, or any `torch.nn.Module` with a list of blocks.
        inputs: What it is called with; one text, padding cut off. `attention_mask` of zeros is refused.
        beta: Inverse temperature of energies and clusters; the median over heads by default, else 1.
        blocks: Blocks, if they are not found: `hidden_states.Block`s.
        heads: Whether to measure attention.
        full: Whether to take ranks, clusters and histograms too; without these and heads a probe costs
            little more than the forward pass.
        states: Whether to keep the tokens.

    Returns:
        Over `layer` 0..L (0 is the entry of the first block): what `models.tokens.token_statistics` says, and
        `random_rank`, the effective rank of Gaussian tokens of the shape. Over `block` 1..L: `influence`,
        1 - mean cosine of a token with itself one block on; `turn`, mean angle of the attention step and
        `speed_factor` $|P_\theta a|$ / angle, which is the radius under Pre-LN and 1 under Post-LN; `contraction`
        (step), change of log(1 - rho) by attention, its norm, MLP, and its norm. Over `block` and `head`:
        means over rows of `entropy`, `max_logit` (largest), `mean_logit`, `std_logit`, `participation`, `own`,
        `sink`, `log_z`; `query_norm`, `key_norm`, `head_beta` = scale |q||k|, and `output_cosine`, the mean
        cosine of what the head gives its tokens. `histogram` (layer, bin) of cosines, pairs i < j.

    Raises:
        ValueError: If a state is not finite (the layer is named), or the text has less than 2 tokens.
    """
    import torch
    import xarray as xr

    parts = hidden_states.blocks(model) if blocks is None else blocks
    _check_inputs(inputs)
    if beta is not None:
        check_finite(beta, "beta")
        check_between(beta, "beta", low=0.0, open_low=True)
    seen_heads: list[dict[str, np.ndarray]] = []
    rows: list[dict[str, Any]] = []
    moves: list[dict[str, Any]] = []
    kept: list[np.ndarray] = []
    level = {"beta": beta}

    def see_heads(layer: int, found: dict[str, Any]) -> None:
        seen_heads.append(_head_numbers(found))
        if level["beta"] is None:
            level["beta"] = float(np.median(seen_heads[-1]["head_beta"]).clip(0.5, 200))

    def see_states(layer: int, found: dict[str, Any]) -> None:
        x = {name: value[0] for name, value in found.items()}
        for name in ("before", "after") if layer == 0 else ("after",):
            check_states(layer if name == "before" else layer + 1, x[name])
            rows.append(token_statistics(x[name], beta=level["beta"] or 1.0, full=full))
            if states:
                kept.append(x[name].double().cpu().numpy())
        moves.append(_moves(x, (rows[-2]["gap"], rows[-1]["gap"])))

    with torch.no_grad(), passing(parts, see_states):
        if heads and hasattr(getattr(model, "config", None), "_attn_implementation"):
            with watching(model, see_heads):
                model(**inputs)
        else:
            model(**inputs)
    first = next(model.parameters())
    n, d = rows[0]["n"], rows[0]["d"]
    data: dict[str, Any] = {
        name: ("layer", np.array([row[name] for row in rows]))
        for name in rows[0]
        if name not in ("histogram", "n", "d")
    }
    if full:
        data["histogram"] = (("layer", "bin"), np.stack([row["histogram"] for row in rows]))
    data["influence"] = ("block", np.array([move["influence"] for move in moves]))
    for name in ("turn", "speed_factor"):
        data[name] = ("block", np.array([move[name] for move in moves]))
    data["contraction"] = (("block", "step"), np.array([[m[s] for s in STEPS] for m in moves]))
    if (
        seen_heads
        and len({len(h["entropy"]) for h in seen_heads}) == 1
        and len(seen_heads) == len(parts)
    ):
        for name in seen_heads[0]:
            data[name] = (("block", "head"), np.stack([h[name] for h in seen_heads]))
    if states:
        data["tokens"] = (("layer", "token", "axis"), np.stack(kept))
    coords = {
        "layer": np.arange(len(rows)),
        "block": np.arange(1, len(moves) + 1),
        "step": list(STEPS),
        "bin": (EDGES[1:] + EDGES[:-1]) / 2,
    }
    attrs = {
        "model": type(model).__name__,
        "scheme": scheme(parts[len(parts) // 2]),
        "n": n,
        "d": d,
        "beta": level["beta"] or 1.0,
        "precision": str(first.dtype).removeprefix("torch."),
    } | ({"random_rank": random_rank(n, d)} if full else {})
    return xr.Dataset(data, coords, attrs)


def probe_states(states: list[np.ndarray], *, beta: float = 1.0) -> xr.Dataset:
    """The same numbers of saved hidden states, one (n, d) array per layer; no heads, no branches."""
    import torch
    import xarray as xr

    rows = []
    for layer, state in enumerate(states):
        x = torch.as_tensor(np.asarray(state))
        check_states(layer, x)
        rows.append(token_statistics(x, beta=beta))
    theta = [
        s / np.linalg.norm(s, axis=1, keepdims=True) for s in (np.asarray(s, float) for s in states)
    ]
    influence = [1 - float((a * b).sum(axis=1).mean()) for a, b in pairwise(theta)]
    data: dict[str, Any] = {
        name: ("layer", np.array([row[name] for row in rows]))
        for name in rows[0]
        if name not in ("histogram", "n", "d")
    }
    data["histogram"] = (("layer", "bin"), np.stack([row["histogram"] for row in rows]))
    data["influence"] = ("block", np.array(influence))
    n, d = states[0].shape
    return xr.Dataset(
        data,
        {"layer": np.arange(len(rows)), "block": np.arange(1, len(rows)), "bin": (EDGES[1:] + EDGES[:-1]) / 2},
        {"model": "saved states", "scheme": "unknown", "n": n, "d": d, "beta": beta,
         "precision": str(np.asarray(states[0]).dtype), "random_rank": random_rank(n, d)},
    )  # fmt: skip


def _check_inputs(inputs: dict[str, Any]) -> None:
    """Refuse what holds less than two tokens, several texts, or padding."""
    for name, value in inputs.items():
        if not hasattr(value, "shape"):
            continue
        if value.shape[0] != 1:
            raise ValueError(
                f"Argument `inputs` must hold one text, but {name}.shape={tuple(value.shape)}. Probe one at a time."
            )
        if name == "input_ids" and value.shape[1] < 2:
            raise ValueError(
                f"Argument `inputs` must hold at least 2 tokens, but it holds {value.shape[1]}. Pass a longer text."
            )
        if name == "attention_mask" and not bool((value != 0).all()):
            raise ValueError(
                "Argument `inputs` must hold no padding, but attention_mask has zeros. Tokenize without padding."
            )


def _head_numbers(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Means over rows of every head of one attention call."""
    q, k, output = found["q"][0], found["k"][0], found["output"][0]
    mask = found["mask"]
    stats = attention_statistics(
        q, k, scale=found["scale"], causal=found["causal"], mask=None if mask is None else mask[0]
    )  # fmt: skip
    numbers = {
        name: getattr(stats, name).max(axis=1)
        if name == "max_logit"
        else np.nanmean(getattr(stats, name), axis=1)
        for name in HEAD_NUMBERS
    }
    norms = [part.double().norm(dim=2).mean(dim=1).cpu().numpy() for part in (q, k)]
    keys = np.repeat(norms[1], len(norms[0]) // len(norms[1]))
    theta = output.double()
    theta = theta / theta.norm(dim=2, keepdim=True).clamp_min(1e-300)
    n = len(theta)
    total = theta.sum(dim=0)
    cosine = (((total * total).sum(dim=1) - n) / (n * (n - 1))).cpu().numpy()
    return numbers | {
        "query_norm": norms[0],
        "key_norm": keys,
        "head_beta": found["scale"] * norms[0] * keys,
        "output_cosine": cosine,
    }


def _moves(x: dict[str, Any], gaps: tuple[float, float]) -> dict[str, float]:
    """How a block turns its tokens, and which part of it draws them together; `gaps` at its entry and its end."""
    import torch

    exact = lambda name: x[name].to(torch.float64, copy=True)
    before, step, after = exact("before"), exact("attention"), exact("after")
    radius = before.norm(dim=1).clamp_min(TINY)
    along = torch.linalg.vecdot(before, step) / radius
    across = (step.norm(dim=1) ** 2 - along**2).clamp_min(0).sqrt()
    angle = torch.atan2(across, radius + along)
    kept = torch.linalg.vecdot(before, after) / (radius * after.norm(dim=1).clamp_min(TINY))

    # what is no longer needed is written over: fresh memory costs more than these sums
    middle = before.add_(step)
    entry = step.copy_(x["between"]) if "between" in x else middle
    ended = torch.add(entry, x["mlp"], out=after) if "mlp" in x else None
    path = {"before": gaps[0], "attention": gap_(middle), "mlp_norm": gaps[1]}
    path["attention_norm"] = gap_(entry) if entry is not middle else path["attention"]
    path["mlp"] = path["attention_norm"] if ended is None else gap_(ended)
    levels = [float(np.log(max(path[name], TINY))) for name in ("before", *STEPS)]
    return {name: b - a for name, (a, b) in zip(STEPS, pairwise(levels), strict=True)} | {
        "influence": 1 - float(kept.mean()),
        "turn": float(angle.mean()),
        "speed_factor": float((across / angle.clamp_min(1e-12)).median()),
    }
