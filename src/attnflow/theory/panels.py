"""Composite Gauss-Legendre quadrature on panels, also of integrands beyond the range of floats."""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

NODES, SHARES = np.polynomial.legendre.leggauss(20)


def nodes_and_widths(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on the panels between `edges` (..., p + 1), both of shape (..., p, 20)."""
    left, width = edges[..., :-1, None], np.diff(edges, axis=-1)[..., None]
    return left + width * (1 + NODES) / 2, width * SHARES / 2


def log_integral(log_f: Callable[[np.ndarray], np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Logarithm of the integral of exp(log_f) over rising `edges` (..., p + 1); -inf if they coincide."""
    nodes, widths = nodes_and_widths(edges)
    if nodes.size == 0:
        return np.full(edges.shape[:-1], -np.inf)
    with np.errstate(divide="ignore"):
        return np.asarray(logsumexp(log_f(nodes), b=widths, axis=(-2, -1)))
