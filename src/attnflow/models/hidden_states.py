"""Hidden states of a trained model, handed on block by block and never kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ATTENTION_NAMES = ("attn", "attention", "self_attn", "self_attention", "mixer")
NORM_WORDS = ("norm", "ln_", "ln1", "ln2")


@dataclass(frozen=True)
class Block:
    """One block of a model, and where its branches end.

    Attributes:
        module: The block.
        attention: Where its attention branch ends: the last projection, or the norm after it (Peri-LN).
        mlp: Where its MLP branch ends, likewise; None if it has none.
        between: Norm of the sum with the attention branch (Post-LN); else None.
        norms: Its norms, in the order of the module tree.
    """

    module: Any
    attention: Any
    mlp: Any
    between: Any
    norms: tuple[str, ...]


def blocks(model: Any) -> list[Block]:
    """Blocks of a Transformer: the longest list of modules that each hold attention.

    Raises:
        ValueError: If no such list is found.
    """
    import torch

    found: list[list[Block]] = []
    for group in model.modules():
        if isinstance(group, torch.nn.ModuleList) and len(group):
            read = [block for child in group if (block := _read(child)) is not None]
            if len(read) == len(group):
                found.append(read)
    if not found:
        raise ValueError(
            f"Argument `model` must hold a list of blocks with attention, but {type(model).__name__} has none. "
            "Pass the blocks: `probe(model, inputs, blocks=[...])`."
        )
    return max(found, key=len)


def scheme(block: Block) -> str:
    """Normalisation scheme that the module tree shows: "post", "pre", "peri", or "unknown".

    Post-LN normalises the sum with the residual (its norms sit beside the projections, as in BERT), Pre-LN the
    input of each branch, Peri-LN input and output of each branch (four norms).
    """
    names = block.norms
    if len(names) == 4:
        return "peri"
    if any("attention.output" in name or name in ("norm1", "norm2") for name in names):
        return "post" if not getattr(block.module, "norm_first", False) else "pre"
    if any(word in name for name in names for word in ("ln_1", "before", "input", "pre", "ln1")):
        return "pre"
    return "unknown"


@contextmanager
def passing(parts: list[Block], see: Callable[[int, dict[str, Any]], None]) -> Iterator[None]:
    """Let `see(layer, states)` have the states of each block as it is done, in order.

    `states` holds `before` and `after`, tokens at the entry and the end of the block, `attention` and `mlp`,
    what its branches add (before dropout), and under Post-LN `between`; shapes (batch, n, d). Hooks go when
    the `with` block ends.
    """
    with ExitStack() as stack:
        for layer, block in enumerate(parts):
            states: dict[str, Any] = {}
            for name, module in (
                ("attention", block.attention),
                ("mlp", block.mlp),
                ("between", block.between),
            ):
                if module is not None:
                    stack.callback(module.register_forward_hook(_keeper(states, name)).remove)
            enter = block.module.register_forward_pre_hook(_entry(states), with_kwargs=True)
            leave = block.module.register_forward_hook(_exit(states, layer, see))
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        yield


def check_states(layer: int, x: Any) -> None:
    """Raise `ValueError` unless a state is finite; it names the layer."""
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"Argument `model` must give finite states, but those after layer {layer} hold NaN or inf. "
            "Check its weights, or the dtype."
        )


def read_states(path: str | Path) -> list[np.ndarray]:
    """Saved hidden states, one (n, d) array per layer, of a .npz or .safetensors file in its order of names.

    A single array of shape (layers, n, d) is split. Pickled arrays are refused.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"Argument `states` must be a .npz or .safetensors file, but states={str(path)!r}."
        )
    try:
        arrays = _arrays(path)
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(
            f"Argument `states` must be a readable {path.suffix} file of arrays, but states={str(path)!r}: {reason}."
        ) from error
    names = sorted(arrays, key=lambda name: (len(name), name))
    states = [arrays[name] for name in names]
    if len(states) == 1 and states[0].ndim == 3:
        states = list(states[0])
    shapes = {state.shape for state in states}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"Argument `states` must hold arrays of one shape (n, d), one per layer, but {path} holds {shapes}."
        )
    return states


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Arrays of a file by name; pickled ones are refused."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read(module: Any) -> Block | None:
    """What a block holds; None for modules without attention."""
    names = dict(module.named_modules())
    inside = [n for n in names if any(part in ATTENTION_NAMES for part in n.split("."))]
    ends = [n for n in inside if _projects(names[n])]
    if not ends:
        return None
    norms = tuple(n for n in names if n and _is_norm(n, names[n]) and not _of_heads(n))
    others = [n for n in names if n and n not in inside and _projects(names[n])]
    attention, mlp = names[ends[-1]], names[others[-1]] if others else None
    block = Block(module, attention, mlp, None, norms)
    kind = scheme(block)
    if kind == "peri":
        return replace(block, attention=names[norms[1]], mlp=names[norms[3]])
    return replace(block, between=names[norms[0]]) if kind == "post" else block


def _projects(module: Any) -> bool:
    """Whether a module is a linear map."""
    weight = getattr(module, "weight", None)
    return weight is not None and getattr(weight, "ndim", 0) == 2 and not list(module.children())


def _is_norm(name: str, module: Any) -> bool:
    kind = type(module).__name__.lower()
    last = name.rsplit(".", 1)[-1].lower()
    return "norm" in kind or any(last.startswith(word) for word in NORM_WORDS)


def _of_heads(name: str) -> bool:
    """Whether a norm is that of queries or keys."""
    return name.rsplit(".", 1)[-1] in ("q_norm", "k_norm", "q_layernorm", "k_layernorm")


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output


def _keeper(states: dict[str, Any], name: str) -> Callable:
    def hook(module, args, output):
        states[name] = _first(output)

    return hook


def _entry(states: dict[str, Any]) -> Callable:
    def hook(module, args, kwargs):
        states.clear()
        states["before"] = args[0] if args else kwargs["hidden_states"]

    return hook


def _exit(states: dict[str, Any], layer: int, see: Callable) -> Callable:
    def hook(module, args, output):
        states["after"] = _first(output)
        see(layer, states)
        states.clear()

    return hook
