"""A model over a mesh of two dimensions, as Lightning's `ModelParallelStrategy` makes it."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh

from nemotron_blocks.model import HybridLM
from nemotron_blocks.parallel.context import context_parallel
from nemotron_blocks.parallel.experts import expert_parallel
from nemotron_blocks.parallel.fsdp import shard
from nemotron_blocks.parallel.tensor import tensor_parallel

DIVIDED = ("weights", "experts", "tokens")
"""What the ranks of "data_parallel" may divide."""


def divide(model: HybridLM, mesh: DeviceMesh, what: str) -> None:
    """Divide heads and channels over "tensor_parallel", and `what` over "data_parallel", in place.

    Args:
        model: of whole weights.
        mesh: of these two dimensions.
        what: one of `DIVIDED`; weights are sharded with "experts" and "tokens" too.

    Raises:
        ValueError: experts are to be divided where heads are; the ranks do not divide a size.
    """
    tensor, data = mesh["tensor_parallel"], mesh["data_parallel"]
    if what == "experts":
        if tensor.size() > 1:
            raise ValueError(
                f"divide: experts are divided without tensor parallel, got tensor_parallel_size "
                f"{tensor.size()}; take 1"
            )
        expert_parallel(model, data)
        return
    if tensor.size() > 1:
        tensor_parallel(model, tensor)
    if what == "tokens":
        context_parallel(model, data)
    # A model on one rank is sharded too: Lightning saves DTensors alone.
    if data.size() > 1 or tensor.size() == 1:
        shard(model, data)
