"""Small models and packed documents for tests."""

from typing import Any

import torch

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.model import HybridLM

SIZES: dict[str, Any] = {
    "d_model": 32, "vocab_size": 61, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "d_ff": 48,
    "mamba_heads": 4, "mamba_head_dim": 8, "n_groups": 2, "d_state": 16, "n_experts": 8,
    "top_k": 2, "d_expert": 24, "d_shared": 40, "route_scale": 2.5, "chunk_size": 8,
}  # fmt: skip


def small_config(pattern="M*-M", **changes):
    return HybridConfig(pattern=pattern, **SIZES | changes)


def small_model(pattern="M*-M", seed=0, **changes):
    """A model whose weights are large enough that every block has a say."""
    torch.manual_seed(seed)
    return HybridLM(small_config(pattern, **{"init_std": 0.2} | changes))


def drawn_tokens(*shape, seed=1):
    return torch.randint(61, shape, generator=torch.Generator().manual_seed(seed))
