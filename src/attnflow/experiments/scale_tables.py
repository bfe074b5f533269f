"""Tables of the scale advisor: heads now, factors of every rule, and the scaled model measured again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


def tables(data: xr.Dataset) -> str:
    """Heads by layer, factors by length, and predictions beside what was measured."""
    a = data.attrs
    lines = [
        f"{a['model']}, heads measured at n0 = {a['n0']} tokens; means over heads of a layer",
        "",
        f"{'layer':>5}{'sharing keys':>14}{'lead':>8}{'gamma':>8}{'rho':>8}{'cosine':>9}{'predicted':>11}",
    ]
    for layer in data.layer.values:
        row = data.sel(layer=layer)
        cells = (
            f"{float(row[name].mean()):>{width}.{digits}f}"
            for name, width, digits in (
                ("participation", 14, 1), ("lead", 8, 2), ("gamma", 8, 3), ("rho", 8, 3),
                ("measured", 9, 3), ("cosine", 11, 3),
            )
        )  # fmt: skip
        lines.append(f"{layer:>5}" + "".join(cells))
    off = np.abs(data.measured - data.cosine)
    lines += [
        "",
        f"Predicted is the equiangular head with its lead and rho; it is off by {float(off.mean()):.3f} in the mean",
        f"and {float(off.max()):.3f} at most: heads of trained models are not equiangular.",
        "",
        "Factor of the logits that keeps the cosine of outputs at its value at n0, mean over heads",
        f"{'n':>8}{'as n0':>9}{'lead grows':>12}{'one for all':>13}"
        + "".join(f"{rule:>10}" for rule in data.rule.values)
        + (f"{'its own':>10}" if a["own_rules"] else "")
        + f"{'cosine left alone':>19}",
    ]
    for j, n in enumerate(data.length.values):
        fixed, growing = (float(data.factor.sel(law=law)[j].mean()) for law in data.law.values)
        published = "".join(f"{float(v):>10.3f}" for v in data.rules[:, j])
        alone = float(data.cosine_at.sel(law="growing")[j].mean())
        own = f"{float(data.own[j].mean()):>10.3f}" if a["own_rules"] else ""
        lines.append(
            f"{n:>8}{fixed:>9.3f}{growing:>12.3f}{float(data.one_factor[j]):>13.3f}{published}{own}{alone:>19.3f}"
        )
    lines += [
        "",
        "as n0: a head's lead stays; lead grows: as it did from half of the text to all of it.",
        f"The model itself applies: {a['own_rules'] or 'no rule of the length that is known here'}.",
    ]
    if a["own_rules"]:
        lines += [
            "Factors come on top of its own rule, which the last column but one gives over n0."
        ]
    if (data.length < a["n0"]).any():
        lines += [
            f"Lengths below n0 = {a['n0']} are shorter texts: there the cosine at n0 is restored."
        ]
    if a["causal"]:
        lines += ["Causal: rows count that see at least half of the keys."]
    if "applied" in data:
        lines += [*_applied(data)]
    return "\n".join(lines)


def _applied(data: xr.Dataset) -> list[str]:
    """Predicted and measured cosines of the scaled model."""
    lines = ["", "Scaled and measured again: mean cosine of outputs, predicted / measured"]
    lines.append(f"{'n':>8}" + "".join(f"{name:>19}" for name in data.logits.values))
    for n in data.length.values:
        row = data.sel(length=n)
        if not np.isfinite(row.applied).all():
            lines.append(f"{n:>8}   the text or the model is too short")
            continue
        pairs = (
            f"{float(row.expected.sel(logits=name).mean()):>10.3f} / {float(row.applied.sel(logits=name).mean()):.3f} "
            for name in data.logits.values
        )
        lines.append(f"{n:>8}" + "".join(f"{pair:>19}" for pair in pairs))
    return lines


def plain(values: Any) -> Any:
    """Nested lists, null for what is not finite."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [plain(value) for value in values]
    value = values.item() if hasattr(values, "item") else values
    return None if isinstance(value, float) and not np.isfinite(value) else value
