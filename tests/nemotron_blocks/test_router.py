"""What a router chooses, by the definition and by properties that hold for any weights."""

import copy
import math

import pytest
import torch
from processes import run_together
from torch.utils.checkpoint import checkpoint

from nemotron_blocks.balance import Load, sequence_balance_loss
from nemotron_blocks.moe import MoE
from nemotron_blocks.router import Router, collect_routings, update_biases

D, E, K = 16, 8, 3


def router(seed=0, **changes) -> Router:
    torch.manual_seed(seed)
    made = Router(D, E, **{"top_k": K, "scale": 2.5} | changes)
    torch.nn.init.normal_(made.weight, std=0.5)
    made.e_score_correction_bias.uniform_(-0.2, 0.2)
    return made


def tokens(*shape, seed=1) -> torch.Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def chosen_by_definition(made: Router, x: torch.Tensor) -> tuple[list[int], dict[int, float]]:
    """The experts of one token and their weights, one number at a time."""
    scores = [1 / (1 + math.exp(-(w @ x).item())) for w in made.weight.detach().double()]
    value = [s + float(b) for s, b in zip(scores, made.e_score_correction_bias)]
    size = E // made.n_group
    groups = [range(g * size, (g + 1) * size) for g in range(made.n_group)]
    groups.sort(key=lambda g: -sum(sorted((value[e] for e in g), reverse=True)[:2]))
    open_ = [e for group in groups[: made.topk_group] for e in group]
    best = sorted(open_, key=lambda e: -value[e])[: made.top_k]
    total = sum(scores[e] for e in best) if made.norm_topk else 1.0
    return sorted(best), {e: made.scale * scores[e] / total for e in best}


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_group": 4, "topk_group": 2}, {"n_group": 8, "topk_group": 4}, {"norm_topk": False}],
    ids=str,
)
def test_experts_and_weights_follow_the_definition(changes):
    made, x = router(**changes), tokens(11)
    matrix = made(x).matrix
    dense = matrix.to_dense()
    for t, token in enumerate(x):
        experts, weights = chosen_by_definition(made, token.double())
        assert dense[t].nonzero()[:, 0].tolist() == experts
        want = torch.tensor([weights[e] for e in experts])
        torch.testing.assert_close(dense[t, experts], want, atol=1e-5, rtol=1e-5)


def test_every_token_has_k_experts_and_its_weights_sum_to_the_scale():
    matrix = router()(tokens(4, 5)).matrix
    assert matrix.shape == (20, E)
    assert matrix.pattern.crow.diff().tolist() == [K] * 20
    torch.testing.assert_close(matrix.sum(-1), torch.full((20,), 2.5))


def test_a_permutation_of_tokens_permutes_the_routing():
    made, x = router(), tokens(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    assert torch.equal(made(x[order]).matrix.to_dense(), made(x).matrix.to_dense()[order])


def test_counts_are_those_of_the_columns():
    routing = router()(tokens(20))
    assert routing.counts.tolist() == (routing.matrix.to_dense() > 0).sum(0).tolist()
    assert routing.counts.dtype == torch.int64


def test_the_bias_chooses_and_does_not_weigh():
    made, x = router(), tokens(6)
    made.e_score_correction_bias.fill_(-1.0)
    made.e_score_correction_bias[[1, 4, 6]] = 1.0
    routing = made(x)
    assert routing.expert.tolist() == [[1, 4, 6]] * 6
    scores = torch.sigmoid(x @ made.weight.T)[:, [1, 4, 6]]
    torch.testing.assert_close(routing.gate, 2.5 * scores / scores.sum(1, keepdim=True))


def test_half_precision_and_autocast_change_no_choice():
    made, x = router(), tokens(200).bfloat16().float()
    want = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        under = made(x)
    assert torch.equal(under.expert, want.expert)
    assert torch.equal(under.gate, want.gate)
    rounded = copy.deepcopy(made)
    rounded.weight.data = made.weight.data.bfloat16().float()
    small = copy.deepcopy(made).bfloat16()
    got, want = small(x.bfloat16()), rounded(x)
    assert got.gate.dtype == torch.float32
    assert torch.equal(got.expert, want.expert)


def test_converting_the_module_leaves_the_bias_exact():
    made = router()
    bias = made.e_score_correction_bias.clone()
    assert made.half().weight.dtype == torch.float16
    assert made.e_score_correction_bias.dtype == torch.float32
    assert torch.equal(made.bfloat16().e_score_correction_bias, bias)
    assert "e_score_correction_bias" in made.state_dict()
    made.to("meta").bfloat16()
    assert made.e_score_correction_bias.dtype == torch.float32
    assert made.e_score_correction_bias.is_meta


def test_tokens_count_in_training_only_and_until_the_update():
    made, x = router(), tokens(10)
    assert made.counts is None
    made(x)
    made(x)
    assert made.counts is not None
    assert int(made.counts.sum()) == 2 * 10 * K
    with torch.no_grad():
        made(x)
    made.eval()(x)
    assert int(made.counts.sum()) == 2 * 10 * K
    made.update_bias()
    assert made.counts is None
    with pytest.raises(RuntimeError, match="no token was routed in training"):
        made.update_bias()


def test_the_update_moves_each_bias_by_the_rate():
    made, x = router(), tokens(10)
    before = made.e_score_correction_bias.clone()
    counts = made(x).counts.double()
    made.update_bias(0.01)
    step = 0.01 * torch.sign(counts.mean() - counts)
    torch.testing.assert_close(made.e_score_correction_bias, before + step.float())


def test_updates_even_out_a_skewed_router():
    made, x = router(), tokens(500)
    made.e_score_correction_bias.zero_()
    made.weight.data[:2] += 0.5 * x.mean(0) + 0.4
    x = x + 0.5  # so that experts 0 and 1 are everybody's favourites
    first = float(made(x).load.max_vio)
    made.update_bias(0.0)
    for _ in range(200):
        made(x)
        made.update_bias(0.01)
    last = made(x).load
    assert first > 1.0
    assert float(last.max_vio) < 0.2
    assert float(last.entropy) > 0.99


def one_of_two() -> tuple[torch.Tensor, torch.Tensor, Load]:
    """The counts of this process's tokens, and the bias and loads after an update."""
    made = router()
    counts = made(tokens(30, seed=torch.distributed.get_rank())).counts
    load = made.update_bias(0.01)
    return counts, made.e_score_correction_bias, load


def test_two_processes_update_as_one_that_has_all_tokens(tmp_path):
    found = run_together(one_of_two, 2, tmp_path, preload=["nemotron_blocks.moe"])
    made = router()
    made(torch.cat([tokens(30, seed=rank) for rank in (0, 1)]))
    load = made.update_bias(0.01)
    assert not torch.equal(found[0][0], found[1][0])  # of each process alone
    for _, bias, loads in found:
        assert torch.equal(bias, made.e_score_correction_bias)
        torch.testing.assert_close(loads.max_vio, load.max_vio)


def test_all_routers_of_a_model_are_updated_by_name():
    torch.manual_seed(0)
    model = torch.nn.Sequential(MoE(D, 4, 2, 8), torch.nn.Identity(), MoE(D, 6, 2, 8))
    model(tokens(50))
    gates = {"0.gate": model.get_submodule("0.gate"), "2.gate": model.get_submodule("2.gate")}
    alone = {name: copy.deepcopy(gate) for name, gate in gates.items()}
    loads = update_biases(model, 0.01)
    assert list(loads) == list(gates)
    for name, gate in gates.items():
        own = alone[name]
        assert isinstance(own, Router)
        assert own.update_bias(0.01) == loads[name]
        assert torch.equal(own.e_score_correction_bias, gate.get_buffer("e_score_correction_bias"))
        assert own.e_score_correction_bias.any()
    assert update_biases(torch.nn.Identity()) == {}


def test_a_router_that_saw_no_token_keeps_its_bias():
    torch.manual_seed(0)
    used, idle = MoE(D, 4, 2, 8), MoE(D, 6, 2, 8)
    used(tokens(50))
    loads = update_biases(torch.nn.ModuleList([used, idle]))
    assert used.gate.e_score_correction_bias.any()
    assert not idle.gate.e_score_correction_bias.any()
    assert loads["1.gate"].max_vio == 0


def test_routings_of_a_model_are_collected_in_order():
    torch.manual_seed(0)
    model = torch.nn.Sequential(MoE(D, 4, 2, 8), MoE(D, 6, 2, 8))
    with collect_routings(model) as routings:
        model(tokens(5))
    model(tokens(5))  # behind the block nothing is collected
    assert [routing.scores.shape for routing in routings] == [(5, 4), (5, 6)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 9}, "top_k: expected at most the 8 experts"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"n_group": 3}, "n_group: expected a divisor of 8 experts, got 3"),
        ({"n_group": 2, "topk_group": 3}, "topk_group: expected at most the 2 groups, got 3"),
        ({"n_group": 4, "topk_group": 1}, "top_k: expected at most the 2 experts"),
        ({"topk_group": 0}, "topk_group: expected at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        router(**changes)


def test_the_balance_loss_of_collected_routings_reaches_the_routers():
    torch.manual_seed(0)
    model, x = MoE(D, 6, 2, 8), tokens(3, 5)

    def gradients(run) -> list[torch.Tensor]:
        with collect_routings(model) as routings:
            y = run()
        (routing,) = routings
        loss = y.square().sum() + sequence_balance_loss(routing.scores.unflatten(0, (3, 5)), 2)
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = gradients(lambda: model(x))
    without = torch.autograd.grad(model(x).square().sum(), model.gate.weight)[0]
    assert not torch.equal(plain[0], without)
    for a, b in zip(gradients(lambda: checkpoint(model, x, use_reentrant=False)), plain):
        torch.testing.assert_close(a, b)
