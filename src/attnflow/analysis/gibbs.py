r"""Stationary densities of infinitely many noisy tokens, along one direction, in any dimension.

Densities are relative to the uniform law and depend on the height <x, e> alone: $f = \sum_lc_lp_l$ in the
orthonormal Gegenbauer polynomials. A potential of $\log f$ knows only the degrees of the kernel, so Newton's
method has few unknowns whatever the dimension and however narrow the density.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from attnflow.errors import check_between, check_choice, check_count, check_finite
from attnflow.meanfield.gegenbauer import basis, check_dimension, nodes, slopes

MODELS = ("sa", "usa")
LARGEST_BETA, LARGEST_D = 100.0, 256
LARGEST_DEGREE = 1000
"""Degree up to which a density is resolved; its width is about ten over the degree."""
TAIL = 1e-8
"""Share of a density's size that its highest eighth of degrees may hold."""
RESIDUAL = 1e-10
BURSTS = 12
"""Times that a relaxation doubles before it is given up, from 16 steps."""


@dataclass(frozen=True, eq=False)
class Gibbs:
    r"""A stationary density.

    Attributes:
        beta: Inverse temperature.
        kappa: Noise $\sqrt{2/\kappa}\,dW$.
        d: Dimension.
        model: "sa" or "usa".
        modes: Means $c_l = \int p_l\,d\mu$, l = 0, ..., degree: a state of `Zonal(d, degree)`.
        t: Heights <x, e>, shape (t,).
        density: Density relative to the uniform law at the heights, shape (t,).
        R: Order parameter, the length of the mean token, in [0, 1).
        free_energy: $\kappa^{-1}\int f\log f\,d\sigma - E$ less that of the uniform density; (SA) has no
            theorem about it.
        growth: Largest rate at which a small perturbation that depends on the height grows.
        unstable: Number of such perturbations that grow: 0 for a stable density. Of perturbations in
            other directions it says nothing.
    """

    beta: float
    kappa: float
    d: int
    model: str
    modes: np.ndarray
    t: np.ndarray
    density: np.ndarray
    R: float
    free_energy: float
    growth: float
    unstable: int


def gibbs(
    beta: float,
    kappa: float,
    d: int,
    model: str = "sa",
    *,
    start: str | np.ndarray = "ordered",
    degree: int | None = None,
) -> Gibbs:
    r"""A stationary density, $\mu\propto e^{(\kappa/\beta)K*\mu}$ (USA) or $\mu\propto(K*\mu)^{\kappa/\beta}$ (SA).

    Newton's method on the modes of the kernel, to rounding. "ordered" iterates the equation from a point
    until Newton's method takes over, and finds the density with the largest R, which is the uniform one where
    no other is left. From modes of your own it finds the density nearby, stable or not.

    Args:
        beta: Inverse temperature, 0 to 100.
        kappa: Noise $\sqrt{2/\kappa}\,dW$, > 0.
        d: Dimension, 2 to 256.
        model: "sa" or "usa".
        start: "ordered", "uniform", or modes of a lopsided density, shape (l,), l >= 2, the first 1.
        degree: Highest degree of the density; `needed_degree` by default.

    Returns:
        The density.

    Raises:
        ValueError: If an argument is out of range, a start is even and so stays at R = 0, or the degree is
            too small for the density.
        RuntimeError: If Newton's method finds nothing near the start.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Sec. 7. (SA): the drift is
        $\nabla\frac1\beta\log K*\mu$.
    """
    axis = axis_of(beta, kappa, d, model, degree)
    if isinstance(start, str):
        check_choice(start, "start", ("ordered", "uniform"))
        point = axis.basis_at(1.0)[1:] if start == "ordered" else np.zeros(axis.kernel_degree)
        return axis.density(axis.settle(point, beta, kappa), beta, kappa)
    modes = _check_start(start)
    c = np.zeros(axis.kernel_degree)
    count = min(len(c), len(modes) - 1)
    c[:count] = modes[1 : count + 1]
    found = axis.newton(c, beta, kappa)
    if found is None:
        raise RuntimeError(
            f"No stationary density was found near the start at beta={beta:g}, kappa={kappa:g}. "
            "Pass start='ordered', or follow a `branch`."
        )
    return axis.density(found, beta, kappa)


def needed_degree(beta: float, kappa: float, d: int, model: str = "sa") -> int:
    r"""Degree that resolves every stationary density: that of a density in the field of one point.

    Its logarithm bends by $\kappa e^\beta$ (USA) or kappa (SA) at most.
    """
    check_parameters(beta, kappa, d, model)
    stiffness = float(kappa * np.exp(beta) if model == "usa" else kappa)
    return max(_kernel_degree(beta, d), _resolution(stiffness, d, 0.5, 1e-13))


def _kernel_degree(beta: float, d: int) -> int:
    """Degree beyond which the kernel is below 1e-16 of its height."""
    return _resolution(beta, d, 1.0, 1e-16)


def _resolution(concentration: float, d: int, power: float, tol: float) -> int:
    r"""Degree of $e^{\text{concentration}\langle x,e\rangle}$ up to tol, at least 8.

    Its coefficients times p_l(1)^power: 1/2 for the mean square, 1 for the height.
    """
    last = 2 * LARGEST_DEGREE
    ratios = concentration * _ratios(concentration, last, d)
    l = np.arange(1, last + 1)  # noqa: E741
    growth = (2 * l + d - 2) * (l + d - 3.0) / (np.maximum(2 * l + d - 4, 1) * l)
    growth[0] = d
    logs = np.cumsum(np.log(np.maximum(ratios * growth**power, 1e-300)))
    large = np.flatnonzero(logs > max(0.0, logs.max()) + np.log(tol))
    return max(8, int(large[-1]) + 1 if len(large) else 0)


def check_parameters(beta: float, kappa: float, d: int, model: str) -> None:
    """Raise `ValueError` unless stationary densities are implemented for these parameters."""
    check_choice(model, "model", MODELS)
    check_dimension(d)
    check_between(d, "d", high=LARGEST_D, remedy="Beyond, follow tokens with `solve_sde`.")
    check_finite(beta, "beta")
    check_between(beta, "beta", low=0.0, high=LARGEST_BETA)
    check_finite(kappa, "kappa")
    check_between(kappa, "kappa", low=0.0, open_low=True)


def axis_of(beta: float, kappa: float, d: int, model: str, degree: int | None) -> Axis:
    """Numerics for all densities up to a temperature and a noise."""
    check_parameters(beta, kappa, d, model)
    needed = needed_degree(beta, kappa, d, model)
    if degree is not None:
        check_count(degree, "degree")
        check_between(degree, "degree", low=_kernel_degree(beta, d), high=LARGEST_DEGREE)
    elif needed > LARGEST_DEGREE:
        check_between(
            kappa, "kappa", high=0.0,
            remedy=f"Its narrowest density needs more than degree={LARGEST_DEGREE}. Take a smaller one.",
        )  # fmt: skip
    return Axis(int(d), model, degree or needed, _kernel_degree(beta, d))


@dataclass(frozen=True, eq=False)
class Axis:
    """Heights along the direction, and what a density does to its own kernel mean.

    The unknowns `c` are the modes of degree 1 to `kernel_degree`, shape (k,).
    """

    d: int
    model: str
    degree: int
    kernel_degree: int

    @cached_property
    def t(self) -> np.ndarray:
        """Heights, shape (t,)."""
        return nodes(self.d, 2 * self.degree)[0]

    @cached_property
    def log_share(self) -> np.ndarray:
        """Logarithms of the shares of the uniform law at the heights."""
        with np.errstate(divide="ignore"):
            return np.log(nodes(self.d, 2 * self.degree)[1])

    @cached_property
    def basis(self) -> np.ndarray:
        """Polynomials at the heights, shape (t, degree + 1)."""
        return basis(self.t, self.degree, self.d)

    def basis_at(self, t: float) -> np.ndarray:
        """Polynomials of the kernel's degrees at one height, shape (k + 1,)."""
        return basis(np.array([t]), self.kernel_degree, self.d)[0]

    def tilt(
        self, c: np.ndarray, beta: float, kappa: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Masses q and potential V of the density that the modes c make, dV by the mean's modes, and log Z."""
        mean, rates = kernel(beta, self.kernel_degree, self.d)
        inner = self.basis[:, 1 : self.kernel_degree + 1] * rates
        if self.model == "usa":
            response = kappa * np.exp(beta) * mean * inner
            potential = response @ c
        else:
            lift = beta * (inner @ c)
            lift = np.maximum(lift, np.finfo(float).eps * (1 + lift.max()) - 1)
            potential = kappa * (np.log1p(lift) / beta if beta else inner @ c)
            response = kappa * inner / (1 + lift)[:, None]
        logs = self.log_share + potential
        top = logs.max()
        q = np.exp(logs - top)
        total = q.sum()
        return q / total, potential, response, float(top + np.log(total))

    def residual(self, c: np.ndarray, beta: float, kappa: float) -> np.ndarray:
        """Modes less those of the density they make."""
        q = self.tilt(c, beta, kappa)[0]
        return c - q @ self.basis[:, 1 : len(c) + 1]

    def jacobian(
        self, c: np.ndarray, beta: float, kappa: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual, its derivative by c, and by log kappa."""
        q, potential, response, _ = self.tilt(c, beta, kappa)
        p = self.basis[:, 1 : len(c) + 1]
        image = q @ p
        centred = (p - image) * q[:, None]
        return c - image, np.eye(len(c)) - centred.T @ response, -centred.T @ potential

    def newton(self, c: np.ndarray, beta: float, kappa: float) -> np.ndarray | None:
        """Root of the residual near c; None if there is none."""
        size = np.inf
        for _ in range(30):
            residual, matrix, _ = self.jacobian(c, beta, kappa)
            step = np.linalg.solve(matrix, residual)
            last, size = size, self.size(step, beta)
            if not np.isfinite(size) or size > 2:
                return None
            c = c - step
            if (size < RESIDUAL and size > last / 4) or size < 1e-15:
                return c
        return None

    def settle(self, c: np.ndarray, beta: float, kappa: float) -> np.ndarray:
        """Density that the iteration of the equation tends to, by Newton's method once near it."""
        for burst in range(BURSTS):
            for _ in range(16 * 2**burst):
                c = c - self.residual(c, beta, kappa)
                if abs(c[0]) < 1e-9:
                    return np.zeros_like(c)
            found = self.newton(c, beta, kappa)
            if found is not None and abs(found[0] - c[0]) < 0.1 * abs(c[0]):
                return found
        raise RuntimeError(
            f"The density still drifts at beta={beta:g}, kappa={kappa:g}, close to a threshold. "
            "Follow a `branch` through it."
        )

    def size(self, step: np.ndarray, beta: float) -> float:
        """Length of a step in the units of R."""
        return float(np.sqrt(self.metric(beta) @ step**2))

    def metric(self, beta: float) -> np.ndarray:
        """Weights of squared modes, 1/d for the first and less as the kernel sees less of them."""
        rates = kernel(beta, self.kernel_degree, self.d)[1]
        return rates / rates[0] / self.d

    def density(self, c: np.ndarray, beta: float, kappa: float) -> Gibbs:
        """What is to be known of the stationary density with modes c."""
        q, potential, _, log_z = self.tilt(c, beta, kappa)
        modes = q @ self.basis
        self._check_tail(modes, beta, kappa)
        mean, rates = kernel(beta, self.kernel_degree, self.d)
        entropy = float(q @ potential) - log_z
        energy = np.exp(beta) * mean * (rates @ c**2) / 2
        rates_of_growth = self._growth(q, beta, kappa)
        return Gibbs(
            float(beta), float(kappa), self.d, self.model, modes, self.t, np.exp(potential - log_z),
            R=float(abs(modes[1]) / np.sqrt(self.d)),
            free_energy=float(entropy / kappa - energy),
            growth=float(rates_of_growth.max()),
            unstable=int((rates_of_growth > 1e-9 * np.abs(rates_of_growth).max()).sum()),
        )  # fmt: skip

    def _attention(self, q: np.ndarray, beta: float, mean: float) -> tuple[np.ndarray, np.ndarray]:
        """Kernel mean of the masses q over that of the uniform law, and attention towards the pole.

        From the kernel itself: its series loses what is below 1e-16 of the largest value.
        """
        t, side = self.t, np.sqrt(1 - self.t**2)
        turns, shares = (
            (np.array([-1.0, 1.0]), [0.5, 0.5])
            if self.d == 2
            else nodes(self.d - 1, 20 + int(5 * np.sqrt(beta)))
        )
        total, towards = np.zeros((2, len(t)))
        for turn, share in zip(turns, shares, strict=True):
            weights = share * np.exp(beta * (np.outer(t, t) + turn * np.outer(side, side) - 1)) * q
            total += weights.sum(axis=1)
            towards += side * (weights @ t) - turn * t * (weights @ side)
        return total / mean, towards / total

    def _check_tail(self, modes: np.ndarray, beta: float, kappa: float) -> None:
        """Raise `ValueError` unless the degree resolves the density."""
        tail = np.linalg.norm(modes[self.degree * 7 // 8 + 1 :]) / np.linalg.norm(modes)
        if tail > TAIL:
            needed = needed_degree(beta, kappa, self.d, self.model)
            raise ValueError(
                f"Argument `degree` must resolve the density, but at degree={self.degree} its highest "
                f"modes hold {tail:.1e} of it. Take degree={max(needed, self.degree * 3 // 2)}."
            )

    def _growth(self, q: np.ndarray, beta: float, kappa: float) -> np.ndarray:
        r"""Rates of growth of perturbations $\sqrt f\psi$ of a stationary density, real parts.

        Galerkin's method for psi, for which the diffusion is symmetric: eigenvalues of narrow densities
        drown in rounding otherwise. The perturbation that adds mass is taken out.
        """
        mean, rates = kernel(beta, self.kernel_degree, self.d)
        modes = np.abs(q @ self.basis)
        top = min(self.degree, int(np.flatnonzero(modes > 1e-12 * modes.max())[-1]) + 8)
        inner = slice(1, self.kernel_degree + 1)
        share = np.exp(self.log_share)
        slope = slopes(self.t, self.degree, self.d)
        change = slope[:, inner] * rates
        if self.model == "usa":
            scale = np.exp(beta) * mean
            drift, change = scale * (change @ (q @ self.basis[:, inner])), scale * change
            root = np.sqrt(q)
        else:
            smooth, drift = self._attention(q, beta, mean)
            change = change - np.outer(drift, beta * rates) * self.basis[:, inner]
            change = change / smooth[:, None]
            root = np.sqrt(smooth ** (kappa / beta) * share if beta > 0 else q)
        root /= np.linalg.norm(root)
        p, weight = self.basis[:, : top + 1], np.sqrt(share)[:, None]
        bent = weight * (slope[:, : top + 1] - kappa / 2 * drift[:, None] * p)
        seen = (root[:, None] * self.basis[:, inner]).T @ (weight * p)
        matrix = bent.T @ (root[:, None] * change @ seen - bent / kappa)
        mass = (weight * p).T @ root
        return np.linalg.eigvals(matrix - np.abs(matrix).max() * np.outer(mass, mass)).real


@lru_cache(256)
def kernel(beta: float, degree: int, d: int) -> tuple[float, np.ndarray]:
    r"""Mean $e^{-\beta}a_0$ of the kernel, and $\frac{a_l}{\beta a_0}$, l = 1..degree.

    As `gegenbauer.kernel`, in float64 whatever the precision of JAX, as Newton's method needs.
    """
    t, weights = nodes(d, 2 * degree + 20)
    ratios = _ratios(beta, degree, d)
    rates = ratios[0] * np.cumprod(np.concatenate([[1.0], beta * ratios[1:]]))
    return float(weights @ np.exp(beta * (t - 1))), rates


def _ratios(beta: float, degree: int, d: int) -> np.ndarray:
    r"""Ratios $\frac{a_l}{\beta a_{l-1}}$, l = 1..degree, by their continued fraction."""
    orders = np.arange(1, 2 * degree + 21) + (d / 2 - 1)
    ratios = np.empty(len(orders))
    q = 1 / (orders[-1] + 1 + np.hypot(orders[-1] + 1, beta))
    for k in range(len(orders) - 1, -1, -1):
        ratios[k] = q = 1 / (2 * orders[k] + beta * (beta * q))
    return ratios[:degree]


def _check_start(start: np.ndarray) -> np.ndarray:
    """Modes of a start, which must have an odd one."""
    modes = np.asarray(start, float)
    if modes.ndim != 1 or len(modes) < 2:
        raise ValueError(
            f"Argument `start` must hold modes of shape (l,), l >= 2, but start.shape={modes.shape}."
        )
    check_finite(modes, "start")
    if abs(modes[0] - 1) > 1e-9:
        raise ValueError(f"Argument `start` must have mass 1, but start[0]={modes[0]:.6g}.")
    if np.abs(modes[1::2]).max() < 1e-12:
        raise ValueError(
            "Argument `start` must be lopsided, but its odd modes vanish: it stays at R = 0. "
            "Give it a first mode, or pass start='uniform' for the uniform density."
        )
    return modes
