"""Scale advisor: where a model's heads stand at longer contexts, and the logits that keep their outputs apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.errors import check_count

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

LAWS = ("fixed", "growing")
"""What a head's lead does at another length: nothing, or what it did from half of the text to all of it."""
LOGITS = ("unscaled", *LAWS, "one factor")
"""What is measured again: the model as it is, a factor per head under either law, and one for all heads."""
RULES = ("log n", "YaRN", "Llama 4")
WEAKEST, STRONGEST = 1e-3, 50.0
"""Leads are told between these: a head that averages, and one that looks at one key."""
CURVE = 65
"""Points of curves over the length."""


@dataclass(frozen=True)
class Config:
    """Settings of the scale advisor."""

    model: str = "minilm"
    """Folder of a Hugging Face checkpoint, or minilm."""
    lengths: tuple[str, ...] = ("1k", "4k", "32k", "128k")
    """Numbers of tokens to tell the scale for; 1k is 1024."""
    text: str = field(default="", metadata={"file": True})
    """Text file to measure heads on. Open: the licence of this package."""
    n0: int | None = None
    """Number of tokens at which heads are measured and whose cosines are kept. Open: all that the text has
    and the model allows."""
    apply: bool = False
    """Scale the model and measure it again, at lengths that the text has and the model allows."""
    dtype: Literal["float32"] = "float32"
    """Precision of the model; statistics are in float64."""


def resolve(config: Config) -> Config:
    """The config, once every setting makes sense."""
    sizes(config.lengths)
    if config.n0 is not None:
        check_count(config.n0, "n0", 4)
    if config.text and not Path(config.text).is_file():
        raise ValueError(f"Argument `text` must be a file, but text={config.text!r} is none.")
    return config


def sizes(lengths: tuple[str, ...]) -> list[int]:
    """Numbers of tokens, rising, of words such as 512, 4k (4096) and 1m (2^20)."""
    found = set()
    for word in lengths:
        digits, power = (
            (word[:-1], "kmg".find(word[-1:].lower()) + 1) if word[-1:].isalpha() else (word, 0)
        )
        if (
            not digits.isdecimal()
            or (power == 0 and word[-1:].isalpha())
            or int(digits) * 1024**power < 2
        ):
            raise ValueError(
                f"Argument `lengths` must hold numbers of tokens >= 2, but one is {word!r}. "
                "Write 512, 4k or 1m."
            )
        found.add(int(digits) * 1024**power)
    if not found:
        raise ValueError("Argument `lengths` must hold a number of tokens, but it is empty.")
    return sorted(found)


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    """Measure the heads of a model on a text, and tell their logit scale at other lengths; see `advise`.

    Args:
        config: Settings.
        progress: Not used: it takes seconds.
        checkpoint: Not used.

    Returns:
        As `advise`.

    Raises:
        ValueError: If a setting is out of range, the model has no attention, or the text is too short.
        ImportError: If the extra `models` is missing.
    """
    config = resolve(config)
    model, tokenizer = af.models.load(config.model)
    if tokenizer is None:
        raise ValueError(
            f"Argument `model` must have a tokenizer, but {config.model} holds none. Save it beside the weights."
        )
    longest = limit(model)
    tokens = tokenizer(
        read_text(config.text), return_tensors="pt", truncation=True, max_length=longest or 2**17
    ).input_ids
    data = advise(model, tokens, sizes(config.lengths), n0=config.n0, apply=config.apply)
    settings = {
        k: v
        for k, v in asdict(config).items()
        if k not in ("lengths", "n0", "apply", "dtype", "model")
    }
    return data.assign_attrs(settings, source=config.model, limit=longest or 0)


def advise(
    model: Any, tokens: Any, lengths: list[int], *, n0: int | None = None, apply: bool = False
) -> xr.Dataset:
    r"""Scale of every head's logits at other lengths that keeps the cosine of its outputs.

    A head counts as the equiangular head with its participation and its cosine of values: the lead
    $\lambda = \beta(1-\rho)$ of one key's logit (`theory.logit_rules.lead_of_participation`), so
    $\gamma = \frac{\lambda}{(1-\rho)\log n}$ and the output cosine $C_n$ (`theory.long_context.output_cosine`),
    exact for values of equal lengths and cosines and keys that are all heard as much. Factors are
    `theory.logit_rules.keep_cosine`, over the lead at that length: either it stays, or it grows by
    $\log n$ times its slope from n0/2 to n0, if that is positive; and it follows the rule that the model itself
    applies, if any (`models.own_factors`).

    Args:
        model: Model of transformers, in evaluation mode.
        tokens: Token ids of one text, shape (1, at least n0).
        lengths: Numbers of tokens, rising.
        n0: Number of tokens at which heads are measured, at least 4; all by default.
        apply: Scale the model and measure it again.

    Returns:
        Of every head (layer, head) at n0: `participation`, `std_logit`, `rho`, `sink`, `lead`, `gamma`, `slope`,
        `cosine`, `measured`. At each length: `cosine_at` without scaling and `factor` (law, length, layer, head),
        `own` (length, layer), what the model's own rule brings over n0, `one_factor` (length), which keeps the
        mean cosine of all heads under the growing lead, `rules` (rule, length); curves of them over
        `curve_length`. If applied, `applied` and what was `expected` (logits, length, layer, head), NaN where
        the text is too short.

    Raises:
        ValueError: If the text or n0 is too short.
    """
    import xarray as xr

    from attnflow.models import measure_heads, output_cosines, own_factors, own_rules

    n0 = int(tokens.shape[-1]) if n0 is None else n0
    check_count(n0, "n0", 4)
    if n0 > tokens.shape[-1]:
        raise ValueError(
            f"Argument `n0` must not exceed the text, but n0={n0} and it has {tokens.shape[-1]} tokens "
            "that the model allows. Pass a longer text."
        )
    half, now = (measure_heads(model, tokens[:, :n]) for n in (n0 // 2, n0))
    lead = lead_of(now, n0)
    slope = (lead - lead_of(half, n0 // 2)) / np.log(n0 / (n0 // 2))
    own = lambda n: (own_factors(model, n) / own_factors(model, n0))[:, None]
    heads = Heads(n0, lead, np.clip(now.rho, 0.0, 1 - 1e-9), np.maximum(slope, 0.0), own)
    place = ("layer", "head")
    per_head = {
        "participation": now.participation, "std_logit": now.std_logit, "rho": now.rho, "sink": now.sink,
        "lead": lead, "slope": slope, "gamma": lead / (1 - heads.rho) / np.log(n0),
        "cosine": heads.cosine(n0, "fixed"), "measured": now.cosine,
    }  # fmt: skip
    data: dict[str, Any] = {name: (place, values) for name, values in per_head.items()}
    first, last = min(n0, *lengths), max(n0, *lengths)
    curve = np.unique(np.geomspace(first, last, CURVE).round().astype(int))
    for prefix, where in (("", np.array(lengths)), ("curve_", curve)):
        axis = f"{prefix}length"
        factor = np.array([[heads.factor(int(n), law) for n in where] for law in LAWS])
        data[f"{prefix}factor"] = (("law", axis, *place), factor)
        data[f"{prefix}one_factor"] = (axis, [heads.one_factor(int(n)) for n in where])
        data[f"{prefix}rules"] = (("rule", axis), rules(where, n0))
    at = np.array([[heads.cosine(n, law) for n in lengths] for law in LAWS])
    data["cosine_at"] = (("law", "length", *place), at)
    data["own"] = (("length", "layer"), np.array([own(n)[:, 0] for n in lengths]))
    if apply:
        shape = (len(LOGITS), len(lengths), *lead.shape)
        applied, expected = np.full(shape, np.nan), np.full(shape, np.nan)
        for j, n in enumerate(lengths):
            one = data["one_factor"][1][j]
            factors = [1.0, *(data["factor"][1][:, j]), one]
            expected[:, j] = [
                heads.cosine(n, law, factor)
                for law, factor in zip(("growing", *LAWS, "growing"), factors, strict=True)
            ]
            if n <= tokens.shape[-1]:
                applied[:, j] = [output_cosines(model, tokens[:, :n], f) for f in factors]
        data["applied"] = (("logits", "length", *place), applied)
        data["expected"] = (("logits", "length", *place), expected)
    return xr.Dataset(
        data,
        coords={
            "layer": np.arange(lead.shape[0]), "head": np.arange(lead.shape[1]), "length": lengths,
            "curve_length": curve, "law": list(LAWS), "rule": list(RULES), "logits": list(LOGITS),
        },
        attrs={
            "experiment": "scale",
            "equation": "C_n = 1 - D^2 (1-rho)/(D^2 + (1-D^2) m), D = (E-1)/(E+n-1), E = exp(lead)",
            "units": "dimensionless",
            "n0": n0,
            "tokens": int(tokens.shape[-1]),
            "model": type(model).__name__,
            "causal": int(_is_causal(model)),
            "own_rules": "; ".join(own_rules(model)),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """Heads as the theory has them, arrays of shape (layers, heads)."""

    n0: int
    lead: np.ndarray
    rho: np.ndarray
    slope: np.ndarray
    own: Callable[[int], np.ndarray] = lambda n: np.ones(1)

    def lead_at(self, n: int, law: str) -> np.ndarray:
        """Lead at another length, at least a tenth of that at n0, times what the model's own rule brings."""
        grown = self.lead + (law == "growing") * self.slope * np.log(n / self.n0)
        return np.maximum(grown, self.lead / 10) * self.own(n)

    def cosine(self, n: int, law: str, factor: Any = 1.0) -> np.ndarray:
        """Output cosine at another length, logits times a factor."""
        beta = factor * self.lead_at(n, law) / (1 - self.rho)
        return af.theory.long_context.output_cosine(self.rho, n=n, beta=beta)

    def factor(self, n: int, law: str) -> np.ndarray:
        """Factor of every head that keeps its cosine."""
        kept = af.theory.logit_rules.keep_cosine(n, n0=self.n0, lead=self.lead, rho=self.rho)
        return kept * self.lead / self.lead_at(n, law)

    def one_factor(self, n: int) -> float:
        """Factor of all heads that keeps their mean cosine under the growing lead, by bisection."""
        wanted = self.cosine(self.n0, "fixed").mean()
        each = self.factor(n, "growing")
        low, high = float(each.min()), float(each.max())
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cosine(n, "growing", middle).mean() > wanted
            low, high = (middle, high) if below else (low, middle)
        return (low + high) / 2


def lead_of(heads: Any, n: int) -> np.ndarray:
    """Lead of heads measured at n tokens, shape (layers, heads)."""
    shared = np.clip(heads.participation, 1 + 1e-12, n)
    lead = af.theory.logit_rules.lead_of_participation(shared, n=n)
    return np.clip(lead, WEAKEST, STRONGEST)


def rules(n: Any, n0: int) -> np.ndarray:
    """Factors of the published rules, shape (rule, n)."""
    theory = af.theory.logit_rules
    return np.stack([theory.log_n(n, n0=n0), theory.yarn(n, n0=n0), theory.llama4(n)])


def limit(model: Any) -> int:
    """Longest text that a model has positions for; 0 where it does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0)


def read_text(path: str) -> str:
    """Text of a file, or the licence of this package."""
    if path:
        return Path(path).read_text(encoding="utf-8")
    from importlib.metadata import distribution

    return distribution("attnflow").read_text("licenses/LICENSE") or ""


def _is_causal(model: Any) -> bool:
    return any(bool(getattr(module, "is_causal", False)) for module in model.modules())


def draw(data: xr.Dataset) -> Figure:
    """Heads on the plane of scale and cosine, factors of all rules over the length, and what was measured."""
    from attnflow.experiments.scale_figure import figure

    return figure(data)


def summary(data: xr.Dataset) -> str:
    """Tables: heads now, factors of every rule, and the scaled model measured again."""
    from attnflow.experiments.scale_tables import tables

    return tables(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Everything as plain JSON values; numbers that were not measured are null."""
    from attnflow.experiments.scale_tables import plain

    return {
        **{name: data.attrs[name] for name in ("model", "n0", "tokens")},
        **{str(name): plain(data[name].values) for name in data.coords},
        **{str(name): plain(data[name].values) for name in data.data_vars},
    }
