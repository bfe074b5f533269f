r"""Normalisation schemes on equiangular tokens, exactly: flow, layers, collapse, with Q = K = V = I.

Symmetry leaves two numbers, the common cosine $\rho$ and the common radius r. With the gap $g = 1-\rho$,
$S = n - (n-1)g$ and weights $u \propto e^{\beta}$ on itself, $w \propto e^{\beta\rho}$ on each other token,
$u + (n-1)w = 1$, attention is $A_i = (u-w)\theta_i + w\sum_k\theta_k$, and every scheme is one line of
$\dot y = 2nw/s$, $y = \log(S/g)$, beside $\dot r$:

| scheme | s | r' |
|---|---|---|
| post | 1 | 0 |
| pre | r | a |
| mix | 1, then r | 0, then a |
| peri | r N | a/N |
| ngpt | N/alpha | 0 |
| sqrt | sqrt(t+1) | 0 |
| ln-scaling | r sqrt(t+1) | a/sqrt(t+1) |
| none | 1, at beta r^2 | r a |

with $a = \langle\theta_i, A_i\rangle$ and $N = |A_i|$. One-layer maps are in the same two numbers.

Source:
    Karagodin, Ge, Polyanskiy, Rigollet, "Normalization in attention dynamics" (2025), Table 1, evaluated on
    equiangular tokens; "none" from Sander, Ablin, Blondel, Peyré, "Sinkformers" (2022).
"""

from attnflow.theory.normalization.collapse import (
    EXPONENTS,
    depth_budget,
    orbit_radius,
    terminal_clock,
    terminal_constant,
    terminal_gap,
)
from attnflow.theory.normalization.continuous import cosine, course, speed, speed_factor
from attnflow.theory.normalization.discrete import layer_course, layer_step, phase_curve_post_ln
from attnflow.theory.normalization.scheme import SCHEMES, Course

__all__ = [
    "EXPONENTS",
    "SCHEMES",
    "Course",
    "cosine",
    "course",
    "depth_budget",
    "layer_course",
    "layer_step",
    "orbit_radius",
    "phase_curve_post_ln",
    "speed",
    "speed_factor",
    "terminal_clock",
    "terminal_constant",
    "terminal_gap",
]
