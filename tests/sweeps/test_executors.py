"""Processes that are killed, sweeps at once, and the same bytes from every executor."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from attnflow import store
from attnflow.sweeps import Processes, open_executor, product, sweep

NAME = "long-context"
TINY = {
    "ns": (4,), "layer_ns": (16,), "layer_count": 2, "resolution": 2, "random_n": 8,
    "densities": (1.0,), "random_gammas": (1.0,), "seeds": 2, "escape_ns": (4,),
    "escape_gammas": (2.5,), "layers": 1,
}  # fmt: skip


def start(script, *words):
    return subprocess.Popen(
        [sys.executable, "-W", "error", script, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def log(root):
    return (root / "log").read_text().splitlines() if (root / "log").exists() else []


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_sweep_goes_on_when_it_is_started_again(script, tmp_path):
    killed = start(script, "sweep", tmp_path, 12, 0.4)
    wait_for(lambda: len(list((tmp_path / "runs").glob("toy-*"))) >= 3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    killed.stderr.close()
    pids = json.loads((tmp_path / "pids").read_text())
    try:
        wait_for(lambda: not any(map(is_alive, pids)), 10)  # workers do not outlive their sweep
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
    done = len([run for run in store.list_runs(tmp_path / "runs") if not run.problem])
    assert 3 <= done < 12
    before = len(log(tmp_path))
    found = end(start(script, "shared", tmp_path, 12, 0.4))
    assert found["reasons"] == [""] * 12
    assert len(log(tmp_path)) - before == 12 - done  # what was done is not done again
    assert set(os.listdir(tmp_path / "runs")) >= {run.name for run in store.list_runs(tmp_path)}  # noqa: PTH208
    store.clean_leftovers(tmp_path / "runs")
    assert not list((tmp_path / "runs").glob(".saving-*"))


def test_two_sweeps_at_once_share_the_work(script, tmp_path):
    both = [start(script, "shared", tmp_path, 12, 0.1) for _ in range(2)]
    one, other = map(end, both)
    assert one == other and one["reasons"] == [""] * 12
    assert sorted(log(tmp_path)) == sorted(f"1.0 {seed}" for seed in range(12))  # each once
    runs = store.list_runs(tmp_path / "runs")
    assert len(runs) == 13 and not any(run.problem for run in runs)


def test_a_task_that_kills_its_process_loses_itself_only(script, tmp_path):
    found = end(start(script, "deadly", tmp_path))
    assert found["reasons"][:2] == ["", ""]
    assert found["reasons"][2].startswith("It was lost 3 times: BrokenProcessPool")
    assert sorted(log(tmp_path)) == ["1.0 0", "2.0 0", "2.0 0", *["3.0 0"] * 3]


def test_processes_die_with_their_executor():
    with Processes(2) as executor:
        assert executor.submit(abs, -3).result() == 3
        (pid,) = executor.pids
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid))
        answers = []
        for _ in range(3):
            try:
                answers.append(executor.submit(abs, -3).result())
            except Exception as error:
                assert type(error).__name__ == "BrokenProcessPool"
        assert answers[-1] == 3
        pids = executor.pids
    assert not any(map(is_alive, pids))


@pytest.fixture(scope="module")
def points():
    return product(NAME, gamma_max=np.linspace(0.5, 4, 8).tolist(), seed=range(8), **TINY)


@pytest.fixture(scope="module")
def local(points, tmp_path_factory):
    """The sweep on two local processes, and its store."""
    out = tmp_path_factory.mktemp("local")
    with Processes(2) as executor:
        return sweep(NAME, points, executor=executor, out=out, progress=False), out


def digests(out):
    return {
        run.name: store.read_config(run.folder)["result"]["sha256"]
        for run in store.list_runs(out)
        if run.experiment == NAME
    }


def assert_same_bytes(data, other):
    assert data.identical(other)
    for name in data.variables:
        assert data[name].values.tobytes() == other[name].values.tobytes()


def test_64_tasks_on_dask_with_a_worker_killed(points, local, tmp_path):
    """All is there in the end, a second time nothing is done, and local processes give the same bytes."""
    pytest.importorskip("distributed")
    killed = []

    with open_executor("dask", workers=2) as client:
        pids = client.run(os.getpid)

        def kill():
            wait_for(lambda: len(digests(tmp_path)) >= 5)
            killed.append(len(digests(tmp_path)))
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        data = sweep(NAME, points, executor=client, out=tmp_path, progress=False)
        killer.join()
    assert 5 <= killed[0] < 64
    assert data.layer_cosine.shape[:2] == (8, 8) and not data.reason.values.any()
    assert np.isfinite(data.layer_cosine).all()
    assert_same_bytes(data, local[0])
    assert len(digests(tmp_path)) == 64 and digests(tmp_path) == digests(local[1])
    stamps = times(tmp_path)
    again = sweep(NAME, points, executor=Refusing(), out=tmp_path, progress=False)
    assert again.identical(data)
    assert times(tmp_path) == stamps


def times(folder):
    """When each file was written; what a killed worker left half is swept away at any time."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if ".saving-" not in str(path.relative_to(folder)) and path != folder
    }


class Refusing:
    def submit(self, function, *args):
        raise AssertionError("there is nothing to do")


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # debug leaves its log files open
)
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_submitit_gives_the_same_bytes(points, local, tmp_path, cluster):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(folder=tmp_path / "logs", cluster=cluster)
    few = points[:2] if cluster == "local" else points[:5]
    data = sweep(NAME, few, executor=executor, out=tmp_path / "runs", progress=False)
    assert not data.reason.values.any() and data.sizes["seed"] == len(few)
    assert digests(tmp_path / "runs").items() <= digests(local[1]).items()


def test_a_pool_of_the_library_and_here_give_the_same_bytes(points, local, tmp_path):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        sweep(NAME, points[:3], executor=pool, out=tmp_path / "pool", progress=False)
    sweep(NAME, points[:3], out=tmp_path / "here", progress=False)
    assert len(digests(tmp_path / "here")) == 3
    assert digests(tmp_path / "here") == digests(tmp_path / "pool")
    assert digests(tmp_path / "here").items() <= digests(local[1]).items()
