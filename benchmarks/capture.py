"""A probe beside the plain forward pass, and the statistics of one head of 100 000 tokens."""

import resource
import time

import numpy as np
import torch

from attnflow.models import attention_statistics, load, probe
from benchmarks import THREADS
from benchmarks.timing import alternate, machine

TOKENS, ROUNDS, LONG = 512, 9, 100_000


def main() -> dict:
    torch.set_num_threads(THREADS)
    model, _ = load("minilm")
    draw = torch.Generator().manual_seed(0)
    inputs = {"input_ids": torch.randint(1000, 20_000, (1, TOKENS), generator=draw)}

    def forward():
        with torch.no_grad():
            model(**inputs)

    tools = {
        "forward": forward,
        "states": lambda: probe(model, inputs, heads=False, full=False, beta=4.0),
        "heads": lambda: probe(model, inputs, full=False),
        "full": lambda: probe(model, inputs),
    }
    seconds = alternate(tools, ROUNDS)
    print(f"MiniLM, {TOKENS} tokens: milliseconds, and times the forward pass")
    ratios = {}
    for name, values in seconds.items():
        ratios[name] = float(np.nanmedian(values / seconds["forward"]))
        print(
            f"  {name:<8}{1e3 * float(np.nanmedian(values)):9.1f}   x{ratios[name]:.2f}", flush=True
        )
    q, k = torch.randn(2, 1, LONG, 64, generator=draw)
    start = time.perf_counter()
    attention_statistics(q, k)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"one head of {LONG} tokens: {took:.1f} s, peak of the process {peak:.2f} GB")
    return {
        "machine": machine(),
        "tokens": TOKENS,
        "ratios": ratios,
        "long": {"n": LONG, "seconds": took, "peak_gb": peak},
    }
