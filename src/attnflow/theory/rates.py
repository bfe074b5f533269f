r"""Rates and bounds of convergence to one point: sharp at consensus, guaranteed from a cone, proved on the circle."""

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import expit

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_between,
    check_choice,
    check_count,
    check_finite,
    check_nonnegative,
    check_positive,
    check_times,
    one,
)

MODELS = ("sa", "usa", "causal")


def consensus_rate(
    model: str, beta: Number, value: Number = 1.0, *, eta: Number | None = None
) -> float:
    r"""Rate at which the slowest displacement from consensus decays, $|x_i - x^*| \sim e^{-\lambda t}$.

    $\lambda = c$ (SA), $c\,e^\beta$ (USA), $c/2$ (causal SA: token k has rate $c(1-1/k)$), for V = c I and any
    Q, K. Discrete Post-LN layers of step eta contract by $1/(1+\eta\lambda)$ (causal:
    $(1+\eta c/2)/(1+\eta c)$), so $\lambda = \log(1+\eta\lambda)/\eta$ per unit of nominal time.

    Args:
        model: "sa", "usa" or "causal".
        beta: Inverse temperature, finite, any sign.
        value: Scalar value matrix V = value * I; negative values repel, at a negative rate.
        eta: Step of the layers, > 0. None is the flow.

    Returns:
        Rate per unit time; inf where e^beta overflows.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Linearization at consensus: attention averages displacements uniformly, the projection keeps their rest.
    """
    check_choice(model, "model", MODELS)
    beta, value = one(check_finite, beta, "beta"), one(check_finite, value, "value")
    with np.errstate(over="ignore"):
        pull = value * float(np.exp(beta)) if model == "usa" else value
    kept = pull / 2 if model == "causal" else 0.0
    if eta is None:
        return pull - kept
    eta = one(check_positive, eta, "eta")
    check(eta * pull > -1, "eta", "satisfy 1 + eta * pull > 0", eta, "Take a smaller step.")
    return float((np.log1p(eta * pull) - np.log1p(eta * kept)) / eta)


def cosine_rate(
    model: str, beta: Number, value: Number = 1.0, *, eta: Number | None = None
) -> float:
    r"""Rate at which 1 - cosine decays at consensus: twice `consensus_rate`, as $1-\cos = |x_i-x_j|^2/2$.

    Args:
        model: "sa", "usa" or "causal".
        beta: Inverse temperature, finite, any sign.
        value: Scalar value matrix V = value * I.
        eta: Step of the layers, > 0. None is the flow.

    Returns:
        Rate per unit time.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `consensus_rate`.
    """
    return 2 * consensus_rate(model, beta, value, eta=eta)


def density_collapse_rate(model: str, beta: Number, *, d: int) -> float:
    r"""Rate of $W_2(\mu_t,\delta_{x^*})\sim e^{-\lambda t}$ of a density positive everywhere on the sphere.

    Slower than consensus may be: mass within $s$ of the antipode, $\sim s^{d-1}$, leaves it at rate 1 (SA) or
    $e^{-\beta}$ (USA) while all else has gathered, so $W_2^2$ holds a term $e^{-(d-1)rt}$, r the rate there,
    beside the $e^{-2\lambda_ct}$ of consensus: $\lambda = \min(\lambda_c, \frac{d-1}2r)$. For SA: 1/2 on the
    circle, 1 beyond (d = 3 with a factor $\sqrt t$). A density within an open hemisphere has $\lambda_c$.

    Args:
        model: "sa" or "usa".
        beta: Inverse temperature, finite, >= 0.
        d: Dimension of the ambient space, >= 2.

    Returns:
        Rate per unit time.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived: $\tan\frac\theta2$ of the angle to x* decays exponentially in the field of a point (SA).
    """
    check_choice(model, "model", ("sa", "usa"))
    check_count(d, "d", 2)
    beta = one(check_nonnegative, beta, "beta")
    escape = 1.0 if model == "sa" else float(np.exp(-beta))
    return min(consensus_rate(model, beta), (d - 1) / 2 * escape)


def cone_bound(ts: Numbers, alpha0: Number, *, n: int, beta: Number) -> np.ndarray:
    r"""Lower bound on the smallest cosine of n tokens under (SA) that start with no obtuse angle.

    Solves $\dot\alpha = \frac2n\alpha(1-\alpha)e^{-\beta(1-\alpha)}$ to 1e-11: if $\min_{ij}\langle x_i,x_j\rangle$
    is alpha0 >= 0 at the start, it stays above alpha(t).

    Args:
        ts: Strictly increasing times, shape (t,). ts[0] is the time of `alpha0`.
        alpha0: Smallest cosine at the start, in [0, 1].
        n: Number of tokens, >= 2.
        beta: Inverse temperature, >= 0.

    Returns:
        alpha(ts), shape (t,), nondecreasing.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The closest pair to losing its angle is pulled by all others with weights >= e^(-beta(1-alpha))/n.
    """
    check_count(n, "n", 2)
    ts, alpha0 = check_times(ts), one(check_between, alpha0, "alpha0", 0, 1)
    beta = one(check_nonnegative, beta, "beta")
    if alpha0 in (0.0, 1.0) or len(ts) == 1:
        return np.full_like(ts, alpha0)
    start = np.log(alpha0) - np.log1p(-alpha0)

    def climb(t, y):
        return 2 / n * np.exp(-beta * expit(-y))

    solution = solve_ivp(
        climb, (ts[0], ts[-1]), [start], method="DOP853", t_eval=ts, rtol=1e-12, atol=1e-13
    )
    return expit(solution.y[0])


def circle_criterion(beta: Number) -> float:
    r"""Ratio of both sides of a sufficient criterion for synchronization on the circle under (USA).

    With $f = e^{\beta\cos x}\sin x$ and $\tau$ its maximizer, $\cos\tau = \beta\sin^2\tau$:
    $\tau\int|f'''|_+ \big/ 4(1+\frac{\tau}{2\pi})f'(0)$. At most 1 suffices: every other critical point is
    unstable. It crosses 1 at beta = -0.192, slightly better than the published -0.16.

    Args:
        beta: Inverse temperature, finite, any sign; |beta| <= 300.

    Returns:
        Ratio, > 0.

    Raises:
        ValueError: If beta is out of range.

    Source:
        Polyanskiy, Rigollet, Yao, "Synchronization of mean-field models on the circle" (2025), evaluated here.
    """
    b = one(check_finite, beta, "beta")
    check(abs(b) <= 300, "beta", "satisfy |beta| <= 300", b)
    # f''' = e^(b c) (-c - 3 b c^2 + (1-c^2)(4 b + 6 b^2 c) - b^3 (1-c^2)^2), c = cos x
    quartic = np.array([-(b**3), -6 * b**2, 2 * b**3 - 7 * b, 6 * b**2 - 1, 4 * b - b**3])
    roots = np.roots(quartic)
    c = np.concatenate([[1.0], np.sort(roots[np.abs(roots.imag) < 1e-9].real)[::-1], [-1.0]])
    c = c[np.abs(c) <= 1]
    s = np.sqrt(1 - c**2)
    second = np.exp(b * (c - 1)) * (-s - 3 * b * s * c + b**2 * s**3)  # f'' / f'(0)
    rise = 2 * np.maximum(np.diff(second), 0).sum()
    tau = np.arccos(2 * b / (1 + np.sqrt(1 + 4 * b**2)))
    return float(tau * rise / (4 * (1 + tau / (2 * np.pi))))
