"""Wasserstein distances: exact on the circle, and between samples in any dimension."""

from __future__ import annotations

import numpy as np

from attnflow.errors import check_count, check_finite, check_weights

TURN = 2 * np.pi


def circle_w2(
    theta: np.ndarray,
    phi: np.ndarray,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> float:
    r"""Wasserstein distance of order 2 between tokens on the circle, in radians of arc.

    $W_2^2 = \min_\alpha\int_0^1(F^{-1}(u)-G^{-1}(u-\alpha))^2du$ over lifted quantile functions, convex in
    $\alpha$: the optimal plan keeps the cyclic order. Equal numbers of equal tokens: exact, the minimum
    over n shifts by bisection, O(n log n). Weights, or unequal numbers: the same to rounding.

    Args:
        theta: Angles, shape (n,), in any turn.
        phi: Angles, shape (m,).
        weights: Weights of both, >= 0, sum 1; None is equal weights.

    Returns:
        Distance, from 0 to pi.

    Raises:
        ValueError: If an argument is not finite, or weights do not fit.

    Source:
        Delon, Salomon, Sobolevski, "Fast transport optimization for Monge costs on the circle" (2010).
    """
    angles, shares = [], []
    for name, values, share in (("theta", theta, weights[0]), ("phi", phi, weights[1])):
        values = np.asarray(values, float)
        check_finite(values, name)
        check_count(len(values), f"len({name})")
        order = np.argsort(values % TURN, kind="stable")
        angles.append((values % TURN)[order])
        if share is not None:
            check_weights(np.asarray(share, float), len(values), "weights")
            share = np.asarray(share, float)[order]
        shares.append(share)
    if all(share is None for share in shares) and len(angles[0]) == len(angles[1]):
        return _equal(*angles)
    return _weighted(*angles, *(_edges(a, s) for a, s in zip(angles, shares, strict=True)))


def _equal(a: np.ndarray, b: np.ndarray) -> float:
    """Distance between n and n equal tokens, sorted."""
    n = len(a)

    def cost(shift: int) -> float:
        turns, first = divmod(shift, n)
        lifted = np.concatenate([b[first:], b[:first] + TURN]) + turns * TURN
        return float(np.mean((a - lifted) ** 2))

    low, high = -n, n
    while high - low > 2:
        middle = (low + high) // 2
        low, high = (low, middle + 1) if cost(middle) <= cost(middle + 1) else (middle, high)
    return float(np.sqrt(min(cost(shift) for shift in range(low, high + 1))))


def _edges(angles: np.ndarray, share: np.ndarray | None) -> np.ndarray:
    """Cumulative weights 0 ... 1, shape (n + 1,)."""
    share = np.full(len(angles), 1 / len(angles)) if share is None else share
    edges = np.concatenate([[0.0], np.cumsum(share)])
    return edges / edges[-1]


def _weighted(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> float:
    """Distance between sorted tokens with cumulative weights."""

    def cost(shift: float) -> float:
        moved = np.concatenate([v[:-1] + shift + k for k in range(-3, 3)])
        cuts = np.unique(np.concatenate([u, moved[(moved > 0) & (moved < 1)]]))
        middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
        own = a[np.clip(np.searchsorted(u, middle) - 1, 0, len(a) - 1)]
        turns = np.floor(middle - shift)
        place = np.clip(np.searchsorted(v, middle - shift - turns) - 1, 0, len(b) - 1)
        return float(width @ (own - b[place] - turns * TURN) ** 2)

    low, high = -1.0, 1.0
    for _ in range(90):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if cost(left) <= cost(right) else (left, high)
    return float(np.sqrt(cost((low + high) / 2)))


def sample_w2(x: np.ndarray, y: np.ndarray) -> float:
    r"""Wasserstein distance of order 2 between two samples on the sphere, in radians of arc.

    Exact linear program over all pairs, by the library POT: O(n m) memory and about O(n^3) time.

    Args:
        x: Unit tokens, shape (n, d).
        y: Unit tokens, shape (m, d).

    Returns:
        Distance, from 0 to pi.

    Raises:
        ValueError: If tokens are no unit vectors.
        ImportError: If POT is not installed.
    """
    from attnflow.errors import check_tokens

    check_tokens(x, "x")
    check_tokens(y, "y")
    try:
        import ot
    except ImportError:
        raise ImportError(
            "Transport between samples needs POT. Install it: pip install 'attnflow[transport]'."
        ) from None
    gap = np.linalg.norm(x[:, None] - y[None], axis=2) / 2
    squares = (2 * np.arcsin(np.clip(gap, 0, 1))) ** 2
    return float(np.sqrt(ot.emd2([], [], squares, numItermax=10**7)))
