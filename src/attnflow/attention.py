"""Attention rules: what each token sees, a function of unit tokens (n, d) -> (n, d)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from attnflow.errors import (
    check_choice,
    check_count,
    check_finite,
    check_shape,
    check_weights,
    concrete,
)
from attnflow.kernels import as_kernel_sum, auto

Matrix = float | Float[Array, "..."]
Mask = Callable[..., Any] | Bool[Array, "n n"] | None
ROWS_PER_BLOCK = 2**22


def as_parameter(value: Any) -> Any:
    """A number as a weakly typed float array: changing it recompiles nothing and widens no dtype."""
    try:
        value = np.asarray(value) if isinstance(value, list | tuple) else as_float(value)
    except ValueError:  # rows of unequal lengths, which the check of the parameters refuses
        return value
    return jnp.asarray(value * 1.0) if eqx.is_array_like(value) else value


def as_float(value: Any) -> Any:
    """A whole number of Python's as a float, which JAX takes however large; anything else as it is."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return float(value) if abs(value) < 1e308 else math.inf


class Attention(eqx.Module):
    r"""Softmax attention (SA), $A_i = \sum_j p_{ij} V x_j$, $p_i = $ softmax$_j\,\beta\langle Q x_i, K x_j\rangle$.

    The self term j = i is included. Q, K, V are multiples of the identity, given as numbers, or
    matrices. Weights count a token as if it were repeated: $p_{ij} \propto w_j e^{\ldots}$.
    O(n^2 d) time, O(n block) memory; on the circle and on S² O(n) for many tokens (`kernels.auto`).

    Attributes:
        beta: Inverse temperature, finite; negative repels.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).
        weights: Token weights w, shape (n,), >= 0, sum 1; equal by default.
        mask: Pairs that count, a function (i, j) -> bool such as `kernels.causal`, or shape (n, n).
        kernel_sum: How the sum is done, (q, k, v, beta) -> (mean, log_z), or its name in
            `kernels.KERNEL_SUMS`: by default "auto", the cheapest exact one.

    Source:
        Geshkovski, Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers"
        (2025), Eq. (SA).
    """

    beta: Float[Array, "..."] = eqx.field(converter=as_parameter)
    query: Matrix = 1.0
    key: Matrix = 1.0
    value: Matrix = 1.0
    weights: Float[Array, "... n"] | None = eqx.field(default=None, kw_only=True)
    mask: Mask = eqx.field(default=None, kw_only=True)
    kernel_sum: Callable = eqx.field(
        static=True, default=auto, converter=as_kernel_sum, kw_only=True
    )

    def __check_init__(self):
        _check_parameters(self)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Attention vectors of unit tokens x."""
        return self.mean_and_log_z(x)[0]

    def mean_and_log_z(
        self, x: Float[Array, "n d"]
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        r"""Softmax means of V x_j, and $\log \sum_j w_j e^{\beta\langle Qx_i, Kx_j\rangle}$ (w_j = 1 if unset)."""
        q, k, beta = _queries_and_keys(self, x)
        v = apply(self.value, x)
        return self.kernel_sum(q, k, v, beta, weights=self.weights, mask=self.mask)


QKVAttention = Attention
"""The same rule, named for the positional order (beta, query, key, value)."""


class UnnormalizedAttention(eqx.Module):
    r"""Unnormalised attention (USA), $A_i = \frac1n \sum_j e^{\beta\langle Q x_i, K x_j\rangle} V x_j$.

    With token weights $\sum_j w_j e^{\ldots} V x_j$. The log-partition is carried, so nothing
    overflows before the last step; but $A_i$ itself holds the self term, of size $e^\beta/n$,
    which float64 cannot hold beyond $\beta \approx 709$. The rescaled clock
    counts time in units of $e^{-\beta}$, $A_i = \frac1n \sum_j e^{\beta(\langle\cdot\rangle - 1)} V x_j$:
    the same orbits, for every beta; physical time is $e^{-\beta}$ times rescaled time.

    Attributes:
        beta: Inverse temperature, finite.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).
        weights: Token weights, shape (n,), >= 0, sum 1; equal by default.
        mask: As for `Attention`.
        clock: "physical", or "rescaled" by e^(-beta).
        kernel_sum: How the sum is done.

    Source:
        Geshkovski et al., "A mathematical perspective on Transformers" (2025), Eq. (USA).
    """

    beta: Float[Array, "..."] = eqx.field(converter=as_parameter)
    query: Matrix = 1.0
    key: Matrix = 1.0
    value: Matrix = 1.0
    weights: Float[Array, "... n"] | None = eqx.field(default=None, kw_only=True)
    mask: Mask = eqx.field(default=None, kw_only=True)
    clock: Literal["physical", "rescaled"] = eqx.field(
        static=True, default="physical", kw_only=True
    )
    kernel_sum: Callable = eqx.field(
        static=True, default=auto, converter=as_kernel_sum, kw_only=True
    )

    def __check_init__(self):
        check_choice(self.clock, "clock", ("physical", "rescaled"))
        _check_parameters(self)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Attention vectors of unit tokens x."""
        q, k, beta = _queries_and_keys(self, x)
        v = apply(self.value, x)
        mean, log_z = self.kernel_sum(q, k, v, beta, weights=self.weights, mask=self.mask)
        log_count = math.log(len(x)) if self.weights is None else 0.0
        log_unit = jnp.asarray(self.beta, x.dtype) if self.clock == "rescaled" else 0.0
        return jnp.exp(log_z - log_count - log_unit)[:, None] * mean


class MultiHead(eqx.Module):
    """Several heads at once: their sum, or their mean.

    The survey concatenates and recombines heads, which is the sum with the output matrices folded
    into each V; Homogenized Transformers take the mean (1/H) sum_h.

    Attributes:
        heads: One attention module whose arrays have a leading axis H (numbers are shared), or a
            list of modules alike up to their numbers and array masks, which are then stacked.
        combine: "sum" or "mean".
    """

    heads: eqx.Module
    combine: Literal["sum", "mean"] = eqx.field(static=True)

    def __init__(self, heads: eqx.Module | Sequence, combine: Literal["sum", "mean"] = "sum"):
        check_choice(combine, "combine", ("sum", "mean"))
        if isinstance(heads, Sequence):
            check_count(len(heads), "len(heads)")
            heads = _stack(heads)
        _check_head_axis(heads)
        self.heads = heads
        self.combine = combine

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Combined attention vectors of unit tokens x."""
        each = eqx.filter_vmap(lambda head: head(x), in_axes=_head_axis)(self.heads)
        return each.sum(axis=0) if self.combine == "sum" else each.mean(axis=0)


class HardmaxAttention(eqx.Module):
    r"""Zero-temperature attention, $A_i = V x_{j(i)}$, $j(i) = \arg\max_{j\ne i}\langle Q x_i, K x_j\rangle$.

    The self term is left out: on the sphere a token is its own nearest, and would never move.
    The first of equal scores wins. A single token sees nothing, A = 0.

    Attributes:
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).
        include_self: Whether a token may choose itself, as in Frank-Wolfe dynamics on R^d.

    Source:
        Alcalde, Fantuzzi, Zuazua, "Clustering in pure-attention hardmax transformers" (2025).
    """

    query: Matrix = 1.0
    key: Matrix = 1.0
    value: Matrix = 1.0
    include_self: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        _check_parameters(self)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Attention vectors of tokens x."""
        n = len(x)
        if n == 1 and not self.include_self:
            return jnp.zeros_like(x)
        q, k, sign = _queries_and_keys(self, x)
        keys = jnp.arange(n)

        def nearest(row):
            i, qi = row
            scores = sign * jnp.matmul(k, qi, precision=jax.lax.Precision.HIGHEST)
            return jnp.argmax(
                scores if self.include_self else jnp.where(keys == i, -jnp.inf, scores)
            )

        batch = max(1, min(n, ROWS_PER_BLOCK // n))
        best = jax.lax.map(nearest, (keys, q), batch_size=batch)
        return apply(self.value, x)[best]


class SinkhornAttention(eqx.Module):
    r"""Doubly stochastic attention, $A_i = \sum_j e^{\beta\langle Qx_i, Kx_j\rangle + f_i + g_j} V x_j$.

    f and g make every row and every column sum to 1. With Q, K multiples of the identity and
    beta Q K >= 0 the scores are symmetric and positive definite, f = g, and the averaged iteration
    $f \leftarrow (f - \log\sum_j e^{s_{ij} + f_j})/2$ halves its error each time: 64 of them reach rounding.
    Otherwise rows and columns alternate; rows are exact and columns converge linearly.
    O(iterations n^2 d).

    Attributes:
        beta: Inverse temperature, finite.
        query: Q, a number or shape (h, d).
        key: K, a number or shape (h, d).
        value: V, a number or shape (d, d).
        iterations: Number of Sinkhorn iterations.
        kernel_sum: How the sums are done.

    Source:
        Sander, Ablin, Blondel, Peyré, "Sinkformers" (2022); averaged symmetric iteration:
        Feydy, "Geometric data analysis, beyond convolutions" (2020), Sec. 3.1.
    """

    beta: Float[Array, "..."] = eqx.field(converter=as_parameter)
    query: Matrix = 1.0
    key: Matrix = 1.0
    value: Matrix = 1.0
    iterations: int = eqx.field(static=True, default=64, kw_only=True)
    kernel_sum: Callable = eqx.field(
        static=True, default=auto, converter=as_kernel_sum, kw_only=True
    )

    def __check_init__(self):
        check_count(self.iterations, "iterations")
        _check_parameters(self)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Attention vectors of unit tokens x."""
        q, k, beta = _queries_and_keys(self, x)
        q = beta * q
        nothing, zero = jnp.zeros((len(x), 0), x.dtype), jnp.zeros(len(x), x.dtype)
        one = jnp.ones((len(x), 1), x.dtype)

        def log_sum(a, b, bias, v=nothing):
            """Means of v, and log sum_j e^(<a_i, b_j> + bias_j): a bias is one more coordinate."""
            a, b = jnp.hstack([a, one]), jnp.hstack([b, bias[:, None]])
            return self.kernel_sum(a, b, v, 1.0)

        def averaged(f, _):
            return (f - log_sum(q, k, f)[1]) / 2, None

        def alternating(g, _):
            f = -log_sum(q, k, g)[1]
            return -log_sum(k, q, f)[1], None

        symmetric = jnp.ndim(self.query) == 0 and jnp.ndim(self.key) == 0
        step = averaged if symmetric else alternating
        potential, _ = jax.lax.scan(step, zero, None, length=self.iterations)
        return log_sum(q, k, potential, apply(self.value, x))[0]


def apply(matrix: Matrix, x: Float[Array, "n d"]) -> Float[Array, "n e"]:
    """Rows M x_i; a number is a multiple of the identity, and 1.0 returns x itself."""
    if isinstance(matrix, float | int) and matrix == 1:
        return x
    matrix = jnp.asarray(as_float(matrix), x.dtype)
    if matrix.ndim == 0:
        return matrix * x
    return jnp.matmul(x, matrix.T, precision=jax.lax.Precision.HIGHEST)


def is_isotropic(attention) -> bool:
    """Whether attention commutes with rotations: Q, K, V are multiples of the identity."""
    heads = isinstance(attention, MultiHead)
    rule = attention.heads if heads else attention
    known = Attention | UnnormalizedAttention | HardmaxAttention | SinkhornAttention
    matrices = ("query", "key", "value")
    return isinstance(rule, known) and all(np.ndim(getattr(rule, m)) <= heads for m in matrices)


def _queries_and_keys(attention, x):
    """Q x, K x and beta; multiples of the identity go into beta, so that q and k stay one array."""
    _check_shapes(attention, *x.shape)
    beta = getattr(attention, "beta", 1.0)
    query, key = attention.query, attention.key
    if np.ndim(query) == 0 and np.ndim(key) == 0:
        return x, x, jnp.asarray(beta * as_float(query) * as_float(key), x.dtype)
    q = apply(query, x)
    return q, q if key is query else apply(key, x), jnp.asarray(beta, x.dtype)


def _check_parameters(attention) -> None:
    """Raise `ValueError` unless every number is finite, and weights are weights."""
    for name in ("beta", "query", "key", "value"):
        check_finite(getattr(attention, name, 0.0), name)
    factors = [getattr(attention, name, 1.0) for name in ("beta", "query", "key")]
    if concrete(factors) and not any(map(np.ndim, factors)):
        check_finite(math.prod(map(float, factors)), "beta * query * key")
    weights = getattr(attention, "weights", None)
    if weights is not None:
        check_finite(weights, "weights")
        check_weights(weights, (np.shape(weights) or (1,))[-1])


def _check_shapes(attention, n: int, d: int) -> None:
    """Raise `ValueError` unless the parameters of one head fit n tokens of dimension d."""
    query, key = attention.query, attention.key
    height = np.shape(key)[0] if np.ndim(key) else d
    check_shape(getattr(attention, "beta", 1.0), "beta", ())
    check_shape(key, "key", (), (height, d))
    check_shape(query, "query", (), (height, d))
    check_shape(attention.value, "value", (), (d, d))
    weights, mask = getattr(attention, "weights", None), getattr(attention, "mask", None)
    if weights is not None:
        check_shape(weights, "weights", (n,))
    if mask is not None and not callable(mask):
        check_shape(mask, "mask", (n, n))


def _head_axis(leaf) -> int | None:
    """Axis of the heads: the first of every array; a single number is shared."""
    return 0 if eqx.is_array_like(leaf) and np.ndim(leaf) else None


def _check_head_axis(heads) -> None:
    """Raise `ValueError` unless the arrays of `heads` share one leading axis."""
    lengths = {np.shape(leaf)[0] for leaf in jax.tree.leaves(heads) if _head_axis(leaf) == 0}
    if len(lengths) != 1:
        raise ValueError(
            "Argument `heads` must hold arrays with one leading axis, the head, but their lengths "
            f"are {sorted(lengths)}. Pass a list of attention rules."
        )


def _stack(heads: Sequence) -> eqx.Module:
    """One module whose numbers carry a leading axis, from a list of modules."""
    arrays, rests = zip(*(eqx.partition(head, eqx.is_array_like) for head in heads), strict=True)
    shapes = [jax.tree.map(np.shape, numbers) for numbers in arrays]
    if any(shape != shapes[0] for shape in shapes) or not eqx.tree_equal(*rests):
        raise ValueError(
            "Argument `heads` must hold modules of one kind, shape and options, but they "
            f"differ: {', '.join(type(head).__name__ for head in heads)}. "
            "Add their attention vectors in a function of your own."
        )
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), rests[0])
