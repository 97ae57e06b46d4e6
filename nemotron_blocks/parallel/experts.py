"""Expert parallel: each rank keeps some experts whole, and tokens go to them and back.

Ranks see tokens of their own. A token is sent once for each of its experts, and none is dropped.

R: ranks, T: tokens of a rank, K: experts of a token, D: width, S: rows that a rank gets
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import Shard

from nemotron_blocks.model import HybridLM
from nemotron_blocks.moe import Experts
from nemotron_blocks.parallel.collectives import averaged, exchanged
from nemotron_blocks.parallel.fsdp import shard
from nemotron_blocks.parallel.weights import check_mesh, check_whole, extend, spread
from nemotron_blocks.router import Routing
from sparsetorch_kernels import grouped_mlp


def expert_parallel(
    model: HybridLM, mesh: DeviceMesh, policy: MixedPrecisionPolicy | None = None
) -> HybridLM:
    """Divide the experts of a model over ranks, in place; the first rank's weights count.

    All other weights are sharded over the same ranks, by `shard`. Every rank has to run the same
    blocks as often, with any tokens. Gradients are those of the mean loss over ranks.

    Args:
        model: with whole weights.
        mesh: of one dimension.
        policy: of `shard`; experts take the dtype of the tokens that come to them.

    Raises:
        ValueError: the pattern has no experts, the ranks do not divide n_experts, or the weights
            are spread already.
    """
    group = check_mesh(mesh)
    check_whole(model)
    config = model.config
    if "E" not in config.pattern:
        raise ValueError(
            f"pattern: expected experts (E) to divide over ranks, got {config.pattern!r}"
        )
    if config.n_experts % mesh.size():
        raise ValueError(
            f"n_experts: expected a multiple of {mesh.size()}, the ranks of expert parallel, got "
            f"{config.n_experts}"
        )
    for module in list(model.modules()):
        if isinstance(module, Experts):
            spread(module, mesh, dict.fromkeys((module.up, module.down), Shard(0)))
            extend(module, _ExpertsOfARank, process_group=group)
    return shard(model, mesh, policy)


class _ExpertsOfARank(Experts):
    """Some of the experts, for the tokens of all ranks."""

    process_group: dist.ProcessGroup

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        x_TD, *weights = self._operands(x_TD)
        up, down = (averaged(w.to(x_TD.dtype), self.process_group) for w in weights)
        # Sorted by expert, rows are sorted by rank too.
        order = routing.expert.flatten().argsort(stable=True)
        token = order // routing.expert.shape[1]
        sent, received, expert_S = self._counts(routing.counts)
        x_SD = exchanged(x_TD.index_select(0, token), sent, received, self.process_group)
        by_expert = expert_S.argsort(stable=True)
        ends = torch.searchsorted(
            expert_S.index_select(0, by_expert), torch.arange(len(up) + 1, device=up.device)
        )
        y_SD = grouped_mlp(x_SD.index_select(0, by_expert), ends, up, down)
        y_SD = y_SD.index_select(0, by_expert.argsort())
        y = exchanged(y_SD, received, sent, self.process_group)
        gate = routing.gate.flatten().index_select(0, order)
        weighted = y.to(gate.dtype) * gate[:, None]
        return weighted.new_zeros(x_TD.shape).index_add(0, token, weighted).to(x_TD.dtype)

    def _counts(self, counts_E: Tensor) -> tuple[list[int], list[int], Tensor]:
        """Rows to and from each rank, and (S,) which expert here those that come are for."""
        ranks = dist.get_world_size(self.process_group)
        to_others = counts_E.view(ranks, -1)
        to_here = torch.empty_like(to_others)
        dist.all_to_all_single(to_here, to_others.contiguous(), group=self.process_group)
        expert = torch.arange(to_here.shape[1], device=to_here.device).repeat(ranks)
        sent, received = to_others.sum(1).tolist(), to_here.sum(1).tolist()
        return sent, received, expert.repeat_interleave(to_here.flatten())
