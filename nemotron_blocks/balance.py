"""How evenly tokens are spread over experts, and what evens it out.

B: sequences, L: tokens of a sequence, E: experts, S: documents
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Load(NamedTuple):
    """Statistics of how many tokens each expert gets, 0-d tensors.

    max_vio: largest load over the mean, minus one: 0 for even loads, and at most E / K - 1 where a
    token goes to K of E experts. entropy: of the shares of the loads, over its maximum log E: 1 for
    even loads, 0 where one expert gets all.
    """

    max_vio: Tensor
    entropy: Tensor


def load_statistics(counts_E: Tensor) -> Load:
    """MaxVio (Wang et al., arXiv:2408.15664) and entropy of loads (E,); both 0 without tokens."""
    share = counts_E.double() / counts_E.sum().clamp(min=1)
    max_vio = (share.max() * len(share) - 1).clamp(min=0)
    entropy = torch.special.entr(share).sum() / math.log(max(len(share), 2))
    return Load(max_vio.float(), entropy.float())


@torch.no_grad()
def update_bias(bias_E: Tensor, counts_E: Tensor, rate: float = 1e-3) -> None:
    """b += rate * sign(mean load - load), in place: the update without an auxiliary loss.

    bias (E,) float32, counts (E,) of all processes together. Wang et al., arXiv:2408.15664,
    algorithm 1.

    Raises:
        ValueError: the shapes differ.
    """
    if bias_E.shape != counts_E.shape:
        raise ValueError(
            f"counts: expected one for each bias, {tuple(bias_E.shape)}, got shape "
            f"{tuple(counts_E.shape)}"
        )
    loads = counts_E.double()
    bias_E += rate * torch.sign(loads.mean() - loads).to(bias_E.dtype)


def sequence_balance_loss(
    scores_BLE: Tensor,
    top_k: int,
    seq_idx_BL: Tensor | None = None,
    mask_BL: Tensor | None = None,
) -> Tensor:
    """E / (K n) sum over experts of f_e P_e, the mean over sequences; 1 for even loads.

    For a sequence of n tokens, f_e is how many of them have expert e among their K best scores, and
    P_e the mean of the scores over their sum: DeepSeek-V3 (arXiv:2412.19437), equations 17 to 20,
    without the factor alpha. As there, the choice is that of the scores alone, without bias and
    groups. Gradients flow through P. Nearest equivalent: Megatron's `seq_aux_loss`.

    Args:
        scores_BLE: (B, L, E) sigmoid scores: `routing.scores.unflatten(0, (B, L))`.
        top_k: K.
        seq_idx_BL: (B, L) documents that are packed one after another in a row; each is a sequence.
        mask_BL: (B, L) bool, the tokens that count; all by default. Sequences without any do not.

    Raises:
        ValueError: shapes that do not fit, or K is not from 1 to E.
    """
    _check_scores(scores_BLE, top_k, seq_idx_BL, mask_BL)
    n_experts = scores_BLE.shape[2]
    chosen = torch.zeros_like(scores_BLE, requires_grad=False)
    chosen.scatter_(2, scores_BLE.detach().topk(top_k, sorted=False).indices, 1)
    share = scores_BLE / (scores_BLE.sum(2, keepdim=True) + 1e-20)
    if mask_BL is not None:
        chosen, share = (t.masked_fill(~mask_BL[:, :, None], 0) for t in (chosen, share))
    counted = torch.ones_like(scores_BLE[..., 0]) if mask_BL is None else mask_BL.to(share.dtype)
    f_SE, P_SE, n_S = (_per_sequence(t, seq_idx_BL) for t in (chosen, share, counted))
    n_S = n_S.clamp(min=1)
    losses_S = (f_SE * P_SE).sum(1) * n_experts / (top_k * n_S * n_S)
    any_S = _per_sequence(counted, seq_idx_BL) > 0
    return losses_S.sum() / any_S.sum().clamp(min=1)


def _per_sequence(t_BL: Tensor, seq_idx_BL: Tensor | None) -> Tensor:
    """Sums over the tokens of each sequence: (B, L, ...) -> (S, ...)."""
    if seq_idx_BL is None:
        return t_BL.sum(1)
    begins = torch.ones_like(seq_idx_BL, dtype=torch.bool)
    begins[:, 1:] = seq_idx_BL[:, 1:] != seq_idx_BL[:, :-1]
    number = begins.flatten().cumsum(0) - 1
    sums = t_BL.new_zeros(int(number[-1]) + 1 if len(number) else 0, *t_BL.shape[2:])
    return sums.index_add(0, number, t_BL.flatten(0, 1))


def _check_scores(scores: Tensor, top_k: int, seq_idx: Tensor | None, mask: Tensor | None) -> None:
    if scores.ndim != 3:
        raise ValueError(f"scores: expected (B, L, E), got shape {tuple(scores.shape)}")
    if not 1 <= top_k <= scores.shape[2]:
        raise ValueError(f"top_k: expected 1 to {scores.shape[2]}, the experts, got {top_k}")
    for name, tensor in (("seq_idx", seq_idx), ("mask", mask)):
        if tensor is not None and tensor.shape != scores.shape[:2]:
            raise ValueError(
                f"{name}: expected (B, L) as scores, {tuple(scores.shape[:2])}, got "
                f"{tuple(tensor.shape)}"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask: expected bool, got {mask.dtype}")
