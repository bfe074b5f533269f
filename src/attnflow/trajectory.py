"""What a run saw: states, observables and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    import xarray as xr


class Trajectory(eqx.Module):
    """What a run saw.

    Attributes:
        ts: Save times, shape (t,). Shorter than asked if an event ended the run.
        xs: Tokens at those times, shape (t, n, d); None if the run kept no states.
        weights: Token weights, shape (t, n), for flows that evolve them; else None.
        observed: Observables at those times, each with a leading axis t.
        t_end: Time at which the run ended: ts[-1], or the time of the event.
        x_end: State at t_end, shape (n, d); `WeightedTokens` where weights evolve.
        steps: Numbers of steps: num_steps, num_accepted_steps, num_rejected_steps.
        kernel_sum: Name of the sum that was taken; None if there was none.
        axes: Names of the axes of a state: tokens, or modes of a density.
    """

    ts: Float[Array, "*batch t"]
    xs: Any
    weights: Any
    observed: dict[str, Array]
    t_end: Float[Array, "*batch"]
    x_end: Any
    steps: dict[str, Any]
    kernel_sum: str | None = eqx.field(static=True, default=None)
    axes: tuple[str, ...] = eqx.field(static=True, default=("token", "axis"))

    @property
    def stats(self) -> dict[str, Any]:
        """Numbers of steps, and the kernel sum."""
        return self.steps | ({} if self.kernel_sum is None else {"kernel_sum": self.kernel_sum})

    def to_xarray(self) -> xr.Dataset:
        """Labelled copy: axes time, token, axis (or those of modes); scalars a time series each."""
        import xarray as xr

        data: dict[str, Any] = {}
        if self.xs is not None:
            name = "tokens" if self.axes[0] == "token" else "modes"
            data[name] = (("time", *self.axes), np.asarray(self.xs))
        if self.weights is not None:
            data["weights"] = (("time", "token"), np.asarray(self.weights))
        for name, values in self.observed.items():
            axes = [f"{name}_{k}" for k in range(1, np.ndim(values))]
            data[name] = (("time", *axes), np.asarray(values))
        stats = {
            k: v if isinstance(v, str) else int(v) for k, v in self.stats.items() if np.ndim(v) == 0
        }
        return xr.Dataset(data, {"time": np.asarray(self.ts)}, attrs=stats)
