"""What generating keeps of the tokens so far: keys and values, and the states of Mamba-2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nemotron_blocks.config import HybridConfig


@dataclass
class KeyValues:
    """Keys and values of one attention block.

    Attributes:
        keys, values: (B, n_kv_heads, capacity, head_dim); what lies behind the cache's length is
            not used.
    """

    keys: Tensor
    values: Tensor


@dataclass
class MambaState:
    """What one Mamba-2 block keeps, the same at any length.

    Attributes:
        conv: (B, d_conv - 1, channels), what the convolution has yet to see again.
        ssm: (B, mamba_heads, mamba_head_dim, d_state) float32.
        past: what both were behind each token of the last pass, where the cache is traced.
    """

    conv: Tensor
    ssm: Tensor
    past: list[tuple[Tensor, Tensor]] = field(default_factory=list)


Layer = KeyValues | MambaState | None


class Cache:
    """The memory of a batch of sequences that are generated together.

    Keys and values have room for `capacity` tokens, and so have the numbers of documents, once
    there is a pass with some; states are constant in size. What is kept is detached: a gradient
    does not go from one pass to those before it.

    Args:
        config: of the model.
        batch: sequences.
        capacity: tokens, prompt included.
        dtype, device: of keys, values and what convolutions keep; states are float32 at least.

    Attributes:
        length: tokens that it holds.
        layers: what each block of the model keeps.
        ahead: likewise the block that predicts tokens ahead; empty but for speculation.
        seq_idx: (B, capacity) int64, the tokens' documents; None while there is only one.
        traced: whether Mamba-2 keeps the states behind each token of a pass, for `states`.
        in_place: whether passes write over the states, as those of `FixedStep` do.
        torn: whether a pass has failed on the way: some states are behind its tokens, and others
            are not. Only `rewind` goes on from there.

    Raises:
        ValueError: batch or capacity is below one.
    """

    def __init__(
        self,
        config: HybridConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch < 1 or capacity < 1:
            raise ValueError(f"batch, capacity: expected at least 1, got {batch} and {capacity}")
        self.config, self.batch, self.capacity = config, batch, capacity
        self.dtype, self.device = dtype, device
        self.length, self.traced, self.in_place, self.torn = 0, False, False, False
        self.seq_idx: Tensor | None = None
        self.layers = self._made(config.layers)
        self.ahead: list[Layer] = []

    def make_ahead(self) -> None:
        """Make room for the block that predicts tokens ahead, which plain generation leaves out."""
        self.ahead = self._made(self.config.mtp_layers)

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """All of a pass: of one that fails within, no token counts, and the cache is torn."""
        length = self.length
        try:
            yield
        except BaseException:
            self.torn = self.torn or self.length != length
            self.length = length
            raise

    def extend(self, seq_idx: Tensor | None, length: int) -> Tensor | None:
        """Make room for tokens, which then count as there.

        Returns their documents (B, length), or None while all tokens of a row are one.

        Args:
            seq_idx: (B, length) int64; those of the last tokens when None.
            length: how many.

        Raises:
            ValueError: there is no room for so many; documents go back behind those that are there,
                which is noticed on the CPU only; a pass has failed before.
        """
        self._check_whole()
        start, stop = self.length, self.length + length
        if stop > self.capacity:
            raise ValueError(
                f"cache: {length} more tokens do not fit, {start} of {self.capacity} are used; "
                "make a cache of larger capacity"
            )
        if seq_idx is not None or self.seq_idx is not None:
            seq_idx = self._with_documents(seq_idx, start, stop)
        self.length = stop
        return seq_idx

    def states(self, length: int | None = None) -> list[MambaState]:
        """The states of all Mamba-2 blocks, for `rewind`: nothing writes over them.

        Args:
            length: tokens that they are behind: all when None. Fewer where the cache was `traced`
                during the last pass, which was not its first, down to one token of that pass.

        Raises:
            ValueError: they were not kept, or a pass has failed.
        """
        self._check_whole()
        back = 0 if length is None else self.length - length
        if back == 0:
            states = [(layer.conv, layer.ssm) for layer in self.mamba()]
            if self.in_place:
                states = [(conv.clone(), ssm.clone()) for conv, ssm in states]
            return [MambaState(conv, ssm) for conv, ssm in states]
        if any(not 0 < back < len(layer.past) for layer in self.mamba()):
            raise ValueError(
                f"length: the states behind {length} tokens are not there; set cache.traced before "
                "a pass, and go back to one of its tokens"
            )
        return [MambaState(*layer.past[-1 - back]) for layer in self.mamba()]

    def rewind(self, length: int, states: list[MambaState]) -> None:
        """Forget all but the first tokens; `states` are those from when there were so many.

        Behind a pass that failed there are as many tokens as before it.

        Raises:
            ValueError: there are fewer tokens, or the states are of another cache.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length: expected 0 to {self.length}, got {length}")
        layers = self.mamba()
        if len(states) != len(layers):
            raise ValueError(
                f"states: expected {len(layers)}, one for each Mamba-2 block, got {len(states)}; "
                "cache.states() gives them"
            )
        self.length, self.torn = length, False
        for layer, state in zip(layers, states):
            layer.conv, layer.ssm, layer.past = state.conv, state.ssm, []

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [] if self.seq_idx is None else [self.seq_idx]
        for layer in (*self.layers, *self.ahead):
            match layer:
                case KeyValues():
                    tensors += [layer.keys, layer.values]
                case MambaState():
                    # The last of the past is what both are now.
                    tensors += [layer.conv, layer.ssm, *(t for p in layer.past[:-1] for t in p)]
        return sum(tensor.nbytes for tensor in tensors)

    def mamba(self) -> list[MambaState]:
        """What all Mamba-2 blocks keep."""
        return [layer for layer in self.layers if isinstance(layer, MambaState)]

    def _check_whole(self) -> None:
        if self.torn:
            raise ValueError(
                "cache: a pass that failed has changed some of its states; rewind it to states "
                "from before, or make another one"
            )

    def _with_documents(self, seq_idx: Tensor | None, start: int, stop: int) -> Tensor:
        """Keep documents of the tokens from start to stop: (B, stop - start)."""
        if self.seq_idx is None:
            shape = self.batch, self.capacity
            self.seq_idx = torch.zeros(shape, dtype=torch.int64, device=self.device)
        last = self.seq_idx[:, start - 1, None] if start else self.seq_idx.new_zeros(self.batch, 1)
        if seq_idx is None:
            seq_idx = last.expand(-1, stop - start)
        elif start and stop > start and seq_idx.is_cpu:  # a GPU would have to be waited for
            back = (seq_idx[:, :1] < last)[:, 0]
            if bool(back.any()):
                row = int(back.nonzero()[0])
                raise ValueError(
                    f"seq_idx: documents come one after another, but row {row} goes back from "
                    f"{int(last[row])}, the cache's last, to {int(seq_idx[row, 0])}; go on with "
                    "its number, or with larger ones"
                )
        self.seq_idx[:, start:stop] = seq_idx
        return seq_idx

    def _made(self, symbols: str) -> list[Layer]:
        """What blocks of these symbols keep, empty."""
        c, batch = self.config, self.batch
        wide = torch.promote_types(self.dtype, torch.float32)
        keys = batch, c.n_kv_heads, self.capacity, c.head_dim
        conv = batch, c.d_conv - 1, c.d_conv_channels
        ssm = batch, c.mamba_heads, c.mamba_head_dim, c.d_state

        def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        found: list[Layer] = []
        for symbol in symbols:
            match symbol:
                case "*":
                    found.append(KeyValues(zeros(keys, self.dtype), zeros(keys, self.dtype)))
                case "M":
                    found.append(MambaState(zeros(conv, self.dtype), zeros(ssm, wide)))
                case _:
                    found.append(None)
        return found
