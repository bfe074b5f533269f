"""The exponentially long run: tokens merge into weighted clusters until one is left."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attnflow.attention import Attention, UnnormalizedAttention
from attnflow.coalescence.early import crowded, ended, prepend, snapshot
from attnflow.coalescence.field import pull
from attnflow.coalescence.run import Snapshot, Story, evolve, scaled_energy
from attnflow.coalescence.tree import LN10, MAX_STEPS, History, MergeTree
from attnflow.errors import (
    check_between,
    check_count,
    check_finite,
    check_shape,
    check_tokens,
    check_weights,
)

__all__ = ["MergeTree", "coalesce", "velocity"]

KEEP = 256
SHARPNESS = 256
CROWD = 4096
THINNED = 8
"""How many times fewer tokens the crowded phase leaves."""


def coalesce(
    attention: Attention | UnnormalizedAttention,
    x0: Any,
    *,
    weights: Any = None,
    t_max: float = np.inf,
    merge_tol: float = 1e-8,
    rtol: float = 1e-9,
    contact: float = 1e-8,
    perturb: float = 0.0,
    seed: int = 0,
    crowd: int | None = CROWD,
) -> MergeTree:
    r"""Run (SA) or (USA) through exponentially long times, merging tokens that have met.

    Velocities are summed as differences, $\sum_{j\ne i} a_{ij}(x_j - x_i + q_{ij}x_i)$ with
    $q_{ij} = |x_i - x_j|^2/2$, so they are exact relative to their own size at any speed. Steps
    (Prince-Dormand 8(7)) are in distance travelled, $dt = ds/|v|$, and time is kept as a logarithm:
    the number of steps does not depend on how long a metastable state lasts.

    Clusters meet when two of their tokens come within `contact` (chord), whatever `merge_tol`; if
    that is more, the meeting at `merge_tol` is continued by the exponential law of close pairs.
    Tokens of one cluster are carried apart until they are within `merge_tol`/256, so that meetings
    shortly after are not blurred, and then become one of their joint weight at the weighted mean
    direction: an error O(merge_tol^2). Measured for n = 60, d = 3, beta = 60: the last position moves
    by 3e-8 for merge_tol = 1e-2, 2e-11 for 1e-3, 3e-14 for 1e-4; log10 of metastable merge times by
    7e-7, 4e-9, 4e-11; those of the crowded start (t < 30) by 0.04, 0.008, 0.007, by 5e-6 for 1e-8.

    Large clouds begin with a crowded phase, coarse steps of third order that merge tokens within 3 % of
    a kernel width $1/\sqrt\beta$, until an eighth of `crowd` are left: on the circle and on S² by the fast sums,
    O(n log n) a step. Its merge times are those of its steps. A cluster then stands at most about a merge
    distance from where it should, so that log10 of a later merge time is off by at most
    $0.06\sqrt\beta/\ln 10$ (by 0.08 in 5 clouds of 300 to 400 uniform tokens, beta = 30), and pairs that tie
    may merge in another order. 10^5 tokens, d = 3, beta = 50 take some 20 s to one cluster, and 0.9 GB.

    Always float64, whatever JAX's flag; the same bits each time on the same machine. O(n^2 d) a
    stage, 14 stages a step; n = 200, d = 2, beta = 200 takes about 1200 steps. Programs are compiled
    for 4, 8, 16, ... tokens. For d > n the run is done in the span of the tokens.

    Args:
        attention: `Attention` or `UnnormalizedAttention` with Q, K, V multiples of the identity,
            beta Q K >= 0, V > 0, no mask.
        x0: Unit tokens in float64, shape (n, d), d >= 2.
        weights: Token weights > 0, shape (n,), sum 1; default those of `attention`, else equal.
        t_max: Time to end at, > 0.
        merge_tol: Chord distance within which tokens are of one cluster, in [1e-9, 0.01]. From 1e-3
            on, and for d > 16, velocities are summed by matrix multiplication, to 1e-10 of their size.
        rtol: Relative error allowed in each step, of distances between neighbours and of time, in [1e-12, 1e-3].
        contact: Chord distance at which clusters count as met: what a merge time is the time of, in
            [1e-9, 0.1].
        perturb: Size of a tangent Gaussian kick given to every token when the state is stationary
            within rounding though not one cluster (antipodal tokens, regular polygons); 0 ends the
            run there with `status` "stationary".
        seed: Seed of the kicks.
        crowd: Number of tokens beyond which there is a crowded phase, >= 8; None for none, at O(n^2 d).

    Raises:
        ValueError: If an argument is out of range, tokens are float32, or the attention is one for
            which nothing is promised.

    Source:
        Geshkovski, Koubbi, Polyanskiy, Rigollet, "Dynamic metastability in the self-attention
        model" (2024); the clock and the difference form are ours.
    """
    beta, speed, softmax, weights = _read_attention(attention, weights)
    x0 = np.asarray(x0) if not isinstance(x0, jax.Array) else x0
    check_tokens(x0, "x0")
    if x0.dtype != np.float64:
        raise ValueError(
            f"Argument `x0` must be float64, but x0.dtype={x0.dtype}. Metastable speeds are lost in less: "
            f"pass `np.asarray(x0, float)`."
        )
    x0 = np.asarray(x0)
    x0 = x0 / np.linalg.norm(x0, axis=1, keepdims=True)
    n, d = x0.shape
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights, float)
    check_weights(w, n)
    check_between(w, "weights", low=0.0, open_low=True, remedy="Remove tokens of weight zero.")
    named = {
        "merge_tol": merge_tol,
        "rtol": rtol,
        "contact": contact,
        "t_max": t_max,
        "perturb": perturb,
    }
    for name, number in named.items():
        check_shape(number, name, ())
    check_between(merge_tol, "merge_tol", 1e-9, 1e-2)
    check_between(rtol, "rtol", 1e-12, 1e-3)
    check_between(contact, "contact", 1e-9, 0.1)
    check_between(t_max, "t_max", low=0.0, open_low=True)
    check_between(perturb, "perturb", 0.0, 0.1)
    check_count(seed, "seed", low=0)
    if crowd is not None:
        check_count(crowd, "crowd", low=THINNED)
    w = w / w.sum()
    rescaled = softmax or getattr(attention, "clock", "") == "rescaled"
    log_unit = -np.log(speed) - (0.0 if rescaled else beta)
    basis = np.linalg.qr(x0.T)[0] if d > n >= 2 else None
    start_x = x0 if basis is None else x0 @ basis
    start = Snapshot(start_x, np.log(w), np.arange(n), -np.inf, 0)
    rules = {
        "beta": beta,
        "softmax": softmax,
        "rtol": rtol,
        "contact": contact,
        "join_at": max(merge_tol, contact),
        "merge_at": merge_tol / SHARPNESS,
        "log_t_max": float(np.log(t_max)) - log_unit,
        "keep": KEEP,
    }
    products = start_x.shape[1] > 16 and merge_tol >= 1e-3
    early, left = None, None
    if crowd is not None and n > crowd:
        left, t_end = crowd // THINNED, rules["log_t_max"]
        early = crowded(start_x, w, beta, left=left, softmax=softmax, log_t_max=t_end)
        start = snapshot(early)
    if early is not None and start.log_t >= rules["log_t_max"] - 1e-12:
        story = ended(early)
    else:
        story = evolve(
            start, rules, n=n, max_steps=MAX_STEPS, products=products, perturb=perturb, seed=seed
        )
    if early is not None:
        story = prepend(early, story)
    return _tree(story, x0, w, beta, softmax, log_unit, rules, products, basis, left)


def velocity(
    attention: Attention | UnnormalizedAttention, x: Any, *, weights: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Velocities as a direction (n, d) of moderate size and the logarithm (n,) of its scale.

    $\dot x_i = e^{\text{log\_scale}_i}\,\text{direction}_i$, each exact relative to its own size
    even where it is no float64. O(n^2 d).
    """
    beta, speed, softmax, weights = _read_attention(attention, weights)
    x = np.asarray(x, float)
    check_tokens(x)
    w = np.full(len(x), 1 / len(x)) if weights is None else np.asarray(weights, float)
    check_weights(w, len(x))
    rescaled = softmax or getattr(attention, "clock", "") == "rescaled"
    with jax.enable_x64(True), np.errstate(divide="ignore"):
        seen = pull(jnp.asarray(x), jnp.asarray(np.log(w)), jnp.asarray(beta), softmax)
        unit = np.log(speed) + (0.0 if rescaled else beta)
        return np.asarray(seen.direction), np.asarray(seen.log_scale) + unit


def _read_attention(attention, weights):
    """Inverse temperature, speed, whether softmax, and weights; or a sentence why not."""
    if type(attention) not in (Attention, UnnormalizedAttention):
        raise ValueError(
            f"Argument `attention` must be Attention or UnnormalizedAttention, "
            f"but attention={type(attention).__name__}. Merging is proved for these alone."
        )
    if attention.mask is not None:
        raise ValueError(
            "Argument `attention` must have no mask, but attention.mask is set. "
            "Use `solve` for causal flows."
        )
    numbers = {}
    for name in ("beta", "query", "key", "value"):
        number = getattr(attention, name)
        if np.ndim(number) != 0:
            raise ValueError(
                f"Argument `attention.{name}` must be one number, but its shape is {np.shape(number)}. "
                f"Use `solve` for matrices."
            )
        check_finite(number, f"attention.{name}")
        numbers[name] = float(number)
    beta = numbers["beta"] * numbers["query"] * numbers["key"]
    check_between(
        beta, "attention.beta", low=0.0, remedy="Repelling tokens do not merge; use `solve`."
    )
    check_between(
        numbers["value"],
        "attention.value",
        low=0.0,
        open_low=True,
        remedy="Repelling tokens do not merge; use `solve`.",
    )
    weights = attention.weights if weights is None else weights
    return beta, numbers["value"], type(attention) is Attention, weights


def _tree(story: Story, x0, w, beta, softmax, log_unit, rules, products, basis, left) -> MergeTree:
    """Merges in order of time, in the user's clock and axes."""
    n, m = len(x0), len(story.pairs)
    times = story.log_times.tolist()
    for k, (i, j) in enumerate(story.pairs.tolist()):
        times[k] = max(times[child - n] if child >= n else -np.inf for child in (i, j, n + k))
    times = np.asarray(times)
    order = np.argsort(times, kind="stable")
    renamed = np.concatenate([np.arange(n), n + np.argsort(order)]).astype(int)
    lift = (lambda x: x) if basis is None else (lambda x: x @ basis.T)
    history = story.history
    start_energy = history[0, 1] if left is not None else scaled_energy(x0, w, beta)
    return MergeTree(
        model="sa" if softmax else "usa",
        beta=beta,
        x0=x0,
        weights0=w,
        log10_times=(times[order] + log_unit) / LN10,
        pairs=np.sort(renamed[story.pairs[order]], axis=1).reshape(m, 2),
        merged_x=lift(story.positions[order]),
        merged_weights=np.exp(story.log_weights[order]),
        energies=np.append(start_energy, story.energies[order]),
        history=History(
            (history[:, 0] + log_unit) / LN10, history[:, 1], history[:, 2].astype(int)
        ),
        status=story.status,
        log10_t_end=(story.end.log_t + log_unit) / LN10,
        x_end=lift(story.end.x),
        weights_end=np.exp(story.end.log_w),
        stats=story.stats,
        _snapshots=story.snapshots,
        _found=story.pairs,
        _rules=rules,
        _products=products,
        _log_unit=log_unit,
        _basis=basis,
        _left=left,
    )
