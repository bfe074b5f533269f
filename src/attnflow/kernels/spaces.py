r"""The circle and S² as tori of angles, on which convolution with e^(beta <x, y>) is a product of modes.

A space is what a fast sum has to know: angles of unit vectors, how many modes there are, the modes of
the tokens' own coordinates, and the convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import i0e, ive

from attnflow.kernels.torus import Coordinates, each

LEBESGUE = 14.0
ITERATIONS = 16


class Space(NamedTuple):
    r"""What a fast sum has to know of the circle or of S².

    Attributes:
        name: For messages.
        dimension: d, of the unit vectors.
        angles: Unit vectors (n, d) -> angles, one array (n,) per axis of the torus.
        truncation: (beta, K) -> bound on the error of $e^{\beta(\langle x,y\rangle-1)}$ with modes |k| <= K.
        shifted: Modes |k| <= K + 1 of a density -> packed modes |k| <= K of it times (1, x_1, ..., x_d).
        convolve: (packed modes, beta) -> packed modes of the convolution with $e^{\beta(\langle x,y\rangle-1)}$.
        memory: (K) -> bytes that `convolve` needs.
    """

    name: str
    dimension: int
    angles: Callable[[np.ndarray], Coordinates]
    truncation: Callable[[float, int], float]
    shifted: Callable[[np.ndarray], np.ndarray]
    convolve: Callable[[np.ndarray, float], np.ndarray]
    memory: Callable[[int], int]


def modes_needed(space: Space, beta: float, error: float) -> int:
    """Smallest odd K whose truncation error is at most `error`; about sqrt(2 beta log(1/error))."""
    low, high = -1, 1
    while space.truncation(beta, high) > error:
        low, high = high, 2 * high + 1
    while high - low > 2:
        middle = (low + high) // 4 * 2 + 1
        low, high = (low, middle) if space.truncation(beta, middle) <= error else (middle, high)
    return high


def tail(beta: float, cut: int) -> float:
    r"""$2 e^{-\beta} \sum_{k>K} I_k(\beta)$: the Fourier series of $e^{\beta(\cos\theta - 1)}$ beyond |k| = K.

    Terms fall at least like a geometric series with ratio I_{K+2}/I_{K+1} < beta/(K + 1 + sqrt((K+1)² + beta²))
    (Amos, "Computation of modified Bessel functions and their ratios", 1974), which bounds the sum.
    """
    k = cut + 1
    ratio = beta / (k + np.hypot(k, beta)) if beta else 0.0
    return float(2 * ive(k, beta) / (1 - ratio))


# ------------------------------------------------------------------------------------------ circle


def _circle_angles(x: np.ndarray) -> Coordinates:
    return (np.arctan2(x[:, 1], x[:, 0]),)


def _circle_shifted(density: np.ndarray) -> np.ndarray:
    """Packed modes of the density times 1, cos, sin."""
    before, here, after = density[:-2], density[1:-1], density[2:]
    cosine, sine = (before + after) / 2, (before - after) / 2j
    return np.stack([here + 1j * cosine, sine])


def _circle_convolve(modes: np.ndarray, beta: float) -> np.ndarray:
    cut = modes.shape[-1] // 2
    return modes * _bessel(beta, cut)[np.abs(np.arange(-cut, cut + 1))]


@lru_cache(maxsize=8)
def _bessel(beta: float, cut: int) -> np.ndarray:
    return ive(np.arange(cut + 1), beta)


CIRCLE = Space(
    "circle", 2, _circle_angles, tail, _circle_shifted, _circle_convolve, lambda cut: 64 * cut
)


# -------------------------------------------------------------------------------------------- S²


def _sphere_angles(x: np.ndarray) -> Coordinates:
    """Colatitude in [0, pi] and longitude; any longitude at the poles."""
    return np.arctan2(np.hypot(x[:, 0], x[:, 1]), x[:, 2]), np.arctan2(x[:, 1], x[:, 0])


def _sphere_truncation(beta: float, cut: int) -> float:
    return LEBESGUE * (2 * cut + 1) * tail(beta, cut)


def _sphere_shifted(density: np.ndarray) -> np.ndarray:
    """Packed modes of the density times 1, x, y, z."""
    before, after = density[:-2], density[2:]  # of the colatitude
    here, cosine, sine = density[1:-1], (before + after) / 2, (before - after) / 2j
    east, west = sine[:, :-2], sine[:, 2:]  # times e^(i phi), e^(-i phi)
    x, y = (east + west) / 2, (east - west) / 2j
    return np.stack([here[:, 1:-1] + 1j * x, y + 1j * cosine[:, 1:-1]])


def _sphere_convolve(modes: np.ndarray, beta: float) -> np.ndarray:
    r"""Convolution on the double Fourier sphere: diagonal in longitude, a matrix in colatitude.

    With x, y at colatitudes s, t and longitudes phi apart, $\langle x,y\rangle = \cos s\cos t + \sin s\sin t\cos\phi$,
    so the m-th mode in phi of the kernel is $e^{\beta(\cos(s-t)-1)} e^{-z}I_m(z)$, $z = \beta\sin s\sin t$. The modes
    of a density are those of weights on H nodes s of each half meridian; a trigonometric polynomial cannot
    tell. Going over a pole, s -> -s, gives a mode the sign (-1)^m; the equator splits each matrix in two.
    """
    count, width, _ = modes.shape
    cut = width // 2
    nodes, half = cut + 1, (cut + 1) // 2
    table, wave, sign = _matrices(beta, cut), _wave(cut), _sign(cut)
    weights = np.matmul(wave, modes) + np.matmul(wave.conj(), modes) * sign
    mirror = weights[:, ::-1]
    out = np.empty((count, nodes, width), complex)

    def parity(which: int) -> np.ndarray:
        fold = (weights + mirror if which == 0 else weights - mirror)[:, :half] / 2
        # A mode m and its twin -m have the same matrix: rows (m, node), columns (field, +-m).
        east, west = fold[:, :, cut:], fold[:, :, cut::-1]
        pair = np.stack([east, west], axis=-1).transpose(2, 1, 0, 3)
        flat = np.ascontiguousarray(pair).reshape(nodes, half, 2 * count).view(float)
        matrix = table[:, :, half * which : half * (which + 1)]
        return np.matmul(matrix, flat).view(complex).reshape(nodes, half, count, 2)

    even, odd = each(parity, (0, 1))
    north, south = even + odd, (even - odd)[:, ::-1]
    field = np.concatenate([north, south], axis=1).transpose(2, 1, 0, 3)
    out[:, :, cut:], out[:, :, cut::-1] = field[..., 0], field[..., 1]
    return np.matmul(wave.conj().T, out) + np.matmul(wave.T, out * sign)


@lru_cache(maxsize=4)
def _wave(cut: int) -> np.ndarray:
    """e^(i k s) / (2 H) at the nodes of a half meridian, shape (H, 2K + 1)."""
    nodes = cut + 1
    s = np.pi * (np.arange(nodes) + 0.5) / nodes
    return np.exp(1j * np.outer(s, np.arange(-cut, cut + 1))) / (2 * nodes)


def _sign(cut: int) -> np.ndarray:
    return (-1.0) ** np.abs(np.arange(-cut, cut + 1))


@lru_cache(maxsize=2)
def _matrices(beta: float, cut: int) -> np.ndarray:
    r"""Matrices of all m >= 0, shape (K + 1, H/2, H): beside each other the even and the odd part.

    Bessel functions by downward recurrence of the ratios $r_m = I_m/I_{m-1} = 1/(2m/x + r_{m+1})$, which is stable.
    """
    nodes, half = cut + 1, (cut + 1) // 2
    s = np.pi * (np.arange(nodes) + 0.5) / nodes
    near, far = s[:half, None], s[None, :]
    x = beta * np.sin(near) * np.sin(far)
    table = np.empty((nodes, half, nodes))
    start = cut + ITERATIONS
    ratio = x / (start + np.hypot(start, x))
    for m in range(start, 0, -1):
        ratio = x / (2 * m + x * ratio)
        if m <= cut:
            table[m] = ratio
    table[0] = np.exp(beta * (np.cos(near - far) - 1)) * i0e(x)
    for m in range(1, nodes):
        table[m] *= table[m - 1]
    for matrix in table:
        direct, across = matrix[:, :half].copy(), matrix[:, half:][:, ::-1].copy()
        matrix[:, :half], matrix[:, half:] = direct + across, direct - across
    return table


SPHERE = Space(
    "sphere",
    3,
    _sphere_angles,
    _sphere_truncation,
    _sphere_shifted,
    _sphere_convolve,
    lambda cut: 4 * (cut + 1) ** 3 + 400 * (cut + 1) ** 2,
)
