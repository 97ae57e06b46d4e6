"""All initial weights of a model, in one place."""

from __future__ import annotations

import math

import torch
from torch import nn

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.mamba2 import Mamba2

OUTPUTS = ("out_proj.weight", "o_proj.weight", "down_proj.weight")
"""Ends of the names of weights that write to the residual stream, those of experts apart."""


@torch.no_grad()
def initialize(model: nn.Module, config: HybridConfig) -> None:
    """Draw all weights, with torch's random numbers.

    Embeddings, projections and experts are normal with `config.init_std`, those that write to the
    residual stream with that over the root of the number of blocks. Norms are one. For Mamba-2 the
    decay -A is uniform from 1 to 16, D is one, and time steps are log-uniform from dt_min to
    dt_max, as in the authors' code of arXiv:2405.21060; convolutions are uniform to 1 / sqrt(taps),
    with a bias of zero. Hugging Face's start, A = 1, 2, ..., heads, forgets too fast in most heads.
    """
    small = config.init_std / math.sqrt(len(config.layers))
    experts = "experts.down" if config.d_latent is None else "fc2_latent_proj.weight"
    for name, weight in model.named_parameters():
        if name.endswith((*OUTPUTS, experts)):
            nn.init.normal_(weight, std=small)
        elif "conv1d" not in name and weight.ndim > 1:
            nn.init.normal_(weight, std=config.init_std)
    for module in model.modules():
        if isinstance(module, Mamba2):
            _initialize_mamba(module, config)


def _initialize_mamba(mixer: Mamba2, config: HybridConfig) -> None:
    bound = config.d_conv**-0.5
    mixer.conv1d.weight.uniform_(-bound, bound)
    assert mixer.conv1d.bias is not None
    mixer.conv1d.bias.zero_()
    mixer.A_log.uniform_(1.0, 16.0).log_()
    mixer.D.fill_(1.0)
    low, high = math.log(config.dt_min), math.log(config.dt_max)
    dt = torch.empty_like(mixer.dt_bias).uniform_(low, high).exp_().clamp_(min=config.dt_floor)
    mixer.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt
