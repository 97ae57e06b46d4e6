"""Which coarse node each element of a sequence, or each node of a graph, belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphnets.ragged import Ragged
from sparsetorch import Pattern
from sparsetorch.checks import check_count

# From sequences of n elements in all and the time of each, the coarse node (n,) of each, int64,
# and their number: no coarse node has elements of two sequences.
Assignment = Callable[[Ragged, Tensor], tuple[Tensor, int]]


def every_k(k: int) -> Assignment:
    """A coarse node for every k consecutive elements; the last of a sequence may have fewer.

    Taghibakhshi et al., DaWaK 2023 (arXiv:2304.03215), with k = 6.

    Raises:
        TypeError: k is no number.
        ValueError: k is no whole number of at least one.
    """
    return EveryK(check_count("k", k, "element"))


@dataclass(frozen=True)
class EveryK:
    """What `every_k` returns; a class, so that a model that has it can be pickled."""

    k: int

    def __call__(self, sequences: Ragged, time: Tensor) -> tuple[Tensor, int]:
        """The coarse node of each element, and their number."""
        chunks = (sequences.lengths + self.k - 1) // self.k
        row = sequences.row
        place = torch.arange(len(row), device=row.device) - sequences.ptr[row]
        return (chunks.cumsum(0) - chunks)[row] + place // self.k, int(chunks.sum())


def by_gap(gap: int) -> Assignment:
    """A coarse node for each session: a new one begins after a pause longer than `gap`.

    Args:
        gap: in the unit of the times; 30 minutes are usual for browsing.

    Raises:
        ValueError: the gap is negative or NaN.
    """
    if not gap >= 0:
        raise ValueError(f"gap: expected at least 0, got {gap}")
    return ByGap(gap)


@dataclass(frozen=True)
class ByGap:
    """What `by_gap` returns; a class, so that a model that has it can be pickled."""

    gap: int

    def __call__(self, sequences: Ragged, time: Tensor) -> tuple[Tensor, int]:
        """The coarse node of each element, and their number."""
        row = sequences.row
        if not len(row):
            return row, 0
        new = torch.ones_like(row)
        new[1:] = ((row.diff() != 0) | (time.diff() > self.gap)).long()
        number = new.cumsum(0) - 1
        return number, int(number[-1]) + 1


def by_labels(labels: Tensor) -> Pattern:
    """The (n, S) pattern that ties each of n nodes to the one coarse node that its label names.

    For aggregates and parts of a graph, as those of `ddm.partition`.

    Args:
        labels: (n,) int64, from 0 to S - 1.

    Raises:
        ValueError: labels are negative, or none names some coarse node.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64 or (len(labels) and int(labels.min()) < 0):
        raise ValueError("labels: expected int64 of shape (n,), from 0 to S - 1")
    count = int(labels.max()) + 1 if len(labels) else 0
    missing = (torch.bincount(labels, minlength=count) == 0).nonzero()
    if len(missing):
        raise ValueError(f"labels: no node belongs to coarse node {int(missing[0])}")
    crow = torch.arange(len(labels) + 1, device=labels.device)
    return Pattern(crow, labels, (len(labels), count))
