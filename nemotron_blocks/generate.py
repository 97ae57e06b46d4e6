"""Generating: prompts in one pass or in chunks, then a token at a time.

B: sequences, L: tokens, V: vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.cache import Cache
from nemotron_blocks.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

PREFILL = 2048  # tokens of a prompt in one pass
Prompts = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Generation:
    """What a model has said.

    Attributes:
        tokens: for each prompt the new tokens, (n,) int64, with the one that ended it, if any.
        per_pass: mean number of tokens that a pass brings a sequence, the prompts' passes not
            counted: the acceptance length when speculating.
    """

    tokens: list[Tensor]
    per_pass: float


@torch.no_grad()
def generate(
    model: HybridLM,
    prompts: Prompts,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Collection[int] = (),
    budget: ThinkingBudget | None = None,
    generator: torch.Generator | None = None,
    prefill: int = PREFILL,
) -> Generation:
    """Say what comes next.

    Args:
        model: in evaluation mode or not: there is no dropout.
        prompts: (B, L) int64, or lists of tokens of any lengths, none empty.
        max_new_tokens: for each prompt.
        sampling: how tokens are chosen.
        stop: tokens that end a sequence.
        budget: of thoughts.
        generator: of what is drawn.
        prefill: largest number of tokens in one pass over the prompts, which bounds the memory.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    rows: list[list[Tensor]] = []
    ended: Tensor | None = None
    passes = 0
    for new in stream(model, prompts, max_new_tokens, sampling, stop, budget, generator, prefill):
        ended = torch.zeros(len(new), dtype=torch.bool) if ended is None else ended
        rows = rows or [[] for _ in new]
        for row, token, done in zip(rows, new, ended):
            if not done:
                row.append(token)
        ended |= torch.isin(new, torch.tensor(sorted(stop), dtype=new.dtype))
        passes += 1
    count = len(rows) or len(prompts)
    tokens = [torch.stack(row) if row else torch.empty(0, dtype=torch.int64) for row in rows]
    tokens = tokens or count * [torch.empty(0, dtype=torch.int64)]
    return Generation(tokens, max(len(new) for new in tokens) / max(passes, 1))


@torch.no_grad()
def stream(
    model: HybridLM,
    prompts: Prompts,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Collection[int] = (),
    budget: ThinkingBudget | None = None,
    generator: torch.Generator | None = None,
    prefill: int = PREFILL,
) -> Iterator[Tensor]:
    """Each next token of all sequences, (B,) int64 on the CPU, as soon as it is there.

    Ends once every sequence has ended; what comes in a row behind a token of `stop` means nothing.
    Arguments and errors are those of `generate`.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected at least 0, got {max_new_tokens}")
    lists = checked_prompts(prompts)
    device = model.embeddings.weight.device
    tokens, seq_idx = padded(lists, device)
    cache = model.cache(len(lists), tokens.shape[1] + max_new_tokens)
    logits = read(model, tokens, seq_idx, cache, prefill)
    if budget is not None:
        budget.start(lists)
    ends = torch.tensor(sorted(stop), dtype=torch.int64)
    ended = torch.zeros(len(lists), dtype=torch.bool)
    for step in range(max_new_tokens):
        new = sampling.choose(logits, generator)
        if budget is not None:
            new = budget.step(new)
        yield new.cpu()
        ended |= torch.isin(new.cpu(), ends)
        if bool(ended.all()) or step == max_new_tokens - 1:
            return
        logits = model(new[:, None], cache=cache)[:, -1]


def read(
    model: HybridLM, tokens: Tensor, seq_idx: Tensor | None, cache: Cache, prefill: int
) -> Tensor:
    """Logits (B, V) behind the last of tokens (B, L), read into the cache in chunks."""
    if prefill < 1:
        raise ValueError(f"prefill: expected at least 1, got {prefill}")
    hidden = tokens.new_zeros(0)
    for start in range(0, tokens.shape[1], prefill):
        part = slice(start, start + prefill)
        documents = None if seq_idx is None else seq_idx[:, part]
        hidden = model.hidden(tokens[:, part], documents, cache)
    return model.lm_head(hidden[:, -1])


def checked_prompts(prompts: Prompts) -> list[Tensor]:
    """Each prompt, (n,) int64 on the CPU.

    Raises:
        TypeError: a tensor is not int64.
        ValueError: there is none, or one is empty.
    """
    if isinstance(prompts, Tensor):
        if prompts.dtype != torch.int64 or prompts.ndim != 2:
            raise TypeError(
                f"prompts: expected (B, L) int64, got {prompts.dtype} of shape "
                f"{tuple(prompts.shape)}"
            )
        lists = list(prompts.cpu())
    else:
        lists = [torch.as_tensor(prompt, dtype=torch.int64) for prompt in prompts]
    if not lists or any(not len(prompt) for prompt in lists):
        raise ValueError("prompts: expected at least one, each of at least one token")
    return lists


def padded(prompts: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Prompts (B, L) with padding on the left, which is a document of its own, (B, L) or None."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    seq_idx = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = prompt
        seq_idx[row, longest - len(prompt) :] = 1
    even = all(len(prompt) == longest for prompt in prompts)
    return tokens.to(device), None if even else seq_idx.to(device)
