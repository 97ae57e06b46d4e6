"""The hybrid language model: embedding, blocks, norm, output, and perhaps tokens ahead.

B: sequences, L: tokens, D: d_model, V: vocabulary
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from nemotron_blocks.block import Block
from nemotron_blocks.cache import Cache
from nemotron_blocks.config import HybridConfig
from nemotron_blocks.generate import Generation, Prompts, generate
from nemotron_blocks.init import initialize
from nemotron_blocks.mtp import TokensAhead
from nemotron_blocks.norm import RMSNorm
from nemotron_blocks.sampling import Sampling
from nemotron_blocks.sequence import Sequence
from nemotron_blocks.speculative import speculate


class HybridLM(nn.Module):
    """A stack of the blocks of `config.pattern` between an embedding and an output.

    There are no positions anywhere: the Mamba-2 blocks know the order. Documents may be packed one
    after another, without a leak between them, by `seq_idx`; padding is a document of its own.
    Equivalent to `NemotronHForCausalLM` of transformers, with multi-token prediction besides.

    Args:
        config: of the model. On torch's "meta" device nothing is allocated or drawn.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, symbol) for symbol in config.layers)
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embeddings.weight
        self.mtp = TokensAhead(config) if config.mtp_depth else None
        if not self.embeddings.weight.is_meta:
            initialize(self, config)

    def forward(
        self, tokens_BL: Tensor, seq_idx: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits (B, L, V), in the dtype of the weights; arguments are those of `hidden`."""
        with _one_pass(cache):
            return self.lm_head(self.hidden(tokens_BL, seq_idx, cache))

    def hidden(
        self, tokens_BL: Tensor, seq_idx: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """What the output reads, (B, L, D).

        Args:
            tokens_BL: (B, L) int64.
            seq_idx: (B, L) int64, which document each token is of; one a row when None. With a
                cache, tokens go on with the document of the last one when None.
            cache: of the tokens before, which these are added to.

        Raises:
            TypeError: tokens are not int64.
            ValueError: shapes do not fit, a token is not in the vocabulary, documents go back, or
                the cache is full, of another model, or torn by a pass that failed.
        """
        self._check(tokens_BL)
        with _one_pass(cache):
            return self.through(tokens_BL, self.sequence(tokens_BL, seq_idx, cache), cache)

    def through(self, tokens_BL: Tensor, sequence: Sequence, cache: Cache | None = None) -> Tensor:
        """`hidden` of tokens whose `sequence` is made; it has the cache make room for them."""
        x_BLD = self.embeddings(tokens_BL)
        for k, layer in enumerate(self.layers):
            x_BLD = layer(x_BLD, sequence, cache.layers[k] if cache else None)
        return self.norm_f(x_BLD)

    def ahead(self, hidden_BLD: Tensor, tokens_BL: Tensor, seq_idx: Tensor | None) -> list[Tensor]:
        """Hidden states h^1, ..., h^depth, whose logits are of tokens 2, ..., depth + 1 places on.

        The tokens behind the last one are not known: the last k of h^k mean nothing.

        Args:
            hidden_BLD: (B, L, D) of `hidden`.
            tokens_BL, seq_idx: its arguments.
        """
        if self.mtp is None:
            return []
        found = []
        sequence = self.sequence(tokens_BL, seq_idx)
        for k in range(1, self.config.mtp_depth + 1):
            following = self.embeddings(self.behind(tokens_BL, k))
            hidden_BLD = self.mtp(hidden_BLD, following, sequence)
            found.append(hidden_BLD)
        return found

    def sequence(
        self, tokens_BL: Tensor, seq_idx: Tensor | None = None, cache: Cache | None = None
    ) -> Sequence:
        """What blocks know of the tokens; arguments and errors are those of `hidden`."""
        if cache is not None and cache.config.layers != self.config.layers:
            raise ValueError(
                f"cache: expected one for the blocks {self.config.layers!r}, got one for "
                f"{cache.config.layers!r}; model.cache(batch, capacity) makes it"
            )
        return Sequence.of(tokens_BL, seq_idx, cache)

    def behind(self, tokens_BL: Tensor, k: int) -> Tensor:
        """(B, L) the tokens k places on; the last k mean nothing."""
        return tokens_BL.roll(-k, dims=1)

    def recompute(self, whether: bool = True) -> None:
        """Whether training recomputes the inside of each block in the backward pass, for memory."""
        for module in self.modules():
            if isinstance(module, Block):
                module.recompute = whether

    def cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for so many sequences of at most so many tokens."""
        weight = self.embeddings.weight
        return Cache(self.config, batch, capacity, weight.dtype, weight.device)

    def generate(
        self,
        tokens: Prompts,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        speculative: bool = False,
        **options: Any,
    ) -> Generation:
        """Say what comes next.

        Args:
            tokens: (B, L) int64, or lists of tokens of any lengths.
            max_new_tokens: for each prompt.
            temperature, top_k, top_p: of `Sampling`; 0 is greedy.
            speculative: whether the model guesses several tokens ahead of each pass.
            options: of `generate`, or of `speculate`: `stop`, `generator`, ...

        Raises:
            TypeError, ValueError: an argument is not as described.
        """
        sampling = Sampling(temperature, top_k, top_p)
        say = speculate if speculative else generate
        return say(self, tokens, max_new_tokens, sampling, **options)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """A checkpoint in Hugging Face's layout; see `nemotron_blocks.checkpoint.load`."""
        from nemotron_blocks.checkpoint import load

        return load(cls, folder, **options)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a checkpoint in Hugging Face's layout; see `nemotron_blocks.checkpoint.save`."""
        from nemotron_blocks.checkpoint import save

        save(self, folder, **options)

    def _check(self, tokens: Tensor) -> None:
        if tokens.dtype != torch.int64:
            raise TypeError(
                f"tokens: expected int64, got {tokens.dtype}; tokens.long() makes it so"
            )
        if tokens.ndim != 2:
            raise ValueError(f"tokens: expected (B, L), got {tuple(tokens.shape)}")
        size = self.config.vocab_size
        # A GPU would have to be waited for; there the embedding itself asserts.
        if tokens.device.type == "cpu" and tokens.numel():
            low, high = (int(bound) for bound in tokens.aminmax())
            if low < 0 or high >= size:
                raise ValueError(
                    f"tokens: expected 0 to {size - 1}, as vocab_size is {size}, got {low} to "
                    f"{high}; is the tokenizer another one?"
                )


def _one_pass(cache: Cache | None) -> AbstractContextManager[None]:
    return nullcontext() if cache is None else cache.one_pass()
