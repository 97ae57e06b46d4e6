"""Batches of packed documents to train on.

B: sequences of a batch, L: tokens of a sequence
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nemotron_blocks.loss import IGNORED
from nemotron_blocks.token_file import TokenFile
from sparsetorch.checks import check_count


class Batch(NamedTuple):
    """Sequences of packed documents, each (B, L) int64.

    Attributes:
        tokens: that are read.
        targets: the tokens behind them, `IGNORED` where that is of another document.
        seq_idx: documents, as `HybridLM` takes them.
    """

    tokens: Tensor
    targets: Tensor
    seq_idx: Tensor


class TokenBatches(Dataset[Batch]):
    """Windows of a file of tokens, all of one length, in an order drawn anew for each epoch.

    Each token is read once an epoch, but for the last few, which fill no window. Shuffled, windows
    that fill no batch of all processes wait for another epoch; in order all are read, and what the
    last batches lack is the last window again, with targets that do not count: every process has as
    many batches of one shape. Batch i depends on (seed, epoch, i) alone.

    Args:
        file: of tokens.
        length: L.
        size: B, of this process.
        seed: of the order.
        rank, processes: which one this is, of how many that share the windows.
        shuffle: whether windows are shuffled.

    Raises:
        TypeError: what should be a number is none.
        ValueError: a number is below one, or the file is too short for one batch.
    """

    def __init__(
        self,
        file: TokenFile,
        length: int,
        size: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        shuffle: bool = True,
    ) -> None:
        self.file = file
        self.length = check_count("length", length, "tokens")
        self.size = check_count("size", size, "sequences")
        self.seed, self.rank, self.processes, self.shuffle = seed, rank, processes, shuffle
        self.epoch = 0
        self.windows = (len(file) - 1) // self.length
        self._order: tuple[tuple[int, int], np.ndarray] | None = None
        if not len(self):
            least = processes * self.size if shuffle else 1
            raise ValueError(
                f"file: {len(file)} tokens are too few for a batch of {least} x {self.length}; "
                "take shorter sequences or fewer"
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        together = self.size * self.processes
        return self.windows // together if self.shuffle else -(-self.windows // together)

    def __getitem__(self, i: int) -> Batch:
        """Batch i of this epoch."""
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        first = (i * self.processes + self.rank) * self.size
        places = np.arange(first, first + self.size).clip(max=self.windows - 1)
        windows = self._shuffled()[places] if self.shuffle else places
        parts = [self._window(int(k)) for k in windows]
        batch = Batch(*(torch.from_numpy(np.stack(part)) for part in zip(*parts)))
        batch.targets[max(self.windows - first, 0) :] = IGNORED
        return batch

    def _shuffled(self) -> np.ndarray:
        """The windows in this epoch's order, which is drawn once."""
        key = self.seed, self.epoch
        if self._order is None or self._order[0] != key:
            self._order = key, np.random.default_rng(key).permutation(self.windows)
        return self._order[1]

    def _window(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start, stop = k * self.length, (k + 1) * self.length
        tokens = self.file.tokens[start : stop + 1].astype(np.int64)
        documents = self.file.documents(start, stop + 1)
        targets = np.where(documents[1:] == documents[:-1], tokens[1:], IGNORED)
        return tokens[:-1], targets, documents[:-1] - documents[0]


def targets_ahead(targets_BL: Tensor, seq_idx_BL: Tensor, k: int) -> Tensor:
    """The targets k places on, `IGNORED` where that is another document or behind the last.

    What `HybridLM.ahead` predicts: h^k at token i is of token i + k + 1.
    """
    found = targets_BL.roll(-k, dims=1)
    same = seq_idx_BL.roll(-k, dims=1) == seq_idx_BL
    same[:, max(same.shape[1] - k, 0) :] = False
    return found.where(same, IGNORED)
