"""What generating keeps of the tokens so far: keys and values, and the states of Mamba-2."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    conv: Tensor
    ssm: Tensor


Layer = KeyValues | MambaState | None


class Cache:
    """The memory of a batch of sequences that are generated together.

    Keys and values have room for `capacity` tokens; all else is constant in size.

    Args:
        config: of the model.
        batch: sequences.
        capacity: tokens, prompt included.
        dtype, device: of keys, values and what convolutions keep; states are float32 at least.

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
        self.batch, self.capacity, self.length = batch, capacity, 0
        self.packed = False  # whether there is more than one document
        self.seq_idx = torch.zeros(batch, capacity, dtype=torch.int64, device=device)
        self.layers = [_layer(config, s, batch, capacity, dtype, device) for s in config.layers]
        self.ahead = [_layer(config, s, batch, capacity, dtype, device) for s in config.mtp_layers]

    def extend(self, seq_idx: Tensor | None, length: int) -> Tensor:
        """Make room for tokens, which then count as there, and return their documents (B, length).

        Args:
            seq_idx: (B, length) int64; those of the last tokens when None.
            length: how many.

        Raises:
            ValueError: there is no room for so many.
        """
        self.packed |= seq_idx is not None
        start, stop = self.length, self.length + length
        if stop > self.capacity:
            raise ValueError(
                f"cache: {length} more tokens do not fit, {start} of {self.capacity} are used; "
                "make a cache of larger capacity"
            )
        if seq_idx is None:
            last = self.seq_idx[:, max(start - 1, 0), None]
            seq_idx = last.expand(-1, length)
        self.seq_idx[:, start:stop] = seq_idx
        self.length = stop
        return seq_idx

    def states(self) -> list[MambaState]:
        """Copies of all states of Mamba-2, for `rewind`."""
        return [
            MambaState(layer.conv.clone(), layer.ssm.clone())
            for layer in self.layers
            if isinstance(layer, MambaState)
        ]

    def rewind(self, length: int, states: list[MambaState]) -> None:
        """Forget all but the first tokens; `states` are copies from when there were so many."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length: expected 0 to {self.length}, got {length}")
        self.length = length
        kept = iter(states)
        for layer in self.layers:
            if isinstance(layer, MambaState):
                state = next(kept)
                layer.conv, layer.ssm = state.conv.clone(), state.ssm.clone()

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [self.seq_idx]
        for layer in (*self.layers, *self.ahead):
            if layer is not None:
                tensors += vars(layer).values()
        return sum(tensor.nbytes for tensor in tensors)


def _layer(
    config: HybridConfig,
    symbol: str,
    batch: int,
    capacity: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Layer:
    if symbol == "*":
        shape = (batch, config.n_kv_heads, capacity, config.head_dim)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return KeyValues(keys, values)
    if symbol == "M":
        conv = (batch, config.d_conv - 1, config.d_conv_channels)
        ssm = (batch, config.mamba_heads, config.mamba_head_dim, config.d_state)
        wide = torch.promote_types(dtype, torch.float32)
        return MambaState(
            torch.zeros(conv, dtype=dtype, device=device),
            torch.zeros(ssm, dtype=wide, device=device),
        )
    return None
