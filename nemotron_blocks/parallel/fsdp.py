"""Fully sharded data parallel (FSDP2): each rank keeps a part of every weight."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from nemotron_blocks.block import Block
from nemotron_blocks.model import HybridLM
from nemotron_blocks.parallel.weights import check_mesh


def shard(
    model: HybridLM, mesh: DeviceMesh, policy: MixedPrecisionPolicy | None = None
) -> HybridLM:
    """Shard every block, then the rest, over ranks that see tokens of their own, in place.

    The first rank's weights count. Gradients are the mean over ranks, as under
    DistributedDataParallel. A block's weights are whole while it runs; those of embedding, last
    norm, output and what joins tokens ahead from `hidden` to the end of the backward pass.

    Args:
        model: with whole weights, or those of `tensor_parallel`.
        mesh: of one dimension.
        policy: dtypes of arithmetic and of reducing gradients.

    Raises:
        ValueError: the mesh has more dimensions.
    """
    group = check_mesh(mesh)
    # Experts that are divided over these ranks already stay where they are.
    divided = {w for w in model.parameters() if _is_over(w, mesh)}
    whole = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor not in divided]
    _agree(whole, group, torch.device(mesh.device_type))
    policy = policy or MixedPrecisionPolicy()
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=divided)
    # Training asks for hidden states, and takes the output's weights from there.
    register_fsdp_forward_method(model, "hidden")
    return model


def _is_over(weight: nn.Parameter, mesh: DeviceMesh) -> bool:
    return isinstance(weight, DTensor) and weight.device_mesh == mesh


@torch.no_grad()
def _agree(tensors: list[Tensor], group: dist.ProcessGroup, device: torch.device) -> None:
    """Give each rank what the first one has."""
    for tensor in tensors:
        if not tensor.is_meta:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            sent = local.to(device)  # one at a time: the whole model may not fit
            dist.broadcast(sent, group_src=0, group=group)
            local.copy_(sent)
