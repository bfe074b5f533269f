"""Statistics of one layer's tokens, in float64 on the device where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

EDGES = np.linspace(-1, 1, 81)
"""Bins of the cosine histogram."""
SINK_NORM = 5.0
"""Length beyond which a token counts as a sink, in medians of lengths."""
MASSIVE = 100.0
"""Mean square beyond which a dimension counts as massive, in medians over dimensions."""
BLOCK = 2**22
TINY = 1e-300


def token_statistics(x: torch.Tensor, *, beta: float = 1.0, full: bool = True) -> dict[str, Any]:
    r"""Numbers of one state, shape (n, d), with directions $\theta_i = x_i/|x_i|$, pairs i != j.

    - `mean_cosine`, `std_cosine` of pairs; `centred_cosine`, after the mean direction is taken off;
      `masked_cosine`, without sinks and massive dimensions, which `sinks` and `massive` count; `hemisphere`,
      the smallest cosine with the mean direction, > 0 if all lie in its hemisphere.
    - `gap`, 1 - rho relative to its own size; `floor`, what rounding of the dtype of x leaves of it.
    - `effective_rank` $e^{H(\sigma/\sum\sigma)}$ of the directions, as `observables.effective_rank`;
      `power_rank` $e^{H(\sigma^2/\sum\sigma^2)}$; `centred_rank`, without the mean direction.
    - `radius`, `radius_spread`: mean and standard deviation of lengths.
    - `energy`, $n^{-2}\sum_{ij}e^{\beta(\langle\theta_i,\theta_j\rangle-1)}$; `clusters`, groups linked by
      distances below $\frac12\beta^{-1/2}$; `histogram` of pairs i < j over `EDGES`.

    O(n^2 d) time, O(n) memory beside x.

    Args:
        x: Tokens, any floating dtype, finite.
        beta: Inverse temperature of energy and clusters, > 0.
        full: Whether to take ranks and all pairs too; else O(n d), and only `mean_cosine`, `centred_cosine`,
            `hemisphere`, `gap`, `floor`, `radius` and `radius_spread`.
    """
    import torch

    dtype, x = x.dtype, x.detach().to(torch.float64)
    radius = x.norm(dim=1)
    theta = x / radius.clamp_min(TINY)[:, None]
    middle = theta.mean(dim=0)
    centred = theta - middle
    cheap = {
        "n": len(x),
        "d": x.shape[1],
        "mean_cosine": mean_cosine(theta),
        "centred_cosine": mean_cosine(centred),
        "hemisphere": float((theta @ middle).min() / middle.norm().clamp_min(TINY)),
        "gap": float(centred.norm() ** 2 / max(len(x) - 1, 1)),
        "floor": float(torch.finfo(dtype).eps) ** 2 / 6,
        "radius": float(radius.mean()),
        "radius_spread": float(radius.std(correction=0)),
    }
    if not full:
        return cheap
    sinks = radius > SINK_NORM * radius.median()
    power = (x * x).mean(dim=0)
    massive = power > MASSIVE * power.median()
    return (
        cheap
        | {
            "masked_cosine": mean_cosine(x[~sinks][:, ~massive]),
            "sinks": int(sinks.sum()),
            "massive": int(massive.sum()),
            "effective_rank": effective_rank(theta),
            "power_rank": effective_rank(theta, power=2),
            "centred_rank": effective_rank(centred),
        }
        | _pairs(theta, beta)
    )


def mean_cosine(x: torch.Tensor) -> float:
    """Mean cosine of pairs i != j of tokens; a token at the origin has cosine 0."""
    n, radius = len(x), x.norm(dim=1)
    if n < 2:
        return float("nan")
    total = radius.clamp_min(TINY).reciprocal() @ x
    return float((total @ total - (radius > TINY).sum()) / (n * (n - 1)))


def gap_(x: torch.Tensor) -> float:
    """1 - mean cosine of pairs, from the spread of directions about their mean; x is written over."""
    x /= x.norm(dim=1, keepdim=True).clamp_min(TINY)
    x -= x.mean(dim=0)
    return float(x.norm() ** 2 / max(len(x) - 1, 1))


def effective_rank(x: torch.Tensor, *, power: int = 1) -> float:
    """Effective rank of Roy and Vetterli (2007), of singular values to a power, from 1 to min(n, d)."""
    import torch

    values = torch.linalg.svdvals(x.to(torch.float64)) ** power
    p = values / values.sum()
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def random_rank(n: int, d: int) -> float:
    """Effective rank of n Gaussian tokens in d dimensions: the baseline of the same shape, one draw."""
    import torch

    draw = torch.Generator().manual_seed(0)
    return effective_rank(torch.randn(n, d, generator=draw, dtype=torch.float64))


def _directions(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(TINY)


def _pairs(theta: torch.Tensor, beta: float) -> dict[str, Any]:
    """What needs all cosines, blocks of rows at a time."""
    import torch
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n, square, energy = len(theta), 0.0, 0.0
    edges = torch.as_tensor(EDGES, device=theta.device)
    counts = torch.zeros(len(EDGES) - 1, dtype=torch.int64)
    near, threshold, links = [], 1 - 1 / (8 * beta), 0
    for start in range(0, n, block := max(1, BLOCK // n)):
        cosines = (theta[start : start + block] @ theta.T).clamp_(-1, 1)
        square += float((cosines**2).sum())
        energy += float(torch.exp(beta * (cosines - 1)).sum())
        index = torch.bucketize(cosines, edges, right=True).clamp_(1, len(EDGES) - 1) - 1
        counts += torch.bincount(index.reshape(-1), minlength=len(EDGES) - 1).cpu()
        rows, columns = torch.nonzero(cosines > threshold, as_tuple=True)
        links += len(rows)
        near.append((rows.cpu().numpy() + start, columns.cpu().numpy()))
    counts[-1] -= n
    rho = mean_cosine(theta)
    rows, columns = (np.concatenate(part) for part in zip(*near, strict=True))
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    variance = (square - n) / max(n * (n - 1), 1) - rho**2
    return {
        "std_cosine": float(np.sqrt(max(variance, 0.0))),
        "energy": energy / n**2,
        "clusters": int(connected_components(graph, directed=False)[0]),
        "histogram": counts.numpy() // 2,
    }
