"""`attnflow sweep`: one experiment at many settings, each its own run, merged into one table."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attnflow.commands import axes
from attnflow.commands.parsing import parse

if TYPE_CHECKING:
    import xarray as xr

NAME = "sweep"
"""What stands for the experiment in the name of a sweep."""

ROWS, COLUMNS = 40, 3
"""Largest table that is printed."""

USAGE = """\
usage: attnflow sweep EXPERIMENT --FIELD VALUES ... [options]

One experiment at many settings. Each is a run of its own, as `attnflow run` makes it; what is there is
not computed again, so that a sweep that was cut off goes on when it is started again.

FIELD is any of `attnflow run EXPERIMENT --help`. VALUES are
  1 2 4 8        these values; items of a tuple stand between commas: --ns 64,256 64,1024
  0:16  0:16:2   whole numbers from 0 to 15, and every second one
  0..1/11        11 evenly spaced numbers, both ends among them; 1..100/5/log evenly in log
  0..1  1..9/log a number drawn between two, with --random
A field with one value is the same everywhere. Fields with more form a product, unless --zip or --random.

  attnflow sweep simulate --beta 1 2 4 8 --seed 0:16 --n 64 --outcome clusters
  attnflow sweep simulate --value=-1..1/5 --refine value --outcome mean_cosine --threshold 0

experiments: {experiments}
"""


@dataclass(frozen=True)
class Options:
    """How the settings are combined, where they are computed, and what is printed."""

    zip: bool = False
    """First values of all fields, second values, ..., instead of every combination."""
    random: int | None = None
    """Number of settings, drawn at random."""
    sweep_seed: int = 0
    """Seed of these draws."""
    executor: Literal["here", "processes", "dask", "slurm"] = "here"
    """Where runs are computed: one after the other here, in processes of this machine, on Dask or SLURM."""
    workers: int | None = None
    """Runs at once; as many as cores by default, 64 on SLURM."""
    address: str = ""
    """Scheduler of Dask, tcp://host:port; empty starts one here, with its workers."""
    slurm: tuple[str, ...] = ()
    """Parameters of jobs as KEY=VALUE, in submitit's words: timeout_min=60 slurm_partition=gpu."""
    retry: bool = False
    """Do again what failed before."""
    refine: tuple[str, ...] = ()
    """One field or two whose cells are halved where the outcome changes."""
    outcome: str = ""
    """Number to draw and to refine by: NAME, or NAME@DIMENSION=PLACE such as clusters@time=100; the
    last place is taken where none is said."""
    threshold: float | None = None
    """Number that the outcome crosses, for --refine; needed unless it is a whole number or a word."""
    levels: int = 3
    """How often cells are halved."""
    keep: tuple[str, ...] = ()
    """Variables of the runs to merge besides those that --json of `attnflow run` prints."""
    out: Path = Path("runs")
    """Folder of all runs; all workers see it."""
    quiet: bool = False
    """No progress, no table."""
    json: bool = False
    """Print results as JSON."""


def main(argv: list[str]) -> int:
    """`attnflow sweep EXPERIMENT ...`; exit code 1 if a run failed."""
    from attnflow.experiments import EXPERIMENTS

    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(experiments=", ".join(EXPERIMENTS)), end="")
        return 0
    from attnflow.errors import check_choice
    from attnflow.experiments import load

    experiment, *words = argv
    check_choice(experiment, "experiment", EXPERIMENTS)
    config = load(experiment).Config
    varied, rest = axes.split(words, config)
    _check_options(experiment, rest)
    options = parse(Options, rest, f"attnflow sweep {experiment}", _help(config))
    points = _points(experiment, config, varied, options)
    try:
        folder = _compute(experiment, points, options)
    except KeyboardInterrupt:
        print("attnflow: interrupted. Start the same sweep again to go on.", file=sys.stderr)
        return 130
    return tell(folder, quiet=options.quiet, as_json=options.json)


def tell(folder: Path, *, quiet: bool = False, as_json: bool = False) -> int:
    """Print a sweep: its table unless quiet, its failures, its folder and picture last."""
    from attnflow import store

    data, figure = store.load(folder), folder / "figure.png"
    outcome = store.read_config(folder)["config"]["outcome"]
    pairs = zip(data["run"].values.ravel(), data["reason"].values.ravel(), strict=True)
    failed = {str(run): str(reason) for run, reason in pairs if reason}
    if as_json:
        print(json.dumps(_plain(folder, figure, data)))
        return 1 if failed else 0
    if not quiet:
        print(table(data, outcome), end="\n\n")
        if "transition" in data.attrs:
            print(_transition(data), end="\n\n")
    for run, reason in failed.items():
        print(f"attnflow: {run} failed: {reason}", file=sys.stderr)
    if failed:
        print(f"attnflow: {len(failed)} failed; --retry does them again.", file=sys.stderr)
    print(f"sweep:  {folder}")
    if figure.exists():
        print(f"figure: {figure}")
    return 1 if failed else 0


def table(data: xr.Dataset, outcome: str = "") -> str:
    """Swept fields, and means over seeds with their standard errors, of a few numbers."""
    from attnflow.sweeps.figure import over_seeds
    from attnflow.sweeps.merge import numbers_of

    names = [outcome] if outcome else numbers_of(data)[:COLUMNS]
    found = [over_seeds(data, name) for name in names]
    if not found:
        return f"{data['run'].size} runs, without numbers that could be merged."
    axes = found[0][2]
    left, right = (max(12, *map(len, words)) + 2 for words in (axes, [*names, " " * 22]))
    seeds = data.sizes.get("seed", 1) if "seed" not in axes else 1
    lines = [
        f"{data['run'].size} runs of {data.attrs['experiment']}"
        + (f", means over {seeds} seeds with standard errors" if seeds > 1 else ""),
        "".join(f"{name:>{left}}" for name in axes) + "".join(f"{name:>{right}}" for name in names),
    ]
    mean = found[0][0]
    for at in np.ndindex(mean.shape):
        if len(lines) == ROWS + 2:
            lines.append(f"... and {mean.size - ROWS} rows more")
            break
        places = dict(zip(mean.dims, at, strict=True))
        row = "".join(
            f"{_word(mean[name].isel(_of(mean[name], places)).item()):>{left}}" for name in axes
        )
        for value, error, _ in found:
            cell = f"{value.values[at]:.6g}"
            row += f"{cell if error is None else f'{cell} ± {error.values[at]:.2g}':>{right}}"
        lines.append(row)
    return "\n".join(lines)


def _of(one: Any, places: dict[Any, int]) -> dict[Any, int]:
    return {dim: places[dim] for dim in one.dims}


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _transition(data: xr.Dataset) -> str:
    """Where the outcome changes."""
    cells = json.loads(data.attrs["transition"])
    if not cells:
        return "The outcome does not change between neighbouring values."
    names = data.attrs["refined"]
    lines = [
        "  "
        + ", ".join(
            f"{n} {low:.6g} to {high:.6g}" for n, (low, high) in zip(names, cell, strict=True)
        )
        for cell in cells
    ]
    more = [f"  ... and {len(lines) - ROWS} more"] if len(lines) > ROWS else []
    return "\n".join(["The outcome changes in", *lines[:ROWS], *more])


def _plain(folder: Path, figure: Path, data: xr.Dataset) -> dict[str, Any]:
    """A sweep as JSON values: a row for each run, its numbers at the last place of their dimensions."""
    from attnflow.sweeps.merge import measured, numbers_of

    dims, runs = data["run"].dims, data["run"].values
    numbers = {name: measured(data, name).values for name in numbers_of(data)}
    rows = []
    for at in np.ndindex(runs.shape):
        places = dict(zip(dims, at, strict=True))
        of = lambda name, places=places: data[name].isel(_of(data[name], places)).item()
        rows.append(
            {
                "run": str(runs[at]),
                **{name: of(name) for name in data.attrs["swept"]},
                "reason": of("reason"),
                "numbers": {k: _finite(v[at].item()) for k, v in numbers.items()},
            }
        )
    settings = json.loads(data.attrs["settings"])
    told = {"sweep": str(folder), "figure": str(figure) if figure.exists() else None}
    told |= {"experiment": data.attrs["experiment"], "settings": settings, "tasks": rows}
    if "transition" in data.attrs:
        told |= {
            "refined": data.attrs["refined"],
            "transition": json.loads(data.attrs["transition"]),
        }
    return told


def _finite(value: Any) -> Any:
    return value if np.isfinite(value) else None


def _help(config: type) -> str:
    """What --help says first."""
    names = ", ".join(field.name for field in fields(config))
    return f"Fields: {names}. How values are written: `attnflow sweep --help`."


def _check_options(experiment: str, rest: list[str]) -> None:
    """Raise `ValueError` for a word that is neither a field nor an option, with the nearest of both."""
    from attnflow.sweeps.design import check_fields

    options = [field.name for field in fields(Options)]
    known = [*options, *(f"no_{name}" for name in options), "help"]
    names = [word[2:].partition("=")[0] for word in rest if word.startswith("--")]
    check_fields(experiment, [name.replace("-", "_") for name in names], known)


def _points(
    experiment: str, config: type, varied: dict[str, list[str]], options: Options
) -> list[Any]:
    """Configs of the design that is asked for."""
    from attnflow import sweeps

    values = {name: axes.read(config, name, words) for name, words in varied.items()}
    if options.zip and options.random is not None:
        raise ValueError("Argument `zip` must be left out of a random design, but it is there.")
    if options.random is not None:
        return sweeps.random(experiment, options.random, sweep_seed=options.sweep_seed, **values)
    return (sweeps.zipped if options.zip else sweeps.product)(experiment, **values)


def _compute(experiment: str, points: list[Any], options: Options) -> Path:
    """Folder of the sweep, once all that is missing is computed."""
    from attnflow.sweeps import open_executor
    from attnflow.sweeps.refine import refined
    from attnflow.sweeps.sweep import conclude, perform_all, plan, settled

    tasks = plan(experiment, points, options.out)
    idle = not options.refine and len(settled(tasks, retry=options.retry)) == len(
        {task.folder for task in tasks}
    )
    how: dict[str, Any] = {"retry": options.retry, "progress": not options.quiet}
    logs = options.out.resolve() / ".submitit"
    with open_executor(
        "here" if idle else options.executor,
        workers=options.workers,
        address="" if idle else options.address,
        logs=logs,
        slurm=_parameters(options.slurm),
    ) as executor:
        if options.refine:
            if not options.outcome:
                raise ValueError("Argument `outcome` must name what changes, but it is empty.")
            return refined(
                experiment, points, options.refine, options.outcome, threshold=options.threshold,
                levels=options.levels, executor=executor, out=options.out, keep=options.keep, **how,
            )  # fmt: skip
        outcomes = perform_all(tasks, executor, **how)
    return conclude(
        experiment, points, tasks, outcomes,
        out=options.out, keep=options.keep, outcome=options.outcome,
    )  # fmt: skip


def _parameters(words: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE words, whole numbers as such."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ValueError(f"Argument `slurm` must hold KEY=VALUE, but one word is '{word}'.")
        found[key] = int(value) if value.isdecimal() else value
    return found
