"""Phase diagram of 17 280 systems: attnflow against the published algorithm on the same systems.

Published: Euler steps of 0.1 with renormalisation, softmax attention of all tokens at full d,
batched torch in float32. Ours: the experiment as users run it, from drawing the starts on, after
compilation. By turns, three times; about six minutes on two cores.
"""

from dataclasses import replace
from functools import partial

import diffrax
import jax
import numpy as np
import torch

import attnflow as af
from attnflow.experiments import phase_diagram
from attnflow.experiments.phase_diagram import Config
from benchmarks import THREADS
from benchmarks.timing import alternate, machine

ROUNDS = 3
STEP = 0.1
CHECKED = 16
CHECKED_BETAS = (1.0, 4.0, 5.0)


def main() -> dict:
    """Seconds and ratios per panel and in all, and the accuracy of both."""
    torch.set_num_threads(THREADS)
    config = phase_diagram.resolve(Config())
    panels = {str(d): panel(config, d) for d in config.dims}
    ours, published = (
        sum(cell["seconds"][name] for cell in panels.values()) for name in ("attnflow", "published")
    )
    result = {
        "machine": machine(),
        "panels": panels,
        "seconds": {"attnflow": ours, "published": published},
        "ratio": published / ours,
        "accuracy": {str(d): accuracy(config, d) for d in config.dims},
    }
    show(result)
    return result


def panel(config: Config, d: int) -> dict:
    """Seconds of both for one dimension."""
    config = replace(config, dims=(d,))
    x0 = torch.tensor(phase_diagram.starts(config, d), dtype=torch.float32)
    betas = np.linspace(config.beta_min, config.beta_max, config.beta_count)
    seconds = alternate(
        {
            "attnflow": lambda: phase_diagram.run(config),
            "published": lambda: [published(x0, float(beta), config) for beta in betas],
        },
        rounds=ROUNDS,
        budget=np.inf,
    )
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "seconds": medians,
        "spread": {name: [float(v.min()), float(v.max())] for name, v in seconds.items()},
        "ratio": medians["published"] / medians["attnflow"],
    }


@torch.inference_mode()
def published(x, beta: float, config: Config, *, keep: bool = False):
    """Shares of merged pairs at save times; with `keep`, all cosines before every step."""
    steps = round(config.t_max / STEP)
    saves = set(np.linspace(0, steps, config.time_count).round().astype(int).tolist())
    pairs = config.n * (config.n - 1)
    fractions, cosines = [], []
    for step in range(steps + 1):
        gram = torch.bmm(x, x.mT)
        if keep:
            cosines.append(gram)
        elif step in saves:
            merged = gram >= 1 - config.delta
            fractions.append((merged.sum(dim=(1, 2)) - config.n) / pairs)
        x = x + STEP * torch.bmm(torch.softmax(beta * gram, dim=-1), x)
        x = torch.nn.functional.normalize(x, dim=-1)
    return torch.stack(cosines if keep else fractions)


def accuracy(config: Config, d: int) -> dict:
    """Largest errors over all times of 16 starts at each of three beta, against tolerances of 1e-12.

    Errors are those of a coordinate of a token (ours), of a cosine, and of the half-height time.
    """
    x0 = phase_diagram.starts(config, d)[:CHECKED]
    reduced = phase_diagram.reduced(x0)
    ts = STEP * np.arange(round(config.t_max / STEP) + 1)

    @partial(jax.jit, static_argnums=(1, 2))
    def solve(beta, rtol, atol):
        flow = partial(phase_diagram.batch_velocity, af.sa(beta))
        return af.solve(flow, reduced, ts, method=diffrax.Dopri8(), rtol=rtol, atol=atol).xs

    rows = []
    for beta in CHECKED_BETAS:
        exact = np.asarray(solve(beta, 1e-12, 1e-14))
        found = np.asarray(solve(beta, config.rtol, config.atol))
        euler = (
            published(torch.tensor(x0, dtype=torch.float32), beta, config, keep=True)
            .double()
            .numpy()
        )
        exact_cosines = exact @ exact.mT
        times = [half_time(ts, cosines, config) for cosines in (euler, exact_cosines)]
        rows.append(
            {
                "beta": beta,
                "token_error": float(np.abs(found - exact).max()),
                "cosine_error": float(np.abs(found @ found.mT - exact_cosines).max()),
                "published_cosine_error": float(np.abs(euler - exact_cosines).max()),
                "published_late_in_t": times[0] / times[1] - 1,
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def half_time(ts, gram, config: Config) -> float:
    """Time at which half of the pairs of all systems have merged."""
    off = ~np.eye(config.n, dtype=bool)
    fraction = (gram[..., off] >= 1 - config.delta).mean(axis=(1, 2))
    return float(af.analysis.plateaus.crossing_time(ts, fraction, 0.5, scale="logit"))


def show(result: dict) -> None:
    print("phase diagram, seconds:")
    for d, cell in result["panels"].items():
        ours, published = (cell["seconds"][name] for name in ("attnflow", "published"))
        error = result["accuracy"][d]
        late = ", ".join(f"{value:.1%}" for value in error["published_late_in_t"])
        print(
            f"d={d:<5} attnflow {ours:6.1f}  published {published:6.1f}  x{cell['ratio']:.1f}   "
            f"errors of cosines {max(error['cosine_error']):.0e} and "
            f"{max(error['published_cosine_error']):.0e}; published late by {late}"
        )
    total = result["seconds"]
    print(
        f"in all  attnflow {total['attnflow']:6.1f}  published {total['published']:6.1f}  "
        f"x{result['ratio']:.1f}",
        flush=True,
    )
