"""One huge system over several processes, on one machine or many: joining, spreading, agreeing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import attnflow
from attnflow.errors import check_between, check_count
from attnflow.flows import settled
from attnflow.kernels.sharded import ROWS, TOKENS, WHOLE, sharded
from attnflow.rollcall import call_roll, place_in_job

TIMEOUT = 60
HEARTBEAT = 20
PIECE = 2**26
"""Bytes that are sent at once."""
_LOST = ("gloo", "connection closed", "connection reset", "heartbeat", "nccl", "coordination")


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    device: int | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Make this process one of several that share their devices; the first work it does with JAX.

    CPUs talk by gloo, GPUs by NCCL. Numbers that are not given are those of SLURM or MPI.

    Args:
        coordinator: Address host:port on which process 0 listens, the same for all.
        processes: Number of processes.
        process_id: Number of this process, 0, 1, ..., processes - 1.
        settings: What must be the same in all processes: names and plain JSON values.
        device: GPU that this process takes, for several processes on one machine; all by default.
        timeout: Seconds to wait for the others, >= 1.

    Raises:
        ValueError: If an argument is out of its range, or processes disagree on settings.
        OSError: If the port is taken.
        TimeoutError: If a process does not come in time.
    """
    check_between(timeout, "timeout", low=1)
    job = place_in_job() or (None, None)
    processes = job[0] if processes is None else processes
    process_id = job[1] if process_id is None else process_id
    check_count(processes, "processes")
    check_count(process_id, "process_id", low=0)
    assert processes is not None and process_id is not None
    check_between(process_id, "process_id", high=processes - 1)
    coordinator = coordinator or _address_of_job()
    versions = {"jax": jax.__version__, "attnflow": attnflow.__version__}
    call_roll(coordinator, processes, process_id, {**(settings or {}), **versions}, timeout=timeout)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    with contextlib.suppress(AttributeError):  # or SIGTERM would not end a process
        jax.config.update("jax_enable_preemption_service", False)
    with _quiet_stdout():
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            local_device_ids=device,
            cluster_detection_method="deactivate",
            initialization_timeout=TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
        together(lambda: None)


def joined() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Whether this process is the one that reads and writes files: number 0, or the only one."""
    return not joined() or jax.process_index() == 0


def leave(code: int) -> None:
    """End this process without waiting for the others, who learn of it by the broken connection."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    return joined() and any(word in str(error).lower() for word in _LOST)


def spread(flow: Any, x0: Any, devices: Any = None) -> tuple[Any, Any]:
    """Flow and state over all devices of all processes, ready for `solve`; all processes call it.

    Tokens are sharded by rows where the number of devices divides n, and whole on each device where
    it does not; the kernel sum is shared by rows in either case. Call it again on `x_end`, which
    `solve` gathers. With one process nothing changes, unless devices are given.

    Args:
        flow: Flow whose attention has a kernel sum.
        x0: Tokens, shape (n, d), or `WeightedTokens`; the same numbers in every process.
        devices: Devices to use; all of them by default.

    Raises:
        ValueError: If there are more devices than tokens, or the flow has no kernel sum to share.
    """
    if devices is None and not joined():
        return flow, x0
    mesh = _mesh(tuple(jax.devices() if devices is None else devices))
    x = jax.tree.leaves(x0)[0]
    n = len(x)
    if mesh.size > n:
        raise ValueError(
            f"Argument `processes` must leave a token to every device, but {mesh.size} devices share "
            f"n={n} tokens. Start fewer processes."
        )
    flow = _share_sums(settled(flow, x)[0], mesh)
    flow = jax.tree.map(lambda a: _put(a, mesh, WHOLE) if eqx.is_array(a) else a, flow)
    return flow, jax.tree.map(lambda a: _put(a, mesh, ROWS if n % mesh.size == 0 else WHOLE), x0)


def together(act: Callable[[], Any]) -> Any:
    """What process 0 gets from `act`, in every process; all processes call it, one acts.

    Args:
        act: Function whose result is plain JSON.

    Raises:
        Exception: What `act` raised in process 0; `RuntimeError` of the same words in the others.
    """
    if not joined():
        return act()
    outcome: dict[str, Any] = {}
    failure = None
    if jax.process_index() == 0:
        try:
            outcome = {"value": act()}
        except Exception as error:
            failure, outcome = error, {"error": str(error)}
    outcome = json.loads(_from_first(json.dumps(outcome).encode()))
    if failure is not None:
        raise failure
    if "error" in outcome:
        raise RuntimeError(outcome["error"])
    return outcome["value"]


class SharedCheckpoint:
    """Checkpoint of a run over several processes: process 0 has the files, all have the arrays.

    Args:
        own: Checkpoint of process 0, with `load` and `save`; None in the others.
    """

    def __init__(self, own: Any):
        self._own = own

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Latest checkpoint of process 0, in every process."""
        return _arrays_of_first(lambda: self._own.load())

    def kept(self) -> list[dict[str, np.ndarray]]:
        """Parts that process 0 has kept, in every process."""
        parts: list = []

        def count():
            parts.extend(self._own.kept())
            return len(parts)

        return [
            cast(Any, _arrays_of_first(lambda k=k: (k, parts[k])))[1]
            for k in range(together(count))
        ]

    def keep(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Keep a part of the result, in process 0."""
        together(lambda: self._own.keep(step, arrays))

    def save(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Keep the state after `step`, in process 0."""
        together(lambda: self._own.save(step, arrays))


# ------------------------------------------------------------------------------------------ private


def _arrays_of_first(
    read: Callable[[], tuple[int, dict[str, np.ndarray]] | None],
) -> tuple[int, dict[str, np.ndarray]] | None:
    """Step and arrays that process 0 reads, in every process."""
    found: Any = None

    def layout():
        nonlocal found
        found = read()
        if found is not None:
            step, arrays = found
            return step, [(name, a.dtype.str, a.shape) for name, a in arrays.items()]

    if (whole := together(layout)) is None or not joined():
        return found
    step, rows = whole
    arrays = {}
    for name, dtype, shape in rows:
        data = b"" if found is None else found[1][name].tobytes()
        arrays[name] = np.frombuffer(_from_first(data), dtype).reshape(shape)
    return step, arrays


def _mesh(devices: tuple) -> Mesh:
    return Mesh(np.array(devices), (TOKENS,))


def _put(a: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Array on the mesh, of values that every process has."""
    sharding = NamedSharding(mesh, spec)
    if isinstance(a, jax.Array) and a.sharding == sharding:
        return a
    if isinstance(a, jax.Array) and not a.is_fully_addressable:
        return jax.jit(lambda a: a, out_shardings=sharding)(a)
    return jax.device_put(a, sharding)


def _share_sums(flow: Any, mesh: Mesh) -> Any:
    """Flow whose kernel sum is shared by the mesh."""
    places = (lambda f: f, lambda f: f.attention, lambda f: f.attention.heads)
    for place in places:
        rule: Any = None
        with contextlib.suppress(AttributeError):
            rule = place(flow)
        own = getattr(rule, "kernel_sum", None)
        if own is not None:
            shared = sharded(getattr(own, "of_one", own), mesh)
            return eqx.tree_at(place, flow, dataclasses.replace(rule, kernel_sum=shared))
    raise ValueError(
        f"Argument `flow` must have a kernel sum to run in several processes, but "
        f"{type(getattr(flow, 'attention', flow)).__name__} has none. Run it in one."
    )


def _from_first(data: bytes) -> bytes:
    """Bytes of process 0, in every process."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    pieces, rest = divmod(len(data), PIECE)
    pieces, rest = map(int, broadcast_one_to_all(np.array([pieces, rest], np.int32)))
    received = []
    for size in [PIECE] * pieces + [rest] * (rest > 0):
        padded = np.zeros(
            max(256, 1 << (size - 1).bit_length()), np.uint8
        )  # few sizes: few compilations
        if jax.process_index() == 0:
            padded[:size] = np.frombuffer(data, np.uint8, size, PIECE * len(received))
        received.append(np.asarray(broadcast_one_to_all(padded)).astype(np.uint8)[:size].tobytes())
    return b"".join(received)


def _address_of_job() -> str:
    """Address of process 0, as JAX works it out from SLURM or Open MPI."""
    with contextlib.suppress(Exception):
        from jax._src.clusters import ClusterEnv

        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 10)
        if found[0]:
            return found[0]
    raise ValueError(
        "Argument `coordinator` must be host:port of process 0 where SLURM or Open MPI 4 does not "
        "tell it, but it is not given. Pass for example node1:12345, the same to all processes."
    )


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Send to nowhere what gloo writes to stdout, where results go."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
