"""Fast sums on the circle and on S²: growth with n, error against time, and two ways to call finufft."""

import os
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.kernels import dense, fourier, harmonics, host, torus
from attnflow.kernels.spaces import CIRCLE, SPHERE
from benchmarks import THREADS
from benchmarks.timing import alternate, machine

BETA, ROUNDS = 81.0, 7
SUMS = {2: fourier, 3: harmonics}
SPACES = {2: CIRCLE, 3: SPHERE}
SIZES = [10**3, 10**4, 10**5, 10**6, 10**7]
DENSE_SIZES = [10**3, 10**4, 10**5]
REPORT_N, REPORT_ROWS = 10**5, 64


def main() -> dict:
    growth = [grow(d) for d in (2, 3)]
    report = [point for d in (2, 3) for point in error_against_time(d)]
    calls = [way for d in (2, 3) for way in ways(d)]
    return {
        "machine": machine(),
        "versions": {name: version(name) for name in ("finufft", "jax-finufft", "jax")},
        "beta": BETA,
        "growth": growth,
        "error_against_time": report,
        "ways": calls,
    }


def tokens(n: int, d: int, dtype: str = "float64") -> jax.Array:
    x = np.random.default_rng(0).normal(size=(n, d))
    return jnp.asarray((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype))


def call(kernel_sum, x, **options):
    return lambda: jax.block_until_ready(kernel_sum(x, x, x, BETA, **options))


def grow(d: int) -> dict:
    """Seconds of one SA evaluation by n, and exponents of n."""
    name = SUMS[d].__name__
    fast, pairs = {}, {}
    for n in SIZES:
        x = tokens(n, d)
        tools = {"fast": call(SUMS[d], x)} | ({"dense": call(dense, x)} if n in DENSE_SIZES else {})
        seconds = alternate(tools, ROUNDS, budget=30.0)
        fast[n] = float(np.nanmin(seconds["fast"]))
        if n in DENSE_SIZES:
            pairs[n] = float(np.nanmin(seconds["dense"]))
        print(
            f"{name} n={n:<9} {fast[n]:.4f} s"
            + (f"   dense {pairs[n]:.4f} s" if n in pairs else ""),
            flush=True,
        )
    exponent = slope([n for n in SIZES if n >= 10**5], fast)
    of_dense = slope([n for n in DENSE_SIZES if n >= 10**4], pairs)
    print(
        f"{name}: seconds ~ n^{exponent:.2f} from 10^5 to 10^7; dense ~ n^{of_dense:.2f}",
        flush=True,
    )
    return {
        "sum": name,
        "seconds": fast,
        "dense": pairs,
        "exponent": exponent,
        "dense_exponent": of_dense,
    }


def slope(sizes: list[int], seconds: dict[int, float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log([seconds[n] for n in sizes]), 1)[0])


def error_against_time(d: int) -> list[dict]:
    """Largest error of sampled rows and seconds, by beta, dtype and accuracy; `dense` beside them."""
    rows = np.random.default_rng(1).integers(0, REPORT_N, REPORT_ROWS)
    points = []
    for dtype in ("float64", "float32"):
        x = tokens(REPORT_N, d, dtype)
        y = np.asarray(x, float)
        for beta in (1.0, 81.0, 1000.0):
            exact = all_pairs(y, beta, rows)
            wanted = [1e-3, 1e-6] + ([1e-9] if dtype == "float64" else []) + [None]
            sums = {f"accuracy {a}": partial(SUMS[d], accuracy=a) for a in wanted} | {
                "dense": dense
            }
            for name, kernel_sum in sums.items():
                run = lambda s=kernel_sum, b=beta, x=x: jax.block_until_ready(s(x, x, x, b))
                seconds = alternate({name: run}, 1 if name == "dense" else 5)[name]
                mean, log_z = (
                    (np.asarray(a, float)[rows] for a in run()) if name != "dense" else (None, None)
                )
                if name == "dense":
                    mean, log_z = (np.asarray(a, float)[rows] for a in run())
                point = {
                    "sum": SUMS[d].__name__ if name != "dense" else "dense",
                    "d": d, "dtype": dtype, "beta": beta, "setting": name,
                    "seconds": float(seconds.min()),
                    "error_mean": float(np.abs(mean - exact[0]).max()),
                    "error_log_z": float(np.abs(log_z - exact[1]).max()),
                }  # fmt: skip
                points.append(point)
                print(
                    f"d={d} {dtype} beta={beta:<6g} {name:15} {point['seconds']:8.4f} s"
                    f"   mean {point['error_mean']:.0e}   log Z {point['error_log_z']:.0e}",
                    flush=True,
                )
    return points


def all_pairs(x, beta, rows):
    mean, log_z = np.empty((len(x), x.shape[1])), np.empty(len(x))
    host._direct_rows(rows, x, x, x, None, beta, mean, log_z)
    return mean[rows], log_z[rows]


def ways(d: int) -> list[dict]:
    """Host calls to finufft (ours) and jax-finufft, on one thread and on two, a million tokens."""
    x, found = tokens(10**6, d), []
    for count in (1, THREADS):
        os.environ["OMP_NUM_THREADS"] = str(count)
        torus._pool.cache_clear()
        tools = {"host call": call(SUMS[d], x), "jax-finufft": compiled(d, x, count)}
        reference = np.asarray(tools["host call"]()[0])
        difference = float(np.abs(np.asarray(tools["jax-finufft"]()) - reference).max())
        seconds = alternate(tools, 5)
        row = {name: float(s.min()) for name, s in seconds.items()}
        found.append({"d": d, "threads": count, "seconds": row, "difference": difference})
        print(f"d={d} threads={count} {row}  differ by {difference:.0e}", flush=True)
    os.environ.pop("OMP_NUM_THREADS")
    torus._pool.cache_clear()
    return found


def compiled(d: int, x, count: int):
    """The same sum by jax-finufft, all in one XLA program, whose numbers of modes are fixed in advance."""
    from jax_finufft import nufft1, nufft2, options

    space, tolerance = SPACES[d], 1e-14
    cut = host.grid(space, BETA, None).cut
    opts = options.Opts(nthreads=count)
    wide = (2 * cut + 3,) * (d - 1)

    def shifted_and_convolved(modes):
        return space.convolve(space.shifted(modes), BETA)

    @jax.jit
    def kernel_sum(x):
        if d == 2:
            at = [jnp.arctan2(x[:, 1], x[:, 0])]
        else:
            at = [jnp.arctan2(jnp.hypot(x[:, 0], x[:, 1]), x[:, 2]), jnp.arctan2(x[:, 1], x[:, 0])]
        ones = jnp.ones(len(x), complex)
        modes = nufft1(wide, ones, *at, eps=tolerance, iflag=-1, opts=opts)
        shape = (2, *(2 * cut + 1 for _ in at))
        fields = jax.pure_callback(
            shifted_and_convolved, jax.ShapeDtypeStruct(shape, complex), modes
        )
        values = nufft2(fields, *at, eps=tolerance, iflag=1, opts=opts)
        columns = jnp.stack([values[0].imag, values[1].real, values[1].imag][:d], axis=1)
        return columns / values[0].real[:, None]

    return lambda: jax.block_until_ready(kernel_sum(x))
