"""Timing by turns on a machine that others use too, and the machine's own limits."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.kernels.fused import exp2, grouped, times
from benchmarks import THREADS


def alternate(
    functions: dict[str, Callable[[], object]],
    rounds: int,
    budget: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds of each call, shape (rounds,): every function once a round, after one warm-up.

    A function that has used up `budget` seconds sits the later rounds out; they are NaN. With
    `time.process_time` as clock they are seconds of all threads together, which say more where
    others take the cores away.
    """
    for function in functions.values():
        function()
    seconds = {name: np.full(rounds, np.nan) for name in functions}
    for turn in range(rounds):
        for name, function in functions.items():
            if np.nansum(seconds[name]) < budget:
                start = clock()
                function()
                seconds[name][turn] = clock() - start
    return seconds


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
        model = names[0].split(":")[1].strip() if names else model
    return {"cpu": model, "threads": THREADS, "python": platform.python_version()}


def steps(dtype: str, d: int, tile: tuple[int, int]) -> dict[str, tuple[Callable, float]]:
    """What the machine is measured by, each with its work: 8 tiles of pairs, or operations.

    Exponentials, XLA's and ours, on an array that stays in cache; the products of a tile, shapes
    (rows, d + 2)(d + 2, columns), (rows, columns)(columns, d + 1) in the groups of columns that are
    fastest, and (d + 1, rows)(rows, columns); a product of square matrices.
    """
    rows, columns = tile
    random = lambda *shape: jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    left, right, e = random(rows, d + 2), random(columns, d + 2), random(rows, columns)
    groups, flat = grouped(random(columns, d + 1)), random(d + 1, rows)
    n, cached, square = 1024, -abs(random(128, 512)), random(1024, 1024) / 1024
    power_times = 8 * e.size // cached.size
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def repeated(step, out, *given, times=8):
        """A call that takes a step of `out` again and again."""

        @jax.jit
        def run(out, *given):
            return jax.lax.fori_loop(0, times, lambda _, out: step(out, *given), out)

        return lambda: jax.block_until_ready(run(out, *given))

    def repeated_product(step, *given):
        """Each product starts from one entry of that before, so that none is left out."""
        take = lambda out, *given: (out := step(1e-9 * out[1], *given), out[0, 0])
        return repeated(take, take((None, 0.0), *given), *given)

    return {
        "XLA exp": (repeated(lambda y: jnp.exp(y - 1), cached, times=power_times), 8.0),
        "our exp2": (repeated(lambda y: exp2(y - 1), cached, times=power_times), 8.0),
        "scores": (repeated_product(lambda s, a, b: product(a + s, b.T), left, right), 8.0),
        "to rows": (
            repeated_product(lambda s, a, *b: times(a, [g + s for g in b]), e, *groups),
            8.0,
        ),
        "to columns": (repeated_product(lambda s, a, b: product(a + s, b), flat, e), 8.0),
        "square": (repeated(product, square, square), 8 * 2.0 * n**3),
    }


def peak_memory(code: str) -> dict[str, float]:
    """Seconds and peak resident memory in GB of some Python code in a process of its own (Linux).

    Beside them the numbers of the code's own last line, if that is a JSON object.
    """
    report = (
        "\nfrom pathlib import Path"
        "\nlines = Path('/proc/self/status').read_text().splitlines()"
        "\nprint(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    *printed, kilobytes = done.stdout.splitlines()
    own = json.loads(printed[-1]) if printed and printed[-1].startswith("{") else {}
    return {"seconds": seconds, "peak_gb": int(kilobytes) / 1e6, **own}
