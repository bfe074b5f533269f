"""Executors: objects with `submit(function, *args)` that gives a future; opened and closed by name."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 10


class Processes:
    """Local processes, one task at a time each; one that dies loses its task and is replaced.

    A pool of `concurrent.futures` is lost as a whole with any of its processes; so each process has
    a pool of its own, and a thread that waits for it. Processes are started afresh (spawn), share
    the cores, and end when this one does, however it ends.
    """

    def __init__(self, workers: int):
        self._threads = ThreadPoolExecutor(workers)
        self._own = threading.local()
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._share = str(max(1, cores() // workers))

    @property
    def pids(self) -> list[int]:
        """Processes that were started and have not died."""
        return list(self._pools)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Future of a call; its exception is a `BrokenExecutor` if the process died."""
        return self._threads.submit(self._call, function, *args)

    def close(self, *, kill: bool = False) -> None:
        """End all processes, or kill them: what they write is whole or absent at any moment."""
        self._threads.shutdown(wait=not kill, cancel_futures=True)
        for pid, pool in list(self._pools.items()):
            if kill:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pool.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(kill=kind is not None)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        pid = getattr(self._own, "pid", None)
        if pid is None:
            pool = ProcessPoolExecutor(
                1,
                multiprocessing.get_context("spawn"),
                initializer=_settle,
                initargs=(self._share,),
            )
            self._own.pid = pid = pool.submit(os.getpid).result()
            self._pools[pid] = pool
        try:
            return self._pools[pid].submit(function, *args).result()
        except BrokenExecutor:
            self._own.pid = None
            self._pools.pop(pid).shutdown(wait=False)
            raise


def _settle(share: str) -> None:
    """In a new process: take its share of the cores, and end with the process that started it."""
    os.environ.setdefault("NPROC", share)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def _here(workers: int, address: str, logs: Path, slurm: Mapping[str, Any]) -> Iterator[None]:
    yield None


@contextmanager
def _processes(workers: int, address: str, logs: Path, slurm: Mapping[str, Any]) -> Iterator[Any]:
    with Processes(workers) as executor:
        yield executor


@contextmanager
def _dask(workers: int, address: str, logs: Path, slurm: Mapping[str, Any]) -> Iterator[Any]:
    """Client of the scheduler at an address, or of a cluster of this machine."""
    try:
        import distributed
    except ImportError:
        raise ImportError(
            "A sweep on Dask needs distributed. Install it: pip install 'attnflow[dask]'."
        ) from None
    if not address:
        with (
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address=None,  # pyright: ignore[reportArgumentType]
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise OSError(
            f"Argument `address` must be that of a Dask scheduler that answers within {PATIENCE} s, "
            f"but address='{address}' does not ({type(error).__name__}). "
            "Start one: dask scheduler."
        ) from None
    with client:
        yield client


@contextmanager
def _slurm(workers: int, address: str, logs: Path, slurm: Mapping[str, Any]) -> Iterator[Any]:
    """Jobs of SLURM, at most `workers` at once; their logs go to a folder."""
    try:
        import submitit
    except ImportError:
        raise ImportError(
            "A sweep on SLURM needs submitit. Install it: pip install 'attnflow[slurm]'."
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster="slurm")
    except RuntimeError:
        raise OSError(
            "A sweep on SLURM must start where srun and sbatch are, but srun is not on this machine. "
            "Log in to a node of the cluster, or take --executor processes."
        ) from None
    try:
        executor.update_parameters(slurm_array_parallelism=workers, **slurm)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Argument `slurm` must hold parameters of submitit, but: {' '.join(str(error).split())}"
        ) from None
    yield executor


EXECUTORS: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "here": _here,
    "processes": _processes,
    "dask": _dask,
    "slurm": _slurm,
}


@contextmanager
def open_executor(
    kind: str,
    *,
    workers: int | None = None,
    address: str = "",
    logs: Path | str = "runs/.submitit",
    slurm: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """An executor by name, closed in the end.

    Args:
        kind: here (no other process), processes, dask or slurm.
        workers: Tasks at once; as many as cores by default, on SLURM 64.
        address: Scheduler of Dask, `tcp://host:port`. Empty starts a cluster on this machine.
        logs: Folder of what jobs of SLURM print.
        slurm: Parameters of submitit, such as timeout_min or slurm_partition.

    Yields:
        Object with `submit`; None for here.

    Raises:
        ValueError: If a name or a number is out of range.
        OSError: If an executor cannot be reached.
        ImportError: If an optional package is missing.
    """
    from attnflow.errors import check_choice, check_count

    check_choice(kind, "executor", EXECUTORS)
    if workers is not None:
        check_count(workers, "workers")
    if address and kind != "dask":
        raise ValueError(
            f"Argument `address` must be left out unless the executor is dask, but executor='{kind}'."
        )
    count = workers or (64 if kind == "slurm" else cores())
    with EXECUTORS[kind](count, address, Path(logs), slurm or {}) as executor:
        yield executor
