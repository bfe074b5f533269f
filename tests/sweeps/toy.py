"""An experiment that takes no time, and scripts of its sweeps, for processes that are killed.

python toy.py sweep ROOT COUNT [SLOW]    a sweep of so many tasks on two processes
python toy.py shared ROOT COUNT          the same in this process
python toy.py deadly ROOT                one task kills its process once, one always
"""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from attnflow.experiments import EXPERIMENTS

NAME = "toy"


@dataclass(frozen=True)
class Config:
    """Settings of the toy."""

    n: int = 3
    """Number of entries."""
    beta: float = 1.0
    """Height."""
    mode: str = "well"
    """well, or how it goes wrong."""
    ns: tuple[int, ...] = (1, 2)
    """A tuple."""
    slow: float = 0.0
    """Seconds."""
    folder: str = ""
    """Where runs are counted."""
    seed: int = 0
    """Seed."""
    dtype: Literal["float64"] = "float64"
    """Precision."""


def resolve(config):
    return config


def check(config):
    if config.n < 1:
        raise ValueError(f"Argument `n` must be a whole number >= 1, but n={config.n}.")


def run(config, *, progress=False, checkpoint=None):
    if config.folder:
        with (Path(config.folder) / "log").open("a") as log:
            log.write(f"{config.beta} {config.seed}\n")
    time.sleep(config.slow)
    marker = Path(config.folder) / "well"
    if config.mode == "fails" and config.beta > 2 and not marker.exists():
        raise ZeroDivisionError("no such\n  number")
    if config.mode == "dies" and config.beta > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.mode == "dies" and config.beta == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    x = np.random.default_rng(config.seed).normal(size=config.n) + config.beta
    return xr.Dataset(
        {
            "x": (("token",), x, {"long_name": "entries"}),
            "side": ("side_of", [config.beta > 1.3]),
            "beta": ("token", x),
            "kept": ("other", x[:1]),
        },
        {"token": np.arange(config.n) + 10.0, "side_of": ["only"]},
        attrs={"experiment": NAME},
    )


def numbers(data):
    x = data.x.values
    kind = "high" if x.mean() > 2 else "low"
    return {
        "total": float(x.sum()),
        "steps": len(x),
        "rate": None if x.sum() > 9 else 1.0,
        "kind": kind,
        "x": x.tolist(),
        "side": data.side.values.tolist(),
        "beta": data.beta.values.tolist(),
        "nested": {"a": 1},
    }


def summary(data):
    return "a toy"


def draw(data):
    from attnflow import plot

    figure, panels = plot.panels([["a"]])
    panels["a"].plot(data.x)
    return figure


sys.modules["attnflow.experiments.toy"] = sys.modules[__name__]
Config.__module__ = "attnflow.experiments.toy"
EXPERIMENTS[NAME] = "A toy."


def main(what, root, *numbers):
    from attnflow import sweeps

    root = Path(root)
    root.mkdir(exist_ok=True)
    if what == "deadly":
        points = sweeps.product(NAME, beta=[1.0, 2.0, 3.0], mode="dies", folder=str(root))
        with sweeps.Processes(2) as executor:
            data = sweeps.sweep(NAME, points, executor=executor, out=root / "runs", progress=False)
    else:
        count, slow = int(numbers[0]), float(numbers[1]) if len(numbers) > 1 else 0.0
        points = sweeps.product(NAME, seed=range(count), folder=str(root), slow=slow)
        if what == "sweep":
            with sweeps.Processes(2) as executor:
                # ask for the processes first, so that a test can look for them
                executor.submit(abs, 1).result()
                (root / "pids").write_text(json.dumps(executor.pids))
                data = sweeps.sweep(
                    NAME, points, executor=executor, out=root / "runs", progress=False
                )
        else:
            data = sweeps.sweep(NAME, points, out=root / "runs", progress=False)
    x = data.x.values
    reasons = [str(reason) for reason in data.reason.values]
    print(json.dumps({"x": x.tobytes().hex(), "reasons": reasons}))


if __name__ == "__main__":
    main(*sys.argv[1:])
