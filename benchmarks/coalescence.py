"""Coalescence to one cluster, beside an adaptive stiff solver that has to stop early.

Peer: SciPy's LSODA on the velocity as usually written, `A x - <A x, x> x`, from the same start, to
t = 1000 and with the same relative tolerance. Ours is timed after compilation. Decades of time per second
is what both can be compared in.
"""

import time

import numpy as np
from scipy.integrate import solve_ivp

import attnflow as af
from benchmarks.timing import machine

SYSTEMS = ((200, 2, 200.0), (64, 3, 60.0), (200, 2, 1000.0))
ROUNDS = 3
T_PEER = 1e3
RTOL = 1e-9


def main() -> dict:
    """Seconds, merge times and decades per second of each system."""
    rows = [system(n, d, beta) for n, d, beta in SYSTEMS]
    result = {"machine": machine(), "systems": rows}
    show(result)
    return result


def system(n: int, d: int, beta: float) -> dict:
    """One start, both programs by turns."""
    x0 = np.random.default_rng(0).standard_normal((n, d))
    x0 /= np.linalg.norm(x0, axis=1, keepdims=True)
    coalesce = lambda **given: af.coalesce(af.Attention(beta), x0, **given)
    started = time.perf_counter()
    tree = coalesce()
    first = time.perf_counter() - started
    seconds: dict[str, list[float]] = {"attnflow": [], "lsoda": []}
    for _ in range(ROUNDS):
        for name, run in (("attnflow", coalesce), ("lsoda", lambda: peer(x0, beta))):
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    finer = coalesce(rtol=RTOL / 2, merge_tol=0.5e-8)
    decades = {"attnflow": tree.log10_t_end, "lsoda": np.log10(T_PEER)}
    rates = {name: float(decades[name] / medians[name]) for name in medians}
    return {
        "n": n,
        "d": d,
        "beta": beta,
        "seconds": medians,
        "first_seconds": first,
        "status": tree.status,
        "log10_t_end": float(tree.log10_t_end),
        "steps": tree.stats["steps"],
        "halved_tolerances_change": float(np.abs(finer.log10_times - tree.log10_times).max()),
        "decades_per_second": rates,
        "ratio": rates["attnflow"] / rates["lsoda"],
    }


def peer(x0: np.ndarray, beta: float) -> np.ndarray:
    """Tokens at t = 1000."""

    def velocity(t, flat):
        x = flat.reshape(x0.shape)
        scores = beta * (x @ x.T)
        a = np.exp(scores - scores.max(axis=1, keepdims=True))
        y = (a / a.sum(axis=1, keepdims=True)) @ x
        return (y - (x * y).sum(axis=1, keepdims=True) * x).ravel()

    run = solve_ivp(velocity, (0, T_PEER), x0.ravel(), method="LSODA", rtol=RTOL, atol=1e-12)
    return run.y[:, -1].reshape(x0.shape)


def show(result: dict) -> None:
    print(f"coalescence to one cluster; LSODA to t = {T_PEER:g}:")
    for row in result["systems"]:
        ours, lsoda = (row["seconds"][name] for name in ("attnflow", "lsoda"))
        print(
            f"n={row['n']:<4} d={row['d']} beta={row['beta']:<5g} {row['status']} at t=10^{row['log10_t_end']:.2f} in "
            f"{ours:.2f} s ({row['first_seconds']:.0f} s with compilation), {row['steps']} steps; LSODA {lsoda:.2f} s; "
            f"decades per second x{row['ratio']:.0f}; halved tolerances change log10 t by "
            f"{row['halved_tolerances_change']:.0e}",
            flush=True,
        )
