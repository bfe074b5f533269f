"""`attnflow run`: find or make a run, keep its numbers, draw its figure."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attnflow import launch
from attnflow.commands.parsing import parse


@dataclass(frozen=True)
class Output:
    """Where results go, and what is printed."""

    out: Path = Path("runs")
    """Folder of all runs."""
    force: bool = False
    """Run again even if this very config was already run."""
    resume: bool = False
    """Continue an interrupted run from its last checkpoint."""
    quiet: bool = False
    """No progress, no table."""
    json: bool = False
    """Print results as JSON."""


def main(argv: list[str]) -> int:
    """`attnflow run EXPERIMENT ...`."""
    from attnflow.experiments import EXPERIMENTS, load

    names = ", ".join(EXPERIMENTS)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: attnflow run EXPERIMENT ...\n\nexperiments: {names}")
        return 0
    name, *rest = argv
    if name not in EXPERIMENTS:
        from attnflow.errors import check_choice

        check_choice(name, "experiment", EXPERIMENTS)
    experiment = load(name)

    parts = [("config", experiment.Config), ("output", Output)]
    if getattr(experiment, "SPREADS", False):
        parts.append(("team", launch.Processes))
    given = parse(make_dataclass("Run", parts), rest, f"attnflow run {name}", EXPERIMENTS[name])
    config, output = experiment.resolve(given.config), given.output
    team = getattr(given, "team", launch.Processes())
    launch.check_processes(team, getattr(config, "n", None))
    if (count := launch.starts_here(team)) and _is_wanted(name, config, output):
        return launch.run_here(["run", *argv], count)
    if launch.is_one_of_several(team):
        _join(name, config, team)
    return _run_experiment(name, experiment, config, output)


def _join(name: str, config: Any, team: launch.Processes) -> None:
    """Make this process one of several that compute one run."""
    launch.follow()
    from attnflow import distributed, store
    from attnflow.store.identity import input_digests

    settings = {"experiment": name, **store.canonical(config), **input_digests(config)}
    distributed.join(
        team.coordinator or None,
        None if team.processes == "auto" else team.processes,
        team.process_id,
        settings=settings,
        device=team.process_id if launch.on_leash() else None,
    )


def _is_wanted(name: str, config: Any, output: Output) -> bool:
    """Whether a run has to be made, once its folder can be."""
    from attnflow import store

    store.check_writable(output.out)
    return output.force or not store.exists(store.folder_of(name, config, output.out))


def _run_experiment(name: str, experiment: ModuleType, config: Any, output: Output) -> int:
    """Find or make a run, then say what it found and where it is."""
    from attnflow import distributed, store

    folder = store.folder_of(name, config, output.out)
    if distributed.together(lambda: _is_wanted(name, config, output)):
        _make_run(name, experiment, config, folder, output)
    elif not output.quiet and distributed.leads():
        print(f"attnflow: {folder} is there already; --force runs it again.", file=sys.stderr)
    if distributed.leads():
        tell(folder, experiment, output)
    return 0


def _make_run(name: str, experiment: ModuleType, config: Any, folder: Path, output: Output) -> None:
    import jax

    from attnflow import distributed, store
    from attnflow.experiments.pictures import pictures

    jax.config.update("jax_enable_x64", True)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        checkpoint: Any = None

        def claim() -> None:
            nonlocal checkpoint
            checkpoint = stack.enter_context(store.claim(folder))
            if not output.resume:
                checkpoint.drop()

        def keep() -> None:
            several = jax.process_count()
            store.save(
                folder,
                name,
                config,
                data,
                figures=pictures(experiment, data),
                provenance=store.gather_provenance(
                    device=f"{jax.devices()[0].device_kind}{f' x {several}' * (several > 1)}",
                    dtype=config.dtype,
                    wall_time=time.monotonic() - started,
                ),
                force=output.force,
            )

        distributed.together(claim)
        shared = distributed.SharedCheckpoint(checkpoint) if distributed.joined() else checkpoint
        progress = distributed.leads() and not output.quiet
        data = experiment.run(config, progress=progress, checkpoint=shared)
        distributed.together(keep)


def tell(folder: Path, experiment: ModuleType, output: Output) -> None:
    """Print a run: its table unless quiet, and its folder and picture last."""
    from attnflow import store
    from attnflow.experiments.pictures import add_missing

    figure = folder / "figure.png"
    add_missing(folder, experiment)
    if output.json:
        record = store.read_config(folder)
        numbers = experiment.numbers(store.load(folder))
        print(json.dumps({"run": str(folder), "figure": str(figure), **record, "numbers": numbers}))
        return
    if not output.quiet:
        print(experiment.summary(store.load(folder)), end="\n\n")
    print(f"run:    {folder}\nfigure: {figure}")
    if (folder / "report.html").exists():
        print(f"page:   {folder / 'report.html'}")
