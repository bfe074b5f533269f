"""Exact kernel sum dense(x, x, x, beta) against NumPy, torch, KeOps and unblocked JAX."""

import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import torch

from attnflow.kernels import dense
from benchmarks import THREADS
from benchmarks.timing import alternate, machine, peak_memory, steps

N, BETA, ROUNDS = 8192, 4.0, 9
DIMENSIONS = (2, 3, 16, 64, 256)
BIG_N, BIG_D = 131_072, 16


TILE = {"float32": (482, 3856), "float64": (249, 1992)}
"""Rows and columns that `dense` takes at a time."""


def main() -> dict:
    torch.set_num_threads(THREADS)
    print(f"dense(x, x, x, beta), n = {N}: milliseconds, and peer time / dense time")
    cells = []
    for dtype in TILE:
        for d in DIMENSIONS:
            cells.append(cell(dtype, d))
            show(cells[-1])
    ratios = [c["ratio_to_best_peer"] for c in cells]
    mean = float(np.exp(np.mean(np.log(ratios))))
    print(f"best peer / dense: geometric mean {mean:.2f}, lowest {min(ratios):.2f}")
    show_roofline(cells)
    memory = [big(dtype, gradient) for dtype in TILE for gradient in (False, True)]
    return {
        "machine": machine(),
        "setting": {"n": N, "beta": BETA, "rounds": ROUNDS, "jax": jax.__version__},
        "peers": {"numpy": np.__version__, "torch": torch.__version__, "keops": version("pykeops")},
        "cells": cells,
        "geometric_mean": mean,
        "lowest": min(ratios),
        "memory": memory,
    }


def cell(dtype: str, d: int) -> dict:
    """Times of every tool on one (dtype, d), after a check that they all give the same means."""
    x = np.random.default_rng(0).normal(size=(N, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)
    tools = {name: tool(x) for name, tool in TOOLS.items()}
    exact = numpy_sum(x.astype("float64"))()
    errors = {name: float(np.abs(np.asarray(f()) - exact).max()) for name, f in tools.items()}
    assert max(errors.values()) < 1000 * np.finfo(dtype).eps, errors
    seconds = alternate(tools, ROUNDS)
    ours = seconds["dense"]
    ratios = {name: float(np.nanmedian(s / ours)) for name, s in seconds.items() if name != "dense"}
    parts = steps(dtype, d, TILE[dtype])
    calls = {"dense": tools["dense"]} | {name: call for name, (call, _) in parts.items()}
    limits = {}
    for name, clock in (("wall", time.perf_counter), ("cpu", time.process_time)):
        best = {part: float(s.min()) for part, s in alternate(calls, ROUNDS, clock=clock).items()}
        rates = {part: work / best[part] for part, (_, work) in parts.items()}
        limit = rooflines(d, rates, TILE[dtype])
        limits[name] = {
            "milliseconds": best["dense"] * 1e3,
            "rates": rates,
            "limit_milliseconds": {kind: 1e3 * s for kind, s in limit.items()},
            "times_limit": {kind: best["dense"] / s for kind, s in limit.items()},
        }
    return {
        "dtype": dtype,
        "d": d,
        "milliseconds": {name: float(np.nanmedian(seconds[name])) * 1e3 for name in tools},
        "ratios": ratios,
        "best_peer": min(ratios, key=lambda name: ratios[name]),
        "ratio_to_best_peer": min(ratios.values()),
        "times_limit": limits["wall"]["times_limit"],
        "limits": limits,
        "errors": errors,
    }


def rooflines(d: int, rates: dict[str, float], tile: tuple[int, int]) -> dict[str, float]:
    """Seconds that N tokens take at least, if each pair is scored once and steps do not overlap.

    N^2 / 2 exponentials at the faster of the measured rates, and N^2 (d + 2 (d + 1)) operations: at
    the rate of a large square product ("square"), and at that of the three products with the
    shapes of a tile ("tile"). By the clock, where others take the cores away, each step may meet a
    better moment than the whole; seconds of CPU compare what they cost.
    """
    tiles = N**2 / 2 / (tile[0] * tile[1])
    exponentials = tiles / max(rates["XLA exp"], rates["our exp2"])
    return {
        "square": exponentials + N**2 * (d + 2 * (d + 1)) / rates["square"],
        "tile": exponentials
        + tiles * sum(1 / rates[s] for s in ("scores", "to rows", "to columns")),
    }


def show(cell: dict) -> None:
    times = "  ".join(f"{name} {ms:7.1f}" for name, ms in cell["milliseconds"].items())
    best = f"{cell['best_peer']} x{cell['ratio_to_best_peer']:.2f}"
    print(f"{cell['dtype']} d={cell['d']:<4} {times}   best peer {best:12}", flush=True)


def show_roofline(cells: list[dict]) -> None:
    print(
        "dense, and what exponentials and products alone take: milliseconds by the clock, and of CPU"
    )
    for c in cells:
        text = ""
        for clock, limit in c["limits"].items():
            text += f"   {clock} {limit['milliseconds']:6.1f}:"
            for kind, ms in limit["limit_milliseconds"].items():
                text += f" {kind} {ms:6.1f} x{limit['times_limit'][kind]:.2f}"
        pairs = TILE[c["dtype"]][0] * TILE[c["dtype"]][1]
        rates = c["limits"]["cpu"]["rates"]
        text += f"   exp {rates['XLA exp'] * pairs:.2g}/s, ours {rates['our exp2'] * pairs:.2g}/s"
        print(f"{c['dtype']} d={c['d']:<4}{text}, {rates['square']:.2g} flop/s of a CPU second")


def big(dtype: str, gradient: bool) -> dict:
    """Time and peak memory of one sum, or its gradient, over many tokens."""
    sums = "lambda x: dense(x, x, x, 4.0)"
    function = f"jax.grad(lambda x: ({sums})(x)[0].sum())" if gradient else sums
    code = (
        "import jax, numpy as np\n"
        "from attnflow.kernels import dense\n"
        f"x = np.random.default_rng(0).normal(size=({BIG_N}, {BIG_D})).astype('{dtype}')\n"
        "x = jax.numpy.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))\n"
        f"jax.block_until_ready(({function})(x))\n"
    )
    row = {"dtype": dtype, "n": BIG_N, "d": BIG_D, "gradient": gradient, **peak_memory(code)}
    name = "gradient" if gradient else "sum"
    print(
        f"{dtype} n={BIG_N} d={BIG_D} {name}: {row['seconds']:.0f} s, {row['peak_gb']:.2f} GB",
        flush=True,
    )
    return row


def attnflow_sum(x):
    x = jnp.asarray(x)
    return lambda: jax.block_until_ready(dense(x, x, x, BETA))[0]


def numpy_sum(x):
    def run():
        scores = BETA * x @ x.T
        scores -= scores.max(axis=1, keepdims=True)
        e = np.exp(scores, out=scores)
        return e @ x / e.sum(axis=1, keepdims=True)

    return run


def torch_sum(x):
    tokens = torch.from_numpy(x)[None, None]
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(tokens, tokens, tokens, scale=BETA)[0, 0].numpy()


def keops_sum(x):
    import pykeops
    from pykeops.numpy import LazyTensor, Vj

    pykeops.set_verbose(False)
    x_i = LazyTensor(x[:, None, :])
    scores = (x_i | Vj(x)) * BETA
    return lambda: scores.sumsoftmaxweight(Vj(x), axis=1)


def unblocked_sum(x):
    x = jnp.asarray(x)

    @jax.jit
    def kernel_sum(x):
        scores = BETA * jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
        weights = jax.nn.softmax(scores)
        mean = jnp.matmul(weights, x, precision=jax.lax.Precision.HIGHEST)
        return mean, jax.nn.logsumexp(scores, axis=1)

    return lambda: jax.block_until_ready(kernel_sum(x))[0]


TOOLS = {
    "dense": attnflow_sum,
    "numpy": numpy_sum,
    "torch": torch_sum,
    "keops": keops_sum,
    "jax": unblocked_sum,
}
