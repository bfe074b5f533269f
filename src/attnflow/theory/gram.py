r"""The Gram matrix $G_{ij} = \langle x_i, x_j\rangle$ as the only unknown: exact in every dimension d.

Attention weights that depend on G alone (Q = K = I, V = c I; any mask, any token weights) close the flow:
$\dot G_{ij} = M_{ij} + M_{ji} - (r_i + r_j)G_{ij}$ with $M = AG$, $r_i = M_{ii}$. No coordinates, no
projection, no drift off the sphere: the diagonal stays 1 to the last bit, for repulsive flows too.
Everything is computed from the gaps 1 - G, so that nearly equal tokens keep their relative accuracy.
"""

from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_times,
    one,
)

MODELS = ("sa", "usa")


def gram(
    ts: Numbers,
    gram0: np.ndarray,
    *,
    beta: Number,
    model: str = "sa",
    mask: np.ndarray | str | None = None,
    weights: np.ndarray | None = None,
    value: Number = 1.0,
) -> np.ndarray:
    r"""Gram matrix of n tokens along the flow.

    SA: $A_{ij} \propto w_j e^{\beta G_{ij}}$, rows sum to 1; USA: $A_{ij} = w_j e^{\beta G_{ij}}$; masked pairs
    have $A_{ij} = 0$; $A$ is multiplied by `value`. Solved to a relative 1e-12 of the largest gap.
    Costs O(n^3) per step.

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `gram0`.
        gram0: Initial Gram matrix: symmetric, unit diagonal, positive semidefinite, shape (n, n).
        beta: Inverse temperature, finite, any sign; |beta| <= 700 for "usa".
        model: "sa" or "usa".
        mask: True where token i sees token j, shape (n, n); "causal" for j <= i; None for all.
        weights: Token weights, > 0, sum 1, shape (n,). None is 1/n each.
        value: Scalar value matrix V = value * I; negative values repel.

    Returns:
        G(ts), shape (t, n, n), entries in [-1, 1].

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If the solver fails.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Eqs. (SA), (USA), differentiated in time.
    """
    return 1 - gram_gap(
        ts, 1 - _check_gram(gram0), beta=beta, model=model, mask=mask, weights=weights, value=value
    )


def gram_gap(
    ts: Numbers,
    gap0: np.ndarray,
    *,
    beta: Number,
    model: str = "sa",
    mask: np.ndarray | str | None = None,
    weights: np.ndarray | None = None,
    value: Number = 1.0,
    atol: Number = 1e-15,
) -> np.ndarray:
    r"""Gaps $1 - \langle x_i, x_j\rangle = |x_i-x_j|^2/2$ along the flow of `gram`.

    With a small `atol` the gaps keep a relative accuracy of 1e-12 all the way into consensus, where
    rates are read. Repeated tokens need `atol` above 1e-16 times the largest gap.

    Args:
        ts: Strictly increasing times, shape (t,).
        gap0: Initial gaps, symmetric, zero diagonal, in [0, 2], shape (n, n).
        beta: Inverse temperature, finite, any sign; |beta| <= 700 for "usa".
        model: "sa" or "usa".
        mask: As in `gram`.
        weights: As in `gram`.
        value: As in `gram`.
        atol: Absolute tolerance of the solver, > 0.

    Returns:
        1 - G(ts), shape (t, n, n), entries in [0, 2].

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If the solver fails.

    Source:
        See `gram`.
    """
    ts, gap0 = check_times(ts), _check_gap(gap0)
    beta, mask, weights, value = _check_attention(len(gap0), beta, model, mask, weights, value)
    shape = gap0.shape

    def rhs(t, flat):
        gap = flat.reshape(shape)
        attention = _attention(gap, beta, model, mask, weights, value)
        fall = attention @ gap
        pull = attention.sum(axis=1) - np.diag(fall)  # r_i = <x_i, A_i>
        half = fall - np.diag(fall)[:, None] - pull[:, None] * gap
        return (half + half.T).ravel()

    gaps = [gap0]
    for start, end in pairwise(ts):  # dense output is less accurate than steps
        leg = solve_ivp(
            rhs, (start, end), gaps[-1].ravel(), method="DOP853", rtol=1e-12, atol=float(atol)
        )
        if not leg.success:
            raise RuntimeError(f"The Gram flow stopped at t={leg.t[-1]:g}: {leg.message}")
        gaps.append(leg.y[:, -1].reshape(shape))
    return np.array(gaps)


def gram_post_ln(
    gram0: np.ndarray,
    *,
    steps: int,
    eta: Number,
    beta: Number,
    model: str = "sa",
    mask: np.ndarray | str | None = None,
    weights: np.ndarray | None = None,
    value: Number = 1.0,
) -> np.ndarray:
    r"""Gram matrix through Post-LN layers $x_i \leftarrow N(x_i + \eta A_i)$, exactly.

    $G \leftarrow D^{-1/2}(I+\eta A)\,G\,(I+\eta A)^T D^{-1/2}$, D the diagonal of the product.

    Args:
        gram0: Initial Gram matrix: symmetric, unit diagonal, positive semidefinite, shape (n, n).
        steps: Number of layers, >= 0.
        eta: Step, >= 0. 1 is a real layer.
        beta: Inverse temperature, finite, any sign; |beta| <= 700 for "usa".
        model: "sa" or "usa".
        mask: As in `gram`.
        weights: As in `gram`.
        value: As in `gram`.

    Returns:
        Gram matrices, shape (steps + 1, n, n), `gram0` first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 6.2 (Post-LN), in Gram form.
    """
    check_count(steps, "steps", 0)
    gram0, eta = _check_gram(gram0), one(check_nonnegative, eta, "eta")
    beta, mask, weights, value = _check_attention(len(gram0), beta, model, mask, weights, value)
    grams = [gram0]
    for _ in range(steps):
        layer = np.eye(len(gram0)) + eta * _attention(
            1 - grams[-1], beta, model, mask, weights, value
        )
        product = layer @ grams[-1] @ layer.T
        radius = np.sqrt(np.diag(product))
        grams.append(product / np.outer(radius, radius))
    return np.array(grams)


def _attention(
    gap: np.ndarray,
    beta: float,
    model: str,
    mask: np.ndarray,
    weights: np.ndarray,
    value: float,
) -> np.ndarray:
    """Attention matrix times `value`, shape (n, n), from the gaps."""
    if model == "usa":
        return (
            value * mask * weights * np.exp(beta * (1 - np.clip(gap, 0, 2)))
        )  # a rejected step may leave the range
    scores = np.where(mask, -beta * gap, -np.inf)
    rows = weights * np.exp(scores - scores.max(axis=1, keepdims=True))
    return value * rows / rows.sum(axis=1, keepdims=True)


def _check_gram(gram: np.ndarray) -> np.ndarray:
    """Gram matrix of unit vectors as a float array."""
    gram = _check_square(gram, "gram0")
    remedy = "Pass `x @ x.T` of unit vectors x."
    check(np.abs(gram).max() <= 1 + 1e-12, "gram0", "have entries in [-1, 1]", gram, remedy)
    check(np.abs(np.diag(gram) - 1).max() <= 1e-8, "gram0", "have unit diagonal", gram, remedy)
    low = float(np.linalg.eigvalsh(gram)[0])
    check(low >= -1e-8 * len(gram), "gram0", "be positive semidefinite", low, remedy)
    gram = np.clip(gram, -1, 1)
    np.fill_diagonal(gram, 1)
    return gram


def _check_gap(gap: np.ndarray) -> np.ndarray:
    """Gaps of unit vectors as a float array."""
    gap = _check_square(gap, "gap0")
    check(np.abs(np.diag(gap)).max() <= 1e-8, "gap0", "have zero diagonal", gap)
    check((gap >= -1e-12) & (gap <= 2 + 1e-12), "gap0", "have entries in [0, 2]", gap)
    gap = np.clip(gap, 0, 2)
    np.fill_diagonal(gap, 0)
    return gap


def _check_square(matrix: np.ndarray, name: str) -> np.ndarray:
    """Symmetric square float array."""
    matrix = check_finite(matrix, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(
            f"Argument `{name}` must have shape (n, n), but {name}.shape={matrix.shape}."
        )
    check(np.abs(matrix - matrix.T).max() <= 1e-12, name, "be symmetric", matrix)
    return (matrix + matrix.T) / 2


def _check_attention(
    n: int,
    beta: Number,
    model: str,
    mask: np.ndarray | str | None,
    weights: np.ndarray | None,
    value: Number,
) -> tuple[float, np.ndarray, np.ndarray, float]:
    """Parameters of the attention matrix, with their defaults filled in."""
    check_choice(model, "model", MODELS)
    beta, value = one(check_finite, beta, "beta"), one(check_finite, value, "value")
    if model == "usa":
        check(abs(beta) <= 700, "beta", "satisfy |beta| <= 700 for usa", beta, "e^beta overflows.")
    if isinstance(mask, str):
        check_choice(mask, "mask", ("causal",))
        mask = np.tri(n, dtype=bool)
    mask = np.ones((n, n), dtype=bool) if mask is None else np.asarray(mask)
    if mask.shape != (n, n) or mask.dtype != bool:
        raise ValueError(
            f"Argument `mask` must be boolean with shape ({n}, {n}), "
            f"but mask has shape {mask.shape} and dtype {mask.dtype}."
        )
    if model == "sa":
        check(mask.any(axis=1), "mask", "let every token see one", mask.sum(axis=1))
    weights = np.full(n, 1 / n) if weights is None else check_finite(weights, "weights")
    if weights.shape != (n,):
        raise ValueError(
            f"Argument `weights` must have shape ({n},), but weights.shape={weights.shape}."
        )
    check(weights > 0, "weights", "be > 0", weights)
    total = float(weights.sum())
    remedy = "Pass `weights / weights.sum()`."
    check(abs(total - 1) <= 1e-9, "weights", "sum to 1", total, remedy)
    return beta, mask, weights, value
