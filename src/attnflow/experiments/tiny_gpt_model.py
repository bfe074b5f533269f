"""A character GPT in PyTorch, its text and its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from attnflow.models.tokens import effective_rank, mean_cosine

HELD_OUT = 0.1
"""Share of the text, its end, that training never sees."""


class Block(nn.Module):
    """Attention and a GELU MLP, each placed by the scheme: "post", "pre" or "peri"."""

    def __init__(self, d: int, heads: int, scheme: str):
        super().__init__()
        self.heads, self.scheme = heads, scheme
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(4 if scheme == "peri" else 2))

    def forward(self, x: torch.Tensor, causal: bool = True) -> torch.Tensor:
        """Tokens after the block, shape (batch, n, d) as before."""
        x = self._add(x, lambda y: self._attention(y, causal), 0)
        return self._add(x, lambda y: self.down(F.gelu(self.up(y))), 1)

    def _add(self, x: torch.Tensor, sublayer: Callable, which: int) -> torch.Tensor:
        norm = self.norms[which]
        if self.scheme == "post":
            return norm(x + sublayer(x))
        if self.scheme == "pre":
            return x + sublayer(norm(x))
        return x + self.norms[2 + which](sublayer(norm(x)))

    def _attention(self, x, causal):
        batch, n, d = x.shape
        q, k, v = self.qkv(x).view(batch, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # (batch, head, n, d/head)
        return self.out(seen.transpose(1, 2).reshape(batch, n, d))


class GPT(nn.Module):
    """Embedded characters and positions, blocks, a last norm unless Post-LN has it, logits.

    Entries of a matrix are Gaussian of variance 1/columns, embeddings have |x| = sqrt(d) in the mean,
    biases are 0: the setting of `theory.random_weights`, but for the causal mask.
    """

    def __init__(self, characters: int, n: int, d: int, heads: int, layers: int, scheme: str):
        super().__init__()
        self.token, self.position = nn.Embedding(characters, d), nn.Embedding(n, d)
        self.blocks = nn.ModuleList(Block(d, heads, scheme) for _ in range(layers))
        self.norm = nn.Identity() if scheme == "post" else nn.LayerNorm(d)
        self.logits = nn.Linear(d, characters)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5**0.5)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Logits of the next character, shape (batch, n, characters)."""
        return self.logits(self.norm(self.states(text)[-1]))

    def states(self, text: torch.Tensor, causal: bool = True) -> list[torch.Tensor]:
        """Tokens before the first block and after each, shapes (batch, n, d)."""
        states = [self.token(text) + self.position.weight[: text.shape[1]]]
        for block in self.blocks:
            states.append(block(states[-1], causal))
        return states


def read_text(length: int) -> tuple[np.ndarray, str, np.ndarray]:
    """First characters of Python's own reference (`pydoc_data.topics`, by title), as indices; alphabet; SHA-256."""
    from hashlib import sha256
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[title] for title in sorted(topics))[:length]
    alphabet = "".join(sorted(set(text)))
    index = {character: k for k, character in enumerate(alphabet)}
    digest = np.asarray(sha256(text.encode()).hexdigest())
    return np.array([index[character] for character in text]), alphabet, digest


def new_model(config: Any, scheme: str, layers: int, characters: int, draw: int = 0) -> GPT:
    """Model at initialisation; PyTorch's own random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1000 * draw)
        return GPT(characters, config.n, config.d, config.heads, layers, scheme)


def windows(text: np.ndarray, starts: np.ndarray, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Characters and those that follow them, shapes (batch, n)."""
    rows = torch.from_numpy(text[starts[:, None] + np.arange(n + 1)])
    return rows[:, :-1], rows[:, 1:]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: as fast for such small matrices, whatever the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def held_out(config: Any, text: np.ndarray, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Evenly spaced windows of the held-out text."""
    first = int((1 - HELD_OUT) * len(text))
    starts = np.linspace(first, len(text) - config.n - 1, count).astype(int)
    return windows(text, starts, config.n)


def loss_of(model: GPT, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the next character, in nats."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def gradient_norms(model: GPT, batch: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """Norm of the gradient of all weights of each block, shape (layers,)."""
    model.zero_grad(set_to_none=True)
    loss_of(model, batch).backward()
    squares = [
        [float(p.grad.square().sum()) for p in block.parameters() if p.grad is not None]
        for block in model.blocks
    ]
    model.zero_grad(set_to_none=True)
    return np.sqrt([sum(one) for one in squares])


def measure(
    config: Any, model: GPT, text: np.ndarray, count: int, *, causal: bool = True
) -> np.ndarray:
    """Mean cosine, effective rank and radius over sqrt(d) of every state, shape (3, layers + 1), float64.

    Means over windows of held-out text, pairs being of one window.
    """
    with torch.no_grad():
        states = model.states(held_out(config, text, count)[0], causal)
    rows = [np.mean([_statistics(x) for x in state.double()], axis=0) for state in states]
    return np.array(rows).T


def _statistics(x: torch.Tensor) -> tuple[float, float, float]:
    length = x.norm(dim=1)
    theta = x / length[:, None]
    return mean_cosine(theta), effective_rank(theta), float(length.mean()) / x.shape[1] ** 0.5


def train(config: Any, model: GPT, text: np.ndarray, after: Callable[[], Any]) -> np.ndarray:
    """Loss of every step of AdamW, shape (steps,); the rate rises over `warmup` steps, then falls as a cosine."""
    rng = np.random.default_rng(config.seed)  # every model reads the same windows
    last = int((1 - HELD_OUT) * len(text)) - config.n - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    losses = np.empty(config.steps)
    model.train()
    for step in range(config.steps):
        rise = min(1.0, (step + 1) / max(config.warmup, 1))
        for group in optimizer.param_groups:
            fall = 0.55 + 0.45 * np.cos(np.pi * step / config.steps)
            group["lr"] = config.learning_rate * rise * fall
        loss = loss_of(model, windows(text, rng.integers(0, last, config.batch), config.n))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses[step] = float(loss.detach())
        after()
    return losses
