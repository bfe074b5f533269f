r"""Phase transitions of noisy transformers: where the uniform measure gives way to order, and how.

With noise $\sqrt{2/\kappa}\,dW$ the uniform measure is stable up to a threshold $\kappa_c$. Beyond, tokens
agree on a direction, with order parameter $R = |\int x\,\mu|$, which sets in continuously or with a jump;
far from the threshold, see `gibbs`.
"""

import numpy as np
from scipy.optimize import brentq

from attnflow.theory.errors import (
    Number,
    Numbers,
    check,
    check_choice,
    check_count,
    check_nonnegative,
    check_positive,
)
from attnflow.theory.stability import MODELS, growth_rates


def kuramoto_order_parameter(kappa: Numbers, *, d: int = 2) -> np.ndarray:
    r"""Order parameter at beta = 0: the root of $r = I_{d/2}(\kappa r)/I_{d/2-1}(\kappa r)$.

    0 up to kappa = d; beyond, the one positive root. Noisy Kuramoto for d = 2, the mean-field XY model.

    Args:
        kappa: Noise $\sqrt{2/\kappa}\,dW$, finite and > 0, any shape.
        d: Dimension of the ambient space, >= 2.

    Returns:
        r, the shape of `kappa`, in [0, 1).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Bertini, Giacomin, Pakdaman, "Dynamical aspects of mean field plane rotators and the Kuramoto model" (2010).
    """
    check_count(d, "d", 2)
    kappa = check_positive(kappa, "kappa")
    return np.vectorize(lambda k: _kuramoto(float(k), d), otypes=[float])(kappa)


def critical_kappa(
    beta: Numbers,
    *,
    d: int,
    model: str = "sa",
    l: int = 1,  # noqa: E741
    clock: str = "physical",
) -> np.ndarray:
    r"""Noise at which harmonics of degree l begin to grow on the uniform measure.

    $\kappa_c = \beta/a_l$ (USA), $\beta a_0/a_l$ (SA), a_l as in `stationary.gegenbauer_coefficient`; l = 1 is
    first. At beta = 0 it is d for l = 1, and inf beyond. A branch of other stationary densities starts there.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".
        l: Degree, >= 1.
        clock: Of USA: "physical", or "rescaled" by e^(-beta), which stays above 0 beyond beta = 709.

    Returns:
        kappa_c, the shape of `beta`, > 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        `stability.growth_rates`. Mun, Rosenzweig (2026) write $K_\# = \kappa_c/2$, for noise dW.
    """
    check_count(l, "l", 1)
    rate = growth_rates(l, beta=beta, d=d, model=model, clock=clock)
    with np.errstate(divide="ignore"):
        return np.asarray(l * (l + d - 2) / rate)


def tricritical_beta(d: int) -> float:
    r"""Inverse temperature $\beta_*$ above which the transition of (USA) is discontinuous.

    Root of $I_{d/2+1}(\beta)/I_{d/2}(\beta) = 1/d$, between 1 and 3, which tends to 1 as d grows: where
    `normal_form` changes sign.

    Args:
        d: Dimension of the ambient space, >= 2.

    Returns:
        beta_*, to 1e-12.

    Raises:
        ValueError: If d < 2.

    Source:
        Mun, Rosenzweig (2026).
    """
    check_count(d, "d", 2)

    def excess(beta):
        return _ratios(beta, d)[1] * d - 1

    return float(brentq(excess, 1.0, 3.0, xtol=1e-14, rtol=1e-14))  # pyright: ignore


def normal_form(beta: Numbers, *, d: int = 2, model: str = "sa") -> np.ndarray:
    r"""Coefficient B of the order parameter near the threshold, $0 = (\kappa/\kappa_c-1)R + BR^3 + O(R^5)$.

    $B = \frac{d(1-k)}{d+2}\Big[(d-1)(1-k)\frac\rho{1-\rho} - 1 - dk\Big]$ with $\rho = a_2/a_1$ and $k = a_1/a_0$
    (SA), 0 (USA). Negative: the transition is continuous. Positive: ordered states exist below kappa_c. Under
    (SA) it is negative at every beta and d tried. Relative error 1e-13 beta.

    Args:
        beta: Inverse temperature, >= 0, any shape.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".

    Returns:
        B, the shape of `beta`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Derived: third order in R, where $p_1^2 = 1+Tp_2$ with $T^2 = \frac{2d-2}{d+2}$ for orthonormal zonal
        harmonics. For (USA) it vanishes at `tricritical_beta`.
    """
    check_choice(model, "model", MODELS)
    check_count(d, "d", 2)
    k, rho = _ratios(check_nonnegative(beta, "beta"), d)
    k = k if model == "sa" else 0 * k
    pull = (d - 1) * (1 - k) * rho / (1 - rho) - 1 - d * k
    return np.asarray(d * (1 - k) / (d + 2) * pull)


def threshold_order_parameter(
    beta: Number, kappa: Numbers, *, d: int = 2, model: str = "sa"
) -> np.ndarray:
    r"""Order parameter just above a continuous transition, $\sqrt{(\kappa/\kappa_c-1)/|B|}$; 0 below.

    The error is of relative order $\kappa/\kappa_c-1$.

    Args:
        beta: Inverse temperature, >= 0.
        kappa: Noise, finite and > 0, any shape.
        d: Dimension of the ambient space, >= 2.
        model: "sa" or "usa".

    Returns:
        R, the shape of `kappa`, >= 0.

    Raises:
        ValueError: If an argument is out of range, or the transition is discontinuous.

    Source:
        See `normal_form`.
    """
    bend = normal_form(beta, d=d, model=model)
    remedy = "There the transition is discontinuous: see `gibbs.first_order`."
    check(bend < 0, "beta", "have a negative `normal_form`", beta, remedy)
    excess = check_positive(kappa, "kappa") / critical_kappa(beta, d=d, model=model) - 1
    return np.asarray(np.sqrt(np.maximum(excess, 0) / -bend))


def _kuramoto(kappa: float, d: int) -> float:
    """Root of z = kappa I_{d/2}(z)/I_{d/2-1}(z), z = kappa r; the quotient by z falls."""
    if kappa <= d:
        return 0.0

    def excess(z):
        return kappa * growth_rates(1, beta=z, d=d) / (d - 1) - 1

    z = brentq(excess, 0.0, kappa, xtol=1e-300, rtol=1e-14)  # pyright: ignore
    return float(z) / kappa  # pyright: ignore


def _ratios(beta: Numbers, d: int) -> tuple[np.ndarray, np.ndarray]:
    """a_1/a_0 and a_2/a_1."""
    beta = np.asarray(beta, dtype=float)
    one, two = (growth_rates(l, beta=beta, d=d) for l in (1, 2))  # noqa: E741
    return np.asarray(beta * one / (d - 1)), np.asarray(two * (d - 1) / (one * 2 * d))
