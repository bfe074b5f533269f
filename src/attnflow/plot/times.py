"""Time as an axis and as a label."""

import numpy as np
from matplotlib.axes import Axes


def time_axis(ax: Axes, ts: np.ndarray, *, log: bool, pad: float = 0.0) -> None:
    """Label and limit the time axis; a logarithmic one starts at the first positive time.

    `pad` is the share of the axis left free at both ends, so that markers there are whole.
    """
    ax.set_xlabel("time $t$")
    if log:
        positive = ts[ts > 0]
        if len(positive) < 2:
            raise ValueError(
                "Argument `ts` must hold two positive times for a logarithmic axis, "
                f"but it holds {len(positive)}. Pass `log_time=False`."
            )
        ax.set_xscale("log")
        margin = (positive[-1] / positive[0]) ** pad
        ax.set_xlim(positive[0] / margin, positive[-1] * margin)
    elif len(ts) > 1:
        margin = pad * (ts[-1] - ts[0])
        ax.set_xlim(ts[0] - margin, ts[-1] + margin)


def number(value: float, digits: int = 3) -> str:
    """A number for mathtext: 0.0123, 45, or 6.7 x 10^8."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    if not exponent:
        return mantissa
    power = rf"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \times {power}"
