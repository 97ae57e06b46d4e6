"""Speculative decoding with the model's own tokens ahead, and exact return of all states.

The block that predicts tokens ahead drafts some; the backbone reads them all in one pass; those
that it would have said itself are kept. Greedy, the result is what plain decoding says; drawn, it
has the same distribution (Y. Leviathan et al., ICML 2023, arXiv:2211.17192; C. Chen et al.,
arXiv:2302.01318).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.cache import Cache
from nemotron_blocks.generate import PREFILL, Generation
from nemotron_blocks.prompts import Prompts, check_count, checked_prompts, checked_stop
from nemotron_blocks.sampling import GREEDY, Sampling, draw
from nemotron_blocks.sequence import Sequence

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM


@torch.no_grad()
def speculate(
    model: HybridLM,
    prompts: Prompts,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Collection[int] = (),
    budget: ThinkingBudget | None = None,
    draft: int | None = None,
    generator: torch.Generator | None = None,
    prefill: int = PREFILL,
) -> Generation:
    """`generate`, several tokens a pass; prompts are taken one by one.

    Args:
        model, prompts, max_new_tokens, sampling, stop, budget, generator, prefill: see `generate`.
        draft: tokens guessed before each pass; the model's depth of prediction when None.

    Raises:
        TypeError, ValueError: an argument is not as described; the model predicts no tokens ahead.
    """
    if model.mtp is None:
        raise ValueError(
            "model: it predicts no tokens ahead; its pattern has no suffix such as '/*E'"
        )
    draft = model.config.mtp_depth if draft is None else draft
    for name, number, least in (
        ("draft", draft, 1), ("max_new_tokens", max_new_tokens, 0), ("prefill", prefill, 1),
    ):  # fmt: skip
        check_count(name, number, least)
    lists, ends = checked_prompts(prompts), frozenset(checked_stop(stop).tolist())
    if max_new_tokens == 0:
        return Generation([prompt.new_empty(0) for prompt in lists], 0.0)
    said, passes = [], 0
    for prompt in lists:
        one = _Speculation(model, sampling, draft, budget, generator, prefill)
        tokens, count = one.run(prompt, max_new_tokens, ends)
        said.append(tokens)
        passes += count
    return Generation(said, sum(len(tokens) - 1 for tokens in said) / max(passes, 1))


class _Speculation:
    """The decoding of one sequence.

    The backbone's cache always ends before `last`, the newest token; so does that of the block that
    drafts, which has read each token's hidden state together with the token after it.
    """

    def __init__(
        self,
        model: HybridLM,
        sampling: Sampling,
        draft: int,
        budget: ThinkingBudget | None,
        generator: torch.Generator | None,
        prefill: int,
    ) -> None:
        self.model, self.sampling, self.draft = model, sampling, draft
        self.budget, self.generator, self.prefill = budget, generator, prefill

    def run(self, prompt: Tensor, count: int, stop: frozenset[int]) -> tuple[Tensor, int]:
        """The new tokens, and the passes of the backbone behind the prompt's."""
        device = self.model.embeddings.weight.device
        if self.budget is not None:
            self.budget.start([prompt])
        prompt = prompt.to(device)[None]
        cache = self.model.cache(1, prompt.shape[1] + count + self.draft + 1)
        cache.make_ahead()
        hidden, read = self._read(prompt, cache)
        cache.traced = True
        said = self._within_budget([self._choose(self.model.lm_head(hidden[:, -1]))])
        passes = 0
        # What the drafting block has yet to read: hidden states, each with the token behind it.
        following = torch.cat([prompt[:, read + 1 :], prompt.new_tensor([[said[-1]]])], dim=1)
        unread = hidden, following
        while len(said) < count and said[-1] not in stop:
            guesses, odds = self._guess(*unread, read, cache)
            read += unread[0].shape[1]
            hidden, accepted = self._verify(said[-1], guesses, odds, cache)
            passes += 1
            unread = hidden, prompt.new_tensor([accepted])
            for token in accepted:
                if len(said) < count and said[-1] not in stop:
                    said.append(token)
        return torch.tensor(said[:count], device="cpu"), passes

    def _read(self, prompt: Tensor, cache: Cache) -> tuple[Tensor, int]:
        """Hidden states of the prompt's last chunk, and how many tokens come before it.

        Those before it both blocks have read then, the last chunk only the backbone.
        """
        hidden, start = prompt.new_zeros(0), 0
        for start in range(0, prompt.shape[1], self.prefill):
            stop = start + self.prefill
            hidden = self.model.hidden(prompt[:, start:stop], cache=cache)
            if stop < prompt.shape[1]:
                self._ahead(hidden, prompt[:, start + 1 : stop + 1], start, cache)
        return hidden, start

    def _ahead(self, hidden: Tensor, following: Tensor, read: int, cache: Cache) -> Tensor:
        """What the drafting block makes of hidden states and the tokens behind, (1, L, D)."""
        assert self.model.mtp is not None
        sequence = Sequence(read, hidden.shape[1], None, None, hidden.device)
        return self.model.mtp(hidden, self.model.embeddings(following), sequence, cache.ahead)

    def _guess(
        self, hidden: Tensor, following: Tensor, read: int, cache: Cache
    ) -> tuple[list[int], list[Tensor]]:
        """Guesses of the tokens behind the last one, and the distributions they are drawn from."""
        guesses: list[int] = []
        odds: list[Tensor] = []
        for _ in range(self.draft):
            length = hidden.shape[1]
            hidden = self._ahead(hidden, following, read, cache)[:, -1:]
            read += length
            odds.append(self.sampling.probabilities(self.model.lm_head(hidden[:, -1]))[0])
            guesses.append(self._draw(odds[-1]))
            following = following.new_tensor([[guesses[-1]]])
        return guesses, odds

    def _verify(
        self, last: int, guesses: list[int], odds: list[Tensor], cache: Cache
    ) -> tuple[Tensor, list[int]]:
        """Hidden states of the last token and the guesses that are kept, and the tokens behind."""
        length = cache.length
        tokens = torch.tensor([[last, *guesses]], device=self.model.embeddings.weight.device)
        hidden = self.model.hidden(tokens, cache=cache)
        truth = self.sampling.probabilities(self.model.lm_head(hidden[0]))
        kept: list[int] = []
        for guess, proposed, wanted in zip(guesses, odds, truth):
            chance = float(wanted[guess] / proposed[guess])
            if chance < 1 and self._lost(chance):
                # What the guesses say too seldom; together with them the distribution is right.
                rest = (wanted - proposed).clamp(min=0)
                kept.append(self._draw(rest / rest.sum()))
                break
            kept.append(guess)
        else:
            kept.append(self._draw(truth[-1]))
        kept = self._within_budget(kept)
        length += len(kept)
        cache.rewind(length, cache.states(length))
        return hidden[:, : len(kept)], kept

    def _within_budget(self, tokens: list[int]) -> list[int]:
        """The tokens up to one that the budget changes, which is the last then."""
        if self.budget is None:
            return tokens
        for k, token in enumerate(tokens):
            said = int(self.budget.step(torch.tensor([token], device="cpu")))
            if said != token:
                return [*tokens[:k], said]
        return tokens

    def _lost(self, chance: float) -> bool:
        g = self.generator
        place = "cpu" if g is None else g.device
        return chance == 0 or float(torch.rand((), generator=g, device=place)) >= chance

    def _choose(self, logits: Tensor) -> int:
        return self._draw(self.sampling.probabilities(logits)[0])

    def _draw(self, odds: Tensor) -> int:
        if self.sampling.temperature == 0:
            return int(odds.argmax())
        return int(draw(odds, self.generator))
