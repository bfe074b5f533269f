r"""Clusters that come into contact, when that was, and tokens so close that one stands for both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attnflow.coalescence.field import neighbours
from attnflow.coalescence.state import Moment, Rules, Run, Tokens
from attnflow.sphere import normalize


def clusters_left(tokens: Tokens) -> Int[Array, ""]:
    """Number of groups."""
    first = tokens.group == jnp.arange(len(tokens.group))
    return (first & jnp.isfinite(tokens.log_w)).sum()


def join(run: Run, rules: Rules, *, products: bool) -> Run:
    """Every two groups within contact, each the other's nearest, become one group."""
    tokens, records = run.tokens, run.records
    n, slots = len(tokens.x), jnp.arange(len(tokens.x))
    near, other = run.outside
    least = jax.ops.segment_min(near, tokens.group, num_segments=n)[tokens.group]
    leads = jax.ops.segment_min(jnp.where(near == least, slots, n), tokens.group, num_segments=n)[
        tokens.group
    ]
    back = other[leads[other]]  # where the nearest group has its own nearest
    mutual = (leads == slots) & (tokens.group[back] == tokens.group)
    joins = mutual & (near <= rules.join_at) & (tokens.group < tokens.group[other])

    became = slots.at[jnp.where(joins, tokens.group[other], n)].set(tokens.group, mode="drop")
    group = became[tokens.group]
    mass, place = _clusters(tokens._replace(group=group))
    at = jnp.where(joins, records.merges + jnp.cumsum(joins) - 1, n)
    put = lambda array, values: array.at[at].set(values, mode="drop")
    times = contact_times(run.then, run.now, jnp.stack([slots, other]), rules)
    records = records._replace(
        merges=records.merges + joins.sum(),
        slots=put(records.slots, jnp.stack([slots, other], axis=1)),
        moments=put(records.moments, jnp.full(n, records.steps)),
        log_times=put(records.log_times, jnp.where(near > 0, times, tokens.log_t)),
        log_weights=put(records.log_weights, jnp.log(mass)[group]),
        positions=put(records.positions, place[group]),
    )
    tokens = tokens._replace(group=group)
    outside = neighbours(tokens.x, tokens.log_w, group, products=products)
    left = clusters_left(tokens)
    leave = (left <= rules.keep) & ~(outside[0].min() <= rules.join_at)
    return run._replace(tokens=tokens, outside=outside, records=records, leave=leave)


def _clusters(tokens: Tokens):
    """Weight and weighted mean direction of each group, at the slot it is named by."""
    w, n = jnp.exp(tokens.log_w), len(tokens.x)
    sums = lambda values: jax.ops.segment_sum(values, tokens.group, num_segments=n)
    mass = sums(w)
    offset = tokens.x - tokens.x[tokens.group]
    mean = sums(w[:, None] * offset) / jnp.where(mass > 0, mass, 1.0)[:, None]
    return mass, normalize(tokens.x + mean)


def contact_times(
    then: Moment, now: Moment, pair: Int[Array, "2 n"], rules: Rules
) -> Float[Array, " n"]:
    r"""Logarithms of the times at which pairs were in contact, in or after the last step.

    Time is a cubic of the logarithm of the distance, by values and slopes at the ends of the step;
    from `join_at` on, if contact is closer, the pair follows $\dot\delta = -\lambda\delta$.
    """
    unit = now.log_t
    ends = []
    for moment in (then, now):
        gap, motion = (values[pair[1]] - values[pair[0]] for values in (moment.x, moment.motion))
        square = (gap * gap).sum(axis=1)
        closing = -(gap * motion).sum(axis=1)
        log_slowness = jnp.log(square) - jnp.log(closing) - moment.log_speed
        known = (square > 0) & (closing > 0) & jnp.isfinite(moment.log_speed)
        slope = -jnp.exp(jnp.where(known, log_slowness - unit, -jnp.inf))
        u = jnp.broadcast_to(jnp.exp(moment.log_t - unit), slope.shape)
        ends.append((known, 0.5 * jnp.log(jnp.where(square > 0, square, 1.0)), u, slope))
    (known_then, *start), (known_now, *end) = ends
    wanted = jnp.log(rules.join_at)
    inside = known_then & known_now & (start[0] > wanted) & (wanted >= end[0])
    u = jnp.where(inside, _cubic(start, end, wanted), 1.0)
    u = u + jnp.where(known_now, -end[2], 0.0) * jnp.log(rules.join_at / rules.contact)
    u = jnp.where(known_now, u, 1.0)
    return jnp.where(u > 0, unit + jnp.log(jnp.where(u > 0, u, 1.0)), -jnp.inf)


def _cubic(start, end, at):
    """Hermite's cubic through two (place, value, slope)."""
    (a, fa, da), (b, fb, db) = start, end
    width = jnp.where(b != a, b - a, 1.0)
    s = (at - a) / width
    ends = fa * (1 + 2 * s) * (1 - s) ** 2 + fb * s * s * (3 - 2 * s)
    return ends + width * (da * s * (1 - s) ** 2 - db * s * s * (1 - s))


def merge(run: Run, rules: Rules, *, products: bool) -> Run:
    """Every two tokens that are each other's nearest, and nearly one, become one of their weight."""
    tokens = run.tokens
    near, other = run.inside
    slots = jnp.arange(len(tokens.x))
    mutual = (other[other] == slots) & (near <= rules.merge_at)
    joins, goes = mutual & (slots < other), mutual & (slots > other)
    log_w = jnp.where(joins, jnp.logaddexp(tokens.log_w, tokens.log_w[other]), tokens.log_w)
    share = jnp.exp(jnp.where(joins, tokens.log_w - log_w, 0.0))
    middle = normalize(tokens.x + (1 - share)[:, None] * (tokens.x[other] - tokens.x))
    x = jnp.where(joins[:, None], middle, tokens.x)
    log_w = jnp.where(goes, -jnp.inf, log_w)
    alive = jnp.isfinite(log_w)
    heads = jax.ops.segment_min(
        jnp.where(alive, slots, len(slots)), tokens.group, num_segments=len(slots)
    )
    group = jnp.where(alive, heads[tokens.group], slots)

    inside = neighbours(x, log_w, products=products)
    outside = neighbours(x, log_w, group, products=products)
    apart = inside[0].min()
    h = jnp.maximum(tokens.h, 0.05 * apart / (1 + rules.beta * apart))
    leave = (2 * alive.sum() <= len(x)) & (len(x) > 8)
    tokens = Tokens(x, log_w, group, tokens.log_t, h)
    return run._replace(tokens=tokens, inside=inside, outside=outside, leave=leave)
