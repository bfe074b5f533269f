"""The phase diagram against the published algorithm: Euler, step 0.1, full softmax, batched torch."""

import time
from dataclasses import replace

import numpy as np
import torch

from attnflow.experiments import phase_diagram
from attnflow.experiments.phase_diagram import Config, resolve
from benchmarks import THREADS
from benchmarks.timing import machine

STEP, BETAS, SEEDS = 0.1, 9, 16


def main() -> dict:
    """Seconds per panel of both; the published algorithm is timed on a part of the same systems.

    Its time is linear in the number of systems: batches of 16 systems, one beta after the other.
    """
    torch.set_num_threads(THREADS)
    config = resolve(Config())
    phase_diagram.run(replace(config, beta_count=2))
    panels = [panel(config, d) for d in config.dims]
    ours, theirs = (sum(p[name] for p in panels) for name in ("attnflow_s", "published_s"))
    print(
        f"in all        attnflow {ours:6.1f} s   published {theirs:6.1f} s   x{theirs / ours:.1f}"
    )
    return {"machine": machine(), "panels": panels, "ratio": theirs / ours, "attnflow_s": ours}


def panel(config: Config, d: int) -> dict:
    """Both on the systems of one panel, in turn."""
    start = time.perf_counter()
    phase_diagram.run(replace(config, dims=(d,)))
    ours = time.perf_counter() - start
    x0 = torch.from_numpy(np.asarray(phase_diagram.starts(config, d), "float32"))[:SEEDS]
    betas = np.linspace(config.beta_min, config.beta_max, BETAS)
    start = time.perf_counter()
    for beta in betas:
        published(x0, float(beta), config)
    share = BETAS * SEEDS / (config.beta_count * config.seeds)
    theirs = (time.perf_counter() - start) / share
    print(
        f"d = {d:<8}  attnflow {ours:6.1f} s   published {theirs:6.1f} s   x{theirs / ours:.1f}",
        flush=True,
    )
    return {
        "d": d,
        "attnflow_s": ours,
        "published_s": theirs,
        "share_timed": share,
        "ratio": theirs / ours,
    }


def published(x: torch.Tensor, beta: float, config: Config) -> list[float]:
    """Share of merged pairs at every check, by Euler steps and renormalization in float32."""
    n, steps = config.n, round(config.t_max / STEP)
    checks = set(np.unique(np.linspace(0, steps, config.time_count).astype(int)))
    shares = []
    for step in range(steps + 1):
        gram = x @ x.mT
        if step in checks:
            merged = (gram >= 1 - config.delta).sum() - len(x) * n
            shares.append(float(merged) / (len(x) * n * (n - 1)))
        x = torch.nn.functional.normalize(x + STEP * torch.softmax(beta * gram, -1) @ x, dim=-1)
    return shares
