"""The merge tree: when clusters met, which, and what was left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attnflow.coalescence.early import crowded, snapshot
from attnflow.coalescence.run import Snapshot, evolve
from attnflow.errors import check_between, check_count

if TYPE_CHECKING:
    import xarray as xr

LN10 = np.log(10)
MAX_STEPS = 10**7


class History(NamedTuple):
    """One entry per accepted step: log10 time, scaled energy, number of clusters; shape (s,) each."""

    log10_times: np.ndarray
    energies: np.ndarray
    clusters: np.ndarray


class Clusters(NamedTuple):
    """One moment: positions (k, d), weights (k,), and the cluster 0..k-1 of each token, (n,)."""

    x: np.ndarray
    weights: np.ndarray
    labels: np.ndarray


class Plateau(NamedTuple):
    """A stretch between merges, times inf beyond 1e308.

    Persistence is log10(1 + end) - log10(1 + start), the middle is taken on the same scale.
    """

    start: float
    end: float
    clusters: int
    energy: float
    persistence: float
    log10_middle: float


@dataclass(frozen=True, eq=False)
class MergeTree:
    """What a coalescing run saw. Times are dimensionless and may pass 1e308: take their logarithms.

    A merge time is when tokens of the two came within `contact`, whatever `merge_tol`; in the crowded
    phase of a large cloud, the end of the step in which they came within 3 % of a kernel width, and
    many merges then have one time, and the energy after all of them. Cluster ids are SciPy's: 0..n-1 are
    the tokens, n + k is what merge k made. m = n - 1 if all became one.
    """

    model: str
    """"sa" or "usa"."""
    beta: float
    """Inverse temperature, Q and K included."""
    x0: np.ndarray
    """Tokens at the start, shape (n, d)."""
    weights0: np.ndarray
    """Their weights, shape (n,), sum 1."""
    log10_times: np.ndarray
    """Merge times, shape (m,); -inf for tokens that start as one."""
    pairs: np.ndarray
    """Cluster ids that met, shape (m, 2), smaller first."""
    merged_x: np.ndarray
    """Positions of the clusters made, shape (m, d)."""
    merged_weights: np.ndarray
    """Weights of the clusters made, shape (m,)."""
    energies: np.ndarray
    """Scaled energy at the start and after each merge, shape (m + 1,), in (0, 1]."""
    history: History
    """Energy and number of clusters, step by step."""
    status: str
    """"collapsed", "t_max", or "stationary": what is left does not move, though it is not one."""
    log10_t_end: float
    """Time at which the run ended."""
    x_end: np.ndarray
    """Clusters left, shape (k, d)."""
    weights_end: np.ndarray
    """Their weights, shape (k,)."""
    stats: dict[str, int]
    """Steps, rejected steps, merges, kicks; of them `crowd_steps` and `crowd_merges` in the crowded phase."""
    _snapshots: list[Snapshot] = field(repr=False)
    _found: np.ndarray = field(repr=False)
    _rules: dict[str, Any] = field(repr=False)
    _products: bool = field(repr=False)
    _log_unit: float = field(repr=False)
    _basis: np.ndarray | None = field(repr=False)
    _left: int | None = field(repr=False)

    @property
    def n(self) -> int:
        """Number of tokens."""
        return len(self.x0)

    @property
    def times(self) -> np.ndarray:
        """Merge times, shape (m,); inf beyond 1e308."""
        with np.errstate(over="ignore"):
            return 10.0**self.log10_times

    @property
    def heights(self) -> np.ndarray:
        """log10(1 + t) of the merges, shape (m,)."""
        return _height(self.log10_times)

    @property
    def linkage(self) -> np.ndarray:
        """SciPy linkage, shape (n - 1, 4), heights log10(1 + t); inf for clusters that never met."""
        n, pairs = self.n, self.pairs
        alone = np.setdiff1d(np.arange(n + len(pairs)), pairs)
        rest = np.arange(max(len(alone) - 1, 0))
        if len(rest):  # the first two by number, and what they make comes last
            queue = np.concatenate([alone, n + len(pairs) + rest])
            pairs = np.concatenate([pairs, queue[: 2 * len(rest)].reshape(-1, 2)])
        heights = np.concatenate([self.heights, np.full(len(rest), np.inf)])
        size = np.ones(n + len(pairs))
        for k, (i, j) in enumerate(pairs.tolist()):
            size[n + k] = size[i] + size[j]
        return np.column_stack([pairs, heights, size[n:]]).reshape(-1, 4)

    def labels(self, k: int) -> np.ndarray:
        """Cluster 0..k-1 of each token when k clusters are left, numbered by their first token.

        Raises:
            ValueError: If k is not between the number of clusters at the end and n.
        """
        check_count(k, "k")
        check_between(
            k,
            "k",
            float(len(self.x_end)),
            float(self.n),
            remedy="The run ended before, or never had as many.",
        )
        return self._labels(self.n - k)

    def _labels(self, merges: int) -> np.ndarray:
        top = _tops(self.pairs[:merges], self.n)
        _, first, labels = np.unique(top, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[labels]

    def plateaus(self, min_persistence: float = 0.0) -> list[Plateau]:
        """Stretches between merges, in order of time, those of at least a persistence.

        The last, one cluster for ever, is left out of a collapsed run.
        """
        ends = self.heights if self.status == "collapsed" else np.append(self.heights, np.inf)
        if self.status == "t_max":
            ends[-1] = _height(np.array(self.log10_t_end))
        starts = np.concatenate([[0.0], self.heights])[: len(ends)]
        stretches = []
        for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end > start and end - start >= min_persistence:
                stretches.append(
                    Plateau(
                        _time(start),
                        _time(end),
                        self.n - k,
                        float(self.energies[k]),
                        float(end - start),
                        _log10((start + end) / 2),
                    )
                )
        return stretches

    def at(self, t: float | None = None, *, log10_t: float | None = None) -> Clusters:
        """Clusters at a time, run again from the last moment kept before it: exact, not interpolated.

        In the crowded phase this is one run of it from the start, its last step shortened to end
        then, so that a merge may come a step earlier or later than in `times`.

        Args:
            t: Time, >= 0.
            log10_t: Or its logarithm, for times beyond 1e308.
        """
        if (t is None) == (log10_t is None):
            raise ValueError(f"Pass one of `t` and `log10_t`, but t={t} and log10_t={log10_t}.")
        if t is not None:
            check_between(t, "t", low=0.0)
        with np.errstate(divide="ignore"):
            return self.along([float(np.log10(t)) if t is not None else float(log10_t or 0.0)])[0]

    def along(self, log10_ts: Sequence[float] | np.ndarray) -> list[Clusters]:
        """Clusters at increasing log10 t, each run on from the one before, or the last moment kept."""
        told: list[Clusters] = []
        now, found = self._snapshots[0], self._found[: self._snapshots[0].merges]
        for log10_t in np.asarray(log10_ts, float):
            log_t = float(log10_t) * LN10 - self._log_unit
            if log_t < self._snapshots[0].log_t:
                told.append(self._told(*self._in_the_crowd(log_t)))
                continue
            kept = [one for one in self._snapshots if one.log_t <= log_t][-1]
            if kept.log_t > now.log_t:
                now, found = kept, self._found[: kept.merges]
            if log_t > now.log_t:
                rules = {**self._rules, "log_t_max": log_t}
                story = evolve(now, rules, n=self.n, max_steps=MAX_STEPS, products=self._products)
                now, found = story.end, np.concatenate([found, story.pairs.reshape(-1, 2)])
            told.append(self._told(now.clusters(), found))
        return told

    def _told(self, moment: Snapshot, found: np.ndarray) -> Clusters:
        """Clusters of a moment, in the user's axes, by the merges of the run that led to it.

        Not by those of the whole run: of merges at nearly one time another may come first.
        """
        place = np.full(2 * self.n, -1)
        place[moment.ids] = np.arange(len(moment.ids))
        labels = place[_tops(found, self.n, stop=place >= 0)]
        x = moment.x if self._basis is None else moment.x @ self._basis.T
        return Clusters(x, np.exp(moment.log_w), labels)

    def _in_the_crowd(self, log_t: float) -> tuple[Snapshot, np.ndarray]:
        """Tokens at a moment of the crowded phase, and what has merged."""
        x = self.x0 if self._basis is None else self.x0 @ self._basis
        early = crowded(
            x,
            self.weights0,
            self.beta,
            left=self._left or 1,
            softmax=self.model == "sa",
            log_t_max=log_t,
        )
        return snapshot(early), early.pairs

    def to_xarray(self) -> xr.Dataset:
        """Labelled copy: axes merge, stretch, step, token, axis, end."""
        import xarray as xr

        return xr.Dataset(
            {
                "log10_time": ("merge", self.log10_times),
                "pair": (("merge", "member"), self.pairs),
                "merged_x": (("merge", "axis"), self.merged_x),
                "merged_weight": ("merge", self.merged_weights),
                "energy": ("stretch", self.energies),
                "linkage": (("row", "column"), self.linkage),
                "x0": (("token", "axis"), self.x0),
                "weight0": ("token", self.weights0),
                "x_end": (("end", "axis"), self.x_end),
                "weight_end": ("end", self.weights_end),
                "step_log10_time": ("step", self.history.log10_times),
                "step_energy": ("step", self.history.energies),
                "step_clusters": ("step", self.history.clusters),
            },
            attrs={
                "model": self.model,
                "beta": self.beta,
                "status": self.status,
                "log10_t_end": self.log10_t_end,
                **self.stats,
            },
        )

    def to_html(
        self,
        path: Path | str,
        *,
        color: Any = None,
        names: Sequence[str] | None = None,
        title: str = "",
        force: bool = False,
        max_frames: int = 200,
    ) -> Path:
        """Write one HTML page to play with: tokens along log-time, the tree of merges, the energy staircase.

        The arguments are those of `Trajectory.to_html`. All frames cost about one more run.
        """
        from attnflow.view import check_page, html, scene_of_tree, thinned, write

        check_page(path, force=force)
        scene = scene_of_tree(self, color=color, names=names, title=title, max_frames=max_frames)
        return write(html(thinned(scene, max_frames=max_frames)), path, force=force)


def _tops(pairs: np.ndarray, n: int, stop: np.ndarray | None = None) -> np.ndarray:
    """Cluster that each of n tokens is in after merges, or the first on the way where `stop` holds."""
    top = np.arange(n + len(pairs))
    stays = np.zeros(len(top), bool) if stop is None else stop
    for k in range(len(pairs) - 1, -1, -1):
        for child in pairs[k]:
            if not stays[child]:
                top[child] = top[n + k]
    return top[:n]


def _height(log10_t):
    return np.logaddexp(0.0, np.asarray(log10_t) * LN10) / LN10


def _log10(height: float) -> float:
    """log10 t at a height log10(1 + t)."""
    return float(height + np.log1p(-(10.0**-height)) / LN10)


def _time(height: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.expm1(np.float64(height) * LN10))
