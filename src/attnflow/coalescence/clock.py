r"""Runge-Kutta steps by distance travelled: the clock that never stalls."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attnflow.coalescence.contact import clusters_left, join, merge
from attnflow.coalescence.field import neighbours, pull
from attnflow.coalescence.state import (
    COLLAPSED,
    ENDED,
    HISTORY,
    RUNNING,
    STATIONARY,
    Moment,
    Records,
    Rules,
    Run,
    Tokens,
)
from attnflow.sphere import normalize

ROUNDING = 2e-15

_TABLEAU = diffrax.Dopri8.tableau
ORDER = 8
STAGES = np.zeros((_TABLEAU.num_stages, _TABLEAU.num_stages))
for _row, _weights in enumerate(_TABLEAU.a_lower, start=1):
    STAGES[_row, :_row] = _weights
WEIGHTS, ERROR = np.asarray(_TABLEAU.b_sol), np.asarray(_TABLEAU.b_error)


@partial(jax.jit, static_argnames="products")
def advance(tokens: Tokens, rules: Rules, *, products: bool = False) -> Run:
    """Step and merge until something has to be done in Python: look at `status` and `leave`.

    `leave` is set after each merge once at most `rules.keep` clusters are left, when half of the
    slots are empty, and when the history is full. O(n^2 d) a stage, 14 stages a step.
    """
    n, d = tokens.x.shape
    zero = jnp.zeros((), int)
    records = Records(
        merges=zero,
        slots=jnp.zeros((n, 2), int),
        moments=jnp.zeros(n, int),
        log_times=jnp.zeros(n),
        log_weights=jnp.zeros(n),
        positions=jnp.zeros((n, d)),
        steps=zero,
        rejected=zero,
        history=jnp.zeros((HISTORY, 3)),
    )
    start = Moment(tokens.x, jnp.zeros((n, d)), tokens.log_t, jnp.asarray(-jnp.inf))
    inside = neighbours(tokens.x, tokens.log_w, products=products)
    outside = neighbours(tokens.x, tokens.log_w, tokens.group, products=products)
    run = Run(tokens, inside, outside, start, start, records, zero + RUNNING, zero > 0)
    run = run._replace(status=_status(run, rules))
    going = lambda run: (run.status == RUNNING) & ~run.leave
    return jax.lax.while_loop(going, partial(_turn, rules=rules, products=products), run)


def _turn(run: Run, rules: Rules, *, products: bool) -> Run:
    """Clusters that met join; tokens that are nearly one merge; else a step."""
    met = run.outside[0].min() <= rules.join_at
    one = run.inside[0].min() <= rules.merge_at
    act = jnp.where(met, 0, jnp.where(one, 1, 2))
    acts = [partial(f, rules=rules, products=products) for f in (join, merge, _step)]
    run = jax.lax.switch(act, acts, run)
    return run._replace(status=_status(run, rules))


def _status(run: Run, rules: Rules):
    """Whether the run is over: one cluster, nothing moves, or the time is up."""
    ended = run.tokens.log_t >= rules.log_t_max - 1e-12
    status = jnp.where(ended, ENDED, run.status)
    return jnp.where(clusters_left(run.tokens) == 1, COLLAPSED, status)


# ------------------------------------------------------------------------------------------- steps


class _Stages(NamedTuple):
    """Motions of the stages so far, logarithms of their speeds, and what the first one showed."""

    motions: Float[Array, "stages n d"]
    logs: Float[Array, " stages"]
    h: Float[Array, ""]
    energy: Float[Array, ""]
    still: Array
    x: Float[Array, "n d"]


def _step(run: Run, rules: Rules, *, products: bool) -> Run:
    """One attempted step: dx/ds = v/|v|, and dt/ds = 1/|v| in logarithms."""
    tokens, records, near = run.tokens, run.records, run.inside[0]
    did = _stages(run, rules, products=products)
    x, h, logs = did.x, did.h, did.logs

    shift = (-logs).max()
    slowness = jnp.exp(-logs - shift)
    duration = jnp.asarray(WEIGHTS) @ slowness
    log_dt = jnp.log(h) + shift + jnp.log(jnp.maximum(duration, 1e-300))
    log_t = jnp.logaddexp(tokens.log_t, log_dt)
    error = jnp.asarray(ERROR)
    time_error = jnp.abs(error @ slowness) / jnp.abs(duration) * jnp.exp(log_dt - log_t)
    errors = h * jnp.linalg.norm(jnp.tensordot(error, did.motions, 1), axis=1)
    scale = jnp.where(jnp.isfinite(near), near / (1 + rules.beta * near), 1.0)
    error = jnp.maximum((errors / (rules.rtol * scale + ROUNDING)).max(), time_error / rules.rtol)
    sound = jnp.isfinite(error) & (duration > 0)
    wanted = 0.9 * jnp.maximum(error, 1e-10) ** (-1 / ORDER)
    factor = jnp.where(sound, jnp.clip(wanted, 0.1, 10.0), 0.1)
    late = sound & (error <= 1) & (log_t > rules.log_t_max + 1e-12)
    remaining = rules.log_t_max + jnp.log1p(-jnp.exp(tokens.log_t - rules.log_t_max))
    factor = jnp.where(late, jnp.exp(remaining - log_dt), factor)
    accepted = sound & (error <= 1) & ~late & ~did.still

    log_end = jnp.where(log_t > rules.log_t_max - 1e-12, rules.log_t_max, log_t)
    moved = Tokens(x, tokens.log_w, tokens.group, log_end, h * factor)
    then = Moment(tokens.x, did.motions[0], tokens.log_t, logs[0])
    now = Moment(x, did.motions[-1], log_end, logs[-1])
    inside = neighbours(x, tokens.log_w, products=products)
    outside = neighbours(x, tokens.log_w, tokens.group, products=products)
    old = (tokens._replace(h=h * factor), run.inside, run.outside, run.then, run.now)
    new = (moved, inside, outside, then, now)
    tokens, inside, outside, then, now = jax.tree.map(
        lambda a, b: jnp.where(accepted, a, b), new, old
    )
    row = jnp.stack([run.tokens.log_t, did.energy, clusters_left(run.tokens) * 1.0])
    kept = jnp.where(accepted, row, records.history[records.steps])
    records = records._replace(
        steps=records.steps + accepted,
        rejected=records.rejected + (~accepted & ~did.still),
        history=records.history.at[records.steps].set(kept),
    )
    status = jnp.where(did.still, STATIONARY, RUNNING)
    full = records.steps >= HISTORY
    return Run(tokens, inside, outside, then, now, records, status, full)


def _stages(run: Run, rules: Rules, *, products: bool) -> _Stages:
    """All stages of a step, the last of them at its end."""
    tokens, table, (near, nearest) = run.tokens, jnp.asarray(STAGES), run.inside
    alive = jnp.isfinite(tokens.log_w)

    def stage(i, did):
        x = normalize(tokens.x + did.h * jnp.tensordot(table[i], did.motions, 1))
        seen = pull(x, tokens.log_w, rules.beta, rules.softmax, products=products)
        log = seen.log_speed()
        scale = jnp.where(jnp.isfinite(seen.log_scale), jnp.exp(seen.log_scale - log), 0.0)
        motion = scale[:, None] * seen.direction

        closing = _closing(x, motion, near, nearest)
        reach = 0.9 * jnp.where(closing > 0, near / closing, jnp.inf).min()
        size = jnp.linalg.norm(seen.direction, axis=1)
        limit = 64 * jnp.finfo(size.dtype).eps * (1 + rules.beta) * seen.tension
        w = jnp.exp(tokens.log_w)
        first = i == 0
        return _Stages(
            did.motions.at[i].set(motion),
            did.logs.at[i].set(log),
            jnp.where(first, jnp.minimum(did.h, reach), did.h),
            jnp.where(first, (w * (w + jnp.exp(seen.log_others))).sum(), did.energy),
            jnp.where(first, jnp.all(~alive | (size <= limit)), did.still),
            x,
        )

    stages, zero = len(table), jnp.zeros(())
    empty = jnp.zeros((stages, *tokens.x.shape)), jnp.zeros(stages)
    start = _Stages(*empty, tokens.h, zero, jnp.zeros((), bool), tokens.x)
    return jax.lax.fori_loop(0, stages, stage, start)


def _closing(x, motion, near, nearest):
    """Speed at which each token and its nearest approach."""
    gap = x[nearest] - x
    size = jnp.where(jnp.isfinite(near) & (near > 0), near, 1.0)
    closing = -(gap * (motion[nearest] - motion)).sum(axis=1) / size
    return jnp.where(jnp.isfinite(near), closing, 0.0)
