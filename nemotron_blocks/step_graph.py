"""Decoding by CUDA graphs: a pass over one token is recorded once, and replayed by one call.

Such a pass is a dozen small kernels a block, which take less time than the CPU takes to launch
them one by one. A recorded pass finds all its tensors where they were, and all shapes are fixed.

B: sequences, V: vocabulary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemotron_blocks.cache import Cache
from nemotron_blocks.sequence import Sequence

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

REACH = 512
"""Tokens by which the part of the cache grows that attention reads."""
WARM_UP = 2
"""Passes before recording, in which libraries make what they keep, and kernels are compiled."""


class FixedStep:
    """The next token's logits, by passes that differ in the contents of tensors alone.

    How many tokens there are is read on the device: attention reads the cache up to a fixed reach
    and masks what lies behind the token; keys, values and states are written over in place.

    Args:
        model: that has read the prompt.
        cache: that holds it.

    Raises:
        ValueError: the cache is empty.
    """

    def __init__(self, model: HybridLM, cache: Cache) -> None:
        if cache.length == 0:
            raise ValueError("cache: it is empty; have the model read a prompt first")
        self.model, self.cache, self.reach = model, cache, 0
        self.tokens = torch.zeros(cache.batch, 1, dtype=torch.int64, device=cache.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=cache.device)
        for layer in cache.mamba():  # a prompt leaves views of what it computed
            layer.conv = layer.conv.clone(memory_format=torch.contiguous_format)
            layer.ssm = layer.ssm.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def __call__(self, new: Tensor) -> Tensor:
        """Tokens (B,) -> the logits behind them, (B, V), which the next call may write over.

        Raises:
            ValueError: the cache is full.
        """
        cache = self.cache
        cache.extend(None, 1)
        self.tokens.copy_(new[:, None])
        self.place.fill_(cache.length - 1)
        if cache.length > self.reach:
            self.reach = min(-(-cache.length // REACH) * REACH, cache.capacity)
            self._prepare()
        return self._run()

    def _prepare(self) -> None:
        """For another reach."""

    def _run(self) -> Tensor:
        """The logits (B, V)."""
        seen = documents = None
        if self.cache.seq_idx is not None:
            seen = self.cache.seq_idx[:, : self.reach]
            documents = seen.index_select(1, self.place)
        sequence = Sequence(
            self.reach - 1, 1, documents, seen, self.tokens.device, place=self.place
        )
        hidden = self.model.through(self.tokens, sequence, self.cache)
        return self.model.lm_head(hidden[:, -1])


class StepGraph(FixedStep):
    """`FixedStep` on a GPU, recorded for each reach and replayed: one launch a token."""

    def _prepare(self) -> None:
        layers = self.cache.mamba()
        states = [(layer.conv.clone(), layer.ssm.clone()) for layer in layers]
        device = self.tokens.device
        with torch.cuda.device(device):
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    super()._run()
            current.wait_stream(side)
            for layer, (conv, ssm) in zip(layers, states):  # recording itself computes nothing
                layer.conv.copy_(conv)
                layer.ssm.copy_(ssm)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = super()._run()

    def _run(self) -> Tensor:
        self._graph.replay()
        return self._logits
