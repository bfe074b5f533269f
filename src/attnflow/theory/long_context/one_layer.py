r"""One layer over a long context: n tokens of equal cosine, logits scaled by $\beta = \gamma\log n$, for every n.

Attention keeps tokens equiangular, so a layer is a map of one number, their cosine. Its limit in n jumps at
$\gamma_c = 1/(1-\rho)$, from collapse to the identity; all finite n are here too. Q = K = V = I, unit tokens.
Counts of tokens may be arrays, and as large as a float. Many layers: `escape`. Random tokens: `uniform_keys`.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from attnflow.theory.equiangular_layer import (
    attend,
    check_eta,
    check_size,
    check_tokens,
    factors,
    weights,
)
from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_finite,
    check_nonnegative,
    check_positive,
    numbers,
)


def output_gap(
    rho: Numbers, *, n: Numbers, beta: Numbers, eta: Numbers | None = None
) -> np.ndarray:
    r"""Gap $1-C_n$ between the outputs of a layer, accurate relative to itself down to 1e-300.

    With $\Delta = (E-1)/(E+n-1)$, $E = e^{\beta(1-\rho)}$, $m = \rho+(1-\rho)/n$:
    $1-C_n = \frac{s^2(1-\rho)}{s^2(1-m)+c^2m}$, where $s = \Delta$, $c = 1$ for the attention branch and
    $s = 1+\eta\Delta$, $c = 1+\eta$ for a block $y = x+\eta\,\mathrm{ATT}(x)$. Exact; E never overflows.

    Args:
        rho: Common cosine of the inputs, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2; broadcasts.
        beta: Inverse temperature, finite, any sign; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        1 - C_n, the broadcast shape, in [0, n/(n-1)]; NaN where the outputs vanish (the simplex at beta = 0).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        One row of attention, summed. Its limit: Chen, Lin, Polyanskiy, Rigollet, "Critical attention scaling in
        long-context transformers" (2025).
    """
    gap, mean, n = check_tokens(rho, n)
    return np.asarray(attend(gap, mean, n, check_finite(beta, "beta"), check_eta(eta))[0])


def output_cosine(
    rho: Numbers, *, n: Numbers, beta: Numbers, eta: Numbers | None = None
) -> np.ndarray:
    r"""Common cosine $C_n$ of the outputs of a layer, to 2e-16.

    Args:
        rho: Common cosine of the inputs, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2; broadcasts.
        beta: Inverse temperature, finite, any sign; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        C_n, the broadcast shape; above rho for beta > 0, at most 1. NaN where the outputs vanish.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `output_gap`.
    """
    return np.asarray(1 - output_gap(rho, n=n, beta=beta, eta=eta))


def output_norm(rho: Numbers, *, n: Numbers, beta: Numbers) -> np.ndarray:
    r"""Length of an output of attention, $|\mathrm{ATT}(x_i)|^2 = \Delta^2+(1-\Delta^2)m$.

    Args:
        rho: Common cosine of the inputs, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2; broadcasts.
        beta: Inverse temperature, finite, any sign; broadcasts.

    Returns:
        Length, the broadcast shape, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `output_gap`.
    """
    gap, mean, n = check_tokens(rho, n)
    return np.asarray(np.sqrt(attend(gap, mean, n, check_finite(beta, "beta"))[2]))


def logit_scale(gamma: Numbers, n: Numbers) -> np.ndarray:
    r"""Inverse temperature $\beta = \gamma\log n$ of a layer over n tokens.

    Args:
        gamma: Scale, finite and >= 0, any shape.
        n: Number of tokens, >= 2; broadcasts.

    Returns:
        beta, the broadcast shape.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 6.3.
    """
    return np.asarray(check_nonnegative(gamma, "gamma") * np.log(check_size(n)))


def critical_gamma(rho: Numbers, *, square: Numbers = 1.0) -> np.ndarray:
    r"""Scale at which one layer turns from collapse to the identity, $\gamma_c = 1/(q-\rho)$.

    There a token weighs itself as much as all others together: $e^{\beta(q-\rho)} = n$.

    Args:
        rho: Common inner product of the tokens, below `square`, any shape.
        square: Common squared length q, > 0; broadcasts.

    Returns:
        gamma_c, the broadcast shape, > 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Thm 6.
    """
    rho, square = np.broadcast_arrays(check_finite(rho, "rho"), check_positive(square, "square"))
    check(rho < square, "rho", "lie below `square`", rho, "Equal tokens are never told apart.")
    return np.asarray(1 / (square - rho))


def limit_cosine(rho: Numbers, gamma: Numbers, *, eta: Numbers | None = None) -> np.ndarray:
    r"""Limit of $C_n$ as n grows at fixed gamma: collapse, one value at $\gamma_c$, the identity.

    $1,\ \frac{4\rho}{1+3\rho},\ \rho$ for $\gamma$ below, at and above $\gamma_c$ (within rounding). A block of step
    eta never collapses in one layer: $\frac{(1+\eta)^2\rho}{1+2\eta\rho+\eta^2\rho}$,
    $\frac{(1+\eta)^2\rho}{(1+\eta/2)^2(1-\rho)+(1+\eta)^2\rho}$, $\rho$.
    Reached at the speed of `limit_correction`, a small power of n.

    Args:
        rho: Common cosine, strictly between 0 and 1, any shape.
        gamma: Scale, >= 0; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        The limit, the broadcast shape, in [rho, 1].

    Raises:
        ValueError: If an argument is out of range. Orthogonal tokens turn at gamma = 1/2 already.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Thm 6, the attention branch.
    """
    rho, side = _check_regime(rho, gamma)
    return _cosine_of_delta((1 + side) / 2, rho, check_eta(eta))


def limit_correction(rho: Numbers, gamma: Numbers, n: Numbers) -> np.ndarray:
    r"""Leading term of $C_n$ minus its limit, for the attention branch.

    Below $\gamma_c$, with $g = \gamma(1-\rho)$: $-\frac{1-\rho}\rho\left(\frac{n^g-1}n\right)^2$; at it
    $\frac{(1-\rho)(3+\rho)}{(1+3\rho)^2n}$; above $2\rho(1-\rho)n^{1-g}$. The next term is smaller by the factor
    $n^{g-1}$, 1/n, $n^{1-g}$: for $\gamma$ within $1/\log n$ of $\gamma_c$ take `critical_window`.

    Args:
        rho: Common cosine, strictly between 0 and 1, any shape.
        gamma: Scale, >= 0; broadcasts.
        n: Number of tokens, >= 2; broadcasts.

    Returns:
        The term, the broadcast shape: negative below gamma_c, positive from it on.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Expansion of `output_gap` in n.
    """
    rho, side = _check_regime(rho, gamma)
    n, gamma = check_size(n), numbers(gamma, "gamma")
    log_n = np.log(n)
    lead = gamma * (1 - rho) * log_n
    with np.errstate(over="ignore"):
        below = -(1 - rho) / rho * (np.expm1(lead) / n) ** 2
    above = 2 * rho * (1 - rho) * np.exp(log_n - lead)
    at = (1 - rho) * (3 + rho) / (1 + 3 * rho) ** 2 / n
    return np.asarray(np.where(side == 0, at, np.where(side < 0, below, above)))


def critical_window(tau: Numbers, rho: Numbers, *, eta: Numbers | None = None) -> np.ndarray:
    r"""Limit of $C_n$ inside the window $\gamma = \frac{1+\tau/\log n}{1-\rho}$, where all n fall on one curve.

    $\Delta\to1/(1+e^{-\tau})$, so $C\to\rho/(\Delta^2(1-\rho)+\rho)$; errors O(1/n). The block of step eta has
    $\frac{(1+\eta)^2\rho}{(1+\eta\Delta)^2(1-\rho)+(1+\eta)^2\rho}$.

    Args:
        tau: Place in the window, any real number or +-inf, any shape.
        rho: Common cosine, strictly between 0 and 1; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        The limit, the broadcast shape, from `limit_cosine` below (tau = -inf) to that above (inf).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `output_gap` at $E = ne^\tau$.
    """
    tau = numbers(tau, "tau")
    check(~np.isnan(tau), "tau", "not be NaN", tau)
    return _cosine_of_delta(expit(tau), _check_positive_cosine(rho), check_eta(eta))


def scale_for_cosine(cosine: Numbers, rho: Numbers, *, n: Numbers) -> np.ndarray:
    r"""Inverse temperature beta >= 0 that turns the cosine rho into a wanted one, by attention alone.

    $\beta = \frac{1}{1-\rho}\log(1+\frac{n\Delta}{1-\Delta})$, $\frac{\Delta^2}{1-\Delta^2} = \frac{m(1-C)}{C-\rho}$.

    Args:
        cosine: Wanted cosine C of the outputs, rho < C <= 1, any shape.
        rho: Common cosine of the inputs, strictly between -1/(n-1) and 1; broadcasts.
        n: Number of tokens, >= 2; broadcasts.

    Returns:
        beta, the broadcast shape, >= 0.

    Raises:
        ValueError: If an argument is out of range; attention reaches every cosine in (rho, 1], and no other.

    Source:
        Inverse of `output_gap`.
    """
    gap, mean, n = check_tokens(rho, n)
    cosine, rho, gap, mean, n = np.broadcast_arrays(
        check_finite(cosine, "cosine"), numbers(rho, "rho"), gap, mean, n
    )
    remedy = "Both ends are fixed points."
    check((gap > 0) & (mean > 0), "rho", "lie strictly between -1/(n-1) and 1", rho, remedy)
    ok = (cosine > rho) & (cosine <= 1)
    if not ok.all():
        low = rho[~ok][0]
        remedy = "Attention with beta >= 0 reaches no other cosine."
        check(
            ok, "cosine", f"lie in ({low:.6g}, 1], above the cosine of the inputs", cosine, remedy
        )
    odds = mean * (1 - cosine) / (cosine - rho)
    delta = np.sqrt(odds / (1 + odds))
    return np.asarray(np.log1p(n * delta * (1 + delta) * (1 + odds)) / gap)


def gamma_for_cosine(cosine: Numbers, rho: Numbers, *, n: Numbers) -> np.ndarray:
    r"""Scale gamma >= 0 that turns the cosine rho into a wanted one: `scale_for_cosine` over log n.

    Args:
        cosine: Wanted cosine C of the outputs, rho < C <= 1, any shape.
        rho: Common cosine of the inputs, strictly between -1/(n-1) and 1; broadcasts.
        n: Number of tokens, >= 2; broadcasts.

    Returns:
        gamma, the broadcast shape, >= 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Inverse of `output_gap`.
    """
    return np.asarray(scale_for_cosine(cosine, rho, n=n) / np.log(check_size(n)))


class SelfJacobian(NamedTuple):
    """Singular values of `self_jacobian`, each of the broadcast shape.

    Attributes:
        outside: Of directions orthogonal to all tokens; multiplicity d - n.
        inside: Of directions that move weight between the other tokens, sum unchanged; multiplicity n - 2.
        plane: Of the direction towards the sum of the other tokens; multiplicity 1.
    """

    outside: np.ndarray
    inside: np.ndarray
    plane: np.ndarray


def self_jacobian(rho: Numbers, *, n: Numbers, beta: Numbers) -> SelfJacobian:
    r"""Singular values of the derivative of an output's direction by its own token, on tangent vectors.

    $\partial\theta_i/\partial x_i = P_{\theta_i}(A_{ii}I+\beta\,\mathrm{Cov}_i)P_{x_i}/|y_i|$ has the values
    $\frac{A_{ii}}{|y|}$, $\frac{A_{ii}+\beta w(1-\rho)}{|y|}$ and
    $\frac{A_{ii}[\Delta+nmw(1+\beta(1-\rho))]}{|y|^2}$; w is the weight on each other token, $\Delta$ and m as in
    `output_gap`. As n grows all vanish below $\gamma_c$ and tend to 1 above; at it the last grows like log n.

    Args:
        rho: Common cosine of the tokens, in [-1/(n-1), 1], any shape.
        n: Number of tokens, >= 2; broadcasts.
        beta: Inverse temperature, finite, any sign; broadcasts.

    Returns:
        The three values, >= 0; for d = n there is no `outside`, for n = 2 no `inside`. Not finite where outputs vanish.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived: the tangent parts of the other tokens are equiangular, with cosine rho/(1+rho).
    """
    gap, mean, n = check_tokens(rho, n)
    beta = check_finite(beta, "beta")
    own, other, delta = weights(beta * gap, n)
    square = attend(gap, mean, n, beta)[2]
    turn = beta * other * gap
    with np.errstate(divide="ignore", invalid="ignore"):
        return SelfJacobian(
            *np.broadcast_arrays(
                own / np.sqrt(square),
                np.abs(own + turn) / np.sqrt(square),
                np.abs(own * (delta + n * mean * (other + turn))) / square,
            )
        )


def _check_positive_cosine(rho: Numbers) -> np.ndarray:
    """Cosine strictly between 0 and 1."""
    rho = check_finite(rho, "rho")
    remedy = "Orthogonal tokens turn at gamma = 1/2: take `output_cosine`."
    check((rho > 0) & (rho < 1), "rho", "lie strictly between 0 and 1", rho, remedy)
    return rho


def _check_regime(rho: Numbers, gamma: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Cosine, and -1, 0 or 1 for gamma below, at or above its critical value, within rounding."""
    rho = _check_positive_cosine(rho)
    excess = check_nonnegative(gamma, "gamma") * (1 - rho) - 1
    near = np.abs(excess) < 4 * np.finfo(float).eps
    return rho, np.where(near, 0.0, np.sign(excess))


def _cosine_of_delta(delta: Number, rho: Number, eta: Number | None) -> np.ndarray:
    """Output cosine of infinitely many tokens, for which m = rho."""
    spread, common = factors(delta, eta)
    along, across = rho, (spread / common) ** 2 * (1 - rho)
    return np.asarray(along / (across + along))
