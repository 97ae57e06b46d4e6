"""What a matcher keeps of each device: enough to score any pair without its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphnets.ragged import Ragged, concatenate


@dataclass(frozen=True, eq=False)
class Devices:
    """Encoded devices.

    Attributes:
        vectors: (n, d), one for each device; d may be 0.
        nodes: for each device the embeddings (nodes, width) of its pages; width may be 0.
        tokens: for each device its shared tokens, int64, rising.
        weights: (n_tokens of all devices, heads), of `tokens.values`.
        rhythm: (n, 168), how often it is active in each hour of the week, of unit length.
        span: (n, 2) float64, hours of its first and last visit since 1970.
        visits: (n,) int64.
        kinds: (n,) int64.
    """

    vectors: Tensor
    nodes: Ragged
    tokens: Ragged
    weights: Tensor
    rhythm: Tensor
    span: Tensor
    visits: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        """The number of devices."""
        return len(self.vectors)

    @classmethod
    def cat(cls, blocks: Sequence[Self]) -> Self:
        """The devices of all blocks, one after another."""
        dense = ("vectors", "weights", "rhythm", "span", "visits", "kinds")
        return cls(
            **{name: torch.cat([getattr(block, name) for block in blocks]) for name in dense},
            nodes=concatenate([block.nodes for block in blocks]),
            tokens=concatenate([block.tokens for block in blocks]),
        )

    def select(self, devices: Tensor) -> Self:
        """Some devices (k,) int64, in this order."""
        tokens, positions = self.tokens.select(devices)
        return type(self)(
            self.vectors[devices],
            self.nodes.select(devices)[0],
            tokens,
            self.weights[positions],
            self.rhythm[devices],
            self.span[devices],
            self.visits[devices],
            self.kinds[devices],
        )


@dataclass(frozen=True, eq=False)
class Matches:
    """The tokens that both devices of each pair have.

    Attributes:
        first, second: Ragged rows, one a pair: positions among all devices' tokens; value k of both
            is the same token.
    """

    first: Ragged
    second: Ragged


def matches(tokens: Ragged, pairs: Tensor) -> Matches:
    """What rows i and j of ragged rows of rising numbers share, for pairs (k, 2) of rows."""
    width = int(tokens.values.max()) + 1 if len(tokens.values) else 1
    keys = tokens.row * width + tokens.values
    # Look up the tokens of the device that has fewer among those of the other.
    shorter = tokens.lengths[pairs].argmin(1, keepdim=True)
    few, many = pairs.gather(1, shorter)[:, 0], pairs.gather(1, 1 - shorter)[:, 0]
    rows, positions = tokens.select(few)
    wanted = many[rows.row] * width + rows.values
    place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
    both = keys[place] == wanted
    few_at, many_at, pair = positions[both], place[both], rows.row[both]
    swapped = shorter[pair, 0] == 1
    first = torch.where(swapped, many_at, few_at)
    second = torch.where(swapped, few_at, many_at)
    return Matches(
        Ragged.from_rows(pair, first, len(pairs)), Ragged.from_rows(pair, second, len(pairs))
    )
