r"""Stationary densities of noisy transformers, and the discontinuous transition between two of them.

They solve $\mu\propto e^{(\kappa/\beta)K*\mu}$ (USA) or $\mu\propto(K*\mu)^{\kappa/\beta}$ (SA),
$K = e^{\beta\langle x,y\rangle}$. Here they depend on one direction alone and are values at heights along it.
The order parameter is prescribed and kappa found: the branch that folds in kappa is a function of R.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, roots_gegenbauer

from attnflow.theory.errors import (
    Number,
    check,
    check_between,
    check_choice,
    check_count,
    check_positive,
    one,
)
from attnflow.theory.noisy import critical_kappa, tricritical_beta
from attnflow.theory.stability import MODELS

LARGEST_BETA = 100.0
"""Inverse temperature up to which densities are solved for."""
LARGEST_D = 1000
"""Dimension up to which densities are solved for."""
LARGEST_STIFFNESS = 2e4
"""Largest second derivative of the potential of a density, which sets its width."""
LEAST_ORDER = 1e-5
"""Order parameters below it count as disorder."""
NEAREST = 1e-4
"""How close to beta_*, relatively, the loop of the first-order transition is resolved."""
STEP = 0.2
"""Step of log(R/(1-R)) along a branch, down to R = 1e-5."""


def order_parameter(
    beta: Number, kappa: Number, *, d: int = 2, model: str = "sa"
) -> float:  # fmt: skip
    r"""Order parameter of the most ordered stationary density; 0 where only the uniform one is left.

    Of the densities that depend on one direction and point there. Relative error 1e-10.

    Args:
        beta: Inverse temperature, from 0 to 100.
        kappa: Noise $\sqrt{2/\kappa}\,dW$, > 0, at most 2e4 e^(-beta) (USA) or 2e4 (SA).
        d: Dimension of the ambient space, 2 to 1000.
        model: "sa" or "usa".

    Returns:
        R, in [0, 1).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 7; Shalova, Schlichting (2024). (SA):
        its drift is $\nabla\frac1\beta\log K*\mu$.
    """
    state = _most_ordered(_check_kernel(beta, d, model), kappa)
    return 0.0 if state is None else state.R


def free_energy(beta: Number, kappa: Number, *, d: int = 2) -> float:
    r"""Free energy of the most ordered stationary density of (USA), less that of the uniform one.

    $F = \kappa^{-1}\int\mu\log\mu - \frac1{2\beta}\iint K\mu\mu$, which never increases; negative where order
    wins. Error 1e-12 of $1/\kappa$. (SA) has no such functional.

    Args:
        beta: Inverse temperature, from 0 to 100.
        kappa: Noise, as for `order_parameter`.
        d: Dimension of the ambient space, 2 to 1000.

    Returns:
        F, finite; 0 where only the uniform density is left.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        See `order_parameter`.
    """
    state = _most_ordered(_check_kernel(beta, d, "usa"), kappa)
    return 0.0 if state is None else state.free_energy


@dataclass(frozen=True)
class FirstOrder:
    """Discontinuous transition of (USA) at one inverse temperature."""

    kappa_c: float
    """Noise at which the uniform density loses stability."""
    kappa_t: float
    """Noise at which both densities have the same free energy, below kappa_c."""
    jump: float
    """Order parameter of the ordered density at kappa_t."""
    kappa_sn: float
    """Lowest noise parameter with an ordered density: the fold."""
    fold: float
    """Order parameter at the fold."""


def first_order(beta: Number, *, d: int = 2) -> FirstOrder:
    r"""Data of the discontinuous transition of (USA): $\kappa_{sn} < \kappa_t < \kappa_c$, a hysteresis loop.

    Args:
        beta: Inverse temperature, above `tricritical_beta(d)`, at most 100, with $\kappa_ce^\beta$ below 1e4.
        d: Dimension of the ambient space, 2 to 1000.

    Returns:
        Noise parameters and order parameters, relative error 1e-9.

    Raises:
        ValueError: If an argument is out of range, or the transition is continuous.

    Source:
        Mun, Rosenzweig (2026): discontinuous above beta_*.
    """
    kernel = _check_kernel(beta, d, "usa")
    start = tricritical_beta(d)
    remedy = f"Up to beta_* = {start:.6g} the transition is continuous."
    check(kernel.beta > start * (1 + NEAREST), "beta", "be above `tricritical_beta`", beta, remedy)
    kappa_c = float(critical_kappa(beta, d=d, model="usa"))
    top = _most_ordered(kernel, kappa_c)
    assert top is not None
    grid, above, equal = _grid(kernel, kappa_c), top, top
    for below in _trace(grid, kernel, top.R):
        if above.free_energy < 0 <= below.free_energy:
            equal = _root(lambda s: s.free_energy * s.kappa, grid, kernel, above, below)
        if below.slope <= 0:
            fold = _root(lambda s: s.slope, grid, kernel, above, below)
            return FirstOrder(kappa_c, equal.kappa, equal.R, fold.kappa, fold.R)
        above = below
    raise RuntimeError(f"No fold was found at beta={kernel.beta:g}.")


@dataclass(frozen=True)
class _Kernel:
    beta: float
    d: int
    model: str


@dataclass(frozen=True)
class _Grid:
    """Heights, their share of the uniform measure, and the kernel between them."""

    t: np.ndarray
    log_share: np.ndarray
    pull: np.ndarray
    """Mean of the kernel over x and y at two heights, see `_kernel_value`."""


@dataclass(frozen=True)
class _State:
    """An ordered density with prescribed R."""

    R: float
    kappa: float
    field: np.ndarray
    """Logarithm of the density over kappa, up to a constant; of USA over kappa e^beta."""
    slope: float
    """Derivative of kappa by R along the branch."""
    free_energy: float


def _check_kernel(beta: Number, d: int, model: str) -> _Kernel:
    """Arguments of a density."""
    check_choice(model, "model", MODELS)
    check_count(d, "d", 2)
    check_between(d, "d", 2, LARGEST_D)
    return _Kernel(one(check_between, beta, "beta", 0, LARGEST_BETA), int(d), model)


def _grid(kernel: _Kernel, kappa: float) -> _Grid:
    """Gauss-Legendre points in the angle, enough for every density up to kappa."""
    beta, d = kernel.beta, kernel.d
    count = 24 + int(5 * np.sqrt(_stiffness(kernel, kappa) + d))
    x, w = np.polynomial.legendre.leggauss(count)
    theta = np.pi * (x + 1) / 2
    log_share = np.log(w) + (d - 2) * np.log(np.sin(theta))
    log_share -= np.logaddexp.reduce(log_share)
    t, side = np.cos(theta), np.sin(theta)
    pull = np.zeros((count, count))
    for xi, share in zip(*_latitudes(beta, d), strict=True):
        product = np.outer(t, t) + xi * np.outer(side, side)
        pull += share * _kernel_value(beta, product)
    return _Grid(t, log_share, pull)


def _kernel_value(beta: float, product: np.ndarray) -> np.ndarray:
    """e^(-beta) e^(beta <x, y>)/beta, less 1/beta where beta is small: constants move no token."""
    if beta >= 1:
        return np.exp(beta * (product - 1)) / beta
    return np.exp(-beta) * (np.expm1(beta * product) / beta if beta > 0 else product)


def _latitudes(beta: float, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines between two points turned about the axis, and their shares."""
    count = 20 + int(5 * np.sqrt(beta))
    if d == 2:
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    if d == 3:
        return np.cos(np.pi * (np.arange(count) + 0.5) / count), np.full(count, 1 / count)
    x, w = roots_gegenbauer(count, (d - 3) / 2)
    return x, w / w.sum()


def _stiffness(kernel: _Kernel, kappa: float) -> float:
    """Largest second derivative of the log density by the angle, that of a point."""
    return kappa * float(np.exp(kernel.beta)) if kernel.model == "usa" else kappa


def _field(grid: _Grid, kernel: _Kernel, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Field of the masses q at the heights, and its derivative by them."""
    field = grid.pull @ q
    if kernel.model == "usa":
        return field, grid.pull
    beta = kernel.beta
    if beta == 0:
        return field, grid.pull
    if beta < 1:
        lift = beta * np.exp(beta) * field
        return np.log1p(lift) / beta, grid.pull * np.exp(beta) / (1 + lift)[:, None]
    mean = beta * field
    return np.log(mean) / beta, grid.pull / mean[:, None]


def _tilt(grid: _Grid, field: np.ndarray, kappa: float) -> tuple[np.ndarray, float]:
    """Masses of the density e^(kappa field), and the log of its partition function."""
    logs = grid.log_share + kappa * field
    log_z = float(np.logaddexp.reduce(logs))
    return np.exp(logs - log_z), log_z


def _guess(grid: _Grid, kernel: _Kernel, order: float) -> tuple[np.ndarray, float]:
    """Field and kappa of a density near the solution of a given order parameter."""

    def match(field):
        excess = lambda log: _tilt(grid, field, np.exp(log))[0] @ grid.t - order
        return float(np.exp(brentq(excess, -20, 40, xtol=1e-6)))  # pyright: ignore

    field = grid.t
    for _ in range(4):
        kappa = match(field)
        field = _field(grid, kernel, _tilt(grid, field, kappa)[0])[0]
    return field, match(field)


def _solve(grid: _Grid, kernel: _Kernel, order: float, field: np.ndarray, kappa: float) -> _State:
    """Density of a given order parameter and its kappa, by Newton's method on both."""
    size, eye = np.inf, np.eye(len(field))
    for _ in range(50):
        q, log_z = _tilt(grid, field, kappa)
        new, response = _field(grid, kernel, q)
        spread = kappa * (np.diag(q) - np.outer(q, q))
        bend, tilt = response @ spread, spread @ field
        matrix = np.block(
            [[eye - bend, -(response @ tilt)[:, None]], [grid.t @ spread, grid.t @ tilt]]
        )
        step, along = np.linalg.solve(
            matrix,
            np.column_stack(
                [np.append(new - field, order - grid.t @ q), np.eye(len(field) + 1)[-1]]
            ),
        ).T
        last, size = size, float(np.abs(step).max())
        if size < 1e-9 and size >= last / 4:
            break
        field, kappa = field + step[:-1], kappa * float(np.exp(np.clip(step[-1], -1, 1)))
    else:
        raise RuntimeError(
            f"No density of order parameter {order:.6g} was found at beta={kernel.beta:g}."
        )
    share = np.exp(grid.log_share)
    entropy = kappa * float(q @ field) - log_z
    gain = float(q @ grid.pull @ q - share @ grid.pull @ share) / 2
    clock = float(np.exp(kernel.beta))
    if kernel.model == "usa":
        kappa /= clock
    slope, free_energy = kappa * float(along[-1]), entropy / kappa - clock * gain
    return _State(order, kappa, field, slope, free_energy)


def _trace(grid: _Grid, kernel: _Kernel, top: float) -> Iterator[_State]:
    """Densities of order parameters that fall from the top."""
    if top < LEAST_ORDER:
        return
    field, kappa = _guess(grid, kernel, top)
    for order in expit(np.arange(logit(top), logit(LEAST_ORDER), -STEP)):
        state = _solve(grid, kernel, float(order), field, kappa)
        field, kappa = state.field, _stiffness(kernel, state.kappa)
        yield state


def _root(
    measure: Callable[[_State], float], grid: _Grid, kernel: _Kernel, high: _State, low: _State
) -> _State:
    """Density between two at which a measure vanishes."""

    def at(order):
        share = (order - low.R) / (high.R - low.R)
        field = low.field + share * (high.field - low.field)
        kappa = low.kappa * (high.kappa / low.kappa) ** share
        return _solve(grid, kernel, order, field, _stiffness(kernel, kappa))

    ends = [(measure(at(state.R)), state) for state in (low, high)]
    if ends[0][0] * ends[1][0] >= 0:  # a change of sign within rounding
        return min(ends, key=lambda end: abs(end[0]))[1]
    root = brentq(lambda order: measure(at(order)), low.R, high.R, xtol=1e-14)
    return at(float(root))  # pyright: ignore[reportArgumentType]


def _most_ordered(kernel: _Kernel, kappa: Number) -> _State | None:
    """Density of largest order parameter: where kappa falls to the given one as R falls."""
    kappa = one(check_positive, kappa, "kappa")
    remedy = f"Densities are solved for up to {LARGEST_STIFFNESS:g}, of (USA) times e^(-beta)."
    stiffness = _stiffness(kernel, kappa)
    check(stiffness <= LARGEST_STIFFNESS, "kappa", "leave the density wide enough", kappa, remedy)
    grid, above = _grid(kernel, kappa), None
    for state in _trace(grid, kernel, _highest(grid, kernel, stiffness)):
        if state.kappa <= kappa:
            return (
                state
                if above is None
                else _root(lambda s: s.kappa - kappa, grid, kernel, above, state)
            )
        if above is not None and above.slope > 0 >= state.slope:
            fold = _root(lambda s: s.slope, grid, kernel, above, state)
            return (
                None
                if fold.kappa > kappa
                else _root(lambda s: s.kappa - kappa, grid, kernel, above, fold)
            )
        above = state
    return None


def _highest(grid: _Grid, kernel: _Kernel, stiffness: float) -> float:
    """Order parameter that no density exceeds: that of a density in the field of one point."""
    beta, t = kernel.beta, grid.t
    linear = kernel.model == "sa" or beta == 0
    field = t if linear else _kernel_value(beta, t)
    return float(_tilt(grid, field, stiffness)[0] @ t)
