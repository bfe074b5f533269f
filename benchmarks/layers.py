"""Time of a Transformer layer against `torch.nn.TransformerEncoderLayer`; memory of a deep run.

PyTorch runs twice: through its fused inference path, as it comes, and without it ("torch sdpa").
"""

import jax
import numpy as np
import torch
from torch import nn

from attnflow import layers
from benchmarks import THREADS
from benchmarks.timing import alternate, machine, peak_memory

D, HEADS, DEPTH, ROUNDS = 256, 8, 2, 7
TOKENS = (512, 2048)
BIG_N, BIG_D, BIG_DEPTH = 4096, 512, 12


def main() -> dict:
    torch.set_num_threads(THREADS)
    print(f"layer of d = {D}, {HEADS} heads, MLP: milliseconds, and time of the best peer / ours")
    cells = [
        cell(dtype, n, causal)
        for dtype in ("float32", "float64")
        for n in TOKENS
        for causal in (False, True)
    ]
    ratios = [c["ratio_to_best_peer"] for c in cells]
    mean = float(np.exp(np.mean(np.log(ratios))))
    print(f"best peer / attnflow: geometric mean {mean:.2f}, lowest {min(ratios):.2f}")
    return {
        "machine": machine(),
        "setting": {
            "d": D,
            "heads": HEADS,
            "depth": DEPTH,
            "rounds": ROUNDS,
            "jax": jax.__version__,
        },
        "peers": {"torch": torch.__version__},
        "cells": cells,
        "geometric_mean": mean,
        "lowest": min(ratios),
        "memory": [big(dtype) for dtype in ("float32", "float64")],
    }


def cell(dtype: str, n: int, causal: bool) -> dict:
    """Times of a layer in both libraries, after a check that they give the same tokens."""
    torch.manual_seed(0)
    settings = {"dropout": 0.0, "batch_first": True, "norm_first": True}
    like = {"dtype": getattr(torch, dtype)}
    parts = [nn.TransformerEncoderLayer(D, HEADS, 4 * D, **settings, **like) for _ in range(DEPTH)]
    parts = [part.eval() for part in parts]
    x = np.random.default_rng(0).normal(size=(n, D)).astype(dtype)
    tools = {
        "attnflow": attnflow_run(parts, x, causal),
        "torch": torch_run(parts, x, causal, fused=True),
        "torch sdpa": torch_run(parts, x, causal, fused=False),
    }
    ends = {name: np.asarray(run()) for name, run in tools.items()}
    for end in ends.values():
        assert np.abs(end - ends["attnflow"]).max() < 1000 * np.finfo(dtype).eps
    seconds = alternate(tools, ROUNDS)
    ours = seconds["attnflow"]
    peers = {name: s for name, s in seconds.items() if name != "attnflow"}
    ratios = {name: float(np.nanmedian(s / ours)) for name, s in peers.items()}
    times = {name: float(np.nanmedian(s)) * 1e3 / DEPTH for name, s in seconds.items()}
    mask = "causal" if causal else "full"
    shown = "  ".join(f"{name} {ms:7.1f}" for name, ms in times.items())
    lowest = min(ratios.values())
    print(f"{dtype} n={n:<5} {mask:6} {shown}   x{lowest:.2f}", flush=True)
    return {
        "dtype": dtype,
        "n": n,
        "mask": mask,
        "milliseconds_per_layer": times,
        "ratios": ratios,
        "ratio_to_best_peer": lowest,
    }


def attnflow_run(parts, x, causal):
    model = layers.stack([layers.from_torch(part, causal=causal) for part in parts])
    x = jax.numpy.asarray(x)
    return lambda: jax.block_until_ready(layers.forward(model, x, states=False).x_end)


def torch_run(parts, x, causal, fused):
    x = torch.from_numpy(x)[None]
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)

    def run():
        torch.backends.mha.set_fastpath_enabled(fused)
        y = x
        with torch.no_grad():
            for part in parts:
                y = part(y, src_mask=mask if causal else None, is_causal=causal)
        return y[0].numpy()

    return run


def big(dtype: str) -> dict:
    """Time and peak memory of a deep run over many tokens, compilation included."""
    code = (
        "import jax, jax.random as jr\n"
        "from attnflow import layers\n"
        f"jax.config.update('jax_enable_x64', {dtype == 'float64'})\n"
        f"model = layers.transformer(jr.key(0), {BIG_D}, {BIG_DEPTH}, heads=8, placement='pre')\n"
        f"x = jr.normal(jr.key(1), ({BIG_N}, {BIG_D}))\n"
        "jax.block_until_ready(layers.forward(model, x, states=False).x_end)\n"
    )
    row = {"dtype": dtype, "n": BIG_N, "d": BIG_D, "depth": BIG_DEPTH, **peak_memory(code)}
    print(
        f"{dtype} n={BIG_N} d={BIG_D} {BIG_DEPTH} layers: {row['seconds']:.0f} s, "
        f"{row['peak_gb']:.2f} GB",
        flush=True,
    )
    return row
