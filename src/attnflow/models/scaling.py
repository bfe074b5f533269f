"""Logits of a Hugging Face model times a factor per head, and what its heads then do with a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from attnflow.errors import check_count, check_finite
from attnflow.models.attention import attention_statistics, finding, watching


@contextmanager
def scaled(model: Any, factors: Any) -> Iterator[Any]:
    r"""Multiply the logits of a model's attention by factors while the block runs.

    Queries are multiplied inside transformers' attention interface, after norms and rotation, so any
    implementation (SDPA, flash, eager) sees them, and no weight changes. Other models stay as they are. `watching`
    sees the scaled queries if its block is around this one.

    Args:
        model: Model whose attention goes through transformers' attention interface.
        factors: One number, or numbers of shape (layers,) or (layers, heads), finite.

    Yields:
        The model.

    Raises:
        ValueError: If the factors have another shape or are not finite.
    """
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    layers, heads = _sizes(model)
    table = _factors(factors, layers, heads)
    find = ALL_ATTENTION_FUNCTIONS.get_interface
    mine = {id(module) for module in model.modules()}
    calls = 0

    def wrap(own: Callable) -> Callable:
        def wrapped(module, query, *others, **options):
            nonlocal calls
            if id(module) in mine:
                layer = getattr(module, "layer_idx", None)
                layer = calls % layers if layer is None else layer
                calls += 1
                factor = torch.as_tensor(table[layer], dtype=query.dtype, device=query.device)
                query = (query * factor[:, None, None]).contiguous()
            return own(module, query, *others, **options)

        return wrapped

    with finding(lambda name, default: wrap(find(name, default))):
        yield model


@dataclass(frozen=True)
class HeadMeasurement:
    r"""What each head does with one text, arrays of shape (layers, heads).

    Rows count that see at least half of the keys, so that the second half of a causal text speaks for its length.

    Attributes:
        participation: Number of keys that share the weight, $1/\langle\sum_jA_{ij}^2\rangle$ over rows, each
            sum taken as that of n keys: $\Delta^2+(1-\Delta^2)/n$ at the $\Delta$ of its own number of keys.
        std_logit: Standard deviation of the logits of a row, mean over rows.
        rho: Mean inner product of two values over their mean squared length; of equal lengths, the mean cosine.
        cosine: Mean cosine of two outputs.
        sink: Weight on the first token, mean over rows.
    """

    participation: np.ndarray
    std_logit: np.ndarray
    rho: np.ndarray
    cosine: np.ndarray
    sink: np.ndarray


def measure_heads(model: Any, tokens: Any, factors: Any = 1.0) -> HeadMeasurement:
    """Measure every head of a model on one text, in one forward pass, whatever the attention kernel.

    Args:
        model: Model whose attention goes through transformers' attention interface, in evaluation mode.
        tokens: Token ids, shape (1, n), n >= 2.
        factors: Of the logits, as in `scaled`.

    Returns:
        Measurements of all heads.

    Raises:
        ValueError: If the text is shorter than 2 tokens or the model has no such attention.
    """
    found = _each_layer(_of_layer, model, tokens, factors)
    names = [field.name for field in fields(HeadMeasurement)]
    return HeadMeasurement(**{name: np.stack([one[name] for one in found]) for name in names})


def output_cosines(model: Any, tokens: Any, factors: Any = 1.0) -> np.ndarray:
    """Mean cosine of two outputs of every head, as in `measure_heads`, alone: ten times as fast.

    Args:
        model: Model whose attention goes through transformers' attention interface, in evaluation mode.
        tokens: Token ids, shape (1, n), n >= 2.
        factors: Of the logits, as in `scaled`.

    Returns:
        Cosines, shape (layers, heads).

    Raises:
        ValueError: If the text is shorter than 2 tokens or the model has no such attention.
    """
    of_layer = lambda heads: {"cosine": _cosines(heads, _far(_keys(heads)))}
    found = _each_layer(of_layer, model, tokens, factors)
    return np.stack([one["cosine"] for one in found])


def _each_layer(
    of_layer: Any, model: Any, tokens: Any, factors: Any
) -> list[dict[str, np.ndarray]]:
    """Numbers of every layer in one forward pass, all finite."""
    import torch

    check_count(int(tokens.shape[-1]), "tokens", 2)
    found: list[dict[str, np.ndarray]] = []
    see = lambda layer, heads: found.append(of_layer(heads))
    with torch.no_grad(), watching(model, see), scaled(model, factors):
        model(tokens)
    for layer, numbers in enumerate(found):
        if not all(np.isfinite(values).all() for values in numbers.values()):
            raise ValueError(
                f"Argument `model` must give finite activations, but layer {layer} holds NaN or inf. "
                "Pass float32."
            )
    if not found:
        raise ValueError(
            f"Argument `model` must have attention heads, but {type(model).__name__} calls none. "
            "Pass a model of transformers with attention."
        )
    return found


def _of_layer(heads: dict[str, Any]) -> dict[str, np.ndarray]:
    """Numbers of every head of one attention call, shape (heads,) each."""
    mask = heads["mask"]
    seen = attention_statistics(
        heads["q"][0],
        heads["k"][0],
        scale=heads["scale"],
        causal=heads["causal"],
        mask=None if mask is None else mask[0],
    )
    keys = _keys(heads)
    rows, n = _far(keys), keys.max()
    shares = 1 / seen.participation[:, rows]
    delta2 = np.clip((keys[rows] * shares - 1) / (keys[rows] - 1), 0, 1).mean(axis=1)
    groups = heads["q"].shape[1] // heads["v"].shape[1]
    return {
        "participation": 1 / (delta2 + (1 - delta2) / n),
        "std_logit": seen.std_logit[:, rows].mean(axis=1),
        "rho": np.repeat(_common(heads["v"][0].double()), groups),
        "cosine": _cosines(heads, rows),
        "sink": seen.sink[:, rows].mean(axis=1),
    }


def _keys(heads: dict[str, Any]) -> np.ndarray:
    """Number of keys that each row may see, shape (n,)."""
    import torch

    mask, n, m = heads["mask"], heads["q"].shape[2], heads["k"].shape[2]
    if mask is None:
        return np.arange(m - n, m) + 1.0 if heads["causal"] else np.full(n, float(m))
    mask = mask[0, 0]
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return np.broadcast_to(seen.sum(dim=-1).cpu().double().numpy(), (n,))


def _far(keys: np.ndarray) -> np.ndarray:
    """Rows that see at least half of the keys, and more than one."""
    return np.flatnonzero(keys >= max(keys.max() / 2, 2))


def _cosines(heads: dict[str, Any], rows: np.ndarray) -> np.ndarray:
    """Mean cosine of two of some outputs of every head, shape (heads,)."""
    outputs = heads["output"][0].double()[rows].transpose(0, 1)
    return _common(outputs / outputs.norm(dim=-1, keepdim=True))


def _common(x: Any) -> np.ndarray:
    """Mean inner product of two of n vectors over their mean squared length, shape (heads,) of (heads, n, d)."""
    n = x.shape[1]
    share = x.mean(dim=1).square().sum(dim=-1) / x.square().sum(dim=-1).mean(dim=-1)
    return ((n * share - 1) / (n - 1)).cpu().numpy()


def _sizes(model: Any) -> tuple[int, int]:
    """Layers and heads of a model, by its config."""
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads")]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"Argument `model` must have attention heads, but {type(model).__name__} says of none. "
            "Pass a model of transformers with attention."
        )
    return sizes[0], sizes[1]  # pyright: ignore[reportReturnType]


def _factors(factors: Any, layers: int, heads: int) -> np.ndarray:
    """Factors of every head, shape (layers, heads)."""
    array = np.asarray(factors, dtype=float)
    if array.shape not in ((), (layers,), (layers, heads)):
        raise ValueError(
            f"Argument `factors` must be one number or have shape ({layers},) or ({layers}, {heads}), "
            f"but factors.shape={array.shape}."
        )
    check_finite(array, "factors")
    return np.array(np.broadcast_to(array[:, None] if array.ndim == 1 else array, (layers, heads)))
