"""Roll call: processes meet at one address and compare their settings, before any of them works."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

LONGEST = 2**20
PAUSE = 0.1
PATIENCE = 2.0


def call_roll(
    coordinator: str,
    processes: int,
    process_id: int,
    settings: Mapping[str, Any],
    *,
    timeout: float = 60,
) -> None:
    """Return in every process once all have met and agree; raise the same words in all if not.

    Process 0 listens at the address, the others bring it their settings and hear its verdict.

    Args:
        coordinator: Address host:port of process 0.
        processes: Number of processes.
        process_id: Number of this process, 0, 1, ..., processes - 1.
        settings: What must be the same in all: names and plain JSON values.
        timeout: Seconds to wait for the others.

    Raises:
        ValueError: If the address is none, or settings or numbers of processes disagree.
        OSError: If the port is taken.
        TimeoutError: If a process does not come in time.
    """
    host, port = address(coordinator)
    deadline = time.monotonic() + timeout
    own = {"process": process_id, "processes": processes, "settings": dict(settings)}
    if process_id == 0:
        _preside(host, port, json.loads(json.dumps(own)), deadline, timeout)
    else:
        _attend(host, port, own, deadline, timeout)


def address(coordinator: str) -> tuple[str, int]:
    """Host and port of host:port.

    Raises:
        ValueError: If it has another form.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"Argument `coordinator` must be host:port of process 0, "
            f"but coordinator='{coordinator}'. Pass for example node1:12345."
        )
    return host.strip("[]"), int(port)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _preside(host: str, port: int, own: dict, deadline: float, timeout: float) -> None:
    """Process 0: hear all others, judge, and tell them the verdict."""
    count, present, verdict = own["processes"], {0: own}, ""
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        lines: list[socket.socket] = []
        while len(lines) < count - 1:
            try:
                listener.settimeout(max(deadline - time.monotonic(), 0.01))
                line = stack.enter_context(listener.accept()[0])
                line.settimeout(max(min(deadline - time.monotonic(), PATIENCE), 0.01))
                other = _hear(line)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                break
            except OSError:
                continue
            if other is None:
                continue
            lines.append(line)
            verdict = verdict or _judge(own, other, present)
            present[other["process"]] = other
            if verdict:  # a moment for those under way to hear it too
                deadline = min(deadline, time.monotonic() + PATIENCE)
        late = not verdict and len(present) < count
        if late:
            verdict = (
                f"{count} processes must meet at {host}:{port} within {timeout:g} s, but "
                f"{_some([i for i in range(count) if i not in present])} did not come. "
                "Start all of them at the same time."
            )
        for line in lines:
            with suppress(OSError):
                line.sendall(json.dumps({"verdict": verdict}).encode() + b"\n")
    if verdict:
        raise TimeoutError(verdict) if late else ValueError(verdict)


def _attend(host: str, port: int, own: dict, deadline: float, timeout: float) -> None:
    """Any other process: bring the settings, hear the verdict."""
    with _connect(host, port, deadline, timeout) as line:
        reason = "it hung up"
        try:
            line.sendall(json.dumps(own).encode() + b"\n")
            line.settimeout(max(deadline - time.monotonic(), 0) + 5)
            answer = _hear(line)
        except OSError as error:
            answer, reason = None, error.strerror or str(error)
    if answer is None or "verdict" not in answer:
        raise TimeoutError(
            f"Process 0 must answer at {host}:{port}, but: {reason}. "
            "Look at its own message; or something else listens on that port."
        )
    if answer["verdict"]:
        raise ValueError(answer["verdict"])


def _judge(own: dict, other: dict, present: dict[int, dict]) -> str:
    """What is wrong with a process that came, in one sentence; nothing if nothing is."""
    process = other["process"]
    if other["processes"] != own["processes"]:
        return (
            f"Argument `processes` must be the same in all processes, but it is {own['processes']} "
            f"in process 0 and {other['processes']} in process {process}."
        )
    if process in present:
        return (
            f"Argument `process_id` must differ between processes, but two have "
            f"process_id={process}. Number them 0 to {own['processes'] - 1}."
        )
    for name in sorted({*own["settings"], *other["settings"]}):
        first, second = (side["settings"].get(name) for side in (own, other))
        if first != second:
            return (
                f"Argument `{name}` must be the same in all processes, but it is {first!r} in "
                f"process 0 and {second!r} in process {process}. Give all of them one command."
            )
    return ""


def _listen(port: int) -> socket.socket:
    """Socket that listens on a port of all addresses."""
    listener = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OSError(
            f"Port {port} must be free for process 0 to listen on, but: {error.strerror}. "
            "Name another one in `coordinator`, the same for all processes."
        ) from error
    return listener


def _connect(host: str, port: int, deadline: float, timeout: float) -> socket.socket:
    """Line to process 0, once it listens."""
    while True:
        try:
            return socket.create_connection((host, port), timeout=5)
        except OSError as error:
            unknown = isinstance(error, socket.gaierror)
            if not unknown and time.monotonic() < deadline:
                time.sleep(PAUSE)
                continue
            raise TimeoutError(
                f"Process 0 must be reached at {host}:{port} within {timeout:g} s, but: "
                f"{error.strerror or error}. Check its address, that it runs, and the firewall."
            ) from None


def _hear(line: socket.socket) -> dict | None:
    """One message; None if it is no message of ours."""
    text = b""
    while not text.endswith(b"\n"):
        part = line.recv(2**16)
        if not part or len(text) > LONGEST:
            return None
        text += part
    with suppress(ValueError):
        message = json.loads(text)
        if isinstance(message, dict) and ("verdict" in message or "process" in message):
            return message
    return None


def _some(processes: list[int]) -> str:
    shown = ", ".join(map(str, processes[:4])) + (", ..." if len(processes) > 4 else "")
    return f"process {shown}" if len(processes) == 1 else f"processes {shown}"


def place_in_job() -> tuple[int, int] | None:
    """Number of processes and number of this one, as SLURM, Open MPI or an MPICH says, if one does."""
    names = (
        ("SLURM_NTASKS", "SLURM_PROCID"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("PMI_SIZE", "PMI_RANK"),
    )
    for size, rank in names:
        if os.environ.get(size, "").isdecimal() and os.environ.get(rank, "").isdecimal():
            return int(os.environ[size]), int(os.environ[rank])
    return None
