"""What was tried to sum all pairs faster, one change at a time: CPU milliseconds of both threads.

`python -m benchmarks.dense_attempts`. CPU time, because it says the same on a machine that others use.
"""

import math
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.kernels import dense
from attnflow.kernels.fused import exp2, grouped, product
from benchmarks import THREADS
from benchmarks.timing import alternate, machine

N, BETA, ROUNDS = 8192, 4.0, 5
LOG2_E = math.log2(math.e)
CELLS = [(dtype, d) for dtype in ("float32", "float64") for d in (2, 3, 16, 64)]
ATTEMPTS = {
    "as chosen": {},
    "XLA's exp": {"power": "exp"},
    "XLA's exp2": {"power": "exp2"},
    "polynomial one degree lower": {"power": "short"},
    "payload in one product": {"payload": "one"},
    "shifts subtracted after the product": {"scores": "subtract"},
    "scores from differences, no product": {"scores": "differences"},
    "tiles of half the rows": {"rows": 0.5},
    "tiles of twice the rows": {"rows": 2},
    "tiles of half the columns": {"per": 4},
    "tiles of twice the columns": {"per": 16},
}


def main() -> dict:
    print(f"all pairs of {N} tokens: CPU milliseconds on {THREADS} threads, and relative error")
    table = {}
    for dtype, d in CELLS:
        x = np.random.default_rng(0).normal(size=(N, d))
        x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)
        other = x + 0
        calls = {name: partial(_wait, _tiles(**options), x) for name, options in ATTEMPTS.items()}
        if d > 16:
            del calls["scores from differences, no product"]
        calls["dense"] = lambda x=x: jax.block_until_ready(dense(x, x, x, BETA)[1])
        calls["dense, each pair twice"] = partial(
            _wait, lambda x, o=other: dense(x, o, x, BETA)[1], x
        )
        if dtype == "float32":
            wide = lambda x: dense(x, x, x, BETA, wide=True)[1]
            calls["dense, exponents in float64"] = partial(_wait, wide, x)
        exact = dense(*(x.astype(float),) * 3, BETA)[1]
        errors = {
            name: float(jnp.abs(jnp.expm1(call() - exact)).max()) for name, call in calls.items()
        }
        seconds = alternate(calls, ROUNDS, clock=time.process_time)
        print(f"{dtype} d={d}")
        for name, s in seconds.items():
            print(f"  {name:38} {s.min() * 1e3:8.1f}   {errors[name]:.0e}", flush=True)
        table[f"{dtype} d={d}"] = {name: float(s.min()) * 1e3 for name, s in seconds.items()}
    return {"machine": machine(), "cpu_milliseconds": table}


def _wait(function, x):
    return jax.block_until_ready(function(x))


POWERS = {
    "ours": exp2,
    "exp": lambda s: jnp.exp(s / s.dtype.type(LOG2_E)),
    "exp2": jnp.exp2,
    "short": lambda s: _short(s),
}


def _short(s):
    """2^s with the Taylor polynomial of one degree less, a bound on what cheaper ones could save."""
    info = np.finfo(s.dtype)
    n = jax.lax.round(s, jax.lax.RoundingMethod.TO_NEAREST_EVEN)
    polynomial = jnp.zeros_like(s)
    for k in range(5 if info.bits == 32 else 10, -1, -1):
        c = math.log(2) ** k / math.factorial(k)
        polynomial = polynomial * (s - n) + s.dtype.type(c)
    bits = jax.lax.bitcast_convert_type(n + s.dtype.type(1.5 * 2.0**info.nmant), f"int{info.bits}")
    bits = jax.lax.bitcast_convert_type(polynomial, bits.dtype) + (bits << info.nmant)
    return jax.lax.bitcast_convert_type(bits, s.dtype)


def _tiles(*, power="ours", payload="grouped", scores="folded", rows=1.0, per=8):
    """Log Z of unit tokens over tiles of pairs, each scored once, as in `kernels.symmetric`."""

    @jax.jit
    def sums(x):
        n, d = x.shape
        block = int(rows * 2048 // x.dtype.itemsize)
        tiles = max(1, -(-(n - block) // (2 * per * block)))
        blocks = 2 * per * tiles + 1
        size = -(-n // blocks)
        width, ring = per * size, blocks * size
        twice = lambda a: jnp.concatenate([jnp.pad(a, [(0, ring - n), (0, 0)])] * 2)
        part, put = jax.lax.dynamic_slice_in_dim, jax.lax.dynamic_update_slice_in_dim
        scale = BETA * LOG2_E
        one, c = jnp.ones((n, 1), x.dtype), jnp.full((n, 1), -scale / 2, x.dtype)
        columns = jnp.concatenate([x, one], axis=1)
        groups = [twice(g) for g in (grouped(columns) if payload == "grouped" else (columns,))]
        flat, shift = twice(columns).T, twice(c)
        idle = jnp.zeros((n, int(d == 2)), x.dtype)
        left, right = [scale * x, c, one, idle], [x, one, c, idle]
        if scores != "folded":
            left, right = left[:1], right[:1]
        left, right = (twice(jnp.concatenate(a, axis=1)) for a in (left, right))
        along = (twice(x) * math.sqrt(scale / 2)).T

        def factors(i, a, j, b):
            if scores == "differences":
                u, w = part(along, i, a, axis=1), part(along, j, b, axis=1)
                gaps = (u[axis][:, None] - w[axis][None, :] for axis in range(d))
                return POWERS[power](-sum(gap * gap for gap in gaps))
            exponents = product(part(left, i, a), part(right, j, b).T)
            if scores == "subtract":
                exponents = exponents + (part(shift, i, a) + part(shift, j, b).T)
            return POWERS[power](exponents)

        def to_rows(e, j, b):
            return jnp.concatenate([product(e, part(g, j, b)) for g in groups], axis=1)

        def tile(step, carry):
            rows, columns = carry
            i = step // tiles * size
            j = i + size + step % tiles * width
            e = factors(i, size, j, width)
            rows = put(rows, part(rows, i, size) + to_rows(e, j, width), i, axis=0)
            more = part(columns, j, width, axis=1) + product(part(flat, i, size, axis=1), e)
            return rows, put(columns, more, j, axis=1)

        own = lambda i: to_rows(factors(i, size, i, size), i, size)
        rows_ = jax.lax.map(own, size * jnp.arange(blocks))
        start = rows_.reshape(ring, -1), jnp.zeros((d + 1, 2 * ring), x.dtype)
        rows_, over = jax.lax.fori_loop(0, blocks * tiles, tile, start)
        z = rows_[:n, d] + (over[:, :ring] + over[:, ring:])[d, :n]
        return jnp.log(z) + BETA

    return sums


if __name__ == "__main__":
    main()
