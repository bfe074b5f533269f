"""Execution: submit tasks, wait for them, submit again what was lost; one loop for all executors."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from attnflow import store
from attnflow.sweeps.tasks import Outcome, Task, note_failure, perform, reason_of

ATTEMPTS = 3
"""How often a task is submitted whose worker dies."""
PAUSE = 0.02


def execute(
    tasks: Sequence[Task], executor: Any = None, *, total: int = 0, progress: bool = False
) -> dict[str, Outcome]:
    """Perform tasks, and say what became of each, by the name of its run.

    A worker that dies loses its task, which is submitted again, three times at most. A run that
    another process computes is asked for again until it is there, or can be computed here.

    Args:
        tasks: Tasks, no two of one run.
        executor: Object with `submit(function, *args)` that gives a future with `result()`. None
            performs one task after the other in this process.
        total: Number of tasks of the sweep, with those that are done already.
        progress: Whether to show progress, with the time left, on stderr.

    Raises:
        RuntimeError: If the executor takes no more tasks.
    """
    from tqdm import tqdm

    outcomes: dict[str, Outcome] = {}
    waiting, running = deque((task, 0) for task in tasks), []
    total = max(total, len(tasks))
    with tqdm(total=total, initial=total - len(tasks), disable=not progress, unit="run") as bar:
        while waiting or running:
            with _batch(executor) if waiting else contextlib.nullcontext():
                while waiting and not (executor is None and running):
                    task, losses = waiting.popleft()
                    running.append((_submit(executor, task), task, losses))
            finished, still = [], []
            for entry in running:
                (finished if _is_done(entry[0]) else still).append(entry)
            running = still
            for future, task, losses in finished:
                outcome, lost = _outcome(future, task)
                if outcome is None and losses + 1 < ATTEMPTS:
                    waiting.append((task, losses + 1))
                elif outcome is not None and outcome.state == "busy":
                    waiting.append((task, losses))
                else:
                    if outcome is None:
                        outcome = Outcome("failed", f"It was lost {ATTEMPTS} times: {lost}")
                        note_failure(task, outcome.reason)
                    outcomes[task.folder.name] = outcome
                    bar.set_postfix_str(_failures(outcomes), refresh=False)
                    bar.update()
            if not finished:
                time.sleep(PAUSE)
    return outcomes


def _submit(executor: Any, task: Task) -> Any:
    """Future of a task; without an executor it is done at once."""
    if executor is None:
        future: Future = Future()
        future.set_result(perform(task))
        return future
    try:
        return executor.submit(perform, task, uuid.uuid4().hex)
    except Exception as error:
        raise RuntimeError(
            f"The executor takes no more tasks ({reason_of(error)}). What is done is kept: run the "
            "same sweep again, with another executor."
        ) from error


def _outcome(future: Any, task: Task) -> tuple[Outcome | None, str]:
    """Outcome of a task, or None and the reason if it was lost on its way."""
    try:
        outcome = Outcome(*future.result())
    except Exception as error:
        return None, reason_of(error)
    if outcome.state == "done" and not store.exists(task.folder):
        return None, f"its worker does not see {task.folder.parent}. Take a folder that all share."
    return outcome, ""


def _is_done(future: Any) -> bool:
    """Whether a result can be fetched; where it cannot be asked, fetching waits for it."""
    return future.done() if hasattr(future, "done") else True


def _batch(executor: Any) -> contextlib.AbstractContextManager[Any]:
    """Where submissions go as one array of jobs, for executors that can."""
    return executor.batch() if hasattr(executor, "batch") else contextlib.nullcontext()


def _failures(outcomes: dict[str, Outcome]) -> str:
    count = sum(outcome.state == "failed" for outcome in outcomes.values())
    return f"{count} failed" if count else ""
