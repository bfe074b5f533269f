"""What attention heads do with their tokens: entropy, logits and sinks, row by row, never the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.errors import check_between, check_finite

if TYPE_CHECKING:
    import torch

SCORES_PER_BLOCK = 2**22
"""Scores held at a time: 16 MiB in float32, of which a few copies live."""


@dataclass(frozen=True)
class AttentionStatistics:
    r"""Of every head and row, arrays of shape (heads, n); NaN in rows that no key may answer.

    Attributes:
        log_z: Log-partition of the scores, $\log\sum_je^{s_{ij}}$.
        entropy: Entropy of the row in nats, from 0 (one key) to log of the keys it may see.
        max_logit: Largest score s_ij.
        mean_logit: Mean score over the keys it may see.
        std_logit: Standard deviation of the scores over these keys.
        participation: $1/\sum_jA_{ij}^2$, how many keys it sees, 1 to the number it may see.
        own: Weight of its own token, where queries and keys are the same tokens.
        sink: Weight of the sink keys together.
        keys: Number of keys it may see.
    """

    log_z: np.ndarray
    entropy: np.ndarray
    max_logit: np.ndarray
    mean_logit: np.ndarray
    std_logit: np.ndarray
    participation: np.ndarray
    own: np.ndarray
    sink: np.ndarray
    keys: np.ndarray


def attention_statistics(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    mask: torch.Tensor | None = None,
    sinks: tuple[int, ...] = (0,),
    block: int | None = None,
) -> AttentionStatistics:
    r"""Statistics of softmax attention with scores $s_{ij} = \text{scale}\langle q_i, k_j\rangle$ (plus a mask).

    One pass over blocks of rows, on the device of q: scores in the dtype of q (half precision in float32),
    sums in float64. $H_i = \log Z_i - \sum_jA_{ij}s_{ij}$ and $\sum_jA_{ij}^2 = \sum_je^{2(s_{ij}-\log Z_i)}$.
    O(n m d) time, O(block m) memory: 100 000 tokens need some 200 MB.

    Args:
        q: Queries of the heads, shape (heads, n, d_head).
        k: Keys, shape (key heads, m, d_head); fewer key heads are shared by groups of query heads.
        scale: Factor of the scores; 1/sqrt(d_head) by default.
        causal: Row i sees keys j <= i + m - n.
        mask: Shape (n, m), (1, m) or (heads, n, m): boolean, true where a key may be seen, or numbers added
            to scores.
        sinks: Indices of keys whose weights add up to `sink`.
        block: Rows at a time; chosen from m by default.

    Returns:
        Statistics as NumPy arrays.

    Raises:
        ValueError: If shapes do not fit, or scores are not finite.

    Source:
        The identities of entropy and participation are elementary; no attention matrix is stored.
    """
    import torch

    heads, n, width = _check_shapes(q, k)
    m, groups = k.shape[1], heads // k.shape[0]
    factor = width**-0.5 if scale is None else float(scale)
    check_finite(factor, "scale")
    check_between(list(sinks) or 0, "sinks", low=0, high=m - 1)
    block = block or max(1, SCORES_PER_BLOCK // m)
    found = {field.name: np.full((heads, n), np.nan) for field in fields(AttentionStatistics)}
    dtype = q.dtype if q.dtype == torch.float64 else torch.float32
    with torch.no_grad():
        for head in range(heads):
            keys = k[head // groups].to(dtype).T
            for start in range(0, n, block):
                rows = slice(start, min(start + block, n))
                scores = (q[head, rows].to(dtype) * factor) @ keys
                seen = _masked(scores, head, rows, causal, mask, m - n)
                for name, values in _of_rows(scores, seen, rows, sinks, m - n).items():
                    found[name][head, rows] = values.cpu().numpy()
    if np.isinf(found["max_logit"][found["keys"] > 0]).any():
        raise ValueError(
            "Arguments `q` and `k` must give finite scores, but some overflow. Pass float32."
        )
    return AttentionStatistics(**found)


def _check_shapes(q: Any, k: Any) -> tuple[int, int, int]:
    if q.ndim != 3 or k.ndim != 3 or q.shape[2] != k.shape[2] or q.shape[0] % k.shape[0]:
        raise ValueError(
            "Arguments `q` and `k` must have shapes (heads, n, d_head) and (key heads, m, d_head), key heads "
            f"dividing heads, but q.shape={tuple(q.shape)} and k.shape={tuple(k.shape)}."
        )
    return q.shape


def _masked(scores, head, rows, causal, mask, shift):
    """Forbidden scores to -inf, in place; which keys each row may see, None for all."""
    import torch

    seen = None
    if mask is not None:
        part = mask[head] if mask.ndim == 3 and mask.shape[0] > 1 else mask.reshape(mask.shape[-2:])
        part = part[rows] if part.shape[0] > 1 else part
        if part.dtype == torch.bool:
            seen = part.expand_as(scores)
        else:
            scores += part.to(scores.dtype)
            seen = (part > torch.finfo(part.dtype).min / 2).expand_as(scores)
    if causal:
        i = torch.arange(rows.start, rows.stop, device=scores.device)[:, None] + shift
        below = torch.arange(scores.shape[1], device=scores.device)[None] <= i
        seen = below if seen is None else seen & below
    if seen is not None:
        scores.masked_fill_(~seen, -torch.inf)
    return seen


def _of_rows(scores, seen, rows, sinks, shift) -> dict[str, Any]:
    """Statistics of a block of rows; `scores` is used up."""
    import torch

    wide = torch.float64
    m = scores.shape[1]
    keys = torch.full((len(scores),), float(m), dtype=wide, device=scores.device)
    top = scores.amax(dim=1)
    safe = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    shifted = scores - safe[:, None]
    if seen is None:
        plain = shifted
    else:
        keys = seen.sum(dim=1).to(wide)
        plain = shifted.masked_fill(~seen, 0.0)
    mean = plain.sum(dim=1, dtype=wide) / keys
    square = (plain * plain).sum(dim=1, dtype=wide) / keys
    e = shifted.exp_()
    z = e.sum(dim=1, dtype=wide)
    pull = (plain.mul_(e) if seen is not None else (scores - safe[:, None]).mul_(e)).sum(
        dim=1, dtype=wide
    )
    sink = e[:, list(sinks)].sum(dim=1, dtype=wide) / z
    i = torch.arange(rows.start, rows.stop, device=scores.device) + shift
    own = torch.full_like(z, torch.nan)
    inside = (i >= 0) & (i < m)
    own[inside] = e[inside, i[inside]].to(wide) / z[inside]
    squares = e.mul_(e).sum(dim=1, dtype=wide)
    log_z = z.log() + safe.to(wide)
    found = {
        "log_z": log_z,
        "entropy": (z.log() - pull / z).clamp_min(0.0),
        "max_logit": top.to(wide),
        "mean_logit": mean + safe.to(wide),
        "std_logit": (square - mean * mean).clamp_min(0.0).sqrt(),
        "participation": z * z / squares,
        "own": own,
        "sink": sink,
    }
    empty = keys == 0
    found = {name: values.masked_fill(empty, torch.nan) for name, values in found.items()}
    return found | {"keys": keys}


@contextmanager
def watching(model: Any, see: Callable[[int, dict[str, Any]], None]) -> Iterator[None]:
    """Let `see(layer, heads)` have queries and keys of every attention call of a Hugging Face model.

    Works with any attention implementation (SDPA, flash, eager): what transformers' table of them gives
    is wrapped while the block runs, after positions are rotated in and before keys are repeated. `heads` holds
    `q`, `k`, `v` of shapes (batch, heads, n, d_head), `scale`, `mask`, `causal`, the `module`, and
    `output`, shape (batch, n, heads, d_head).

    Args:
        model: Model whose attention goes through transformers' attention interface.
        see: Called in order of layers, once per call of attention; it must keep nothing it does not need.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    find, inside = ALL_ATTENTION_FUNCTIONS.get_interface, {id(part) for part in model.modules()}
    count = [0]

    def wrap(own: Callable) -> Callable:
        def wrapped(module, query, key, value, attention_mask, **options):
            output = own(module, query, key, value, attention_mask, **options)
            if id(module) not in inside:
                return output
            scale, causal = options.get("scaling"), options.get("is_causal")
            if causal is None:
                causal = bool(getattr(module, "is_causal", False))
            heads = {
                "q": query, "k": key, "v": value, "mask": attention_mask, "module": module,
                "scale": query.shape[-1] ** -0.5 if scale is None else float(scale),
                "causal": causal and attention_mask is None and query.shape[2] > 1, "output": output[0],
            }  # fmt: skip
            see(count[0], heads)
            count[0] += 1
            return output

        return wrapped

    with finding(lambda name, default: wrap(find(name, default))):
        yield


@contextmanager
def finding(find: Callable[[str, Callable], Callable]) -> Iterator[None]:
    """Let `find` answer for transformers' table of attention functions; blocks may nest."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    table: Any = ALL_ATTENTION_FUNCTIONS
    before = vars(table).get("get_interface")
    table.get_interface = find
    try:
        yield
    finally:
        if before is None:
            del table.get_interface
        else:
            table.get_interface = before
