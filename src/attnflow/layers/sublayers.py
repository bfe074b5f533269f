"""Parts of a block: normalizers, multi-head attention and the MLP, as maps (n, d) -> (n, d)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.attention import apply, as_parameter
from attnflow.errors import check_between, check_choice, check_count, check_finite, check_shape
from attnflow.kernels import dense

# -------------------------------------------------------------------------------------- normalizers


def layer_norm(x: Float[Array, "n d"], eps: float) -> Float[Array, "n d"]:
    r"""$(x - m)/\sqrt{v + \epsilon}$, m and v the mean and variance of the coordinates of a token."""
    return rms_norm(x - x.mean(axis=-1, keepdims=True), eps)


def rms_norm(x: Float[Array, "n d"], eps: float) -> Float[Array, "n d"]:
    r"""$x/\sqrt{|x|^2/d + \epsilon}$, of length sqrt(d)."""
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def direction(x: Float[Array, "n d"], eps: float) -> Float[Array, "n d"]:
    """x/|x|, of length 1, and 0 where x is 0: the N of theory, which takes no eps."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square == 0, 1, square))


NORMALIZERS = {"layer-norm": layer_norm, "rms-norm": rms_norm, "sphere": direction}


def _as_array(value: Any) -> Any:
    return None if value is None else jnp.asarray(value)


class Normalizer(eqx.Module):
    """N(x) = gain * kind(x) + bias, in the dtype of x.

    Attributes:
        kind: A name in `NORMALIZERS`.
        gain: Shape (d,); ones if None.
        bias: Shape (d,); zeros if None.
        eps: Added to the variance, >= 0.
    """

    kind: str = eqx.field(static=True)
    gain: Float[Array, " d"] | None = eqx.field(converter=_as_array, default=None)
    bias: Float[Array, " d"] | None = eqx.field(converter=_as_array, default=None)
    eps: float = eqx.field(static=True, default=1e-5)

    def __check_init__(self):
        check_choice(self.kind, "kind", NORMALIZERS)
        check_finite(self.eps, "eps")
        check_between(self.eps, "eps", low=0.0)
        given = [value for value in (self.gain, self.bias) if value is not None]
        size = np.shape(given[0])[:1] if given else ()
        _check_arrays(self, gain=size, bias=size)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Normalized tokens."""
        y = NORMALIZERS[self.kind](x, self.eps)
        if self.gain is not None:
            y = y * jnp.asarray(self.gain, x.dtype)
        return y if self.bias is None else y + jnp.asarray(self.bias, x.dtype)


# ---------------------------------------------------------------------------------------- attention


class Heads(eqx.Module):
    r"""Multi-head attention $f(x)_i = O\,\mathrm{concat}_h \sum_j p^h_{ij} (V_h x_j + v_h) + o$.

    $p^h_i = $ softmax$_j\,\beta\langle Q_h x_i + q_h, K_h x_j + k_h\rangle$. The heads are equal blocks
    of rows of the matrices, the layout of PyTorch. They are summed one after another, each in blocks
    of tokens: O(n^2 d) time, O(n d + block) memory.

    Attributes:
        query: Q, shape (H m, d).
        key: K, shape (H m, d); None ties it, K = Q and k = q, so that scores are symmetric.
        value: V, shape (H p, d).
        output: O, shape (d, H p).
        query_bias: q, shape (H m,), or None.
        key_bias: k, shape (H m,), or None.
        value_bias: v, shape (H p,), or None.
        output_bias: o, shape (d,), or None.
        heads: H, number of heads.
        beta: Logit scale, finite; None is $1/\sqrt m$, that of a real model.
        mask: Pairs that count, (i, j) -> bool, such as `kernels.causal`; None is all.
    """

    query: Float[Array, "queries d"] = eqx.field(converter=_as_array)
    key: Float[Array, "queries d"] | None = eqx.field(converter=_as_array)
    value: Float[Array, "values d"] = eqx.field(converter=_as_array)
    output: Float[Array, "d values"] = eqx.field(converter=_as_array)
    query_bias: Float[Array, " queries"] | None = eqx.field(converter=_as_array, default=None)
    key_bias: Float[Array, " queries"] | None = eqx.field(converter=_as_array, default=None)
    value_bias: Float[Array, " values"] | None = eqx.field(converter=_as_array, default=None)
    output_bias: Float[Array, " d"] | None = eqx.field(converter=_as_array, default=None)
    heads: int = eqx.field(static=True, default=1, kw_only=True)
    beta: Float[Array, ""] | None = eqx.field(converter=as_parameter, default=None, kw_only=True)
    mask: Callable | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        check_count(self.heads, "heads")
        (queries, d), (values, _) = _matrix(self.query, "query"), _matrix(self.value, "value")
        _check_arrays(
            self, query=(queries, d), key=(queries, d), value=(values, d), output=(d, values),
            query_bias=(queries,), key_bias=(queries,), value_bias=(values,), output_bias=(d,), beta=(),
        )  # fmt: skip
        for rows, name in ((queries, "query"), (values, "value")):
            if rows % self.heads:
                raise ValueError(
                    f"Argument `heads` must divide the rows of `{name}`, "
                    f"but heads={self.heads} and {name}.shape={(rows, d)}."
                )

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """What each token sees."""
        q = self._split(_affine(self.query, self.query_bias, x))
        v = self._split(_affine(self.value, self.value_bias, x))
        beta = q.shape[-1] ** -0.5 if self.beta is None else self.beta
        attend = lambda q, k, v: dense(q, k, v, beta, mask=self.mask)[0]
        if self.key is None:
            means = jax.lax.map(lambda head: attend(head[0], *head), (q, v))
        else:
            k = self._split(_affine(self.key, self.key_bias, x))
            means = jax.lax.map(lambda head: attend(*head), (q, k, v))
        joined = jnp.moveaxis(means, 0, 1).reshape(len(x), -1)
        return _affine(self.output, self.output_bias, joined)

    def _split(self, y):
        """(n, H m) -> (H, n, m)."""
        return jnp.moveaxis(y.reshape(len(y), self.heads, -1), 1, 0)


# ---------------------------------------------------------------------------------------------- MLP

ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "swiglu": jax.nn.silu,
}


class MLP(eqx.Module):
    r"""Two layers, token by token: $f(x) = W\sigma(Ux + u) + w$.

    SwiGLU has a gate: $f(x) = W(\mathrm{silu}(Gx + g) \odot (Ux + u)) + w$, silu(s) = s/(1 + e^-s).
    GELU is exact, s Phi(s) with Phi the normal distribution function.

    Attributes:
        up: U, shape (hidden, d).
        down: W, shape (d, hidden).
        gate: G, shape (hidden, d), for "swiglu"; else None.
        up_bias: u, shape (hidden,), or None.
        down_bias: w, shape (d,), or None.
        gate_bias: g, shape (hidden,), or None.
        activation: A name in `ACTIVATIONS`.

    Source:
        Shazeer, "GLU variants improve Transformer" (2020), Eq. (6), the gate named W there.
    """

    up: Float[Array, "hidden d"] = eqx.field(converter=_as_array)
    down: Float[Array, "d hidden"] = eqx.field(converter=_as_array)
    gate: Float[Array, "hidden d"] | None = eqx.field(converter=_as_array, default=None)
    up_bias: Float[Array, " hidden"] | None = eqx.field(converter=_as_array, default=None)
    down_bias: Float[Array, " d"] | None = eqx.field(converter=_as_array, default=None)
    gate_bias: Float[Array, " hidden"] | None = eqx.field(converter=_as_array, default=None)
    activation: str = eqx.field(static=True, default="gelu", kw_only=True)

    def __check_init__(self):
        check_choice(self.activation, "activation", ACTIVATIONS)
        hidden, d = _matrix(self.up, "up")
        _check_arrays(
            self, up=(hidden, d), down=(d, hidden), gate=(hidden, d),
            up_bias=(hidden,), down_bias=(d,), gate_bias=(hidden,),
        )  # fmt: skip
        gated = self.activation == "swiglu"
        if (self.gate is not None) != gated:
            raise ValueError(
                f"Argument `gate` must be {'a matrix' if gated else 'None'} for activation "
                f"'{self.activation}', but gate={'None' if gated else 'a matrix'}."
            )

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Each token through both layers."""
        activate = ACTIVATIONS[self.activation]
        up = _affine(self.up, self.up_bias, x)
        gate = None if self.gate is None else _affine(self.gate, self.gate_bias, x)
        hidden = activate(up) if gate is None else activate(gate) * up
        return _affine(self.down, self.down_bias, hidden)


class Sublayer(eqx.Module):
    """A function f of the tokens and the normalizers that its placement puts around it.

    Attributes:
        function: f, such as `Heads` or `MLP`; any map (n, d) -> (n, d).
        norm: N; None for placement "none".
        output_norm: N', on what f returns, for placements "peri" and "ngpt"; else None.
    """

    function: Callable
    norm: Callable | None = None
    output_norm: Callable | None = None

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """f(x)."""
        return self.function(x)


def _affine(matrix, bias, x):
    """Rows M x_i + b, in the dtype of x."""
    y = apply(matrix, x)
    return y if bias is None else y + jnp.asarray(bias, x.dtype)


def _matrix(value, name) -> tuple[int, int]:
    """Shape of a matrix, once it is one and not empty."""
    if np.ndim(value) != 2 or 0 in np.shape(value):
        raise ValueError(
            f"Argument `{name}` must be a matrix with rows and columns, "
            f"but {name}.shape={np.shape(value)}."
        )
    rows, columns = np.shape(value)
    return rows, columns


def _check_arrays(module, **shapes) -> None:
    """Raise `ValueError` unless the arrays that are there have their shapes and are finite."""
    for name, shape in shapes.items():
        if (value := getattr(module, name)) is not None:
            check_shape(value, name, shape)
            check_finite(value, name)
