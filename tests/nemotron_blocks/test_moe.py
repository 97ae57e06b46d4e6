"""The mixture of experts as a block: properties, precision, what it keeps, what it refuses."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from nemotron_blocks.mlp import MLP
from nemotron_blocks.moe import MoE

D, E, K, M = 16, 8, 2, 12
KINDS = {
    "plain": {},
    "shared": {"d_shared": 20},
    "latent": {"d_shared": 20, "d_latent": 6},
}


def block(**changes) -> MoE:
    torch.manual_seed(0)
    made = MoE(D, E, K, M, **changes, scale=2.5)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
    return made


def tokens(*shape, seed=1) -> torch.Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def by_hand(made: MoE, x: torch.Tensor) -> torch.Tensor:
    """The block by dense products: every expert for every token, times its weight or zero."""
    weights = made.gate(x).matrix.to_dense().view(*x.shape[:-1], E)
    inner = x if made.fc1_latent_proj is None else made.fc1_latent_proj(x)
    hidden = torch.einsum("blw,emw->blem", inner, made.experts.up).relu().square()
    y = torch.einsum("blem,ewm,ble->blw", hidden, made.experts.down, weights.to(x.dtype))
    y = y if made.fc2_latent_proj is None else made.fc2_latent_proj(y)
    if made.shared_experts is None:
        return y
    shared = made.shared_experts
    return y + (x @ shared.up_proj.weight.T).relu().square() @ shared.down_proj.weight.T


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_result_and_every_gradient_are_those_of_all_experts_for_all_tokens(changes):
    made, x = block(**changes), tokens(2, 7).requires_grad_()
    direction = tokens(2, 7, seed=2)
    got, want = made(x), by_hand(made, x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    leaves = {"x": x, **dict(made.named_parameters())}
    ours, theirs = (torch.autograd.grad(y, [*leaves.values()], direction) for y in (got, want))
    for name, a, b in zip(leaves, ours, theirs):
        assert float((a - b).norm() / b.norm()) <= 1e-5, name


def test_float64_is_exact():
    made, x = block(**KINDS["latent"]).double(), tokens(2, 7).double()
    torch.testing.assert_close(made(x), by_hand(made, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 5), (0, 4), (3, 0)])
def test_any_number_of_tokens_with_and_without_gradients(shape):
    made, x = block(**KINDS["latent"]), tokens(*shape)
    with torch.no_grad():
        alone = made(x)
    assert alone.shape == x.shape
    torch.testing.assert_close(made(x).detach(), alone)
    made(x).sum().backward()
    assert all(weight.grad is not None for weight in made.parameters())


def test_permuted_tokens_give_permuted_results():
    made, x = block(**KINDS["shared"]), tokens(1, 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made(x[:, order]), made(x)[:, order], rtol=1e-5, atol=1e-6)


def test_an_expert_without_tokens_gets_zero_gradients():
    made = block()
    made.gate.e_score_correction_bias[3] = -10.0
    made(tokens(1, 30)).sum().backward()
    assert made.experts.up.grad is not None
    assert made.experts.down.grad is not None
    idle = [
        not made.experts.up.grad[e].any() and not made.experts.down.grad[e].any() for e in range(E)
    ]
    assert idle == [e == 3 for e in range(E)]


def test_bfloat16_and_autocast_are_near_float32():
    made, x = block(**KINDS["latent"]), tokens(4, 50).bfloat16().float()
    made = made.bfloat16().float()
    want = made(x)
    low = copy.deepcopy(made).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        under = made(x)
    for got in (low, under):
        assert ((got - want).norm() / want.norm()).item() < 0.02
    under.float().sum().backward()
    assert made.experts.up.grad is not None
    assert made.experts.up.grad.dtype == torch.float32


def test_compiled_training_gives_the_same_numbers():
    made, x = block(**KINDS["latent"]), tokens(2, 7)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    got, want = compiled(x), made(x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    weights = list(made.parameters())
    for a, b in zip(
        torch.autograd.grad(got.sum(), weights), torch.autograd.grad(want.sum(), weights)
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_checkpointing_gives_the_same_gradients_and_the_same_update():
    made, x = block(), tokens(2, 7).requires_grad_()
    again = copy.deepcopy(made)
    made(x).square().sum().backward()
    y = checkpoint(again, x, use_reentrant=False)
    assert isinstance(y, torch.Tensor)
    y.square().sum().backward()
    for a, b in zip(made.parameters(), again.parameters()):
        torch.testing.assert_close(a.grad, b.grad)
    made.gate.update_bias()
    again.gate.update_bias()
    assert torch.equal(made.gate.e_score_correction_bias, again.gate.e_score_correction_bias)


def test_names_in_memory():
    assert {name: tuple(t.shape) for name, t in block(**KINDS["latent"]).state_dict().items()} == {
        "gate.weight": (E, D),
        "gate.e_score_correction_bias": (E,),
        "experts.up": (E, M, 6),
        "experts.down": (E, 6, M),
        "shared_experts.up_proj.weight": (20, D),
        "shared_experts.down_proj.weight": (D, 20),
        "fc1_latent_proj.weight": (6, D),
        "fc2_latent_proj.weight": (D, 6),
    }


def test_parameters_of_a_layer_of_nemotron_3_nano():
    with torch.device("meta"):
        layer = MoE(2688, 128, 6, 1856, 3712, scale=2.5)
    routed, shared, router = 128 * 2 * 2688 * 1856, 2 * 2688 * 3712, 128 * 2688
    assert sum(weight.numel() for weight in layer.parameters()) == routed + shared + router


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_expert": 0}, "d_expert: expected at least 1"),
        ({"d_latent": 0}, "d_latent: expected at least 1"),
        ({"d_shared": -1}, "d_shared: expected at least 0"),
        ({"top_k": 9}, "top_k: expected at most the 8 experts"),
        ({"n_group": 3}, "n_group: expected a divisor"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        MoE(**{"d_model": D, "n_experts": E, "top_k": K, "d_expert": M} | changes)


def test_mlp_is_two_linear_layers_around_the_squared_relu():
    torch.manual_seed(0)
    mlp, x = MLP(D, 20), tokens(2, 3).requires_grad_()
    want = (x @ mlp.up_proj.weight.T).relu().square() @ mlp.down_proj.weight.T
    torch.testing.assert_close(mlp(x), want)
    leaves = (x, *mlp.parameters())
    for a, b in zip(
        torch.autograd.grad(mlp(x).sum(), leaves), torch.autograd.grad(want.sum(), leaves)
    ):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="d_inner: expected at least 1"):
        MLP(D, 0)
