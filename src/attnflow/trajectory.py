"""What a run saw: states, observables and its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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

    def to_html(
        self,
        path: Path | str,
        *,
        color: Any = None,
        names: Sequence[str] | None = None,
        title: str = "",
        force: bool = False,
        max_tokens: int = 20_000,
        max_frames: int = 200,
    ) -> Path:
        """Write one HTML page to play with, which opens from disk: tokens over time, clusters, cosines, observables.

        Tokens are shown as directions, for d > 3 on three principal axes of all frames. The page states the error of
        its rounded coordinates, and what was left out.

        Args:
            path: File to write.
            color: A number or word per token, shape (n,), or per save and token, shape (t, n).
            names: A text per token.
            title: First line of the page.
            force: Whether to replace a file that is there.
            max_tokens: Tokens beyond which some are drawn at random.
            max_frames: Frames beyond which some are left out, evenly in log-time.

        Returns:
            The path.

        Raises:
            ValueError: If the run kept no states, or an argument does not fit it.
            FileExistsError: If there is a file and `force` is not set.
        """
        from attnflow.view import check_page, html, scene_of_trajectory, write

        check_page(path, force=force)
        scene = scene_of_trajectory(
            self,
            color=color,
            names=names,
            title=title,
            max_tokens=max_tokens,
            max_frames=max_frames,
        )
        return write(html(scene), path, force=force)
