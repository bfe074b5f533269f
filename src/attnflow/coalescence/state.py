"""What a coalescing run carries."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float, Int

HISTORY = 2048
"""Steps between two visits to Python."""
RUNNING, COLLAPSED, STATIONARY, ENDED = range(4)


class Rules(NamedTuple):
    """What a run obeys: numbers, so that changing them compiles nothing."""

    beta: Float[Array, ""]
    softmax: Array
    rtol: Float[Array, ""]
    contact: Float[Array, ""]
    join_at: Float[Array, ""]
    merge_at: Float[Array, ""]
    log_t_max: Float[Array, ""]
    keep: Array


class Tokens(NamedTuple):
    """Weighted tokens; log_w = -inf marks an empty slot. Those that have met are of one group."""

    x: Float[Array, "n d"]
    log_w: Float[Array, " n"]
    group: Int[Array, " n"]
    log_t: Float[Array, ""]
    h: Float[Array, ""]


class Moment(NamedTuple):
    """Tokens at one end of a step: places, motions per distance travelled, log time, log speed."""

    x: Float[Array, "n d"]
    motion: Float[Array, "n d"]
    log_t: Float[Array, ""]
    log_speed: Float[Array, ""]


class Records(NamedTuple):
    """What a stretch of a run saw: merges (slots, steps before it, log time, weight, place) and steps."""

    merges: Array
    slots: Array
    moments: Array
    log_times: Array
    log_weights: Array
    positions: Array
    steps: Array
    rejected: Array
    history: Array


class Run(NamedTuple):
    """Everything the loop carries; `then` and `now` are the ends of the last step.

    `inside` and `outside` are the distance to the nearest token, and which that is: of all tokens,
    and of those of other groups.
    """

    tokens: Tokens
    inside: tuple[Float[Array, " n"], Int[Array, " n"]]
    outside: tuple[Float[Array, " n"], Int[Array, " n"]]
    then: Moment
    now: Moment
    records: Records
    status: Array
    leave: Array
