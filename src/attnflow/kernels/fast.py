"""Fast sums as JAX functions: host calls that know their derivatives, to any order, and run under jit and vmap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attnflow.errors import check_between, concrete
from attnflow.kernels import host
from attnflow.kernels.dense import dense
from attnflow.kernels.spaces import Space

FINEST = {"float64": 1e-12, "float32": 1e-6}
"""Smallest accuracy that may be asked for."""


def fast_sum(
    space: Space, q, k, v, beta, *, weights=None, mask=None, accuracy: float | None = None
):
    """Kernel sum on a space, after a look at what was asked; see `fourier` and `harmonics`."""
    dtype = jnp.result_type(q, k, v, float)
    _check(space, q, k, beta, mask, accuracy, dtype)
    if not available():
        tell_missing(len(q) * len(k))
        return dense(q, k, v, beta, weights=weights)
    if accuracy is None and dtype == jnp.float32:
        accuracy = FINEST["float32"]
    same = (k is q, v is k)
    q, k, v, beta = (jnp.asarray(a, dtype) for a in (q, k, v, beta))
    weights = None if weights is None else jnp.asarray(weights, dtype)
    return _kernel_sum(q, k, v, beta, weights, space=space, same=same, accuracy=accuracy)


def available() -> bool:
    """Whether finufft is installed."""
    return find_spec("finufft") is not None


@cache
def tell_missing(pairs: int) -> None:
    """Warn, once, that finufft is missing, and what that costs."""
    warnings.warn(
        f"The fast sums need finufft, which is not installed: all {pairs:.2g} pairs are summed instead, "
        f"about {pairs * 1e-9:.2g} s each time. Install it: pip install finufft.",
        RuntimeWarning,
        stacklevel=4,
    )


def _check(space: Space, q, k, beta, mask, accuracy, dtype) -> None:
    """Raise `ValueError` or `MemoryError` for what the fast sum on a space cannot do."""
    name = {2: "fourier", 3: "harmonics"}[space.dimension]
    for x, letter in ((q, "q"), (k, "k")):
        if np.ndim(x) != 2 or np.shape(x)[1] != space.dimension:
            raise ValueError(
                f"Argument `{letter}` must have shape (n, {space.dimension}) for `{name}`, "
                f"but {letter}.shape={np.shape(x)}. Use `dense` in other dimensions."
            )
    if mask is not None:
        raise ValueError(
            f"Argument `mask` must be None for `{name}`, but mask={mask!r}: a masked kernel has no modes. "
            "Use `dense`."
        )
    if accuracy is not None:
        finest = FINEST.get(str(dtype), FINEST["float32"])
        remedy = f"{dtype} gives no more; pass float64 tokens." if finest > 1e-7 else "Use `dense`."
        if concrete(beta) and math.isfinite(beta):
            finest = max(finest, host.finest(space, float(beta)))
        check_between(accuracy, "accuracy", finest, 1.0, remedy=remedy)
    if concrete(beta) and math.isfinite(beta):
        reason = host.too_large(space, abs(float(beta)), accuracy)
        if reason is not None:
            raise MemoryError(f"{reason}. Take a smaller beta, a larger accuracy, or `dense`.")


@partial(jax.jit, static_argnames=("space", "same", "accuracy"))
def _kernel_sum(q, k, v, beta, weights, *, space: Space, same: tuple[bool, bool], accuracy):
    """Means and log Z; derivatives by sums of the same kind."""

    @jax.custom_jvp
    def kernel_sum(q, k, v, beta, weights):
        given = [q] + [x for x, known in zip((k, v), same, strict=True) if not known]
        given += [beta] if weights is None else [beta, weights]
        shapes = (
            jax.ShapeDtypeStruct((len(q), v.shape[1]), q.dtype),
            jax.ShapeDtypeStruct((len(q),), q.dtype),
        )
        work = partial(_mean_and_log_z, space, accuracy, same, weights is not None)
        return host_call(work, shapes)(*given)

    @kernel_sum.defjvp
    def tangent(primals, tangents):
        composed = partial(_composed, space=space, accuracy=accuracy)
        return kernel_sum(*primals), jax.jvp(composed, primals, tangents)[1]

    return kernel_sum(q, k, v, beta, weights)


def _mean_and_log_z(space, accuracy, same, weighted, outputs, inputs) -> None:
    """Read arrays, sum in float64, write arrays."""
    arrays = [np.asarray(a, float) for a in inputs]
    w = arrays.pop() if weighted else None
    beta = float(arrays.pop())
    q = arrays.pop(0)
    k = q if same[0] else arrays.pop(0)
    v = k if same[1] else arrays.pop(0)
    mean, log_z = outputs
    if mean.dtype == np.float64:
        return host.mean_and_log_z(space, accuracy, q, k, v, w, beta, mean, log_z)
    results = np.empty(mean.shape), np.empty(log_z.shape)
    host.mean_and_log_z(space, accuracy, q, k, v, w, beta, *results, dtype="float32")
    mean[...], log_z[...] = results


def _composed(q, k, v, beta, weights, *, space, accuracy):
    """The same numbers by two linear sums: what derivatives are taken of."""
    w = jnp.ones(len(k), k.dtype) if weights is None else weights
    centre = jax.lax.stop_gradient(w @ v / w.sum())
    columns = jnp.concatenate([w[:, None], w[:, None] * (v - centre)], axis=1)
    sums = pair_sum(q, k, beta, columns, space=space, accuracy=accuracy)
    return centre + sums[:, 1:] / sums[:, :1], jnp.log(sums[:, 0]) + abs(beta)


# --------------------------------------------------------------------------------------- linear sum


def pair_sum(q, k, beta, columns, *, space: Space, accuracy: float | None):
    r"""$\sum_j e^{\beta\langle q_i, k_j\rangle - |\beta|} u_j$, linear in the columns u, shape (m, c)."""
    return pair_sum_p.bind(q, k, beta, columns, space=space, accuracy=accuracy)


pair_sum_p = Primitive("attention_pair_sum")


def _pair_sum(q, k, beta, columns, *, space, accuracy):
    shape = jax.ShapeDtypeStruct((len(q), columns.shape[1]), columns.dtype)

    def work(outputs, inputs):
        q, k, beta, columns = (np.asarray(a, float) for a in inputs)
        outputs[0][...] = host.pair_sums(space, q, k, float(beta), columns, accuracy)

    return host_call(work, (shape,))(q, k, beta, columns)[0]


def _pair_sum_jvp(primals, tangents, **options):
    q, k, beta, u = primals
    dq, dk, dbeta, du = tangents
    n, c = len(q), u.shape[1]
    sums = partial(pair_sum, q, k, beta, **options)
    out = sums(u)
    total = jnp.zeros_like(out)
    if type(du) is not ad.Zero:
        total += sums(du)
    outer = lambda a: (u[:, :, None] * a[:, None, :]).reshape(len(k), -1)
    inner = lambda a, b: jnp.einsum("ncd,nd->nc", sums(outer(a)).reshape(n, c, -1), b)
    if type(dq) is not ad.Zero:
        total += inner(k, beta * dq)
    if type(dk) is not ad.Zero:
        total += inner(dk, beta * q)
    if type(dbeta) is not ad.Zero:
        total += dbeta * (inner(k, q) - jnp.where(beta < 0, -1.0, 1.0) * out)
    return out, total


def _pair_sum_transpose(cotangent, q, k, beta, columns, **options):
    if type(cotangent) is ad.Zero:
        return None, None, None, ad.Zero(columns.aval)
    return None, None, None, pair_sum(k, q, beta, cotangent, **options)


def _pair_sum_batch(args, axes, **options):
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    full = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args, axes, strict=True)
    ]
    return jax.lax.map(lambda one: pair_sum(*one, **options), tuple(full)), 0


pair_sum_p.def_impl(jax.jit(_pair_sum, static_argnames=("space", "accuracy")))
pair_sum_p.def_abstract_eval(
    lambda q, k, beta, columns, **_: ShapedArray((q.shape[0], columns.shape[1]), columns.dtype)
)
ad.primitive_jvps[pair_sum_p] = _pair_sum_jvp
ad.primitive_transposes[pair_sum_p] = _pair_sum_transpose
batching.primitive_batchers[pair_sum_p] = _pair_sum_batch
mlir.register_lowering(pair_sum_p, mlir.lower_fun(_pair_sum, multiple_results=False))


# ---------------------------------------------------------------------------------------- host calls


def host_call(work: Callable[[Any, Any], None], shapes: tuple) -> Callable:
    """A function of arrays that runs `work(outputs, inputs)` on NumPy arrays on the host.

    On CPU the arrays are XLA's own memory: nothing is copied, and no array of JAX is made inside the
    call, which may wait forever for the thread that waits for it. Elsewhere they travel.
    """
    if jax.default_backend() == "cpu":
        from jax.experimental.buffer_callback import buffer_callback

        def on_buffers(_, outputs, *inputs):
            work([np.asarray(a) for a in outputs], [np.asarray(a) for a in inputs])

        return buffer_callback(on_buffers, shapes, vmap_method="sequential")

    def on_copies(*inputs):
        outputs = tuple(np.empty(s.shape, s.dtype) for s in shapes)
        work(outputs, [np.asarray(a) for a in inputs])
        return outputs

    return lambda *arrays: jax.pure_callback(on_copies, shapes, *arrays, vmap_method="sequential")
