r"""Branches of stationary densities: followed around folds in the noise or the temperature.

Steps are taken along the curve (pseudo-arclength): a predictor on the tangent, then Newton's method on the
density and the parameter together, which is regular at a fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.optimize import brentq

from attnflow.analysis.gibbs import Axis, axis_of, check_parameters, kernel
from attnflow.errors import check_between, check_choice, check_count, check_increasing

STEPS = 0.002, 0.05
"""First and largest step along a branch, in units of R and of the logarithm of the parameter."""
MOST = 2000
"""Number of steps after which a branch is given up."""


@dataclass(frozen=True, eq=False)
class Branch:
    r"""Stationary densities along one curve, in the order in which it was followed.

    Attributes:
        beta: Inverse temperature of each, shape (k,).
        kappa: Noise of each, shape (k,).
        d: Dimension.
        model: "sa" or "usa".
        R: Order parameter, shape (k,).
        free_energy: Less that of the uniform density, shape (k,); (SA) has no theorem about it.
        growth: Largest growth rate of a perturbation that depends on the height, shape (k,).
        unstable: Number of those that grow, shape (k,); 0 is stable.
        modes: Means of the Gegenbauer polynomials, shape (k, degree + 1).
        t: Heights <x, e>, shape (t,).
        density: Relative to the uniform law, shape (k, t).
        fold: Whether the parameter turns there, shape (k,); such a point is exact to 1e-10.
    """

    beta: np.ndarray
    kappa: np.ndarray
    d: int
    model: str
    R: np.ndarray
    free_energy: np.ndarray
    growth: np.ndarray
    unstable: np.ndarray
    modes: np.ndarray
    t: np.ndarray
    density: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True)
class Transition:
    """Discontinuous transition of (USA) at one inverse temperature.

    Attributes:
        kappa_c: Noise at which the uniform density loses stability.
        kappa_t: Noise at which it and the ordered density have the same free energy.
        jump: Order parameter of the ordered density at kappa_t.
        kappa_sn: Lowest noise parameter with an ordered density, the fold.
        fold: Order parameter at the fold.
    """

    kappa_c: float
    kappa_t: float
    jump: float
    kappa_sn: float
    fold: float


def branch(
    beta: float | tuple[float, float],
    kappa: float | tuple[float, float],
    d: int,
    model: str = "sa",
    *,
    start: str = "threshold",
    mode: int = 1,
    degree: int | None = None,
) -> Branch:
    r"""Branch of ordered densities, in kappa at one beta or in beta at one kappa.

    Args:
        beta: Inverse temperature, 0 to 100; or the (lowest, highest) one to be followed.
        kappa: Noise, > 0; or the (lowest, highest) one to be followed. One of the two is a pair.
        d: Dimension, 2 to 256.
        model: "sa" or "usa".
        start: "threshold", where harmonics of degree `mode` begin to grow on the uniform density, or
            "ordered", the most ordered density at the end of the range where order is stronger.
        mode: Degree of the harmonic, >= 1; its positive side is followed. Only for "threshold".
        degree: Highest degree of the densities; enough for the whole range by default.

    Returns:
        Densities until the parameter leaves its range, or R comes back to 0.

    Raises:
        ValueError: If an argument is out of range, or no branch starts there.
        RuntimeError: If the branch cannot be followed further.

    Source:
        Keller, "Numerical solution of bifurcation and nonlinear eigenvalue problems" (1977).
    """
    name = "beta" if isinstance(beta, tuple) else "kappa"
    fixed, ends = (kappa, beta) if name == "beta" else (beta, kappa)
    if isinstance(fixed, tuple) or not isinstance(ends, tuple) or len(ends) != 2:
        raise ValueError(
            "Arguments `beta` and `kappa` must be one number and one pair (lowest, highest), "
            f"but beta={beta} and kappa={kappa}."
        )
    check_choice(start, "start", ("threshold", "ordered"))
    check_count(mode, "mode")
    low, high = map(float, ends)
    check_between(high, f"{name}[1]", low=low, open_low=True)
    for end in ends:
        check_parameters(*((end, fixed) if name == "beta" else (fixed, end)), d, model)
    axis = axis_of(*((high, fixed) if name == "beta" else (fixed, high)), d, model, degree)
    path = _Path(axis, name, float(fixed), low, high)
    return path.follow(*(path.threshold(mode) if start == "threshold" else path.ordered()))


def transition(beta: float, d: int) -> Transition:
    """Discontinuous transition of (USA): the fold, and where order and disorder are equally good.

    Args:
        beta: Inverse temperature, 0 to 100, where the transition is discontinuous.
        d: Dimension, 2 to 256.

    Returns:
        Noise and order parameters, relative error 1e-9.

    Raises:
        ValueError: If an argument is out of range, or the transition is continuous.
    """
    check_parameters(beta, 1.0, d, "usa")
    kappa_c = threshold(beta, d, "usa")
    kappas = kappa_c * 1e-3, kappa_c * 1.02
    curve = branch(beta, kappas, d, "usa")
    if not curve.fold.any():
        raise ValueError(
            f"Argument `beta` must be where the transition is discontinuous, but beta={beta:g} in "
            f"{d} dimensions, where order sets in continuously at kappa={kappa_c:.6g}."
        )
    axis, at = axis_of(beta, kappas[1], d, "usa", None), int(curve.fold.argmax())
    upper = slice(at, None)

    def ordered(kappa):
        guess = [np.interp(kappa, curve.kappa[upper], c) for c in curve.modes[upper].T]
        found = axis.newton(np.array(guess[1 : axis.kernel_degree + 1]), beta, kappa)
        if found is None:
            raise RuntimeError(f"The ordered density was lost at beta={beta:g}, kappa={kappa:g}.")
        return axis.density(found, beta, kappa)

    last = int(np.flatnonzero(curve.free_energy[upper] > 0)[-1]) + at
    kappa_t = float(
        brentq(
            lambda kappa: ordered(kappa).free_energy * kappa,
            curve.kappa[last],
            curve.kappa[last + 1],
            xtol=1e-13 * kappa_c,
        )  # pyright: ignore[reportArgumentType]
    )
    return Transition(
        kappa_c, kappa_t, ordered(kappa_t).R, float(curve.kappa[at]), float(curve.R[at])
    )  # fmt: skip


def hysteresis(
    beta: float, kappas: np.ndarray, d: int, model: str = "sa", *, kick: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Order parameters as kappa rises and falls: each density starts from the one before.

    Args:
        beta: Inverse temperature, 0 to 100.
        kappas: Increasing noise parameters, > 0, shape (k,), k >= 2.
        d: Dimension, 2 to 256.
        model: "sa" or "usa".
        kick: Order that is added to each start, in (0, 1), so that an unstable density is left.

    Returns:
        R on the way up and on the way down, both in the order of kappas, shape (k,). They differ inside
        a hysteresis loop alone.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If a kappa is too close to a threshold for the density to settle.
    """
    check_increasing(kappas, "kappas")
    check_between(kick, "kick", 0.0, 1.0, open_low=True, open_high=True)
    axis = axis_of(beta, float(kappas[-1]), d, model, None)
    check_parameters(beta, float(kappas[0]), d, model)

    def sweep(values):
        c, found = np.zeros(axis.kernel_degree), []
        for kappa in values:
            c = c + kick * np.sqrt(d) * (np.arange(len(c)) == 0)
            c = axis.settle(c, beta, float(kappa))
            found.append(abs(float(c[0])) / np.sqrt(d))
        return np.array(found)

    return sweep(kappas), sweep(np.r_[kappas[-1] * 1.0, kappas[::-1]])[1:][::-1]


def threshold(beta: float, d: int, model: str = "sa", mode: int = 1) -> float:
    """Noise at which harmonics of degree `mode` begin to grow on the uniform density; inf if never."""
    mean, rates = kernel(beta, max(mode, 8), d)
    if rates[mode - 1] == 0:
        return np.inf
    return float(1 / rates[mode - 1] / (mean * np.exp(beta) if model == "usa" else 1))


@dataclass(frozen=True, eq=False)
class _Path:
    """A curve of densities: points are modes c, then log kappa or log(1 + beta)."""

    axis: Axis
    name: str
    fixed: float
    low: float
    high: float

    def parameters(self, s: float) -> tuple[float, float]:
        """Inverse temperature and noise."""
        if self.name == "beta":
            return float(np.expm1(s)), self.fixed
        return self.fixed, float(np.exp(s))

    def coordinate(self, value: float) -> float:
        """Last coordinate of a parameter's value."""
        return float(np.log1p(value) if self.name == "beta" else np.log(value))

    @cached_property
    def metric(self) -> np.ndarray:
        """Weights of squared coordinates."""
        beta = self.high if self.name == "beta" else self.fixed
        return np.append(self.axis.metric(beta), 1.0)

    def threshold(self, mode: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a harmonic begins to grow, and its direction."""
        k, d, model = self.axis.kernel_degree, self.axis.d, self.axis.model
        check_between(mode, "mode", high=k)
        if self.name == "kappa":
            value = threshold(self.fixed, d, model, mode)
        else:
            excess = lambda beta: np.log(threshold(beta, d, model, mode) / self.fixed)
            ends = excess(self.low), excess(self.high)
            value = float(brentq(excess, self.low, self.high)) if ends[0] * ends[1] < 0 else np.nan  # pyright: ignore
        if not self.low <= value <= self.high:
            raise ValueError(
                f"Argument `{self.name}` must hold the threshold of mode {mode}"
                + (f", {value:.6g}," if np.isfinite(value) else ",")
                + f" but {self.name}=({self.low:g}, {self.high:g})."
            )
        direction = np.zeros(k + 1)
        direction[mode - 1] = 1 / np.sqrt(self.metric[mode - 1])
        return np.append(np.zeros(k), self.coordinate(value)), direction

    def ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """The most ordered density where order is strongest, and the direction into the range."""
        strong = self.high if self.name == "kappa" or self.axis.model == "usa" else self.low
        s = self.coordinate(strong)
        beta, kappa = self.parameters(s)
        c = self.axis.settle(self.axis.basis_at(1.0)[1:], beta, kappa)
        if not c.any():
            raise ValueError(
                f"Argument `{self.name}` must reach an ordered density, but at {self.name}={strong:g} "
                "the uniform one is the only. Widen the range, or pass start='threshold'."
            )
        inward = np.zeros(len(c) + 1)
        inward[-1] = -1.0 if strong == self.high else 1.0
        point = np.append(c, s)
        return point, self.tangent(point, inward)

    def linear(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual, and its derivatives by all coordinates."""
        c, s = point[:-1], float(point[-1])
        residual, by_c, by_s = self.axis.jacobian(c, *self.parameters(s))
        if self.name == "beta":
            h = min(1e-5, s / 2) if s > 0 else 1e-5
            ahead, behind = (self.axis.residual(c, *self.parameters(s + e)) for e in (h, -h))
            by_s = (ahead - behind) / (2 * h)
        return residual, np.column_stack([by_c, by_s])

    def tangent(self, point: np.ndarray, toward: np.ndarray) -> np.ndarray:
        """Unit tangent of the curve, on the side of a direction."""
        matrix = np.vstack([self.linear(point)[1], toward * self.metric])
        tangent = np.linalg.solve(matrix, np.eye(len(point))[-1])
        return tangent / np.sqrt(self.metric @ tangent**2)

    def step(self, point: np.ndarray, tangent: np.ndarray, h: float) -> np.ndarray | None:
        """Point of the curve at height h above a point along its tangent; None if there is none near."""
        guess, size = point + h * tangent, np.inf
        for _ in range(12):
            residual, matrix = self.linear(guess)
            height = (guess - point) @ (self.metric * tangent) - h
            matrix = np.vstack([matrix, tangent * self.metric])
            move = np.linalg.solve(matrix, np.append(residual, height))
            last, size = size, float(np.sqrt(self.metric @ move**2))
            if not size < 2 * abs(h) + 1e-6:
                return None
            guess = guess - move
            if (size < 1e-10 and size > last / 4) or size < 1e-14:
                return guess
        return None

    def locate(
        self, measure: Callable, point: np.ndarray, tangent: np.ndarray, h: float
    ) -> np.ndarray:
        """Point less than h ahead at which a measure of (point, tangent there) vanishes."""

        def at(length):
            ahead = self.step(point, tangent, length)
            if ahead is None:
                raise self.lost(point)
            return ahead

        def value(length):
            ahead = at(length)
            return measure(ahead, self.tangent(ahead, tangent))

        return at(float(brentq(value, 0.0, h, xtol=1e-12)))  # pyright: ignore[reportArgumentType]

    def lost(self, point: np.ndarray) -> RuntimeError:
        """What to say where a branch cannot be followed."""
        beta, kappa = self.parameters(point[-1])
        return RuntimeError(f"The branch was lost at beta={beta:.6g}, kappa={kappa:.6g}.")

    def follow(self, point: np.ndarray, tangent: np.ndarray) -> Branch:
        """The whole curve from a point."""
        low, high = self.coordinate(self.low), self.coordinate(self.high)
        points, h = [(point, False)], STEPS[0]
        while len(points) < MOST:
            ahead = self.step(point, tangent, h)
            turned = tangent if ahead is None else self.tangent(ahead, tangent)
            if ahead is None or (turned * self.metric) @ tangent < 0.95:
                h /= 2
                if h < 1e-8:
                    raise self.lost(point)
                continue
            s, c = float(ahead[-1]), float(ahead[0])
            if (
                c < 0 and point[0] > 1e-6
            ):  # through the uniform density, to the same ones upside down
                points.append((self.threshold(1)[0], False))
                break
            if tangent[-1] * turned[-1] < 0 and abs(tangent[-1]) > 1e-12:
                points.append((self.locate(lambda x, t: t[-1], point, tangent, h), True))
            if not low <= s <= high:
                beyond = partial(_beyond, low if s < low else high)
                points.append((self.locate(beyond, point, tangent, h), False))
                break
            points.append((ahead, False))
            point, tangent, h = ahead, turned, min(1.4 * h, STEPS[1])
        return self.curve(points)

    def curve(self, points: list[tuple[np.ndarray, bool]]) -> Branch:
        """All that is to be known of the points."""
        states = [self.axis.density(x[:-1], *self.parameters(x[-1])) for x, _ in points]
        columns = ("beta", "kappa", "R", "free_energy", "growth", "unstable", "modes", "density")
        return Branch(
            d=self.axis.d,
            model=self.axis.model,
            t=self.axis.t,
            fold=np.array([fold for _, fold in points]),
            **{name: np.array([getattr(state, name) for state in states]) for name in columns},
        )


def _beyond(bound: float, point: np.ndarray, tangent: np.ndarray) -> float:
    """How far a point is beyond a bound of the parameter."""
    return float(point[-1] - bound)
