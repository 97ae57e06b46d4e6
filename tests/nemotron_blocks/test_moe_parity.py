"""The same weights give the same results and gradients in transformers' mixture of experts."""

import os

import pytest
import torch
from torch import nn

from nemotron_blocks.moe import MoE

if not os.environ.get("CI"):  # which must have it
    pytest.importorskip(
        "transformers", "5.17", reason="no transformers 5.17: parity of experts is NOT tested"
    )
from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMoE

D, E, K, M, SHARED = 24, 8, 3, 16, 20
MODELS = {
    "plain": {},
    "latent": {"d_latent": 12},
    "groups": {"n_group": 4, "topk_group": 2},
    "latent groups": {"d_latent": 8, "n_group": 2, "topk_group": 1},
    "weights as they are": {"norm_topk": False, "scale": 1.0},
    "one expert": {"top_k": 1, "norm_topk": False},
    "all experts": {"top_k": 8},
}
RENAMED = {"experts.up": "experts.up_proj", "experts.down": "experts.down_proj"}


def theirs(top_k=K, d_latent=None, scale=2.5, n_group=1, topk_group=1, norm_topk=True) -> nn.Module:
    config = NemotronHConfig(
        vocab_size=32,
        hidden_size=D,
        layers_block_type=["moe"],
        n_routed_experts=E,
        num_experts_per_tok=top_k,
        moe_intermediate_size=M,
        moe_shared_expert_intermediate_size=SHARED,
        moe_latent_size=d_latent,
        routed_scaling_factor=scale,
        n_group=n_group,
        topk_group=topk_group,
        norm_topk_prob=norm_topk,
    )
    config._experts_implementation = "eager"
    block = NemotronHMoE(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(std=0.3)
        block.gate.e_score_correction_bias.uniform_(-0.3, 0.3)
    return block


def pair(**changes) -> tuple[MoE, nn.Module]:
    """Our block and theirs, with the same weights."""
    sizes = {"top_k": K, "scale": 2.5} | changes
    ours = MoE(D, E, d_expert=M, d_shared=SHARED, **sizes)
    block = theirs(**changes)
    state = block.state_dict()
    ours.load_state_dict({name: state[RENAMED.get(name, name)] for name in ours.state_dict()})
    return ours, block


def assert_close(name, got, want):
    error = (got - want).norm() / want.norm().clamp(min=1e-30)
    assert float(error) <= 1e-5, name


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_result_and_every_gradient_agree(changes):
    ours, block = pair(**changes)
    x = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(1)).requires_grad_()
    direction = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(2))
    got, want = ours(x), block(x)
    assert_close("result", got.detach(), want.detach())
    names = dict(ours.named_parameters())
    weights = dict(block.named_parameters())
    same = [weights[RENAMED.get(name, name)] for name in names]
    our_grads = torch.autograd.grad(got, [x, *names.values()], direction)
    their_grads = torch.autograd.grad(want, [x, *same], direction)
    for name, a, b in zip(["x", *names], our_grads, their_grads, strict=True):
        assert_close(name, a, b)


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_one_token_at_a_time_agrees(changes):
    ours, block = pair(**changes)
    x = torch.randn(3, 1, D, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for token in x:
            assert_close("result", ours(token[None]), block(token[None]))


def test_without_a_shared_expert_the_routed_ones_remain():
    ours, block = pair()
    alone = MoE(D, E, K, M, scale=2.5)
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith("shared")}
    alone.load_state_dict(state)
    x = torch.randn(2, 9, D, generator=torch.Generator().manual_seed(1))
    want = block(x) - block.get_submodule("shared_experts")(x)
    assert_close("result", alone(x).detach(), want.detach())
