"""Tensor parallel: each rank computes some heads, groups and channels of every block.

All ranks see the same tokens. Each mixer takes its input as it is and gives a part of its output,
which are added up: one message forward, and one backward. Embedding, norms, routers, latent
projections and the output are on each rank. After M. Shoeybi et al. (arXiv:1909.08053); for Mamba-2
as in section 8.1 of arXiv:2405.21060, whose norms are of a group, so that ranks need not talk.

H: heads, G: groups, P: head_dim, N: d_state, I: inner width
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Shard

from nemotron_blocks.attention import Attention
from nemotron_blocks.cache import Cache
from nemotron_blocks.config import HybridConfig
from nemotron_blocks.mamba2 import Mamba2
from nemotron_blocks.mlp import MLP
from nemotron_blocks.model import HybridLM
from nemotron_blocks.moe import Experts
from nemotron_blocks.parallel.collectives import copied, summed
from nemotron_blocks.parallel.weights import check_mesh, check_whole, extend, spread
from nemotron_blocks.router import Routing

_DIVIDED = {  # fields that the ranks have to divide, by symbol
    "M": ("n_groups",),
    "*": ("n_kv_heads",),
    "-": ("d_ff",),
    "E": ("d_expert", "d_shared"),
}


def tensor_parallel(model: HybridLM, mesh: DeviceMesh) -> HybridLM:
    """Divide the blocks of a model over ranks, in place; the first rank's weights count.

    The model is called as before, with the same tokens on each rank; losses, logits and what is
    generated are those of one process. Parameters are DTensors; `shard` may divide them further.

    Args:
        model: with whole weights, those of a checkpoint for instance.
        mesh: of one dimension.

    Raises:
        ValueError: the ranks do not divide n_groups, n_kv_heads, d_ff, d_expert or d_shared; the
            weights are spread already.
    """
    group = check_mesh(mesh)
    check_whole(model)
    _check(model.config, mesh.size())
    placements: dict[Tensor, Placement] = {}
    for module in list(model.modules()):
        match module:
            case Mamba2():
                _divide_heads(module, mesh.size())
                sides = [(module.in_proj.weight, 0), (module.out_proj.weight, 1)]
                whole = (*module.conv1d.parameters(), *module.norm.parameters())
                sides += [(w, 0) for w in (*whole, module.A_log, module.D, module.dt_bias)]
            case Attention():
                projections = (module.q_proj, module.k_proj, module.v_proj)
                sides = [*((p.weight, 0) for p in projections), (module.o_proj.weight, 1)]
            case MLP():
                sides = [(module.up_proj.weight, 0), (module.down_proj.weight, 1)]
            case Experts():
                sides = [(module.up, 1), (module.down, 2)]
            case _:
                continue
        placements |= {weight: Shard(dim) for weight, dim in sides}
        kind = _DividedExperts if isinstance(module, Experts) else _Divided
        extend(module, kind, process_group=group)
    spread(model, mesh, placements)
    extend(model, _DividedCache, ranks=mesh.size())
    return model


class _Divided(nn.Module):
    """A mixer of whose output each rank has one summand."""

    process_group: dist.ProcessGroup

    def forward(self, x: Tensor, *others: object) -> Tensor:
        y = super().forward(copied(x, self.process_group), *others)
        return summed(y, self.process_group)


class _DividedRows(Mamba2):
    """A mixer whose rows are in another order, of which `full_state_dict` knows."""

    row_orders: dict[str, Tensor]


class _DividedExperts(Experts):
    """Experts of which each rank has some channels."""

    process_group: dist.ProcessGroup

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        x_TD, gate = (copied(t, self.process_group) for t in (x_TD, routing.gate))
        return summed(super().forward(x_TD, replace(routing, gate=gate)), self.process_group)


class _DividedCache(HybridLM):
    """A model whose cache has this rank's heads."""

    ranks: int

    def cache(self, batch: int, capacity: int) -> Cache:
        c = self.config
        names = "n_heads", "n_kv_heads", "mamba_heads", "n_groups"
        part = c.changed(**{name: getattr(c, name) // self.ranks for name in names})
        weight = self.embeddings.weight
        return Cache(part, batch, capacity, weight.dtype, weight.device)


@torch.no_grad()
def _divide_heads(mixer: Mamba2, ranks: int) -> None:
    """Sort rows so that the r-th part of each weight is rank r's, and make the sizes a rank's."""
    inner, channels, heads = mixer.sizes
    half = (channels - inner) // 2
    conv = _by_rank([inner, half, half], ranks)
    projection = _by_rank([inner, inner, half, half, heads], ranks)
    orders = {"in_proj.weight": projection, "conv1d.weight": conv, "conv1d.bias": conv}
    for name, order in orders.items():
        weight = mixer.get_parameter(name)
        weight.copy_(weight[order])
    extend(mixer, _DividedRows, row_orders=orders)
    mixer.sizes = (inner // ranks, channels // ranks, heads // ranks)
    mixer.heads, mixer.groups = mixer.heads // ranks, mixer.groups // ranks
    mixer.norm.groups = mixer.groups


def _by_rank(sizes: list[int], ranks: int) -> Tensor:
    """Of rows in segments of these sizes, the first part of each segment, then the second, ..."""
    segments = torch.arange(sum(sizes)).split(sizes)
    return torch.cat([segment.view(ranks, -1) for segment in segments], dim=1).flatten()


def _check(config: HybridConfig, ranks: int) -> None:
    for symbol, names in _DIVIDED.items():
        for name in names:
            if symbol in config.pattern and getattr(config, name) % ranks:
                raise ValueError(
                    f"{name}: expected a multiple of {ranks}, the ranks of tensor parallel, got "
                    f"{getattr(config, name)}"
                )
