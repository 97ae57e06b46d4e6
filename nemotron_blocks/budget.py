"""An end to a model's thoughts: at the next end of a line once they are long enough."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


class ThinkingBudget:
    """Closes a thought after so many tokens, at the next newline, or without one a little later.

    As in Nemotron Nano 2 (arXiv:2508.14444) and Nemotron 3: the model then goes on to its answer.
    One object serves one call.

    Args:
        max_thinking_tokens: of a thought, before its end is looked for.
        close: token that closes a thought, `</think>`.
        open: token that opens one, `<think>`.
        newlines: tokens that end a line, `tokenizer.line_ends()`.
        grace: further tokens to wait for a newline; then the thought is closed anyway.

    Raises:
        ValueError: a number is negative.
    """

    def __init__(
        self,
        max_thinking_tokens: int,
        close: int,
        open: int,
        newlines: Collection[int],
        grace: int = 500,
    ) -> None:
        if max_thinking_tokens < 0 or grace < 0:
            raise ValueError(
                f"max_thinking_tokens, grace: expected at least 0, got {max_thinking_tokens} and "
                f"{grace}"
            )
        self.limit, self.grace, self.close, self.open = max_thinking_tokens, grace, close, open
        self.newlines = torch.tensor(sorted(newlines), dtype=torch.int64, device="cpu")
        self.thinking: Tensor | None = None  # (B,) bool
        self.count: Tensor | None = None  # (B,) int64, tokens of the thought
        self.line_ended: Tensor | None = None  # (B,) bool, by the last token

    def start(self, prompts: list[Tensor]) -> None:
        """Read prompts, which may end within a thought: its tokens there count."""
        counts = []
        for prompt in prompts:
            opened = (prompt == self.open).nonzero()
            closed = (prompt == self.close).nonzero()
            first = int(opened[-1]) if len(opened) else -1
            last = int(closed[-1]) if len(closed) else -1
            counts.append(len(prompt) - 1 - first if first > last else -1)
        found = torch.tensor(counts, device="cpu")
        self.thinking, self.count = found >= 0, found.clamp(min=0)
        last_tokens = [int(prompt[-1]) if len(prompt) else -1 for prompt in prompts]
        ends = torch.tensor(last_tokens, device="cpu")
        self.line_ended = torch.isin(ends, self.newlines)

    def step(self, proposed: Tensor) -> Tensor:
        """(B,) tokens that the model would say -> (B,) tokens that it says."""
        assert self.thinking is not None
        assert self.count is not None
        assert self.line_ended is not None
        over = self.thinking & (self.count >= self.limit)
        force = over & (self.line_ended | (self.count >= self.limit + self.grace))
        said = torch.where(force.to(proposed.device), self.close, proposed)
        seen = said.cpu()
        self.thinking = (self.thinking & (seen != self.close)) | (seen == self.open)
        self.count = torch.where(seen == self.open, 0, self.count + self.thinking.long())
        self.line_ended = torch.isin(seen, self.newlines)
        return said
