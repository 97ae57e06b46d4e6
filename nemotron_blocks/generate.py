"""Generating: prompts in one pass or in chunks, then a token at a time.

B: sequences, L: tokens, V: vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.cache import Cache
from nemotron_blocks.prompts import Prompts, check_count, checked_prompts, checked_stop
from nemotron_blocks.sampling import GREEDY, Sampling
from nemotron_blocks.step_graph import StepGraph, check_device

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

PREFILL = 2048  # tokens of a prompt in one pass


@dataclass(frozen=True)
class Generation:
    """What a model has said.

    Attributes:
        tokens: for each prompt the new tokens, (n,) int64, with the one that ended it, if any.
        per_pass: mean number of tokens that a pass of the backbone brings a sequence, the prompts'
            passes and the tokens that they bring not counted: the acceptance length when
            speculating. 0.0 where there were no further passes.
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
    cuda_graph: bool = False,
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
        cuda_graph: whether the passes behind the prompts are recorded once and replayed, see
            `StepGraph`: for models on a GPU.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    lists, ends = checked_prompts(prompts), checked_stop(stop)
    options = sampling, stop, budget, generator, prefill, cuda_graph
    steps = list(stream(model, lists, max_new_tokens, *options))
    rows = torch.stack(steps, dim=1) if steps else torch.empty(len(lists), 0, dtype=torch.int64)
    return Generation([_up_to(row, ends) for row in rows], float(len(steps) > 1))


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
    cuda_graph: bool = False,
) -> Iterator[Tensor]:
    """Each next token of all sequences, (B,) int64 on the CPU, as soon as it is there.

    Ends once every sequence has ended; what comes in a row behind a token of `stop` means nothing.
    Arguments and errors are those of `generate`.
    """
    check_count("max_new_tokens", max_new_tokens, 0)
    check_count("prefill", prefill, 1)
    if cuda_graph:
        check_device(model)
    lists, ends = checked_prompts(prompts), checked_stop(stop)
    if max_new_tokens == 0:
        return
    device = model.embeddings.weight.device
    tokens, seq_idx = padded(lists, device)
    cache = model.cache(len(lists), tokens.shape[1] + max_new_tokens)
    logits = read(model, tokens, seq_idx, cache, prefill)
    if budget is not None:
        budget.start(lists)
    graph = StepGraph(model, cache) if cuda_graph else None
    ended = torch.zeros(len(lists), dtype=torch.bool, device="cpu")
    for step in range(max_new_tokens):
        new = sampling.choose(logits, generator)
        if budget is not None:
            new = budget.step(new)
        yield new.cpu()
        ended |= torch.isin(new.cpu(), ends)
        if bool(ended.all()) or step == max_new_tokens - 1:
            return
        logits = graph(new) if graph else model(new[:, None], cache=cache)[:, -1]


def _up_to(row: Tensor, ends: Tensor) -> Tensor:
    """The tokens of a row up to the first that ends it."""
    found = torch.isin(row, ends).nonzero()
    return row[: int(found[0]) + 1] if len(found) else row


def read(
    model: HybridLM, tokens: Tensor, seq_idx: Tensor | None, cache: Cache, prefill: int
) -> Tensor:
    """Logits (B, V) behind the last of tokens (B, L), read into the cache in chunks."""
    hidden = tokens.new_zeros(0)
    for start in range(0, tokens.shape[1], prefill):
        part = slice(start, start + prefill)
        documents = None if seq_idx is None else seq_idx[:, part]
        hidden = model.hidden(tokens[:, part], documents, cache)
    return model.lm_head(hidden[:, -1])


def padded(prompts: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Prompts (B, L) with padding on the left, which is a document of its own, (B, L) or None."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device="cpu")
    seq_idx = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = prompt
        seq_idx[row, longest - len(prompt) :] = 1
    even = all(len(prompt) == longest for prompt in prompts)
    return tokens.to(device), None if even else seq_idx.to(device)
