"""Pooled readout: one vector for each graph of a batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparsetorch import CSRTensor, Pattern, spmm


def membership(ptr: Tensor) -> Pattern:
    """The (G, N) pattern of which node is in which graph, N = ptr[-1].

    ptr: (G + 1,) int32 or int64, where each graph's nodes begin, as `Ragged.ptr` and PyG's
    `Batch.ptr`. Keep it: it is found once for all layers and steps.

    Raises:
        ValueError: pointers that do not start at 0, or fall.
    """
    if ptr.ndim != 1 or not len(ptr):
        raise ValueError(f"ptr: expected shape (graphs + 1,), got {tuple(ptr.shape)}")
    n = int(ptr[-1])
    return Pattern(ptr, torch.arange(n, device=ptr.device), (len(ptr) - 1, n))


def readout(
    graphs: Pattern, x: Tensor, reduce: Literal["sum", "mean", "max", "min"] = "mean"
) -> Tensor:
    """Sum, mean, maximum or minimum over the nodes of each graph; one without nodes gives zeros.

    A product with the membership matrix: summed in a fixed order, so that a graph gives the same
    result in every run, alone and in any batch, with derivatives of every order. Where several
    nodes have the maximum, they share its gradient. Equivalent to PyG's `global_add_pool`,
    `global_mean_pool` and `global_max_pool`.

    Args:
        graphs: (G, N), see `membership`.
        x: (*batch, N, k), features of the nodes.
        reduce: what is taken of them.

    Returns:
        (*batch, G, k).

    Raises:
        ValueError: an unknown `reduce`, or sizes or devices that do not fit.
    """
    if reduce not in ("sum", "mean", "max", "min"):
        raise ValueError(f"reduce: expected sum, mean, max or min, got {reduce!r}")
    return spmm(CSRTensor(graphs, x.new_ones(graphs.nnz)), x, reduce)
