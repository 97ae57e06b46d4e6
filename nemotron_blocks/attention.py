"""Grouped-query attention without positions: order comes from the Mamba-2 blocks around it.

B: sequences, L: tokens, S: tokens so far, D: d_model, H: heads, K: heads of keys and values,
E: head_dim
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nemotron_blocks.cache import KeyValues
from nemotron_blocks.sequence import Sequence
from sparsetorch_kernels import watched


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(head_dim)) V over the tokens so far of the same document.

    No bias, no rotary or other positions, no norm of queries and keys.

    Args:
        d_model: D.
        n_heads, n_kv_heads: of queries, and of keys and values, which groups of heads share.
        head_dim: of each.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * head_dim, d_model, bias=False)

    def forward(self, x_BLD: Tensor, sequence: Sequence, kept: KeyValues | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `kept` gets the tokens' keys and values."""
        q_BHLE, k_BKLE, v_BKLE = (
            project(x_BLD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        k_BKSE, v_BKSE = self._so_far(k_BKLE, v_BKLE, sequence, kept)
        if sequence.length == 1:
            y_BHLE = _of_one_token(q_BHLE, k_BKSE, v_BKSE, sequence.mask)
        else:
            y_BHLE = scaled_dot_product_attention(
                q_BHLE,
                k_BKSE,
                v_BKSE,
                attn_mask=sequence.mask,
                is_causal=sequence.causal,
                enable_gqa=q_BHLE.shape[1] != k_BKSE.shape[1],
            )
        return self.o_proj(y_BHLE.transpose(1, 2).flatten(2))

    def _so_far(
        self, k_BKLE: Tensor, v_BKLE: Tensor, sequence: Sequence, kept: KeyValues | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of these tokens and those before."""
        if kept is None:
            return k_BKLE, v_BKLE
        start, stop = sequence.start, sequence.start + sequence.length
        if sequence.place is not None:
            kept.keys.index_copy_(2, sequence.place, k_BKLE.to(kept.keys.dtype))
            kept.values.index_copy_(2, sequence.place, v_BKLE.to(kept.values.dtype))
            return kept.keys[:, :, :stop], kept.values[:, :, :stop]
        kept.keys[:, :, start:stop] = k_BKLE.detach()
        kept.values[:, :, start:stop] = v_BKLE.detach()
        if torch.is_grad_enabled() or watched(k_BKLE, v_BKLE):
            # Copies: the next pass writes into what is kept, which a backward pass may not see, and
            # what is kept has no tangents.
            k_BKSE = torch.cat([kept.keys[:, :, :start], k_BKLE], dim=2)
            return k_BKSE, torch.cat([kept.values[:, :, :start], v_BKLE], dim=2)
        return kept.keys[:, :, :stop], kept.values[:, :, :stop]


def _of_one_token(q_BH1E: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Tensor | None) -> Tensor:
    """Its attention, (B, H, 1, E): heads that share keys and values are as queries of one head.

    With a mask PyTorch would copy keys and values for each head that shares them.
    """
    q_BKQE = q_BH1E.unflatten(1, (k_BKSE.shape[1], -1)).squeeze(3)
    y_BKQE = scaled_dot_product_attention(q_BKQE, k_BKSE, v_BKSE, attn_mask=mask)
    return y_BKQE.flatten(1, 2).unsqueeze(2)
