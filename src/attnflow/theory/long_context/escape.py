r"""Equiangular tokens through many long-context layers: collapse at once, or a slow drift that ends in it.

A layer above $\gamma_c = 1/(1-\rho)$ is almost the identity, but $\rho$ drifts up, and $\gamma_c$ with it, until the
tokens escape: long contexts are metastable, not stable. One layer: `one_layer`.
"""

import numpy as np

from attnflow.theory.equiangular_layer import attend, check_eta, check_size, check_tokens
from attnflow.theory.errors import Numbers, check, check_count, check_finite, check_nonnegative


def gaps(
    rho0: Numbers, *, layers: int, n: Numbers, gamma: Numbers, eta: Numbers | None = None
) -> np.ndarray:
    r"""Gap $1-\rho$ after each layer of $\beta = \gamma\log n$, accurate relative to itself down to 1e-300.

    Iterates `output_gap`. Exact: outputs, normalised, are equiangular again.

    Args:
        rho0: Common cosine at the start, in [-1/(n-1), 1], any shape.
        layers: Number of layers, >= 1.
        n: Number of tokens, >= 2; broadcasts.
        gamma: Scale, >= 0; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        1 - rho, shape (layers + 1, ...), the start first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `output_gap`, iterated.
    """
    check_count(layers, "layers", 1)
    state, n, beta, eta = _start(rho0, n, gamma, eta)
    course = [state[0]]
    for _ in range(layers):
        state = attend(*state, n, beta, eta)[:2]
        course.append(state[0])
    return np.stack(np.broadcast_arrays(*course))


def cosines(
    rho0: Numbers, *, layers: int, n: Numbers, gamma: Numbers, eta: Numbers | None = None
) -> np.ndarray:
    r"""Common cosine after each layer of $\beta = \gamma\log n$; see `gaps` for what is left of it below rounding.

    Args:
        rho0: Common cosine at the start, in [-1/(n-1), 1], any shape.
        layers: Number of layers, >= 1.
        n: Number of tokens, >= 2; broadcasts.
        gamma: Scale, >= 0; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.

    Returns:
        rho, shape (layers + 1, ...), the start first.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `long_context.output_cosine`, iterated.
    """
    return np.asarray(1 - gaps(rho0, layers=layers, n=n, gamma=gamma, eta=eta))


def layers_to_escape(
    rho0: Numbers,
    gamma: Numbers,
    *,
    n: Numbers,
    rho_max: Numbers = 0.99,
    eta: Numbers | None = None,
    max_layers: int = 100_000,
) -> np.ndarray:
    r"""Number of layers after which the cosine is at least rho_max, counted layer by layer.

    Args:
        rho0: Common cosine at the start, in [-1/(n-1), 1], any shape.
        gamma: Scale, >= 0; broadcasts.
        n: Number of tokens, >= 2; broadcasts.
        rho_max: Cosine that counts as collapsed, < 1; broadcasts.
        eta: Step of the residual block, >= 0; broadcasts. None is the attention branch alone.
        max_layers: Where the count ends, >= 1.

    Returns:
        Whole numbers, the broadcast shape; inf where max_layers are not enough.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `gaps`, counted. The survey (Rigollet, 2025, Sec. 6.3) calls the layer above gamma_c stable for all time.
    """
    check_count(max_layers, "max_layers", 1)
    rho_max = check_finite(rho_max, "rho_max")
    check(rho_max < 1, "rho_max", "lie below 1", rho_max)
    state, n, beta, eta = _start(rho0, n, gamma, eta)
    step = () if eta is None else eta.shape
    shape = np.broadcast_shapes(rho_max.shape, state[0].shape, beta.shape, step)
    counts = np.full(shape, np.inf)
    for layer in range(max_layers + 1):
        counts[(state[0] <= 1 - rho_max) & np.isinf(counts)] = layer
        if layer == max_layers or np.isfinite(counts).all():
            break
        state = attend(*state, n, beta, eta)[:2]
    return counts


def escape_estimate(rho0: Numbers, gamma: Numbers, *, n: Numbers) -> np.ndarray:
    r"""Leading estimate of the layers to escape, $L^* = \frac{n^{\gamma(1-\rho_0)-1}}{2\rho_0(1-\rho_0)\gamma\log n}$.

    The drift per layer is $2\rho(1-\rho)n^{1-\gamma(1-\rho)}$, and grows by e while $\rho$ gains $1/(\gamma\log n)$.
    The count exceeds it by $\frac12\log L^*$ and the few layers of the last rush; further orders are relative, the
    first $-\frac{1-2\rho_0}{\rho_0(1-\rho_0)\gamma\log n}$: at $\rho_0 = 1/2$ it vanishes.

    Args:
        rho0: Common cosine at the start, strictly between 0 and 1, any shape.
        gamma: Scale, > 0; broadcasts. Says something above 1/(1 - rho0).
        n: Number of tokens, >= 2; broadcasts.

    Returns:
        L*, the broadcast shape, real; inf where it exceeds 1e308.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived: the drift of `long_context.limit_correction`, integrated with its exponent linearised at rho0.
    """
    rho0, gamma = check_finite(rho0, "rho0"), check_nonnegative(gamma, "gamma")
    check((rho0 > 0) & (rho0 < 1), "rho0", "lie strictly between 0 and 1", rho0)
    check(gamma > 0, "gamma", "be > 0", gamma)
    beta = gamma * np.log(check_size(n))
    with np.errstate(over="ignore"):
        return np.asarray(np.exp((1 - rho0) * beta - beta / gamma) / (2 * rho0 * (1 - rho0) * beta))


def _start(
    rho0: Numbers, n: Numbers, gamma: Numbers, eta: Numbers | None
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, np.ndarray | None]:
    """Gap and mean of the start, n, beta and eta."""
    gap, mean, n = check_tokens(rho0, n, "rho0")
    beta = np.asarray(check_nonnegative(gamma, "gamma") * np.log(n))
    return (gap, mean), n, beta, check_eta(eta)
