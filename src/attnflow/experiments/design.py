"""Design: what an engineer asks before training, on one page: depth budget, logit scale, norm."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

NORMS = ("post", "pre", "mix", "peri", "ngpt", "sqrt", "ln-scaling")
GROWING = ("pre", "peri", "ln-scaling")
"""Schemes whose residual stream keeps its length; mix starts on normalized tokens."""
BRANCHES = ("attention", "block")
WANTED = (0.25, 0.5, 0.75, 0.9)
"""Output cosines of one attention layer whose scale is told."""
DEEP, FEW, LONG, SPREAD = 10, 160, 2**17, 8.0
"""Aligned layers are followed to 10 times their number, random ones to 160 or twice; then, the context to which scales
are told, and the largest standard deviation of fresh scores: integrals over them cost its square."""


@dataclass(frozen=True)
class Config:
    """Settings of the design."""

    layers: int = 12
    """Number of layers."""
    width: int = 768
    """Dimension of the residual stream."""
    heads: int = 12
    """Number of heads; divides the width."""
    context: int = 1024
    """Number of tokens that attend to each other."""
    norm: str = "pre"
    """Where the normalization stands: post, pre, mix, peri, ngpt, sqrt or ln-scaling."""
    activation: str = "gelu"
    """Activation of the MLP: gelu, relu, swiglu, or none for attention alone."""
    rho0: float = 0.1
    """Mean cosine of the tokens that enter. Fresh random embeddings have 0; trained ones share a direction,
    hence a tenth."""
    rho_max: float = 0.9
    """Mean cosine that counts as collapsed."""
    beta: float | None = None
    """Logit of a token with itself: the factor of <q, k> is beta/(width/heads) for queries and keys as long
    as QK-norm leaves them. Open: sqrt(width/heads), the usual factor 1/sqrt(width/heads)."""
    gain: float = 1.0
    """Variance of the entries of each fresh weight matrix, times its columns: 1 keeps lengths, 2 is Kaiming,
    and a standard deviation s is s^2 width."""
    alpha: float = 0.05
    """Rate of ngpt, at most 1; 0.05 is where nGPT starts."""
    radius: float = 1.0
    """Length of the embeddings in units of what the normalizer gives; read by pre, peri and ln-scaling.
    Residual branches scaled down by s, such as GPT-2's sqrt(2 layers), are a radius s times larger."""
    tau: int | None = None
    """Number of first layers of mix that are Post-LN. Open: a quarter."""
    measure: bool = False
    """Run a real random Transformer of at most 24 layers, width 256 and 256 tokens beside its own theory;
    takes about 5 s more."""
    seed: int = 0
    """Seed of its weights."""
    dtype: Literal["float64"] = "float64"
    """Precision of the real Transformer; the rest is closed forms."""


def resolve(config: Config) -> Config:
    """Config with the logit scale and the switch of mix filled in, once every setting makes sense."""
    check(config)
    return replace(config, beta=beta_of(config), tau=tau_of(config))


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Follow the common cosine of n tokens through every norm scheme, and find the logit scale that keeps them apart.

    Two limits of one layer. Aligned: Q = K = V = I and no MLP, the worst case of collapse and the one in which
    beta matters (`theory.normalization.layer_course`). At initialisation: fresh random weights and an MLP
    (`theory.random_weights.random_layer_course`); scores have variance $(\beta\,\text{gain})^2 H/\text{width}$.
    Recommended is the larger of two scales: the least beta at which all aligned layers stay below rho_max, by
    bisection as the last gap grows with beta; and the critical $\log n/(1-\rho_0)$, at which a token weighs
    itself as much as all others (`theory.long_context.critical_gamma`).

    Args:
        config: Settings.
        progress: Not used: it takes seconds.
        checkpoint: Not used.

    Returns:
        `gap_init` and `gap_aligned` (norm, layer), 1 - rho; `budget_init`, `budget_aligned`, layers until
        rho_max, inf beyond `horizon_init`, `horizon_aligned`, and `needed_beta` (norm); `budget_curve`
        (norm, beta). Of one layer at this context: `cosine_curve` (branch, gamma), `cosine` (branch),
        `self_weight`, and `wanted_beta` (wanted), NaN for a cosine that rho0 exceeds. Of scales: `layers_beta`,
        `critical_beta`, `recommended_beta` (context), and `recommended_curve` (curve_context). If measured,
        `measured` and its `measured_error`, a standard error, and `measured_theory` (small_layer).

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    config = resolve(config)
    scales = _scales(config, _contexts(config))
    at = _contexts(config).index(config.context)
    top = 1.5 * max(beta_of(config), *(scale[at] for scale in scales))
    betas, log_n = np.linspace(0, top, 61), np.log(config.context)
    curve_contexts = np.unique(np.geomspace(*_ends(config), 9).round().astype(int)).tolist()
    data, attrs = _norms(config)
    data |= _one_layer(config, betas / log_n)
    data["budget_curve"] = (
        ("norm", "beta"),
        np.stack([budget_curve(config, norm, betas) for norm in NORMS]),
        {"long_name": "aligned layers until rho_max"},
    )
    texts = ("all aligned layers stay below rho_max", "a token weighs itself as much as all others")
    for name, values, text in zip(("layers", "critical"), scales, texts, strict=True):
        data[f"{name}_beta"] = ("context", values, {"long_name": f"least beta: {text}"})
    best = {"long_name": "recommended beta"}
    data["recommended_beta"] = ("context", np.maximum(*scales), best)
    curve = np.maximum(*_scales(config, curve_contexts))
    data["recommended_curve"] = ("curve_context", curve, best)
    coords = {
        "norm": list(NORMS), "layer": np.arange(config.layers + 1), "beta": betas,
        "gamma": betas / log_n, "branch": list(BRANCHES), "wanted": list(WANTED),
        "context": _contexts(config), "curve_context": curve_contexts,
    }  # fmt: skip
    if config.measure:
        from attnflow.experiments.design_measure import measure

        found, small = measure(config)
        data, attrs = data | found, attrs | small
    return xr.Dataset(
        data,
        coords,
        attrs={
            "experiment": "design",
            "equation": "x <- norm(x, attention), then MLP; scores beta <x_i, x_j>, gamma = beta/log n",
            "units": "dimensionless",
            **attrs,
            **{k: v for k, v in asdict(config).items() if k not in ("dtype", "measure")},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Cosines over layers, budgets over the scale, one layer, the scale over the context, and the answer."""
    from attnflow.experiments.design_figure import figure

    return figure(data)


def summary(data: xr.Dataset) -> str:
    """Tables: the answer, every norm scheme, the scale over the context, and what was assumed."""
    from attnflow.experiments.design_tables import tables

    return tables(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """The answer, every norm scheme and the scale over the context, as plain JSON values."""
    from attnflow.experiments.design_tables import regime, verdict

    here, norms = data.sel(context=data.attrs["context"]), data.norm.values.tolist()
    names = ("budget_init", "budget_aligned", "needed_beta", "cosine", "wanted_beta", "layers_beta",
             "critical_beta", "recommended_beta", "context")  # fmt: skip
    return {
        "beta": data.attrs["beta"],
        "gamma": data.attrs["beta"] / float(np.log(data.attrs["context"])),
        "regime": regime(data),
        "recommended": float(here.recommended_beta),
        "factor": float(here.recommended_beta) / usual_beta(data.attrs["width"], data.attrs["heads"]),
        "norm": norms,
        "verdict": [verdict(data.sel(norm=norm)) for norm in norms],
        **{f"last_{name}": _plain(data[name][:, -1].values) for name in ("gap_init", "gap_aligned")},
        **{name: _plain(data[name].values) for name in names},
    }  # fmt: skip


def usual_beta(width: int, heads: int) -> float:
    """Beta of the usual scale, the factor 1/sqrt(width/heads) of <q, k>."""
    return float(np.sqrt(width / heads))


def beta_of(config: Config) -> float:
    """Beta of a config, the usual one if it is open."""
    return usual_beta(config.width, config.heads) if config.beta is None else float(config.beta)


def tau_of(config: Config) -> int:
    """Number of first layers of mix that are Post-LN, a quarter if it is open."""
    quarter = min(max(1, config.layers // 4), config.layers - 1)
    return quarter if config.tau is None else config.tau


def budget_curve(config: Config, norm: str, betas: np.ndarray) -> np.ndarray:
    """Aligned layers until rho_max at each beta, shape (beta,); inf beyond 10 times the layers."""
    step, found = af.theory.normalization.layer_step, np.full(betas.shape, np.inf)
    after = af.theory.normalization.Course(
        np.full(betas.shape, 1 - config.rho0),
        np.full(betas.shape, config.radius if norm in GROWING else 1.0),
    )
    for layer in range(DEEP * config.layers):
        with np.errstate(divide="ignore"):  # ngpt of rate 1 at beta = 0: one point
            after = step(
                norm, after.cosine, n=config.context, beta=betas, radius=after.radius, t=layer,
                tau=tau_of(config), alpha=config.alpha,
            )  # fmt: skip
        found = np.where((after.gap <= 1 - config.rho_max) & np.isinf(found), layer + 1, found)
        if np.isfinite(found).all():
            break
    return found


def least_beta(config: Config, norm: str, context: int) -> float:
    """Smallest beta at which all aligned layers stay below rho_max, from above, to 1e-6 of itself."""

    def stays(beta: float) -> bool:
        gap = _aligned(config, norm, config.layers, beta, context)[-1]
        return bool(gap > 1 - config.rho_max)

    if stays(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not stays(high):
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if stays(middle) else (middle, high)
    return high


def random_course(config: Config, norm: str, layers: int, context: int) -> np.ndarray:
    """Gap through fresh random layers, shape (layers + 1,); negative cosines count as 0."""
    theory, d, beta = af.theory.random_weights, config.width, beta_of(config)
    variance = theory.score_variance(
        beta * config.heads / d, d=d, heads=config.heads, gain=config.gain, length=d**0.5
    )
    return theory.random_layer_course(
        norm,
        min(1 - config.rho0, 1.0),
        layers=layers,
        n=context,
        variance=variance,
        gain=config.gain**2,
        activation=None if config.activation == "none" else config.activation,
        radius=config.radius if norm in GROWING else 1.0,
        tau=tau_of(config),
        alpha=config.alpha,
    ).gap


def _aligned(config: Config, norm: str, layers: int, beta: float, context: int) -> np.ndarray:
    """Gap through aligned layers, shape (layers + 1,)."""
    with np.errstate(divide="ignore"):  # ngpt of rate 1 at beta = 0: one point
        return af.theory.normalization.layer_course(
            norm,
            1 - config.rho0,
            layers=layers,
            n=context,
            beta=beta,
            radius=config.radius if norm in GROWING else 1.0,
            tau=tau_of(config),
            alpha=config.alpha,
        ).gap


def _norms(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every scheme: gaps over the layers and budgets, aligned and at initialisation; and how far was followed."""
    n, deep = config.context, DEEP * config.layers
    horizons = {"init": max(2 * config.layers, min(deep, FEW)), "aligned": deep}
    beta, target = beta_of(config), 1 - config.rho_max
    follow = {
        "init": lambda norm, layers: random_course(config, norm, layers, n),
        "aligned": lambda norm, layers: _aligned(config, norm, layers, beta, n),
    }
    data: dict[str, Any] = {}
    for name, text in (("init", "at initialisation"), ("aligned", "with aligned heads")):
        gaps, budgets = [], []
        for norm in NORMS:
            layers = config.layers
            while (path := follow[name](norm, layers))[-1] > target and layers < horizons[name]:
                layers = min(2 * layers, horizons[name])  # cheaper than all: most collapse early
            gaps.append(path[: config.layers + 1])
            budgets.append(np.argmax(path <= target) if (path <= target).any() else np.inf)
        shown = {"long_name": f"1 - rho {text}"}
        data[f"gap_{name}"] = (("norm", "layer"), np.stack(gaps), shown)
        data[f"budget_{name}"] = ("norm", budgets, {"long_name": f"layers until rho_max {text}"})
    needed = [least_beta(config, norm, n) for norm in NORMS]
    text = "least beta at which all aligned layers stay below rho_max"
    data["needed_beta"] = ("norm", needed, {"long_name": text})
    return data, {f"horizon_{name}": layers for name, layers in horizons.items()}


def _one_layer(config: Config, gammas: np.ndarray) -> dict[str, Any]:
    """Output cosine of one layer at this context, without and with residual; scales of wanted cosines."""
    theory, n, rho = af.theory.long_context, config.context, config.rho0
    etas = (None, 1 / config.radius if config.norm in GROWING else 1.0)
    curves = [theory.output_cosine(rho, n=n, beta=gammas * np.log(n), eta=eta) for eta in etas]
    now = [theory.output_cosine(rho, n=n, beta=beta_of(config), eta=eta) for eta in etas]
    wanted = [float(theory.scale_for_cosine(c, rho, n=n)) if c > rho else np.nan for c in WANTED]
    others = np.log(n - 1) - beta_of(config) * (1 - rho)
    return {
        "cosine_curve": (("branch", "gamma"), np.stack(curves), {"long_name": "cosine of outputs"}),
        "cosine": ("branch", now, {"long_name": "cosine of outputs at this beta"}),
        "self_weight": ((), 1 / (1 + np.exp(others)), {"long_name": "weight of a token on itself"}),
        "wanted_beta": ("wanted", wanted, {"long_name": "beta for a wanted cosine of outputs"}),
    }


def _scales(config: Config, contexts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Least beta for the aligned layers, and the critical beta of one layer, at each context.

    A negative rho0, which more tokens may not have, counts as 0 at other contexts.
    """
    theory, others = af.theory.long_context, replace(config, rho0=max(config.rho0, 0.0))
    starts = [config if n == config.context else others for n in contexts]
    critical = theory.logit_scale(theory.critical_gamma([c.rho0 for c in starts]), contexts)
    found = [least_beta(c, c.norm, n) for c, n in zip(starts, contexts, strict=True)]
    return np.array(found), critical


def _ends(config: Config) -> tuple[int, int]:
    """Shortest and longest context whose scale is told: a quarter, and 16 times or 131072."""
    return max(2, config.context // 4), max(16 * config.context, LONG)


def _contexts(config: Config) -> list[int]:
    """Contexts n/4, n, 4n, 16n, ..., and the longest."""
    low, high = _ends(config)
    count = int(np.log(high / config.context) / np.log(4) + 1e-9)
    return sorted({low, high, *(config.context * 4**k for k in range(count + 1))})


def _plain(values: np.ndarray) -> Any:
    """Lists of numbers; None where not finite."""
    return [x if np.isfinite(x) else None for x in values.tolist()]


def check(config: Config) -> None:
    """Refuse what cannot be designed, before work starts."""
    from attnflow.errors import check_between, check_choice, check_count, check_finite

    for name in ("layers", "heads"):
        check_count(getattr(config, name), name)
    for name, low in (("width", 2), ("context", 2), ("seed", 0)):
        check_count(getattr(config, name), name, low=low)
    if config.width % config.heads:
        raise ValueError(
            f"Argument `heads` must divide width={config.width}, but heads={config.heads}."
        )
    check_choice(config.norm, "norm", NORMS)
    check_choice(config.activation, "activation", ("gelu", "relu", "swiglu", "none"))
    check_between(config.context, "context", high=2**48, remedy="Longer ones are not counted.")
    for name in ("rho0", "rho_max", "gain", "alpha", "radius"):
        check_finite(getattr(config, name), name)
    check_between(
        config.rho0, "rho0", -1 / (config.context - 1), 1.0, open_low=True, open_high=True,
        remedy="Both ends are fixed points.",
    )  # fmt: skip
    check_between(config.rho_max, "rho_max", config.rho0, 1.0, open_low=True, open_high=True)
    check_between(config.gain, "gain", 0.0, SPREAD, open_low=True)
    check_between(config.radius, "radius", low=0.0, open_low=True)
    check_between(config.alpha, "alpha", 0.0, 1.0, remedy="Beyond, a step overshoots its target.")
    if config.beta is not None:
        check_finite(config.beta, "beta")
        high = SPREAD * usual_beta(config.width, config.heads) / config.gain
        remedy = "Fresh scores have standard deviation gain beta/sqrt(width/heads), here at most 8."
        check_between(config.beta, "beta", 0.0, high, remedy=remedy)
    if config.tau is not None:
        check_count(config.tau, "tau", low=0)
        check_between(config.tau, "tau", high=config.layers - 1, remedy="Later, it is norm post.")
