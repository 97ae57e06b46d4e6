"""Which tokens may look at which: documents that are packed one after another, and a cache.

B: sequences, L: tokens of a pass, S: tokens so far, those of the pass included
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nemotron_blocks.cache import Cache


@dataclass
class Sequence:
    """The tokens of one pass, as all blocks see them.

    Attributes:
        start: tokens that a cache held before.
        length: L.
        seq_idx: (B, L) int64 documents, or None where all tokens of a row are one.
        seen: (B, S) int64 documents of all tokens so far; None likewise.
        device: of the tokens.
        traced: whether Mamba-2 keeps the states behind each token.
        place: (1,) int64, where a single token is that only the device knows, `start` at the
            furthest; what the cache holds is then written over where it lies. None elsewhere.
    """

    start: int
    length: int
    seq_idx: Tensor | None
    seen: Tensor | None
    device: torch.device
    traced: bool = False
    place: Tensor | None = None

    @classmethod
    def of(
        cls, tokens: Tensor, seq_idx: Tensor | None = None, cache: Cache | None = None
    ) -> Sequence:
        """Of tokens (B, L), after those in the cache, which gets room for them.

        Raises:
            TypeError, ValueError: seq_idx is not (B, L) integers, or goes back, also behind the
                cache's last tokens; the cache is of another batch, or has no room.
        """
        check_documents(tokens, seq_idx)
        length = tokens.shape[1]
        if cache is None:
            return cls(0, length, seq_idx, seq_idx, tokens.device)
        if cache.batch != len(tokens):
            raise ValueError(f"cache: expected one for batch {len(tokens)}, got {cache.batch}")
        start = cache.length
        found = cache.extend(seq_idx, length)
        seen = None if cache.seq_idx is None else cache.seq_idx[:, : cache.length]
        return cls(start, length, found, seen, tokens.device, cache.traced)

    @property
    def causal(self) -> bool:
        """Whether the plain causal mask is all that attention needs."""
        return self.seq_idx is None and self.start == 0

    @cached_property
    def mask(self) -> Tensor | None:
        """(B or 1, 1, L, S) bool, who may look at whom; None where that needs no mask."""
        alone = self.seq_idx is None and self.length == 1 and self.place is None
        if self.causal or alone:
            return None
        positions = torch.arange(self.start + self.length, device=self.device)
        here = positions[self.start :] if self.place is None else self.place
        allowed = (positions <= here[:, None])[None]
        if self.seq_idx is not None and self.seen is not None:
            allowed = allowed & (self.seq_idx[:, :, None] == self.seen[:, None, :])
        return allowed[:, None]

    @cached_property
    def fresh(self) -> Tensor | None:
        """(B,) bool, rows whose first token begins a document; None where none does in mid-row."""
        if self.start == 0 or self.length == 0 or self.seen is None or self.place is not None:
            return None
        return self.seen[:, self.start - 1] != self.seen[:, self.start]


def check_documents(tokens: Tensor, seq_idx: Tensor | None) -> None:
    """Raise TypeError or ValueError unless these are documents of the tokens.

    Their order is read on the CPU only: a GPU would have to be waited for.
    """
    if seq_idx is None:
        return
    if seq_idx.dtype != torch.int64:
        raise TypeError(f"seq_idx: expected int64, got {seq_idx.dtype}; seq_idx.long() makes it so")
    if seq_idx.shape != tokens.shape[:2]:
        raise ValueError(
            f"seq_idx: expected a document for each token, {tuple(tokens.shape[:2])}, got "
            f"{tuple(seq_idx.shape)}"
        )
    if not seq_idx.is_cpu:
        return
    back = seq_idx[:, 1:] < seq_idx[:, :-1]
    if bool(back.any()):
        row, place = back.nonzero()[0].tolist()
        raise ValueError(
            f"seq_idx: documents come one after another, but row {row} goes back at token "
            f"{place + 1}"
        )
