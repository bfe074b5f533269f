"""Weights of trained heads: what scores and values do to tokens, and the heads as a flow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from attnflow.attention import Attention, MultiHead
from attnflow.errors import check_between, check_finite
from attnflow.kernels import causal as causal_mask
from attnflow.layers.sublayers import Heads
from attnflow.models.projections import LayerHeads, each_layer

if TYPE_CHECKING:
    import torch
    import xarray as xr


# ------------------------------------------------------------------------------------------- weights


def weight_table(model: Any) -> xr.Dataset:
    r"""Shape and spectrum of the score matrix B = scale Q^T K and the value matrix O V of every head.

    d x d matrices of rank d_head, never formed: a matrix $L^\top R$ has the nonzero eigenvalues of
    $RL^\top$, and $|L^\top R|^2 = \mathrm{tr}(LL^\top RR^\top)$. All numbers are the same for
    $(GQ, G^{-\top}K)$. O(d d_head^2 + d_head^3) per head; one layer is held at a time.

    For independent tokens uniform on the sphere of length sqrt(d), `norm` of the scores is the standard
    deviation of a logit, and `trace` the mean excess of a token's own logit. Independent Gaussian factors
    have `symmetric` about 1/2 + 1/(2d). Where `symmetric` and `alignment` are both 1, O V = c B with B
    symmetric and c > 0, a head alone increases its energy; at `alignment` -1 it decreases it.

    Biases, positions and the gain of a norm before the layer are not in these matrices.

    Args:
        model: Model, or list of `LayerHeads`.

    Returns:
        Dims layer, head and matrix ("scores", "values"). NaN where a layer has fewer heads, or a share is of a
        zero matrix. Variables:
        `norm`, Frobenius; `trace`; `positive_trace`, sum of positive Re over that of |Re|, in [0, 1], of values
        how much a head copies; `symmetric`, `antisymmetric`: shares of the squared norm, sum 1;
        `attracting`, `repelling`, `rotating`: numbers of nonzero eigenvalues with Re >= |Im|, -Re >= |Im|,
        |Im| > |Re|, and the same names with `_share`, weighted by modulus, sum 1;
        `leading`: the eigenvalue of largest modulus, Im >= 0;
        of (layer, head): `alignment`, cosine of O V and B, in [-1, 1]; `good_triple`, 1 if the leading
        eigenvalue of O V is simple, real and positive and its eigenvector has
        $\langle Q\varphi, K\varphi\rangle > 0$, else 0.

    Raises:
        ValueError: If the model has no attention that can be read; see `heads`.

    Source:
        Energy: Geshkovski, Letrouit, Polyanskiy, Rigollet, "A mathematical perspective on Transformers"
        (2025), Sec. 3.4. Good triple: the same, "The emergence of clusters in self-attention dynamics"
        (2023), Def. 4.1. Copying: after Elhage et al., "A mathematical framework for Transformer
        circuits" (2021), without embeddings.
    """
    import xarray as xr

    names, rows = [], []
    for layer in _layers(model):
        names.append(layer.name)
        rows.append(_of_layer(layer))
    count = max(len(row["norm"]) for row in rows)
    data = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        table = np.full((len(rows), count, *parts[0].shape[1:]), np.nan, parts[0].dtype)
        for line, part in zip(table, parts, strict=True):
            line[: len(part)] = part
        data[name] = (("layer", "head", "matrix")[: table.ndim], table)
    coords = {
        "layer": np.arange(len(rows)), "head": np.arange(count), "matrix": ["scores", "values"],
        "name": ("layer", names),
    }  # fmt: skip
    return xr.Dataset(data, coords)


def _layers(model: Any) -> Iterable[LayerHeads]:
    if not isinstance(model, list | tuple):
        return each_layer(model)
    if not model or not all(isinstance(layer, LayerHeads) for layer in model):
        raise ValueError("Argument `model` must be a model or a list of `LayerHeads`, one or more.")
    return model


def _of_layer(layer: LayerHeads) -> dict[str, np.ndarray]:
    """Every column of one layer, first axis the head."""
    q, k, v, o = (
        layer.per_head(array).astype(float)
        for array in (layer.query, layer.key, layer.value, np.swapaxes(layer.output, 1, 2))
    )
    q = q * layer.scale
    scores, values = _of_product(q, k), _of_product(o, v)
    table = {name: np.stack([scores[name], values[name]], axis=1) for name in scores}
    inner = np.sum((q @ _transposed(o)) * (k @ _transposed(v)), axis=(1, 2))
    return table | {
        "alignment": _ratio(inner, scores["norm"] * values["norm"]),
        "good_triple": _good_triple(q, k, o, v),
    }


def _of_product(left: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """Norm, symmetry and spectrum of left^T right, from factors of shape (heads, r, d)."""
    small = right @ _transposed(left)
    square = np.sum((left @ _transposed(left)) * (right @ _transposed(right)), axis=(1, 2))
    turned = np.sum(small * _transposed(small), axis=(1, 2))  # tr(B^2)
    symmetric = (1 + _ratio(turned, square)) / 2
    eigenvalues = np.linalg.eigvals(small)
    re, im, modulus = np.real(eigenvalues), abs(np.imag(eigenvalues)), abs(eigenvalues)
    rounding = 8 * small.shape[1] * np.finfo(float).eps * np.linalg.norm(small, axis=(1, 2))
    nonzero = modulus > rounding[:, None]
    kinds = {
        "attracting": nonzero & (re >= im),
        "repelling": nonzero & (-re >= im),
        "rotating": nonzero & (im > abs(re)),
    }
    total = np.where(nonzero, modulus, 0).sum(axis=1)
    up, down = (np.where(part > rounding[:, None], part, 0).sum(axis=1) for part in (re, -re))
    first = (np.arange(len(modulus)), np.argmax(modulus, axis=1))
    return {
        "norm": np.sqrt(np.maximum(square, 0)),
        "trace": np.trace(small, axis1=1, axis2=2),
        "positive_trace": _ratio(up, up + down),
        "symmetric": symmetric,
        "antisymmetric": 1 - symmetric,
        **{name: kind.sum(axis=1).astype(float) for name, kind in kinds.items()},
        **{
            f"{name}_share": _ratio(np.where(kind, modulus, 0).sum(axis=1), total)
            for name, kind in kinds.items()
        },
        "leading": re[first] + 1j * im[first],
    }


def _good_triple(q, k, o, v) -> np.ndarray:
    """1 where the leading eigenvalue of o^T v is simple, real, positive, and its vector attends to itself."""
    values, vectors = np.linalg.eig(v @ _transposed(o))
    good = np.zeros(len(values))
    for head, (value, vector) in enumerate(zip(values, vectors, strict=True)):
        order = np.argsort(-abs(value))
        top, second = value[order[0]], abs(value[order[1:2]]).sum()
        if top.imag == 0 and top.real > 0 and second < (1 - 1e-9) * top.real:
            phi = vector[:, order[0]].real @ o[head]
            good[head] = (q[head] @ phi) @ (k[head] @ phi) > 0
    return good


def _transposed(array: np.ndarray) -> np.ndarray:
    return np.swapaxes(array, 1, 2)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part/whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


# -------------------------------------------------------------------------------------------- logits


@dataclass(frozen=True)
class EffectiveBeta:
    r"""Logits of heads in the terms of the sphere, arrays of shape (heads,).

    Attributes:
        query_norm: Mean of |q_i|.
        key_norm: Mean of |k_j|.
        beta: scale times both, the inverse temperature of unit queries and keys.
        mean_cosine: Mean of cos(q_i, k_j).
        alignment: Standard deviation of cos(q_i, k_j) along a row, root mean square over rows.
        std_logit: That of the logits. It is beta times alignment where all norms are equal, as under
            QK-norm: growth of norms and alignment apart. Gaussian logits freeze beyond sqrt(2 log n).
        gap: Mean excess of a token's own logit over its others; NaN unless queries and keys are as many.
        gamma: beta / log n, n the number of keys.
        rho: 1 - gap/beta, the common cosine of equiangular tokens with this gap; attention turns from
            collapse to identity at gamma (1 - rho) = gap/log n = 1.
    """

    query_norm: np.ndarray
    key_norm: np.ndarray
    beta: np.ndarray
    mean_cosine: np.ndarray
    alignment: np.ndarray
    std_logit: np.ndarray
    gap: np.ndarray
    gamma: np.ndarray
    rho: np.ndarray


def effective_beta(
    q: torch.Tensor | np.ndarray, k: torch.Tensor | np.ndarray, scale: float
) -> EffectiveBeta:
    r"""Effective beta, and where a head stands on the (gamma, rho) map of long contexts.

    From first and second moments in float64, O((n + m) d_head^2), no score is formed:
    $\mathrm{std}^2 = \text{scale}^2\,\mathrm{tr}(\langle qq^\top\rangle\,\mathrm{Cov}(k))$. A constant added
    to a row of logits changes nothing in softmax, nor here. All pairs count: a causal mask or padding is
    not read, so pass kept tokens only.

    Args:
        q: Queries as the scores see them, shape (heads, n, d_head).
        k: Keys, shape (key heads, m, d_head), m >= 2.
        scale: Factor of the scores, > 0.

    Raises:
        ValueError: If shapes do not fit, or numbers are not finite.

    Source:
        Chen, Lin, Polyanskiy, Rigollet, "Critical attention scaling in long-context Transformers" (2025).
        Freezing: Derrida, "Random-energy model" (1981).
    """
    q, k = _float64(q), _float64(k)
    if q.ndim != 3 or k.ndim != 3 or q.shape[2] != k.shape[2] or len(q) % len(k) or k.shape[1] < 2:
        raise ValueError(
            "Arguments `q` and `k` must have shapes (heads, n, d_head) and (key heads, m, d_head), key heads "
            f"dividing heads and m >= 2, but q.shape={q.shape} and k.shape={k.shape}."
        )
    check_finite(q, "q")
    check_finite(k, "k")
    check_finite(scale, "scale")
    check_between(scale, "scale", low=0.0, open_low=True)
    shared = np.repeat(np.arange(len(k)), len(q) // len(k))
    n, m = q.shape[1], k.shape[1]
    query_norms, key_norms = np.linalg.norm(q, axis=2), np.linalg.norm(k, axis=2)
    query_norm, key_norm = query_norms.mean(axis=1), key_norms.mean(axis=1)[shared]
    beta = scale * query_norm * key_norm
    unit_q, unit_k = (
        array / np.where(norms > 0, norms, 1)[:, :, None]
        for array, norms in ((q, query_norms), (k, key_norms))
    )
    gap = np.full(len(q), np.nan)
    if n == m:
        centred = (k - k.mean(axis=1, keepdims=True))[shared]
        gap = scale * np.sum(q * centred, axis=2).mean(axis=1) * m / (m - 1)
    return EffectiveBeta(
        query_norm=query_norm,
        key_norm=key_norm,
        beta=beta,
        mean_cosine=np.sum(unit_q.mean(axis=1) * unit_k.mean(axis=1)[shared], axis=1),
        alignment=_row_std(unit_q, unit_k, shared),
        std_logit=scale * _row_std(q, k, shared),
        gap=gap,
        gamma=beta / np.log(m),
        rho=1 - _ratio(gap, beta),
    )


def _row_std(q: np.ndarray, k: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Root mean square over rows of the standard deviation of <q_i, k_j> over j."""
    centred = k - k.mean(axis=1, keepdims=True)
    second = _transposed(q) @ q / q.shape[1]
    covariance = (_transposed(centred) @ centred / k.shape[1])[shared]
    return np.sqrt(np.maximum(np.sum(second * covariance, axis=(1, 2)), 0))


def _float64(array: Any) -> np.ndarray:
    """NumPy array in float64, from any device and dtype."""
    return np.asarray(array.detach().cpu().double() if hasattr(array, "detach") else array, float)


# -------------------------------------------------------------------------------------- heads as flow


def as_attention(layer: LayerHeads, *, radius: float = 1.0, exact: bool = True) -> MultiHead:
    r"""Heads of a trained layer as an attention rule, output matrices folded into the values.

    $x \mapsto f(\text{radius}\,x)$: beta = scale radius^2, values radius O_h V_h, and the heads' sum.
    A layer norm without gain makes tokens of length sqrt(d): with that radius, unit tokens see what the
    layer sees. d x d values, 8 heads d^2 bytes in float64; `as_heads` keeps the factors.

    Args:
        layer: Heads, from `heads(model)`.
        radius: Length of the layer's tokens, which unit tokens stand for, > 0.
        exact: Refuse a layer with biases, or with more in its scores than its matrices; false leaves
            these out.

    Raises:
        ValueError: If the rule would not be the layer's.
    """
    _check(layer, radius)
    biases = (layer.query_bias, layer.key_bias, layer.value_bias, layer.output_bias)
    if exact and any(bias is not None and np.any(bias) for bias in biases):
        raise ValueError(
            f"Argument `layer` must have no biases, but '{layer.name}' has some. "
            "Pass `exact=False` to leave them out, or call `as_heads`, which keeps them."
        )
    _check_scores(layer, exact)
    query, key, value = (
        jnp.asarray(array)
        for array in (
            layer.query,
            layer.per_head(layer.key),
            radius * layer.output @ layer.per_head(layer.value),
        )
    )
    mask = causal_mask if layer.causal else None
    return MultiHead(Attention(layer.scale * radius**2, query, key, value, mask=mask))


def as_heads(layer: LayerHeads, *, radius: float = 1.0, exact: bool = True) -> Heads:
    """Heads of a trained layer, biases and all, as the attention of a block or of a `Flow`.

    The map and the arguments of `as_attention`; low-rank factors are kept, O(n^2 d) time.

    Raises:
        ValueError: If the scores hold more than queries and keys, as with rotary positions.
    """
    _check(layer, radius)
    _check_scores(layer, exact)
    d = layer.query.shape[2]
    rows = lambda array: radius * layer.per_head(array).reshape(-1, d)
    flat = lambda bias: None if bias is None else layer.per_head(bias).ravel()
    query_bias = None if layer.query_bias is None else layer.query_bias.ravel()
    return Heads(
        rows(layer.query), rows(layer.key), rows(layer.value),
        np.moveaxis(layer.output, 0, 1).reshape(d, -1),
        query_bias=query_bias, key_bias=flat(layer.key_bias), value_bias=flat(layer.value_bias),
        output_bias=layer.output_bias,
        heads=len(layer.query), beta=layer.scale, mask=causal_mask if layer.causal else None,
    )  # fmt: skip


def _check(layer: Any, radius: float) -> None:
    if not isinstance(layer, LayerHeads):
        raise ValueError(
            f"Argument `layer` must be a `LayerHeads`, but it is of type {type(layer).__name__}. "
            "Pass one of `heads(model)`."
        )
    check_finite(radius, "radius")
    check_between(radius, "radius", low=0.0, open_low=True)


def _check_scores(layer: LayerHeads, exact: bool) -> None:
    if exact and layer.besides:
        raise ValueError(
            f"Argument `layer` must have scores of queries and keys alone, but those of '{layer.name}' have "
            f"{', '.join(layer.besides)} besides. Pass `exact=False` to leave these out."
        )
