"""Starting one run in several processes of this machine, and watching over them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attnflow.rollcall import address, free_port, place_in_job

LEASH = "ATTNFLOW_LEASH"
LOST = 75
GRACE = 5.0
REMEDY = "The last checkpoint is kept: run again with --resume, with any number of processes."


@dataclass(frozen=True)
class Processes:
    """Over how many processes a run is spread; no part of its settings."""

    processes: int | Literal["auto"] = 1
    """Processes that share the tokens. Started here, or each by hand with the next two; auto: as
    srun or mpirun started them."""
    coordinator: str = ""
    """Address host:port on which process 0 listens, for processes started by hand."""
    process_id: int | None = None
    """Number of this process, 0, 1, ..., for processes started by hand."""


def check_processes(given: Processes, n: int | None = None) -> None:
    """Raise `ValueError` unless the numbers of processes make sense together, and for n tokens."""
    count, own = given.processes, given.process_id
    if given.coordinator:
        address(given.coordinator)
    if count == "auto":
        if place_in_job() is None:
            raise ValueError(
                "Argument `processes` can be auto under srun or mpirun only, but neither started "
                "this process. Pass a number."
            )
        return
    if count < 1:
        raise ValueError(f"Argument `processes` must be >= 1, but processes={count}.")
    if n is not None and count > max(n, 1):
        raise ValueError(
            f"Argument `processes` must be at most the number of tokens, but processes={count} "
            f"and n={n}. Start fewer processes."
        )
    if own is not None and not 0 <= own < count:
        raise ValueError(
            f"Argument `process_id` must be one of 0 to {count - 1}, but process_id={own}."
        )
    if bool(given.coordinator) != (own is not None):
        names = ("coordinator", "process_id")
        name, other = names if own is not None else names[::-1]
        raise ValueError(
            f"Argument `{name}` must be given with `{other}`, but it is not. Pass both to start each "
            "process by hand, or neither to start all of them here."
        )


def starts_here(given: Processes) -> int:
    """How many processes this one has to start, computing nothing itself; 0 if none."""
    count = given.processes
    return 0 if count == "auto" or count == 1 or given.coordinator else count


def is_one_of_several(given: Processes) -> bool:
    """Whether this process has to join others."""
    if given.processes == "auto":
        return (place_in_job() or (1, 0))[0] > 1
    return given.processes > 1 and bool(given.coordinator)


def run_here(argv: Sequence[str], processes: int) -> int:
    """Run `attnflow` with the words `argv` in several processes of this machine.

    Output of process 0 passes through, the others keep silent. When one dies the others are ended.
    They end as well when this process does, however it ends: they hold the other end of a pipe.

    Returns:
        Exit code, 0 or 2; with 2 process 0 has said why.

    Raises:
        RuntimeError: If a process died, or failed with a sentence of its own.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    threads = str(threads_of_each(processes))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "NPROC": threads, "OMP_NUM_THREADS": threads}
    environment = {**quiet, **os.environ, LEASH: "1"}
    children: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as told:
        try:
            for i in range(processes):
                words = [*argv, *(word for word in sys.argv if word == "--debug")]
                words += ["--coordinator", coordinator, "--process-id", str(i)]
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "attnflow.cli", *words],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL if i else None,
                        stderr=told if i else None,
                        env=environment,
                        start_new_session=True,
                    )
                )
            _wait(children)
        finally:
            _end(children)
        told.seek(0)
        said = told.read().decode(errors="replace")
        return _verdict([child.returncode for child in children], said)


def threads_of_each(processes: int, cores: int | None = None) -> int:
    """Threads of each process, for NPROC (XLA) and OMP_NUM_THREADS: together as many as cores.

    Cores are not bound to processes: on a machine that others use too, one slow core would
    hold up all.
    """
    if cores is None:
        own = getattr(os, "sched_getaffinity", None)
        cores = len(own(0)) if own else os.cpu_count() or 1
    return max(1, cores // processes)


def _wait(children: list[subprocess.Popen]) -> None:
    """Return when all have ended, or soon after process 0 or a failure."""
    deadline = None
    while None in (codes := [child.poll() for child in children]):
        if any(code not in (None, 0, 2, LOST) for code in codes):
            return
        if deadline is None and (any(codes) or codes[0] is not None):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(0.02)


def _end(children: list[subprocess.Popen]) -> None:
    """End what still runs: files are safe at any moment, so nothing is waited for."""
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()
            child.returncode = 0  # ended by us, it is not to blame
        if child.stdin is not None:
            child.stdin.close()


def _verdict(codes: list[int], told: str) -> int:
    """Exit code of a whole run; `RuntimeError` where process 0 has not said what went wrong."""
    if not any(codes):
        return 0
    if codes[0] == 2:
        return 2
    dead = [i for i, code in enumerate(codes) if code not in (0, 2, LOST)]
    dead.sort(key=lambda i: codes[i] == -signal.SIGABRT)  # JAX aborts those whose peer is gone
    if dead:
        code = codes[dead[0]]
        how = f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += "; memory may be short"
        elif code > 0 and dead[0] and told.strip():
            how += f": {told.strip().splitlines()[-1]}"
        raise RuntimeError(f"Process {dead[0]} of {len(codes)} died ({how}). {REMEDY}")
    sentences = [line for line in told.splitlines() if line.startswith("attnflow: ")]
    if sentences:
        raise RuntimeError(sentences[-1].removeprefix("attnflow: "))
    raise RuntimeError(f"The processes lost one another. {REMEDY}")


# ---------------------------------------------------------------------------- in a process so started


def on_leash() -> bool:
    """Whether `run_here` started this process."""
    return LEASH in os.environ


def follow() -> None:
    """End when the process that started this one ends, if one did."""
    if on_leash():
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    stdin: Any = sys.stdin
    while stdin.buffer.read(1):
        pass
    os._exit(LOST)
