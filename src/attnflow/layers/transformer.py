"""Many blocks, one after another: fresh weights in each layer or shared ones, run as a `Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from attnflow.errors import check_between, check_count, check_functions, check_tokens
from attnflow.integrate import Trajectory, as_pytree
from attnflow.layers.block import NORMALIZED_INPUT, Block, block


class Transformer(eqx.Module):
    """Layers t = 0, ..., depth - 1; build it with `transformer`, `stack` or `repeat`.

    Attributes:
        blocks: The block. Unless shared, each of its arrays has a leading axis, the layer.
        depth: Number of layers.
        shared: Whether every layer is the same block.
    """

    blocks: Block
    depth: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)

    def __check_init__(self):
        check_count(self.depth, "depth")
        _check_tau(self.blocks.tau, self.depth)
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(self.blocks)}
        if not self.shared and lengths != {(self.depth,)}:
            raise ValueError(
                f"Argument `blocks` must hold arrays with a leading axis of length depth={self.depth}, "
                "but some have another. Pass a list of blocks to `stack`, or one to `repeat`."
            )


def transformer(
    key: PRNGKeyArray,
    d: int,
    depth: int,
    *,
    shared: bool = False,
    placement: str = "post",
    tau: int | None = None,
    **options: Any,
) -> Transformer:
    """Layers with random weights: independent in each layer, or drawn once and shared.

    Args:
        key: PRNG key.
        d: Dimension of tokens, >= 2.
        depth: Number of layers, >= 1.
        shared: Whether all layers have the same weights.
        placement: A name in `PLACEMENTS`.
        tau: Number of first layers that are Post-LN, for placement "mix", at most depth; a quarter
            of them by default, at least one.
        **options: Those of `block`.

    Raises:
        ValueError: If an argument is out of its range, or a name unknown.
    """
    check_count(depth, "depth")
    if placement == "mix":
        tau = max(1, depth // 4) if tau is None else tau
        _check_tau(tau, depth)
    make = partial(block, d=d, placement=placement, tau=tau, **options)
    if shared:
        return Transformer(make(key), depth, shared=True)
    return Transformer(eqx.filter_vmap(make)(jr.split(key, depth)), depth, shared=False)


def stack(blocks: Sequence[Block]) -> Transformer:
    """Given blocks one after another, alike up to their numbers.

    Raises:
        ValueError: If there is none, or they differ in kind, shape or options.
    """
    check_count(len(blocks), "len(blocks)")
    shapes = [jax.tree.map(np.shape, one) for one in blocks]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "Argument `blocks` must hold blocks of one kind, shape and options, but they differ. "
            "Run them one by one with `forward(repeat(block, 1), x)`."
        )
    return Transformer(jax.tree.map(lambda *a: jnp.stack(a), *blocks), len(blocks), shared=False)


def repeat(block: Block, depth: int) -> Transformer:
    """One block applied `depth` times: weights shared across depth."""
    return Transformer(block, depth, shared=True)


def forward(
    model: Transformer,
    x0: Float[Array, "n d"] | Any,
    *,
    observe: Mapping[str, Callable] | None = None,
    states: bool = True,
) -> Trajectory:
    """Run tokens through the layers; time is the layer index.

    One scan over depth: compile time does not grow with it. In the dtype of `x0`, whatever that of
    the weights. A layer is O(n^2 d + n d^2) time, O(n d + block) memory. Runs under `jax.jit`,
    `jax.grad` and `jax.vmap`, over keys as `vmap(lambda key: forward(transformer(key, ...), x0))`;
    then values are checked no more than shapes.

    Args:
        model: Layers, of `transformer`, `stack` or `repeat`.
        x0: Tokens, shape (n, d), finite and nonzero. Unit tokens where the normalizer is "sphere" and
            the placement reads x as it is ("post", "mix", "ngpt", "sqrt").
        observe: Functions of the tokens, evaluated before the first layer and after each. Functions
            of a module compile once; a fresh lambda compiles anew.
        states: Whether to keep the tokens after each layer.

    Returns:
        Trajectory with ts = 0, 1, ..., depth, xs of shape (depth + 1, n, d), and observables with a
        leading axis of length depth + 1.

    Raises:
        ValueError: If an argument is out of its range, before work starts.
    """
    if not isinstance(model, Transformer):
        raise ValueError(
            f"Argument `model` must be a `Transformer`, but it is of type {type(model).__name__}. "
            "Pass `layers.repeat(block, depth)`."
        )
    check_tokens(x0, "x0", unit=_needs_unit_tokens(model.blocks))
    _check_dimension(model, x0)
    check_functions(observe or {}, "observe")
    observe = {name: as_pytree(f) for name, f in (observe or {}).items()}
    return _forward(model, jnp.asarray(x0), observe, states)


@eqx.filter_jit
def _forward(model, x0, observe, states):
    def save(t, x):
        read = lambda f: f(t, x) if getattr(f, "timed", False) else f(x)
        return (x if states else None), {name: read(f) for name, f in observe.items()}

    def layer(x, at):
        t, numbers = at
        x = eqx.combine(numbers, rest)(t, x)
        return x, save(t + 1, x)

    ts = jnp.arange(model.depth + 1, dtype=x0.dtype)
    numbers, rest = eqx.partition(
        model.blocks, lambda leaf: eqx.is_array(leaf) and not model.shared
    )
    x_end, later = jax.lax.scan(layer, x0, (ts[:-1], numbers))
    joined = lambda first, rest: jnp.concatenate([first[None], rest])
    xs, observed = jax.tree.map(joined, save(ts[0], x0), later)
    return Trajectory(
        ts, xs, None, observed, ts[-1], x_end, {"num_steps": jnp.asarray(model.depth)}
    )


def _needs_unit_tokens(block: Block) -> bool:
    """Whether the block reads x as it is where theory puts x on the sphere."""
    on_sphere = getattr(block.attention.norm, "kind", None) == "sphere"
    return on_sphere and block.placement in NORMALIZED_INPUT


def _check_dimension(model: Transformer, x0) -> None:
    """Raise `ValueError` unless tokens have the dimension of the weights."""
    d = getattr(model.blocks.attention.function, "query", x0).shape[-1]
    if x0.shape[1] != d:
        raise ValueError(
            f"Argument `x0` must have shape (n, {d}), the dimension of the weights, "
            f"but x0.shape={x0.shape}."
        )


def _check_tau(tau, depth: int) -> None:
    """Raise `ValueError` unless the Post-LN layers of `mix` are some of the layers."""
    if tau is not None:
        check_between(tau, "tau", high=depth, remedy=f"There are {depth} layers.")
