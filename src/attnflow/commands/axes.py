"""Words of a sweep to values: --beta 1 2 4, --seed 0:16, --rho 0..0.9/10."""

from __future__ import annotations

import re
from dataclasses import fields, make_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from attnflow.commands.parsing import parse
from attnflow.sweeps import Between

RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
SPACE = re.compile(rf"{NUMBER}\.\.{NUMBER}(?:/(\d+))?(/log)?", re.IGNORECASE)


def split(argv: list[str], config: type) -> tuple[dict[str, list[str]], list[str]]:
    """Words after each field of a config, and all other words."""
    names = {field.name for field in fields(config)}
    axes: dict[str, list[str]] = {}
    rest: list[str] = []
    into = rest
    for word in argv:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            name = option[2:].replace("-", "_")
            if name not in names:
                into = rest
            elif name in axes:
                raise ValueError(f"Argument `{name}` must be given once, but it is there twice.")
            else:
                into = axes[name] = []
                if equals:
                    into.append(value)
                continue
        into.append(word)
    return axes, rest


def read(config: type, name: str, words: list[str]) -> Any:
    """Value of a field if there is one word, a list of all values if there are more, or `Between`.

    Raises:
        ValueError: If a word is no value of the field, or there is none.
    """
    hint = get_type_hints(config)[name]
    if not words:
        raise ValueError(f"Argument `{name}` must have at least one value, but none follows.")
    numeric = bool({int, float} & {hint, *get_args(hint)})
    if numeric and len(words) == 1:
        if (found := SPACE.fullmatch(words[0])) and not found[3]:
            return Between(float(found[1]), float(found[2]), bool(found[4]))
        if not (RANGE.fullmatch(words[0]) or found):
            return _value(hint, name, words[0])
    elif len(words) == 1:
        return _value(hint, name, words[0])
    real = float in (hint, *get_args(hint))
    values = [v for word in words for v in _values(hint, name, word, numeric, real)]
    if not values:
        raise ValueError(
            f"Argument `{name}` must hold at least one value, but {name}={' '.join(words)} is empty: a "
            "range a:b or a:b:step stops before b."
        )
    return values


def _values(hint: Any, name: str, word: str, numeric: bool, real: bool) -> list[Any]:
    """Values that one word stands for."""
    if numeric and (found := RANGE.fullmatch(word)):
        low, high, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if step == 0:
            raise ValueError(
                f"Argument `{name}` must have a step that is not 0, but {name}={word}."
            )
        return [float(v) if real else v for v in range(low, high, step)]
    if numeric and (found := SPACE.fullmatch(word)) and found[3]:
        return _space(name, word, float(found[1]), float(found[2]), int(found[3]), found[4], real)
    return [_value(hint, name, word)]


def _space(
    name: str, word: str, low: float, high: float, count: int, log: str | None, real: bool
) -> list[Any]:
    """Evenly spaced values, both ends among them; of whole numbers each once."""
    if log and min(low, high) <= 0:
        raise ValueError(f"Argument `{name}` must be > 0 in log, but {name}={word}.")
    values = (np.geomspace if log else np.linspace)(low, high, count).tolist()
    return values if real else list(dict.fromkeys(map(round, values)))


def _value(hint: Any, name: str, word: str) -> Any:
    """Value of one word; items of a tuple stand between commas."""
    try:
        words = word.split(",") if get_origin(hint) is tuple else [word]
        return parse(make_dataclass("One", [("value", hint)]), ["--", *words], "sweep").value
    except ValueError:
        known = f"one of {', '.join(map(str, get_args(hint)))}" if "Literal" in str(hint) else ""
        kind = hint.__name__ if isinstance(hint, type) else str(hint)
        raise ValueError(
            f"Argument `{name}` must be {known or kind}, but {name}='{word}'."
        ) from None
