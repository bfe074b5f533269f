r"""Runge-Kutta steps by distance travelled: the clock that never stalls, and the merging of tokens."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.coalescence.field import Pull, pull
from attnflow.sphere import normalize

CONTACT = 1e-8
"""Chord distance at which two tokens count as met."""
HISTORY = 2048
"""Steps between two visits to Python."""
ROUNDING = 2e-15
RUNNING, COLLAPSED, STATIONARY, ENDED = range(4)

# Dormand and Prince (1980): stages, the fifth-order weights (last row) and the embedded error.
STAGES = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ]
)
ERROR = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])


class Rules(NamedTuple):
    """What a run obeys: numbers, so that changing them compiles nothing."""

    beta: Float[Array, ""]
    softmax: Array
    rtol: Float[Array, ""]
    merge_tol: Float[Array, ""]
    log_t_max: Float[Array, ""]
    keep: Array


class Tokens(NamedTuple):
    """A moment of a run; log_w = -inf marks an empty slot."""

    x: Float[Array, "n d"]
    log_w: Float[Array, " n"]
    log_t: Float[Array, ""]
    h: Float[Array, ""]


class Records(NamedTuple):
    """What a stretch of a run saw: merges (slots, log time, weight, position) and steps."""

    merges: Array
    slots: Array
    log_times: Array
    log_weights: Array
    positions: Array
    energies: Array
    steps: Array
    rejected: Array
    history: Array


class Run(NamedTuple):
    """Everything the loop carries."""

    tokens: Tokens
    pull: Pull
    records: Records
    status: Array
    leave: Array


@jax.jit
def advance(tokens: Tokens, rules: Rules) -> Run:
    """Step and merge until something has to be done in Python: look at `status` and `leave`.

    `leave` is set after each merge once at most `rules.keep` tokens are left, when half of the
    slots are empty, and when the history is full. O(n^2 d) a stage, seven stages a step.
    """
    n, d = tokens.x.shape
    zero = jnp.zeros((), int)
    records = Records(
        zero,
        jnp.zeros((n, 2), int),
        jnp.zeros(n),
        jnp.zeros(n),
        jnp.zeros((n, d)),
        jnp.zeros(n),
        zero,
        zero,
        jnp.zeros((HISTORY, 3)),
    )
    seen = pull(tokens.x, tokens.log_w, rules.beta, rules.softmax)
    run = Run(tokens, seen, records, zero + RUNNING, jnp.zeros((), bool))
    run = run._replace(status=_status(run, rules))
    going = lambda run: (run.status == RUNNING) & ~run.leave
    return jax.lax.while_loop(going, partial(_turn, rules=rules), run)


def _turn(run: Run, rules: Rules) -> Run:
    meets = run.pull.near.min() <= rules.merge_tol
    run = jax.lax.cond(meets, partial(_merge, rules=rules), partial(_step, rules=rules), run)
    return run._replace(status=_status(run, rules))


def _status(run: Run, rules: Rules):
    """Whether the run is over: one token, none moves beyond rounding, or the time is up."""
    alive = jnp.isfinite(run.tokens.log_w)
    size = jnp.linalg.norm(run.pull.direction, axis=1)
    limit = 64 * jnp.finfo(size.dtype).eps * (1 + rules.beta) * run.pull.tension
    still = jnp.all(~alive | (size <= limit)) & (run.pull.near.min() > rules.merge_tol)
    ended = run.tokens.log_t >= rules.log_t_max - 1e-12
    status = jnp.where(ended, ENDED, jnp.where(still, STATIONARY, RUNNING))
    return jnp.where(alive.sum() == 1, COLLAPSED, status)


# ------------------------------------------------------------------------------------------- steps


def _step(run: Run, rules: Rules) -> Run:
    """One attempted step: dx/ds = v/|v|, and dt/ds = 1/|v| in logarithms."""
    tokens, first = run.tokens, run.pull
    log_speed = first.log_speed()
    motion = _motion(first, log_speed)
    h = jnp.minimum(tokens.h, _reach(tokens.x, motion, first))
    stages = jnp.asarray(STAGES)
    shape = (7, *tokens.x.shape)

    def stage(i, carry):
        motions, logs, *_ = carry
        x = normalize(tokens.x + h * jnp.tensordot(stages[i], motions, 1))
        seen = pull(x, tokens.log_w, rules.beta, rules.softmax)
        log = seen.log_speed()
        return motions.at[i].set(_motion(seen, log)), logs.at[i].set(log), x, seen

    motions = jnp.zeros(shape).at[0].set(motion)
    logs = jnp.zeros(7).at[0].set(log_speed)
    motions, logs, x, seen = jax.lax.fori_loop(1, 7, stage, (motions, logs, tokens.x, first))

    shift = (-logs).max()
    slowness = jnp.exp(-logs - shift)
    duration = stages[6] @ slowness
    log_dt = jnp.log(h) + shift + jnp.log(jnp.maximum(duration, 1e-300))
    log_t = jnp.logaddexp(tokens.log_t, log_dt)
    time_error = jnp.abs(ERROR @ slowness) / jnp.abs(duration) * jnp.exp(log_dt - log_t)
    errors = h * jnp.linalg.norm(jnp.tensordot(ERROR, motions, 1), axis=1)
    scale = jnp.where(jnp.isfinite(first.near), first.near / (1 + rules.beta * first.near), 1.0)
    error = jnp.maximum((errors / (rules.rtol * scale + ROUNDING)).max(), time_error / rules.rtol)
    sound = jnp.isfinite(error) & (duration > 0)
    factor = jnp.where(sound, jnp.clip(0.9 * jnp.maximum(error, 1e-10) ** -0.2, 0.2, 5.0), 0.2)
    late = sound & (error <= 1) & (log_t > rules.log_t_max + 1e-12)
    remaining = rules.log_t_max + jnp.log1p(-jnp.exp(tokens.log_t - rules.log_t_max))
    factor = jnp.where(late, jnp.exp(remaining - log_dt), factor)
    accepted = sound & (error <= 1) & ~late

    choose = lambda new, old: jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)
    log_end = jnp.where(log_t > rules.log_t_max - 1e-12, rules.log_t_max, log_t)
    moved = Tokens(x, tokens.log_w, log_end, h * factor)
    kept = tokens._replace(h=h * factor)
    at = run.records.steps
    records = run.records._replace(
        steps=at + accepted,
        rejected=run.records.rejected + ~accepted,
        history=jnp.where(
            accepted, run.records.history.at[at].set(_entry(moved, seen)), run.records.history
        ),
    )
    full = records.steps >= HISTORY
    return run._replace(
        tokens=choose(moved, kept), pull=choose(seen, first), records=records, leave=full
    )


def _motion(seen: Pull, log_speed):
    """Velocities per unit of distance travelled by all tokens together."""
    scale = jnp.where(jnp.isfinite(seen.log_scale), jnp.exp(seen.log_scale - log_speed), 0.0)
    return scale[:, None] * seen.direction


def _reach(x, motion, seen: Pull):
    """Step within which no token gets nearer than a tenth of the way to its nearest."""
    closing, _ = _closing(x, motion, seen)
    return 0.9 * jnp.where(closing > 0, seen.near / closing, jnp.inf).min()


def _closing(x, motion, seen: Pull):
    """Speed at which each token and its nearest approach, and their distance."""
    gap = x[seen.nearest] - x
    size = jnp.where(jnp.isfinite(seen.near) & (seen.near > 0), seen.near, 1.0)
    closing = -(gap * (motion[seen.nearest] - motion)).sum(axis=1) / size
    return jnp.where(jnp.isfinite(seen.near), closing, 0.0), size


def _entry(tokens: Tokens, seen: Pull):
    """Row of the history: log time, scaled energy, number of tokens."""
    alive = jnp.isfinite(tokens.log_w)
    w = jnp.exp(tokens.log_w)
    return jnp.stack([tokens.log_t, (w * (w + jnp.exp(seen.log_others))).sum(), alive.sum() * 1.0])


# ------------------------------------------------------------------------------------------ merges


def _merge(run: Run, rules: Rules) -> Run:
    """Every two tokens that are each other's nearest, and within the tolerance, become one."""
    tokens, seen, records = run.tokens, run.pull, run.records
    n = len(tokens.x)
    slots = jnp.arange(n)
    other = seen.nearest
    joins = (seen.near <= rules.merge_tol) & (other[other] == slots) & (slots < other)
    goes = joins[other] & (other[other] == slots) & (slots > other) & jnp.isfinite(tokens.log_w)
    log_w = jnp.where(joins, jnp.logaddexp(tokens.log_w, tokens.log_w[other]), tokens.log_w)
    share = jnp.exp(jnp.where(joins, tokens.log_w - log_w, 0.0))
    middle = normalize(tokens.x + (1 - share)[:, None] * (tokens.x[other] - tokens.x))
    x = jnp.where(joins[:, None], middle, tokens.x)
    log_w = jnp.where(goes, -jnp.inf, log_w)

    at = jnp.where(joins, records.merges + jnp.cumsum(joins) - 1, n)
    put = lambda array, values: array.at[at].set(values, mode="drop")
    records = records._replace(
        merges=records.merges + joins.sum(),
        slots=put(records.slots, jnp.stack([slots, other], axis=1)),
        log_times=put(records.log_times, _contact_times(tokens, seen)),
        log_weights=put(records.log_weights, log_w),
        positions=put(records.positions, x),
    )
    tokens = Tokens(x, log_w, tokens.log_t, 0.1 / (1 + rules.beta))
    seen = pull(x, log_w, rules.beta, rules.softmax)
    energy = jnp.full(n, _entry(tokens, seen)[1])
    records = records._replace(energies=put(records.energies, energy))
    left = jnp.isfinite(log_w).sum()
    leave = (left <= rules.keep) | ((2 * left <= n) & (n > 8))
    return run._replace(tokens=tokens, pull=seen, records=records, leave=leave)


def _contact_times(tokens: Tokens, seen: Pull):
    r"""Logarithm of the time at which each token and its nearest are `CONTACT` apart.

    Close pairs approach exponentially: $t + \log(\delta/\text{CONTACT})/\lambda$ with
    $\lambda = -\dot\delta/\delta$ of now, error O(delta^2).
    """
    log_speed = seen.log_speed()
    closing, size = _closing(tokens.x, _motion(seen, log_speed), seen)
    log_rate = jnp.log(jnp.where(closing > 0, closing / size, 1.0)) + log_speed
    ratio = jnp.log(jnp.where(seen.near > 0, seen.near, CONTACT) / CONTACT)
    log_shift = jnp.log(jnp.abs(ratio)) - log_rate
    later = jnp.logaddexp(tokens.log_t, log_shift)
    share = jnp.exp(jnp.minimum(log_shift - tokens.log_t, 1.0))
    earlier = jnp.where(share < 1, tokens.log_t + jnp.log1p(-jnp.minimum(share, 1.0)), -jnp.inf)
    moved = jnp.where(ratio >= 0, later, earlier)
    known = (closing > 0) & (seen.near > 0) & (ratio != 0)
    return jnp.where(known, moved, tokens.log_t)
