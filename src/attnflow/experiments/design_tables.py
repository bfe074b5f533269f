"""Answer and tables of the design in words, from its numbers alone."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from attnflow.experiments.design import usual_beta

if TYPE_CHECKING:
    import xarray as xr

LIMITS = ("init", "aligned")
VERDICTS = (
    "COLLAPSES: fresh weights reach rho_max within the layers. WATCH: aligned heads do, or fresh ones "
    "within twice the layers. OK: neither."
)
ASSUMED = (
    "beta: logit of a token with itself, queries and keys of length sqrt(head dimension) as after QK-norm.",
    "Fresh weights: random attention and MLP, to O(1/sqrt(width)) [theory.random_weights].",
    "Aligned heads: Q = K = V = I, no MLP: the worst case, where beta matters [theory.normalization].",
    "Both: full attention, one cosine for all pairs of tokens, step 1. Causal masks and trained weights",
    "differ: measure them. rho counts what all tokens share, such as the mean that GELU adds.",
)


def verdict(one: xr.Dataset) -> str:
    """Word for one norm scheme: COLLAPSES, WATCH or OK, by its budgets."""
    layers = one.attrs["layers"]
    if one.budget_init <= layers:
        return "COLLAPSES"
    return "WATCH" if one.budget_aligned <= layers or one.budget_init < 2 * layers else "OK"


def regime(data: xr.Dataset) -> str:
    """Word for one layer at this scale: by the weight of a token on itself, 0.1 to 0.9 is CRITICAL."""
    weight = float(data.self_weight)
    if weight < 0.1:
        return "AVERAGES"
    return "CRITICAL" if weight <= 0.9 else "KEEPS TOKENS APART"


def tables(data: xr.Dataset) -> str:
    """Tables: the answer, every norm scheme, the scale over the context, and what was assumed."""
    a = data.attrs
    wanted = ", ".join(
        f"{c:g}: {beta:.2f}"
        for c, beta in zip(data.wanted.values, data.wanted_beta.values, strict=True)
        if np.isfinite(beta)
    )
    return "\n".join(
        [
            f"{name_of(data)}: {verdict(data.sel(norm=a['norm']))}",
            "",
            *(f"{label:<19}{text}" for label, text in answer(data)),
            "",
            f"Every norm; cosine after {a['layers']} layers, and layers until {a['rho_max']:g} (x depth):",
            *_aligned_rows(*norm_table(data)),
            "",
            "Logit scale over the context: beta of one layer, of all layers, and the larger",
            *_aligned_rows(*context_table(data)),
            f"beta for an output cosine of one attention layer: {wanted} [theory.long_context]",
            "",
            *textwrap.wrap(VERDICTS, 100),
            *ASSUMED,
            *_measured_lines(data),
        ]
    )


def answer(data: xr.Dataset) -> list[tuple[str, str]]:
    """The answer: labels and sentences."""
    a, here = data.attrs, data.sel(context=data.attrs["context"])
    beta, log_n, size = a["beta"], np.log(a["context"]), a["width"] // a["heads"]
    best, usual = float(here.recommended_beta), usual_beta(a["width"], a["heads"])
    attention, block = data.cosine.values
    rows = []
    for label, limit in (("Fresh weights", "init"), ("Aligned heads", "aligned")):
        one = data.sel(norm=a["norm"])
        last = 1 - float(one[f"gap_{limit}"][-1])
        rows.append(
            (label, f"cosine {last:.3f} after layer {a['layers']}; layers until {a['rho_max']:g}: "
             f"{_budget(one, limit)}")
        )  # fmt: skip
    room = np.minimum(data.budget_init, data.budget_aligned) / a["layers"]
    by_room = data.norm.values[np.argsort(-room.values, kind="stable")]
    return [
        *rows,
        ("Norms, most room", ", ".join(by_room)),
        (
            "Logit scale now",
            f"beta = {beta:.4g}, gamma = {beta / log_n:.3f}: {regime(data)} "
            f"(a token weighs itself {float(data.self_weight):.0%})",
        ),
        (
            "One layer",
            f"turns cosine {a['rho0']:g} into {attention:.3f}, with its residual into {block:.3f}",
        ),
        (
            "Recommended",
            f"beta >= {best:.4g}, gamma = {best / log_n:.3f}: "
            f"multiply logits q·k/sqrt({size}) by {best / usual:.2f}",
        ),
        (
            "because",
            f"{a['layers']} aligned layers need {float(here.layers_beta):.4g}; "
            f"one layer is critical at log n/(1-rho0) = {float(here.critical_beta):.4g}",
        ),
    ]


def name_of(data: xr.Dataset) -> str:
    """The design in words."""
    a = data.attrs
    mlp = "no MLP" if a["activation"] == "none" else f"MLP {a['activation']}"
    return (
        f"{a['layers']} layers, width {a['width']}, {a['heads']} heads, context {a['context']}, "
        f"norm {a['norm']}, {mlp}"
    )


def _budget(one: xr.Dataset, limit: str) -> str:
    """Layers until rho_max, and in depths."""
    layers, count = one.attrs["layers"], float(one[f"budget_{limit}"])
    if np.isfinite(count):
        return f"{count:.0f} ({_depths(count / layers)})"
    horizon = one.attrs[f"horizon_{limit}"]
    return f"> {horizon} (> {_depths(horizon / layers)})"


def _depths(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.0f}x"


def norm_table(data: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of every norm scheme, the chosen one marked."""
    a, rows = data.attrs, []
    usual = usual_beta(a["width"], a["heads"])
    for norm in data.norm.values:
        one = data.sel(norm=norm)
        cells = [
            c for k in LIMITS for c in (f"{1 - float(one[f'gap_{k}'][-1]):.3f}", _budget(one, k))
        ]
        need = float(one.needed_beta)
        mark = " <" if norm == a["norm"] else ""
        scale = (f"{need:.2f}", f"{need / usual:.2f}") if need > 0 else ("any", "any")
        rows.append([norm + mark, *cells, *scale, verdict(one)])
    columns = [
        "norm",
        "fresh rho",
        "layers",
        "aligned rho",
        "layers",
        "least beta",
        "factor",
        "verdict",
    ]
    return columns, rows


def context_table(data: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the scale over the context, the chosen one marked."""
    a, rows = data.attrs, []
    usual = usual_beta(a["width"], a["heads"])
    for n in data.context.values:
        one = data.sel(context=n)
        best = float(one.recommended_beta)
        mark = " <" if n == a["context"] else ""
        rows.append([
            f"{n}{mark}", f"{float(one.critical_beta):.2f}", f"{float(one.layers_beta):.2f}",
            f"{best:.2f}", f"{best / np.log(n):.3f}", f"{best / usual:.2f}",
        ])  # fmt: skip
    return ["context", "critical", "layers", "beta", "gamma", "factor"], rows


def _aligned_rows(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    return [
        f"{row[0]:<{widths[0]}}" + "".join(f"  {x:>{w}}" for x, w in zip(row[1:], widths[1:], strict=True))
        for row in [columns, *rows]
    ]  # fmt: skip


def _measured_lines(data: xr.Dataset) -> list[str]:
    """The real Transformer beside its theory."""
    if "measured" not in data:
        return []
    a, last = data.attrs, data.isel(small_layer=-1)
    return [
        f"Measured, width {a['small_width']}, {a['small_context']} tokens, layer {data.sizes['small_layer'] - 1}: "
        f"{float(last.measured):.3f} ± {float(last.measured_error):.3f}, theory {float(last.measured_theory):.3f}"
    ]
