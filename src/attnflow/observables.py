"""Observables: pure functions of one configuration of tokens; those marked `timed` also read t."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attnflow.kernels import auto
from attnflow.sphere import distance, normalize, project


def log_energy(
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Logarithm of $\sum_{ij} w_i w_j e^{\beta\langle x_i, x_j\rangle}$, equal weights 1/n by default.

    In [0, beta] for beta >= 0 when tokens are within a hemisphere; never overflows. The energy is
    $E_\beta = e^{\text{log\_energy}}/(2\beta)$. The cheapest exact sum (`kernels.auto`): O(n) for many tokens
    on the circle and on S², else O(n^2 d) time, O(n block) memory.
    """
    w = jnp.full(len(x), 1 / len(x), x.dtype) if weights is None else weights
    _, log_z = auto(x, x, x[:, :0], beta, weights=w)
    return jax.nn.logsumexp(log_z, b=w)


def energy(
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Interaction energy $E_\beta = \frac{1}{2\beta}\sum_{ij} w_i w_j e^{\beta\langle x_i, x_j\rangle}$.

    (USA), (SA) and every positive speed factor increase it; consensus has the maximum
    $e^\beta/(2\beta)$. At beta = 0 this is the limit of $E_\beta - 1/(2\beta)$, which is
    $|m|^2/2$ with m the mean token. Overflows beyond beta = 709 in float64: there take
    `log_energy` or `scaled_energy`.

    Args:
        x: Unit tokens, shape (n, d).
        beta: Inverse temperature, finite.
        weights: Token weights, shape (n,), sum 1; equal by default.

    Source:
        Geshkovski et al., "A mathematical perspective on Transformers" (2025), Sec. 3.3. The
        flows ascend this energy; some texts print a descent.
    """
    beta = jnp.asarray(beta, x.dtype)
    safe = jnp.where(beta == 0, 1.0, beta)
    mean = x.mean(axis=0) if weights is None else weights @ x
    return jnp.where(beta == 0, mean @ mean / 2, jnp.exp(log_energy(x, safe, weights)) / (2 * safe))


def scaled_energy(
    x: Float[Array, "n d"],
    beta: float | Float[Array, ""],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Energy as a share of consensus, $\sum_{ij} w_i w_j e^{\beta(\langle x_i, x_j\rangle - 1)}$, in (0, 1].

    On a plateau of clusters of masses $\alpha_k$ it is $\sum_k \alpha_k^2$ up to $e^{-c\beta}$.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet, "Dynamic metastability in the self-attention
        model" (2024).
    """
    return jnp.exp(log_energy(x, beta, weights) - beta)


def order_parameter(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Length R of the mean token, in [0, 1]: 1 at consensus."""
    return jnp.linalg.norm(x.mean(axis=0))


def mean_cosine(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean cosine rho over pairs i != j, in [-1/(n-1), 1]; 1 for a single token. O(n d)."""
    n = len(x)
    if n == 1:
        return jnp.ones((), x.dtype)
    x = normalize(x)
    total = x.sum(axis=0)
    return (total @ total - n) / (n * (n - 1))


def cosine_gap(x: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""1 - rho, accurate relative to its own size: $\frac{1}{n-1}\sum_i |x_i - m|^2$. O(n d).

    `1 - mean_cosine(x)` keeps no digit below 1e-16; this one follows collapse further, until the
    tokens themselves agree to rounding (gap about 1e-32 in float64).
    """
    n = len(x)
    if n == 1:
        return jnp.zeros((), x.dtype)
    x = normalize(x)
    return jnp.sum((x - x.mean(axis=0)) ** 2) / (n - 1)


def effective_rank(x: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""Effective rank $e^{H(p)}$, $p = \sigma/\sum\sigma$ the singular values, in [1, min(n, d)].

    O(n d min(n, d)).

    Source:
        Roy, Vetterli, "The effective rank" (2007), Def. 1.
    """
    values = jnp.linalg.svd(x, full_matrices=False, compute_uv=False)
    p = values / values.sum()
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))


def attention_entropy(
    x: Float[Array, "n d"], beta: float | Float[Array, ""], *, mask=None
) -> Float[Array, " n"]:
    r"""Entropy of each row of softmax attention, in nats, in [0, log n].

    $H_i = \log Z_i - \beta\langle x_i, \sum_j p_{ij} x_j\rangle$: no attention matrix is formed.
    """
    mean, log_z = auto(x, x, x, beta, mask=mask)
    return log_z - beta * jnp.sum(x * mean, axis=-1)


def pair_fraction(x: Float[Array, "n d"], delta: float = 1e-3) -> Float[Array, ""]:
    """Share of pairs i != j whose cosine is at least 1 - delta, in [0, 1]; 1 for a single token.

    O(n^2 d) time, O(n block) memory.
    """
    n = len(x)
    if n == 1:
        return jnp.ones((), x.dtype)
    x = normalize(x)
    near = _per_row(x, lambda cosines, i: jnp.sum(cosines >= 1 - delta) - (cosines[i] >= 1 - delta))
    return (near.astype(x.dtype) / (n - 1)).mean()


def cosine_histogram(x: Float[Array, "n d"], edges: Float[Array, " edges"]) -> Int[Array, " bins"]:
    """Number of pairs i < j whose cosine falls in each bin.

    Bins are [edges[k], edges[k+1]), the last one closed; cosines are clipped to [-1, 1] first.
    O(n^2 (d + log bins)) time, O(n block) memory.
    """
    x, bins = normalize(x), len(edges) - 1

    def count(cosines, i):
        cosines = jnp.clip(cosines, -1.0, 1.0)
        index = jnp.searchsorted(edges, cosines, side="right") - 1
        index = jnp.where(cosines == edges[-1], bins - 1, index)
        seen = jnp.arange(len(x)) > i
        index = jnp.where(seen & (index >= 0) & (index < bins), index, bins)
        return jnp.zeros(bins + 1, int).at[index].add(1)

    return _per_row(x, count).sum(axis=0)[:bins]


def _per_row(x, function):
    """Map a function of (cosines of token i with all tokens, i), blocks of rows at a time."""
    batch = max(1, min(len(x), 2**22 // len(x)))
    cosines = lambda i: jnp.matmul(x, x[i], precision=jax.lax.Precision.HIGHEST)
    return jax.lax.map(lambda i: function(cosines(i), i), jnp.arange(len(x)), batch_size=batch)


def nearest_distance(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Smallest angle between two tokens, in radians."""
    return _per_row(x, lambda _, i: distance(x, x[i]).at[i].set(jnp.pi).min()).min()


def radii(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Lengths |x_i| of the tokens: 1 on the sphere, growing under Pre-LN and its kin."""
    return jnp.linalg.norm(x, axis=-1)


def mean_radius(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean length of the tokens."""
    return radii(x).mean()


class SpeedFactor(eqx.Module):
    r"""Speed factors $s_i = |P_{\theta_i} A_i| / |\dot\theta_i|$ of a flow, measured, shape (n,).

    $\dot\theta_i = P_{\theta_i}\dot x_i/|x_i|$ is read from the velocity of the flow, and A_i is what token i
    sees: nothing is known of the norm. Near consensus both cancel, and s has relative error about 1e-16
    over the distance of tokens; NaN where a token sees no pull beyond rounding, as the first one under a
    causal mask.

    Attributes:
        flow: Flow with `seen(x)`, such as `sa(beta, norm=pre_ln)`.

    Source:
        Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Eq. for s_j(t).
    """

    flow: Any
    timed: ClassVar[bool] = True

    def __call__(self, t, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Speed factors at time t of tokens x."""
        theta = normalize(x)
        seen = self.flow.seen(x)
        turn = jnp.linalg.norm(project(theta, self.flow(t, x)), axis=-1) / radii(x)
        pull = jnp.linalg.norm(project(theta, seen), axis=-1)
        noise = 8 * jnp.finfo(x.dtype).eps * jnp.linalg.norm(seen, axis=-1)
        return jnp.where(pull > noise, pull / turn, jnp.nan)


OBSERVABLES = {
    "mean_cosine": mean_cosine,
    "cosine_gap": cosine_gap,
    "order_parameter": order_parameter,
    "effective_rank": effective_rank,
    "pair_fraction": pair_fraction,
    "nearest_distance": nearest_distance,
    "mean_radius": mean_radius,
}
"""Observables of the tokens alone; those with a beta are bound by `functools.partial`."""
