"""Compare clusterings: attention against KMeans, Ward, HDBSCAN and MeanShift on labelled data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    data: tuple[str, ...] = ("digits", "iris", "wine", "breast_cancer")
    """Labelled data sets that ship with scikit-learn."""
    methods: tuple[str, ...] = (
        "attention",
        "attention, euclidean",
        "HDBSCAN",
        "MeanShift",
        "attention, k",
        "attention, euclidean, k",
        "KMeans",
        "Ward",
    )
    """Methods; those of the last half of the default are told the number of classes."""
    standardize: bool = True
    """Whether features are scaled to mean 0 and variance 1; digits, all pixels, never are."""
    seed: int = 0
    """Seed of KMeans, the only method that draws random numbers."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of the data."""


def resolve(config: Config) -> Config:
    """Config with every open field filled in: it has none."""
    return config


DATA = ("digits", "iris", "wine", "breast_cancer")
"""Data sets by name, `sklearn.datasets.load_...`."""


def load(config: Config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, shape (n, d), the same for every method, and their classes, shape (n,)."""
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    x, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    if config.standardize and name != "digits":
        x = StandardScaler().fit_transform(x)
    return x.astype(config.dtype), classes


def _attention(k: int | None, metric: str) -> Any:
    from attnflow.cluster import AttentionClustering

    return AttentionClustering(n_clusters=k, metric=metric)


def _kmeans(k: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]


def _ward(k: int, seed: int) -> Any:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(k, linkage="ward")


def _hdbscan(k: int, seed: int) -> Any:
    from sklearn.cluster import HDBSCAN

    return HDBSCAN(copy=True)  # pyright: ignore[reportArgumentType]


def _mean_shift(k: int, seed: int) -> Any:
    from sklearn.cluster import MeanShift

    return MeanShift(n_jobs=-1)


METHODS: dict[str, tuple[str, Callable[[int, int], Any]]] = {
    "attention": ("nothing", lambda k, seed: _attention(None, "cosine")),
    "attention, euclidean": ("nothing", lambda k, seed: _attention(None, "euclidean")),
    "HDBSCAN": ("nothing (min_cluster_size 5)", _hdbscan),
    "MeanShift": ("nothing (bandwidth estimated)", _mean_shift),
    "attention, k": ("k", lambda k, seed: _attention(k, "cosine")),
    "attention, euclidean, k": ("k", lambda k, seed: _attention(k, "euclidean")),
    "KMeans": ("k", _kmeans),
    "Ward": ("k", _ward),
}
"""Methods by name: what the user must give (with what was left at its default), and the estimator."""

QUANTITIES = ("ari", "clusters", "left_out", "first_seconds", "seconds", "beta", "persistence")


def run(config: Config, *, progress: bool = False, checkpoint: Any = None) -> xr.Dataset:
    """Cluster every data set by every method, and compare with its classes.

    Each method runs twice: attention compiles in its first run. MeanShift and HDBSCAN do not know
    the number of classes, nor do the attention methods without k; nothing is tuned.

    Args:
        config: Settings.
        progress: Whether to show progress on stderr.
        checkpoint: Object with `load() -> (step, arrays) | None` and `save(step, arrays)`.

    Returns:
        Over (dataset, clustering): `ari`, the adjusted Rand index, in [-0.5, 1], 0 for a random labelling,
        tokens left out as noise being one more cluster; `clusters` found, noise not counted;
        `left_out`, the share of noise; `first_seconds` and `seconds`, of the first and second run;
        `beta` and `persistence` (decades of the chosen plateau) of attention, else NaN. Beside them
        `rows`, `features` and `classes` of the data, and what each method `needs`.

    Raises:
        ValueError: If a data set or a method is unknown, before work starts.
    """
    import xarray as xr
    from tqdm import tqdm

    check(config)
    loaded = [load(config, name) for name in config.data]
    shape = len(config.data), len(config.methods)
    done, found = 0, {name: np.full(shape, np.nan) for name in QUANTITIES}
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        done, found = kept
    cells = list(np.ndindex(shape))
    for step in tqdm(range(done, len(cells)), initial=done, total=len(cells), disable=not progress):
        (x, classes), method = loaded[cells[step][0]], config.methods[cells[step][1]]
        estimator = METHODS[method][1](len(np.unique(classes)), config.seed)
        for name, value in _measure(estimator, x, classes).items():
            found[name][cells[step]] = value
        if checkpoint is not None:
            checkpoint.save(step + 1, found)
    sizes = [(*x.shape, len(np.unique(classes))) for x, classes in loaded]
    rows, features, classes = zip(*sizes, strict=True)
    attrs = {key: value for key, value in asdict(config).items() if key != "dtype"}
    return xr.Dataset(
        {name: (("dataset", "clustering"), found[name]) for name in QUANTITIES}
        | {"rows": ("dataset", list(rows)), "features": ("dataset", list(features))}
        | {"classes": ("dataset", list(classes))},
        {
            "dataset": list(config.data),
            "clustering": list(config.methods),
            "needs": ("clustering", [METHODS[name][0] for name in config.methods]),
        },
        attrs={
            "experiment": "compare-clusterings",
            "equation": "dx_i/dt = P_{x_i} sum_j softmax_j(beta <x_i, x_j>) x_j",
            "units": "seconds of wall time; ari and left_out dimensionless",
            **attrs,
            "data": list(config.data),
            "methods": list(config.methods),
            "standardize": int(config.standardize),
        },
    )


def check(config: Config) -> None:
    """Refuse what cannot be run, before work starts."""
    from attnflow.errors import check_choice, check_count

    check_count(len(config.data), "len(data)")
    check_count(len(config.methods), "len(methods)")
    for name in config.data:
        check_choice(name, "data", DATA)
    for name in config.methods:
        check_choice(name, "methods", METHODS)
    for field in ("data", "methods"):
        names = getattr(config, field)
        if len(set(names)) < len(names):
            raise ValueError(f"Argument `{field}` must not repeat a name, but {field}={names}.")
    check_choice(config.dtype, "dtype", ("float32", "float64"))


def _measure(estimator, x, classes) -> dict[str, float]:
    """Numbers of one estimator on one data set."""
    from sklearn.metrics import adjusted_rand_score

    started = time.perf_counter()
    estimator.fit_predict(x)
    again = time.perf_counter()
    labels = estimator.fit_predict(x)
    ended = time.perf_counter()
    plateau = getattr(estimator, "plateau_", None)
    return {
        "ari": float(adjusted_rand_score(classes, labels)),
        "clusters": len(np.unique(labels[labels >= 0])),
        "left_out": float(np.mean(labels < 0)),
        "first_seconds": again - started,
        "seconds": ended - again,
        "beta": getattr(estimator, "beta_", np.nan),
        "persistence": np.nan if plateau is None else plateau.persistence,
    }


def draw(data: xr.Dataset) -> Figure:
    """Adjusted Rand index of every method, a panel per data set, with the clusters each found."""
    from attnflow import plot

    names, methods = [str(name) for name in data.dataset.values], data.clustering.values.tolist()
    rows = np.arange(len(methods))[::-1]
    told = np.array([needs == "k" for needs in data.needs.values])
    with plot.style():
        width, height = 2.3 + 2.5 * len(names), 1.4 + 0.32 * len(methods)
        figure, axes = plot.panels([names], width=width, height=height)
        for name, ax in axes.items():
            one = data.sel(dataset=name)
            scores = one.ari.values
            for given, color in ((False, plot.CATEGORICAL[0]), (True, plot.CATEGORICAL[1])):
                ax.hlines(rows[told == given], 0, scores[told == given], color=color, linewidth=2)
                ax.plot(scores[told == given], rows[told == given], "o", color=color)
            ax.axvline(0, color="#D5D8DD", linewidth=1, zorder=0)
            ax.set(xlim=(-0.05, 1.3), ylim=(-0.6, len(methods) - 0.4), xticks=[0, 0.5, 1])
            ax.set_yticks(rows, methods if name == names[0] else [""] * len(methods))
            ax.tick_params(axis="y", length=0)
            for row, score, clusters in zip(rows, scores, one.clusters.values, strict=True):
                ax.text(max(score, 0) + 0.06, row, f"{clusters:.0f}", va="center", fontsize=8)
            title = f"{name.replace('_', ' ')}\n{int(one.rows)} × {int(one.features)}, "
            ax.set_title(title + f"{int(one.classes)} classes", fontsize=10)
            ax.set_xlabel("adjusted Rand index")
        figure.suptitle(
            "Clusterings against classes; beside each dot the number of clusters found. "
            "Blue: told nothing. Orange: told the number of classes.",
            fontsize=10, x=0.01, ha="left",
        )  # fmt: skip
    return figure


def summary(data: xr.Dataset) -> str:
    """Table: one block per data set, one line per method."""
    lines = []
    for name in data.dataset.values:
        one = data.sel(dataset=name)
        lines += [
            f"{name}: {int(one.rows)} rows, {int(one.features)} features, {int(one.classes)} classes",
            f"  {'method':<26}{'ARI':>7}{'clusters':>10}{'noise':>8}{'seconds':>10}{'first':>9}"
            "  the user gives",
        ]
        for method in data.clustering.values:
            cell = one.sel(clustering=method)
            noise = f"{100 * float(cell.left_out):.0f} %" if cell.left_out > 0 else "-"
            lines.append(
                f"  {method:<26}{float(cell.ari):7.3f}{int(cell.clusters):10d}{noise:>8}"
                f"{float(cell.seconds):10.2f}{float(cell.first_seconds):9.2f}  {cell.needs.item()}"
            )
        lines.append("")
    told = "features standardised, but for digits" if data.attrs["standardize"] else "features raw"
    return "\n".join([*lines, f"first: with compilation. {told[0].upper()}{told[1:]}."])


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """The table as plain JSON values; None where a method has no such number."""

    def plain(value) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        str(name): {
            str(method): {
                "needs": str(data.needs.sel(clustering=method).item()),
                **{
                    q: plain(data[q].sel(dataset=name, clustering=method).item())
                    for q in QUANTITIES
                },
            }
            for method in data.clustering.values
        }
        for name in data.dataset.values
    }
