"""Training steps with `Monitor` at its default interval and without, and what one look costs.

CPU time of one thread: a look is short, and wall time of more threads drowns it where others run.
"""

import time

import numpy as np
import torch

from attnflow.experiments.tiny_gpt_model import GPT
from attnflow.models import Monitor
from benchmarks.timing import alternate, machine

D, HEADS, LAYERS, N, BATCH = 128, 4, 6, 128, 8
STEPS, FEW, ROUNDS = 50, 5, 5


def main() -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(100, N, D, HEADS, LAYERS, "pre")
    text = torch.randint(100, (BATCH, N + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def steps(count):
        for _ in range(count):
            logits = model(text[:, :-1]).flatten(0, 1)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(logits, text[:, 1:].flatten()).backward()
            optimizer.step()

    def monitored(count, **options):
        with Monitor(model, **options) as monitor:
            steps(count)
        return monitor

    assert len(monitored(STEPS).history["step"]) == 1
    default = {"plain": lambda: steps(STEPS), "monitored": lambda: monitored(STEPS)}
    always = {"plain": lambda: steps(FEW), "monitored": lambda: monitored(FEW, every=1)}
    long = alternate(default, ROUNDS, budget=60.0, clock=time.process_time)
    short = alternate(always, 2 * ROUNDS, clock=time.process_time)
    step = float(np.nanmedian(long["plain"])) / STEPS
    ratio = float(np.nanmedian(long["monitored"] / long["plain"]))
    look = float(np.nanmedian(short["monitored"] - short["plain"])) / FEW
    print(
        f"GPT of d = {D}, {LAYERS} layers, {BATCH} x {N} tokens: a step takes {1e3 * step:.1f} ms"
    )
    print(f"  {STEPS} steps, one look: x{ratio:.3f};  a look takes {1e3 * look:.1f} ms,", end=" ")
    print(f"{100 * look / (STEPS * step):.2f} % of {STEPS} steps", flush=True)
    return {
        "machine": machine() | {"threads": 1},
        "setting": {"d": D, "layers": LAYERS, "n": N, "batch": BATCH, "every": STEPS},
        "torch": torch.__version__,
        "step_ms": 1e3 * step,
        "look_ms": 1e3 * look,
        "overhead": look / (STEPS * step),
        "ratio": ratio,
    }
