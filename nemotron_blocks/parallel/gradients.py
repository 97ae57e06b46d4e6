"""The gradient of the mean loss over ranks of which each has all weights, and its size."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from nemotron_blocks.parallel.weights import check_mesh


@torch.no_grad()
def mean_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Make all gradients the mean over ranks, in one message for each dtype.

    To be called after the backward pass, by every rank, under `context_parallel` without `shard`,
    which does it by itself. A weight without a gradient counts as zero.

    Args:
        model: of the same weights on each rank.
        mesh: of one dimension, whose ranks saw different tokens.
    """
    group = check_mesh(mesh)
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            by_dtype.setdefault(weight.dtype, []).append(weight.grad)
    for gradients in by_dtype.values():
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together, group=group)
        together /= mesh.size()
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, together.split(sizes)):
            gradient.copy_(mean.view_as(gradient))


def total_norm(model: nn.Module) -> Tensor:
    """The 2-norm of the whole gradient, 0-d; the same on all ranks that divide weights."""
    found = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return found.full_tensor() if isinstance(found, DTensor) else found
