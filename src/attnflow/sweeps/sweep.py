"""One sweep from start to end: check every point, do what is missing, merge, save."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnflow import store
from attnflow.sweeps.design import check_fields
from attnflow.sweeps.execution import execute
from attnflow.sweeps.merge import measured, merge
from attnflow.sweeps.tasks import Outcome, Task, noted_failure

if TYPE_CHECKING:
    import xarray as xr

NAME = "sweep"


@dataclass(frozen=True)
class Spec:
    """What the name of a sweep is made of."""

    experiment: str
    """Experiment of all tasks."""
    runs: tuple[str, ...]
    """Names of the runs, in order."""
    keep: tuple[str, ...]
    """Further variables that were merged."""
    outcome: str
    """What the figure shows."""


def sweep(
    experiment: str,
    points: Sequence[Any],
    *,
    executor: Any = None,
    out: Path | str = "runs",
    retry: bool = False,
    keep: Sequence[str] = (),
    outcome: str = "",
    progress: bool = True,
) -> xr.Dataset:
    """Results of many configs; only what the store lacks is computed.

    Each config is a run of its own, named by its hash, as `attnflow run` makes it. Interrupted at any
    moment, a sweep goes on when it is called again. A run that fails leaves its reason. Float64 is
    switched on, as under `attnflow run`.

    Args:
        experiment: Name of the experiment.
        points: Configs, from `product`, `zipped` or `random`.
        executor: Object with `submit(function, *args)` that gives a future with `result()`: a `Client` of
            Dask, an executor of submitit, `Processes`. None computes here, one after the other.
        out: Folder of all runs, which all workers see.
        retry: Do again what failed before.
        keep: Variables of the results to merge besides those that `attnflow run --json` prints.
        outcome: What the figure shows, see `measured`; the first number by default.
        progress: Whether to show progress on stderr.

    Returns:
        Merged results, see `merge`; also kept as a run, sweep-<hash>, with its figure.

    Raises:
        ValueError: If a point is out of range, before any work; or a run in the store cannot be read.
        OSError: If `out` cannot be written.
        RuntimeError: If the executor takes no more tasks.
    """
    tasks = plan(experiment, points, out)
    outcomes = perform_all(tasks, executor, retry=retry, progress=progress)
    return store.load(
        conclude(experiment, points, tasks, outcomes, out=out, keep=keep, outcome=outcome)
    )


def plan(experiment: str, points: Sequence[Any], out: Path | str) -> list[Task]:
    """Tasks of points, each of which is checked first: what can be refused is refused before any work."""
    import jax

    from attnflow.experiments import load

    check_fields(experiment, ())
    module = load(experiment)
    if not len(points) or not all(isinstance(point, module.Config) for point in points):
        raise ValueError(
            f"Argument `points` must be configs of {experiment}, at least one, but it is not. "
            f"Take `product('{experiment}', ...)`."
        )
    jax.config.update("jax_enable_x64", True)
    configs = list(map(module.resolve, points))
    for config in configs:
        store.canonical(config)
        if hasattr(module, "check"):
            module.check(config)
    root = Path(out).resolve()
    store.check_writable(root)
    return [
        Task(experiment, config, store.folder_of(experiment, config, root)) for config in configs
    ]


def perform_all(
    tasks: Sequence[Task],
    executor: Any = None,
    *,
    retry: bool = False,
    progress: bool = False,
) -> dict[str, Outcome]:
    """What became of every task; done again is neither what the store has nor what failed before."""
    known = settled(tasks, retry=retry)
    distinct = {task.folder.name: task for task in tasks}
    todo = [task for name, task in distinct.items() if name not in known]
    return known | execute(todo, executor, total=len(distinct), progress=progress and bool(todo))


def settled(tasks: Sequence[Task], *, retry: bool = False) -> dict[str, Outcome]:
    """Tasks for which nothing is to be done, by the names of their runs."""
    known: dict[str, Outcome] = {}
    for task in tasks:
        if store.exists(task.folder):
            known[task.folder.name] = Outcome("done")
        elif not retry and (reason := noted_failure(task)) is not None:
            known[task.folder.name] = Outcome("failed", reason)
    return known


def conclude(
    experiment: str,
    points: Sequence[Any],
    tasks: Sequence[Task],
    outcomes: dict[str, Outcome],
    *,
    out: Path | str = "runs",
    keep: Sequence[str] = (),
    outcome: str = "",
    attrs: dict[str, Any] | None = None,
) -> Path:
    """Merge, draw and keep a sweep, unless it is there just so; its folder."""
    from attnflow.sweeps.figure import pictures

    started, root = time.monotonic(), Path(out)
    runs = tuple(task.folder.name for task in tasks)
    spec = Spec(experiment, runs, tuple(keep), outcome)
    folder = store.folder_of(NAME, spec, root)
    reasons = [outcomes[name].reason for name in runs]
    found = store.exists(folder)
    if found and _reasons(store.load(folder)) == {
        k: r for k, r in zip(runs, reasons, strict=True) if r
    }:
        return folder
    data = merge(
        experiment, points, results(tasks, outcomes), runs=runs, reasons=reasons, keep=keep
    ).assign_attrs(attrs or {})
    if outcome and data.data_vars:
        measured(data, outcome)
    provenance = store.gather_provenance(
        device=f"{len(set(runs))} runs", dtype="as runs", wall_time=time.monotonic() - started
    )
    files = pictures(data, outcome)
    return store.save(folder, NAME, spec, data, provenance=provenance, figures=files, force=found)


def _reasons(data: xr.Dataset) -> dict[str, str]:
    """Why runs of a kept sweep failed."""
    pairs = zip(data["run"].values.ravel(), data["reason"].values.ravel(), strict=True)
    return {str(run): str(reason) for run, reason in pairs if reason}


def results(tasks: Sequence[Task], outcomes: dict[str, Outcome]) -> Iterator[xr.Dataset | None]:
    """Results of tasks, read one after the other; None where there is none."""
    for task in tasks:
        done = outcomes[task.folder.name].state == "done"
        yield store.load(task.folder) if done else None
