"""Trained model: how its tokens cluster with depth, what draws them together, and which theorem may say so."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments.trained_model_figure import draw
from attnflow.experiments.trained_model_page import page
from attnflow.experiments.trained_model_scene import kept_states, scene

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Config", "draw", "failures", "numbers", "page", "resolve", "run", "scene", "summary"]

CONTROLS = ("shuffled", "repeated", "random-init")
CONDITION = re.compile(
    r"(\w+)\s*([<>])\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*@\s*(last|any|\d+)"
)
STEP_NAMES = {
    "attention": "attention",
    "attention_norm": "norm after it",
    "mlp": "MLP",
    "mlp_norm": "norm after that",
}
NAMES = {"rho": "mean_cosine", "rank": "effective_rank", "entropy": "entropy", "gap": "gap"}


@dataclass(frozen=True)
class Config:
    """Settings of the probe."""

    model: str = "minilm"
    """Folder of a Hugging Face checkpoint with *.safetensors, or minilm, the model that ships in a package;
    or saved hidden states, .npz or .safetensors."""
    text: str = field(default="", metadata={"file": True})
    """Text file; empty takes the descriptions of scikit-learn's data sets, English prose."""
    tokens: int = 512
    """Largest number of tokens, cut off beyond."""
    controls: bool = True
    """Whether shuffled tokens, one token repeated and a random-weight twin run beside it."""
    seed: int = 0
    """Seed of the shuffle and of the twin."""
    dtype: Literal["float32"] = "float32"
    """Precision of the model; statistics are in float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Probe a model on a text, with controls, and put theory beside it.

    Theory takes what was measured at the entry, n tokens of common cosine rho_0, and the median over heads of
    scale |q||k| as beta: `aligned_cosine`, layers of Q = K = V = I under the model's norm scheme, the worst case;
    `random_cosine`, fresh random layers with an MLP. `head_gamma` = head_beta / log n and `predicted_output`
    (block, head), the exact cosine of one layer's outputs for equiangular keys, place each head on the
    long-context phase diagram; `output_cosine` is what it gives.

    Args:
        config: Settings.
        progress: Not used: one forward pass per control.
        checkpoint: Not used.

    Returns:
        What `models.probe` says, what `trained_model_scene.kept_states` keeps of the states, `control_cosine` and
        `control_rank` (control, layer), and theory as above.
        Attributes `holds` and `fails`: hypotheses of the theorems, in words, with the numbers.

    Raises:
        ValueError: If the model or the text cannot be read, or states are not finite.
        ImportError: If the extra `models` is missing.
    """
    from attnflow.errors import check_count
    from attnflow.models import probe_states, read_states

    check_count(config.tokens, "tokens", low=2)
    if Path(config.model).suffix in (".npz", ".safetensors"):
        states = read_states(config.model)
        data = probe_states(states)
        data = data.assign(kept_states(np.stack(states).astype(float), (), data.attrs["beta"]))
    else:
        data = _probe(config)
    data = data.assign(_theory(data))
    held, failed = _hypotheses(data)
    return data.assign_attrs(
        experiment="trained-model",
        equation="x <- norm(x, attention), then MLP; rho is the mean cosine of pairs i != j",
        units="dimensionless",
        holds=held,
        fails=failed,
        **{name: value for name, value in asdict(config).items() if name not in ("dtype", "model")},
        source=config.model,
    )


def _probe(config: Config) -> xr.Dataset:
    """Numbers of a checkpoint on the text, and of the controls."""
    import torch

    from attnflow.models import load, probe, weight_table

    model, tokenizer = load(config.model)
    if tokenizer is None:
        raise ValueError(
            f"Argument `model` must come with a tokenizer, but {config.model} has none. "
            "Call `models.probe(model, inputs)`, or save its hidden states."
        )
    longest = int(getattr(model.config, "max_position_embeddings", config.tokens))
    cut = {"truncation": True, "max_length": min(config.tokens, longest)}
    inputs = tokenizer(_text(config), return_tensors="pt", **cut)
    inputs = {name: inputs[name] for name in inputs if name != "token_type_ids"}
    data = probe(model, inputs, states=True)
    words = [tokenizer.decode([i]).strip() or repr(i) for i in inputs["input_ids"][0].tolist()]
    kept = kept_states(data.tokens.values, words, data.attrs["beta"])
    data = data.drop_vars("tokens").assign(kept)
    table = weight_table(model)
    if table.sizes["layer"] == data.sizes["block"]:
        share = table.symmetric.sel(matrix="scores").values
        data = data.assign(
            symmetric_share=(("block", "head"), share),
            value_alignment=(("block", "head"), table.alignment.values),
        )
    if not config.controls:
        return data
    ids = inputs["input_ids"]
    draw = torch.Generator().manual_seed(config.seed)
    inner = torch.randperm(ids.shape[1] - 2, generator=draw) + 1
    shuffled = torch.cat([ids[:, :1], ids[:, inner], ids[:, -1:]], dim=1)
    repeated = ids.clone()
    repeated[:, 1:-1] = ids[0, ids.shape[1] // 2]
    state = torch.random.get_rng_state()
    torch.manual_seed(config.seed)
    twin = type(model)(model.config).eval()
    torch.random.set_rng_state(state)
    runs = [
        probe(m, inputs | {"input_ids": x}, heads=False, beta=data.attrs["beta"])
        for m, x in ((model, shuffled), (model, repeated), (twin, ids))
    ]
    return data.assign(
        control_cosine=(("control", "layer"), np.stack([r.mean_cosine for r in runs])),
        control_rank=(("control", "layer"), np.stack([r.effective_rank for r in runs])),
    ).assign_coords(control=list(CONTROLS))


def _text(config: Config) -> str:
    """Text to probe on."""
    if not config.text:
        from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

        sets: tuple[Any, ...] = (load_breast_cancer(), load_iris(), load_wine(), load_diabetes())
        return "\n".join(one.DESCR for one in sets)
    try:
        return Path(config.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Argument `text` must be a readable text file, but text={config.text!r}: {error}."
        ) from None


def _theory(data: xr.Dataset) -> dict[str, Any]:
    """Predictions from what was measured at the entry."""
    a, layers = data.attrs, data.sizes["block"]
    n = a["n"]
    beta = float(np.median(data.head_beta)) if "head_beta" in data else a["beta"]
    scheme = a["scheme"] if a["scheme"] in ("post", "pre", "peri") else "pre"
    gap0 = float(np.clip(data.gap.values[0], 0, 1))
    unit = np.sqrt(a["d"])
    radius = 1.0 if scheme == "post" else max(float(data.radius.values[0]) / unit, 1e-6)
    aligned = af.theory.normalization.layer_course(
        scheme, gap0, layers=layers, n=n, beta=beta, radius=radius
    )  # fmt: skip
    variance = float(np.mean(data.std_logit.values**2)) if "std_logit" in data else 1.0
    fresh = af.theory.random_weights.random_layer_course(
        scheme, gap0, layers=layers, n=n, variance=min(variance, 64.0), activation="gelu", radius=radius
    )  # fmt: skip
    found: dict[str, Any] = {
        "aligned_cosine": ("layer", 1 - aligned.gap),
        "random_cosine": ("layer", 1 - fresh.gap),
    }
    if "head_beta" in data:
        rho = np.clip(data.mean_cosine.values[:-1, None], 1e-6, 1 - 1e-9)
        found["head_gamma"] = (("block", "head"), data.head_beta.values / np.log(n))
        found["predicted_output"] = (
            ("block", "head"),
            af.theory.long_context.output_cosine(
                np.broadcast_to(rho, data.head_beta.shape), n=n, beta=data.head_beta.values
            ),
        )
    return found


def _hypotheses(data: xr.Dataset) -> tuple[list[str], list[str]]:
    """Which assumptions of the theorems hold for this model and text, and which fail, in plain words."""
    a = data.attrs
    spread = float((data.radius_spread / data.radius).max())
    uneven = float(data.std_cosine.max())
    side = float(data.hemisphere.min())
    energy = np.diff(np.log(data.energy.values))
    checks = [
        (spread < 0.01, "tokens of one length", f"lengths spread by {spread:.0%}"),
        (uneven < 0.05, "one cosine for all pairs", f"cosines spread by up to {uneven:.2f}"),
        (
            side > 0,
            "all tokens in one open hemisphere",
            f"smallest cosine with their mean is {side:.2f}",
        ),
        (
            bool((energy >= 0).all()),
            "energy rises with depth",
            f"it falls in {int((energy < 0).sum())} layers",
        ),
        (
            False,
            "one set of weights for all layers, no MLP, V = I",
            "trained layers differ and hold MLPs",
        ),
    ]
    if "head_beta" in data:
        low, high = float(data.head_beta.min()), float(data.head_beta.max())
        checks.append(
            (high < 2 * low, "one inverse temperature", f"heads have beta {low:.1f} to {high:.1f}")
        )
    if "symmetric_share" in data:
        share, align = float(data.symmetric_share.mean()), float(data.value_alignment.mean())
        checks.append(
            (share > 0.95, "scores Q^T K symmetric", f"{share:.0%} of their square is symmetric")
        )
        checks.append(
            (align > 0.95, "values V = c Q^T K, c > 0", f"their cosine with it is {align:.2f}")
        )
    known = a["scheme"] != "unknown"
    checks.append(
        (known, f"norm scheme recognised ({a['scheme']})", "norm scheme unknown, read as pre")
    )
    return [name for ok, name, _ in checks if ok], [
        f"{name}: {why}" for ok, name, why in checks if not ok
    ]


def read_conditions(condition: str) -> list[re.Match[str]]:
    """Parts of a condition like `rho>0.9@last,rank<10@any`."""
    matches = [CONDITION.fullmatch(part.strip()) for part in condition.split(",")]
    found = [match for match in matches if match is not None and match[1] in NAMES]
    if len(found) < len(matches):
        raise ValueError(
            f"Argument `fail_on` must be like 'rho>0.9@last' with one of {', '.join(NAMES)}, and last, any or "
            f"a layer, but fail_on={condition!r}."
        )
    return found


def failures(data: xr.Dataset, condition: str) -> list[str]:
    """What of `rho>0.9@last` is true of a model: sentences, none if it passes.

    Conditions join by commas: a name (rho, rank, entropy, gap), < or >, a number, @ and last, any, or a layer.
    """
    found = []
    for match in read_conditions(condition):
        if NAMES[match[1]] not in data:
            raise ValueError(
                f"Argument `fail_on` must be of what was measured, but fail_on={condition!r} and there are no heads."
            )
        values = data[NAMES[match[1]]].values
        values = values.min(axis=1) if values.ndim == 2 else values
        where = {"last": [len(values) - 1], "any": list(range(len(values)))}.get(match[4])
        where = [int(match[4])] if where is None else where
        if where[-1] >= len(values):
            raise ValueError(
                f"Argument `fail_on` must name a layer below {len(values)}, but fail_on={condition!r}."
            )
        limit = float(match[3])
        bad = [k for k in where if (values[k] > limit) == (match[2] == ">") and values[k] != limit]
        found += [f"{match[1]} is {values[k]:.4g} at layer {k}, {match[0]}" for k in bad]
    return found


def summary(data: xr.Dataset) -> str:
    """Assumptions, then a table over layers."""
    a = data.attrs
    lines = [
        f"{a['source']} ({a['model']}), {a['n']} tokens of {a['d']} dimensions, norm scheme {a['scheme']}",
        "",
        "What theory assumes, and",
        *(f"  holds: {text}" for text in a["holds"]),
        *(f"  fails: {text}" for text in a["fails"]),
        "",
        f"{'layer':>5}{'rho':>8}{'centred':>9}{'masked':>8}{'rank':>8}{'clusters':>10}{'radius':>9}"
        f"{'influence':>11}{'entropy':>9}{'beta':>7}{'aligned':>9}{'random':>8}",
    ]
    for k in range(data.sizes["layer"]):
        row = data.isel(layer=k)
        line = (
            f"{k:>5}{float(row.mean_cosine):>8.4f}{float(row.centred_cosine):>9.4f}{float(row.masked_cosine):>8.4f}"
            f"{float(row.effective_rank):>8.1f}{int(row.clusters):>10}{float(row.radius):>9.3g}"
        )
        if k:
            line += f"{float(data.influence[k - 1]):>11.4f}"
            heads = "entropy" in data
            line += f"{float(data.entropy[k - 1].mean()):>9.3f}" if heads else " " * 9
            line += f"{float(data.head_beta[k - 1].median()):>7.2f}" if heads else " " * 7
        else:
            line += " " * 27
        lines.append(line + f"{float(row.aligned_cosine):>9.4f}{float(row.random_cosine):>8.4f}")
    lines += [
        "",
        f"rank: effective rank; {a['random_rank']:.1f} for Gaussian tokens of this shape. 1 - rho is rounded at "
        f"{float(data.floor.max()):.0e} ({a['precision']}).",
        "aligned, random: rho that theory gives with this entry, for Q = K = V = I and for fresh weights.",
    ]
    if "contraction" in data:
        total = data.contraction.sum("block")
        parts = ", ".join(
            f"{STEP_NAMES[name]} {float(total.sel(step=name)):+.2f}" for name in total.step.values
        )
        lines.append(f"log(1 - rho) changed over all layers by: {parts}.")
    if "control_cosine" in data:
        last = data.isel(layer=-1)
        parts = ", ".join(
            f"{c} {float(last.control_cosine.sel(control=c)):.3f}" for c in data.control.values
        )
        lines.append(f"rho after the last layer of the controls: {parts}.")
    return "\n".join(lines)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Every series over layers, blocks and heads, as plain JSON values."""
    skipped = ("histogram", "positions", "token_labels", "token_radius", "word")
    found = {str(name): _plain(data[name].values) for name in data.data_vars if name not in skipped}
    return found | {
        name: data.attrs[name]
        for name in ("scheme", "holds", "fails", "random_rank", "n", "d", "beta")
    }


def _plain(values: Any) -> Any:
    """Nested lists, None for what is not finite."""
    if values.ndim:
        return [_plain(value) for value in values]
    value = values.item()
    return value if not isinstance(value, float) or np.isfinite(value) else None
