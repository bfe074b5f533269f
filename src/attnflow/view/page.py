"""A scene as one HTML file that opens from disk: `viewer/FORMAT.md` says what is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from attnflow.view.scene import Color, Dendrogram, Panel, Scene
from attnflow.view.thinning import top_of

FORMAT = 1
SCALES = (32767, 8191, 2047, 511)
"""Steps per unit of a coordinate, finest first: the first with which positions fit into `BUDGET`."""
BUDGET = 9_000_000
"""Bytes of compressed positions beyond which they are stored more coarsely: 12 MB of base64."""
LEVEL = 6
MOST_LEAVES = 2000
MOST_CATEGORIES = 2**16
DELTA = "delta"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src '{style_hash}'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head><body>
<div id="app"></div>
<noscript>This page draws tokens with a script, and scripts are switched off in this browser.</noscript>
<script type="application/json" id="meta">{meta}</script>
<script type="application/octet-stream" id="data">{data}</script>
<script>{script}</script>
</body></html>
"""


def html(scene: Scene) -> str:
    """Page of a scene, with all of its data, style and script inside.

    Positions are rounded to 1/32767, or more coarsely if they would take more than 9 MB compressed; the error is
    measured and stated. Names and labels are JSON in which no markup can begin.

    Raises:
        FileNotFoundError: If the built viewer is not in this installation.
    """
    style, script = _asset("viewer.css"), _asset("viewer.js")
    arrays, meta = _contents(scene)
    meta["arrays"], blob = pack(arrays)
    meta["blob"] = {"encoding": "deflate", "bytes": len(blob)}
    return PAGE.format(
        title=_escaped(scene.title),
        style=style,
        style_hash=_sha256(style),
        script=script,
        script_hash=_sha256(script),
        meta=_json(meta),
        data=base64.b64encode(zlib.compress(blob, LEVEL)).decode(),
    )


def write(text: str, path: Path | str, *, force: bool = False) -> Path:
    """Write a page, whole or not at all.

    Args:
        text: HTML.
        path: File to write.
        force: Whether to replace a file that is there.

    Raises:
        FileExistsError: If there is a file and `force` is not set.
        OSError: If it cannot be written; nothing is left there then.
    """
    from attnflow.store.files import sync, told

    path = Path(path)
    check_page(path, force=force)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        sync(new)
        if force:
            new.replace(path)
        else:
            os.link(new, path)
    except FileExistsError:  # someone else's, since the check
        check_page(path, force=force)
        raise
    except OSError as error:
        raise told(error, f"Page {path} could not be written: {error.strerror}.") from error
    finally:
        new.unlink(missing_ok=True)
    return path


def check_page(
    path: Path | str,
    *,
    force: bool,
    name: str = "path",
    remedy: str = "Pass `force=True` to replace it.",
) -> None:
    """Raise `FileExistsError` or another `OSError`, before any work, unless a page can be written there."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"Argument `{name}` must name a file, but {str(path)!r} is a folder. Add `view.html`."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"Argument `{name}` must be in a folder that exists, but {str(path.parent)!r} does not."
        )
    if os.path.lexists(path) and not force:
        raise FileExistsError(f"Argument `{name}` must be free, but {str(path)!r} exists. {remedy}")


def pack(arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Table of arrays, and their bytes one after another at multiples of 8.

    Of 16-bit arrays over frames it is the differences between frames, low bytes before high bytes, which deflate
    well because tokens move little in a frame.
    """
    table, parts, offset = {}, [], 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        entry: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
        little = array.astype(array.dtype.newbyteorder("<"))
        if array.ndim >= 2 and array.dtype.name in ("int16", "uint16"):
            entry["filter"] = DELTA
            little[1:] -= array[:-1]
            raw = little.reshape(-1).view(np.uint8).reshape(-1, 2).T.tobytes()
        else:
            raw = little.tobytes()
        table[name] = entry | {"offset": offset}
        parts.append(raw + bytes(-len(raw) % 8))
        offset += len(parts[-1])
    return table, b"".join(parts)


def quantized(positions: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Positions as int16, the scale, and the largest error of a coordinate."""
    scale, *coarser = SCALES
    whole = _rounded(positions, scale)
    while coarser and _deflated(whole) > BUDGET:
        scale, *coarser = coarser
        whole = _rounded(positions, scale)
    return whole, scale, float(np.abs(whole / scale - positions).max())


def _rounded(positions: np.ndarray, scale: int) -> np.ndarray:
    return np.rint(positions.clip(-1, 1) * scale).astype(np.int16)


def _deflated(whole: np.ndarray) -> int:
    """Bytes that positions take in a page, before base64."""
    if whole.nbytes <= BUDGET:
        return whole.nbytes
    return len(zlib.compress(pack({"positions": whole})[1], LEVEL))


def _contents(scene: Scene) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and all the rest of a page."""
    from attnflow import __version__

    positions, scale, error = quantized(scene.positions)
    shown, dims = positions.shape[1:]
    arrays: dict[str, np.ndarray] = {"positions": positions, "time": scene.clock.values}
    if scene.mass is not None:
        arrays["mass"] = np.asarray(scene.mass, np.float32)
    if scene.index is not None:
        arrays["index"] = np.asarray(scene.index, np.int32)
    clock = scene.clock
    notes = [*scene.notes, f"Coordinates are rounded to 1/{scale}: off by {error:.1e} at most."]
    meta = {
        "format": FORMAT,
        "title": scene.title,
        "subtitle": scene.subtitle,
        "made_by": f"attnflow {__version__}",
        "notes": notes,
        "space": {
            "kind": scene.kind,
            "dims": dims,
            "variance": list(scene.shares) or None,
            "note": scene.space_note,
        },
        "tokens": {
            "n": scene.tokens or shown,
            "shown": shown,
            "positions": "positions",
            "scale": scale,
            "error": error,
            "mass": "mass" if scene.mass is not None else None,
            "names": list(scene.names) or None,
            "index": "index" if scene.index is not None else None,
        },
        "time": {
            "kind": clock.kind,
            "label": clock.label,
            "array": "time",
            "log": clock.log,
            "zero": clock.zero,
            "ticks": list(clock.ticks) or None,
        },
        "colors": [_color(color, k, arrays) for k, color in enumerate(scene.colors)],
        "panels": [_panel(panel, clock.label, arrays) for panel in scene.panels],
        "histogram": None,
        "dendrogram": None,
    }
    if (histogram := scene.histogram) is not None:
        arrays["histogram.edges"] = np.asarray(histogram.edges, float)
        arrays["histogram.counts"] = np.asarray(histogram.shares, np.float32)
        meta["histogram"] = {
            "title": histogram.title,
            "label": histogram.label,
            "edges": "histogram.edges",
            "counts": "histogram.counts",
            "note": histogram.note,
        }
    if scene.dendrogram is not None and len(scene.dendrogram.pairs):
        meta["dendrogram"] = _dendrogram(top_of(scene.dendrogram, MOST_LEAVES), arrays)
    return arrays, meta


def _color(color: Color, k: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    name, values = f"color{k}", np.asarray(color.values)
    entry: dict[str, Any] = {"name": color.name, "kind": color.kind, "array": name}
    if color.kind == "number":
        arrays[name] = values.astype(np.float32)
        return entry | {"unit": color.unit}
    arrays[name] = values.clip(0, MOST_CATEGORIES - 1).astype(np.uint16)
    return entry | {"labels": list(color.labels[:MOST_CATEGORIES]) or None}


def _panel(panel: Panel, x_label: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    series = []
    for k, one in enumerate(panel.series):
        names = {axis: f"{panel.id}{k}.{axis}" for axis in "xy"}
        arrays[names["x"]] = np.asarray(one.x, float)
        arrays[names["y"]] = np.asarray(one.y, float)
        series.append(
            {"name": one.name, **names, "style": one.style, "step": one.step, "note": one.note}
        )
    return {
        "id": panel.id,
        "title": panel.title,
        "x_label": x_label,
        "y_label": panel.y_label,
        "y_log": panel.y_log,
        "series": series,
    }


def _dendrogram(tree: Dendrogram, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from attnflow.plot.forest import leaf_order

    sizes = np.ones(tree.n, int) if tree.leaf_sizes is None else tree.leaf_sizes
    size = np.concatenate([sizes, np.zeros(len(tree.pairs), int)])
    for k, pair in enumerate(tree.pairs):
        size[tree.n + k] = size[pair].sum()
    parts = {
        "left": tree.pairs[:, 0],
        "right": tree.pairs[:, 1],
        "size": size[tree.n :],
        "leaves": leaf_order(tree.pairs, tree.n),
        "leaf_of": tree.leaf_of,
    }
    if tree.leaf_sizes is not None:
        parts["leaf_sizes"] = tree.leaf_sizes
    arrays |= {f"tree.{name}": np.asarray(values, np.int32) for name, values in parts.items()}
    arrays["tree.height"] = np.asarray(tree.heights, float)
    names = {name: f"tree.{name}" for name in (*parts, "height")}
    return {"n": tree.n, "note": tree.note, "leaf_sizes": None} | names


def _asset(name: str) -> str:
    """Built part of the viewer."""
    try:
        text = (resources.files("attnflow.view") / "assets" / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Part `{name}` of the viewer is not in this installation. Build it: see viewer/README.md."
        ) from None
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: Any) -> str:
    """JSON of ASCII in which no markup can begin."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _escaped(text: str) -> str:
    from html import escape

    return escape(text.encode("utf-8", "replace").decode())
