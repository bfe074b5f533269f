"""`attnflow show`: one run."""

from __future__ import annotations

from pathlib import Path

from attnflow.commands import sweep
from attnflow.commands.parsing import parse
from attnflow.commands.run import Output, tell


def main(argv: list[str]) -> int:
    """`attnflow show RUN`."""
    return parse(show, argv, "attnflow show")


def show(run: str, out: Path = Path("runs"), json: bool = False) -> int:
    """One run: its settings, its table, where its figure is.

    Args:
        run: Name of a run, the start of a name, or a folder.
        out: Folder of all runs.
        json: Print JSON.
    """
    from attnflow import store
    from attnflow.experiments import EXPERIMENTS, load

    folder = store.find(out, run)
    record = store.read_config(folder)
    if record["experiment"] == sweep.NAME:
        return sweep.tell(folder, as_json=json)
    if record["experiment"] not in EXPERIMENTS:
        raise ValueError(
            f"Argument `run` must be a run of a known experiment, but {folder} is one of "
            f"'{record['experiment']}'. Upgrade attnflow."
        )
    if not json:
        settings = {"settings": record["config"], "provenance": record["provenance"]}
        for title, values in settings.items():
            print(title + ":")
            print("\n".join(f"  {key:<14} {value}" for key, value in values.items()), end="\n\n")
    tell(folder, load(record["experiment"]), Output(out=out, json=json))
    return 0
