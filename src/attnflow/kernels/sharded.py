"""Kernel sums shared by several devices, of one process or of many: each sums its own rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from attnflow.kernels import name_of
from attnflow.kernels.auto import auto, cheapest, to_accuracy
from attnflow.kernels.dense import ONE_BLOCK, dense
from attnflow.kernels.random_batch import RandomBatch
from attnflow.kernels.symmetric import by_shares

TOKENS = "tokens"
WHOLE = PartitionSpec()
ROWS = PartitionSpec(TOKENS)


def _dense_together(own, x, v, beta, weights, *, axis, block):
    """`dense` of tokens over themselves: pairs are shared where there are many, else rows."""
    n = len(x)
    if n * n <= ONE_BLOCK if block is None else block >= n:
        return dense(own, x, v, beta, weights=weights, block=block)
    return by_shares(own, x, v, jnp.asarray(beta, x.dtype), weights, axis=axis, block=block)


TOGETHER: dict[Callable, Callable] = {dense: _dense_together}
"""How devices share the sum of tokens over themselves, where there is a better way than by rows:
(own, x, v, beta, weights, *, axis, block) -> (mean, log_z) of this device's rows `own`."""


@cache
def sharded(kernel_sum: Callable, mesh: Mesh) -> Callable:
    r"""Kernel sum of the same signature that the devices of a mesh share.

    Every device holds all keys and values and sums for its rows of queries, n / devices of them;
    what is sharded before is gathered once, O(m (d + p)) numbers to each device. Where `q`, `k` or
    `v` are one object they stay one object for `kernel_sum`, so that each token is gathered once;
    only queries become rows. `dense` scores each pair of tokens once in all, as on one device.
    If the number of devices does not divide n, rows are padded. Exact: means and log Z agree with
    `kernel_sum` to rounding, as sums of other lengths are blocked in other ways.

    Args:
        kernel_sum: Function (q, k, v, beta, *, weights, mask, block) -> (mean, log_z).
        mesh: Devices, one axis "tokens".

    Returns:
        The shared kernel sum. Equal arguments give the same function, so that code compiles once.

    Raises:
        ValueError: If the sum draws random batches, which hang on all rows, to the last bit.
    """
    if isinstance(kernel_sum, RandomBatch):
        raise ValueError(
            "Argument `kernel_sum` must not draw random batches to be shared by several devices, as the "
            f"draws would depend on their number, but it is {kernel_sum}. Run it in one process."
        )

    def shared(
        q: Float[Array, "n d"],
        k: Float[Array, "m d"],
        v: Float[Array, "m p"],
        beta: float | Float[Array, ""],
        *,
        weights: Float[Array, " m"] | None = None,
        mask: Any = None,
        block: int | None = None,
    ) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
        options = {"weights": weights, "mask": mask, "block": block}
        if TOKENS in jax.sharding.get_abstract_mesh().manual_axes:  # one device's work already
            return kernel_sum(q, k, v, beta, **options)
        rows = -(-len(q) // mesh.size)
        n, d = q.shape
        on_themselves = q is k and mask is None
        one = _settled(kernel_sum, n, d, beta) if on_themselves else kernel_sum
        together = TOGETHER.get(one) if on_themselves else None
        seen = None if mask is None or callable(mask) else _pad(mask, rows * mesh.size)
        values = None if v is k else v

        def own_rows(own, k, values, weights, seen, beta):
            v = k if values is None else values
            if together is not None:
                return together(own, k, v, beta, weights, axis=TOKENS, block=block)
            first = jax.lax.axis_index(TOKENS) * rows
            sees: Any = partial(_seen_from, mask, first) if callable(mask) else seen
            return one(own, k, v, beta, weights=weights, mask=sees, block=block)

        parts = jax.shard_map(
            own_rows,
            mesh=mesh,
            in_specs=(ROWS, WHOLE, WHOLE, WHOLE, ROWS, WHOLE),
            out_specs=ROWS,
            check_vma=False,
        )
        mean, log_z = parts(_pad(q, rows * mesh.size), k, values, weights, seen, jnp.asarray(beta))
        return mean[:n], log_z[:n]

    shared.of_one = kernel_sum  # pyright: ignore[reportFunctionMemberAccess]
    shared.__name__ = name_of(kernel_sum)
    return shared


def on_each(function: Callable, mesh: Mesh | None) -> Callable:
    """Function of whole arrays, computed by every device for itself, on gathered copies.

    Numbers come out as on one device, to the same bits, and host callbacks work. Without a mesh
    the function itself.
    """
    if mesh is None:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=WHOLE, out_specs=WHOLE, check_vma=False)


def mesh_of(tree: Any) -> Any:
    """Devices over which the arrays of a tree are spread; None if one device holds them."""
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def gathered(tree: Any) -> Any:
    """Arrays of which every process holds all: NumPy can read them. Others are left alone."""
    mesh = mesh_of(tree)
    if mesh is None:
        return tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, WHOLE))(tree)


def _seen_from(mask: Callable, first, i, j):
    """Mask of the rows of a device whose first row is `first`."""
    return mask(i + first, j)


def _settled(kernel_sum: Callable, n: int, d: int, beta) -> Callable:
    """What "auto" means for all n tokens, which a device with some of the rows cannot tell."""
    options = kernel_sum.keywords if isinstance(kernel_sum, partial) else {}
    if (kernel_sum.func if isinstance(kernel_sum, partial) else kernel_sum) is not auto:
        return kernel_sum
    chosen = cheapest(n, d, beta, **options)
    return chosen if chosen is dense or not options else to_accuracy(chosen, **options)


def _pad(a: Array, rows: int) -> Array:
    """Array of `rows` rows, zeros appended."""
    return a if len(a) == rows else jnp.pad(a, [(0, rows - len(a))] + [(0, 0)] * (a.ndim - 1))
