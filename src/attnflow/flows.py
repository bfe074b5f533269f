"""Flows: vector fields (t, x, args) -> dx/dt, composed of an attention rule and a norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.attention import (
    Attention,
    HardmaxAttention,
    SinkhornAttention,
    UnnormalizedAttention,
    as_parameter,
    is_isotropic,
)
from attnflow.errors import check_between, check_finite, check_shape
from attnflow.kernels import as_kernel_sum, auto, cheapest, dense, name_of, to_accuracy
from attnflow.kernels import causal as causal_mask
from attnflow.norms import Norm, post_ln
from attnflow.sphere import normalize


class Flow(eqx.Module):
    """dx/dt = norm(t, x, A(x/|x|)): what a token sees, then how it moves.

    Attributes:
        attention: Attention vectors of unit tokens, (n, d) -> (n, d).
        norm: Normalisation scheme; a plain function (t, x, a) -> dx/dt also serves.
    """

    attention: Callable
    norm: Callable = post_ln

    def __call__(self, t, x: Float[Array, "n d"], args=None) -> Float[Array, "n d"]:
        """Velocity of the tokens."""
        return self.norm(t, x, self.seen(x))

    def seen(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Attention vectors A: of directions x/|x|, unless the norm sees radii."""
        sees_radius = isinstance(self.norm, Norm) and self.norm.sees_radius
        return self.attention(x if sees_radius else normalize(x))

    def layer(self, t, x: Float[Array, "n d"], eta) -> Float[Array, "n d"]:
        """Tokens after one discrete layer of step eta."""
        if not isinstance(self.norm, Norm):
            raise ValueError(
                f"Argument `norm` must be a `Norm` to run as layers, but norm={self.norm!r}. "
                "Pass `Norm(velocity, layer, keeps_radius=...)`."
            )
        return self.norm.step(t, x, self.seen(x), eta)

    @property
    def keeps_radius(self) -> bool:
        """Whether tokens that start on the sphere stay there."""
        return isinstance(self.norm, Norm) and self.norm.keeps_radius

    @property
    def isotropic(self) -> bool:
        """Whether the flow commutes with rotations, so that tokens keep to the span of their start."""
        return isinstance(self.norm, Norm) and is_isotropic(self.attention)


def sa(beta, *, norm: Callable = post_ln, **options) -> Flow:
    """Self-attention dynamics (SA); `options` are those of `Attention`."""
    return Flow(Attention(beta, **options), norm)


def usa(beta, *, norm: Callable = post_ln, **options) -> Flow:
    """Unnormalised self-attention dynamics (USA); `options` are those of `UnnormalizedAttention`."""
    return Flow(UnnormalizedAttention(beta, **options), norm)


def causal(beta, *, norm: Callable = post_ln, **options) -> Flow:
    """Self-attention under a causal mask: token i sees tokens j <= i."""
    return Flow(Attention(beta, mask=causal_mask, **options), norm)


def kuramoto() -> Flow:
    """Kuramoto dynamics of identical oscillators, dx_i/dt = P m with m the mean: beta = 0."""
    return usa(0.0)


def hardmax(*, norm: Callable = post_ln, **options) -> Flow:
    """Zero-temperature dynamics: each token moves towards its nearest other token."""
    return Flow(HardmaxAttention(**options), norm)


def sinkhorn(beta, *, norm: Callable = post_ln, **options) -> Flow:
    """Doubly stochastic self-attention dynamics."""
    return Flow(SinkhornAttention(beta, **options), norm)


class WeightedTokens(NamedTuple):
    """Tokens with weights that evolve: the state of a `FisherRaoFlow`.

    Attributes:
        x: Unit tokens, shape (n, d).
        weights: Weights, shape (n,), > 0, sum 1.
    """

    x: Float[Array, "*t n d"]
    weights: Float[Array, "*t n"]


class FisherRaoFlow(eqx.Module):
    r"""Wasserstein-Fisher-Rao ascent of the energy: tokens move as in (USA), and weights compete.

    $\dot x_i = P_{x_i} \sum_j w_j e^{\beta\langle x_i, x_j\rangle} x_j$,
    $\dot w_i = a\, w_i (U_i - \sum_k w_k U_k)$, $U_i = \beta^{-1} \sum_j w_j e^{\beta\langle x_i, x_j\rangle}$.
    The weights keep their sum and their sign, and
    $\dot E = \sum_i w_i |\dot x_i|^2 + a\,\mathrm{Var}_w(U) \ge 0$.

    Attributes:
        beta: Inverse temperature, finite; 0 is the limit U_i = <x_i, m>.
        rate: a >= 0, the speed of the weights.
        kernel_sum: How the sum is done.

    Source:
        Standard WFR ascent of the interaction energy; cited by Rigollet, "The Mean-Field Dynamics
        of Transformers" (2025), Sec. 4.1.
    """

    beta: Float[Array, ""] = eqx.field(converter=as_parameter)
    rate: Float[Array, ""] = eqx.field(converter=as_parameter, default=1.0)
    kernel_sum: Callable = eqx.field(
        static=True, default=auto, converter=as_kernel_sum, kw_only=True
    )

    def __check_init__(self):
        check_finite(self.beta, "beta")
        check_finite(self.rate, "rate")
        check_between(self.rate, "rate", low=0.0)

    @property
    def keeps_radius(self) -> bool:
        """Tokens that start on the sphere stay there."""
        return True

    @property
    def isotropic(self) -> bool:
        """The flow commutes with rotations."""
        return True

    def __call__(self, t, state: WeightedTokens, args=None) -> WeightedTokens:
        """Velocities of tokens and weights."""
        check_shape(self.beta, "beta", ())
        check_shape(self.rate, "rate", ())
        x, w = normalize(state.x), state.weights
        mean, log_z = self.kernel_sum(x, x, x, self.beta, weights=w)
        velocity = post_ln(t, state.x, jnp.exp(log_z)[:, None] * mean)
        beta = jnp.asarray(self.beta, x.dtype)
        # U_i counts up to a constant: (Z_i - 1)/beta is <x_i, m> + O(beta), and noisy at beta = eps.
        small = jnp.abs(beta) < math.sqrt(jnp.finfo(x.dtype).eps)
        height = jnp.where(small, x @ (w @ x), jnp.expm1(log_z) / jnp.where(small, 1.0, beta))
        rate = jnp.asarray(self.rate, w.dtype)
        return WeightedTokens(velocity, rate * w * (height - w @ height))


def settled(flow: Callable, x: Any) -> tuple[Callable, str | None]:
    """A flow whose kernel sum is no longer "auto" but the one that tokens x take, and its name.

    None if the flow has no kernel sum. Under a mask, with Q or K a matrix, or where tokens are not on
    the sphere, that is `dense`.
    """
    holder = flow if isinstance(flow, FisherRaoFlow) else getattr(flow, "attention", None)
    kernel_sum = getattr(holder, "kernel_sum", None)
    if holder is None or kernel_sum is None:
        return flow, None
    options = kernel_sum.keywords if isinstance(kernel_sum, partial) else {}
    if (kernel_sum.func if options else kernel_sum) is not auto:
        return flow, name_of(kernel_sum)
    symmetric = all(np.ndim(getattr(holder, name, 1.0)) == 0 for name in ("query", "key"))
    plain = symmetric and getattr(holder, "mask", None) is None
    if not plain or getattr(getattr(flow, "norm", None), "sees_radius", False):
        chosen = dense
    else:
        beta = holder.beta * getattr(holder, "query", 1.0) * getattr(holder, "key", 1.0)
        chosen = cheapest(len(x), x.shape[1], beta, **options)
        if options and chosen is not dense:
            chosen = to_accuracy(chosen, **options)
    holder = replace(holder, kernel_sum=chosen)
    if isinstance(flow, FisherRaoFlow):
        return holder, name_of(chosen)
    return eqx.tree_at(lambda f: f.attention, flow, holder), name_of(chosen)


FLOWS = {
    "sa": sa,
    "usa": usa,
    "causal": causal,
    "kuramoto": kuramoto,
    "hardmax": hardmax,
    "sinkhorn": sinkhorn,
    "fisher-rao": FisherRaoFlow,
}
