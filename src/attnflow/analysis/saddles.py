"""Saddles of the energy: its Hessian on the sphere, escape directions, and speeds far below rounding."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float, Int
from scipy.linalg import eigh, null_space
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp

from attnflow.errors import check_between, check_choice, check_finite, check_tokens, check_weights

Numbers = np.ndarray | Array
METRICS = ("plain", "usa", "sa")
EPS = float(np.finfo(float).eps)
RANK_TOL = 1e-12
"""Singular values below this share of the largest are rotations that move no token."""


class Hessian(NamedTuple):
    """Matrix of second derivatives, apart from a power of ten."""

    matrix: Float[np.ndarray, "m m"]
    """Symmetric; times 10^log10_scale it is the Hessian. m = n(d-1), token by token."""
    log10_scale: float
    """Strongest interaction of two tokens; "sa": -434 for clusters at 90 degrees and beta = 1000."""
    error: float
    """Bound of the rounding error of an eigenvalue of `matrix`."""


class Spectrum(NamedTuple):
    """Eigenvalues of a Hessian, without the zeros that rotations make."""

    eigenvalues: Float[np.ndarray, " k"]
    """Decreasing; times 10^log10_scale they are the eigenvalues. k = n(d-1) - rotations."""
    log10_scale: float
    error: float
    """Bound of the rounding error of an entry of `eigenvalues`."""
    rotations: int
    """Dimension of the rotations that move a token, d(d-1)/2 less the stabilizer's."""


class Saddle(NamedTuple):
    """What a configuration is to a flow, and how sure that is."""

    signs: Int[np.ndarray, " k"]
    """Of each growth rate, in decreasing order: 1 grows, -1 decays, 0 is within its error."""
    log10_rates: Float[np.ndarray, " k"]
    """Growth rates are signs * 10^log10_rates per unit time; where the sign is 0, a bound."""
    escape: int
    """Number of growing directions: 0 at a stable state."""
    undetermined: int
    """Number of rates of unknown sign; rotations are not among them."""
    rotations: int
    """Number of zeros due to rotations."""
    clusters: int
    """Number of distinct places."""
    residual: float
    """Largest force on a cluster, as a share of what pulls at it before forces cancel, in [0, 1]."""
    certified: bool
    """Whether forces cancel and every sign is known: a nondegenerate critical point is this near."""
    directions: Float[np.ndarray, "escape n d"]
    """Tangent directions of escape, fastest first, each of Euclidean length 1."""


def energy_hessian(
    x: Float[Numbers, "n d"],
    beta: float,
    weights: Float[Numbers, " n"] | None = None,
    *,
    metric: Literal["plain", "usa", "sa"] = "plain",
) -> Hessian:
    r"""Riemannian Hessian of $E_\beta = \frac{1}{2\beta}\sum_{ij}w_iw_je^{\beta\langle x_i,x_j\rangle}$ on the spheres.

    Second derivatives along geodesics, in the orthonormal tangent coordinates of `tangent_frames`:
    with $c_{ij} = \langle x_i,x_j\rangle$, $k_{ij} = w_iw_je^{\beta c_{ij}}$ and tangent $u_i$,
    $\sum_i\sum_{j\ne i} k_{ij}\big(\beta\langle u_i,x_j\rangle^2 - c_{ij}|u_i|^2
    + \beta\langle u_i,x_j\rangle\langle x_i,u_j\rangle + \langle u_i,u_j\rangle\big)$.
    Metrics "usa" and "sa" weigh token i with $m_i = w_i$ or $w_i\sum_jw_je^{\beta c_{ij}}$ and give
    $m^{-1/2}Hm^{-1/2}$. The flows are the gradients of E in these metrics: at a critical point the
    eigenvalues are the growth rates of the linearized flow. Elsewhere that is so up to the force.
    Analytic; no entry overflows or underflows at any beta. O(n^2 d^3) time, O(n^2 d^2) memory.

    Args:
        x: Unit vectors, shape (n, d).
        beta: Inverse temperature, >= -300. At 0, the energy is $|\sum_iw_ix_i|^2/2$.
        weights: Token weights > 0, shape (n,), sum 1; equal by default.
        metric: "plain", "usa" or "sa".

    Returns:
        Matrix of shape (n(d-1), n(d-1)), its scale and its error.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski et al., "A mathematical perspective on Transformers" (2025), Sec. 3.4: E and metrics.
    """
    x, w = _check(x, beta, weights)
    check_choice(metric, "metric", METRICS)
    return _hessian(x, float(beta), w, metric)[0]


def energy_spectrum(
    x: Float[Numbers, "n d"],
    beta: float,
    weights: Float[Numbers, " n"] | None = None,
    *,
    metric: Literal["plain", "usa", "sa"] = "sa",
) -> Spectrum:
    """Eigenvalues of `energy_hessian` on the directions orthogonal to rotations.

    Rotations leave E as it is. At a critical point they are null vectors, and are taken out before
    the eigenvalues are computed, so that a small eigenvalue is not mistaken for one of them.
    Interactions weaker than 1e-16 of the strongest are lost in the error: give coincident tokens
    as one weighted token, or take `saddle`, which does. O(n^3 d^3).

    Args:
        x: As in `energy_hessian`.
        beta: As in `energy_hessian`.
        weights: As in `energy_hessian`.
        metric: As in `energy_hessian`.

    Returns:
        Eigenvalues in decreasing order, their scale, their error, and the number of rotations.

    Raises:
        ValueError: If an argument is out of range.
    """
    x, w = _check(x, beta, weights)
    check_choice(metric, "metric", METRICS)
    return _eigenpairs(x, float(beta), w, metric)[0]


def saddle(
    x: Float[Numbers, "n d"],
    beta: float,
    weights: Float[Numbers, " n"] | None = None,
    *,
    model: Literal["sa", "usa"] = "sa",
    merge_tol: float = 1e-8,
    tol: float = 1e-9,
) -> Saddle:
    r"""Growth rates of the flow linearized at a configuration, and whether it is a critical point.

    Tokens within `merge_tol` are one cluster. Rates split, exactly if they coincide: those of the
    clusters as weighted tokens, and inside cluster C, of mass A, those of one token against the
    others at rest, the eigenvalues of
    $-A e^\beta + \sum_{j\notin C}w_je^{\beta c_{ij}}(\beta P_ix_jx_j^TP_i - c_{ij})$ (USA; SA divides by
    $Z_i$), each for all but one of its tokens. So escape at rate e^(-c beta) stays visible beside
    contraction at rate 1.

    A sign is known if the rate exceeds the bound of its rounding error and of its change on the way
    to the critical point: with force g, smallest rate $\lambda$ and L a bound of the third
    derivatives, one is expected within $2|g|/\lambda$ (Newton-Kantorovich).

    Args:
        x: Unit vectors, shape (n, d).
        beta: Inverse temperature, >= -300.
        weights: Token weights > 0, shape (n,), sum 1; equal by default.
        model: "sa" or "usa".
        merge_tol: Chord distance up to which tokens coincide, in [0, 1e-3]; chains are one cluster.
        tol: Largest residual of a critical point, > 0.

    Returns:
        Rates, counts and certificate.

    Raises:
        ValueError: If an argument is out of range.
    """
    x, w = _check(x, beta, weights)
    check_choice(model, "model", METRICS[1:])
    check_between(merge_tol, "merge_tol", 0.0, 1e-3)
    check_between(tol, "tol", 0.0, open_low=True)
    beta = float(beta)
    n, d = x.shape
    near = np.stack([np.linalg.norm(x - one, axis=1) <= merge_tol for one in x])
    k, labels = connected_components(near, directed=False)
    places, masses = np.zeros((k, d)), np.bincount(labels, w)
    np.add.at(places, labels, w[:, None] * x)
    places /= np.linalg.norm(places, axis=1, keepdims=True)

    between, motions, drift, residual = _eigenpairs(places, beta, masses, model)
    parts = [_signed(between.eigenvalues, between.error + drift, between.log10_scale)]
    moves = [motions[parts[0][0] > 0][:, labels]]
    for c in range(k):
        (members,) = np.nonzero(labels == c)
        if len(members) > 1:
            rates, frame, scale, error = _inside(places, beta, masses, c, model)
            parts.append(_signed(np.repeat(rates, len(members) - 1), error, scale))
            spreads = null_space(w[members][None])
            alone = np.zeros((int((rates > error).sum()), len(members) - 1, n, d))
            alone[:, :, members] = np.einsum("ms,ra->rsma", spreads, frame[rates > error])
            moves.append(alone.reshape(-1, n, d))
    signs, log10 = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    fastest = np.argsort(-log10[signs > 0], kind="stable")
    directions = np.concatenate(moves)[fastest]
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    order = np.lexsort((-signs * log10, -signs))
    undetermined = int((signs == 0).sum())
    return Saddle(
        signs=signs[order],
        log10_rates=log10[order],
        escape=len(directions),
        undetermined=undetermined,
        rotations=between.rotations,
        clusters=int(k),
        residual=residual,
        certified=bool(residual <= tol and undetermined == 0),
        directions=directions,
    )


def log10_speeds(
    x: Float[Numbers, "n d"],
    beta: float,
    weights: Float[Numbers, " n"] | None = None,
    *,
    model: Literal["sa", "usa"] = "sa",
) -> Float[np.ndarray, " n"]:
    r"""Decimal logarithm of each token's speed, accurate where the speed itself underflows.

    (USA) $v_i = \sum_{j\ne i}w_je^{\beta(1-q_{ij})}(x_j - x_i + q_{ij}x_i)$, $q_{ij} = |x_i-x_j|^2/2$;
    (SA) divides by $\sum_jw_je^{\beta(1-q_{ij})}$. No term is a difference of close numbers, and each is
    scaled by the largest of its row, so that metastable states, with speeds of e^(-c beta), keep their
    digits: the error is about 1e-16 (beta + d) relative to the sum of the terms' sizes.
    O(n^2 d) time, O(n d) memory.

    Args:
        x: Unit vectors, shape (n, d).
        beta: Inverse temperature, >= -300.
        weights: Token weights > 0, shape (n,), sum 1; equal by default.
        model: "sa" or "usa".

    Returns:
        log10 |v_i|, shape (n,); -inf for a token at rest.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Geshkovski et al., "Dynamic metastability in the self-attention model" (2024): slow motion.
    """
    x, w = _check(x, beta, weights)
    check_choice(model, "model", METRICS[1:])
    logs = np.empty(len(x))
    for i, here in enumerate(x):
        step = x - here
        q = (step**2).sum(axis=1) / 2
        pull = step + q[:, None] * here
        length = np.linalg.norm(pull, axis=1)
        score = np.log(w) + beta * (1 - q)
        with np.errstate(divide="ignore"):
            size = score + np.log(length)
            top = size.max() if np.isfinite(size.max()) else 0.0
            unit = pull / np.where(length > 0, length, 1)[:, None]
            logs[i] = top + np.log(np.linalg.norm(np.exp(size - top) @ unit))
        logs[i] -= logsumexp(score) if model == "sa" else 0.0
    return logs / np.log(10)


def tangent_frames(x: Float[Numbers, "n d"]) -> Float[np.ndarray, "n d-1 d"]:
    """Orthonormal basis of the tangent space at each token, its rows; shape (n, d-1, d).

    Rows 2 to d of the Householder reflection that takes the token to an end of the first axis.
    """
    x, _ = _check(x, 0.0, None)
    return _frames(x)


def rotation_modes(x: Float[Numbers, "n d"]) -> Float[np.ndarray, "r m"]:
    """Orthonormal basis of the motions that rotations give to the tokens, shape (r, n(d-1)).

    In the coordinates of `tangent_frames`. r is d(d-1)/2 less the dimension of the rotations that
    leave every token in place: d(d-1)/2 - (d-s)(d-s-1)/2 for tokens that span s dimensions.
    """
    x, _ = _check(x, 0.0, None)
    return _rotations(x, np.ones(len(x)))


def _check(x: Numbers, beta: float, weights: Numbers | None) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of norm 1 to rounding, and their weights."""
    check_tokens(x)
    x = np.asarray(x, float)
    check_finite(beta, "beta")
    check_between(beta, "beta", -300.0)
    if weights is None:
        weights = np.full(len(x), 1 / len(x))
    check_weights(weights, len(x))
    check_between(weights, "weights", 0.0, open_low=True, remedy="Leave out tokens of weight 0.")
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.asarray(weights, float)


def _signed(values: np.ndarray, error: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Signs, 0 within the error, and decimal logarithms of rates values * 10^scale."""
    signs = np.sign(values).astype(int) * (np.abs(values) > error)
    size = np.where(signs == 0, error, np.abs(values))
    with np.errstate(divide="ignore"):
        return signs, scale + np.log10(size)


def _frames(x: np.ndarray) -> np.ndarray:
    axis = x.copy()
    axis[:, 0] += np.where(x[:, 0] < 0, -1.0, 1.0)
    outer = axis[:, 1:, None] * axis[:, None, :]
    return np.eye(x.shape[1])[1:] - 2 * outer / (axis**2).sum(axis=1)[:, None, None]


def _rotations(x: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Orthonormal rows: motions of rotations, times the roots of the masses."""
    n, d = x.shape
    a, b = np.triu_indices(d, 1)
    turns = np.zeros((len(a), n, d))
    turns[np.arange(len(a)), :, a] = x[:, b].T
    turns[np.arange(len(a)), :, b] = -x[:, a].T
    modes = np.einsum("pia,ira->pir", turns, _frames(x)) * np.sqrt(mass)[:, None]
    _, sizes, rows = np.linalg.svd(modes.reshape(len(a), -1), full_matrices=False)
    return rows[sizes > RANK_TOL * sizes[0]]


def _log_pairs(x: np.ndarray, beta: float) -> np.ndarray:
    """Scores beta <x_i, x_j>, those of close tokens exact to rounding of beta; shape (n, n)."""
    return np.stack([beta * (1 - ((x - here) ** 2).sum(axis=1) / 2) for here in x])


def _masses(w: np.ndarray, scores: np.ndarray, metric: str) -> tuple[np.ndarray, float]:
    """Masses of the tokens in a metric, divided by e^shift; and shift."""
    if metric == "sa":
        log_z = np.asarray(logsumexp(scores, axis=1, b=w))
        return w * np.exp(log_z - log_z.max()), float(log_z.max())
    return (w if metric == "usa" else np.ones(len(w))), 0.0


def _hessian(
    x: np.ndarray, beta: float, w: np.ndarray, metric: str
) -> tuple[Hessian, np.ndarray, float, float]:
    """Hessian, masses, bound of third derivatives times force, and residual; all of one scale."""
    n, d = x.shape
    frames, scores = _frames(x), _log_pairs(x, beta)
    mass, shift = _masses(w, scores, metric)
    np.fill_diagonal(scores, -np.inf)
    top = float(scores.max()) if n > 1 else beta
    pairs = np.outer(w, w) * np.exp(scores - top)
    blocks = np.zeros((n, d - 1, n, d - 1))
    size, bend, force, weight = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    root = np.sqrt(mass)
    for i, here in enumerate(x):
        pair, step = pairs[i], x - here
        cosine = 1 - (step**2).sum(axis=1) / 2
        seen, back = step @ frames[i].T, np.einsum("jra,ja->jr", frames, -step)
        cross = beta * seen[:, :, None] * back[:, None, :] + frames[i] @ frames.swapaxes(1, 2)
        blocks[i] = (pair[:, None, None] * cross).swapaxes(0, 1)
        blocks[i, :, i] = beta * (seen.T * pair) @ seen - pair @ cosine * np.eye(d - 1)
        sine = np.linalg.norm(seen, axis=1)
        size[i] = (pair / root / root[i] + pair / mass[i]) @ (abs(beta) * sine**2 + 1)
        bend[i] = 8 * pair @ (beta**2 * sine**3 + 3 * abs(beta) * sine + 1) / mass[i] ** 1.5
        force[i], weight[i] = np.linalg.norm(pair @ seen), pair.sum()
    matrix = blocks.reshape(n * (d - 1), n * (d - 1))
    scale = np.repeat(root, d - 1)
    error = EPS * size.max() * (4 * (d + 4) * (abs(beta) + 1) + len(matrix))
    drift = 2 * bend.max() * float(np.linalg.norm(force / root))
    residual = float(np.max(force / np.where(weight > 0, weight, 1)))
    hessian = Hessian(matrix / scale / scale[:, None], (top - shift) / np.log(10), float(error))
    return hessian, mass, drift, residual


def _eigenpairs(
    x: np.ndarray, beta: float, w: np.ndarray, metric: str
) -> tuple[Spectrum, np.ndarray, float, float]:
    """Spectrum, motions (k, n, d) of its eigenvectors, change on the way to rest, and residual."""
    n, d = x.shape
    hessian, mass, drift, residual = _hessian(x, beta, w, metric)
    rotations = _rotations(x, mass)
    across = np.linalg.qr(rotations.T, mode="complete")[0][:, len(rotations) :]
    values, vectors = eigh(across.T @ hessian.matrix @ across)
    values, vectors = values[::-1], (across @ vectors[:, ::-1]).T.reshape(-1, n, d - 1)
    moves = np.einsum("kir,ira->kia", vectors / np.sqrt(mass)[:, None], _frames(x))
    smallest = np.abs(values).min(initial=np.inf)
    change = drift / smallest if smallest > 0 else np.inf
    spectrum = Spectrum(values, hessian.log10_scale, hessian.error, len(rotations))
    return spectrum, moves, change, residual


def _inside(
    x: np.ndarray, beta: float, w: np.ndarray, c: int, model: str
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Rates of a token of cluster c against all others at rest, eigenvectors, scale and error."""
    frame, step = _frames(x)[c], x - x[c]
    cosine = 1 - (step**2).sum(axis=1) / 2
    top = beta * (cosine.max() if beta > 0 else cosine.min())
    pair, seen = w * np.exp(beta * cosine - top), step @ frame.T
    values, vectors = eigh(beta * (seen.T * pair) @ seen - pair @ cosine * np.eye(len(frame)))
    size = pair @ (abs(beta) * (seen**2).sum(axis=1) + 1)
    error = EPS * size * (4 * (x.shape[1] + 4) * (abs(beta) + 1) + len(frame))
    scale = top - (logsumexp(beta * cosine, b=w) if model == "sa" else 0.0)
    return values, vectors.T @ frame, scale / np.log(10), float(error)
