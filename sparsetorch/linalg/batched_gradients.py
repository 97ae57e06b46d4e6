"""Many gradients in one backward pass, as `torch.autograd.grad(..., is_grads_batched=True)` asks.

PyTorch then hands a backward formula tensors of an older kind of vmap than `torch.vmap`. They hide
their batch dimension from `autograd.Function`, whose vmap rule is not called; here they go through
`torch.vmap`, where it is.

No public function opens such a tensor. The private ones below are those with which PyTorch itself
makes and opens it (torch/_vmap_internals.py; tested with 2.13): they are there as long as such
tensors are. Where one is missing, gradients are taken as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

try:
    from torch._C._functorch import is_legacy_batchedtensor
except ImportError:
    is_legacy_batchedtensor = None

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


def map_gradients(function: Callable[..., Result], *grads: Tensor) -> Result:
    """`function(*grads)`, mapped over the hidden batch dimension if the gradients have one."""
    hidden = [bool(is_legacy_batchedtensor and is_legacy_batchedtensor(grad)) for grad in grads]
    if not any(hidden):
        return function(*grads)
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    batches = [
        torch._remove_batch_dim(grad, level, 0, 0) if batched else grad
        for grad, batched in zip(grads, hidden)
    ]
    results = torch.vmap(function, tuple(0 if batched else None for batched in hidden))(*batches)
    return pytree.tree_map(lambda result: torch._add_batch_dim(result, 0, level), results)
