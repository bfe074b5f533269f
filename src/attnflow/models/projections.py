"""Query, key, value and output matrices of every head of a trained model, whatever the model calls them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_SEPARATE = (
    ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
)  # fmt: skip
_STACKED = ("c_attn", "qkv_proj", "Wqkv", "qkv")  # rows: all queries, all keys, all values
_INTERLEAVED = "query_key_value"  # rows: query, key, value of the first head, of the second, ...
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "out_lin", "o", "Wo", "proj")
_WIDTHS = ("head_dim", "attention_head_size", "head_size", "dim_per_head", "key_value_proj_dim")
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_CROSS = re.compile(r"cross_?att|encoder_attn|EncDecAttention", re.IGNORECASE)
"""Names of attention to other tokens; that of a pooling head asks for one learned token."""


@dataclass(frozen=True, eq=False)
class LayerHeads:
    r"""Matrices of the heads of one attention layer, $f(x)_i = \sum_hO_h\sum_jA^h_{ij}(V_hx_j + v_h) + o$.

    $A^h_i = $ softmax$_j\,\text{scale}\,\langle Q_hx_i + q_h, K_hx_j + k_h\rangle$. With grouped queries
    there are fewer key heads, and head h reads key head h // (heads / key heads).

    Attributes:
        name: Path of the attention module in the model.
        query: Q, shape (heads, d_head, d).
        key: K, shape (key heads, d_head, d).
        value: V, shape (key heads, p, d).
        output: O, shape (heads, d, p).
        scale: Factor of the scores.
        causal: Whether token i sees tokens j <= i only.
        query_bias: q, shape (heads, d_head), or None.
        key_bias: k, shape (key heads, d_head), or None.
        value_bias: v, shape (key heads, p), or None.
        output_bias: o, shape (d,), or None.
        besides: What shapes the scores besides these, as far as recognized, such as "rotary positions".
    """

    name: str
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    scale: float
    causal: bool = False
    query_bias: np.ndarray | None = None
    key_bias: np.ndarray | None = None
    value_bias: np.ndarray | None = None
    output_bias: np.ndarray | None = None
    besides: tuple[str, ...] = ()

    def __post_init__(self):
        count, width, d = self.query.shape
        groups, p = len(self.key), self.value.shape[1]
        shapes = {"key": (groups, width, d), "value": (groups, p, d), "output": (count, d, p)}
        if count % groups or any(
            getattr(self, name).shape != shape for name, shape in shapes.items()
        ):
            raise ValueError(
                "Arguments `query`, `key`, `value` and `output` must have shapes (heads, d_head, d), "
                "(key heads, d_head, d), (key heads, p, d) and (heads, d, p), but those of "
                f"'{self.name}' have "
                f"{self.query.shape}, {self.key.shape}, {self.value.shape} and {self.output.shape}."
            )

    def per_head(self, array: np.ndarray) -> np.ndarray:
        """An array of the key heads, repeated for the heads that share them."""
        return np.repeat(array, len(self.query) // len(array), axis=0)


def heads(model: Any) -> list[LayerHeads]:
    """Matrices of the heads of every self-attention layer, in the order of the model.

    Reads any `torch.nn.Module` whose attention has projections under usual names: BERT, RoBERTa, ALBERT,
    DistilBERT, GPT-2, GPT-NeoX, LLaMA, Mistral, Qwen, Phi, ViT, CLIP, `torch.nn.MultiheadAttention` and
    kin. Layers that share weights, as ALBERT's, come once; cross-attention and pooling heads are left out. Arrays are
    copies, in float32 unless the model is in float64.

    Args:
        model: The model, on any device.

    Raises:
        ValueError: If it holds no such attention, or weights that are quantized, not loaded, under an
            adapter, or not finite.
    """
    return list(each_layer(model))


def each_layer(model: Any) -> Iterator[LayerHeads]:
    """The same one by one, so that a large model is never held twice."""
    if not hasattr(model, "named_modules"):
        raise ValueError(
            f"Argument `model` must be a `torch.nn.Module`, but it is of type {type(model).__name__}."
        )
    modules, found = dict(model.named_modules()), False
    for name, module in modules.items():
        output = _output(name, module, modules)
        pools = "Pooling" in type(modules.get(name.rpartition(".")[0])).__name__
        if output is not None and not pools and not _CROSS.search(name):
            parts = _projections(module)
            if parts is not None:
                found = True
                yield _layer(name, module, parts, output, model)
    if not found:
        raise ValueError(
            "Argument `model` must hold self-attention with projections under usual names such as q_proj, "
            f"k_proj, v_proj and o_proj, but {type(model).__name__} has none. "
            "Build `LayerHeads` from its matrices."
        )


def _output(name: str, module: Any, modules: dict[str, Any]) -> Any:
    """Projection of the joined heads: in the attention module, or beside it as in BERT."""
    for attribute in _OUTPUTS:
        if _is_linear(getattr(module, attribute, None)):
            return getattr(module, attribute)
    beside = name.rpartition(".")[0]
    return modules.get(f"{beside}.output.dense" if beside else "output.dense")


def _is_linear(part: Any) -> bool:
    weight = getattr(getattr(part, "base_layer", part), "weight", None)
    return getattr(weight, "ndim", 0) == 2


def _projections(module: Any) -> tuple[Any, ...] | None:
    """Query, key and value projections, or the one that holds them all; None if there are none."""
    for names in _SEPARATE:
        parts = tuple(getattr(module, name, None) for name in names)
        if all(_is_linear(part) for part in parts):
            return parts
    if getattr(module, "in_proj_weight", None) is not None:
        return (module,)
    for name in (*_STACKED, _INTERLEAVED):
        if _is_linear(getattr(module, name, None)):
            return (getattr(module, name),)
    return None


def _layer(name: str, module: Any, parts: tuple[Any, ...], output: Any, model: Any) -> LayerHeads:
    pairs = [_weight_and_bias(part, name) for part in parts]
    config = getattr(module, "config", getattr(model, "config", None))
    if len(pairs) == 1:
        pairs, width = _taken_apart(*pairs[0], module, config, name)
    else:
        width = _width(module, config, len(pairs[0][0]), name)
    (query, q), (key, k), (value, v) = pairs
    count, groups = len(query) // width, len(key) // width
    joined, o = _weight_and_bias(output, name)
    reads = set(inspect.signature(module.forward).parameters)
    split = lambda array, heads: None if array is None else array.reshape(heads, -1)
    return LayerHeads(
        name=name,
        query=query.reshape(count, width, -1), key=key.reshape(groups, width, -1),
        value=value.reshape(groups, -1, value.shape[1]),
        output=np.moveaxis(joined.reshape(len(joined), count, -1), 1, 0),
        scale=_scale(module, width), causal=bool(getattr(module, "is_causal", "alibi" in reads)),
        query_bias=split(q, count), key_bias=split(k, groups), value_bias=split(v, groups), output_bias=o,
        besides=_besides(module, model, reads),
    )  # fmt: skip


def _weight_and_bias(part: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight with one row per output, and bias, of a linear map."""
    if hasattr(part, "base_layer"):
        raise ValueError(
            f"Argument `model` must hold plain weights, but those of '{name}' are under an adapter. "
            "Merge it: `model.merge_and_unload()`."
        )
    packed = hasattr(part, "in_proj_weight")
    weight = _array(part.in_proj_weight if packed else part.weight, name)
    bias = part.in_proj_bias if packed else getattr(part, "bias", None)
    weight = weight.T if type(part).__name__ == "Conv1D" else weight
    return weight, None if bias is None else _array(bias, name)


def _array(parameter: Any, name: str) -> np.ndarray:
    """Copy of a parameter as finite floats."""
    if parameter.is_meta or not parameter.is_floating_point() or parameter.element_size() < 2:
        raise ValueError(
            f"Argument `model` must hold loaded, unquantized weights, but '{name}' holds {parameter.dtype} "
            f"on {parameter.device}. Load it in float32 or bfloat16."
        )
    wide = parameter.detach().cpu()
    wide = wide if wide.element_size() == 8 else wide.float()
    array = np.array(wide.numpy(), copy=True)
    if not np.isfinite(array).all():
        raise ValueError(
            f"Argument `model` must hold finite weights, but '{name}' holds NaN or inf."
        )
    return array


def _taken_apart(weight, bias, module, config, name):
    """Query, key and value pairs of one projection that holds all, and d_head."""
    if hasattr(module, _INTERLEAVED) or getattr(module, "multi_query", None) is False:
        if len(weight) != 3 * weight.shape[1]:
            raise ValueError(
                "Argument `model` must give every head its own keys where they lie in `query_key_value`, "
                f"but that of '{name}' has shape {weight.shape}. Build `LayerHeads` from its matrices."
            )
        width = _width(module, config, weight.shape[1], name)
        shuffle = lambda array: np.moveaxis(array.reshape(-1, 3, width, *array.shape[1:]), 1, 0)
        weights = shuffle(weight).reshape(3, -1, weight.shape[1])
        biases = (None,) * 3 if bias is None else shuffle(bias).reshape(3, -1)
        return list(zip(weights, biases, strict=True)), width
    count = _number(_COUNTS, module, config)
    if count is None:
        raise ValueError(f"Argument `model` must tell its number of heads, but '{name}' does not.")
    width = _number(_WIDTHS, module) or len(weight) // (3 * count)
    at = [count * width, (len(weight) + count * width) // 2]
    biases = (None,) * 3 if bias is None else np.split(bias, at)
    return list(zip(np.split(weight, at), biases, strict=True)), width


def _width(module: Any, config: Any, rows: int, name: str) -> int:
    """d_head: told by the module, or rows of the queries over the number of heads."""
    width, count = _number(_WIDTHS, module), _number(_COUNTS, module, config)
    if width is None and count is not None and rows % count == 0:
        width = rows // count
    if width is None or rows % width:
        raise ValueError(
            f"Argument `model` must tell its number of heads, but '{name}' has {rows} rows of queries and "
            f"d_head={width}, heads={count}. Build `LayerHeads` from its matrices."
        )
    return width


def _number(names: tuple[str, ...], *owners: Any) -> int | None:
    values = (getattr(owner, name, None) for owner in owners for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _scale(module: Any, width: int) -> float:
    """Factor of the scores: told by the module; GPT-Neo has none; else 1/sqrt(d_head)."""
    for name in ("scaling", "scale"):
        if isinstance(getattr(module, name, None), int | float):
            return float(getattr(module, name))
    plain = re.match("GPTNeo(?!X)", type(module).__name__)
    return 1.0 if plain else width**-0.5


def _besides(module: Any, model: Any, reads: set[str]) -> tuple[str, ...]:
    """What shapes the scores besides the matrices."""
    kinds = {type(part).__name__ for part in model.modules()}
    own = {name.partition(".")[0] for name, _ in module.named_parameters()} | {
        name for name, _ in module.named_children()
    }
    rotary = any(re.search("Rotary|Rope[A-Z]|RoPE", kind) for kind in kinds)
    known = {
        "rotary positions": rotary or "position_embeddings" in reads,
        "relative positions": bool(reads & {"position_bias", "alibi"})
        or any(re.search("relative|rel_pos", name) for name in own),
        "norms of queries and keys": any(
            re.fullmatch(r"(q|k|query|key)_?(layer)?_?norm", name) for name in own
        ),
        "softcap": getattr(module, "attn_logit_softcapping", None) is not None,
        "windows": bool(getattr(module, "sliding_window", None) or hasattr(module, "window_size"))
        or getattr(module, "attention_type", None) == "local",
        "sinks": "sinks" in own or getattr(module, "bias_k", None) is not None,
    }
    return tuple(name for name, has in known.items() if has)
