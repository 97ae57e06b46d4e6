"""Multi-token prediction: one block, applied repeatedly, that sees one token further each time.

B: sequences, L: tokens, D: d_model
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemotron_blocks.block import Block
from nemotron_blocks.cache import Layer
from nemotron_blocks.config import HybridConfig
from nemotron_blocks.norm import RMSNorm
from nemotron_blocks.sequence import Sequence


class TokensAhead(nn.Module):
    """From the hidden states h of tokens i, and the embeddings of tokens i + k, the next h.

        h^k_i = norm(Block(W [norm_e(Emb(t_(i+k))); norm_h(h^(k-1)_i)])),   h^0 of the backbone

    whose logits, by the model's own output, are of token i + k + 1. With one set of weights for all
    k, as in Nemotron 3 (arXiv:2604.12374), after DeepSeek-V3 (arXiv:2412.19437, section 2.2).

    Args:
        config: of the model; its pattern has a suffix.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        d = config.d_model
        self.enorm = RMSNorm(d, config.norm_eps)
        self.hnorm = RMSNorm(d, config.norm_eps)
        self.eh_proj = nn.Linear(2 * d, d, bias=False)
        self.layers = nn.ModuleList(Block(config, symbol) for symbol in config.mtp_layers)
        self.final_layernorm = RMSNorm(d, config.norm_eps)

    def forward(
        self,
        hidden_BLD: Tensor,
        embedded_BLD: Tensor,
        sequence: Sequence,
        kept: list[Layer] | None = None,
    ) -> Tensor:
        """(B, L, D): h^k, from h^(k-1) and the embeddings of the tokens k places on."""
        both = torch.cat([self.enorm(embedded_BLD), self.hnorm(hidden_BLD)], dim=-1)
        x_BLD = self.eh_proj(both)
        for k, layer in enumerate(self.layers):
            x_BLD = layer(x_BLD, sequence, kept[k] if kept else None)
        return self.final_layernorm(x_BLD)
