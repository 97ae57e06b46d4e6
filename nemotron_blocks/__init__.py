"""Hybrid Mamba-2 / attention / MoE language models: train, generate, load.

The family of Nemotron-H, Nemotron Nano 2 and Nemotron 3, each by its pattern string.
"""

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.cache import Cache
from nemotron_blocks.config import HybridConfig
from nemotron_blocks.generate import Generation, stream
from nemotron_blocks.loss import next_token_loss
from nemotron_blocks.model import HybridLM
from nemotron_blocks.planner import Plan, plan
from nemotron_blocks.sampling import Sampling

__all__ = [
    "Cache",
    "Generation",
    "HybridConfig",
    "HybridLM",
    "Plan",
    "Sampling",
    "ThinkingBudget",
    "next_token_loss",
    "plan",
    "stream",
]
