"""What arguments are drawn from: good values, and one of them spoiled in half of the cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

inf, nan = float("inf"), float("nan")
ODD = (
    nan, inf, -inf, -1, 0, 1, -0.0, 0.5, 2.5, -1.5, 1e308, -1e308, 1e-308, 5e-324, 1e17, 2**63, 10**400,
    True, False, None, "", "many", "1", "nan", "ü\u202e", b"1", [], [nan], [1.0, 2.0], [[1.0]],
    [[1.0, 0.0], [0.0]], {}, {"a": 1}, (), 1j, ...,
)  # fmt: skip
KINDS = ("uniform", "hemisphere", "clusters", "duplicates", "antipodal", "polygon", "float32")
BAD_TOKENS = (
    "zero row", "nan", "inf", "long", "empty", "one axis", "three axes", "one dimension", "whole",
    "words", "complex", "objects",
)  # fmt: skip
SHAPES = ((1, 2), (2, 2), (5, 2), (5, 3), (3, 4))

odd = st.one_of(
    st.sampled_from(ODD),
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=6),
    st.lists(st.floats(), max_size=3),
)
odd_size = odd.filter(lambda value: not (isinstance(value, int | float) and 10 < value < 1e9))
"""No size of an array that would be compiled for, just to be right."""


def real(low: float, high: float) -> st.SearchStrategy:
    """Floats between two numbers, ends included, plain numbers often."""
    return st.floats(low, high, allow_subnormal=False)


def count(low: int, high: int) -> st.SearchStrategy:
    """Whole numbers between two, ends included."""
    return st.integers(low, high)


def choice(*values: Any) -> st.SearchStrategy:
    """One of a few."""
    return st.sampled_from(values)


def times(t_max: float = 20.0, most: int = 4, *, exactly: int = 0) -> st.SearchStrategy:
    """Increasing lists of times from 0 on, at least 0.01 apart."""
    fewest = (exactly or 2) - 1
    steps = st.lists(st.floats(0.01, t_max), min_size=fewest, max_size=(exactly or most) - 1)
    return steps.map(lambda gaps: [0.0, *np.round(np.cumsum(gaps), 6).tolist()])


def spec(shapes: tuple[tuple[int, int], ...] = SHAPES, kinds: tuple[str, ...] = KINDS) -> Any:
    """What `tokens` makes tokens of: (kind, n, d, seed)."""
    return st.builds(
        lambda kind, shape, seed: (kind, *shape, seed),
        choice(*kinds),
        choice(*shapes),
        count(0, 99),
    )


bad_tokens = st.one_of(spec(kinds=BAD_TOKENS), odd)


def tokens(given: Any) -> Any:
    """Tokens of a (kind, n, d, seed); what is no such tuple is handed on as it is."""
    if not (isinstance(given, tuple) and len(given) == 4):
        return given
    kind, n, d, seed = given
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    match kind:
        case "hemisphere":
            x[:, 0] = np.abs(x[:, 0]) + 0.1
        case "clusters":
            x = x[np.arange(n) % 2] + 1e-3 * rng.normal(size=(n, d))
        case "duplicates":
            x = x[np.zeros(n, int)]
        case "antipodal":
            x = x[np.zeros(n, int)] * (-1.0) ** np.arange(n)[:, None]
        case "polygon":
            angle = 2 * np.pi * np.arange(n) / n
            x = np.pad(np.stack([np.cos(angle), np.sin(angle)], axis=1), [(0, 0), (0, d - 2)])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return _spoiled(kind, x, rng)


def _spoiled(kind: str, x: np.ndarray, rng: np.random.Generator) -> Any:
    row = rng.integers(len(x))
    match kind:
        case "float32":
            return x.astype(np.float32)
        case "zero row":
            x[row] = 0.0
        case "nan":
            x[row, 0] = np.nan
        case "inf":
            x[row, 0] = np.inf
        case "long":
            return 3.0 * x
        case "empty":
            return x[:0]
        case "one axis":
            return x[0]
        case "three axes":
            return x[None]
        case "one dimension":
            return x[:, :1]
        case "whole":
            return np.eye(x.shape[1], dtype=int)
        case "words":
            return x.astype(str)
        case "complex":
            return x + 0j
        case "objects":
            return x.astype(object)
    return x


@dataclass(frozen=True)
class Target:
    """A function to fuzz, and where its arguments come from."""

    function: Callable[..., Any]
    """Calls the library on plain values, and asserts what must hold of the answer."""
    good: dict[str, Any]
    """Strategy of each argument."""
    weight: float = 1.0
    """Share of cases, beside the other targets."""
    bad: dict[str, Any] = field(default_factory=dict)
    """Strategy of spoiled values, where any odd value will not do; None never spoils."""

    def arguments(self) -> st.SearchStrategy[dict[str, Any]]:
        """Good arguments; in half of the cases one or two of them are spoiled."""

        @st.composite
        def draw_arguments(draw: Any) -> dict[str, Any]:
            values = {name: draw(strategy) for name, strategy in self.good.items()}
            open_to = [name for name in values if self.bad.get(name, odd) is not None]
            if open_to and draw(st.booleans()):
                for name in draw(st.lists(choice(*open_to), min_size=1, max_size=2, unique=True)):
                    values[name] = draw(self.bad.get(name, odd))
            return values

        return draw_arguments()
