"""One Transformer block as a map x -> x: two sublayers, and where their normalizers stand.

For a sublayer f, attention or MLP, in layer t, with normalizers N and N':

- `post`: N(x + eta f(x)).
- `pre`: x + eta f(N x).
- `mix`: as `post` in layers t < tau, then as `pre`.
- `peri`: x + eta N'(f(N x)).
- `ngpt`: N(x + eta alpha (N'(f(x)) - x)).
- `sqrt`: N(x + eta f(x)/sqrt(t + 1)).
- `ln-scaling`: x + eta f(N x)/sqrt(t + 1).
- `none`: x + eta f(x).

With the normalizer "sphere", one head, Q = K = V = O the identity and no MLP these are the layers of
`norms`. `post`, `mix`, `ngpt` and `sqrt` read x as it is: start them on normalized tokens.

Source:
    Xiong et al., "On layer normalization in the Transformer architecture" (2020), `post`, `pre`;
    Li, Yin, Liu, "Mix-LN" (2024); Kim et al., "Peri-LN" (2025); Loshchilov et al., "nGPT" (2024);
    Noci et al., "Signal propagation in transformers" (2022), `sqrt`; Sun et al., "The curse of
    depth in large language models" (2025), `ln-scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from attnflow.attention import as_parameter
from attnflow.errors import check_between, check_choice, check_count, check_finite, check_shape
from attnflow.kernels import causal as causal_mask
from attnflow.layers.sublayers import (
    ACTIVATIONS,
    MLP,
    NORMALIZERS,
    Heads,
    Normalizer,
    Sublayer,
)
from attnflow.layers.weights import WEIGHTS


class Step(NamedTuple):
    """Numbers of a placement: residual scale eta, rate alpha of `ngpt`, Post-LN layers tau of `mix`."""

    eta: Any
    alpha: Any
    tau: Any


def _post(t, x, f, step):
    return f.norm(x + step.eta * f(x))


def _pre(t, x, f, step):
    return x + step.eta * f(f.norm(x))


def _mix(t, x, f, step):
    early = t < step.tau
    y = x + step.eta * f(jnp.where(early, x, f.norm(x)))
    return jnp.where(early, f.norm(y), y)


def _peri(t, x, f, step):
    return x + step.eta * f.output_norm(f(f.norm(x)))


def _ngpt(t, x, f, step):
    return f.norm(x + step.eta * step.alpha * (f.output_norm(f(x)) - x))


def _sqrt(t, x, f, step):
    return _post(t, x, f, step._replace(eta=step.eta / jnp.sqrt(t + 1)))


def _ln_scaling(t, x, f, step):
    return _pre(t, x, f, step._replace(eta=step.eta / jnp.sqrt(t + 1)))


def _none(t, x, f, step):
    return x + step.eta * f(x)


PLACEMENTS = {
    "post": _post,
    "pre": _pre,
    "mix": _mix,
    "peri": _peri,
    "ngpt": _ngpt,
    "sqrt": _sqrt,
    "ln-scaling": _ln_scaling,
    "none": _none,
}
NORMALIZED_INPUT = ("post", "mix", "ngpt", "sqrt")
OUTPUT_NORM = ("peri", "ngpt")


class Block(eqx.Module):
    """One layer: attention, then the MLP, each as a step of the placement.

    Attributes:
        attention: `Heads` and its normalizers.
        mlp: `MLP` and its normalizers; None leaves it out.
        placement: A name in `PLACEMENTS`.
        eta: Residual scale, finite; 1 in a real model.
        alpha: Rate of `ngpt`, >= 0.
        tau: Number of first layers of `mix` that are Post-LN; else None.
    """

    attention: Sublayer
    mlp: Sublayer | None = None
    placement: str = eqx.field(static=True, default="post", kw_only=True)
    eta: Float[Array, ""] = eqx.field(converter=as_parameter, default=1.0, kw_only=True)
    alpha: Float[Array, ""] = eqx.field(converter=as_parameter, default=1.0, kw_only=True)
    tau: Float[Array, ""] | None = eqx.field(converter=as_parameter, default=None, kw_only=True)

    def __check_init__(self):
        check_choice(self.placement, "placement", PLACEMENTS)
        _check_numbers(self.placement, self.eta, self.alpha, self.tau)
        for name in ("attention", "mlp"):
            sublayer = getattr(self, name)
            if sublayer is not None:
                _check_norms(sublayer, name, self.placement)

    def __call__(self, t, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Tokens after the block, which stands at layer t = 0, 1, ...."""
        numbers = (self.eta, self.alpha, self.tau)
        t, *numbers = (a if a is None else jnp.asarray(a, x.dtype) for a in (t, *numbers))
        for sublayer in (self.attention, self.mlp):
            if sublayer is not None:
                x = PLACEMENTS[self.placement](t, x, sublayer, Step(*numbers))
        return x


def block(
    key: PRNGKeyArray,
    d: int,
    *,
    heads: int = 1,
    weights: str | Callable = "kaiming",
    value: str | Callable | None = None,
    output: str | Callable | None = None,
    tied: bool = False,
    beta: Any = None,
    causal: bool = False,
    mlp: str | None = "gelu",
    hidden: int | None = None,
    mlp_weights: str | Callable | None = None,
    normalizer: str = "layer-norm",
    eps: float = 1e-5,
    placement: str = "post",
    eta: Any = 1.0,
    alpha: Any = 1.0,
    tau: Any = None,
    dtype: Any = float,
) -> Block:
    r"""Block with random weights: gains 1 and no biases, as at the start of training.

    An initialiser is a name in `WEIGHTS`, or a function (key, (rows, columns), dtype) -> matrix. It
    draws the matrix of all heads at once.

    Args:
        key: PRNG key.
        d: Dimension of tokens, >= 2.
        heads: Number of heads; divides d, and each has dimension d/heads.
        weights: Initialiser of Q and K, and of all that name no other.
        value: Initialiser of V; `weights` by default.
        output: Initialiser of O; `weights` by default.
        tied: Whether K = Q.
        beta: Logit scale of the scores beta <q, k>; $1/\sqrt{d/\text{heads}}$ by default.
        causal: Whether token i sees tokens j <= i only.
        mlp: A name in `ACTIVATIONS`; None leaves the MLP out.
        hidden: Width of the MLP; 4 d by default.
        mlp_weights: Initialiser of the MLP; `weights` by default.
        normalizer: A name in `NORMALIZERS`.
        eps: Of "layer-norm" and "rms-norm", >= 0.
        placement: A name in `PLACEMENTS`.
        eta: Residual scale.
        alpha: Rate of placement "ngpt", >= 0; others do not read it.
        tau: Number of first layers that are Post-LN, for placement "mix"; others do not read it.
        dtype: Of the weights; tokens keep their own.

    Raises:
        ValueError: If an argument is out of its range, or a name unknown.
    """
    check_count(d, "d", low=2)
    check_count(heads, "heads")
    if d % heads:
        raise ValueError(f"Argument `heads` must divide d, but heads={heads} and d={d}.")
    hidden = 4 * d if hidden is None else hidden
    check_count(hidden, "hidden")
    check_choice(normalizer, "normalizer", NORMALIZERS)
    check_choice(placement, "placement", PLACEMENTS)
    if mlp is not None:
        check_choice(mlp, "mlp", ACTIVATIONS)
    if beta is not None:
        check_finite(beta, "beta")
    tau = tau if placement == "mix" else None
    _check_numbers(placement, eta, alpha, tau)
    draw_weights = _initializer(weights, "weights")
    draw_value = _initializer(value or weights, "value")
    draw_output = _initializer(output or weights, "output")
    draw_mlp = _initializer(mlp_weights or weights, "mlp_weights")
    gain = None if normalizer == "sphere" else jnp.ones(d, dtype)
    bias = jnp.zeros(d, dtype) if normalizer == "layer-norm" else None
    norm = Normalizer(normalizer, gain, bias, eps)
    norms = (None if placement == "none" else norm, norm if placement in OUTPUT_NORM else None)
    keys = jr.split(key, 7)
    feed_forward = None
    if mlp is not None:
        up, down = draw_mlp(keys[4], (hidden, d), dtype), draw_mlp(keys[5], (d, hidden), dtype)
        gate = draw_mlp(keys[6], (hidden, d), dtype) if mlp == "swiglu" else None
        feed_forward = Sublayer(MLP(up, down, gate, activation=mlp), *norms)
    attention = Heads(
        draw_weights(keys[0], (d, d), dtype),
        None if tied else draw_weights(keys[1], (d, d), dtype),
        draw_value(keys[2], (d, d), dtype),
        draw_output(keys[3], (d, d), dtype),
        heads=heads,
        beta=beta,
        mask=causal_mask if causal else None,
    )
    numbers = {"eta": eta, "alpha": alpha, "tau": tau}
    return Block(Sublayer(attention, *norms), feed_forward, placement=placement, **numbers)


def _initializer(initializer: str | Callable, name: str) -> Callable:
    """Function of an initialiser given by name, or given."""
    if callable(initializer):
        return initializer
    check_choice(initializer, name, WEIGHTS)
    return WEIGHTS[initializer]


def _check_numbers(placement: str, eta, alpha, tau) -> None:
    """Raise `ValueError` unless the numbers are in their range, and `mix` alone has a tau."""
    for value, name in ((eta, "eta"), (alpha, "alpha"), (tau, "tau")):
        if value is not None:
            check_shape(value, name, ())
            check_finite(value, name)
            check_between(value, name, low=0.0 if name != "eta" else -math.inf)
    if (tau is None) == (placement == "mix"):
        condition = "be given" if tau is None else "be None"
        raise ValueError(
            f"Argument `tau` must {condition} for placement '{placement}', but tau={tau}."
        )


def _check_norms(sublayer: Sublayer, name: str, placement: str) -> None:
    """Raise `ValueError` unless a sublayer has the normalizers its placement reads, and no others."""
    wanted = {"norm": placement != "none", "output_norm": placement in OUTPUT_NORM}
    for field, needed in wanted.items():
        if (getattr(sublayer, field) is not None) != needed:
            raise ValueError(
                f"Argument `{name}.{field}` must {'be given' if needed else 'be None'} for placement "
                f"'{placement}', but {name}.{field}={getattr(sublayer, field)}."
            )
