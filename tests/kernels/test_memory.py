"""Memory of the exact kernel sum grows like n, not like n^2."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from attnflow.kernels import causal, dense

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6

def sums(x, beta, **options):
    return dense(x, x, x, beta, **options)

def total(x):
    return sums(x, 4.0)[0].sum()

x = np.random.default_rng(0).normal(size=(40_000, 2))
x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), "float32")
work = {
    "sum": lambda: sums(x, 4.0),
    "mask": lambda: sums(x, 4.0, mask=causal),
    "batch": lambda: jax.vmap(lambda beta: sums(x, beta))(jnp.arange(1.0, 4.0)),
    "gradient": lambda: jax.grad(total)(x),
    "slope": lambda: jax.jvp(total, (x,), (x,)),
}
jax.block_until_ready(work[sys.argv[1]]())
print(peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("work", ["sum", "mask", "batch", "gradient", "slope"])
def test_forty_thousand_tokens_stay_below_a_gigabyte(work):
    """One full float32 score matrix would be 6.4 GB; Python and JAX alone hold about 0.2."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, work], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
