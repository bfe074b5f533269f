"""The integration of a simulation, a few save times at a time: numbers often, tokens rarely, checkpoints between."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import attnflow as af

if TYPE_CHECKING:
    from attnflow.experiments.simulate import Config

CHUNK, LONG_CHUNK = 4, 8
"""Save times between two checkpoints, of few tokens and of many: each new start costs two steps or so."""
MANY = 2**17
LARGEST = 8
"""Clusters whose sizes are kept at every save time."""
LARGE = 2**30
"""Bytes from which the estimate of memory is printed before a run."""
STATES = ("tokens", "labels", "weights")


def integrate(config: Config, flow, x0, ts, kept, progress: bool, checkpoint: Any):
    """Numbers at save times, tokens and labels at the kept ones, the number of steps, the sum that was taken.

    What is kept of the tokens goes to a part of its own beside the checkpoints, once, so that neither
    memory nor checkpoints grow with the run; into the checkpoint where that has no `keep`.
    """
    import jax
    import jax.numpy as jnp

    from attnflow.experiments.simulate import numerics_of

    uniform = jnp.full(len(x0), 1 / len(x0), config.dtype)
    weighted = config.flow == "fisher-rao"
    state: Any = af.WeightedTokens(jnp.asarray(x0), uniform) if weighted else jnp.asarray(x0)
    columns: dict[str, np.ndarray] = {}
    parts: list[dict[str, np.ndarray]] = []
    done, steps, kernel_sum, has_parts = 0, 0, "", hasattr(checkpoint, "keep")
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        done, arrays = found
        steps, kernel_sum = int(arrays.pop("steps")), str(arrays.pop("kernel_sum"))
        leaves = [jnp.asarray(arrays.pop(f"state{i}")) for i in range(2 if weighted else 1)]
        state = af.WeightedTokens(*leaves) if weighted else leaves[0]
        kept_before = {k: arrays.pop(f"kept {k}") for k in STATES if f"kept {k}" in arrays}
        parts, columns = [kept_before] if kept_before else [], arrays
    meter = _Meter(ts, done, x0, len(kept), progress)
    while done < len(ts) - 1:
        last = min(done + (CHUNK if len(x0) < MANY else LONG_CHUNK), len(ts) - 1)
        stretch = ts[done : last + 1]
        spread = af.distributed.spread(_stretch(flow, stretch), state)
        traj = af.solve(*spread, stretch, **numerics_of(config))
        new, states = _measure(config, traj)
        fresh = slice(0 if done == 0 else 1, None)
        new = {name: values[fresh] for name, values in new.items()}
        columns = {k: np.concatenate([columns[k], v]) for k, v in new.items()} if columns else new
        rows = [i for i in range(len(stretch))[fresh] if done + i in kept]
        part = {name: values[rows] for name, values in states.items()}
        num_steps = int(traj.stats["num_steps"])
        steps, kernel_sum = steps + num_steps, traj.stats.get("kernel_sum", "")
        state, done = traj.x_end, last
        meter.tell(done, num_steps, int(columns["clusters"][-1]))
        apart = has_parts and done < len(ts) - 1
        if not apart:
            parts.append(part)
        if checkpoint is None or done == len(ts) - 1:
            continue
        if apart:
            checkpoint.keep(done, part)
        leaves = {f"state{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        numbers = {"steps": np.asarray(steps), "kernel_sum": np.asarray(kernel_sum)}
        held = {f"kept {name}": values for name, values in _joined(parts).items()}
        checkpoint.save(done, {**columns, **leaves, **numbers, **held})
    meter.close()
    if has_parts:
        parts = cast(Any, checkpoint).kept() + parts
    return columns, _joined(parts), steps, kernel_sum


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Parts one after another."""
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]} if parts else {}


def _stretch(flow, ts: np.ndarray):
    """Flow over a part of a run, which need not step on what jumps outside it."""
    import equinox as eqx

    jumps = getattr(getattr(flow, "norm", None), "jumps", ())
    if not jumps or ts[0] <= float(jumps[0]) < ts[-1]:
        return flow
    return eqx.tree_at(lambda flow: flow.norm.jumps, flow, ())


def _measure(config: Config, traj) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numbers of one stretch of a run, and its states."""
    xs = np.asarray(traj.xs)
    labels = af.analysis.clusters.cluster_labels(
        xs / np.linalg.norm(xs, axis=-1, keepdims=True), cosine=config.cosine
    ).astype(np.int32)
    columns = {name: np.asarray(values) for name, values in traj.observed.items()}
    sizes = [np.bincount(row, minlength=LARGEST) for row in labels]
    largest = np.stack([-np.sort(-row)[:LARGEST] for row in sizes])
    columns |= {"clusters": labels.max(axis=-1) + 1, "largest": largest}
    states = {"labels": labels}
    if config.states:
        states["tokens"] = xs
    if traj.weights is not None:
        states["weights"] = np.asarray(traj.weights)
    return columns, states


class _Meter:
    """Progress on stderr: time reached, steps, and how long the rest takes if it goes on like the last stretch."""

    def __init__(self, ts, done: int, x0, kept: int, progress: bool):
        from tqdm import tqdm

        from attnflow.experiments.simulate import memory

        self.ts, self.done, self.steps, self.since = ts, done, 0, time.monotonic()
        shape = "{desc}: {n_fmt}/{total_fmt} saves [{elapsed}{postfix}]"
        self.bar = tqdm(
            total=len(ts) - 1, initial=done, disable=not progress, desc="simulate", bar_format=shape
        )
        if progress and (needed := memory(x0, kept)) > LARGE:
            self.bar.write(f"about {needed / 2**30:.2g} GiB of memory", file=sys.stderr)

    def tell(self, done: int, steps: int, clusters: int) -> None:
        """Say where the run is."""
        now = time.monotonic()
        seconds, passed = now - self.since, self.ts[done] - self.ts[self.done]
        rest = seconds * (self.ts[-1] - self.ts[done]) / passed
        self.steps += steps
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(
            f"t={self.ts[done]:.3g}, clusters={clusters}, {self.steps} steps, "
            f"{seconds / max(steps, 1):.2g} s a step, at this pace {rest:.0f} s to go"
        )
        self.done, self.since = done, now

    def close(self) -> None:
        """End the line."""
        self.bar.close()
