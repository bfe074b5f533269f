"""Tasks: one config, one run in the store, or a note of why there is none."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from attnflow import store

FAILED, LONGEST = ".failed", 400
"""Folder of reasons, and how many letters of one are kept."""


@dataclass(frozen=True)
class Task:
    """One run that is wanted: `folder` is absolute, since workers stand elsewhere."""

    experiment: str
    config: Any
    folder: Path


class Outcome(NamedTuple):
    """What became of a task; busy: another live process computes the same run."""

    state: Literal["done", "busy", "failed"]
    reason: str = ""


def perform(task: Task, submission: str = "") -> Outcome:
    """Find or make the run of a task; an exception is noted as the reason why it failed.

    Float64 is on from then on in this process, as under `attnflow run`. A checkpoint that a dead
    process left is continued, to the same bits. Figures are drawn when the run is shown.

    Args:
        task: What to do.
        submission: Different each time, for executors that answer the same question only once.
    """
    try:
        done = _make(task)
    except Exception as error:
        reason = reason_of(error)
        note_failure(task, reason)
        return Outcome("failed", reason)
    if not done:
        return Outcome("busy")
    failure_of(task).unlink(missing_ok=True)
    return Outcome("done")


def reason_of(error: BaseException) -> str:
    """An exception in one line; our own sentences speak for themselves."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    if isinstance(error, ValueError | OSError | MemoryError) and text:
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def note_failure(task: Task, reason: str) -> None:
    """Keep the reason of a failure, in one file a task, whole or not at all."""
    from datetime import UTC, datetime

    from attnflow import __version__

    path = failure_of(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "experiment": task.experiment,
        "config": store.canonical(task.config),
        "reason": reason,
        "attnflow": __version__,
        "created": datetime.now(UTC).isoformat(),
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{time.time_ns():x}")
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(record, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def noted_failure(task: Task) -> str | None:
    """Reason of an earlier failure; None if there is none, or none that can be read."""
    try:
        reason = json.loads(failure_of(task).read_bytes())["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(reason)


def failure_of(task: Task) -> Path:
    """File of a task's failure, <root>/.failed/<run>.json."""
    return task.folder.parent / FAILED / f"{task.folder.name}.json"


def _make(task: Task) -> bool:
    """Make the run unless it is there; False if another process is at it."""
    import jax

    from attnflow.experiments import load

    jax.config.update("jax_enable_x64", True)
    if store.exists(task.folder):
        return True
    with contextlib.ExitStack() as stack:
        try:
            checkpoint = stack.enter_context(store.claim(task.folder))
        except BlockingIOError:
            return False
        if store.exists(task.folder):
            return True
        started = time.monotonic()
        data = load(task.experiment).run(task.config, checkpoint=checkpoint)
        provenance = store.gather_provenance(
            device=jax.devices()[0].device_kind,
            dtype=task.config.dtype,
            wall_time=time.monotonic() - started,
        )
        store.save(task.folder, task.experiment, task.config, data, provenance=provenance)
    return True
