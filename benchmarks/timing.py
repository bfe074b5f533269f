"""Timing by turns on a machine that others use too, and the machine's own limits."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import THREADS


def alternate(
    functions: dict[str, Callable[[], object]], rounds: int, budget: float = 20.0
) -> dict[str, np.ndarray]:
    """Seconds of each call, shape (rounds,): every function once a round, after one warm-up.

    A function that has used up `budget` seconds sits the later rounds out; they are NaN.
    """
    for function in functions.values():
        function()
    seconds = {name: np.full(rounds, np.nan) for name in functions}
    for turn in range(rounds):
        for name, function in functions.items():
            if np.nansum(seconds[name]) < budget:
                start = time.perf_counter()
                function()
                seconds[name][turn] = time.perf_counter() - start
    return seconds


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
        model = names[0].split(":")[1].strip() if names else model
    return {"cpu": model, "threads": THREADS, "python": platform.python_version()}


def roof(dtype: str) -> dict[str, float]:
    """Exponentials and floating-point operations per second that XLA reaches on this machine."""
    n, repeats = 1024, 32
    x = jnp.full((n, n), -0.5, dtype)

    @jax.jit
    def exponentials(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: jnp.exp(y - 1), x)

    @jax.jit
    def products(x):
        def product(_, y):
            return jnp.matmul(y, x, precision=jax.lax.Precision.HIGHEST) / n

        return jax.lax.fori_loop(0, repeats, product, x)

    work = {"exp_per_s": (exponentials, n**2), "flop_per_s": (products, 2 * n**3)}
    calls = {name: lambda f=f: jax.block_until_ready(f(x)) for name, (f, _) in work.items()}
    seconds = alternate(calls, rounds=7)
    return {name: repeats * work[name][1] / seconds[name].min() for name in work}


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
