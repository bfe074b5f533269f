"""Normalisation schemes: clocks, radii, layers, speed factors and laws of collapse."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import attnflow as af
from attnflow.claims.claim import Claim, Sides
from attnflow.claims.runs import ATOL, RTOL, TOL, array, change, read, run, save_times
from attnflow.theory import normalization

GROWING = ("pre", "peri", "ln-scaling")
SOURCE = "Karagodin+ 2025, Table 1"
TAU = 1.0
PRINTED = {
    "post": ".977715837", "pre": ".298535889", "mix": ".753021700", "peri": ".394410977",
    "ngpt": ".750754044", "sqrt": ".698000833", "ln-scaling": ".202248714", "none": "",
}  # fmt: skip
PRINTED_RADII = {"pre": "4.487566175", "mix": "3.156066508", "peri": "5.509908826"}
PRINTED_RADII["ln-scaling"] = "3.445528075"
LATE = {"post": 6.0, "pre": 3e3, "mix": 3e3, "peri": 3e3, "ngpt": 24.0, "sqrt": 20.0}
LATE["ln-scaling"] = 1e5


def _schedule(t: Any) -> Any:
    """Rate of ngpt, .8/sqrt(1+t), in NumPy and in JAX."""
    return 0.8 / (1 + t) ** 0.5


@cache
def _norm(scheme: str) -> Any:
    own = {"mix": partial(af.norms.mix_ln, TAU), "ngpt": partial(af.norms.ngpt, _schedule)}
    return own[scheme]() if scheme in own else af.NORMS[scheme]


def _options(scheme: str) -> dict[str, Any]:
    return {
        "tau": TAU,
        "alpha": _schedule if scheme == "ngpt" else 1.0,
    }


@cache
def _course(scheme: str) -> np.ndarray:
    """Tokens of THEORY's table, n = 8, beta = 3, rho = .05, along a run to t = 4."""
    start = 1.7 if scheme in GROWING else 1.0
    x0 = start * np.asarray(af.sphere.equiangular(8, 0.05, d=8))
    return run(af.sa(3.0, norm=_norm(scheme)), x0, 4.0)


def _cosines(scheme: str) -> Sides:
    start = 1.7 if scheme in GROWING else 1.0
    predicted = normalization.cosine(
        scheme, save_times(4.0), 0.05, n=8, beta=3.0, radius=start, **_options(scheme)
    )
    return predicted[1:], read(af.observables.mean_cosine, _course(scheme))[1:]


def _radii(scheme: str) -> Sides:
    start = 1.7 if scheme in GROWING else 1.0
    predicted = normalization.course(
        scheme, save_times(4.0), 0.95, n=8, beta=3.0, radius=start, **_options(scheme)
    ).radius
    return predicted[1:], read(af.observables.mean_radius, _course(scheme))[1:]


def _orbits() -> Sides:
    """Radii at the gaps of runs, for the three schemes that share one curve."""
    predicted, observed = [], []
    for scheme in GROWING:
        gaps = read(af.observables.cosine_gap, _course(scheme))[1:]
        predicted.append(normalization.orbit_radius(gaps, 0.95, n=8, beta=3.0, radius=1.7))
        observed.append(read(af.observables.mean_radius, _course(scheme))[1:])
    return predicted, observed


SPEED_CASES = (
    ("post", 1.0), ("mix", 1.0), ("sqrt", 1.0), ("pre", 2.0), ("ln-scaling", 2.0), ("peri", 2.0),
    ("ngpt", 1.0), ("none", 1.3),
)  # fmt: skip


def _speeds() -> Sides:
    """Change of the cosine at t = 0, n = 32, beta = 2, by differentiation."""
    predicted, observed = [], []
    for scheme, radius in SPEED_CASES:
        x0 = radius * np.asarray(af.sphere.equiangular(32, 0.0))
        flow = af.sa(2.0, norm=_norm(scheme))
        predicted.append(
            normalization.speed(scheme, 0.0, n=32, beta=2.0, radius=radius, **_options(scheme))
        )
        observed.append(change(af.observables.mean_cosine, flow, x0))
    return predicted, observed


def _speed_factors() -> Sides:
    """Factors measured from velocities alone, at t = .5 of runs."""
    predicted, observed = [], []
    for scheme in PRINTED:
        x = array(_course(scheme)[1])
        flow = af.sa(3.0, norm=_norm(scheme))
        observed.append(float(af.observables.SpeedFactor(flow)(0.5, x).mean()))
        predicted.append(
            normalization.speed_factor(
                scheme, float(af.observables.mean_cosine(x)), n=8, beta=3.0,
                radius=float(af.observables.mean_radius(x)), t=0.5, **_options(scheme),
            )
        )  # fmt: skip
    return predicted, observed


LAYER_CASES = (("post", 1.0), ("pre", 1.4), ("peri", 1.4), ("ngpt", 1.0), ("sqrt", 1.0))
LAYER_CASES += (("ln-scaling", 1.4), ("none", 1.4), ("mix", 1.0))


def _layers(stack: bool) -> Sides:
    """Gaps and radii after the first layer, or after the last of twelve."""
    predicted, observed = [], []
    for scheme, radius in LAYER_CASES:
        alpha = _schedule if stack else 0.7
        norm = af.norms.ngpt(alpha) if scheme == "ngpt" else _norm(scheme)
        flow, x = af.sa(2.0, norm=norm), radius * af.sphere.equiangular(6, 0.2, d=9)
        options: dict[str, Any] = {"n": 6, "beta": 2.0, "eta": 0.3, "radius": radius}
        options |= {"tau": TAU, "alpha": alpha}
        for layer in range(12 if stack else 1):
            x = flow.layer(0.3 * layer, x, 0.3)
        if stack:
            path = normalization.layer_course(scheme, 0.8, layers=12, **options)
            predicted += [path.cosine[-1], path.radius[-1]]
        else:
            after = normalization.layer_step(scheme, 0.2, **options)
            predicted += [after.cosine, after.radius]
        observed += [float(af.observables.mean_cosine(x)), float(af.observables.mean_radius(x))]
    return predicted, observed


def _depth() -> Sides:
    """Layers of a real run until the cosine is .9, for every scheme that gets there."""
    import jax.numpy as jnp

    predicted, observed = [], []
    for scheme in normalization.EXPONENTS:
        norm = af.norms.ngpt(0.5) if scheme == "ngpt" else _norm(scheme)
        trajectory = af.solve(
            af.sa(1.0, norm=norm), af.sphere.equiangular(16, 0.1), jnp.arange(41.0),
            method=af.LayerMap(), dt=1.0, observe={"rho": af.observables.mean_cosine}, states=False,
        )  # fmt: skip
        observed.append(int(np.argmax(np.asarray(trajectory.observed["rho"]) >= 0.9)))
        predicted.append(
            normalization.depth_budget(scheme, 16, 1.0, 0.9, rho0=0.1, tau=TAU, alpha=0.5)
        )
    return predicted, observed


@cache
def _late(scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Late times, nine within a factor 4 of the last, and gaps of a run from orthogonal tokens."""
    import diffrax as dfx

    first = {"post": 3.0, "ngpt": 8.0, "sqrt": 8.0}.get(scheme, LATE[scheme] / 4)
    ts = np.append(0.0, np.geomspace(first, LATE[scheme], 8))
    xs = af.solve(
        af.sa(1.0, norm=_norm(scheme)), af.sphere.equiangular(8, 0.0), ts, method=dfx.Dopri8(),
        rtol=RTOL, atol=ATOL, adjoint=dfx.ForwardMode(),
    ).xs  # fmt: skip
    return ts[1:], read(af.observables.cosine_gap, xs)[1:]


def _exponents() -> Sides:
    """Slopes of log gap over the clock of each scheme, at the end of runs."""
    observed = []
    for scheme in normalization.EXPONENTS:
        ts, gaps = _late(scheme)
        alpha = _options(scheme)["alpha"]
        clock = normalization.terminal_clock(scheme, ts, alpha=alpha)
        observed.append(np.polyfit(clock - clock[0], np.log(gaps / gaps[0]), 1)[0])
    return list(normalization.EXPONENTS.values()), observed


def _constants() -> Sides:
    """Gap over its law without the constant, at the last time."""
    predicted, observed = [], []
    for scheme, exponent in normalization.EXPONENTS.items():
        ts, gaps = _late(scheme)
        options = {"n": 8, "beta": 1.0, **_options(scheme)}
        clock = normalization.terminal_clock(scheme, ts, alpha=options["alpha"])
        predicted.append(normalization.terminal_constant(scheme, **options))
        observed.append(gaps[-1] * np.exp(-exponent * clock[-1]))
    return predicted, observed


def _laws() -> Sides:
    """The law itself at the last time."""
    predicted, observed = [], []
    for scheme in normalization.EXPONENTS:
        ts, gaps = _late(scheme)
        law = normalization.terminal_gap(scheme, ts[-1], n=8, beta=1.0, **_options(scheme))
        predicted.append(float(law))
        observed.append(gaps[-1])
    return predicted, observed


ODE = "solver: 10 rtol of a run"
LAW = "corrections of order gap (exponential laws), log(t)/t (power laws): below 1 %"

CLAIMS = (
    *(
        Claim(
            name=f"normalization-{scheme}",
            statement=f"Under {scheme} equiangular tokens follow one ODE of cosine and radius.",
            source=SOURCE,
            check=partial(_cosines, scheme),
            oracle=normalization.cosine,
            printed=f"* * * * * * * {printed}" if printed else "",
            tolerance=TOL,
            why=ODE,
        )
        for scheme, printed in PRINTED.items()
    ),
    *(
        Claim(
            name=f"normalization-{scheme}-radius",
            statement=f"Under {scheme} radii grow as the radial part of attention says.",
            source=SOURCE,
            check=partial(_radii, scheme),
            oracle=normalization.course,
            printed=f"* * * * * * * {printed}",
            tolerance=TOL,
            relative=True,
            why=ODE,
        )
        for scheme, printed in PRINTED_RADII.items()
    ),
    Claim(
        name="normalization-one-orbit",
        statement="Pre-LN, Peri-LN and LN-scaling trace one curve of cosine and radius; clocks differ.",
        source="derived: gap e^I r^2 conserved",
        check=_orbits,
        oracle=normalization.orbit_radius,
        tolerance=TOL,
        relative=True,
        why=ODE,
    ),
    Claim(
        name="normalization-speed",
        statement="Orthogonal tokens start at the speed of their scheme.",
        source="Karagodin+ 2025, Table 2",
        check=_speeds,
        oracle=normalization.speed,
        printed=".05209818 .05209818 .05209818 .02604909 .02604909 .10808559 .17293695 *",
        tolerance=1e-14,
        why="rounding: means of 992 cosines",
    ),
    Claim(
        name="normalization-speed-factor",
        statement="Directions move at P A/s with the speed factor of the scheme, measured from velocities.",
        source=SOURCE,
        check=_speed_factors,
        oracle=normalization.speed_factor,
        tolerance=1e-10,
        relative=True,
        why="rounding over the pull, which is above 1e-5 at t = .5; state read from the run itself",
    ),
    Claim(
        name="normalization-layer",
        statement="One layer of any scheme takes equal cosines to equal cosines, exactly.",
        source=SOURCE,
        check=partial(_layers, False),
        oracle=normalization.layer_step,
        printed=".283433106795 * .262052717750 1.581732916312 .289015626118 1.675922644342"
        " .306558432759 * * * * * * * * *",
        tolerance=1e-12,
        why="rounding; the published accuracy",
    ),
    Claim(
        name="normalization-stack",
        statement="A stack of layers of any scheme is the iterated map of cosine and radius.",
        source=SOURCE,
        check=partial(_layers, True),
        oracle=normalization.layer_course,
        tolerance=1e-12,
        relative=True,
        why="rounding: 12 layers of 1e-15",
    ),
    Claim(
        name="normalization-depth",
        statement="Depth budget: real layers reach the cosine .9 at the layer the maps say.",
        source="derived: layer maps",
        check=_depth,
        oracle=normalization.depth_budget,
        tolerance=0.0,
        why="whole layers",
    ),
    Claim(
        name="normalization-exponents",
        statement="1 - rho falls as e^-2t (post), t^-2 (pre, mix, peri), e^-2∫alpha, e^-4sqrt(t), t^-1.",
        source="Karagodin+ 2025, Table 2",
        check=_exponents,
        oracle=normalization.terminal_clock,
        tolerance=0.01,
        relative=True,
        why=LAW,
    ),
    Claim(
        name="normalization-constants",
        statement="The constants of collapse are closed integrals; Post-LN has n times that of Pre-LN.",
        source="derived: gap e^I r^2 conserved",
        check=_constants,
        oracle=normalization.terminal_constant,
        tolerance=0.01,
        relative=True,
        why=LAW,
    ),
    Claim(
        name="normalization-terminal-law",
        statement="Late gaps lie on the terminal law of their scheme.",
        source="derived: gap e^I r^2 conserved",
        check=_laws,
        oracle=normalization.terminal_gap,
        tolerance=0.01,
        relative=True,
        why=LAW,
    ),
)
