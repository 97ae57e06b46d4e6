"""The gradient of the mean loss over ranks that keep all weights, or some experts."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from nemotron_blocks.parallel.weights import check_mesh


@torch.no_grad()
def mean_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Make all gradients those of the mean of the ranks' losses, in one message for each dtype.

    To be called after the backward pass, by every rank, under `expert_parallel` and
    `context_parallel`; `shard` does it by itself. A weight without a gradient counts as zero.

    Args:
        model: after `backward`.
        mesh: of one dimension, whose ranks saw different tokens.
    """
    group = check_mesh(mesh)
    shared: dict[torch.dtype, list[Tensor]] = {}
    for weight in model.parameters():
        if not weight.requires_grad:
            continue
        if weight.grad is None:  # experts without a token here may have some elsewhere
            weight.grad = torch.zeros_like(weight)
        gradient = weight.grad
        if isinstance(gradient, DTensor):
            divided = any(placement.is_shard() for placement in gradient.placements)
            gradient = gradient.to_local()
            if divided:  # tokens of all ranks have been added up already
                gradient /= mesh.size()
                continue
        shared.setdefault(gradient.dtype, []).append(gradient)
    for gradients in shared.values():
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together, group=group)
        together /= mesh.size()
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, together.split(sizes)):
            gradient.copy_(mean.view_as(gradient))
