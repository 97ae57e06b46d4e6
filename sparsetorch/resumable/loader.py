"""Samples of training one at a time, in an order that can be gone on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

T_co = TypeVar("T_co", covariant=True)


class Order(Sized, Protocol):
    """Indices of samples, such as a sampler's; with `set_epoch(epoch)` others in each epoch."""

    def __iter__(self) -> Iterator[int]: ...


class ResumableLoader(Generic[T_co]):
    """Samples of a dataset in a sampler's order, one at a time, which can go on in mid-epoch.

    Lightning keeps its state in checkpoints, with the states of torch's generators, the CPU's and
    that of the current CUDA device if CUDA is in use, from which everything random after that
    follows; those of other devices are not kept, and of several processes all go on with the first
    one's. Torch's `DataLoader` has none: of an epoch that was stopped it takes the first samples
    again and leaves out the last. The order has to depend on nothing but the epoch, which Lightning
    tells a sampler that has `set_epoch`.

    Args:
        dataset: of the samples.
        sampler: which ones, and in what order; of several processes each has its own.
    """

    def __init__(self, dataset: Dataset[T_co], sampler: Order) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.taken = 0  # samples of this epoch
        self._start = 0  # where the next epoch begins
        self._random: Tensor | None = None  # and with what state
        self._random_cuda: Tensor | None = None

    def __len__(self) -> int:
        """Samples an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[T_co]:
        """The samples that are left of a resumed epoch, or all."""
        if self._random is not None:
            torch.set_rng_state(self._random)
        if self._random_cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self._random_cuda)
        self.taken, self._start = self._start, 0
        self._random = self._random_cuda = None
        for index in islice(self.sampler, self.taken, None):
            self.taken += 1
            yield self.dataset[index]

    def state_dict(self) -> dict[str, Any]:
        """How many samples of the epoch are taken, and the states of torch's generators."""
        # Of a training on the CPU there is none on a GPU: asking would take memory there.
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return {"taken": self.taken, "random": torch.get_rng_state(), "random_cuda": cuda}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind them, with the same random numbers."""
        self._start = state_dict["taken"] % max(len(self), 1)
        self._random = state_dict["random"]
        self._random_cuda = state_dict.get("random_cuda")  # older checkpoints have none
