"""The command line: results on stdout, progress on stderr, one sentence for every error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
import traceback
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attnflow import launch

USAGE = """\
usage: attnflow COMMAND ...

Attention dynamics: simulate Transformer tokens as particles on the sphere,
beside what theory predicts for them.

commands:
  run EXPERIMENT   run an experiment, keep its numbers, draw its figure
  list             runs that were kept
  show RUN         one run: its settings, its table, where its figure is
  verify           every claim: predicted, observed, error, tolerance, verdict
  probe MODEL      a trained model on a text: cosines, ranks, heads by layer, a page
  compare A B      two models on one text
  scale MODEL      the logit scale of a trained model at longer contexts

experiments:
{experiments}

`attnflow COMMAND --help` and `attnflow run EXPERIMENT --help` tell the rest.
Errors are one line, exit code 2; --debug shows where they come from.
"""


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


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (a claim failed), 2 (bad input), 130 or 141 (cut off)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        print("attnflow: interrupted. Run again with --resume to continue.", file=sys.stderr)
        return _leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if debug and not _others():
            raise
        return _leave(_say(error, debug))


def _say(error: Exception, debug: bool) -> int:
    """Print an error in one line, and give its exit code."""
    text, others = " ".join(str(error).split()), _others()
    if others and debug:
        traceback.print_exception(error)
    if others and others.lost_peer(error):
        if launch.on_leash():
            return launch.LOST
        text = f"Another process is gone ({text[:80]} ...). {launch.REMEDY}"
    print(f"attnflow: {text}", file=sys.stderr)
    return 2


def _others() -> Any:
    """Module that speaks with other processes, if this one has joined some."""
    module = sys.modules.get("attnflow.distributed")
    return module if module is not None and module.joined() else None


def _leave(code: int) -> int:
    """Exit code, unless there are other processes, which would wait: then leave at once."""
    if others := _others():
        others.leave(code)
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        from attnflow.experiments import EXPERIMENTS

        rows = "\n".join(f"  {name:<16} {line}" for name, line in EXPERIMENTS.items())
        print(USAGE.format(experiments=rows), end="")
        return 0
    if argv[0] == "--version":
        from attnflow import __version__

        print(f"attnflow {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        from attnflow.errors import check_choice

        check_choice(argv[0], "command", COMMANDS)
    return COMMANDS[argv[0]](argv[1:])


def _parse(wanted: Any, argv: list[str], prog: str, description: str | None = None) -> Any:
    """Call a function, or fill dataclasses, from the command line; a parse error is a `ValueError`."""
    import tyro

    errors, style = io.StringIO(), (tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs)
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(wanted, args=argv, prog=prog, description=description, config=style)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue(), prog)) from None


def _one_line(message: str, prog: str) -> str:
    """What a many-line parse error, boxed or not, says and suggests, as one sentence."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|-{4,}", "", message)
    _title, *lines = [line.strip() for line in plain.strip().splitlines()]
    said = re.split(r"\n\n", "\n".join(lines).strip(), maxsplit=1)[0].replace("\n", " ").rstrip(".")
    near = re.search(r"Perhaps you meant:\s*(--\S+)", " ".join(lines))
    hint = f" Did you mean {near.group(1)}?" if near else ""
    return f"{said}.{hint} See `{prog} --help`."


# ----------------------------------------------------------------------------------------- commands


def _run(argv: list[str]) -> int:
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
    given = _parse(make_dataclass("Run", parts), rest, f"attnflow run {name}", EXPERIMENTS[name])
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
        _tell(folder, experiment, output)
    return 0


def _make_run(name: str, experiment: ModuleType, config: Any, folder: Path, output: Output) -> None:
    import jax

    from attnflow import distributed, store

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
            figure, several = experiment.draw(data), jax.process_count()
            files = {f"figure.{kind}": _picture(figure, kind) for kind in ("png", "pdf")}
            if hasattr(experiment, "page"):
                files["report.html"] = experiment.page(data, figure).encode()
            store.save(
                folder,
                name,
                config,
                data,
                figures=files,
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


def _picture(figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()


def _tell(folder: Path, experiment: ModuleType, output: Output) -> None:
    """Print a run: its table unless quiet, and its folder and picture last."""
    from attnflow import store

    figure = folder / "figure.png"
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


def _list(argv: list[str]) -> int:
    return _parse(list_runs, argv, "attnflow list")


def list_runs(out: Path = Path("runs"), json: bool = False) -> int:
    """Runs that were kept, oldest first.

    Args:
        out: Folder of all runs.
        json: Print JSON.
    """
    from attnflow import store

    runs = store.list_runs(out)
    if json:
        _print_json([{**asdict(run), "folder": str(run.folder), "name": run.name} for run in runs])
        return 0
    for run in runs:
        when = str(run.provenance.get("created", ""))[:16].replace("T", " ")
        seconds = run.provenance.get("wall_time")
        took = f"{seconds:8.1f} s" if seconds is not None else " " * 10
        print(f"{run.name:<32} {when:<16} {took} {run.size / 2**20:9.2f} MiB  {run.problem}")
    if not runs:
        print(f"attnflow: no runs in {out}. `attnflow run simulate` makes one.", file=sys.stderr)
    return 0


def _show(argv: list[str]) -> int:
    return _parse(show, argv, "attnflow show")


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
    _tell(folder, load(record["experiment"]), Output(out=out, json=json))
    return 0


def _verify(argv: list[str]) -> int:
    return _parse(verify, argv, "attnflow verify")


def verify(only: str = "", json: bool = False, quiet: bool = False) -> int:
    """Every claim: predicted, observed, error, tolerance, verdict. Exit code 1 if any fails.

    Args:
        only: Check only claims whose name holds this text.
        json: Print JSON.
        quiet: No progress.
    """
    import jax
    from tqdm import tqdm

    from attnflow import claims
    from attnflow.errors import check_choice

    jax.config.update("jax_enable_x64", True)
    chosen = [claim for name, claim in claims.CLAIMS.items() if only in name]
    if not chosen:
        check_choice(only, "only", claims.CLAIMS)
    verdicts = [claims.evaluate(claim) for claim in tqdm(chosen, disable=quiet, unit="claim")]
    if json:
        _print_json(claims.to_json(verdicts))
    else:
        print(claims.table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _probe(argv: list[str]) -> int:
    from attnflow import probe

    return probe.run(argv, lambda rest: _run(["trained-model", *rest]), _parse)


def _scale(argv: list[str]) -> int:
    model = argv[:1] if argv and not argv[0].startswith("-") else []
    return _run(["scale", *(["--model", *model] if model else []), *argv[len(model) :]])


def _compare(argv: list[str]) -> int:
    from attnflow import probe

    return _parse(probe.compare, argv, "attnflow compare")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


COMMANDS = {"run": _run, "list": _list, "show": _show, "verify": _verify}
COMMANDS |= {"probe": _probe, "compare": _compare, "scale": _scale}


if __name__ == "__main__":
    sys.exit(main())
