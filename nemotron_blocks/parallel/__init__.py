"""Models over several processes: FSDP2, tensor, expert and context parallel.

Each takes a model of whole weights and a mesh of one dimension, from
`torch.distributed.device_mesh.init_device_mesh`. Heads or tokens are divided first, then `shard`
divides weights; `expert_parallel` does that by itself. `HybridModule` calls them under Lightning's
`ModelParallelStrategy`.
"""

from nemotron_blocks.parallel.context import context_parallel, piece, token_mean, whole_row
from nemotron_blocks.parallel.experts import expert_parallel
from nemotron_blocks.parallel.fsdp import shard
from nemotron_blocks.parallel.gradients import mean_gradients
from nemotron_blocks.parallel.tensor import tensor_parallel
from nemotron_blocks.parallel.weights import full_state_dict

__all__ = [
    "context_parallel",
    "expert_parallel",
    "full_state_dict",
    "mean_gradients",
    "piece",
    "shard",
    "tensor_parallel",
    "token_mean",
    "whole_row",
]
