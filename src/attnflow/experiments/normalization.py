"""How fast depth destroys information under each normalisation scheme, beside theory: the survey's figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SCHEMES = ("post", "pre", "mix", "peri", "ngpt", "sqrt", "ln-scaling", "none")
PANELS = ("identity", "shared", "fresh")
SAVES = 41
LATE = {"post": (4, 9), "ngpt": (5, 10), "sqrt": (10, 40), "ln-scaling": (2e5, 1e6)}
"""Times between which exponents are fitted, by scheme; `LATE_POWER` for the others."""
LATE_POWER = (2e3, 1e4)
LATE_SAVES = 61


@dataclass(frozen=True)
class Config:
    """Settings of the normalisation figure."""

    n: int = 256
    """Number of tokens, uniform on the sphere."""
    d: int = 512
    """Dimension."""
    beta: float | None = None
    """Inverse temperature under random weights; sqrt(d)."""
    beta_identity: float = 5.0
    """Inverse temperature under Q = K = V = I."""
    t_max: float = 10.0
    """Final time of the flows."""
    depth: int = 16
    """Number of real layers, with fresh weights in each."""
    seeds: int = 12
    """Number of independent draws of weights and tokens."""
    seed: int = 0
    """Seed of the first draw."""
    tau: float | None = None
    """Time at which mix goes from Post-LN to Pre-LN; a quarter of the depth."""
    alpha: float = 1.0
    """Rate of ngpt."""
    late_n: int = 8
    """Number of orthogonal tokens in the runs to late times."""
    late_beta: float = 1.0
    """Inverse temperature of the runs to late times."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the runs over random draws; those to late times are in float64."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in."""
    tau = config.t_max / 4 if config.tau is None else config.tau
    return replace(config, beta=_beta(config), tau=tau)


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    r"""Run tokens through every scheme three times, and to late times once.

    Under Q = K = V = I with the flow, beside the equiangular ODE; under one Kaiming draw of Q, K, V with the flow,
    beside the mean field of `shared_weights`; through real attention layers with fresh Kaiming weights, beside the
    map of `random_weights`. Late runs start from orthogonal tokens: slope of log(1 - rho) over the clock of each
    scheme. About two minutes.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, called after each scheme.

    Returns:
        `identity`, `shared` (scheme, draw, time) and `fresh` (scheme, draw, layer): mean cosines, with
        `identity_theory`, ... of the same name; `half`, `half_theory` (panel, scheme): time or layer at which the mean
        over draws is 1/2; `late_time`, `late_gap`, `late_law` (scheme, sample); `exponent`, `exponent_theory`,
        `constant`, `constant_theory` (scheme). NaN where a scheme has no such law.

    Raises:
        ValueError: If a setting is out of range, before work starts.
    """
    import xarray as xr

    config = resolve(config)
    check(config)
    found = _run_all(config, progress, checkpoint)
    ts, layers = np.linspace(0, config.t_max, SAVES), np.arange(config.depth + 1)
    theory = {panel: _theory(panel, config, ts) for panel in PANELS}
    axes = {panel: layers if panel == "fresh" else ts for panel in PANELS}
    half = {
        panel: [_crossing(axes[panel], c.mean(axis=0)) for c in found[panel]] for panel in PANELS
    }
    half_theory = {panel: [_crossing(axes[panel], c) for c in theory[panel]] for panel in PANELS}
    dims = {panel: "layer" if panel == "fresh" else "time" for panel in PANELS}
    data: dict[str, Any] = {}
    for panel in PANELS:
        data[panel] = (("scheme", "draw", dims[panel]), found[panel], {"long_name": "mean cosine"})
        data[f"{panel}_theory"] = (("scheme", dims[panel]), theory[panel])
    data["half"] = (("panel", "scheme"), [half[panel] for panel in PANELS])
    data["half_theory"] = (("panel", "scheme"), [half_theory[panel] for panel in PANELS])
    data |= _late_laws(config, found["late_time"], found["late_gap"])
    return xr.Dataset(
        data,
        {"scheme": list(SCHEMES), "panel": list(PANELS), "time": ts, "layer": layers},
        attrs={
            "experiment": "normalization",
            "equation": "d theta/dt = P A/s, s the speed factor of the scheme",
            "units": "dimensionless",
            **{name: value for name, value in asdict(config).items() if name != "dtype"},
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """Mean cosine over depth in three settings, and late gaps on their laws."""
    from attnflow.experiments.normalization_figure import figure

    return figure(data)


def summary(data: xr.Dataset) -> str:
    """Depth at which the mean cosine is 1/2, and exponents and constants of collapse, predicted and measured."""
    from attnflow.experiments.normalization_figure import table

    return table(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Half-way depths, exponents and constants, as plain JSON values; None where there is no law."""
    names = ("half", "half_theory", "exponent", "exponent_theory", "constant", "constant_theory")
    plain = lambda a: [plain(b) for b in a] if a.ndim else (float(a) if np.isfinite(a) else None)
    return {
        "scheme": list(SCHEMES),
        "panel": list(PANELS),
        **{name: plain(data[name].values) for name in names},
        "order": {panel: {"tokens": a, "theory": b} for panel, (a, b) in orders(data).items()},
    }


def orders(data: xr.Dataset) -> dict[str, tuple[list[str], list[str]]]:
    """Schemes by the depth at which the mean cosine is 1/2, fastest first: of tokens, and of theory."""
    found = {}
    for panel in PANELS:
        half, theory = (data[name].sel(panel=panel).values for name in ("half", "half_theory"))
        known = np.flatnonzero(np.isfinite(theory) & np.isfinite(half))
        rank = lambda values, known=known: [SCHEMES[k] for k in known[np.argsort(values[known])]]
        found[panel] = rank(half), rank(theory)
    return found


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_between, check_choice, check_count, check_finite

    for name, low in (("n", 2), ("d", 2), ("depth", 1), ("seeds", 2), ("seed", 0), ("late_n", 2)):
        check_count(getattr(config, name), name, low=low)
    for name in ("beta", "beta_identity", "t_max", "tau", "alpha", "late_beta"):
        check_finite(getattr(config, name), name)
    for name in ("beta_identity", "alpha"):
        check_between(getattr(config, name), name, low=0.0)
    check_between(config.t_max, "t_max", low=0.0, open_low=True)
    check_between(
        config.tau,
        "tau",
        0.0,
        config.t_max,
        open_high=True,
        remedy="Mix must switch within the run.",
    )
    check_between(config.late_beta, "late_beta", 0.0, 3.0, remedy="Beyond, the laws come too late.")
    most = 10 * config.d**0.5  # a variance of scores of 400
    check_between(_beta(config), "beta", 0.0, most, remedy="Scores would be beyond theory.")
    check_choice(config.dtype, "dtype", ("float32", "float64"))


def _norm(scheme: str, config: Config) -> Any:
    own = {"mix": lambda: af.norms.mix_ln(config.tau), "ngpt": lambda: af.norms.ngpt(config.alpha)}
    return own.get(scheme, lambda: af.NORMS[scheme])()


def _beta(config: Config) -> float:
    return float(config.d) ** 0.5 if config.beta is None else config.beta


def _post_layers(config: Config) -> int:
    """Number of layers of mix that are Post-LN: the share of time before tau."""
    return round(config.depth * (config.tau or 0.0) / config.t_max)


def _run_all(config: Config, progress: bool, checkpoint: Any) -> dict[str, np.ndarray]:
    """Everything that is simulated, scheme by scheme."""
    from tqdm import tqdm

    many, late = len(SCHEMES), (len(SCHEMES), LATE_SAVES)
    found = {
        "identity": np.full((many, config.seeds, SAVES), np.nan),
        "shared": np.full((many, config.seeds, SAVES), np.nan),
        "fresh": np.full((many, config.seeds, config.depth + 1), np.nan),
        "late_time": np.full(late, np.nan),
        "late_gap": np.full(late, np.nan),
    }
    done = 0
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    for k in tqdm(range(done, many), initial=done, total=many, disable=not progress, unit="scheme"):
        scheme = SCHEMES[k]
        for panel in PANELS[:2] if scheme != "none" else PANELS[:1]:
            found[panel][k] = [_flow(panel, scheme, config, draw) for draw in range(config.seeds)]
        if scheme != "none":  # which random V sends to infinity, through ever harder attention
            found["fresh"][k] = _layers(scheme, config)
            found["late_time"][k], found["late_gap"][k] = _late(scheme, config)
        if checkpoint is not None and k + 1 < many:
            checkpoint.save(k + 1, found)
    return found


def _key(config: Config, draw: int, panel: str) -> Any:
    import jax.random as jr

    return jr.fold_in(jr.fold_in(jr.key(config.seed), draw), PANELS.index(panel))


def _flow(panel: str, scheme: str, config: Config, draw: int) -> np.ndarray:
    """Mean cosines along a flow, under the identity or under one Kaiming draw of Q, K, V."""
    import jax.numpy as jnp
    import jax.random as jr

    *keys, start = jr.split(_key(config, draw, panel), 4)
    x0 = af.sphere.uniform(start, config.n, config.d).astype(config.dtype)
    if panel == "identity":
        attention = af.Attention(jnp.asarray(config.beta_identity, config.dtype))
    else:
        kaiming = af.layers.WEIGHTS["kaiming"]
        dtype: Any = jnp.dtype(config.dtype)
        matrices = [kaiming(key, (config.d, config.d), dtype) for key in keys]
        attention = af.QKVAttention(jnp.asarray(config.beta, config.dtype), *matrices)
    trajectory = af.solve(
        af.Flow(attention, _norm(scheme, config)), x0, np.linspace(0, config.t_max, SAVES),
        observe={"rho": af.observables.mean_cosine}, states=False, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    return np.asarray(trajectory.observed["rho"])


def _layers(scheme: str, config: Config) -> np.ndarray:
    """Mean cosines through real attention layers with fresh Kaiming weights, shape (seeds, depth + 1)."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    switch = _post_layers(config) if scheme == "mix" else None

    def run(key):
        weights, start = jr.split(key)
        model = af.layers.transformer(
            weights, config.d, config.depth, placement=scheme, weights="kaiming", mlp=None,
            normalizer="sphere", beta=config.beta, alpha=config.alpha, tau=switch, dtype=config.dtype,
        )  # fmt: skip
        x0 = af.sphere.uniform(start, config.n, config.d).astype(config.dtype)
        observe = {"rho": af.observables.mean_cosine}
        return af.layers.forward(model, x0, observe=observe, states=False).observed["rho"]

    keys = jnp.stack([_key(config, draw, "fresh") for draw in range(config.seeds)])
    return np.asarray(jax.jit(lambda keys: jax.lax.map(run, keys))(keys))


def _late(scheme: str, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Late times and gaps 1 - rho of orthogonal tokens under Q = K = V = I."""
    import diffrax
    import jax.numpy as jnp

    ts = np.geomspace(0.1, LATE.get(scheme, LATE_POWER)[1], LATE_SAVES)
    norm = af.norms.mix_ln(1.0) if scheme == "mix" else _norm(scheme, config)
    trajectory = af.solve(
        af.sa(config.late_beta, norm=norm), jnp.eye(config.late_n), np.append(0.0, ts),
        observe={"gap": af.observables.cosine_gap}, states=False, method=diffrax.Dopri8(),
        rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    return ts, np.asarray(trajectory.observed["gap"])[1:]


def _theory(panel: str, config: Config, ts: np.ndarray) -> np.ndarray:
    """Predicted mean cosines of every scheme, NaN for those without a theory."""
    theory, curves = af.theory, []
    options: dict[str, Any] = {"n": config.n, "tau": config.tau, "alpha": config.alpha}
    variance = 0.0
    if panel != "identity":
        variance = theory.random_weights.score_variance(_beta(config), d=config.d, gain=2.0)
    for scheme in SCHEMES:
        if panel == "identity":
            curve = theory.normalization.cosine(
                scheme, ts, 0.0, beta=config.beta_identity, **options
            )
        elif scheme == "none":
            curve = np.full(len(ts) if panel == "shared" else config.depth + 1, np.nan)
        elif panel == "shared":
            curve = theory.shared_weights.shared_weights_cosine(
                scheme, ts, variance=variance, gain=2.0, **options
            )
        else:
            options["tau"] = _post_layers(config)
            curve = theory.random_weights.random_layer_course(
                scheme, layers=config.depth, variance=variance, gain=4.0, **options
            ).cosine
        curves.append(curve)
    return np.array(curves)


def _late_laws(config: Config, times: np.ndarray, gaps: np.ndarray) -> dict[str, Any]:
    """Slopes and constants of late gaps over the clock of their scheme, beside theory."""
    laws, normalization = np.full(gaps.shape, np.nan), af.theory.normalization
    found = {name: np.full(len(SCHEMES), np.nan) for name in ("exponent", "constant")}
    expected = {name: np.full(len(SCHEMES), np.nan) for name in found}
    for k, scheme in enumerate(SCHEMES):
        if scheme not in normalization.EXPONENTS:
            continue
        options: dict[str, Any] = {"n": config.late_n, "beta": config.late_beta}
        options |= {"tau": 1.0, "alpha": config.alpha}
        late = times[k] >= LATE.get(scheme, LATE_POWER)[0]
        clock = normalization.terminal_clock(scheme, times[k, late], alpha=config.alpha)
        exponent, gap = normalization.EXPONENTS[scheme], gaps[k, late]
        expected["exponent"][k] = exponent
        expected["constant"][k] = normalization.terminal_constant(scheme, **options)
        found["exponent"][k] = np.polyfit(clock - clock[0], np.log(gap / gap[0]), 1)[0]
        found["constant"][k] = gap[-1] * np.exp(-exponent * clock[-1])
        laws[k] = normalization.terminal_gap(scheme, times[k], **options)
    axes = ("scheme", "sample")
    return {
        "late_time": (axes, times),
        "late_gap": (axes, gaps, {"long_name": "1 - rho of orthogonal tokens"}),
        "late_law": (axes, laws, {"long_name": "C e^(exponent clock)"}),
        **{name: ("scheme", values) for name, values in found.items()},
        **{f"{name}_theory": ("scheme", values) for name, values in expected.items()},
    }


def _crossing(ts: np.ndarray, curve: np.ndarray) -> float:
    """First time at which a rising curve is 1/2, by linear interpolation; NaN if never."""
    above = np.flatnonzero(curve >= 0.5)
    if not len(above) or above[0] == 0:
        return float("nan")
    k = above[0]
    return float(np.interp(0.5, curve[k - 1 : k + 1], ts[k - 1 : k + 1]))
