"""How tokens cluster with depth while a model trains: hidden states reduced to a few numbers, now and then."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from attnflow.errors import check_count
from attnflow.models.tokens import mean_cosine

STATISTICS = ("rho", "effective_rank", "radius", "influence")
Sink = Callable[[dict[str, float], int], Any]


class Monitor:
    r"""Statistics of hidden states of a model in training, block by block, at every 50th step.

    A context manager: hooks are set on entry and gone on exit. In training mode, at steps 0, every, 2 every, ...
    it reads the states before the first block and after each, of evenly spaced tokens of the batch, and gives

    - `rho`: mean cosine over pairs of tokens of one sequence, mean over sequences;
    - `effective_rank`: $e^{H(p)}$, $p = \sigma/\sum\sigma$, of the directions of one sequence, mean over sequences:
      exact, from the eigenvalues of the smaller Gram matrix; at most the tokens read of a sequence, and d;
    - `radius`: mean length of the tokens;
    - `influence`: $1-\cos$ between a token before and after the block, mean over tokens; NaN for layer 0.

    Sums are in float64, without gradients and without random numbers: training stays the same to the bit. States
    that are not finite have NaN; the first such block is named by a warning, once. It costs nothing at other steps,
    and at one O(tokens d min(tokens, d)) a block. A forward that raises, or a block that checkpointing runs again
    in the backward, is not read. Padding is left out if the model is called with `attention_mask`, shape (batch, n).

    Args:
        model: Any module that holds its blocks in a `ModuleList` or `Sequential`.
        every: Steps from one look to the next.
        sink: Called as `sink(values, step)` with `values` such as {"rho/0": 0.03, "rho/1": 0.1, ...}, layer 0 before
            the first block; it can be a logger's own function, such as `wandb.log`.
        blocks: Blocks, or their names in the model; by default those of the list with most parameters.
        tokens: Largest number of tokens read, over the batch.
        batch_first: Whether states are (batch, n, d), not (n, batch, d). A state (n, d) is one sequence.

    Raises:
        ValueError: If an argument is out of range, no list of blocks is found, or a block gives no such states.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 50,
        sink: Sink | None = None,
        blocks: Sequence[Any] | None = None,
        tokens: int = 512,
        batch_first: bool = True,
    ):
        check_count(every, "every")
        check_count(tokens, "tokens", low=2)
        self.model, self.every, self.sink = model, every, sink
        self.tokens, self.batch_first = tokens, batch_first
        self.names, self._blocks = _find_blocks(model, blocks)
        self._records: list[tuple[int, np.ndarray]] = []
        self._hooks: list[Any] = []
        self._next, self._by_hand, self._fresh = 0, False, True
        self._look, self._warned = None, False

    def __enter__(self) -> Monitor:
        if not self._hooks:
            self._hooks = [
                self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
                self.model.register_forward_hook(self._end),
                self._blocks[0].register_forward_pre_hook(self._first, with_kwargs=True),
                *(
                    block.register_forward_hook(self._after(name))
                    for name, block in zip(self.names, self._blocks, strict=True)
                ),
            ]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._look = [], None

    def step(self, number: int | None = None) -> None:
        """Begin a step of training, the next one or that of a number.

        Only needed where a step holds several forwards, as when gradients are accumulated: without it, each
        forward in training mode is a step. Of a step that is looked at, the first forward is read.
        """
        if number is not None:
            self._next = number
        elif self._by_hand:
            self._next += 1
        self._by_hand = self._fresh = True

    @property
    def history(self) -> dict[str, np.ndarray]:
        """All looks: `step`, shape (looks,), and every statistic, shape (looks, layers + 1), layer 0 first."""
        values = np.array([record for _, record in self._records])
        values = values.reshape(len(self._records), -1, len(STATISTICS))
        steps = np.array([step for step, _ in self._records], int)
        return {"step": steps, **{s: values[..., k] for k, s in enumerate(STATISTICS)}}

    def _begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Whether this forward is looked at."""
        self._look = None
        if not model.training or (self._by_hand and not self._fresh):
            return
        self._fresh = False
        if self._next % self.every == 0:
            self._look = _Look(self.tokens, self.batch_first, kwargs.get("attention_mask"))
        if not self._by_hand:
            self._next += 1

    def _first(self, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._look is not None and not self._look.values:
            self._read("the first block's input", args[0] if args else next(iter(kwargs.values())))

    def _after(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda block, args, output: self._read(f"block `{name}`", output)

    def _read(self, where: str, state: Any) -> None:
        if self._look is None:
            return
        state = state[0] if isinstance(state, tuple | list) else state
        if not self._look.read(where, state) and not self._warned:
            self._warned = True
            warnings.warn(
                f"Activations of {where} are not finite at step {self._step}.",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def _step(self) -> int:
        return self._next if self._by_hand else self._next - 1

    def _end(self, *_: Any) -> None:
        """Hand over what was read, if the forward came to its end."""
        look, self._look = self._look, None
        if look is None or len(look.values) < 1 + len(self._blocks):
            return
        self._records.append((self._step, np.array(look.values)))
        if self.sink is not None:
            flat = {
                f"{statistic}/{layer}": value
                for k, statistic in enumerate(STATISTICS)
                for layer, value in enumerate(row[k] for row in look.values)
                if statistic != "influence" or layer
            }
            self.sink(flat, self._step)


class _Look:
    """One pass through the blocks: statistics so far, and the tokens of the last state."""

    def __init__(self, tokens: int, batch_first: bool, mask: Any):
        self.tokens, self.batch_first = tokens, batch_first
        self.mask = mask if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None
        self.values: list[tuple[float, ...]] = []
        self.last: list[torch.Tensor] = []

    def read(self, where: str, state: Any) -> bool:
        """Enter the statistics of a state; whether it is finite."""
        if not isinstance(state, torch.Tensor) or state.ndim not in (2, 3):
            shape = tuple(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise ValueError(
                f"Argument `blocks` must give states of shape (batch, n, d), but {where} has {shape}. "
                "Name other blocks."
            )
        with torch.no_grad():  # autocast leaves float64 alone
            now = self._sample(state.detach())
            if not all(bool(torch.isfinite(x).all()) for x in now):
                self.values.append((math.nan,) * len(STATISTICS))
                self.last = []
                return False
            rows = np.mean([_statistics(x) for x in now], axis=0)
            moved = math.nan
            if [x.shape for x in self.last] == [x.shape for x in now]:
                pairs = zip(self.last, now, strict=True)
                moved = float(
                    torch.cat([1 - nn.functional.cosine_similarity(*p) for p in pairs]).mean()
                )
            self.values.append((*rows, moved))
            self.last = now
        return True

    def _sample(self, state: torch.Tensor) -> list[torch.Tensor]:
        """Evenly spaced tokens of the first few sequences, float64, shapes (n, d)."""
        state = state[None] if state.ndim == 2 else state
        state = state if self.batch_first else state.transpose(0, 1)
        batch, n, _ = state.shape
        count = max(1, min(batch, self.tokens // n))
        each, taken = self.tokens // count, []
        for k in range(count):
            x = state[k]
            if self.mask is not None and self.mask.shape == (batch, n):
                x = x[self.mask[k].bool()]
            if len(x) > each:
                x = x[torch.linspace(0, len(x) - 1, each, device=x.device).long()]
            taken.append((x.cpu() if x.device.type == "mps" else x).double())
        return [x for x in taken if len(x) > 1] or taken[:1]


def _statistics(x: torch.Tensor) -> tuple[float, float, float]:
    """Mean cosine, effective rank of directions, and mean length of the tokens of one sequence."""
    length = x.norm(dim=1)
    theta = x / length.clamp_min(torch.finfo(x.dtype).tiny)[:, None]
    n, d = theta.shape
    squares = torch.linalg.eigvalsh(theta @ theta.T if n <= d else theta.T @ theta)
    sigma = squares.clamp_min(0).sqrt()  # a third of the time of singular values
    rank = torch.special.entr(sigma / sigma.sum()).sum().exp()
    return mean_cosine(theta), float(rank), float(length.mean())


def _find_blocks(
    model: nn.Module, blocks: Sequence[Any] | None
) -> tuple[list[str], list[nn.Module]]:
    """Names and modules of the blocks: those given, or the list with most parameters."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"Argument `model` must be a `torch.nn.Module`, but it is of type {type(model).__name__}."
        )
    names = {id(module): name for name, module in model.named_modules()}
    if blocks is None:
        for kind in (nn.ModuleList, nn.Sequential):
            lists = [m for m in model.modules() if isinstance(m, kind) and len(m)]
            size = lambda m: sum(p.numel() for p in m.parameters())
            if lists:
                blocks = list(max(lists, key=size))
                break
        else:
            raise ValueError(
                "Argument `model` must hold its blocks in a `ModuleList` or `Sequential`, but it has none. "
                "Pass `blocks`."
            )
    known = dict(model.named_modules())
    found = [known.get(block) if isinstance(block, str) else block for block in blocks]
    for block, module in zip(blocks, found, strict=True):
        if id(module) not in names:
            raise ValueError(
                f"Argument `blocks` must hold modules of the model or their names, but it holds {block!r}."
            )
    if not found:
        raise ValueError("Argument `blocks` must hold a block, but it is empty.")
    modules = [module for module in found if module is not None]
    return [names[id(module)] for module in modules], modules


def callback(sink: Sink | None = None, **settings: Any) -> Any:
    """Callback for a Hugging Face `Trainer` that monitors its model, one step of the optimizer a step.

    Args:
        sink: As in `Monitor`.
        settings: Other arguments of `Monitor`, such as `every`.

    Returns:
        A `TrainerCallback`; its `monitor`, from the beginning of training on, holds the history.

    Raises:
        ImportError: If transformers is missing.
    """
    try:
        from transformers import TrainerCallback
    except ModuleNotFoundError:
        raise ImportError(
            "A callback needs transformers. Install it: pip install 'attnflow[models]'."
        ) from None

    class MonitorCallback(TrainerCallback):
        """Monitors from the beginning of training to its end."""

        monitor: Monitor | None = None

        def on_train_begin(self, args, state, control, **kwargs):
            self.on_train_end(args, state, control)
            self.monitor = Monitor(kwargs["model"], sink=sink, **settings).__enter__()

        def on_step_begin(self, args, state, control, **kwargs):
            if self.monitor is not None:
                self.monitor.step(state.global_step)

        def on_train_end(self, args, state, control, **kwargs):
            if self.monitor is not None:
                self.monitor.__exit__()

    return MonitorCallback()
