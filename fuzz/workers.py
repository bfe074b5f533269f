"""Cases in several processes; a case that hangs in compiled code, or kills its process, is a finding too."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fuzz.judge import Outcome

CHUNK = 50
MEMORY = 6 * 2**30
"""Bytes that a process may take, so that a case that wants all is refused, and no bystander killed."""
CACHE = Path(__file__).parents[1] / "build" / "fuzz"
"""Compiled programs, for the next run."""
MAPS = 20_000
"""Memory maps at which compiled programs are dropped; Linux grants a process 65 530."""


@dataclass(frozen=True)
class Chunk:
    """Cases of one target."""

    target: str
    cases: int
    seed: int


def run(
    chunks: list[Chunk], *, workers: int, limit: float, tell: Callable[[Outcome], None]
) -> None:
    """Hand chunks to worker processes until none is left, and every outcome to `tell`."""
    left, team = deque(chunks), {}
    while left or team:
        while left and len(team) < workers:
            worker = Worker(limit)
            team[worker.pipe] = worker
            worker.give(left.popleft())
        for pipe in wait(list(team), timeout=1.0):
            worker = team[pipe]
            try:
                worker.hear(pipe.recv(), tell)
            except EOFError:
                tell(worker.lost(f"the process ended (exit code {worker.stop()})"))
            if worker.idle and left:
                worker.give(left.popleft())
        for pipe, worker in list(team.items()):
            if worker.late:
                worker.stop()
                tell(worker.lost(f"not done after {worker.patience:g} s, in compiled code"))
            if worker.gone or worker.idle:
                if worker.gone and (rest := worker.rest()):
                    left.appendleft(rest)
                worker.stop()
                del team[pipe]


class Worker:
    """A process that runs chunks, seen from outside."""

    def __init__(self, limit: float):
        self.pipe, other = mp.Pipe()
        self.process = mp.get_context("spawn").Process(target=_work, args=(other, limit))
        self.process.start()
        other.close()
        self.patience, self.chunk, self.done, self.call = 3 * limit + 30, None, 0, ""
        self.since, self.gone = time.monotonic(), False

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.chunk is None

    @property
    def late(self) -> bool:
        """Whether its case takes too long for the alarm inside to have rung."""
        return not self.gone and bool(self.call) and time.monotonic() - self.since > self.patience

    def give(self, chunk: Chunk) -> None:
        """Set it to work."""
        self.chunk, self.done = chunk, 0
        self.pipe.send(chunk)

    def hear(self, message: Any, tell: Callable[[Outcome], None]) -> None:
        """Take note of what it says: a case begins, ends, or the chunk is done."""
        self.since = time.monotonic()
        if message is None:
            self.chunk = None
        elif isinstance(message, str):
            self.call = message
        else:
            self.done, self.call = self.done + 1, ""
            tell(message)

    def lost(self, why: str) -> Outcome:
        """The finding that its last case is."""
        self.gone, self.done = True, self.done + 1
        return Outcome(self.chunk.target, "finding", self.call, why, "process")

    def rest(self) -> Chunk | None:
        """What it leaves undone, under another seed."""
        chunk = self.chunk
        if chunk is None or self.done >= chunk.cases:
            return None
        return Chunk(chunk.target, chunk.cases - self.done, chunk.seed + 1_000_003)

    def stop(self) -> int | None:
        """End it."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def _work(pipe: Connection, limit: float) -> None:
    """Run chunks as they come."""
    import resource

    import jax

    from fuzz.targets import TARGETS

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_traceback_filtering", "off")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while True:
        try:
            chunk = pipe.recv()
        except EOFError:
            return
        cases(chunk, TARGETS[chunk.target], limit, pipe.send)
        if Path("/proc/self/maps").read_text().count("\n") > MAPS:
            jax.clear_caches()
        pipe.send(None)


def cases(chunk: Chunk, target: Any, limit: float, send: Callable[[Any], None]) -> None:
    """Run the cases of a chunk: tell the call before, the outcome after."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from fuzz.judge import judge, written

    done, attempt = 0, 0
    while done < chunk.cases:

        @seed(chunk.seed + 7919 * attempt)
        @settings(
            max_examples=chunk.cases - done, phases=[Phase.generate], database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(target.arguments())
        def one(arguments: dict[str, Any]) -> None:
            nonlocal done
            send(written(chunk.target, arguments))
            send(judge(chunk.target, target, arguments, limit))
            done += 1

        one()
        attempt += 1
