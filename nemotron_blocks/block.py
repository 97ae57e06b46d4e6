"""A residual block around any mixer, and the mixer that a symbol of the pattern stands for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemotron_blocks.attention import Attention
from nemotron_blocks.cache import Layer
from nemotron_blocks.config import HybridConfig
from nemotron_blocks.mamba2 import Mamba2
from nemotron_blocks.mlp import MLP
from nemotron_blocks.moe import MoE
from nemotron_blocks.norm import RMSNorm
from nemotron_blocks.sequence import Sequence


class Block(nn.Module):
    """x + mixer(norm(x)).

    Args:
        config: of the model.
        symbol: of the pattern: "M", "*", "-" or "E".

    Attributes:
        recompute: whether training recomputes the inside in the backward pass, for memory.
    """

    def __init__(self, config: HybridConfig, symbol: str) -> None:
        super().__init__()
        self.symbol, self.recompute = symbol, False
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = mixer(config, symbol)

    def forward(self, x_BLD: Tensor, sequence: Sequence, kept: Layer = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `kept` is what the block has in a cache."""
        if self.recompute and self.training and kept is None and torch.is_grad_enabled():
            return checkpoint(self._inside, x_BLD, sequence, use_reentrant=False)
        return self._inside(x_BLD, sequence, kept)

    def _inside(self, x_BLD: Tensor, sequence: Sequence, kept: Layer = None) -> Tensor:
        normed = self.norm(x_BLD)
        if self.symbol in "M*":
            return x_BLD + self.mixer(normed, sequence, kept)
        return x_BLD + self.mixer(normed)


def mixer(config: HybridConfig, symbol: str) -> nn.Module:
    """The mixer of a symbol."""
    c = config
    match symbol:
        case "M":
            return Mamba2(
                c.d_model, c.mamba_heads, c.mamba_head_dim, c.n_groups, c.d_state, c.d_conv,
                c.chunk_size, c.dt_limit, c.norm_eps,
            )  # fmt: skip
        case "*":
            return Attention(c.d_model, c.n_heads, c.n_kv_heads, c.head_dim)
        case "-":
            return MLP(c.d_model, c.d_ff)
        case "E":
            return MoE(
                c.d_model, c.n_experts, c.top_k, c.d_expert, c.d_shared, c.d_latent, c.route_scale,
                c.n_group, c.topk_group, c.norm_topk,
            )  # fmt: skip
    raise ValueError(f"symbol: expected one of 'M', '*', '-' and 'E', got {symbol!r}")
