"""Who a run is: the canonical form of its config, its hash, and the folder that the hash names."""

from __future__ import annotations

import hashlib
import json
import math
import re
import types
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from attnflow.store.files import told

_EXPERIMENT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*-[0-9a-f]{8}(?:[0-9a-f]{8}|[0-9a-f]{56})?")
_LENGTHS = (8, 16, 64)
_SCALARS = (bool, int, float, str, type(None))


def is_run_name(name: str) -> bool:
    """Whether `name` has the form <experiment>-<8 hex> (16 or 64 after a collision)."""
    return _RUN_NAME.fullmatch(name) is not None


def canonical(config: Any) -> dict[str, Any]:
    """Config as plain JSON values, each brought to the declared type of its field.

    A float field turns 1 into 1.0 and -0.0 into 0.0; infinities become "inf" and "-inf", which
    JSON lacks; tuples become lists; paths become strings.

    Args:
        config: Frozen dataclass of scalars, strings, None and tuples of these.

    Returns:
        Field names and values, in the order of the fields.

    Raises:
        ValueError: For anything else, a NaN, or a value that its field's type does not allow.
    """
    if isinstance(config, type) or not is_dataclass(config) or not _is_frozen(config):
        raise ValueError(
            f"Argument `config` must be a frozen dataclass instance, but config={config!r}."
        )
    hints = get_type_hints(type(config))
    return {
        field.name: _plain(getattr(config, field.name), hints[field.name], f"config.{field.name}")
        for field in fields(config)
    }


def input_digests(config: Any) -> dict[str, str]:
    """SHA-256 of each input file: of the fields with metadata {"file": True} that name a file."""
    digests = {}
    for field in fields(config):
        value = getattr(config, field.name)
        named = field.metadata.get("file", False) and isinstance(value, (str, PurePath))
        if named and Path(value).is_file():
            digests[field.name] = _digest_of(Path(value), f"config.{field.name}")
    return digests


def fingerprint(experiment: str, config: Any) -> str:
    """SHA-256 of the canonical JSON of the experiment's name and its config.

    Keys are sorted, floats are written by `repr`. A file counts by its bytes, not by its path:
    a moved file leaves the hash alone, a changed one changes it.

    Args:
        experiment: Name of the experiment: lower-case letters, digits, `_` and `-`.
        config: Frozen dataclass, see `canonical`.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: For a bad name, or a config that is no plain data.
        OSError: When an input file cannot be read.
    """
    return hash_of(experiment, canonical(config), input_digests(config))


def hash_of(experiment: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """Hash of a canonical config, in which each input file stands by its digest."""
    if not _EXPERIMENT.fullmatch(experiment):
        raise ValueError(
            "Argument `experiment` must be lower-case letters, digits, `_` and `-`, "
            f"but experiment={experiment!r}."
        )
    contents = {name: {"sha256": digest} for name, digest in inputs.items()}
    identity = {"experiment": experiment, "config": config | contents}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def folder_of(experiment: str, config: Any, root: Path | str = "runs") -> Path:
    """Folder of a run under `root`: <experiment>-<first 8 hex digits of its fingerprint>.

    In the rare case (one in 4e9 per pair of runs) that another run already has this name,
    16 digits. The folder need not exist.

    Args:
        experiment: Name of the experiment.
        config: Frozen dataclass, see `canonical`.
        root: Folder of all runs.

    Raises:
        ValueError: For a bad name, or a config that is no plain data.
        OSError: When an input file cannot be read.
    """
    digest = fingerprint(experiment, config)
    folders = [Path(root) / f"{experiment}-{digest[:length]}" for length in _LENGTHS]
    return next((f for f in folders if _hash_in(f) in (None, digest)), folders[-1])


def _hash_in(folder: Path) -> str | None:
    try:
        return json.loads((folder / "config.json").read_bytes())["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_frozen(config: Any) -> bool:
    return type(config).__dataclass_params__.frozen


def _digest_of(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise told(
            error,
            f"Argument `{name}` must name a readable file, but {name}={str(path)!r}: "
            f"{error.strerror}.",
        ) from error


def _plain(value: Any, hint: Any, name: str) -> Any:
    """JSON value of one field; `hint` decides whether a number is a float."""
    arms = _arms(hint)
    open_ended = not all(arm in _SCALARS or _is_path(arm) or _is_tuple(arm) for arm in arms)
    if isinstance(value, tuple):
        hints = _item_hints(arms, len(value), open_ended)
        if hints is None:
            raise ValueError(_refusal(name, value, hint))
        items = zip(value, hints, strict=True)
        return [_plain(item, arm, f"{name}[{i}]") for i, (item, arm) in enumerate(items)]
    if isinstance(value, bool) or value is None:
        fits, plain = type(value) in arms, value
    elif isinstance(value, (str, PurePath)):
        fits, plain = str in arms or any(_is_path(arm) for arm in arms), str(value)
    elif isinstance(value, Real) and float in arms:
        fits, plain = True, _plain_float(value, name)
    elif isinstance(value, Integral):
        fits, plain = int in arms, int(value)
    elif isinstance(value, Real):
        fits, plain = False, _plain_float(value, name)
    else:
        raise ValueError(_refusal(name, value, hint))
    if not (fits or open_ended):
        raise ValueError(_refusal(name, value, hint))
    return plain


def _plain_float(value: Real, name: str) -> float | str:
    try:
        number = float(value) + 0.0
    except OverflowError:
        raise ValueError(
            f"Argument `{name}` must fit a float, but it is an integer beyond 1.8e308."
        ) from None
    if math.isnan(number):
        raise ValueError(f"Argument `{name}` must be a number, but {name}=nan.")
    return number if math.isfinite(number) else str(number)


def _arms(hint: Any) -> list[Any]:
    """Alternatives of a type: `float | None` has two, a Literal the types of its values."""
    if get_origin(hint) in (Union, types.UnionType):
        return [arm for part in get_args(hint) for arm in _arms(part)]
    if get_origin(hint) is Literal:
        return [type(value) for value in get_args(hint)]
    return [hint]


def _item_hints(arms: list[Any], length: int, open_ended: bool) -> list[Any] | None:
    """Types of a tuple's items, or None where no declared tuple has this length."""
    for arm in filter(_is_tuple, arms):
        args = (Any, ...) if arm is tuple else get_args(arm)
        if len(args) == 2 and args[1] is ...:
            return [args[0]] * length
        if len(args) == length:
            return list(args)
    return [Any] * length if open_ended else None


def _is_tuple(hint: Any) -> bool:
    return hint is tuple or get_origin(hint) is tuple


def _is_path(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, PurePath)


def _refusal(name: str, value: Any, hint: Any) -> str:
    wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    remedy = " Pass a tuple." if isinstance(value, (list, set, frozenset)) else ""
    if hint is Any or wanted == "object":
        wanted = "bool, int, float, str, None or a tuple of these"
    kind = type(value).__name__
    return f"Argument `{name}` must be {wanted}, but {name}={value!r} is a {kind}.{remedy}"
