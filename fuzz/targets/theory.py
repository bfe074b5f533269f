"""Every function of the theory, its arguments drawn by their names; answers are numbers, and no NaN."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attnflow import theory
from attnflow.theory.normalization import SCHEMES
from fuzz.values import Target, bad_tokens, choice, count, inf, odd, real, spec, times, tokens

MODELS = choice("sa", "usa")
SHORT = {
    "layers": count(1, 5),
    "max_layers": count(1, 50),
    "max_steps": count(1, 200),
    "steps": count(1, 5),
}
ARGUMENTS: dict[str, Any] = {
    "model": MODELS,
    "clock": choice("physical", "rescaled"),
    "scheme": choice(*SCHEMES),
    "log": st.booleans(),
    "strong": st.booleans(),
    "scaled": st.booleans(),
    "activation": choice("relu", "gelu"),
    "kind": choice("softmax", "linear"),
    "mask": choice(None, "causal"),
    **SHORT,
    "n": count(2, 40),
    "d": count(2, 8),
    "m": count(1, 2),
    "l": count(1, 6),
    "degree": count(0, 6),
    "heads": count(1, 4),
    "modes": count(1, 8),
    "beta": real(0.1, 30),
    "kappa": real(0.5, 20),
    "gamma": real(0.1, 4),
    "eta": real(0.01, 2),
    "value": real(0.1, 2),
    "rho": real(0, 0.99),
    "rho0": real(0, 0.9),
    "rho_max": real(0.9, 0.999),
    "cosine": real(0, 0.99),
    "gap": real(1e-9, 0.5),
    "gap0": real(0.5, 1),
    "delta": real(1e-3, 0.2),
    "tau": real(0.1, 1),
    "alpha": real(0.1, 0.9),
    "alpha0": real(0.1, 1),
    "radius": real(0.5, 3),
    "variance": real(0, 8),
    "gain": real(0.1, 2),
    "length": real(0.5, 2),
    "square": real(0.5, 1),
    "density": real(0.01, 5),
    "phi0": real(0.2, 3),
    "phi1": real(1e-6, 0.1),
    "u0": real(0.01, 1),
    "c": real(0.1, 1),
    "eps": real(0.01, 0.5),
    "lam": real(0.1, 1),
    "r0": real(0.01, 0.9),
    "t": real(0.1, 5),
    "ts": times(),
    "s": real(0.1, 5),
    "n0": count(16, 4096),
    "lead": real(0.1, 4),
    "floor": count(16, 8192),
    "rate": real(0.01, 1),
    "participation": real(1, 2),
    "tol": real(1e-15, 1e-3),
    "time_limit": choice(5.0),
}
three = st.lists(real(-3, 3), min_size=3, max_size=3)
square = st.lists(three, min_size=3, max_size=3).map(
    lambda a: (np.asarray(a) @ np.transpose(a) / 9 + np.eye(3)).tolist()
)
OWN: dict[str, dict[str, Any]] = {
    "gaussian.attention_map": {"mean": three, "covariance": square, "beta": real(0, 3)},
    "gaussian.velocity": {"mean": three, "covariance": square, "beta": real(0, 3)},
    "gaussian.path": {
        "mean": three,
        "covariance": square,
        "beta": real(0, 1),
        "ts": choice([0.0, 0.05, 0.1]),
    },
    "gaussian.closed_path": {
        "mean": three,
        "covariance": square,
        "beta": real(0, 1),
        "ts": choice([0.0, 0.05, 0.1]),
    },
    "gaussian.blow_up_time": {"covariance": square, "beta": real(0, 3)},
    "large_beta.heat_modes": {"modes": three, "ts": times(0.5)},
    "large_beta.limit_velocity": {"density": real(0.1, 3), "gradient": real(-3, 3)},
    "large_beta.heat_mixture": {
        "theta": three,
        "weights": choice([0.5, 0.5]),
        "means": choice([0.0, 1.0]),
        "variances": choice([0.2, 0.4]),
        "t": real(1e-3, 0.01),
    },
    "large_beta.alignment_path": {"ts": times(2.0), "x0": spec(((5, 3),))},
    "gibbs.first_order": {"beta": real(0, 3), "d": count(2, 3)},
    "gibbs.order_parameter": {"beta": real(0, 5), "d": count(2, 3)},
    "gibbs.free_energy": {"beta": real(0, 5), "d": count(2, 3)},
    "kuramoto.poisson_angles": {"n": count(2, 40)},
    "kuramoto.cross_ratios": {"theta": st.lists(real(0, 6), min_size=4, max_size=5, unique=True)},
    "modes.circle_modes": {"theta": three},
    "modes.line_modes": {"x": three},
    "modes.line_mode_band": {"n": count(10, 10**6)},
    "stationary.stationary_grams": {"n": count(2, 12)},
    "gram.gram": {"gram0": choice(0.1, 0.5), "beta": real(-3, 3)},
    "gram.gram_gap": {"gap0": choice(0.5, 0.9), "beta": real(-3, 3)},
    "gram.gram_post_ln": {"gram0": choice(0.1, 0.5)},
    "metastability.pairing_flow": {
        "x": spec(((5, 3),), ("one axis",)),
        "y": spec(((5, 3),), ("one axis",)),
    },
    "metastability.plateau_energies": {
        "pairs": choice([[0, 1], [2, 3]]),
        "weights": choice([0.2, 0.3, 0.5]),
    },
    "metastability.metastable_window": {"alpha": real(0.5, 0.99)},
    "logit_rules.lead_of_participation": {"n": count(2, 100)},
}
MATRICES = ("query", "key")
TOKENS = ("x", "y", "centers", "tokens", "x0")
OPTIONAL = ("weights", "query", "key", "kappa", "clock", "mask", "atol", "phi1")
GRAMS = ("gram0", "gap0")


def call(function: Callable[..., Any], own: tuple[str, ...], **arguments: Any) -> None:
    """Call a function; every number of its answer is one."""
    given = {}
    for name, value in arguments.items():
        if name in TOKENS:
            value = tokens(value)
        if name in own and name in GRAMS and isinstance(value, float):
            value = _gram(value, name)
        given[name] = np.asarray(value) if name == "theta" and isinstance(value, list) else value
    kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
    positional = [
        given.pop(name)
        for name, kind in kinds.items()
        if kind is not inspect.Parameter.KEYWORD_ONLY and name in given
    ]
    for array in _numbers(function(*positional, **given)):
        assert not np.isnan(array).any() or arguments.get("beta") == inf, "NaN"


def _gram(value: float, name: str) -> np.ndarray:
    """Equiangular tokens: their Gram matrix, or the matrix of their gaps."""
    off = ~np.eye(4, dtype=bool)
    return np.where(off, value, 0.0 if name == "gap0" else 1.0)


def _numbers(answer: Any) -> list[np.ndarray]:
    """Arrays in an answer, down to the fields of what holds them."""
    if isinstance(answer, dict):
        return [array for part in answer.values() for array in _numbers(part)]
    if is_dataclass(answer):
        return [a for f in fields(answer) for a in _numbers(getattr(answer, f.name))]
    if isinstance(answer, list | tuple):
        return [array for part in answer for array in _numbers(part)]
    return [] if answer is None or isinstance(answer, str) else [np.asarray(answer, float)]


def _target(name: str, function: Callable[..., Any]) -> Target:
    own = OWN.get(name, {})
    good, bad = {}, {}
    for parameter in inspect.signature(function).parameters.values():
        key, required = parameter.name, parameter.default is inspect.Parameter.empty
        if key in own:
            good[key] = own[key]
        elif key in TOKENS:
            good[key], bad[key] = spec(((5, 3),)), bad_tokens
        elif key in SHORT:
            good[key] = SHORT[key]
        elif key in ARGUMENTS and (required or key not in OPTIONAL):
            good[key] = (
                ARGUMENTS[key]
                if required
                else st.one_of(st.just(parameter.default), ARGUMENTS[key])
            )
        elif required:
            raise KeyError(f"Nothing is known of {name}({key}).")
        if key in SHORT:  # a number of layers or steps is a time, and may be asked to be long
            bad[key] = odd.filter(lambda value: not (isinstance(value, int) and value > 200))
        if key in ("n", "d", "l", "degree", "modes", "n0") and key in good:
            bad[key] = odd.filter(
                lambda value: not (isinstance(value, int | float) and 100 < value < inf)
            )
        if name.startswith("gibbs.") and key in ("beta", "d"):  # minutes where densities are narrow
            bad[key] = odd.filter(
                lambda value: not (isinstance(value, int | float) and 3 < value < inf)
            )
        if name.startswith("gram.gram") and key in (
            "beta",
            "value",
            "ts",
        ):  # rates of e^beta are stiff
            bad[key] = odd.filter(lambda value: not isinstance(value, int | float | list))
        if key == "time_limit":
            bad[key] = None
    return Target(partial(call, function, tuple(own)), good, 0.4, bad)


def _public(module: Any) -> dict[str, Callable[..., Any]]:
    """Functions of a module of the theory."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    found = {name: getattr(module, name) for name in names if not name.startswith(("_", "check_"))}
    return {name: f for name, f in found.items() if inspect.isfunction(f)}


TARGETS = {
    f"theory.{module}.{name}": _target(f"{module}.{name}", function)
    for module in theory.__all__
    for name, function in _public(getattr(theory, module)).items()
    if not (module != "metastability" and module in ("two_clusters", "staircase", "renyi"))
}
