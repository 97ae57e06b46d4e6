"""Inverses of many dense matrices at once, around a defect of PyTorch's batched LU on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

SAFE_SIZE = 64
"""Up to this many rows batches are factored as such; the defect was seen from 150 rows on."""


def inverses(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of each of the matrices (S, m, m), and LAPACK's info, (S,) int32.

    Info is 0, or the first pivot, counted from 1, that is exactly 0. Differentiable.

    PyTorch factors the matrices of a batch in parallel, and MKL's own threads then write into each
    other's pivots: once `torch.set_num_threads` was called with more than 1, larger batches give
    wrong inverses, raise or hang (https://github.com/pytorch/pytorch/issues/141358). One by one
    they do not.
    """
    if blocks.device.type != "cpu" or blocks.shape[-1] <= SAFE_SIZE or len(blocks) < 2:
        inverse, info = torch.linalg.inv_ex(blocks)
        return inverse, info
    each = [torch.linalg.inv_ex(block) for block in blocks]
    return torch.stack([inverse for inverse, _ in each]), torch.stack([info for _, info in each])
