r"""Transformer layers at initialisation: one cosine for all pairs of tokens, through fresh random weights.

With independent entries in each layer, in high dimension, attention scores are Gaussian and updates are orthogonal to
the tokens they are added to. So layers map the common gap $g = 1-\rho$ and radius r of n equiangular tokens: a token
$p\,\theta_i + q A_i$, A the output of a sublayer with overlaps $\langle A_i,A_j\rangle$, has
$|x|^2 = p^2 + q^2 |A|^2$ and $g^+ = (p^2 g + q^2(|A_i|^2 - \langle A_i,A_j\rangle))/|x|^2$.
Lengths count in units of what the normaliser gives: 1 on the sphere, $\sqrt d$ under LayerNorm and RMSNorm.
Errors are O(1/n) and O(1/sqrt(d)) in the cosine.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_nonnegative,
    check_positive,
    numbers,
    one,
)
from attnflow.theory.normalization.scheme import (
    SCHEMES,
    Course,
    Rate,
    check_cosine,
    check_gap,
    check_run,
    check_switch,
    rate,
)

NODES = np.linspace(-9.0, 9.0, 181)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()  # trapezoidal: exact to 1e-17
_HERMITE = np.polynomial.hermite_e.hermegauss(15)
_HERMITE = (_HERMITE[0], _HERMITE[1] / _HERMITE[1].sum())
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda a: np.maximum(a, 0.0),
    "gelu": lambda a: a * ndtr(a),
    "swiglu": lambda a: a / (1 + np.exp(-a)),
}


class Overlaps(NamedTuple):
    """Inner products of what a sublayer adds to tokens.

    Attributes:
        square: Mean of |A_i|^2.
        contrast: square - <A_i, A_j>, i != j, accurate relative to itself.
        own: Part of the square that differs between tokens, which is log-normal.
        spread: Standard deviation of its logarithm.
    """

    square: np.ndarray
    contrast: np.ndarray
    own: np.ndarray | float = 0.0
    spread: np.ndarray | float = 0.0

    def shortening(self, p: float, q: float) -> float:
        r"""$(E|x|^{-1})^{-2} / E|x|^2 - 1 \le 0$ for $|x|^2 = p^2 + q^2|A|^2$: means of cosines see shorter tokens."""
        factor = np.expm1(self.spread * _HERMITE[0] - self.spread**2 / 2)
        inverse = np.expm1(-np.log1p(q**2 * self.own * factor / (p**2 + q**2 * self.square)) / 2)
        return float(np.expm1(-2 * np.log1p(_HERMITE[1] @ inverse)))


def score_variance(
    beta: Number, *, d: int, heads: int = 1, gain: Number = 1.0, length: Number = 1.0
) -> float:
    r"""Variance $\beta^2\,\text{gain}^2|x|^4/(Hd)$ of scores $\beta\langle Qx_i,Kx_j\rangle$ under random weights.

    Q and K hold independent entries of variance gain/d (gain 1: Gaussian; 2: Kaiming) and are split into H heads of
    d/H rows. A real layer, beta = sqrt(H/d) and |x| = sqrt(d), has gain^2 at every size.

    Args:
        beta: Inverse temperature, the factor of inner products of queries and keys, >= 0.
        d: Dimension, >= 2.
        heads: Number of heads, a divisor of d.
        gain: Variance of the entries of Q and of K, times d, > 0.
        length: Length of the tokens that attention sees, > 0.

    Returns:
        Variance >= 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Sum of d/H products of independent Gaussians.
    """
    check_count(d, "d", 2)
    check_count(heads, "heads", 1)
    check(d % heads == 0, "heads", f"divide d={d}", heads)
    beta, gain = one(check_nonnegative, beta, "beta"), one(check_positive, gain, "gain")
    return beta**2 * gain**2 * one(check_positive, length, "length") ** 4 / (heads * d)


def participation(variance: Number, *, n: int) -> float:
    r"""Mean of $\sum_k p_k^2$ for softmax weights p of n independent Gaussian scores, in [1/n, 1].

    $n\int_0^\infty u\,E[e^{2s-ue^s}]\,E[e^{-ue^s}]^{n-1}\,du$, s the score: exact for every n, to 1e-10. It is
    $e^{\text{variance}}/n$ while that is small (one in many), and goes to 1 beyond variance = 2 log n (one takes all).

    Args:
        variance: Variance of the scores, in [0, 400].
        n: Number of scores, >= 1.

    Returns:
        Mean share.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derrida, "Random-energy model" (1981); $1/Z^2 = \int_0^\infty u\,e^{-uZ}du$.
    """
    return _moments(*_check_scores(variance, n))[0]


def seen_tokens(variance: Number, *, n: int) -> float:
    r"""Mean number of tokens seen, $E[1/\sum_k p_k^2]$, for softmax weights p of n Gaussian scores, in [1, n].

    $1 + n(n-1)\int_0^\infty E[e^{s - ue^{2s}}]^2 E[e^{-ue^{2s}}]^{n-2}\,du$: exact for every n, to 1e-10. Above
    1/`participation`, as rows differ: some see many tokens, some few.

    Args:
        variance: Variance of the scores, in [0, 400].
        n: Number of scores, >= 1.

    Returns:
        Mean participation number.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        As `participation`; $Z^2/Z_2 = Z^2\int_0^\infty e^{-uZ_2}du$ with $Z_2 = \sum_k e^{2s_k}$.
    """
    return _moments(*_check_scores(variance, n))[1]


def _check_scores(variance: Number, n: int) -> tuple[float, int]:
    value = one(check_nonnegative, variance, "variance")
    check(value <= 400, "variance", "be at most 400", value, "Beyond, one token takes all.")
    return value, check_count(n, "n", 1)


@lru_cache(maxsize=4096)
def _moments(variance: float, n: int) -> tuple[float, float]:
    """Means of sum p^2 and of 1/sum p^2."""
    width = np.sqrt(variance)
    step = 0.05 / max(1.0, width / 4)
    z = np.arange(-9.0, 9.0 + 2 * width, step)  # e^(2s) moves the weight to z = 2 width
    weight = np.exp(-(z**2) / 2) * step / np.sqrt(2 * np.pi)
    log_u = np.arange(-np.log(n) - 18 * width - 40, 18 * width + 8, 0.1)
    share = number = 0.0
    for block in np.array_split(log_u, max(1, len(log_u) // 256)):
        for times in (1, 2):
            power = np.minimum(block[:, None] + times * width * z, 50.0)  # log(u e^(times s))
            missing = np.minimum(-np.expm1(-np.exp(power)) @ weight, 1 - 1e-16)
            one = np.exp((2 if times == 1 else 0.5) * power - np.exp(power)) @ weight
            others = np.exp((n - times) * np.log1p(-missing))
            if times == 1:
                share += np.sum(one * others)
            else:
                number += np.sum(one**2 * others)
    number = 1 + n * (n - 1) * number * 0.1
    return float(np.clip(n * share * 0.1, 1 / n, 1.0)), float(np.clip(number, 1.0, n))


def attention_overlaps(rho: Numbers, *, n: int, variance: Number) -> Overlaps:
    r"""Overlaps of attention outputs $m_i = \sum_k p_{ik}\theta_k$ under random queries and keys.

    Scores differ between keys by variance $w = \text{variance}\,(1-\rho)$ and agree between queries with correlation
    rho, so with Y the participation at w, $|m|^2 = \rho + (1-\rho)Y$ and
    $\langle m_i,m_j\rangle = \rho + (1-\rho)(nY)^\rho/n$: exact at rho = 0 and 1, and in between where $Y = e^w/n$.
    Rows differ: the spread of log Y is that of a log-normal variable with the means of Y and of 1/Y.

    Args:
        rho: Common cosine of the tokens, in [0, 1], any shape.
        n: Number of tokens, >= 2.
        variance: Variance of the scores, in [0, 400]; see `score_variance`.

    Returns:
        Overlaps, of the shape of rho.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived here. Uniform attention (variance 0) in Noci et al., "Signal propagation in Transformers" (2022).
    """
    check_count(n, "n", 2)
    rho = np.maximum(check_cosine(rho, "rho", n), 0.0)
    variance = one(check_nonnegative, variance, "variance")
    gap = 1 - rho
    shares = np.array([_crowding(variance * float(g), n) for g in np.ravel(gap)])
    excess, spread = shares.T.reshape(2, *np.shape(gap))
    square, own = rho + gap * (1 + excess) / n, gap * (1 + excess) / n
    contrast = own * -np.expm1(-gap * np.log1p(excess))
    return Overlaps(np.asarray(square), np.asarray(contrast), own, spread)


def _crowding(variance: float, n: int) -> tuple[float, float]:
    """N Y - 1, which is variance (1 - 1/n) to first order, and the spread of log Y."""
    if variance < 1e-4:
        return variance * (1 - 1 / n), 0.0
    share, number = _moments(variance, n)
    return n * share - 1, float(np.sqrt(max(np.log(share * number), 0.0)))


def mlp_overlaps(rho: Numbers, *, activation: str, gain: Number = 1.0) -> Overlaps:
    r"""Overlaps of the outputs of a wide random MLP, $W_2\phi(W_1 x)$, for unit tokens $x/\sqrt d$.

    $\text{gain}\,E[\phi(a)\phi(b)]$ with a, b standard Gaussian times sqrt(gain), of correlation rho; SwiGLU multiplies
    by $\text{gain}\,\rho$ for its linear gate. ReLU in closed form, the others by a trapezoidal rule, to 1e-12.

    Args:
        rho: Common cosine of the tokens, in [-1, 1], any shape.
        activation: "gelu", "relu" or "swiglu".
        gain: Variance of the entries of each weight matrix times its number of columns, > 0.

    Returns:
        Overlaps, of the shape of rho.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Cho, Saul, "Kernel methods for deep learning" (2009).
    """
    check_choice(activation, "activation", tuple(ACTIVATIONS))
    rho, gain = numbers(rho, "rho"), one(check_positive, gain, "gain")
    check(np.abs(rho) <= 1, "rho", "lie in [-1, 1]", rho)
    if activation == "relu":
        angle = 2 * np.arcsin(np.sqrt((1 - rho) / 2))
        lost = (np.pi * (1 - rho) - np.sin(angle) + angle * rho) / (2 * np.pi)
        return Overlaps(np.full(rho.shape, gain**2 / 2), np.asarray(gain**2 * lost))
    phi, scale = ACTIVATIONS[activation], np.sqrt(gain)
    gated = gain if activation == "swiglu" else 1.0
    first = phi(scale * NODES)[:, None]
    square = gain * gated * (WEIGHTS @ first[:, 0] ** 2)

    def contrast(r):
        """Half the mean square difference, which keeps its digits as r goes to 1."""
        second = phi(scale * (r * NODES[:, None] + np.sqrt(1 - r**2) * NODES))
        moved = WEIGHTS @ ((first - second) ** 2 @ WEIGHTS) / 2
        if activation != "swiglu":
            return gain * moved
        shared = WEIGHTS @ ((first * second) @ WEIGHTS)
        return gain * gain * (moved + (1 - r) * shared)

    values = np.array([contrast(r) for r in rho.ravel()]).reshape(rho.shape)
    return Overlaps(np.full(rho.shape, square), values)


def random_layer_course(
    scheme: str,
    gap0: Number = 1.0,
    *,
    layers: int,
    n: int,
    variance: Number,
    gain: Number = 1.0,
    activation: str | None = None,
    eta: Number = 1.0,
    radius: Number = 1.0,
    tau: Number = 1.0,
    alpha: Rate = 1.0,
) -> Course:
    r"""Gap and radius through layers of fresh random weights.

    Each layer is attention, and an MLP if there is an activation, both placed by the scheme. Near consensus a
    Post-LN sublayer of gain 1 divides the gap by $1+\eta^2$, where the aligned one of `normalization` divides by
    $(1+\eta)^2$; under Pre-LN radii grow like the root of depth, and gaps fall like 1/layers.

    Args:
        scheme: A scheme of `normalization`, but "none".
        gap0: Gap 1 - rho before the first layer, in [0, 1].
        layers: Number of layers, >= 1.
        n: Number of tokens, >= 2.
        variance: Variance of the scores; see `score_variance`.
        gain: Product of V and the output matrix: variance of their entries times columns, multiplied; also the gain
            of each matrix of the MLP is its square root.
        activation: "gelu", "relu" or "swiglu"; None for attention alone.
        eta: Step, >= 0; 1 is a real layer.
        radius: Length of the tokens before the first layer, > 0, in units of the normaliser's.
        tau: Time at which mix goes from Post-LN to Pre-LN, layers times eta.
        alpha: Rate of ngpt, >= 0, a number or a function of time.

    Returns:
        Gap and radius, shape (layers + 1,), the start first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived here from the overlaps of the sublayers; schemes from Karagodin, Ge, Polyanskiy, Rigollet,
        "Normalization in attention dynamics" (2025), Table 1.
    """
    _, r = check_run(scheme, n, 0.0, radius, tau, alpha)
    check_choice(scheme, "scheme", SCHEMES[:-1])  # all that normalise
    check_count(layers, "layers", 1)
    eta, gap = one(check_nonnegative, eta, "eta"), one(check_gap, gap0, "gap0", n)
    gain = one(check_positive, gain, "gain")
    check(gap <= 1, "gap0", "lie in [0, 1]", gap)
    check_switch(scheme, tau, 0.0, layers * eta)
    path = np.empty((2, layers + 1))
    path[:, 0] = gap, float(r)
    for layer in range(layers):
        gap, r = path[:, layer]
        seen = attention_overlaps(1 - gap, n=n, variance=variance)
        seen = Overlaps(gain * seen.square, gain * seen.contrast, gain * seen.own, seen.spread)
        gap, r = _add(scheme, gap, r, seen, eta, layer, tau, alpha)
        if activation is not None:
            seen = mlp_overlaps(1 - gap, activation=activation, gain=np.sqrt(gain))
            gap, r = _add(scheme, gap, r, seen, eta, layer, tau, alpha)
        path[:, layer + 1] = gap, r
    return Course(*path)


def _add(scheme, gap, r, seen: Overlaps, eta, layer, tau, alpha) -> tuple[float, float]:
    """Gap and mean radius once a scheme has added an update orthogonal to the tokens."""
    t = layer * eta
    if scheme == "mix":
        scheme = "post" if t < float(tau) - 1e-6 * eta else "pre"
    if scheme in ("peri", "ngpt"):
        shorter = seen.shortening(0.0, 1.0)
        contrast = (seen.contrast + shorter * seen.square) / (seen.square * (1 + shorter))
        seen = Overlaps(np.asarray(1.0), contrast)
    rate_now = rate(alpha, t) if scheme == "ngpt" else 1.0
    p, q = {
        "post": lambda: (1.0, eta),
        "pre": lambda: (r, eta),
        "peri": lambda: (r, eta),
        "ngpt": lambda: (1 - eta * rate_now, eta * rate_now),
        "sqrt": lambda: (1.0, eta / np.sqrt(t + 1)),
        "ln-scaling": lambda: (r, eta / np.sqrt(t + 1)),
    }[scheme]()
    total, shorter = p**2 + q**2 * seen.square, seen.shortening(p, q)
    gap = float((p**2 * gap + q**2 * seen.contrast + shorter * total) / (total * (1 + shorter)))
    return gap, float(np.sqrt(total)) if scheme in ("pre", "peri", "ln-scaling") else 1.0
