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
from sparsetorch_kernels import autocasts

if TYPE_CHECKING:
    from nemotron_blocks.model import HybridLM

REACH = 512
"""Tokens by which the part of the cache grows that attention reads."""
WARM_UP = 2
"""Passes before recording, in which libraries make what they keep, and kernels are compiled."""


def check_device(model: HybridLM) -> None:
    """Raise ValueError unless steps of the model can be recorded here."""
    weight = model.embeddings.weight
    if weight.device.type != "cuda":
        raise ValueError(f"cuda_graph: the model is on {weight.device}; graphs are for GPUs")
    if autocasts(weight):
        raise ValueError("cuda_graph: not under torch.autocast; convert the model with .to(dtype)")


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
        cache.in_place = True
        self.tokens = torch.zeros(cache.batch, 1, dtype=torch.int64, device=cache.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=cache.device)
        self.seq_idx: Tensor | None = None
        contiguous = torch.contiguous_format  # a prompt leaves views of what it computed
        self.states = [
            (layer.conv.clone(memory_format=contiguous), layer.ssm.clone(memory_format=contiguous))
            for layer in cache.mamba()
        ]

    @torch.no_grad()
    def __call__(self, new: Tensor) -> Tensor:
        """Tokens (B,) -> the logits behind them, (B, V), which the next call may write over.

        Raises:
            ValueError: the cache is full, or torn by a pass that failed.
        """
        with self.cache.one_pass():
            self.cache.extend(None, 1)
            self.tokens.copy_(new[:, None])
            self.place.fill_(self.cache.length - 1)
            self._take_states()
            if self.cache.length > self.reach or self.cache.seq_idx is not self.seq_idx:
                self._reach_further()
            return self._run()

    def _reach_further(self) -> None:
        cache = self.cache
        self.reach, self.seq_idx = cache.capacity, cache.seq_idx
        if "*" in cache.config.layers:
            self.reach = min(-(-cache.length // REACH) * REACH, cache.capacity)
        try:
            self._prepare()
        except BaseException:
            self.reach = 0  # the next call prepares again
            raise

    def _take_states(self) -> None:
        """Have the cache hold this one's tensors: other passes and rewinding leave others there."""
        for layer, (conv, ssm) in zip(self.cache.mamba(), self.states):
            if layer.conv is not conv:
                layer.conv = conv.copy_(layer.conv)
            if layer.ssm is not ssm:
                layer.ssm = ssm.copy_(layer.ssm)

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
    """`FixedStep` on a GPU, recorded for each reach and replayed: one launch a token.

    Raises:
        ValueError: the model is not on a GPU, or autocast is on; see also `FixedStep`.
    """

    def __init__(self, model: HybridLM, cache: Cache) -> None:
        check_device(model)
        super().__init__(model, cache)

    def _prepare(self) -> None:
        before = [(conv.clone(), ssm.clone()) for conv, ssm in self.states]
        device = self.tokens.device
        with torch.cuda.device(device):
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    super()._run()
            current.wait_stream(side)
            for kept, states in zip(self.states, before):
                for to, state in zip(kept, states):
                    to.copy_(state)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side):  # which itself computes nothing
                self._logits = super()._run()

    def _run(self) -> Tensor:
        self._graph.replay()
        return self._logits
