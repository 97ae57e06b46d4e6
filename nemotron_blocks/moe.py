"""A mixture of experts: each token goes to a few of many small MLPs, and to a shared one.

y = W_up sum over the K experts e of x of g_e f_e(W_down x) + f_shared(x). In a plain mixture W_down
and W_up are the identity; in LatentMoE (arXiv:2601.18089, equations 1 and 2) routed experts read
and write a narrower space, so that more of them cost the same, while router and shared expert see
x itself. Nemotron 3 gates by sigmoids where that paper writes a softmax.

T: tokens, D: width that the routed experts see, E: experts, M: width of an expert
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemotron_blocks.mlp import MLP
from nemotron_blocks.router import Router, Routing
from sparsetorch_kernels import Layout, autocasts, few_tokens_mlp, routed_mlp, watched

FEW = 2
"""Tokens for which sorting by expert takes longer, on CPU, than going from one to the next."""


class MoE(nn.Module):
    """Routed experts without dropped tokens, a shared expert, and optionally a latent space.

    Args:
        d_model: width of the tokens.
        n_experts, top_k: experts, and how many of them a token goes to.
        d_expert: width of a routed expert.
        d_shared: width of the shared expert; 0 for none.
        d_latent: width that routed experts read and write; None for d_model.
        scale, n_group, topk_group, norm_topk: see `Router`.

    Raises:
        ValueError: a number does not fit; the message names it.
    """

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        top_k: int,
        d_expert: int,
        d_shared: int = 0,
        d_latent: int | None = None,
        scale: float = 1.0,
        n_group: int = 1,
        topk_group: int = 1,
        norm_topk: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(d_model=d_model, d_expert=d_expert, d_latent=d_latent)
        if d_shared < 0:
            raise ValueError(f"d_shared: expected at least 0, got {d_shared}")
        self.gate = Router(d_model, n_experts, top_k, scale, n_group, topk_group, norm_topk)
        self.experts = Experts(n_experts, d_latent or d_model, d_expert)
        self.shared_experts = MLP(d_model, d_shared) if d_shared else None
        latent = d_latent is not None
        self.fc1_latent_proj = nn.Linear(d_model, d_latent, bias=False) if latent else None
        self.fc2_latent_proj = nn.Linear(d_latent, d_model, bias=False) if latent else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model)."""
        y = self._routed(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)

    def _routed(self, x: Tensor) -> Tensor:
        routing = self.gate(x)
        inner = x if self.fc1_latent_proj is None else self.fc1_latent_proj(x)
        y = self.experts(inner.reshape(-1, inner.shape[-1]), routing).view(inner.shape)
        return y if self.fc2_latent_proj is None else self.fc2_latent_proj(y)


class Experts(nn.Module):
    """All routed experts in two stacks of weights, up (E, M, D) and down (E, D, M).

    Args:
        n_experts: E.
        d_model: D.
        d_expert: M.
    """

    def __init__(self, n_experts: int, d_model: int, d_expert: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(n_experts, d_expert, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, d_expert))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal with 0.02."""
        nn.init.normal_(self.up, std=0.02)
        nn.init.normal_(self.down, std=0.02)

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Tokens (T, D) and where they go -> the weighted sum of each token's experts (T, D)."""
        x_TD, up, down = self._operands(x_TD)
        if torch.compiler.is_compiling() or not x_TD.is_cpu:
            return routed_mlp(*_sorted(routing), x_TD, up, down)
        if len(x_TD) <= FEW and not watched(x_TD, routing.gate, up, down):
            return few_tokens_mlp(routing.expert, routing.gate, x_TD, up, down)
        # Row e of the transposed matrix lists the tokens of expert e and their weights.
        to_experts = routing.matrix.T
        return routed_mlp(to_experts.pattern.layout, to_experts.values, x_TD, up, down)

    def _operands(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and both stacks, of autocast's dtype as in any linear layer there."""
        if not autocasts(x_TD):
            return x_TD, self.up, self.down
        dtype = torch.get_autocast_dtype(x_TD.device.type)
        return x_TD.to(dtype), self.up.to(dtype), self.down.to(dtype)

    def extra_repr(self) -> str:
        """The sizes, for `print(module)`."""
        n_experts, d_expert, d_model = self.up.shape
        return f"{n_experts} x ({d_model} -> {d_expert} -> {d_model})"


def _sorted(routing: Routing) -> tuple[Layout, Tensor]:
    """The transposed matrix of the gates, found by sorting, without a `Pattern`.

    Compiled code cannot make one, and a GPU would have to wait for the CPU, which counts a
    pattern's entries. Every shape here is known beforehand.
    """
    (n_tokens, k), n_experts = routing.expert.shape, routing.scores.shape[1]
    col, order = routing.expert.flatten().sort(stable=True)
    ends = torch.searchsorted(col, torch.arange(n_experts + 1, device=col.device))
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=col.device))
    t_crow = torch.arange(n_tokens + 1, device=col.device) * k
    t_col = routing.expert.flatten()
    layout = Layout(ends, order // k, None, t_crow, t_col, place, n_experts, n_tokens)
    return layout, routing.gate.flatten().gather(0, order)


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
