"""Tokens to start from: by name, or from a file."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    from attnflow.experiments.simulate import Config


def start(config: Config) -> np.ndarray:
    """Unit tokens, shape (n, d), that a config names, in its dtype.

    Raises:
        ValueError: If the start is unknown or impossible, or a file does not hold tokens.
        FileNotFoundError: If a file is missing.
    """
    import jax

    if config.tokens in STARTS:
        x = STARTS[config.tokens](config, jax.random.key(config.seed))
    elif _looks_like_file(config.tokens):
        x = read_tokens(Path(config.tokens), array=config.array, normalize=config.normalize)
        x = x if config.n is None else x[: config.n]
    else:
        from attnflow.errors import check_choice

        check_choice(
            config.tokens,
            "tokens",
            [*STARTS, "FILE.npy", "FILE.npz", "FILE.csv", "FILE.safetensors"],
        )
        raise AssertionError
    return np.asarray(x, dtype=config.dtype)


def digits(n: int | None = None) -> np.ndarray:
    """Handwritten digits of scikit-learn as tokens: 8 x 8 images as unit vectors, shape (n, 64)."""
    from sklearn.datasets import load_digits

    from attnflow.errors import check_count

    images = load_digits(return_X_y=True)[0]
    if n is not None:
        check_count(n, "n")
        if n > len(images):
            raise ValueError(f"Argument `n` must be at most {len(images)} for digits, but n={n}.")
        images = images[:n]
    return images / np.linalg.norm(images, axis=1, keepdims=True)


STARTS: dict[str, Callable] = {
    "uniform": lambda c, key: af.sphere.uniform(key, c.n, c.d),
    "hemisphere": lambda c, key: af.sphere.hemisphere(key, c.n, c.d),
    "vmf": lambda c, key: af.sphere.vmf(key, c.n, c.d, concentration=c.concentration),
    "clusters": lambda c, key: af.sphere.clusters(key, c.n, c.d, k=c.k, spread=c.spread),
    "equiangular": lambda c, key: af.sphere.equiangular(c.n, c.rho, d=max(c.d, c.n)),
    "polygon": lambda c, key: af.sphere.polygon(c.n, c.d),
    "digits": lambda c, key: digits(c.n),
}
"""Starts by name: functions of (config, key)."""


def read_tokens(path: Path, *, array: str | None = None, normalize: bool = False) -> np.ndarray:
    """Tokens of a .npy, .npz, .csv or .safetensors file, as float64 (float32 stays float32).

    Nothing in a file is ever executed: arrays of Python objects are refused.

    Args:
        path: File with one array of shape (n, d).
        array: Which array of a .npz or .safetensors file; needed if it holds several.
        normalize: Whether to scale rows to unit length; else they must have it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is corrupt, too large for memory, or holds no tokens.
    """
    from attnflow.errors import check_tokens

    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean '{path.with_name(near[0])}'?" if near else ""
        raise FileNotFoundError(f"Argument `tokens` must name a file, but '{path}' is none.{hint}")
    if path.suffix not in READERS:
        raise ValueError(
            f"Argument `tokens` must be a {', '.join(READERS)} file, but tokens='{path}'."
        )
    try:
        x = READERS[path.suffix](path, array)
    except (ValueError, MemoryError, ImportError):
        raise
    except Exception as error:
        raise _corrupt(path, error) from error
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise ValueError(
            f"Argument `tokens` must name an array of real numbers, but '{path}' has dtype {x.dtype}."
        )
    x = x if x.dtype == np.float32 else x.astype(np.float64)
    if normalize:
        check_tokens(x, "tokens", unit=False)
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    try:
        check_tokens(x, "tokens")
    except ValueError as error:
        raise ValueError(
            str(error).replace("Pass `sphere.normalize(tokens)`", "Pass --normalize")
        ) from None
    return x


def _looks_like_file(name: str) -> bool:
    return "/" in name or os.sep in name or Path(name).suffix in READERS or Path(name).exists()


def _read_npy(path: Path, array: str | None) -> np.ndarray:
    with path.open("rb") as stream:
        return _read_npy_stream(stream, path)


def _read_npy_stream(stream, path: Path) -> np.ndarray:
    """One .npy array, after a look at its header."""
    from attnflow.errors import check_memory

    npy = np.lib.format
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except ValueError as error:
        raise _corrupt(path, error) from None
    if dtype.hasobject:
        raise ValueError(
            f"Argument `tokens` must name an array of numbers, but '{path}' holds Python objects, "
            "which are never loaded. Save it as floats."
        )
    check_memory(math.prod(shape) * 8, f"Reading '{path}' of shape {shape}")
    stream.seek(0)
    try:
        return npy.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise _corrupt(path, error) from None


def _corrupt(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"Argument `tokens` must name a readable {path.suffix} file, "
        f"but '{path}' is corrupt ({error}). Write it again."
    )


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [Path(name).stem for name in archive.namelist()]
        with archive.open(f"{_choose(names, array, path)}.npy") as stream:
            return _read_npy_stream(stream, path)


def _read_csv(path: Path, array: str | None) -> np.ndarray:
    from attnflow.errors import check_memory

    check_memory(4 * path.stat().st_size, f"Reading '{path}'")
    rows: list[np.ndarray] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split(",")
        try:
            rows.append(np.array([float(cell) for cell in cells]))
        except ValueError as error:
            raise ValueError(
                f"Argument `tokens` must name a table of numbers, but '{path}' line {number}: {error}. "
                "Leave out headers and text columns."
            ) from None
        if len(cells) != len(rows[0]):
            raise ValueError(
                f"Argument `tokens` must name a table, but '{path}' has {len(rows[0])} columns in "
                f"line 1 and {len(cells)} in line {number}."
            )
    return np.array(rows)


def _read_safetensors(path: Path, array: str | None) -> np.ndarray:
    try:
        from safetensors import safe_open
    except ImportError:
        raise ImportError(
            "Reading .safetensors needs safetensors. Install it: pip install 'attnflow[models]'."
        ) from None
    from attnflow.errors import check_memory

    with safe_open(path, framework="numpy") as tensors:
        name = _choose(list(tensors.keys()), array, path)
        shape = tensors.get_slice(name).get_shape()
        check_memory(math.prod(shape) * 8, f"Reading '{path}' of shape {tuple(shape)}")
        return tensors.get_tensor(name)


def _choose(names: list[str], array: str | None, path: Path) -> str:
    """Name of the wanted array: the only one, or the one asked for."""
    from attnflow.errors import check_choice

    if array is not None:
        check_choice(array, "array", names)
        return array
    if len(names) != 1:
        raise ValueError(
            f"Argument `array` must name one of the {len(names)} arrays of '{path}' "
            f"({', '.join(sorted(names)[:8])}), but array=None."
        )
    return names[0]


READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".safetensors": _read_safetensors,
}
