"""`attnflow list`: runs that were kept."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from attnflow.commands.parsing import parse, print_json


def main(argv: list[str]) -> int:
    """`attnflow list`."""
    return parse(list_runs, argv, "attnflow list")


def list_runs(out: Path = Path("runs"), json: bool = False) -> int:
    """Runs that were kept, oldest first.

    Args:
        out: Folder of all runs.
        json: Print JSON.
    """
    from attnflow import store

    runs = store.list_runs(out)
    if json:
        print_json([{**asdict(run), "folder": str(run.folder), "name": run.name} for run in runs])
        return 0
    for run in runs:
        when = str(run.provenance.get("created", ""))[:16].replace("T", " ")
        seconds = run.provenance.get("wall_time")
        took = f"{seconds:8.1f} s" if seconds is not None else " " * 10
        print(f"{run.name:<32} {when:<16} {took} {run.size / 2**20:9.2f} MiB  {run.problem}")
    if not runs:
        print(f"attnflow: no runs in {out}. `attnflow run simulate` makes one.", file=sys.stderr)
    return 0
