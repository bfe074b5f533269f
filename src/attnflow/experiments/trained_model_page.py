"""One self-contained HTML page of a probed model: no script, no network."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto }
td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
img { max-width: 100%; background: #fff }
li { list-style: none }
.ok::before { content: "✓ "; color: #009E73 }
.no::before { content: "✗ "; color: #D55E00 }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd } td, th { border-color: #444 } }
"""
COLUMNS = {
    "mean_cosine": ("ρ", ".4f"),
    "centred_cosine": ("centred", ".4f"),
    "masked_cosine": ("masked", ".4f"),
    "effective_rank": ("effective rank", ".1f"),
    "clusters": ("clusters", ".0f"),
    "radius": ("radius", ".3g"),
    "aligned_cosine": ("theory, aligned", ".4f"),
    "random_cosine": ("theory, fresh", ".4f"),
}


def page(data: xr.Dataset, figure: Figure) -> str:
    """HTML of the assumptions, the figure and the table; names and texts are data, never markup."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    encoded = base64.b64encode(picture.getvalue()).decode()
    a = data.attrs
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in COLUMNS.values())
    rows = "".join(
        f"<tr><td>{k}</td>"
        + "".join(f"<td>{float(data[name][k]):{form}}</td>" for name, (_, form) in COLUMNS.items())
        + "</tr>"
        for k in range(data.sizes["layer"])
    )
    holds = "".join(f'<li class="ok">{escape(text)}</li>' for text in a["holds"])
    fails = "".join(f'<li class="no">{escape(text)}</li>' for text in a["fails"])
    title = escape(f"{a['source']} ({a['model']})")
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>{a["n"]} tokens in {a["d"]} dimensions, norm scheme {escape(a["scheme"])}, {escape(a["precision"])}.</p>
<h2>What theory assumes</h2><ul>{holds}{fails}</ul>
<p>Every curve of theory below is to be read with what fails in mind.</p>
<img alt="cosines, ranks, heads and phase diagram by layer" src="data:image/png;base64,{encoded}">
<h2>By layer</h2><div class="wide"><table><tr><th>layer</th>{head}</tr>{rows}</table></div>
<p>ρ: mean cosine over pairs i ≠ j. Centred: after the mean direction is taken off. Masked: without tokens longer than
five medians and dimensions of a hundred times the median power. Effective rank: {a["random_rank"]:.1f} for Gaussian
tokens of this shape. Clusters: groups linked by distances below half a kernel width at β = {a["beta"]:.3g}.</p>
</body></html>
"""
