"""Several processes are one computer: the same numbers, one sentence for every error, nothing lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import attnflow
from attnflow import launch, rollcall, store
from attnflow.cli import main

RUN = ["run", "simulate", "--n", "33", "--t-max", "5", "--saves", "97", "--beta", "4", "--quiet"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(attnflow.__file__).parents[1])}
PATIENCE = 120  # seconds: machines are shared, and a test that gives up leaves pipes open
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def start(*words, **options) -> subprocess.Popen:
    """An attnflow of its own."""
    command = [sys.executable, "-m", "attnflow.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT, **pipes, **options)


def children_of(process: subprocess.Popen, count: int) -> list[int]:
    """Numbers of the processes it has started, in order, once there are so many."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(found := listed.read_text().split()) < count:
        assert process.poll() is None
        time.sleep(0.01)
    return [int(pid) for pid in found]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --------------------------------------------------------------------------------------- same numbers

SHARED = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
import attnflow as af
from attnflow.kernels import auto, causal, dense
from attnflow.kernels.sharded import sharded
from jax.sharding import Mesh

jax.config.update("jax_enable_x64", True)
mesh = Mesh(np.array(jax.devices()), ("tokens",))
assert mesh.size == 3 and sharded(dense, mesh) is sharded(dense, mesh)
rng, errors = np.random.default_rng(0), {}


def compare(name, of_one, of_three):
    pairs = zip(jax.tree.leaves(of_one), jax.tree.leaves(of_three), strict=True)
    errors[name] = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def check(name, of, kernel_sum=dense):
    compare(name, *[jax.jit(of, static_argnums=0)(s) for s in (kernel_sum, sharded(kernel_sum, mesh))])


for n in (31, 1501):  # rows, and pairs
    x, y = (af.sphere.normalize(jnp.asarray(rng.normal(size=(m, 3)))) for m in (n, n + 5))
    w, seen = jnp.asarray(rng.uniform(size=n)), rng.uniform(size=(n, n)) < 0.5
    check(f"{n}", lambda s: s(x, x, x, 5.0))
    check(f"{n} repulsive", lambda s: s(x, x, x, -400.0))
    check(f"{n} weights", lambda s: s(x, x, x, 5.0, weights=w))
    if n == 31:
        check("causal", lambda s: s(x, x, x, 5.0, mask=causal))
        check("mask", lambda s: s(x, x, x, 5.0, weights=w, mask=seen))
        check("keys", lambda s: s(x, y, y, 5.0))
check("even", lambda s: s(x[:1500], x[:1500], x[:1500], 5.0))
check("gradient", lambda s: jax.grad(lambda x: (s(x, x, x, 5.0)[0] ** 2 @ jnp.arange(3.0)).sum())(x))
check("heads", lambda s: jax.vmap(lambda b: s(x, x, x, b))(jnp.arange(2.0)))
x = af.sphere.uniform(jax.random.key(0), 6000, 2)
check("fast", lambda s: s(x, x, x, 4.0), auto)

x0 = af.sphere.uniform(jax.random.key(1), 32, 3)
flows = {
    "heads": af.Flow(af.MultiHead([af.Attention(b) for b in (1.0, 5.0)])),
    "fisher-rao": af.FisherRaoFlow(3.0, 1.0),
}
observe = {"e": lambda x, *w: af.observables.scaled_energy(x, 3.0)}
for (name, flow), devices in zip(flows.items(), (3, 2)):
    start = af.WeightedTokens(x0, jnp.full(32, 1 / 32)) if name == "fisher-rao" else x0
    runs = []
    for used in (1, devices):
        spread = af.distributed.spread(flow, start, jax.devices()[:used])
        runs.append(af.solve(*spread, [0.0, 1.0, 2.0], observe=observe, rtol=1e-6))
    saved = [(run.xs, run.x_end, run.observed) for run in runs]
    assert all(a.is_fully_replicated for a in jax.tree.leaves(saved))
    assert int(runs[0].stats["num_steps"]) == int(runs[1].stats["num_steps"])
    compare(f"run {name}", *saved)
print(json.dumps(errors))
"""


def test_devices_share_a_sum_and_a_run():
    """In any arithmetic order a row of m terms is within m eps of the exact sum, relative to |v| <= 1."""
    flags = "--xla_force_host_platform_device_count=3"
    done = subprocess.run(
        [sys.executable, "-c", SHARED], env={**ENVIRONMENT, "XLA_FLAGS": flags},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    errors = json.loads(done.stdout)
    assert len(errors) == 15 and max(errors.values()) < 1e-12, errors


def compare(found: Path, expected: Path) -> float:
    """Largest difference between two runs of one config; what is no float is the same."""
    a, b = (store.load(store.list_runs(root)[0].folder) for root in (found, expected))
    assert a.attrs == b.attrs and set(a.variables) == set(b.variables)
    floats = [name for name in a.variables if a[name].dtype.kind == "f"]
    assert all(a[name].equals(b[name]) for name in set(a.variables) - set(floats))
    return max(float(np.nanmax(abs(a[name].values - b[name].values), initial=0)) for name in floats)


@LINUX
def test_a_killed_process_ends_the_others_and_the_run_resumes_with_any_number(tmp_path):
    """Rounding of 1e-16 grows along the run, by less than e^(2 beta)."""
    whole, broken, other = (tmp_path / name for name in ("whole", "broken", "other"))
    assert main([*RUN, "--out", str(whole)]) == 0
    run = start(*RUN, "--out", str(broken), "--processes", "2")
    pids = children_of(run, 2)
    while not list(broken.glob(".partial/*/[0-9]*.npz")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.005)
    os.kill(pids[1], signal.SIGKILL)
    killed = time.monotonic()
    out, err = run.communicate(timeout=30)
    assert time.monotonic() - killed < 10 and run.returncode == 2 and not any(map(is_alive, pids))
    assert out == "" and err.count("\n") == 1
    assert "Process 1 of 2 died (signal 9, SIGKILL" in err and "--resume" in err
    assert list(broken.glob(".partial/*/[0-9]*.npz")) and not store.list_runs(broken)

    shutil.copytree(broken, other)
    assert main([*RUN, "--out", str(other), "--resume"]) == 0
    again = start(*RUN, "--out", str(broken), "--resume", "--processes", "2", "--json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads(out)["provenance"]["device"].endswith("x 2") and err == ""
    for root in (other, broken):
        assert compare(root, whole) < 1e-12


# ------------------------------------------------------------------------------------------- ending


@LINUX
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(ending, tmp_path):
    long = ("--n", "4000", "--d", "16", "--t-max", "1000")
    run = start(*RUN, *long, "--out", str(tmp_path), "--processes", "2")
    pids = children_of(run, 2)
    time.sleep(1)
    run.send_signal(ending)
    _, err = run.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    if ending == signal.SIGINT:
        assert run.returncode == 130 and "interrupted" in err


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--processes 0", "processes=0"),
        ("--processes 34", "processes=34 and n=33"),
        ("--processes auto", "srun or mpirun"),
        ("--processes two", "--processes"),
        ("--processes 2 --process-id 0", "`coordinator` must be given"),
        ("--processes 2 --coordinator a:1", "`process_id` must be given"),
        ("--processes 2 --coordinator a --process-id 0", "host:port"),
        ("--processes 2 --coordinator a:1 --process-id 2", "process_id=2"),
        ("--processes 2 --coordinator no.host.invalid:1 --process-id 1", "no.host.invalid:1"),
    ],
)
def test_bad_words_are_one_line(words, message, tmp_path, capsys, monkeypatch):
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert main([*RUN, "--out", str(tmp_path), *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_a_port_in_use_is_one_line(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--processes", "2", "--coordinator", f"localhost:{port}", "--process-id", "0"]
        assert main([*RUN, "--out", str(tmp_path), *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"Port {port} must be free" in err


def test_what_processes_cannot_share_is_one_line(tmp_path):
    run = start(*RUN, "--flow", "hardmax", "--processes", "2", "--out", str(tmp_path))
    out, err = run.communicate(timeout=60)
    assert run.returncode == 2 and out == "" and err.count("\n") == 1
    assert "HardmaxAttention has none" in err


def test_random_batches_are_not_shared():
    batches = attnflow.kernels.KERNEL_SUMS["random-batch"]
    flow, x0 = attnflow.sa(1.0, kernel_sum=batches), attnflow.sphere.polygon(4)
    with pytest.raises(ValueError, match="must not draw random batches"):
        attnflow.distributed.spread(flow, x0, jax.devices())


def test_processes_started_by_hand_that_disagree_all_say_where(tmp_path):
    where = ["--out", str(tmp_path), "--coordinator", f"localhost:{rollcall.free_port()}"]
    runs = [
        start(*RUN, *where, "--processes", "2", "--process-id", str(i), "--rtol", f"1e-{6 + i}")
        for i in (0, 1)
    ]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert run.returncode == 2 and out == "" and err.count("\n") == 1
        assert "`rtol` must be the same" in err and "1e-06" in err and "1e-07" in err


# ---------------------------------------------------------------------------------------- roll call


def meet(*calls: tuple[int, int, dict], timeout: float = 10) -> list[str]:
    """What processes (number of processes, own number, settings) hear at one roll call."""
    where, heard = f"localhost:{rollcall.free_port()}", [""] * len(calls)

    def call(i, processes, own, settings):
        try:
            rollcall.call_roll(where, processes, own, settings, timeout=timeout)
        except (ValueError, OSError) as error:
            heard[i] = str(error)

    threads = [threading.Thread(target=call, args=(i, *given)) for i, given in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard


def test_roll_call():
    same = {"beta": 9.0, "tokens": "uniform", "n": None}
    assert meet(*[(3, i, same) for i in range(3)]) == ["", "", ""]
    heard = meet((3, 0, same), (3, 1, same), (3, 2, {**same, "beta": 4.0}))
    assert len(set(heard)) == 1
    assert "`beta` must be the same" in heard[0] and "4.0 in process 2" in heard[0]
    heard = meet((2, 0, same), (3, 1, same))
    assert len(set(heard)) == 1 and "`processes` must be the same" in heard[0]
    heard = meet((3, 0, same), (3, 1, same), (3, 1, same))
    assert "two have process_id=1" in heard[0]


def test_roll_call_waits_no_longer_than_told():
    heard = meet((3, 0, {}), (3, 2, {}), timeout=0.5)
    assert "process 1 did not come" in heard[0] and heard[1] == heard[0]
    (heard,) = meet((2, 1, {}), timeout=0.5)
    assert "Process 0 must be reached at localhost:" in heard and "within 0.5 s" in heard


def test_roll_call_at_the_door_of_something_else():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer():
            line, _ = other.accept()
            with line:
                line.recv(100)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(TimeoutError, match="something else listens"):
            rollcall.call_roll(f"127.0.0.1:{other.getsockname()[1]}", 2, 1, {}, timeout=5)


def test_threads_of_all_processes_are_as_many_as_cores():
    assert [launch.threads_of_each(n, 8) for n in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert launch.threads_of_each(2) >= 1


def test_a_job_of_slurm_or_mpi_is_recognised(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    assert rollcall.place_in_job() == (4, 3)
