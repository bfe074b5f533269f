"""Processes that save runs and are killed; run as a script, so that JAX is never forked.

python kills.py random ROOT     100 kills at random times; prints what they hit
python kills.py each ROOT       a kill before every single change of the file system
python kills.py crowd ROOT      many processes save, replace and read one run at once
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr  # noqa: F401

from attnflow import store

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open")


@dataclass(frozen=True)
class Config:
    seed: int


def numbers(seed, generation):
    return np.random.default_rng([seed, generation]).normal(size=(40, 8))


def folder_of(root, seed):
    return store.folder_of("simulate", Config(seed), root)


def save(root, seed, generation, *, force=False):
    """Save a run whose numbers follow from its seed and from one attribute."""
    dataset = xr.Dataset(
        {"x": (("time", "token"), numbers(seed, generation)), "done": ("time", np.ones(40, bool))},
        attrs={"generation": generation},
    )
    store.save(
        folder_of(root, seed), "simulate", Config(seed), dataset,
        provenance={"device": "cpu"}, figures={"figure.svg": b"<svg/>" * 999}, force=force,
    )  # fmt: skip


def steps(root, seed, count):
    """Go on from the last checkpoint for some steps, each of which follows from the one before."""
    with store.claim(folder_of(root, seed)) as checkpoint:
        start, arrays = check_state(checkpoint.load(), seed)
        for step in range(start + 1, start + 1 + count):
            arrays = {"x": arrays["x"] + numbers(seed, step), "on": np.True_}
            checkpoint.save(step, arrays)


def check_state(loaded, seed):
    step, arrays = loaded or (0, {"x": np.zeros((40, 8)), "on": np.True_})
    expected = np.zeros((40, 8))
    for earlier in range(1, step + 1):
        expected = expected + numbers(seed, earlier)
    assert arrays["x"].tobytes() == expected.tobytes()
    return step, arrays


def check(root):
    """Every visible run is whole, every checkpoint exact; return their generations and steps."""
    generations, done = {}, {}
    for info in store.list_runs(root):
        assert not info.problem, info.problem
        dataset, seed = store.load(info.folder), info.config["seed"]
        assert dataset.x.values.tobytes() == numbers(seed, dataset.generation).tobytes()
        assert dataset.done.all()
        assert (info.folder / "figure.svg").read_bytes() == b"<svg/>" * 999
        generations[str(seed)] = dataset.generation
    for partial in Path(root).glob(".partial/*"):
        seed = next(s for s in range(9) if folder_of(root, s).name == partial.name)
        with store.claim(folder_of(root, seed)) as checkpoint:
            done[str(seed)], _ = check_state(checkpoint.load(), seed)
    return generations, done


def check_and_clean(root):
    """As `check`, before and after cleaning, which may bring a run back but takes none away."""
    runs, _ = check(root)
    store.check_writable(root)
    cleaned, done = check(root)
    assert runs.items() <= cleaned.items()
    assert not list(Path(root).glob(".saving-*"))
    return cleaned, done


def leftovers(root):
    return list(Path(root).glob(".saving-*"))


def spawn(action):
    """Process that does one thing and ends with 0, or with 1 and a traceback."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ask(question):
    """Answer of a process of its own: this one must stay free of threads to go on forking."""
    source, sink = os.pipe()
    pid = spawn(lambda: os.write(sink, json.dumps(question()).encode()))
    assert status(pid) == 0
    os.close(sink)
    with os.fdopen(source) as answer:
        return json.loads(answer.read())


def warm_up(root):
    """Import what a save and a load import, so that children need not; return a save's seconds."""

    def first():
        save(root, 0, 0)
        check(root)
        return sorted(sys.modules)

    for name in ask(first):
        if name.split(".")[0] in ("attnflow", "numcodecs", "numpy", "pandas", "xarray", "zarr"):
            __import__(name)

    def second():
        begin = time.perf_counter()
        save(root, 1, 1)
        return time.perf_counter() - begin

    seconds = ask(second)
    shutil.rmtree(root)
    return seconds


def kill_at_random(root, seconds, kills=100):
    """Kill within the time of two saves, then look: all is whole, and what was there still is."""
    clock, hit, torn = random.Random(1), {"saving": 0, "replacing": 0, "saved": 0}, set()

    def work(generation):
        dice = random.Random(generation)
        while True:
            seed = dice.randrange(4)
            if dice.random() < 0.4:
                steps(root, seed, dice.randrange(1, 4))
            else:
                save(root, seed, generation, force=dice.random() < 0.7)

    known = {}
    for generation in range(kills):
        pid = spawn(lambda generation=generation: work(generation))
        time.sleep(clock.uniform(0, 2 * seconds))
        os.kill(pid, signal.SIGKILL)
        assert status(pid) == -signal.SIGKILL
        hit["saving"] += bool(leftovers(root))
        hit["replacing"] += any(any(path.glob("old/*")) for path in leftovers(root))
        torn |= {path.stat().st_mtime_ns for path in Path(root).glob(".partial/*/unfinished")}
        found, _ = ask(lambda: check_and_clean(root))
        assert known.keys() <= found.keys(), "a run was lost"
        hit["saved"] += found != known
        known = found
    print(json.dumps({**hit, "checkpoint": len(torn)}))


def kill_before_each_change(root, seconds):
    """Kill a process before its first change of the file system, its second, ... to its last.

    A kill spares what the kernel has buffered, so that flushing, which is slow, is left out.
    """
    os.fsync = lambda fd: None
    counts, template = {}, root + "-template"
    assert status(spawn(lambda: (save(template, 1, 0), steps(template, 1, 2)))) == 0
    for name, kinds, action in (
        ("replace", {0, 1}, lambda: save(root, 1, 1, force=True)),
        ("checkpoint", {0}, lambda: steps(root, 1, 3)),
        ("finish", {None, 1}, lambda: (steps(root, 1, 1), save(root, 1, 1))),
    ):
        seen = set()
        for limit in range(1, 1000):
            shutil.rmtree(root, ignore_errors=True)
            if 0 in kinds:
                shutil.copytree(template, root)

            def dying(action=action, limit=limit):
                count = 0

                def hook(event, args):
                    nonlocal count
                    if event in CHANGES and (event != "open" or str(args[0]).startswith(root)):
                        count += 1
                        if count == limit:
                            os.kill(os.getpid(), signal.SIGKILL)

                sys.addaudithook(hook)
                action()

            code = status(spawn(dying))
            runs, done = ask(lambda: check_and_clean(root))
            seen.add(runs.get("1"))
            assert runs.get("1") in kinds, (name, limit, runs)
            assert name != "checkpoint" or done["1"] >= 2, (limit, done)
            if code == 0:
                break
            assert code == -signal.SIGKILL
        assert seen == kinds, (name, seen)
        counts[name] = limit
    print(json.dumps(counts))


def crowd(root, seconds, savers=5, readers=3, reads=40):
    """Save, replace, clean and read one run at once: all succeed, each read is one whole run.

    Each reader goes on until it has seen the run change, or for a minute.
    """
    stop = Path(root + "-stop")

    def write(generation):
        while not stop.exists():
            save(root, 0, generation, force=generation % 2 == 0)
            store.check_writable(root)
            time.sleep(2 * seconds)

    def read():
        seen, deadline = [], time.monotonic() + 60
        while len(seen) < reads or (len(set(seen)) == 1 and time.monotonic() < deadline):
            dataset = store.load(folder_of(root, 0))
            assert dataset.x.values.tobytes() == numbers(0, dataset.generation).tobytes()
            seen.append(dataset.generation)
        os.write(sink, bytes([*seen[: reads - 1], seen[-1]]))

    source, sink = os.pipe()
    assert status(spawn(lambda: save(root, 0, savers))) == 0
    writing = [spawn(lambda g=g: write(g)) for g in range(savers)]
    reading = [spawn(read) for _ in range(readers)]
    codes = [status(pid) for pid in reading]
    stop.touch()
    codes += [status(pid) for pid in writing]
    assert not any(codes), codes
    assert ask(lambda: check(root))[0]["0"] in range(savers)
    assert os.listdir(root) == [folder_of(root, 0).name]  # noqa: PTH208
    seen = os.read(source, 10_000)
    print(json.dumps({"reads": len(seen), "generations": len(set(seen))}))


if __name__ == "__main__":
    task = {"random": kill_at_random, "each": kill_before_each_change, "crowd": crowd}[sys.argv[1]]
    where = str(Path(sys.argv[2]).resolve())
    task(where, warm_up(where + "-warm"))
