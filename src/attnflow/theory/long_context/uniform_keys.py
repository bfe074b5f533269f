r"""Attention over many random keys: independent and uniform on the sphere, alone or around a common direction.

With n large, sums over keys become integrals: $a_0(\beta) = \int e^{\beta\langle q,k\rangle}d\sigma(k)$ and its
logarithmic derivative $r(\beta) = I_{d/2}(\beta)/I_{d/2-1}(\beta)$ say everything. Errors are O(n^{-1/2}) for one
query, O(1/n) for means over queries, as long as many keys share the weight.
"""

from typing import NamedTuple

import numpy as np

from attnflow.theory.equiangular_layer import check_size
from attnflow.theory.errors import (
    Numbers,
    check,
    check_between,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
)
from attnflow.theory.stability import growth_rates

LARGEST_BETA = 1e7


def log_partition(beta: Numbers, *, d: int) -> np.ndarray:
    r"""Logarithm of the partition function per key, $\log a_0(\beta)$, $Z = n\,a_0(\beta)$.

    $a_0 = \Gamma(\frac d2)(\frac2\beta)^\nu I_\nu(\beta) = \sum_k\frac{(\beta^2/4)^k}{k!\,(d/2)_k}$ with
    $\nu = \frac d2-1$. Positive terms, summed in their logarithms: nothing overflows or cancels. Relative error 1e-14.
    O(beta) time and memory for each beta.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        log a_0, the shape of `beta`, in [0, beta].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Series of the modified Bessel function; Funk-Hecke coefficient of degree 0.
    """
    check_count(d, "d", 2)
    beta = check_nonnegative(beta, "beta")
    check_between(beta, "beta", 0, LARGEST_BETA, "The series has about beta terms.")
    return np.vectorize(_log_series, otypes=[float])(beta, d)


def output_length(beta: Numbers, *, d: int) -> np.ndarray:
    r"""Length of the output, which is $r\,q$ for the query q: $r(\beta) = I_{d/2}(\beta)/I_{d/2-1}(\beta)$.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        r, the shape of `beta`, in [0, 1): beta/d for small beta, 1 - (d-1)/(2 beta) for large. Relative error 1e-13.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        $r = (\log a_0)'$; Funk-Hecke, degree 1.
    """
    return np.asarray(check_nonnegative(beta, "beta") * growth_rates(1, beta=beta, d=d) / (d - 1))


def row_entropy(beta: Numbers, *, n: Numbers, d: int) -> np.ndarray:
    r"""Entropy of a row of attention, $H = \log n+\log a_0(\beta)-\beta r(\beta)$.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        n: Number of keys, >= 2; broadcasts.
        d: Dimension of the ambient space, >= 2.

    Returns:
        H in nats, the broadcast shape, at most log n. Absolute error below 1e-14 (1 + beta). Below about 1 few
        keys hold all the weight, and the integral no longer speaks for their sum.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        $H = \log Z-\beta\langle q,y\rangle$.
    """
    size = check_size(n)
    bent = log_partition(beta, d=d) - np.asarray(beta, dtype=float) * output_length(beta, d=d)
    return np.asarray(np.log(size) + bent)


def participation_ratio(beta: Numbers, *, n: Numbers, d: int) -> np.ndarray:
    r"""Number of keys that share the weight, $1/\sum_jA_j^2 = n\,a_0(\beta)^2/a_0(2\beta)$.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        n: Number of keys, >= 2; broadcasts.
        d: Dimension of the ambient space, >= 2.

    Returns:
        The ratio, the broadcast shape, at most n. Below about 1 the integral no longer speaks for the sum.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        $\sum_je^{2\beta\langle q,k_j\rangle} = n\,a_0(2\beta)$.
    """
    bent = 2 * log_partition(beta, d=d) - log_partition(2 * np.asarray(beta, dtype=float), d=d)
    return np.asarray(np.exp(np.log(check_size(n)) + bent))


def selectivity_scale(n: Numbers, d: Numbers) -> np.ndarray:
    r"""Scale of beta at which single keys take a finite share of the weight, $n^{2/(d-1)}$.

    The nearest of n keys is at $1-\langle q,k\rangle$ of order $n^{-2/(d-1)}$. Below it attention is an average over
    a cap, above it one key. In fixed d this replaces log n, the scale of dimensions that grow like log n.

    Args:
        n: Number of keys, >= 2, any shape.
        d: Dimension of the ambient space, >= 2; broadcasts.

    Returns:
        The scale, the broadcast shape; inf where it exceeds 1e308.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        "Scaling limits of long-context transformers" (2026), arXiv:2605.08505; constants of order 1 are free.
    """
    power = 2 / (check_size(d, "d") - 1)
    with np.errstate(over="ignore"):
        return np.asarray(check_size(n) ** power)


class NearEquiangular(NamedTuple):
    """Means over the outputs of random tokens around a common direction.

    Attributes:
        cosine: Cosine of two outputs.
        self_weight: Weight of a token on itself, A_ii.
    """

    cosine: np.ndarray
    self_weight: np.ndarray


def near_equiangular(rho: Numbers, *, n: Numbers, beta: Numbers, d: int) -> NearEquiangular:
    r"""Attention over tokens $x_i = \sqrt\rho\,e+\sqrt{1-\rho}\,g_i$, with $g_i$ uniform on $S^{d-1}$ orthogonal to e.

    With $b = \beta(1-\rho)$: $A = [1+(n-1)a_0(b)e^{-b}]^{-1}$, $\pi = \frac{a_0(2b)}{(n-1)a_0(b)^2}$ the inverse
    participation ratio, and $|y|^2 = \rho+(1-\rho)\{A^2+2A(1-A)r+(1-A)^2[r^2+(1-r^2)\pi]\}$, r = r(b);
    $C = \frac{nm-|y|^2}{(n-1)|y|^2}$ with $m = \rho+(1-\rho)/n$. As $d\to\infty$ it is `long_context.output_cosine`.
    Relative errors of order $\pi$, the annealed mean for the quenched one.

    Args:
        rho: Mean cosine of the tokens, in [0, 1], any shape.
        n: Number of tokens, >= 2; broadcasts.
        beta: Inverse temperature, >= 0; broadcasts.
        d: Dimension of the sphere's space, >= 2; with e, tokens need d + 1.

    Returns:
        Cosine and self-weight, each of the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Model: Chen, Lin, Polyanskiy, Rigollet, "Critical attention scaling in long-context transformers" (2025),
        Assumption 2. Formulas derived: integrals for sums over the other tokens.
    """
    rho, beta, n = check_finite(rho, "rho"), check_nonnegative(beta, "beta"), check_size(n)
    check((rho >= 0) & (rho <= 1), "rho", "lie in [0, 1]", rho)
    b = beta * (1 - rho)
    log_a, r = log_partition(b, d=d), output_length(b, d=d)
    own = np.asarray(1 / (1 + (n - 1) * np.exp(log_a - b)))
    shared = np.minimum(np.exp(log_partition(2 * b, d=d) - 2 * log_a) / (n - 1), 1)
    others = r**2 + (1 - r**2) * shared
    square = rho + (1 - rho) * (own**2 + 2 * own * (1 - own) * r + (1 - own) ** 2 * others)
    cosine = (1 + (n - 1) * rho - square) / ((n - 1) * square)
    return NearEquiangular(*np.broadcast_arrays(cosine, own))


def random_energy_threshold(density: Numbers) -> np.ndarray:
    r"""Critical $\gamma(1-\rho)$ of the tokens of `near_equiangular` in dimension $d = D\log n$, for $n\to\infty$.

    A heuristic of the random energy model, not a theorem: the mass on other tokens is $n^\Phi$,
    $\Phi(g) = 1+gs+\frac D2\log(1-s^2)$ at its maximum $g = \frac{Ds}{1-s^2}$, and a token keeps itself iff
    $g > \Phi(g)$. With $s = \tanh u$ the root is $g = \frac D2\sinh2u$ where
    $\log\cosh u+\frac{1-e^{-2u}}2 = \frac1D$. At n = 2048 real layers turn within 2e-4 of it, for D = 4 and 16.

    Args:
        density: D = d / log n, > 0, any shape.

    Returns:
        The threshold, the shape of `density`, above 1, which is its limit for large D; inf where it exceeds 1e308.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived; method of Derrida, "Random-energy model" (1981).
    """
    density = check_positive(density, "density")
    u = 1 / density
    for _ in range(12):  # Newton's steps from above, on a function of slope 0.79 to 1
        tail = -np.expm1(-2 * u) / 2
        height = u + np.log1p(np.exp(-2 * u)) - np.log(2) + tail
        u = u - (height - 1 / density) / (np.tanh(u) + np.exp(-2 * u))
    with np.errstate(over="ignore"):
        return np.asarray(density / 2 * np.sinh(2 * u))


def _log_series(beta: float, d: int) -> float:
    """Logarithm of the series of a_0, up to terms e^-50 below the largest."""
    if beta == 0:
        return 0.0
    peak = beta**2 / (d + np.hypot(d, 2 * beta))
    k = np.arange(1, int(peak + 10 * np.sqrt(peak) + 60))
    logs = np.cumsum(2 * (np.log(beta) - np.log(2)) - np.log(k) - np.log(k - 1 + d / 2))
    top = max(float(logs.max()), 0.0)
    rest = float(np.exp(logs - top).sum())
    return float(np.log1p(rest)) if top == 0 else top + float(np.log(rest + np.exp(-top)))
