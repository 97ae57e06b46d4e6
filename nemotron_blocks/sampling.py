"""From logits to the next token: greedy, or drawn from a cut and sharpened distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsetorch.checks import check_count


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: tokens to draw from, the most probable ones; None for all.
        top_p: draw from the fewest tokens whose probabilities sum to this much; None or 1 for all
            (A. Holtzman et al., ICLR 2020, arXiv:1904.09751). After `top_k`, as in transformers.

    Raises:
        TypeError: top_k is no number.
        ValueError: a field is out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:  # nan is refused, too
            raise ValueError(f"temperature: expected at least 0, got {self.temperature}")
        if self.top_k is not None:
            object.__setattr__(self, "top_k", check_count("top_k", self.top_k, "tokens"))
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a share in (0, 1], got {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(..., V) logits -> (..., V) float32 probabilities of being chosen."""
        logits = logits.float()
        if self.temperature == 0:
            best = logits.argmax(-1, keepdim=True)
            return torch.zeros_like(logits).scatter_(-1, best, 1.0)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            best = logits.topk(self.top_k)  # of ties, too, no more than top_k
            logits = torch.full_like(logits, -torch.inf).scatter_(-1, best.indices, best.values)
        found = logits.softmax(-1)
        return found if self.top_p in (None, 1) else _nucleus(found, self.top_p)

    def choose(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, V) logits -> (B,) int64 tokens."""
        if self.temperature == 0:
            return logits.argmax(-1)
        return draw(self.probabilities(logits), generator)


GREEDY = Sampling()


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(..., V) probabilities -> (...) int64, drawn on the generator's device if there is one."""
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    if generator is not None:
        flat = flat.to(generator.device)
    found = torch.multinomial(flat, 1, generator=generator)[:, 0]
    return found.view(probabilities.shape[:-1]).to(probabilities.device)


def _nucleus(probabilities: Tensor, share: float) -> Tensor:
    """The fewest most probable tokens that have this share together, scaled to sum to one."""
    ranked, order = probabilities.sort(-1, descending=True)
    # In float32 the sum is 1 before all of a large vocabulary is in it.
    before = ranked.cumsum(-1, dtype=torch.float64) - ranked
    kept = ranked.masked_fill(before >= share, 0.0)
    found = torch.zeros_like(probabilities).scatter_(-1, order, kept)
    return found / found.sum(-1, keepdim=True)
