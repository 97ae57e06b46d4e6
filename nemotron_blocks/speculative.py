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
from nemotron_blocks.generate import Generation, Prompts, checked_prompts
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
) -> Generation:
    """`generate`, several tokens a pass; prompts are taken one by one.

    Args:
        model, prompts, max_new_tokens, sampling, stop, budget, generator: see `generate`.
        draft: tokens guessed before each pass; the model's depth of prediction when None.

    Raises:
        ValueError: the model predicts no tokens ahead, or `draft` is below one.
    """
    if model.mtp is None:
        raise ValueError(
            "model: it predicts no tokens ahead; its pattern has no suffix such as '/*E'"
        )
    draft = model.config.mtp_depth if draft is None else draft
    if draft < 1:
        raise ValueError(f"draft: expected at least 1, got {draft}")
    said, passes = [], 0
    for prompt in checked_prompts(prompts):
        one = _Speculation(model, sampling, draft, budget, generator)
        tokens, count = one.run(prompt, max_new_tokens, frozenset(stop))
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
    ) -> None:
        self.model, self.sampling, self.draft = model, sampling, draft
        self.budget, self.generator = budget, generator

    def run(self, prompt: Tensor, count: int, stop: frozenset[int]) -> tuple[Tensor, int]:
        """The new tokens, and the passes they took."""
        device = self.model.embeddings.weight.device
        if self.budget is not None:
            self.budget.start([prompt])
        prompt = prompt.to(device)[None]
        cache = self.model.cache(1, prompt.shape[1] + count + self.draft + 1)
        cache.make_ahead()
        hidden = self.model.hidden(prompt, cache=cache)
        said = self._within_budget([self._choose(self.model.lm_head(hidden[:, -1]))])
        passes = 0
        # What the drafting block has yet to read: hidden states, each with the token behind it.
        unread = hidden, torch.cat([prompt[:, 1:], prompt.new_tensor([[said[-1]]])], dim=1)
        read = 0
        while len(said) < count and said[-1] not in stop:
            guesses, odds = self._guess(*unread, read, cache)
            read += unread[0].shape[1]
            hidden, accepted = self._verify(said[-1], guesses, odds, cache)
            passes += 1
            unread = hidden, prompt.new_tensor([accepted])
            for token in accepted:
                if len(said) < count and said[-1] not in stop:
                    said.append(token)
        return torch.tensor(said[:count]), passes

    def _guess(
        self, hidden: Tensor, following: Tensor, read: int, cache: Cache
    ) -> tuple[list[int], list[Tensor]]:
        """Guesses of the tokens behind the last one, and the distributions they are drawn from."""
        mtp, model = self.model.mtp, self.model
        assert mtp is not None
        guesses: list[int] = []
        odds: list[Tensor] = []
        for _ in range(self.draft):
            sequence = Sequence(read, hidden.shape[1], None, None, hidden.device)
            hidden = mtp(hidden, model.embeddings(following), sequence, cache.ahead)[:, -1:]
            read = sequence.start + sequence.length
            odds.append(self.sampling.probabilities(model.lm_head(hidden[:, -1]))[0])
            guesses.append(self._draw(odds[-1]))
            following = following.new_tensor([[guesses[-1]]])
        return guesses, odds

    def _verify(
        self, last: int, guesses: list[int], odds: list[Tensor], cache: Cache
    ) -> tuple[Tensor, list[int]]:
        """Hidden states of the last token and the guesses that are kept, and the tokens behind."""
        states, length = cache.states(), cache.length
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
        if len(kept) == tokens.shape[1]:
            return hidden, kept
        cache.rewind(length, states)
        return self.model.hidden(tokens[:, : len(kept)], cache=cache), kept

    def _within_budget(self, tokens: list[int]) -> list[int]:
        """The tokens up to one that the budget changes, which is the last then."""
        if self.budget is None:
            return tokens
        for k, token in enumerate(tokens):
            said = int(self.budget.step(torch.tensor([token])))
            if said != token:
                return [*tokens[:k], said]
        return tokens

    def _lost(self, chance: float) -> bool:
        return chance == 0 or float(torch.rand((), generator=self.generator)) >= chance

    def _choose(self, logits: Tensor) -> int:
        return self._draw(self.sampling.probabilities(logits)[0])

    def _draw(self, odds: Tensor) -> int:
        if self.sampling.temperature == 0:
            return int(odds.argmax())
        return int(draw(odds, self.generator))
