"""Mean-field dynamics of a density: transport by attention and diffusion by noise, mode by mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.attention import as_parameter
from attnflow.errors import check_between, check_choice, check_finite, concrete
from attnflow.meanfield.circle import Circle
from attnflow.meanfield.gegenbauer import kernel, kernel_degree
from attnflow.meanfield.sphere import Sphere
from attnflow.meanfield.zonal import Zonal

MODELS = ("sa", "usa")
TAIL = 1e-8
"""Share of a density's size that its highest eighth of degrees may hold."""
ROUNDING = 1e-12


class MeanField(eqx.Module):
    r"""Density of infinitely many tokens under attention, with noise kappa.

    $\partial_t\mu = \kappa^{-1}\Delta\mu - \mathrm{div}(\mu\nabla\varphi)$ with
    $\varphi = \frac1\beta\int e^{\beta\langle x,y\rangle}\mu(dy)$ (USA), $\varphi =
    \frac1\beta\log\int e^{\beta\langle x,y\rangle}\mu(dy)$ (SA). A flow for `solve`, whose state are the
    modes of `space`: each is the mean of a harmonic, $\dot c_l = \int\langle\nabla\varphi,\nabla
    Y_l\rangle d\mu - \frac{l(l+d-2)}\kappa c_l$, so that mass is conserved exactly. Under (USA) the products
    are exact: on the circle this is the quadratic system of Fourier modes, truncated.

    `solve` watches a run: `mass`, `minimum` of the density, `tail` (share of the highest eighth of
    degrees) and `free_energy` are observed; it ends where tail > 1e-8, with a warning that names the cure.

    Attributes:
        space: `Circle(degree)`, `Zonal(d, degree)` or `Sphere(degree)`.
        beta: Inverse temperature, >= 0.
        model: "sa" or "usa".
        kappa: Noise $\sqrt{2/\kappa}\,dW$, > 0; inf is none.
        clock: Of USA: "physical", or "rescaled" by e^(-beta); the noise has the same clock.

    Source:
        Rigollet, "The Mean-Field Dynamics of Transformers" (2025), Secs. 3 and 7; the printed Fokker-Planck
        equation has both signs reversed and lacks the projection.
    """

    space: Circle | Zonal | Sphere
    beta: Float[Array, ""] = eqx.field(converter=as_parameter)
    model: str = eqx.field(static=True, default="sa")
    kappa: Float[Array, ""] = eqx.field(converter=as_parameter, default=np.inf, kw_only=True)
    clock: str = eqx.field(static=True, default="physical", kw_only=True)

    def __check_init__(self):
        check_choice(self.model, "model", MODELS)
        check_choice(self.clock, "clock", ("physical", "rescaled"))
        check_finite(self.beta, "beta")
        check_between(self.beta, "beta", low=0.0)
        check_between(
            self.kappa, "kappa", low=0.0, open_low=True, remedy="inf is a run without noise."
        )
        if concrete(self.beta):
            needed = kernel_degree(float(self.beta), self.space.d)
            check_between(
                self.space.degree, "degree", low=needed,
                remedy=f"The kernel at beta={float(self.beta):g} has {needed} degrees.",
            )  # fmt: skip

    def __call__(self, t, modes: Float[Array, "..."], args=None) -> Float[Array, "..."]:
        """Velocity of the modes."""
        space = self.space
        mean, rates = self._kernel(modes)
        density = space.values(modes)
        scale = mean if self.model == "usa" else 1 / space.values(self.smoothed(modes))
        fields = tuple(density * scale * field for field in space.gradients(rates * modes))
        bend = space.degrees * (space.degrees + space.d - 2)
        return space.against_gradients(fields) - bend / self.kappa * modes

    def smoothed(self, modes: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Modes of $\int e^{\beta\langle x,y\rangle}\mu(dy)/a_0(\beta)$, 1 for the uniform density."""
        _, rates = self._kernel(modes)
        share = jnp.where(self.space.degrees == 0, 1.0, self.beta * rates)
        return share * modes

    def _kernel(self, modes: Array) -> tuple[Array, Array]:
        """a_0 in the clock, and a_l / (beta a_0) broadcast to a state."""
        mean, rates = kernel(self.beta, self.space.degree, self.space.d)
        if self.clock == "physical":
            mean = mean * jnp.exp(self.beta)
        return mean.astype(modes.dtype), rates[self.space.degrees].astype(modes.dtype)

    def energy(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        r"""Interaction energy above that of the uniform density, $\frac1{2\beta}\sum_{l\ge1}a_lc_l^2\ge 0$.

        In the clock of the flow; at beta = 0 the limit |mean|^2/2.
        """
        mean, rates = self._kernel(modes)
        return mean * (rates * modes**2).sum() / 2

    def entropy(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        r"""Relative entropy to the uniform density, $\int f\log f\,d\sigma\ge 0$, of f where it is positive."""
        f = self.space.values(modes)
        positive = jnp.where(f > 0, f, 1.0)
        return self.space.mean(positive * jnp.log(positive))

    def free_energy(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        r"""Free energy relative to the uniform density, $\kappa^{-1}\int f\log f\,d\sigma - E$.

        Never increases under (USA), nor under (SA) without noise. (SA) with noise has no such theorem.
        """
        return self.entropy(modes) / self.kappa - self.energy(modes)

    def dissipation(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        r"""Rate of loss of the free energy of (USA), $\int|\nabla\varphi-\kappa^{-1}\nabla\log f|^2d\mu$.

        Under (SA) without noise, $\int a_0h\,|\nabla\varphi|^2d\mu$ with a_0 h the smoothed density.
        """
        mean, rates = self._kernel(modes)
        f = self.space.values(modes)
        positive = jnp.where(f > 0, f, 1.0)
        weight, scale = positive, mean
        if self.model == "sa":
            smooth = self.space.values(self.smoothed(modes))
            weight, scale = positive * mean * smooth, 1 / smooth
        pairs = zip(
            self.space.gradients(rates * modes), self.space.gradients(modes), strict=True
        )  # fmt: skip
        squares = sum(
            (scale * pull - slope / (self.kappa * positive)) ** 2 for pull, slope in pairs
        )
        return self.space.mean(jnp.where(f > 0, weight * squares, 0.0))

    def minimum(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        """Smallest value of the density on the grid."""
        return self.space.values(modes).min()

    def tail(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        """Size of the highest eighth of degrees, relative to all."""
        high = self.space.degrees > self.space.degree * 7 / 8
        return jnp.sqrt((jnp.where(high, modes, 0.0) ** 2).sum() / (modes**2).sum())

    def mass(self, modes: Float[Array, "..."]) -> Float[Array, ""]:
        """Total mass, 1."""
        return modes.ravel()[0]

    @property
    def method(self) -> dfx.AbstractSolver:
        """Solver that `solve` takes unless told: implicit where diffusion is stiff."""
        noisy = not concrete(self.kappa) or np.isfinite(float(self.kappa))
        return dfx.Kvaerno5() if noisy and not isinstance(self.space, Sphere) else dfx.Tsit5()

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of a state."""
        return self.space.axes

    @property
    def watch(self) -> dict[str, Callable]:
        """What `solve` observes of every run."""
        names = ("mass", "minimum", "tail", "free_energy")
        return {name: eqx.Partial(_read, self, name=name) for name in names}

    @property
    def until(self) -> Callable:
        """Event at which the density outgrows its resolution."""
        return eqx.Partial(_margin, self)

    def check_start(self, modes: Any) -> None:
        """Raise `ValueError` unless modes are those of a density that `space` resolves."""
        shape = self.space.uniform.shape
        if np.shape(modes) != shape:
            raise ValueError(
                f"Argument `x0` must hold modes of shape {shape}, but x0.shape={np.shape(modes)}. "
                "Pass `space.modes(values)`, values of the density at `space.grid`."
            )
        if not concrete(modes):
            return
        check_finite(modes, "x0")
        modes = jnp.asarray(modes)
        if abs(mass := float(self.mass(modes)) - 1) > ROUNDING:
            raise ValueError(
                f"Argument `x0` must have mass 1, but its mass is {1 + mass:.6g}. Divide it by its mass."
            )
        values = self.space.values(modes)
        if (low := float(values.min())) < -TAIL * float(values.max()):
            raise ValueError(
                f"Argument `x0` must be a density, but it falls to {low:.3g}. "
                "Take a smaller perturbation, or a higher `degree`."
            )
        if (tail := float(self.tail(modes))) > TAIL:
            raise ValueError(
                f"Argument `x0` must be resolved by degree={self.space.degree}, but its highest modes "
                f"hold {tail:.1e} of it. Take degree={2 * self.space.degree}."
            )

    def check_run(self, trajectory: Any, ts: Any) -> None:
        """Warn of what a run could not resolve, and of free energy that rose."""
        seen = {name: np.asarray(trajectory.observed[name]) for name in self.watch}
        degree, t_end = self.space.degree, float(trajectory.t_end)
        if t_end < float(ts[-1]):
            _warn(
                f"The density got narrower than degree={degree} resolves at t={t_end:g} of "
                f"{float(ts[-1]):g}, where the run ends. Take degree={2 * degree}, "
                "or follow its quantiles: `meanfield.circle.tokens`."
            )
        elif (low := seen["minimum"].min()) < -TAIL * max(1.0, float(seen["minimum"].max())):
            _warn(f"The density fell to {low:.1e} below 0. Take degree={2 * degree}.")
        falls = self.model == "usa" or not np.isfinite(float(self.kappa))
        rise = np.diff(seen["free_energy"]).max(initial=0.0)
        if falls and rise > 1e-6 * max(1.0, np.abs(seen["free_energy"]).max()):
            _warn(f"The free energy rose by {rise:.1e}. Take a smaller `rtol`.")


def _read(flow: MeanField, modes: Array, *, name: str) -> Array:
    return getattr(flow, name)(modes)


def _margin(flow: MeanField, t, modes, velocity) -> Array:
    """Positive while the density is resolved."""
    return 1 - flow.tail(modes) / TAIL


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)
