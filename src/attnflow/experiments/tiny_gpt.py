"""Tiny GPT: a character Transformer trained under three normalisation schemes, beside the predicted collapse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SCHEMES = ("post", "pre", "peri")
MEASURED = ("init", "full", "trained")
"""At initialisation, the same without the causal mask, and after training."""
ROWS, TEST_ROWS = 16, 128
"""Windows of held-out text for hidden states and gradients, and for the loss."""


@dataclass(frozen=True)
class Config:
    """Settings of the tiny GPT."""

    d: int = 64
    """Width."""
    heads: int = 4
    """Number of heads, a divisor of the width."""
    n: int = 64
    """Characters of a window."""
    shallow: int = 4
    """Layers of the shallow models; a layer is attention and an MLP."""
    deep: int = 12
    """Layers of the deep models."""
    steps: int = 500
    """Steps of training, of AdamW with gradients clipped at norm 1."""
    batch: int = 16
    """Windows of a step."""
    learning_rate: float = 1e-3
    """Largest learning rate, the same for all models."""
    warmup: int = 50
    """Steps over which the learning rate rises."""
    draws: int = 4
    """Draws of the weights at initialisation; the first one is trained."""
    characters: int = 450_000
    """Characters of Python's reference that are read; the last tenth is held out."""
    seed: int = 0
    """Seed of weights and windows."""
    dtype: Literal["float32"] = "float32"
    """Precision of the models; statistics are in float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: there is none."""
    return config


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Train six models on one text, and follow their hidden states through depth before and after.

    Text is Python's own reference (`pydoc_data.topics`). At initialisation weights are Gaussian of variance
    1/columns, so scores have variance 1, and theory is `theory.random_weights.random_layer_course` from the measured
    cosine and radius of the embeddings. Theory has no causal mask, under which token i averages i tokens, not n:
    so the models are also measured without it. Of gradients and of training it says nothing.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after
            each training.

    Returns:
        `loss` (scheme, depth, step), of training; `test_loss` (scheme, depth), both in nats a character;
        `rho`, mean cosine of tokens of one window, `effective_rank` and `radius`, in units of sqrt(d), each
        (measured, scheme, depth, layer), NaN beyond the depth, and `rho_error`, standard deviation over draws, NaN
        after training; `rho_theory` (scheme, depth, layer); `gradient` (scheme, depth, block), norm of the gradient of
        a block's weights at initialisation. Held-out text throughout, but for `loss`.

    Raises:
        ValueError: If a setting is out of range, before work starts.
        ImportError: If PyTorch is missing.
    """
    import xarray as xr

    check(config)
    found = _train_all(config, progress, checkpoint)
    depths = [config.shallow, config.deep]
    path = ("measured", "scheme", "depth", "layer")
    return xr.Dataset(
        {
            "loss": (("scheme", "depth", "step"), found["loss"], {"units": "nats/character"}),
            "test_loss": (("scheme", "depth"), found["test_loss"], {"units": "nats/character"}),
            "rho": (path, found["rho"], {"long_name": "mean cosine of tokens"}),
            "rho_error": (path, found["rho_error"], {"long_name": "standard deviation over draws"}),
            "effective_rank": (path, found["effective_rank"]),
            "radius": (path, found["radius"], {"units": "sqrt(d)"}),
            "rho_theory": (path[1:], _theory(config, found)),
            "gradient": (("scheme", "depth", "block"), found["gradient"]),
        },
        {
            "scheme": list(SCHEMES), "depth": depths, "measured": list(MEASURED),
            "step": np.arange(config.steps), "layer": np.arange(config.deep + 1),
            "block": np.arange(1, config.deep + 1),
        },
        attrs={
            "experiment": "tiny-gpt",
            "equation": "x <- norm(x, attention), then MLP; scores <q, k>/sqrt(d/heads), causal",
            "units": "dimensionless",
            "text": f"pydoc_data.topics, sha256 {str(found['text'])[:16]}",
            "alphabet": int(found["alphabet"]),
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )  # fmt: skip


def draw(data: xr.Dataset) -> Figure:
    """Loss curves, cosine over depth beside theory, effective rank, and gradients of every block."""
    from attnflow.experiments.tiny_gpt_figure import figure

    return figure(data)


def summary(data: xr.Dataset) -> str:
    """Table of losses and last cosines, and which predicted orders hold."""
    from attnflow.experiments.tiny_gpt_figure import table

    return table(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Losses, last cosines and orders, as plain JSON values."""
    ends = {name: at_end(data, name) for name in ("rho", "effective_rank", "rho_theory")}
    return {
        "scheme": data.scheme.values.tolist(),
        "depth": data.depth.values.tolist(),
        "test_loss": data.test_loss.values.tolist(),
        **{f"last_{name}": values.tolist() for name, values in ends.items()},
        "gradient_first_over_last": gradient_ratio(data).tolist(),
        "orders": orders(data),
    }


def at_end(data: xr.Dataset, name: str) -> np.ndarray:
    """A statistic after the last layer of every model, shape (..., scheme, depth)."""
    return np.stack(
        [data[name].sel(depth=depth, layer=depth).values for depth in data.depth.values], axis=-1
    )


def orders(data: xr.Dataset) -> dict[str, dict[str, list[str]]]:
    """Schemes of every depth, most collapsed first, predicted and measured; and by loss, lowest first."""
    ends, schemes, found = at_end(data, "rho"), data.scheme.values, {}
    for k, depth in enumerate(data.depth.values):
        by = {"predicted": -at_end(data, "rho_theory")[:, k], "loss": data.test_loss.values[:, k]}
        by |= {name: -ends[m, :, k] for m, name in enumerate(data.measured.values)}
        found[str(depth)] = {name: schemes[np.argsort(v)].tolist() for name, v in by.items()}
    return found


def gradient_ratio(data: xr.Dataset) -> np.ndarray:
    """Gradient of the first block over that of the last, shape (scheme, depth)."""
    last = [data.gradient.sel(depth=depth, block=depth).values for depth in data.depth.values]
    return data.gradient.sel(block=1).values / np.stack(last, axis=-1)


def check(config: Config) -> None:
    """Refuse what cannot be trained, before work starts."""
    from attnflow.errors import check_between, check_count, check_finite

    lows = {"d": 2, "heads": 1, "n": 2, "shallow": 1, "deep": 2, "steps": 1, "batch": 1, "warmup": 0,
            "draws": 2, "characters": 1, "seed": 0}  # fmt: skip
    for name, low in lows.items():
        check_count(getattr(config, name), name, low=low)
    if config.d % config.heads:
        raise ValueError(
            f"Argument `heads` must divide d={config.d}, but heads={config.heads}."
        )  # fmt: skip
    check_between(config.deep, "deep", low=config.shallow + 1)
    check_between(
        config.characters, "characters", low=20 * (config.n + 1),
        remedy="A tenth is held out, and must hold windows of n characters.",
    )  # fmt: skip
    check_finite(config.learning_rate, "learning_rate")
    check_between(config.learning_rate, "learning_rate", low=0.0, open_low=True)


def _train_all(config: Config, progress: bool, checkpoint: Any) -> dict[str, np.ndarray]:
    """Measure and train every model, deep ones last."""
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportError(
            "Training a model needs PyTorch. Install it: pip install 'attnflow[models]'."
        ) from None
    from tqdm import tqdm

    from attnflow.experiments import tiny_gpt_model as gpt

    text, alphabet, digest = gpt.read_text(config.characters)
    models = [(d, s) for d in range(2) for s in range(len(SCHEMES))]
    done, found = 0, _empty(config) | {"text": digest, "alphabet": np.asarray(len(alphabet))}
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    total = len(models) * config.steps
    with (
        gpt.one_thread(),
        tqdm(initial=done * config.steps, total=total, disable=not progress, unit="step") as bar,
    ):
        for number, (at, which) in enumerate(models[done:], done + 1):
            scheme, layers = SCHEMES[which], (config.shallow, config.deep)[at]
            cell = which, at
            bar.set_description(f"{scheme}, {layers} layers")
            _measure_start(config, gpt, text, (scheme, layers, len(alphabet)), cell, found)
            model = gpt.new_model(config, scheme, layers, len(alphabet))
            found["loss"][cell] = gpt.train(config, model, text, lambda: bar.update())
            with torch.no_grad():
                test = gpt.loss_of(model, gpt.held_out(config, text, TEST_ROWS))
                found["test_loss"][cell] = float(test)
            _enter(found, "trained", cell, [gpt.measure(config, model, text, ROWS)])
            if checkpoint is not None and number < len(models):
                checkpoint.save(number, found)
    return found


def _empty(config: Config) -> dict[str, np.ndarray]:
    """NaN in the shape of every result."""
    models = len(SCHEMES), 2
    path = (len(MEASURED), *models, config.deep + 1)
    shapes = {
        "loss": (*models, config.steps),
        "test_loss": models,
        "gradient": (*models, config.deep),
    }
    shapes |= dict.fromkeys(("rho", "rho_error", "effective_rank", "radius"), path)
    return {name: np.full(shape, np.nan) for name, shape in shapes.items()}


def _measure_start(config, gpt, text, kind, cell, found) -> None:
    """Hidden states and gradients of fresh weights, mean over draws."""
    rows, gradients = {"init": [], "full": []}, []
    for draw in range(config.draws):
        model = gpt.new_model(config, *kind, draw)
        for name, kept in rows.items():
            kept.append(gpt.measure(config, model, text, ROWS, causal=name == "init"))
        gradients.append(gpt.gradient_norms(model, gpt.held_out(config, text, ROWS)))
    for name, kept in rows.items():
        _enter(found, name, cell, kept)
    found["gradient"][(*cell, slice(kind[1]))] = np.mean(gradients, axis=0)


def _enter(found: dict[str, np.ndarray], name: str, cell: tuple, kept: list) -> None:
    """Means over draws of what a model shows at every layer, and the spread of its cosine."""
    rows = np.array(kept)  # (draw, statistic, layer)
    at = (MEASURED.index(name), *cell, slice(rows.shape[-1]))
    for k, statistic in enumerate(("rho", "effective_rank", "radius")):
        found[statistic][at] = rows[:, k].mean(axis=0)
    if len(rows) > 1:
        found["rho_error"][at] = rows[:, 0].std(axis=0, ddof=1)


def _theory(config: Config, found: dict[str, np.ndarray]) -> np.ndarray:
    """Predicted cosine of fresh layers, from the embeddings as measured."""
    path = np.full((len(SCHEMES), 2, config.deep + 1), np.nan)
    for which, scheme in enumerate(SCHEMES):
        for at, layers in enumerate((config.shallow, config.deep)):
            start = {name: found[name][0, which, at, 0] for name in ("rho", "radius")}
            course = af.theory.random_weights.random_layer_course(
                scheme, min(1 - start["rho"], 1.0), layers=layers, n=config.n, variance=1.0,
                activation="gelu", radius=start["radius"],
            )  # fmt: skip
            path[which, at, : layers + 1] = 1 - course.gap
    return path
