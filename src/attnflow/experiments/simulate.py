"""Tokens under any flow, from any start, beside what theory predicts for them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import attnflow as af
from attnflow.experiments import simulate_theory as beside
from attnflow.experiments import tokens as starts
from attnflow.experiments.simulate_run import integrate

if TYPE_CHECKING:
    import xarray as xr

    from attnflow.view import Scene

SPREADS = True
"""Several processes can share the tokens."""
HISTOGRAM_TOKENS, SAMPLE = 2048, 1024
"""Tokens up to which the histogram has all pairs, and of how many tokens beyond."""
STATE_BYTES = 2**28
WORKSPACE, PROGRAMS = 70, 2**29
"""Memory of a run besides what it keeps: in states (stages, saves of a stretch, the kernel sum), and bytes of code."""
EDGES = np.linspace(-1, 1, 101)
DEFAULTS = {"n": 64, "beta": 9.0, "t_max": 1e3}
DEFAULTS_OF = {"digits": {"n": None, "beta": 48.0, "t_max": 200.0}}


@dataclass(frozen=True)
class Config:
    """Settings of a simulation."""

    tokens: str = field(default="uniform", metadata={"file": True})
    """Start: uniform, hemisphere, vmf, clusters, equiangular, polygon, digits, or a file of unit
    rows (.npy, .npz, .csv, .safetensors)."""
    flow: str = "sa"
    """Dynamics: sa, usa, causal, kuramoto, hardmax, sinkhorn or fisher-rao."""
    norm: str = "post"
    """Normalisation scheme: post, pre, mix, peri, ngpt, sqrt, ln-scaling or none."""
    tau: float = 1.0
    """Time at which mix goes from Post-LN to Pre-LN."""
    alpha: float = 1.0
    """Rate of ngpt."""
    n: int | None = None
    """Number of tokens; 64, or all of a file or of the digits."""
    d: int = 3
    """Dimension, for starts that have no dimension of their own."""
    beta: float | None = None
    """Inverse temperature; 9, or 48 for digits."""
    value: float = 1.0
    """Value matrix V = value * I; -1 repels."""
    clock: Literal["physical", "rescaled"] = "physical"
    """Clock of usa; rescaled counts time in units of e^-beta."""
    rate: float = 1.0
    """Speed of the weights under fisher-rao."""
    t_max: float | None = None
    """Final time; 1000, or 200 for digits."""
    t_min: float = 0.1
    """First save time after 0; save times are evenly spaced in log t."""
    saves: int = 65
    """Number of save times."""
    method: Literal["adaptive", "euler", "layers"] = "adaptive"
    """Adaptive Tsit5, explicit Euler of step dt, or discrete layers of step dt."""
    dt: float = 0.1
    """Step of euler and layers; a real layer has step 1."""
    rtol: float = 1e-6
    """Relative tolerance of a step."""
    atol: float = 1e-8
    """Absolute tolerance of a step."""
    cosine: float = 0.99
    """Smallest cosine that links two tokens to one cluster."""
    k: int = 8
    """Number of clusters, for tokens = clusters."""
    spread: float = 0.1
    """Spread of these clusters, in radians."""
    rho: float = 0.0
    """Common cosine, for tokens = equiangular."""
    concentration: float = 5.0
    """Concentration, for tokens = vmf."""
    array: str | None = None
    """Which array of a .npz or .safetensors file."""
    normalize: bool = False
    """Scale the rows of a file to unit length."""
    states: bool = True
    """Keep the tokens at save times."""
    state_saves: int | None = None
    """At how many save times, evenly spread, the last among them; as many as fit into 256 MB by default."""
    kernel_sum: str = "auto"
    """How pairs are summed: auto (the cheapest exact way), dense, fourier, harmonics or random-batch."""
    seed: int = 0
    """Seed of the start."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of the run."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: what the name of a run is made of."""
    defaults = DEFAULTS | DEFAULTS_OF.get(config.tokens, {})
    if config.tokens not in starts.STARTS:
        defaults["n"] = None
    open_fields = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return replace(config, **open_fields)


def make_flow(config: Config):
    """Flow that a config names.

    Raises:
        ValueError: If the flow or the norm is unknown, or beta is not finite.
    """
    from attnflow.errors import check_choice

    check_choice(config.flow, "flow", af.FLOWS)
    check_choice(config.norm, "norm", af.NORMS)
    own = {"mix": lambda: af.norms.mix_ln(config.tau), "ngpt": lambda: af.norms.ngpt(config.alpha)}
    norm, value = own.get(config.norm, lambda: af.NORMS[config.norm])(), config.value
    how = {"kernel_sum": config.kernel_sum}
    if config.flow == "kuramoto":
        return af.usa(0.0, norm=norm, value=value, **how)
    if config.flow == "hardmax":
        return af.hardmax(norm=norm, value=value)
    if config.flow == "fisher-rao":
        return af.FisherRaoFlow(config.beta, config.rate, **how)
    if config.flow == "usa":
        return af.usa(config.beta, norm=norm, value=value, clock=config.clock, **how)
    return af.FLOWS[config.flow](config.beta, norm=norm, value=value, **how)


def save_times(config: Config) -> np.ndarray:
    """Save times, from 0 to t_max, whole numbers of layers where layers are asked for."""
    ts = af.log_times(resolve(config).t_max or 0.0, config.saves, t_min=config.t_min)
    ts = np.asarray(ts, dtype=float)
    if config.method == "layers":
        ts = config.dt * np.unique(np.round(ts / config.dt))
    return ts


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    """Simulate, measure at save times, and set theory beside it.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`, better
            also `keep(step, arrays)` and `kept() -> list of arrays`, as `store.Checkpoint`. A
            resumed run ends with the same bits as an uninterrupted one: every few save times the
            integration starts anew from the saved state, whether or not it was interrupted.
    """
    import xarray as xr

    config = resolve(config)
    flow, ts, x0 = _prepare(config)
    kept = kept_saves(config, x0, ts)
    columns, states, steps, kernel_sum = integrate(config, flow, x0, ts, kept, progress, checkpoint)
    data = xr.Dataset(coords={"time": ts})
    for name, values in columns.items():
        data[name] = (("time", *_AXES.get(name, ())), values)
    rarely = len(kept) < len(ts)
    if rarely:
        data["state_save"] = (("state",), kept)
    for name, values in states.items():
        data[name] = (("state" if rarely else "time", *_AXES[name]), values)
    data["start"] = (("token", "axis"), x0)
    data["edges"] = (("edge",), EDGES)
    data["predicted_cosine"] = (("time",), beside.predicted_cosine(config, ts, len(x0), columns))
    data.attrs = {
        "experiment": "simulate",
        "equation": _EQUATIONS.get(config.flow, config.flow),
        "steps": steps,
        "sum_taken": kernel_sum,
        "theorems": json.dumps(beside.theorems(config, x0)),
        **{k: v for k, v in asdict(config).items() if v is not None and k != "dtype"},
    }
    numerics = numerics_of(config) | {"observe": {"gap": _direct(af.observables.cosine_gap)}}
    decay = beside.last_decay(config, flow, data, numerics)
    if decay is not None:
        ts, gap, data.attrs["predicted_rate"] = decay
        fit = af.analysis.rates.fit_rate(ts, gap, window=(ts[0], ts[-1])).exponential
        data.attrs |= {"observed_rate": fit.rate, "observed_rate_drift": fit.drift}
        data["decay_time"], data["decay"] = ("sample", ts), ("sample", gap)
    if config.tokens == "digits":
        data.attrs["image_shape"] = [8, 8]
    return data


def draw(data: xr.Dataset):
    """Figure of a run, from its numbers alone."""
    from attnflow.experiments.simulate_figure import figure

    return figure(data)


def scene(data: xr.Dataset) -> Scene | None:
    """Tokens over time with clusters, cosine and energy; None for a run that kept no tokens."""
    from attnflow.experiments.simulate_scene import scene

    return scene(data)


def summary(data: xr.Dataset) -> str:
    """Table of a run: clusters over log-time, energy, cosine, theorems, and rates."""
    from attnflow.experiments.simulate_figure import table

    return table(data)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """Time series and constants of a run, as plain JSON values."""
    series = ("clusters", "mean_cosine", "gap", "energy", "order_parameter", "effective_rank")
    rates = ("predicted_rate", "observed_rate", "observed_rate_drift", "steps")
    return {
        "time": data.time.values.tolist(),
        **{name: data[name].values.tolist() for name in series if name in data},
        **{name: data.attrs[name] for name in rates if name in data.attrs},
        "theorems": json.loads(data.attrs["theorems"]),
    }


_AXES = {
    "tokens": ("token", "axis"),
    "weights": ("token",),
    "labels": ("token",),
    "histogram": ("bin",),
    "largest": ("rank",),
}
_EQUATIONS = {
    "sa": "dx_i/dt = P_{x_i} sum_j softmax_j(beta <x_i, x_j>) V x_j",
    "usa": "dx_i/dt = P_{x_i} (1/n) sum_j e^{beta <x_i, x_j>} V x_j",
    "causal": "dx_i/dt = P_{x_i} sum_{j <= i} softmax_j(beta <x_i, x_j>) V x_j",
    "kuramoto": "dx_i/dt = P_{x_i} (1/n) sum_j V x_j",
    "hardmax": "dx_i/dt = P_{x_i} V x_{j(i)}, j(i) the nearest other token",
}


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    _prepare(resolve(config))


def _prepare(config: Config):
    """Check everything that can be checked before work starts."""
    from attnflow.errors import check_between, check_choice, check_count, check_finite, check_memory

    for name in ("beta", "value", "rate", "t_max", "t_min", "dt", "rtol", "atol", "cosine"):
        check_finite(getattr(config, name), name)
    check_between(config.cosine, "cosine", -1.0, 1.0, open_low=True)
    check_between(config.dt, "dt", low=0.0, open_low=True)
    check_choice(config.dtype, "dtype", ("float32", "float64"))
    check_count(config.saves, "saves", low=3)
    if config.n is not None:
        check_count(config.n, "n")
    check_choice(config.kernel_sum, "kernel_sum", af.kernels.KERNEL_SUMS)
    if config.state_saves is not None:
        check_count(config.state_saves, "state_saves")
    if config.norm != "post" and config.flow == "fisher-rao":
        raise ValueError(
            f"Argument `norm` must be 'post' for fisher-rao, but norm='{config.norm}'."
        )
    if config.norm == "none" and config.value > 0:  # |x|^2 grows like e^(2 value t)
        longest = np.log(float(np.finfo(config.dtype).max)) / 2 / config.value
        remedy = f"Without a norm tokens grow like e^t, beyond {config.dtype} at t = {longest:.4g}."
        check_between(save_times(config)[-1], "t_max", high=longest, open_high=True, remedy=remedy)
    flow, ts, x0 = make_flow(config), save_times(config), starts.start(config)
    if isinstance(flow, af.Flow) and isinstance(flow.norm, af.norms.Norm):
        flow.norm.check_times(ts)
    kept = len(kept_saves(config, x0, ts)) if config.states else 0
    what = f"A run of {len(x0)} tokens with {kept} saved states"
    check_memory(memory(x0, kept), what)
    return flow, ts, x0


def memory(x0: np.ndarray, kept: int) -> int:
    """Bytes that a run takes, about, with so many kept states."""
    return (2 * kept + WORKSPACE) * x0.nbytes + PROGRAMS


def kept_saves(config: Config, x0: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """Indices of the save times at which tokens are kept, the first and the last among them."""
    count = config.state_saves or max(2, min(len(ts), STATE_BYTES // x0.nbytes))
    return np.unique(np.linspace(len(ts) - 1, 0, min(count, len(ts))).round().astype(int))


def sampled(n: int, count: int) -> np.ndarray:
    """Which tokens stand for all n: `count` drawn at random, always the same, or all if there are no more.

    Not every so-many-th one: tokens of a start in clusters go round the clusters in turn.
    """
    if n <= count:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False))


def numerics_of(config: Config) -> dict[str, Any]:
    """Keyword arguments of `solve`."""
    observe: dict[str, Any] = {
        "mean_cosine": _direct(af.observables.mean_cosine),
        "gap": _direct(af.observables.cosine_gap),
        "order_parameter": _direct(af.observables.order_parameter),
        "effective_rank": _direct(af.observables.effective_rank),
        "histogram": _histogram,
    }
    if config.flow not in ("hardmax",):
        observe["energy"] = partial(_energy, beta=beside.beta_of(config))
    if config.norm != "post":
        observe["radius"] = _mean_radius
    if config.method == "adaptive":
        return {"observe": observe, "rtol": config.rtol, "atol": config.atol}
    import diffrax

    method = af.LayerMap() if config.method == "layers" else diffrax.Euler()
    return {"observe": observe, "method": method, "dt": config.dt}


def _direct(observable):
    """An observable of the directions x/|x|, whatever the weights; one object per observable."""
    if observable not in _DIRECT:
        _DIRECT[observable] = lambda x, *_: observable(af.sphere.normalize(x))
    return _DIRECT[observable]


_DIRECT: dict[Any, Any] = {}


def _energy(x, weights=None, *, beta):
    return af.observables.scaled_energy(af.sphere.normalize(x), beta, weights)


def _histogram(x, *_):
    import jax.numpy as jnp

    few = x if len(x) <= HISTOGRAM_TOKENS else x[sampled(len(x), SAMPLE)]
    return af.observables.cosine_histogram(few, jnp.asarray(EDGES, x.dtype))


def _mean_radius(x, *_):
    return ((x**2).sum(axis=-1) ** 0.5).mean()
